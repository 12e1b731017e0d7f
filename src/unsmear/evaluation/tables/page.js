"use strict";
// Two pictures of one case, wiped or flipped over each other. Reads the JSON in #pictures; needs nothing else.
(() => {
  const cases = JSON.parse(document.getElementById("pictures").textContent);
  if (!cases.length) return;
  const at = (id) => document.getElementById(id);
  const [which, left, right, zoom, wipe, flip] = ["case", "left", "right", "zoom", "wipe", "flip"].map(at);
  const [stage, layers, under, over, edge, status] = ["stage", "layers", "under", "over", "edge", "status"].map(at);
  let flipped = false; // in flip mode: whether the right picture is the one that is seen

  const mode = () => document.querySelector("input[name=mode]:checked").value;
  const shown = () => cases[which.value];
  const picture = (select) => shown().pictures[select.value];
  const named = (one) => one.label + (one.score ? ` (${one.score})` : "");

  function fill(select, texts, chosen) {
    select.replaceChildren(...texts.map((text, number) => new Option(text, number, false, number === chosen)));
  }

  function chooseCase() {
    const labels = shown().pictures.map(named);
    const keep = (select, first) => {
      const before = select.selectedOptions[0]?.dataset.label;
      const found = shown().pictures.findIndex((one) => one.label === before);
      fill(select, labels, found < 0 ? first : found);
      [...select.options].forEach((option, n) => { option.dataset.label = shown().pictures[n].label; });
    };
    keep(left, 0);
    const last = shown().pictures.findLastIndex((one) => one.label !== "truth"); // the method named last
    keep(right, last > 0 ? last : labels.length - 1);
    document.querySelectorAll(".zoombox").forEach((box) => box.remove());
    shown().boxes.forEach(([x, y, w, h, colour]) => {
      const box = document.createElement("div");
      box.className = "zoombox";
      const part = (value, whole) => `${(100 * value) / whole}%`;
      Object.assign(box.style, {
        left: part(x, shown().width), top: part(y, shown().height),
        width: part(w, shown().width), height: part(h, shown().height), borderColor: colour,
      });
      layers.append(box);
    });
    at("about").textContent = `${shown().title}, ${shown().name}: ${shown().chosen}. Licence: ${shown().licence}.`;
    choosePictures();
    setZoom();
  }

  function choosePictures() {
    under.src = picture(right).src;
    over.src = picture(left).src;
    under.alt = named(picture(right));
    over.alt = named(picture(left));
    at("tag-left").textContent = named(picture(left));
    at("tag-right").textContent = named(picture(right));
    draw();
  }

  // The left picture lies over the right one; the wipe cuts it off at the edge.
  function draw() {
    const flips = mode() === "flip";
    const part = flips ? (flipped ? 0 : 100) : Number(wipe.value);
    over.style.clipPath = `inset(0 ${100 - part}% 0 0)`;
    edge.style.left = `${part}%`;
    edge.classList.toggle("hidden", flips);
    at("tag-left").classList.toggle("hidden", flips && flipped);
    at("tag-right").classList.toggle("hidden", flips && !flipped);
    wipe.disabled = flips;
    flip.setAttribute("aria-pressed", String(flips && flipped));
    const [a, b] = [named(picture(left)), named(picture(right))];
    const words = flips ? `Showing ${flipped ? b : a}` : `${a} up to ${Math.round(part)} % of the width, then ${b}`;
    status.textContent = words;
    layers.setAttribute("aria-label", `${shown().title}, ${shown().name}: ${words}`);
    wipe.setAttribute("aria-valuetext", words);
  }

  function setZoom() {
    const factor = Number(zoom.value);
    layers.style.width = factor ? `${factor * shown().width}px` : "100%";
    layers.classList.toggle("crisp", factor > 1);
    const [x, y, w, h] = shown().boxes[0] ?? [0, 0, shown().width, shown().height];
    stage.scrollTo(factor * (x + w / 2) - stage.clientWidth / 2, factor * (y + h / 2) - stage.clientHeight / 2);
  }

  function setMode(name) {
    document.querySelector(`input[name=mode][value=${name}]`).checked = true;
  }

  function turn() {
    if (mode() === "flip") flipped = !flipped;
    else { setMode("flip"); flipped = false; }
    draw();
  }

  function step(select, by) {
    const count = select.options.length;
    select.selectedIndex = (select.selectedIndex + by + count) % count;
    select.dispatchEvent(new Event("change"));
  }

  function move(by) {
    setMode("wipe");
    wipe.value = String(Number(wipe.value) + by);
    draw();
  }

  const keys = {
    " ": turn, f: turn,
    w: () => { setMode("wipe"); draw(); },
    ArrowLeft: () => move(-2), ArrowRight: () => move(2), Home: () => move(-100), End: () => move(100),
    n: () => step(which, 1), p: () => step(which, -1), z: () => step(zoom, 1),
  };

  stage.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.altKey || event.metaKey ? null : keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  function drag(event) {
    if (event.buttons !== 1 || mode() !== "wipe") return;
    const area = layers.getBoundingClientRect();
    wipe.value = String((100 * (event.clientX - area.left)) / area.width);
    draw();
  }
  layers.addEventListener("pointerdown", (event) => { layers.setPointerCapture(event.pointerId); drag(event); });
  layers.addEventListener("pointermove", drag);
  layers.addEventListener("click", () => { if (mode() === "flip") turn(); });
  layers.addEventListener("dragstart", (event) => event.preventDefault());
  which.addEventListener("change", chooseCase);
  [left, right].forEach((select) => select.addEventListener("change", choosePictures));
  zoom.addEventListener("change", setZoom);
  wipe.addEventListener("input", draw);
  flip.addEventListener("click", turn);
  document.querySelectorAll("input[name=mode]").forEach((radio) => radio.addEventListener("change", draw));

  fill(which, cases.map((one) => `${one.title}: ${one.name}`), 0);
  at("viewer").classList.remove("hidden");
  chooseCase();
})();

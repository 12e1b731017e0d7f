"""The page: whole, well formed, escaped; in a real browser, where there is one, it wipes and flips."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from skimage import data

from unsmear.evaluation.tables import make_tables
from unsmear.photo import read_photo

VOID = {"meta", "img", "input", "br", "wbr", "link"}
NASTY = '<b>"O\'Neil" & Söhne</script>'


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of two methods on three pairs, one of a nasty name: all black and all white."""
    root = tmp_path_factory.mktemp("page")
    for number in range(3):
        sharp = data.astronaut()[40 * number : 40 * number + 200, 100:400]
        save(root / f"pairs/sharp/{number}.png", sharp)
        save(
            root / f"pairs/blur/{number}.png",
            ((sharp.astype(int) + np.roll(sharp, 5, 1)) // 2).astype(np.uint8),
        )
        save(root / f"black/{number}.png", np.zeros_like(sharp))
        save(root / f"white/{number}.png", np.full_like(sharp, 255))
    make_tables(
        ["input", f"Black={root / 'black'}", f"{NASTY}={root / 'white'}"], {"pairs": root / "pairs"},
        root / "out", workers=1,
    )  # fmt: skip
    return root / "out/tables.html"


class Reader(HTMLParser):
    """Collects tags, addresses and text, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(page):
    reader = Reader()
    text = page.read_text(encoding="utf-8")
    reader.feed(text)
    return text, reader


def test_the_page_is_well_formed_and_fetches_nothing(page):
    text, reader = read(page)
    assert not reader.open and len(set(reader.ids)) == len(reader.ids)
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert {address[1:] for address in reader.addresses if address[0] == "#"} <= set(reader.ids)
    assert "link" not in reader.tags and "iframe" not in reader.tags and "@import" not in text
    assert "default-src 'none'" in text


def test_names_are_escaped(page):
    text, reader = read(page)
    assert "<b>" not in text and "b" not in reader.tags
    assert "&lt;b&gt;&quot;O&#x27;Neil&quot; &amp; Söhne&lt;/script&gt;" in text
    assert reader.tags.count("script") == 2


def test_the_viewer_has_the_pictures(page):
    found = re.search(r"<script type='application/json' id='pictures'>(.*?)</script>", page.read_text())
    cases = json.loads(found[1])
    assert [len(one["pictures"]) for one in cases] == [4, 4]  # two cases; input, two methods, truth
    labels = [picture["label"] for picture in cases[0]["pictures"]]
    assert labels == ["input", "Black", NASTY, "truth"]
    for case in cases:
        for picture in case["pictures"]:
            assert base64.b64decode(picture["src"].partition(",")[2])[:3] == b"\xff\xd8\xff"
            assert bool(picture["score"]) == (picture["label"] != "truth")
        for x, y, width, height, _ in case["boxes"]:
            assert x >= 0 and x + width <= case["width"] and y >= 0 and y + height <= case["height"]


# In a browser. WebDriver (W3C) is JSON over HTTP to chromedriver, which is little enough to need no library.

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1200,1300",
         "--force-color-profile=srgb", "--force-device-scale-factor=1"]  # fmt: skip
EVENT = "new Event('input')"
ARROW_LEFT, END = "\ue012", "\ue010"


class Tab:
    """A page in a headless Chromium."""

    def __init__(self, port):
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._base = f"http://127.0.0.1:{port}/session"
        options = {"binary": BROWSER, "args": FLAGS}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        self._base += "/" + self._call("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _call(self, path, body=None, method=None):
        request = urllib.request.Request(
            self._base + path, None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"}, method=method,
        )  # fmt: skip
        with self._direct.open(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, address):
        self._call("/url", {"url": address})

    def run(self, script):
        return self._call("/execute/sync", {"script": script, "args": []})

    def find(self, selector):
        found = self._call("/element", {"using": "css selector", "value": selector})
        return next(iter(found.values()))

    def click(self, selector):
        self._call(f"/element/{self.find(selector)}/click", {})

    def press(self, selector, keys):
        self._call(f"/element/{self.find(selector)}/value", {"text": keys})

    def screenshot(self, selector, path):
        data = self._call(f"/element/{self.find(selector)}/screenshot")
        path.write_bytes(base64.b64decode(data))
        return read_photo(path).pixels[..., :3]

    def close(self):
        self._call("", method="DELETE")


@pytest.fixture(scope="module")
def tab(page):
    if not (DRIVER and BROWSER):
        pytest.skip("no browser here: Debian's chromium and chromium-driver would do")
    process = subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        line = next(line for line in process.stdout if "successfully on port" in line)
        opened = Tab(int(re.search(r"on port (\d+)", line)[1]))
        try:
            opened.open(page.as_uri())
            yield opened
        finally:
            opened.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def choose(tab, select, label):
    tab.run(
        f"const s = document.getElementById('{select}');"
        f"s.value = [...s.options].findIndex(o => o.dataset.label === {json.dumps(label)});"
        "s.dispatchEvent(new Event('change'));"
    )


def stage(tab, tmp_path):
    tab.run("document.querySelectorAll('.zoombox, .tag').forEach(e => e.style.visibility = 'hidden')")
    time.sleep(0.2)
    seen = tab.screenshot("#layers", tmp_path / "stage.png").astype(int).mean(-1)
    return seen[1:-1]  # it may begin between two pixels of the screen


def black_and_white(tab):
    choose(tab, "left", "Black")
    choose(tab, "right", NASTY)


def test_the_wipe_shows_one_picture_on_either_side(tab, tmp_path):
    black_and_white(tab)
    for place in (50, 80):
        tab.run(f"const w = document.getElementById('wipe'); w.value = {place}; w.dispatchEvent({EVENT})")
        seen = stage(tab, tmp_path)
        edge = seen.shape[1] * place // 100
        assert seen[:, : edge - 4].max() < 5 and seen[:, edge + 4 :].min() > 250
        words = tab.run("return document.getElementById('status').textContent")
        assert words.startswith("Black (") and f"up to {place} % of the width, then <b>" in words


def test_keys_wipe_and_flip(tab, tmp_path):
    black_and_white(tab)
    tab.press("#stage", END)
    assert stage(tab, tmp_path)[:, :-4].max() < 5
    tab.press("#stage", ARROW_LEFT * 5)
    assert tab.run("return document.getElementById('wipe').value") == "90"
    tab.press("#stage", "f")  # from wiping to flipping: the left picture
    assert stage(tab, tmp_path).max() < 5
    tab.press("#stage", " ")
    assert stage(tab, tmp_path).min() > 250
    assert tab.run("return document.getElementById('flip').getAttribute('aria-pressed')") == "true"
    tab.click("#flip")
    assert stage(tab, tmp_path).max() < 5
    tab.press("#stage", "w")
    assert tab.run("return document.querySelector('input[name=mode]:checked').value") == "wipe"


def test_another_picture_and_another_size(tab):
    tab.press("#stage", "n")
    assert tab.run("return document.getElementById('case').value") == "1"
    assert tab.run("return document.getElementById('left').selectedOptions[0].dataset.label") == "Black"
    tab.press("#stage", "n")
    assert tab.run("return document.getElementById('case').value") == "0"
    tab.press("#stage", "zz")
    assert tab.run("return document.getElementById('layers').getBoundingClientRect().width") == 600
    tab.press("#stage", "zz")
    assert tab.run("return document.getElementById('zoom').value") == "0"


def test_everything_can_be_reached_and_has_a_name(tab):
    names = tab.run(
        "return [...document.querySelectorAll('select, button, input, [role=img], [tabindex]')].map(e =>"
        "[e.id, e.getAttribute('aria-label') || e.labels?.[0]?.textContent.trim() || e.textContent.trim()])"
    )
    assert len(names) >= 9 and all(name for _, name in names), names
    assert tab.run("return [...document.images].every(i => i.hasAttribute('alt') && i.naturalWidth > 0)")


def test_a_phone_shows_it_without_a_sideways_scroll_and_nothing_was_fetched(tab):
    assert tab.run("return document.documentElement.scrollWidth <= innerWidth")
    assert (
        tab.run(
            "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
        )
        == 0
    )

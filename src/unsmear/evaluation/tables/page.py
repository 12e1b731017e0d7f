"""One HTML page with everything in it: tables, differences, pictures to wipe and flip, and all origins.

It fetches nothing (its own policy forbids that too), so it may be mailed, archived, and opened from a disk.
"""

import base64
import html
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from typing import Any

import pyvips

import unsmear
from unsmear.evaluation.tables.drawing import COLOURS, Pixels
from unsmear.evaluation.tables.layout import Column, Figures, Table, signed
from unsmear.evaluation.tables.pictures import Shown
from unsmear.photo import Photo

_QUALITY = 92  # of the JPEG pictures in the page: 40 dB and more, beyond what methods differ by
_PARTS = (
    ("differences", "Differences"), ("dots", "Single pictures"), ("look", "Two pictures over each other"),
    ("figures", "Figures"), ("origins", "Where the figures come from"),
)  # fmt: skip
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    tables: Sequence[Table],
    differences: Sequence[Table],
    figures: Figures,
    shown: Sequence[Shown],
    plates: Sequence[tuple[str, Photo]],
    origins: dict[str, Any],
) -> str:
    """Return the page as text.

    Args:
        tables: the paper's layouts.
        differences: paired differences, one table for each benchmark.
        figures: for the dots of single pictures.
        shown: pictures for the viewer.
        plates: figures with a line under each.
        origins: see `text.origins`.
    """
    parts = [
        *(_table(table) for table in tables),
        "<h2 id='differences'>Differences, picture by picture</h2>" if differences else "",
        _explained() if differences else "",
        *(_table(table, level=3) for table in differences),
        _dots(figures),
        _viewer(shown),
        _plates(plates),
        _origins(origins),
    ]
    body = "\n".join(part for part in parts if part)
    style, script = (_resource(f"page.{suffix}") for suffix in ("css", "js"))
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>Benchmarks: measured and printed</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + f"{_head(origins, body)}\n{body}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return (resources.files("unsmear.evaluation.tables") / name).read_text(encoding="utf-8")


def _e(text: object) -> str:
    return html.escape(str(text))


def _head(origins: dict[str, Any], body: str) -> str:
    failures = origins["failures"]
    methods = ", ".join(_e(method["label"]) for method in origins["methods"])
    data = ", ".join(_e(f"{one['title']} ({one['cases']})") for one in origins["benchmarks"])
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        "<header><h1>Benchmarks: measured and printed</h1>",
        f"<p>{methods} on {data}.</p>",
        f"<p class='quiet'>unsmear {_e(unsmear.__version__)}, {when}. Means over pictures; below them the "
        "95 % interval of the mean by bootstrap over pictures. <span class='paper'>Columns like this</span> "
        "hold what the paper prints: another training, another protocol perhaps, nothing that was measured "
        "here.</p>",
        "<nav aria-label='Parts of this page'><ul>",
        *(f"<li><a href='#{place}'>{words}</a></li>" for place, words in _PARTS if f"id='{place}'" in body),
        "</ul></nav></header>",
    ]
    if failures:
        lines.append(f"<section class='failures'><h2>{len(failures)} not scored</h2><ul>")
        lines += [
            f"<li>{_e(one['benchmark'])}/{_e(one['case'])}, {_e(one['method'])}: {_e(one['reason'])}</li>"
            for one in failures
        ]
        lines.append("</ul></section>")
    return "\n".join(lines)


def _heading(text: str) -> str:
    """Text that may be broken after an underscore: names of metrics are longer than their figures."""
    return _e(text).replace("_", "_<wbr>")


def _table(table: Table, level: int = 2) -> str:
    lines = [
        f"<h{level} id='{_e(table.key)}'>{_e(table.title)}</h{level}>",
        "<div class='scroll'><table>",
        "<thead>",
    ]
    if any(column.group for column in table.columns):
        lines.append("<tr class='groups'>" + "".join(_groups(table.columns)) + "</tr>")
    lines.append(
        "<tr>"
        + "".join(
            f"<th scope='col' class='{column.origin}'>{_heading(column.title)}</th>"
            for column in table.columns
        )
        + "</tr></thead>\n<tbody>"
    )
    for row in table.rows:
        cells = []
        for place, (cell, column) in enumerate(zip(row, table.columns, strict=True)):
            tag = "th scope='row'" if place == 0 else "td"
            detail = f"<small>{_e(cell.detail)}</small>" if cell.detail else ""
            title = f' title="{_e(cell.source)}"' if cell.source else ""
            cells.append(f"<{tag} class='{column.origin}'{title}>{_e(cell.text)}{detail}</{tag.split()[0]}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    if table.notes:
        lines.append("<ol class='notes'>" + "".join(f"<li>{_e(note)}</li>" for note in table.notes) + "</ol>")
    return "\n".join(lines)


def _groups(columns: Sequence[Column]) -> list[str]:
    return [
        f"<th scope='colgroup' colspan='{len(list(members))}' class='{origin}'>{_heading(group)}</th>"
        for (group, origin), members in groupby(columns, key=lambda column: (column.group, column.origin))
    ]


def _explained() -> str:
    return """<p class='quiet'>Method less the other, on the pictures that both have, with the 95 % interval.
p: how often a mean so far from zero comes of flipping the signs at random; not corrected for the number of
comparisons. Pictures of one scene or one photograph resemble each other: “by groups” draws and flips them as
a whole, and is the one to trust where it is given. Better on: part of the pictures.</p>"""


def _dots(figures: Figures) -> str:
    """Gains over the input of every picture, a row of dots for each method: first metric of each protocol."""
    idle = [method.label for method in figures.results.methods if method.kind == "input"]
    rivals = [method.label for method in figures.results.methods if method.kind != "input"]
    if not idle or not rivals:
        return ""
    lines = ["<h2 id='dots'>Difference from the input, every picture</h2>"]
    for one in figures.results.sets:
        for protocol in one.protocols:
            metric = protocol.metrics[0].name
            rows = []
            inputs = figures.results.of(idle[0], one.benchmark.name)
            before = {found.case.name: found.scores[protocol.name].get(metric) for found in inputs}
            for label in rivals:
                gains = [
                    (found.case.name, found.scores[protocol.name][metric] - start)
                    for found in figures.results.of(label, one.benchmark.name)
                    if (start := before.get(found.case.name)) is not None
                    and metric in found.scores[protocol.name]
                ]
                rows.append((label, [(name, gain) for name, gain in gains if abs(gain) < float("inf")]))
            if any(gains for _, gains in rows):
                unit = protocol.metrics[0].unit
                less = "" if protocol.metrics[0].higher_is_better else ", less is better"
                what = f"{metric}{f' ({unit})' if unit else ''}{less}"
                lines.append(f"<h3>{_e(one.benchmark.title)}: {_e(what)}</h3>")
                lines.append(_strip_plot(rows))
    return "\n".join(lines) if len(lines) > 1 else ""


def _strip_plot(rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    width, left, line = 900, 220, 26
    values = [gain for _, gains in rows for _, gain in gains] + [0.0]
    low, high = min(values), max(values)
    reach = (high - low) or 1.0

    def x(gain: float) -> float:
        return left + (width - left - 70) * (gain - low) / reach

    height = line * (len(rows) + 1)
    words = "; ".join(
        f"{label}: {signed(min(g for _, g in gains), 2)} to {signed(max(g for _, g in gains), 2)}"
        for label, gains in rows
        if gains
    )
    lines = [
        f"<svg class='dots' role='img' aria-label='{_e(words)}' viewBox='0 0 {width} {height}'>",
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y2='{height - line}' stroke-dasharray='3'/>",
    ]
    for number, (label, gains) in enumerate(rows):
        y = line * number + line / 2
        lines.append(f"<text y='{y + 4}'>{_e(label[:30])}</text>")
        lines += [
            f"<circle cx='{x(gain):.1f}' cy='{y}' r='4'><title>{_e(name)} {signed(gain, 3)}</title></circle>"
            for name, gain in gains
        ]
    ends = [(low, signed(low, 2)), (high, signed(high, 2))] + ([(0.0, "0")] if low < 0 < high else [])
    lines += [
        f"<text class='tick' x='{x(value):.1f}' y='{height - 8}'>{text}</text>"
        for value, text in ends
        if text == "0" or abs(x(value) - x(0)) > 40 or not low < 0 < high
    ]
    return "\n".join([*lines, "</svg>"])


def _viewer(shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    cases = [
        {
            "title": one.title,
            "name": one.case.name,
            "licence": one.licence,
            "chosen": one.chosen,
            "width": next(iter(one.pictures.values())).shape[1],
            "height": next(iter(one.pictures.values())).shape[0],
            "boxes": [
                [*box, f"rgb({','.join(map(str, colour))})"]
                for box, colour in zip(one.boxes, COLOURS, strict=False)
            ],
            "pictures": [
                {"label": label, "score": one.scores.get(label, ""), "src": _jpeg(pixels)}
                for label, pixels in one.pictures.items()
            ],
        }
        for one in shown
    ]
    data = json.dumps(cases, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<section aria-labelledby='look'>
<h2 id='look'>Two pictures over each other</h2>
<p class='quiet'>Copies for looking at (JPEG, quality {_QUALITY}), not aligned; what was scored are the files.
Rectangles: where the methods differ most, or the crop that was asked for.</p>
<noscript><p>This part needs JavaScript; the figures below do not.</p></noscript>
<div id='viewer' class='hidden'>
<div class='controls'>
<label>Picture <select id='case'></select></label>
<label>Left <select id='left'></select></label>
<label>Right <select id='right'></select></label>
<label>Size <select id='zoom'><option value='0'>fit the page</option><option value='1'>1 : 1</option>
<option value='2'>2 : 1</option><option value='4'>4 : 1</option></select></label>
<fieldset><legend>Compare by</legend><span class='radios'>
<label><input type='radio' name='mode' value='wipe' checked> wiping</label>
<label><input type='radio' name='mode' value='flip'> flipping</label></span></fieldset>
<button id='flip' type='button' aria-pressed='false'>Flip</button>
</div>
<input id='wipe' type='range' min='0' max='100' step='0.5' value='50' aria-label='Place of the wipe'>
<div id='stage' tabindex='0' role='group' aria-label='Pictures; arrow keys wipe, space flips'>
<div id='layers' role='img'><img id='under' alt=''><img id='over' alt=''><div id='edge'></div>
<span id='tag-left' class='tag'></span><span id='tag-right' class='tag'></span></div></div>
<p id='about' class='quiet'></p>
<p class='quiet'>In the picture: drag to wipe, or <kbd>←</kbd> <kbd>→</kbd> <kbd>Home</kbd> <kbd>End</kbd>;
<kbd>space</kbd> flips, <kbd>w</kbd> wipes again, <kbd>n</kbd> and <kbd>p</kbd> other pictures,
<kbd>z</kbd> size.
<span id='status' role='status' aria-live='polite'></span></p>
</div>
<script type='application/json' id='pictures'>{data}</script>
</section>"""


def _jpeg(pixels: Pixels) -> str:
    image = pyvips.Image.new_from_array(pixels, interpretation="srgb")
    data = image.jpegsave_buffer(Q=_QUALITY, subsample_mode="off", optimize_coding=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def _plates(plates: Sequence[tuple[str, Photo]]) -> str:
    if not plates:
        return ""
    lines = ["<h2 id='figures'>Figures</h2>"]
    for words, photo in plates:
        image = pyvips.Image.new_from_array(photo.pixels, interpretation="srgb")
        data = base64.b64encode(image.pngsave_buffer(compression=9)).decode()
        lines.append(
            f"<figure><img class='figure' width='{photo.width}' height='{photo.height}' alt='{_e(words)}' "
            f"src='data:image/png;base64,{data}'><figcaption>{_e(words)}</figcaption></figure>"
        )
    return "\n".join(lines)


def _origins(origins: dict[str, Any]) -> str:
    lines = ["<h2 id='origins'>Where the figures come from</h2>", "<h3>Methods</h3>"]
    for method in origins["methods"]:
        facts: list[tuple[str, object]] = [("source", method["source"])]
        if method["kind"] == "network":
            facts.append(("weights, SHA-256", method["weights_sha256"]))
            facts.append(("network", json.dumps(method["network"], ensure_ascii=False)))
        facts += [
            (f"pictures on {name}, SHA-256", digest) for name, digest in method["restored_sha256"].items()
        ]
        lines.append(_facts(method["label"], facts))
    lines.append("<h3>Data and protocols</h3>")
    for one in origins["benchmarks"]:
        full = "" if one["full"] in (None, one["cases"]) else f" of {one['full']} of the full set: a part"
        facts = [
            ("pictures", f"{one['cases']}{full}"),
            *([("not here", "; ".join(one["missing"]))] if one["missing"] else []),
            ("folder", one["root"]),
            ("licence", one["licence"]),
            ("data, SHA-256", one["sha256"]),
        ]
        facts += [("choice", f"{key}={value}") for key, value in one["choice"].items()]
        facts += [
            (
                f"protocol {p['name']}",
                f"version {p['version']}; {'; '.join(dict.fromkeys([p['title'], *p['how']]))}",
            )
            for p in one["protocols"]
        ]
        lines.append(_facts(one["title"], facts))
    timing = origins["timing"]
    lines.append(
        "<h3>Seconds</h3><p class='quiet'>Medians of the wall time of a network for one picture, and on a "
        "CPU of the processor's, reading and writing left out. "
        f"Processes: {_e(timing['processes'])}, threads of each: {_e(timing['threads'])}, device: "
        f"{_e(timing['device'])}; for pictures that an earlier run restored, as it was then.</p>"
    )
    return "\n".join(lines)


def _facts(title: object, facts: Sequence[tuple[str, object]]) -> str:
    rows = "".join(
        f"<dt>{_e(name)}</dt><dd{' class=hash' if 'SHA' in name else ''}>{_e(value)}</dd>"
        for name, value in facts
    )
    return f"<p><strong>{_e(title)}</strong></p><dl>{rows}</dl>"

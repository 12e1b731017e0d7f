"""The paper's figures 1, 6, 7 and 8 for any methods, and one figure for each picture that is worth a look."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unsmear.errors import EvaluationError, UnsmearError
from unsmear.evaluation.benchmarks import Case
from unsmear.evaluation.tables.crops import check_inside, disagreement, largest
from unsmear.evaluation.tables.drawing import (
    COLOURS,
    Box,
    Panel,
    Pixels,
    cut,
    draw,
    framed,
    rgb8,
    scaled,
    whole_with_boxes,
    with_inset,
)
from unsmear.evaluation.tables.layout import digits_of, number
from unsmear.evaluation.tables.running import Results, TestSet
from unsmear.photo import Photo, read_photo

INPUT, TRUTH = "input", "truth"

WHOLE = 420  # pixels a whole picture is wide beside its zooms
ZOOM = 200  # pixels a zoom is wide
PLATE = 320  # pixels a panel of Fig. 1, 6, 7 and 8 is wide

_ENDLESS = 1e6  # stands for an infinite figure, so that two of them do not differ


@dataclass(frozen=True)
class Shown:
    """A case to look at: its pictures by label (input first, the truth last), its scores, and where to zoom.

    chosen: why it is shown, in words.
    """

    benchmark: str
    title: str
    licence: str
    case: Case
    pictures: dict[str, Pixels]
    scores: dict[str, str]
    boxes: tuple[Box, ...]
    chosen: str


def choose(results: Results, crops: Mapping[str, Sequence[Box]], count: int) -> list[Shown]:
    """The cases that the user named, and on each benchmark the `count` on which methods differ most.

    Differences are those of the first metric of the first protocol between the methods that restore; with
    a single one, between it and the input.

    Raises:
        EvaluationError: a crop that reaches out of its picture.
    """
    shown: list[Shown] = []
    wanted = dict(crops)
    for one in results.sets:
        spread = _spread(results, one)
        named = {}
        for case in one.cases:
            for name in _names(one, case):
                if name in wanted:
                    named[case.name] = wanted.pop(name)
        most = sorted((name for name in spread if name not in named), key=lambda name: -spread[name])[:count]
        by_name = {case.name: case for case in one.cases}
        for name in [*named, *most]:
            picture = _shown(results, one, by_name[name], named.get(name, ()))
            if picture is not None:
                shown.append(picture)
    return shown


def check_named(crops: Mapping[str, Sequence[Box]], sets: Sequence[TestSet]) -> None:
    """Raise EvaluationError for a crop of a picture that there is not, before anything is scored."""
    known = {name for one in sets for case in one.cases for name in _names(one, case)}
    for name in crops:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [sets[0].cases[0].name]
            raise EvaluationError(f"No picture is called {name}; such as these are: {', '.join(near)}.")


def _names(one: TestSet, case: Case) -> tuple[str, str]:
    """What a user may call a case."""
    return case.name, f"{one.benchmark.name}/{case.name}"


def _spread(results: Results, one: TestSet) -> dict[str, float]:
    """How far the methods lie apart on each case that all of them have."""
    rivals = [method.label for method in results.methods if method.kind != "input"]
    if len(rivals) < 2:
        rivals = [method.label for method in results.methods]
    protocol = one.protocols[0]
    metric = protocol.metrics[0].name
    spread = {}
    for case in one.cases:
        places = [results.by_place.get((label, one.benchmark.name, case.name)) for label in rivals]
        values = [place.scores[protocol.name].get(metric, math.nan) for place in places if place is not None]
        if len(values) == len(rivals) and not any(map(math.isnan, values)):
            values = [min(max(value, -_ENDLESS), _ENDLESS) for value in values]
            spread[case.name] = max(values) - min(values)
    return spread


def _shown(results: Results, one: TestSet, case: Case, boxes: Sequence[Box]) -> Shown | None:
    protocol = one.protocols[0]
    metric = protocol.metrics[0]
    pictures: dict[str, Pixels] = {}
    scores: dict[str, str] = {}
    try:
        pictures[INPUT] = rgb8(read_photo(case.blurred))
        for method in results.methods:
            found = results.by_place.get((method.label, one.benchmark.name, case.name))
            if found is None:
                continue
            label = INPUT if method.kind == "input" else method.label
            value = found.scores[protocol.name].get(metric.name, math.nan)
            scores[label] = f"{number(value, digits_of(metric))} {metric.unit}".strip()
            if label != INPUT:
                pictures[label] = rgb8(read_photo(found.restored))
        if case.truth:
            pictures[TRUTH] = rgb8(read_photo(case.truth[len(case.truth) // 2]))
    except UnsmearError:  # a .mat that is no picture, a file that was removed: the scores stand without it
        if INPUT not in pictures:
            return None
    shape = pictures[INPUT].shape
    pictures = {label: pixels for label, pixels in pictures.items() if pixels.shape == shape}
    for box in boxes:
        check_inside(box, case.name, pictures[INPUT])
    rivals = [pixels for label, pixels in pictures.items() if label not in (INPUT, TRUTH)]
    if len(rivals) < 2:
        rivals = list(pictures.values())
    return Shown(
        one.benchmark.name, one.benchmark.title, one.benchmark.licence, case, pictures, scores,
        tuple(boxes) or tuple(largest(disagreement(rivals))),
        "named by the user" if boxes else "where the methods differ most",
    )  # fmt: skip


def zooms(shown: Shown) -> Photo:
    """The input as a whole beside two zooms of every picture, one above the other."""
    boxes = shown.boxes[: len(COLOURS)]
    first = [Panel(whole_with_boxes(shown.pictures[INPUT], boxes, WHOLE), (shown.title, shown.case.name))]
    columns = []
    for label, pixels in shown.pictures.items():
        parts = [
            framed(scaled(cut(pixels, box), ZOOM), colour)
            for box, colour in zip(boxes, COLOURS, strict=False)
        ]
        columns.append((parts, (label, shown.scores.get(label, ""))))
    *above, last = range(len(boxes))
    rows = [[Panel(parts[place]) for parts, _ in columns] for place in above]
    rows.append([Panel(parts[last], caption) for parts, caption in columns])
    return draw([[*first, Panel(draw(rows).pixels)]])


def paper_plates(shown: Sequence[Shown]) -> dict[str, Photo]:
    """The layouts of the paper's figures, by file name, for those whose benchmarks are there.

    fig-1: a row for each of Köhler, Lai and RealBlur-J; the input, every method, the truth.
    fig-6, fig-7: Lai and Köhler; input and truth on the left, methods trained on GoPro (label ends in ^G)
        above those trained on the proposed set (^P); other labels fill both rows.
    fig-8: real photographs of Lai, without truth: a row each.
    """
    families = {
        family: [one for one in shown if one.benchmark.startswith(family)]
        for family in ("koehler", "lai-uniform", "lai-nonuniform", "lai-real", "realblur")
    }
    lai = families["lai-uniform"] + families["lai-nonuniform"]
    plates: dict[str, Photo] = {}
    rows = [family[0] for family in (families["koehler"], lai, families["realblur"]) if family]
    if rows:
        plates["fig-1"] = draw([_plate(one) for one in rows])
    for name, family in (("fig-6", lai), ("fig-7", families["koehler"])):
        if family:
            plates[name] = draw(_two_rows(family[0]))
    if families["lai-real"]:
        plates["fig-8"] = draw([_plate(one, truth=False) for one in families["lai-real"]])
    return plates


def _plate(shown: Shown, *, truth: bool = True) -> list[Panel]:
    """Every picture with one zoom set into it."""
    return [
        Panel(with_inset(pixels, shown.boxes[0], PLATE), (label, shown.scores.get(label, "")))
        for label, pixels in shown.pictures.items()
        if truth or label != TRUTH
    ]


def _two_rows(shown: Shown) -> list[list[Panel]]:
    panels = dict(zip(shown.pictures, _plate(shown), strict=True))
    left = [panels.pop(label) for label in (INPUT, TRUTH) if label in panels]
    above = [panel for label, panel in panels.items() if label.endswith("^G")]
    below = [panel for label, panel in panels.items() if label.endswith("^P")]
    rest = [panel for label, panel in panels.items() if not label.endswith(("^G", "^P"))]
    if not above and not below:
        half = -(-len(rest) // 2)
        above, below, rest = rest[:half], rest[half:], []
    rows = [[*left[:1], *above, *rest], [*left[1:], *below]]
    return [row for row in rows if row]

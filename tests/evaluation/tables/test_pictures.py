"""The layouts of the paper's figures: which picture stands where."""

from pathlib import Path

import numpy as np
import pytest

from unsmear.evaluation.benchmarks import Case
from unsmear.evaluation.tables.drawing import GAP, LINE, Box
from unsmear.evaluation.tables.pictures import INPUT, PLATE, TRUTH, Shown, paper_plates, zooms

COLOURS = {INPUT: 10, "A^G": 40, "B^G": 70, "A^P": 100, "B^P": 130, "C": 160, TRUTH: 190}
STEP = PLATE + GAP
ROW = PLATE * 3 // 4 + 2 * LINE + GAP  # pictures of 4 : 3, two lines under each


def shown(benchmark, labels, name="one"):
    pictures = {label: np.full((240, 320, 3), COLOURS[label], np.uint8) for label in labels}
    case = Case(name, Path("one.png"), ())
    scores = dict.fromkeys(labels, "20.00 dB")
    return Shown(benchmark, "A set", "CC0", case, pictures, scores, (Box(100, 60, 40, 30),), "why")


def standing(photo):
    """The colour in the middle of every place of the grid, None where there is none."""
    rows, columns = (photo.height + GAP) // ROW, (photo.width + GAP) // STEP
    seen = [
        [int(photo.pixels[ROW * r + 120, STEP * c + 160, 0]) for c in range(columns)] for r in range(rows)
    ]
    return [[None if value == 255 else value for value in row] for row in seen]


def colours(*labels):
    return [COLOURS[label] for label in labels]


def test_networks_trained_on_gopro_stand_above_those_trained_on_the_proposed_set():
    plates = paper_plates([shown("lai-uniform", [INPUT, "A^P", "A^G", "B^G", "B^P", TRUTH])])
    assert standing(plates["fig-6"]) == [colours(INPUT, "A^G", "B^G"), colours(TRUTH, "A^P", "B^P")]
    assert list(plates) == ["fig-1", "fig-6"]


def test_other_labels_fill_both_rows():
    plates = paper_plates([shown("koehler-preview", [INPUT, "C", TRUTH])])
    assert standing(plates["fig-7"]) == [colours(INPUT, "C"), [*colours(TRUTH), None]]


def test_a_row_for_each_benchmark_in_the_order_of_the_paper():
    order = [shown("realblur-j", [INPUT, "C", TRUTH]), shown("lai-nonuniform", [INPUT, "C"]),
             shown("koehler", [INPUT, "A^G", TRUTH]), shown("koehler", [INPUT, "B^G"], "b")]  # fmt: skip
    photo = paper_plates(order)["fig-1"]
    assert standing(photo) == [
        colours(INPUT, "A^G", TRUTH), [*colours(INPUT, "C"), None], colours(INPUT, "C", TRUTH)
    ]  # fmt: skip


def test_real_photographs_have_no_truth():
    plates = paper_plates([shown("lai-real", [INPUT, "A^P", "C"])] * 2)
    assert list(plates) == ["fig-8"]
    assert standing(plates["fig-8"]) == [colours(INPUT, "A^P", "C")] * 2


@pytest.mark.parametrize("labels", [[INPUT], [INPUT, "C", TRUTH]])
def test_zooms_show_every_picture(labels):
    photo = zooms(shown("gopro", labels))
    found = set(np.unique(photo.pixels[..., 0]).tolist())
    assert set(colours(*labels)) <= found


def test_nothing_is_drawn_of_other_benchmarks():
    assert paper_plates([shown("gopro", [INPUT, "C"])]) == {}

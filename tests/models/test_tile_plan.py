"""Laws of the cutting: everything is covered, the blend is a blend, the cores are a partition."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unsmear.models.tile_plan import plan, smallest_side, spans

SIDES = st.integers(1, 3000)


@settings(max_examples=60, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    pixels=st.integers(1, 2**20),
    multiple=st.sampled_from([1, 16, 128]),
    overlap=st.sampled_from([0, 16, 64, 128]),
)
def test_laws(height: int, width: int, pixels: int, multiple: int, overlap: int) -> None:
    minimum = max(64, multiple)
    smallest = smallest_side(multiple=multiple, minimum=minimum, overlap=overlap)
    rows, columns = plan(height, width, pixels=pixels, multiple=multiple, minimum=minimum, overlap=overlap)
    for axis, length in ((rows, height), (columns, width)):
        weight = torch.zeros(length)
        for span in axis:
            weight[span.start : span.stop] += span.weight
            assert (span.weight >= 0).all()
            assert span.start <= span.core_start < span.core_stop
        torch.testing.assert_close(weight, torch.ones(length))
        assert [axis[0].start, axis[-1].stop] == [0, length]
        assert [axis[0].core_start, axis[-1].core_stop] == [0, -(-length // multiple) * multiple]
        for before, after in itertools.pairwise(axis):
            assert before.stop - after.start >= min(overlap, length - after.start)
            assert before.core_stop == after.core_start
        sizes = {-(-(span.stop - span.start) // multiple) * multiple for span in axis}
        assert len(sizes) == 1, "all tiles of one size"
    tile = [
        max(-(-(axis[0].stop - axis[0].start) // multiple) * multiple, minimum) for axis in (rows, columns)
    ]
    assert tile[0] * tile[1] <= max(pixels, smallest**2)


def test_one_tile_where_it_fits() -> None:
    rows, columns = plan(700, 1000, pixels=768 * 1024, multiple=128, minimum=128, overlap=64)
    assert len(rows) == len(columns) == 1 and (rows[0].weight == 1).all()


def test_weights_rise_smoothly() -> None:
    first, second, third = spans(640, 3, multiple=128, overlap=64)
    assert [(s.start, s.stop) for s in (first, second, third)] == [(0, 256), (192, 448), (384, 640)]
    assert (second.weight[:16] == 0).all() and (second.weight[48:-48] == 1).all()
    assert second.weight.diff().abs().max() < 0.05  # from 0 to 1 in 32 pixels, at most π/2 times as steep


def test_overlaps_cost_little() -> None:
    rows, columns = plan(4000, 6000, pixels=2**20, multiple=128, minimum=128, overlap=64)
    work = sum((r.stop - r.start) * (c.stop - c.start) for r in rows for c in columns)
    assert work / (4000 * 6000) < 1.2

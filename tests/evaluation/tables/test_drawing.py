"""Crops, panels and layouts: what is drawn is what was there."""

import numpy as np
import pytest

from unsmear.errors import EvaluationError
from unsmear.evaluation.tables.crops import check_inside, disagreement, largest, read_crop
from unsmear.evaluation.tables.drawing import (
    COLOURS,
    FRAME,
    GAP,
    LINE,
    Box,
    Panel,
    boxed,
    cut,
    draw,
    rgb8,
    scaled,
    whole_with_boxes,
    with_inset,
)
from unsmear.photo import Photo


def noise(height=90, width=120, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_crop_is_read():
    assert read_crop("GOPR0384/000001:10,20,300,40") == ("GOPR0384/000001", Box(10, 20, 300, 40))
    assert read_crop("a:b:1,2,3,4")[0] == "a:b"


@pytest.mark.parametrize(
    "text", ["a", "a:1,2,3", "a:1,2,3,x", ":1,2,3,4", "a:-1,2,3,4", "a:1,2,0,4", "a:1,2,3,4,5"]
)
def test_what_is_no_crop_is_refused(text):
    with pytest.raises(EvaluationError, match="is no crop; expected NAME:x,y,width,height"):
        read_crop(text)


def test_a_crop_stays_inside():
    check_inside(Box(0, 0, 120, 90), "a", noise())
    for box in (Box(1, 0, 120, 90), Box(0, 1, 120, 90)):
        with pytest.raises(EvaluationError, match="leaves a, which is 120×90"):
            check_inside(box, "a", noise())


def test_methods_disagree_where_they_differ():
    one = noise(400, 600)
    two, three = one.copy(), one.copy()
    two[200:240, 400:440] ^= 255
    three[60:90, 100:130, 0] ^= 127
    where = disagreement([one, two, three])
    assert where.shape == (400, 600) and where[:50].max() < 1e-12
    stack = np.stack([one, two, three]) / 255
    assert where == pytest.approx(np.var(stack, axis=0).sum(-1), abs=1e-6)
    first, second = largest(where)
    assert (
        first.x <= 400 and first.x + first.width >= 440 and first.y <= 200 and first.y + first.height >= 240
    )
    assert second.x <= 115 < second.x + second.width and second.y <= 75 < second.y + second.height


@pytest.mark.parametrize("shape", [(1, 1), (30, 20), (47, 500), (255, 255), (720, 1280)])
def test_crops_lie_inside_pictures_of_any_size_and_apart(shape):
    boxes = largest(np.random.default_rng(1).random(shape, dtype=np.float32))
    assert 1 <= len(boxes) <= 2
    for box in boxes:
        check_inside(box, "any", np.zeros((*shape, 3), np.uint8))
    covered = np.zeros(shape, int)
    for box in boxes:
        covered[box.y : box.y + box.height, box.x : box.x + box.width] += 1
    assert covered.max() == 1


def test_enlarging_repeats_pixels():
    pixels = noise(5, 7)
    assert np.array_equal(scaled(pixels, 21), pixels.repeat(3, 0).repeat(3, 1))
    assert scaled(pixels, 7) is pixels or np.array_equal(scaled(pixels, 7), pixels)


def test_reducing_keeps_the_mean_and_the_shape():
    flat = np.full((90, 120, 3), (10, 100, 200), np.uint8)
    assert scaled(flat, 40).shape == (30, 40, 3)
    assert (scaled(flat, 40) == (10, 100, 200)).all()


def test_a_box_is_an_outline():
    pixels = noise()
    result = boxed(pixels, Box(20, 30, 40, 25), COLOURS[0])
    inside = cut(result, Box(20 + FRAME, 30 + FRAME, 40 - 2 * FRAME, 25 - 2 * FRAME))
    assert np.array_equal(inside, cut(pixels, Box(20 + FRAME, 30 + FRAME, 40 - 2 * FRAME, 25 - 2 * FRAME)))
    assert (result[30, 20:60] == COLOURS[0]).all() and (result[54, 20:60] == COLOURS[0]).all()
    outside = np.ones((90, 120), bool)
    outside[30:55, 20:60] = False
    assert np.array_equal(result[outside], pixels[outside])


def test_an_inset_is_the_box_enlarged_and_does_not_hide_it():
    pixels = np.zeros((200, 300, 3), np.uint8)
    pixels[10:50, 20:80] = (0, 255, 0)
    result = with_inset(pixels, Box(20, 10, 60, 40), 300)
    assert result.shape == pixels.shape
    assert (result[20, 50] == (0, 255, 0)).all()  # the place itself, at the top left
    zoom = result[200 - 90 + FRAME : -FRAME, 300 - 135 + FRAME : -FRAME]
    assert (zoom == (0, 255, 0)).all()


def test_boxes_are_marked_where_they_are_in_the_reduced_picture():
    result = whole_with_boxes(np.zeros((400, 800, 3), np.uint8), [Box(400, 200, 200, 100)], 400)
    rows, columns = np.nonzero((result == COLOURS[0]).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 149, 200, 299)


def test_panels_stand_in_rows_and_columns():
    small, large = noise(20, 30, 1), noise(40, 50, 2)
    photo = draw([[Panel(small, ("one", "two")), Panel(large)], [Panel(large), Panel(small, ("",))]])
    first, second = 20 + 2 * LINE, 40  # a caption right below a small panel, and a large one without
    assert photo.pixels.shape == (first + GAP + second, 50 + GAP + 50, 3)
    assert np.array_equal(photo.pixels[:20, :30], small)
    assert np.array_equal(photo.pixels[:40, 56:], large)
    assert np.array_equal(photo.pixels[first + GAP :][:40, :50], large)
    below = photo.pixels[20:first, :30]
    assert below.min() < 100 and (photo.pixels[first : first + GAP] == 255).all()


def test_grey_and_16_bit_photos_become_colours_of_8_bit():
    grey = Photo(pixels=noise()[..., :1])
    assert np.array_equal(rgb8(grey), grey.pixels.repeat(3, 2))
    deep = Photo(pixels=noise().astype(np.uint16) * 257)
    assert np.array_equal(rgb8(deep), noise())
    clear = Photo(pixels=noise().repeat(2, 2)[..., :4])
    assert np.array_equal(rgb8(clear), clear.pixels[..., :3])

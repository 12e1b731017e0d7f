"""Cutting a photo into tiles: first how many, then all of the same size, with overlaps that blend smoothly.

    plan(height, width, pixels=…) -> row spans, column spans

Tiles of a row share their rows, so that a photo is worked through in bands.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Span(NamedTuple):
    """What a tile takes of one axis: pixels start to stop.

    core_start, core_stop: the pixels nearer to this tile than to its neighbours. Cores lie side by side; the
        last one reaches to the end of the padded axis.
    weight: (stop − start,) share of the tile in the blend; the weights of all spans sum to 1 at every pixel.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int
    weight: Tensor


def plan(
    height: int, width: int, *, pixels: int, multiple: int, minimum: int, overlap: int
) -> tuple[list[Span], list[Span]]:
    """Cut height×width into the tiles of at most `pixels` pixels that are least work together.

    Args:
        height, width: of the photo.
        pixels: most of a tile, as far as `smallest_side` allows.
        multiple, minimum: of the sides of a picture that the network takes.
        overlap: fewest pixels that neighbours share; tiles start at multiples of gcd(multiple, overlap).
    """
    smallest = smallest_side(multiple=multiple, minimum=minimum, overlap=overlap)
    most_columns = _count(width, smallest, multiple, overlap)
    best: tuple[int, int, int, int] | None = None
    for columns in range(1, most_columns + 1):
        tile_width = max(_even_size(width, columns, multiple, overlap), minimum)
        tallest = max(pixels // tile_width // multiple * multiple, smallest)
        rows = _count(height, tallest, multiple, overlap)
        tile_height = max(_even_size(height, rows, multiple, overlap), minimum)
        if tile_height * tile_width <= pixels or columns == most_columns:
            option = (rows * tile_height * columns * tile_width, rows * columns, rows, columns)
            best = option if best is None else min(best, option)
    assert best is not None
    return (
        spans(height, best[2], multiple=multiple, overlap=overlap),
        spans(width, best[3], multiple=multiple, overlap=overlap),
    )


def smallest_side(*, multiple: int, minimum: int, overlap: int) -> int:
    """Return the smallest side of a tile: it holds the overlaps with both of its neighbours."""
    return _up(max(minimum, 2 * overlap), multiple)


def spans(length: int, count: int, *, multiple: int, overlap: int) -> list[Span]:
    """Lay `count` tiles of one size over an axis, neighbours sharing at least `overlap` pixels."""
    size = _even_size(length, count, multiple, overlap)
    step = math.gcd(multiple, overlap)  # starts are multiples of it, and so never leave less than the overlap
    end = _up(length, multiple)
    starts = [index * (end - size) // step // max(count - 1, 1) * step for index in range(count)]
    stops = [min(start + size, length) for start in starts]
    cuts = [
        0,
        *((start + stop) // 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)),
        end,
    ]
    weights = torch.zeros(count, length, dtype=torch.float64)
    for i in range(count):
        rising = _ramp(stops[i - 1] - starts[i]) if i else torch.ones(0)
        falling = _ramp(stops[i] - starts[i + 1]).flip(0) if i + 1 < count else torch.ones(0)
        weight = weights[i, starts[i] : stops[i]].fill_(1)
        weight[: len(rising)] *= rising
        weight[len(weight) - len(falling) :] *= falling
    weights /= weights.sum(0)
    return [
        Span(starts[i], stops[i], cuts[i], cuts[i + 1], weights[i, starts[i] : stops[i]].float())
        for i in range(count)
    ]


def _ramp(length: int) -> Tensor:
    """Return weights that rise over an overlap: 0 in the first quarter, sin² in the middle half, then 1.

    The first quarter is where the tile sees too little around. With its mirror image the ramp sums to 1.
    """
    place = (torch.arange(length, dtype=torch.float64) + 0.5) / max(length, 1)
    return torch.sin((2 * place - 0.5).clamp(0, 1) * (math.pi / 2)) ** 2


def _count(length: int, size: int, multiple: int, overlap: int) -> int:
    """Return how many tiles of `size` cover an axis."""
    end = _up(length, multiple)
    return 1 if size >= end else -(-(end - overlap) // (size - overlap))


def _even_size(length: int, count: int, multiple: int, overlap: int) -> int:
    """Return the smallest size of which `count` tiles cover an axis."""
    return _up(-(-(_up(length, multiple) + (count - 1) * overlap) // count), multiple)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple

"""Blind: kernels that a photo may have somewhere, one of each area that it is cut into.

A thing that moves on its own, or lies at another depth, has a kernel of its own, and a few such things, or a
lamp, can lead the estimate for the whole picture astray. So kernels are looked for in the whole picture
(estimation/uniform.py) and in overlapping areas of it. At a coarse scale that costs little; which of them is
right, and where, is for others to judge (models/judging.py), and those that are taken are refined.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsmear.errors import KernelError
from unsmear.estimation.uniform import Search, scattered, search
from unsmear.runtime import shared_map

OVERLAP = 0.25
"""Part of an area that lies in its neighbour too."""

_AREA = 150_000  # pixels of an area, about: smaller ones mislead more often
_SMALLEST = 160  # pixels of the shorter side: smaller areas have too few edges for a kernel
_MOST = 3  # areas along a side
_COARSE = 110_000  # pixels at which an area's starts are compared, and its kernel judged


def areas(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return the overlapping areas of a picture (rows, columns), row by row; none where it is small."""
    count = height * width / _AREA
    down = min(max(1, round(math.sqrt(count * height / width))), _MOST, max(1, height // _SMALLEST))
    right = min(max(1, round(math.sqrt(count * width / height))), _MOST, max(1, width // _SMALLEST))
    if down * right == 1:
        return []
    return [(rows, columns) for rows in _spans(height, down) for columns in _spans(width, right)]


def find_candidates(grey: Tensor) -> list[Search]:
    """Look for the kernels of the whole picture, and of its areas, up to a coarse scale.

    Each by itself, so processes share the work where a command has some (`unsmear.runtime.start_workers`).

    Args:
        grey: v, (H,W), values in [0, 1].

    Returns:
        Searches to go on with, that of the whole picture first; areas without edges are left out, and those
        whose kernel is `scattered`.

    Raises:
        KernelError: as by `unsmear.estimation.uniform.search` for the whole picture.
    """
    grey = grey.detach().float()
    pieces = [grey, *(grey[rows, columns].contiguous() for rows, columns in areas(*grey.shape))]
    scales = [None] + [_COARSE] * (len(pieces) - 1)
    first, *others = shared_map(_look, [piece.numpy() for piece in pieces], scales)
    if isinstance(first, KernelError):
        raise first
    paths = (found for found in others if isinstance(found, Search) and not scattered(found.kernel))
    return [first, *paths]


def _look(piece: NDArray[np.float32], coarse: int | None) -> Search | KernelError:
    grey = torch.from_numpy(piece)
    try:
        return search(grey) if coarse is None else search(grey, coarse=coarse)
    except KernelError as error:  # of one colour
        return error


def _spans(length: int, count: int) -> list[slice]:
    """Return `count` overlapping spans of a length."""
    size = length / (count - (count - 1) * OVERLAP)
    starts = [round(index * size * (1 - OVERLAP)) for index in range(count)]
    return [slice(start, min(start + round(size), length)) for start in starts]

"""One picture that shows what the figures mean: crops of input, output and truth, side by side."""

import html
from collections.abc import Sequence

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsmear.photo import Photo

TILE = 288  # pixels: three of them fit a page of a text
_GAP = 6
_STRIP = 24
_GROUND = 255


Tiles = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


def cut_tiles(blurred: Tensor, restored: Tensor, truth: Tensor) -> Tiles:
    """Cut from pictures (3,H,W) in [0,1] sRGB the 288×288 pixels where first and last differ most.

    Gives (h,w,3) uint8 each; smaller pictures are taken whole.
    """
    top, left = _place(blurred, truth)

    def cut(picture: Tensor) -> NDArray[np.uint8]:
        tile = picture[:, top : top + TILE, left : left + TILE].clamp(0, 1) * 255
        return tile.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    return cut(blurred), cut(restored), cut(truth)


def draw_contact_sheet(rows: Sequence[tuple[str, Tiles]]) -> Photo:
    """Draw rows of a caption and the tiles of input, output and truth, as an 8-bit RGB photo."""
    width = 3 * TILE + 2 * _GAP
    bands = [_strip(["input", "output", "truth"])]
    for caption, tiles in rows:
        band = np.full((TILE, width, 3), _GROUND, np.uint8)
        for number, tile in enumerate(tiles):
            start = number * (TILE + _GAP)
            band[: tile.shape[0], start : start + tile.shape[1]] = tile
        bands += [_strip([caption]), band]
    return Photo(pixels=np.concatenate(bands))


def _place(blurred: Tensor, truth: Tensor) -> tuple[int, int]:
    """Corner (row, column) of the tile with the largest squared difference, on a grid of a quarter tile."""
    error = (blurred - truth).square().sum(0)[None, None]
    window = (min(TILE, error.shape[-2]), min(TILE, error.shape[-1]))
    step = TILE // 4
    means = torch.nn.functional.avg_pool2d(error, window, stride=step)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[-1])
    return row * step, column * step


def _strip(labels: Sequence[str]) -> NDArray[np.uint8]:
    """A line of text, one label at the left end of each column; what does not fit is cut off."""
    strip = np.full((_STRIP, 3 * TILE + 2 * _GAP, 3), _GROUND, np.uint8)
    for number, label in enumerate(labels):
        text = pyvips.Image.text(
            html.escape(label), font="sans 10", dpi=96
        )  # cut to its ink, at (x, y)offset
        start, top = number * (TILE + _GAP), 3 + text.yoffset
        ink = text.numpy().reshape(text.height, text.width)[: _STRIP - top, : strip.shape[1] - start]
        strip[top : top + ink.shape[0], start : start + ink.shape[1]] -= ink[..., None]
    return strip

"""Pictures of pairs: sharp, blurred, kernels and masks beside one another."""

import colorsys
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from unsmear.basis.bank import contact_sheet
from unsmear.errors import PairsError
from unsmear.pairs.sampling import Pair


def pairs_picture(pairs: Iterable[Pair], *, across: int = 1) -> NDArray[np.uint8]:
    """Return pairs as one picture: u, v, {k} and {m} from left to right, `across` pairs in a row.

    Kernels are enlarged to fill their square and shown as the square root of their value over the largest.
    Masks are mixed from one hue a basis kernel; the kernels have a mark of that hue.

    Args:
        pairs: at least one, all of the same size S.
        across: pairs in a row.

    Returns:
        (H, W, 3) uint8 sRGB, H = S a row of pairs, W = 4 S a pair.

    Raises:
        PairsError: no pairs, or pairs of several sizes.
    """
    strips = [_strip(pair) for pair in pairs]
    if len({strip.shape for strip in strips}) != 1:
        raise PairsError(f"{len(strips)} pairs of several sizes or none; expected at least one, of one size")
    strips += [np.zeros_like(strips[0])] * (-len(strips) % across)
    rows = [np.concatenate(strips[first : first + across], axis=1) for first in range(0, len(strips), across)]
    return np.concatenate(rows, axis=0)


def _strip(pair: Pair) -> NDArray[np.uint8]:
    """(S, 4 S, 3): one pair."""
    size, bases = pair.sharp.shape[-1], len(pair.masks)
    hues = np.array([colorsys.hsv_to_rgb(basis / bases, 0.7, 1.0) for basis in range(bases)])
    images = [np.rint(255 * image.permute(1, 2, 0).numpy()) for image in (pair.sharp, pair.blurred)]
    mixed = np.rint(255 * np.tensordot(pair.masks.numpy(), hues, (0, 0)))
    columns = int(np.ceil(bases**0.5))
    kernel_size = pair.kernels.shape[-1]
    scale = max(1, (size // columns - 1) // kernel_size)
    sheet = contact_sheet(pair.kernels.numpy(), columns=columns, scale=scale).repeat(3, axis=2)
    step = kernel_size * scale + 1
    for basis, hue in enumerate(hues):
        top, left = 1 + basis // columns * step, 1 + basis % columns * step
        sheet[top : top + 5, left : left + 5] = np.rint(255 * hue)
    square = np.zeros((size, size, 3))
    part = sheet[:size, :size]
    square[: part.shape[0], : part.shape[1]] = part
    return np.concatenate([*images, square, mixed], axis=1).astype(np.uint8)

"""Which of several kernels holds where in a picture: judged by what a guided network makes of each.

A network that was trained on the mean squared error gives, as far as it has learnt that, the mean y of what
the sharp picture u may be, given what it was shown: and then

    E ‖u − v‖² = E ‖u − y‖² + ‖y − v‖²

so that how far it moves the blurred picture v is what it expects to gain. Shown a kernel that is wrong it
stays with v, as it was trained to. Where it does not, y blurred again differs from v. So a kernel is worth

    s = Σ (y − v)² / Σ ((k ∗ y − v)² + ε)

over a window around each place, times the root of the mean of s over the picture: a kernel that holds nowhere
else is less likely here. Its share is the square of that over the sum of all kernels' squares
(docs/ESTIMATION.md has what other rules give).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsmear.blurring import blur, luma
from unsmear.estimation.field import KernelField
from unsmear.estimation.filtering import guided_input
from unsmear.models.restoring import Precision, restore

CELL = 8
"""Pixels of a cell's side: shares are told for each."""

_WINDOW = 3  # cells around one that its score is taken from: 7×7
_FLOOR = 3e-6  # ε, the square of half a level of 8 bits: a difference below says nothing
_TINY = 1e-12  # where nothing moves, as in white clouds, all kernels are alike
_POWER = 2  # of the scores; 1 to 4 differ by 0.05 dB


def shares(
    picture: Tensor, kernels: Sequence[Tensor], network: nn.Module, *, precision: Precision = "auto"
) -> Tensor:
    """Return the share of each kernel in each cell of a picture.

    Args:
        picture: v, (3,H,W) float, sRGB in [0, 1], of 8×8 pixels or more.
        kernels: (K,K) on the simplex, K odd, of any sizes, each with a middle of its own.
        network: a guided network, on its device.
        precision: of its large products.

    Returns:
        (B, H // 8, W // 8) float32 on the simplex at each cell. Cells count from the upper left corner;
        pixels beyond the last whole cell belong to none.
    """
    scores = torch.stack([_score(picture, kernel, network, precision) for kernel in kernels])
    scores = scores * scores.mean((1, 2), keepdim=True).sqrt()
    parts = (scores / scores.amax(0).clamp_min(1e-30)).pow(_POWER)
    return _window(parts / parts.sum(0), 1)


def _score(picture: Tensor, kernel: Tensor, network: nn.Module, precision: Precision) -> Tensor:
    field = KernelField.uniform(kernel)
    restored = restore(
        network, guided_input(picture, field.kernels, middles=field.middles()), precision=precision
    )
    before, after = luma(picture), luma(restored)
    again = blur(after[None], field.centred(), torch.ones_like(before)[None])[0]
    moved, unexplained = (
        _cells((x - before).square()) + least for x, least in ((after, _TINY), (again, _FLOOR))
    )
    return _window(moved[None], _WINDOW)[0] / _window(unexplained[None], _WINDOW)[0]


def _cells(values: Tensor) -> Tensor:
    """Mean of each cell."""
    return F.avg_pool2d(values[None], CELL)[0]


def _window(cells: Tensor, reach: int) -> Tensor:
    """Mean of (B,h,w) over the cells around each one, those beyond the border left out."""
    return F.avg_pool2d(cells, 2 * reach + 1, 1, padding=reach, count_include_pad=False)

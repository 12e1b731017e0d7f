"""Restoration in a few steps, for a network to finish, by the kernels of Eq. 2.

    minimise over u   ‖k ∗ u − v‖² + λ ‖∇u‖²      so that      F u = conj(F k) F v / (|F k|² + λ |F ∇|²)

keeps detail, and noise and ringing with it (Tikhonov). And

    minimise over u   ½ ‖k ∗ u − v‖² + w Σ |∇u|     by half-quadratic splitting (Wang et al. 2008)

is calm, its edges sharp (total variation; |∇u| over both directions and all colours). Where kernels change
over the picture, every basis kernel restores the part of it that its mask reaches, and the masks fade the
results into each other (masks after the filter, as in Eq. 2 after the blur). By what the two differ in a
network sees where to believe which.
"""

from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from unsmear.errors import KernelError
from unsmear.estimation.spectra import difference_power, fast_size, inverse, kernel_spectrum, periodic
from unsmear.estimation.splitting import shortened, split

WEIGHT = 3e-3
"""λ of the filtered picture that a guided network gets beside the blurred one (models/guided.py)."""

VARIATION_WEIGHT = 2e-3
"""w of the picture restored by total variation that it gets too."""

_STEPS = 9  # of the splitting; its penalty doubles from w on
_FLOOR = 1e-6  # of the denominator where both spectra vanish
_RANGE = (-0.5, 1.5)  # filtered values are cut off here: ringing at saturated lights has no bounds


def filtered(
    blurred: Tensor,
    kernels: Tensor,
    masks: Tensor | None = None,
    *,
    weights: Sequence[float] = (WEIGHT,),
    variation: float | None = None,
    middles: Sequence[tuple[float, float]] | None = None,
) -> Tensor:
    """Filter a blurred picture by its kernels, once for each weight.

    Args:
        blurred: v, (C,H,W) float, values in [0, 1].
        kernels: k, (B,K,K) on the simplex, K odd.
        masks: m, (B,H,W) on the simplex at each pixel; None for B = 1: the same kernel everywhere.
        weights: λ > 0, one for each result.
        variation: w > 0 of one more result, the last, by total variation.
        middles: for each kernel (down, right) in pixels from its origin, whole or not: the point by which
            results lie over `blurred`; the centre of mass of all kernels together where None.

    Returns:
        (len(weights)·C, H, W) float32 in [−0.5, 1.5], the pictures of the first weight first; C more channels
        with `variation`.

    Raises:
        KernelError: shapes that do not fit.

    """
    if blurred.ndim != 3 or kernels.ndim != 3 or kernels.shape[-1] % 2 == 0:
        raise KernelError(
            "expected a picture (C,H,W) and kernels (B,K,K), K odd; "
            f"got {tuple(blurred.shape)} and {tuple(kernels.shape)}"
        )
    if middles is None:
        middles = list(repeat(_centre_of_mass(kernels), len(kernels)))
    if masks is None and len(kernels) == 1:
        return _filtered(blurred, kernels[0], weights, variation, middles[0])
    if masks is None or masks.shape != (len(kernels), *blurred.shape[-2:]):
        shape = None if masks is None else tuple(masks.shape)
        raise KernelError(f"{len(kernels)} kernels need masks (B,H,W) of the picture's size; got {shape}")
    height, width = blurred.shape[-2:]
    reach = kernels.shape[-1] - 1
    count = len(weights) + (variation is not None)
    result = blurred.new_zeros(count * len(blurred), height, width, dtype=torch.float32)
    for kernel, mask, middle in zip(kernels, masks, middles, strict=True):
        rows, columns = ((mask.amax(dim) > 0).nonzero().flatten() for dim in (1, 0))
        if not len(rows):
            continue
        window = (
            slice(max(int(rows[0]) - reach, 0), int(rows[-1]) + 1 + reach),
            slice(max(int(columns[0]) - reach, 0), int(columns[-1]) + 1 + reach),
        )
        result[:, *window] += mask[window] * _filtered(
            blurred[:, *window], kernel, weights, variation, middle
        )
    return result


def guided_input(
    blurred: Tensor,
    kernels: Tensor,
    masks: Tensor | None = None,
    *,
    middles: Sequence[tuple[float, float]] | None = None,
) -> Tensor:
    """What a guided network restores from: the blurred picture, and under it the filtered ones, (9,H,W)."""
    shown = filtered(blurred, kernels, masks, variation=VARIATION_WEIGHT, middles=middles)
    return torch.cat([blurred.float(), shown])


def _centre_of_mass(kernels: Tensor) -> tuple[float, float]:
    mean = kernels.mean(0).double()
    place = torch.arange(len(mean), dtype=torch.float64) - len(mean) // 2
    return float(mean.sum(1) @ place), float(mean.sum(0) @ place)


def _filtered(
    blurred: Tensor,
    kernel: Tensor,
    weights: Sequence[float],
    variation: float | None,
    middle: tuple[float, float],
) -> Tensor:
    height, width = blurred.shape[-2:]
    size = fast_size(height + kernel.shape[-1], width + kernel.shape[-1])
    down, right = torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])
    turn = 2 * torch.pi * (middle[0] * down + middle[1] * right)  # moves the result by −middle
    response = kernel_spectrum(kernel.float(), size) * torch.polar(torch.ones_like(turn), -turn)
    seen = periodic(blurred.float(), size)
    explained = response.conj() * torch.fft.rfft2(seen)
    power, edges = response.abs().square(), difference_power(size)
    pictures = [
        inverse(explained / (power + weight * edges + _FLOOR), size)[..., :height, :width]
        for weight in weights
    ]
    if variation is not None:
        penalties = [variation * 2.0**step for step in range(_STEPS)]
        picture = split(seen, explained, power, edges, penalties, shortened(variation))
        pictures.append(picture[..., :height, :width])
    return torch.cat(pictures).clamp_(*_RANGE)

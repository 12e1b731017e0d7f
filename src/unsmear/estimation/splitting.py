"""Half-quadratic splitting on a periodic picture, for priors that speak of its gradients.

    minimise over u   ‖k ∗ u − v‖² + Σ φ(∇u)

A field z takes the place of ∇u, at the price of β ‖∇u − z‖², β rising. The best z keeps a part of each
gradient, which φ tells; the best u is a division of spectra (Wang, Yang, Yin and Zhang 2008):

    F u = (conj(F k) F v + β conj(F ∇) F z) / (|F k|² + β |F ∇|²)

Most of the time of a blind estimate goes by here, so results are written into buffers that are there.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from unsmear.estimation.spectra import inverse


def split(
    picture: Tensor,
    explained: Tensor,
    power: Tensor,
    differences: Tensor,
    penalties: Iterable[float],
    part: Callable[[Tensor, float], Tensor],
) -> Tensor:
    """Restore a picture, one step for each β.

    Args:
        picture: u to begin with, (…, H, W) float32, taken as periodic.
        explained: conj(F k) F v, (…, H, W//2 + 1).
        power: |F k|², (H, W//2 + 1).
        differences: |F ∇|², (H, W//2 + 1).
        penalties: β of each step.
        part: from |∇u|², (H, W), summed over both differences and all colours, and β: how much of each
            gradient z keeps, (H, W). It may write into what it is given.

    Returns:
        u, (…, H, W).
    """
    height, width = picture.shape[-2:]
    right, down = torch.empty_like(picture), torch.empty_like(picture)
    edges, energy = torch.empty_like(picture), torch.empty_like(picture)
    below = torch.empty_like(power)
    for penalty in penalties:
        _gradient(picture, right, down)
        torch.mul(right, right, out=energy).addcmul_(down, down)
        kept = part(energy if energy.ndim == 2 else energy.sum(0), penalty)
        _divergence(right.mul_(kept), down.mul_(kept), edges)
        torch.add(power, differences, alpha=penalty, out=below).reciprocal_()
        spectrum = torch.fft.rfft2(edges.mul_(penalty)).add_(explained).mul_(below)
        picture = inverse(spectrum, (height, width))
    return picture


def shortened(weight: float) -> Callable[[Tensor, float], Tensor]:
    """Return the `part` of total variation, φ(g) = 2 w |g|: each gradient is shortened by w / β."""

    def part(energy: Tensor, penalty: float) -> Tensor:
        return energy.clamp_min_(1e-12).rsqrt_().mul_(-weight / penalty).add_(1).clamp_min_(0)

    return part


def _gradient(x: Tensor, right: Tensor, down: Tensor) -> None:
    """x(i, j + 1) − x(i, j) and x(i + 1, j) − x(i, j), the picture taken as periodic."""
    torch.sub(x[..., 1:], x[..., :-1], out=right[..., :-1])
    torch.sub(x[..., 0], x[..., -1], out=right[..., -1])
    torch.sub(x[..., 1:, :], x[..., :-1, :], out=down[..., :-1, :])
    torch.sub(x[..., 0, :], x[..., -1, :], out=down[..., -1, :])


def _divergence(right: Tensor, down: Tensor, out: Tensor) -> None:
    """The adjoint of `_gradient`."""
    torch.add(right, down, out=out).neg_()
    out[..., 1:] += right[..., :-1]
    out[..., 0] += right[..., -1]
    out[..., 1:, :] += down[..., :-1, :]
    out[..., 0, :] += down[..., -1, :]

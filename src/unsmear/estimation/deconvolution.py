"""Non-blind restoration: the sharp picture from a blurred one whose kernels and masks are known.

    minimise over u   ½ Σ_i w(i) ‖(A u − v)(i)‖² + λ Σ_j ‖∇u(j)‖                       A: the blur of Eq. 2

‖·‖ runs over the colours, and in the prior, total variation, over both differences too, so that edges of the
colours fall together. Nothing outside the photograph is asked for: u is restored with a margin of K//2 pixels
on each side, from which A makes the pixels of v alone (border "valid"), so no border rings. w is 0 where v is
saturated.

Half-quadratic splitting: z takes the place of ∇u at the price λβ/2 ‖∇u − z‖², β rising. The best z shortens
each ∇u(j) by 1/β; the best u solves

    (Aᵀ W A + λβ ∇ᵀ∇) u = Aᵀ W v + λβ ∇ᵀ z

by conjugate gradients with the exact adjoint Aᵀ, preconditioned by the same system with kernels that do not
change over the picture (a division of spectra).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.blurring import blur, blur_adjoint_image
from unsmear.errors import KernelError
from unsmear.estimation.spectra import difference_power, fast_size, kernel_spectrum

SATURATED = 0.985
"""Values from here on may have been cut off (251 of 255: demosaicking and JPEG blur the cut)."""

WEIGHT = 1.5e-3
"""λ for pictures in [0, 1] with noise of σ ≤ 0.01 and kernels that were estimated (docs/ESTIMATION.md)."""

_PENALTIES = (4.0, 16.0, 64.0, 256.0)  # β: until ∇u and z agree to the eye; from 1 on it gains less


def deconvolve(
    blurred: Tensor,
    kernels: Tensor,
    masks: Tensor | None = None,
    *,
    weight: float = WEIGHT,
    tolerance: float = 1e-4,
    steps: int = 5,
    saturated: float = SATURATED,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Restore a picture from its blurred version, the basis kernels and the masks of Eq. 2.

    Args:
        blurred: v, (C,H,W) float, values in [0, 1].
        kernels: k, (B,K,K), K odd.
        masks: m, (B,H,W), one on each pixel in sum; None for B = 1: the same kernel everywhere.
        weight: λ ≥ 0; more is smoother. Measured for values in [0, 1].
        tolerance: conjugate gradients of one β stop when the residual's energy, measured in the
            preconditioner, falls below tolerance² times the right-hand side's …
        steps: … or after so many steps.
        saturated: pixels with a colour from here on do not count in the data term; > 1 counts all.
        progress: called with the part that is done, up to 1.

    Returns:
        u, (C,H,W), float32, clamped to [0, 1].

    Raises:
        KernelError: shapes that do not fit, or values that are not finite.

    """
    if blurred.ndim != 3 or kernels.ndim != 3:
        raise KernelError(
            "expected a picture (C,H,W) and kernels (B,K,K), "
            f"got {tuple(blurred.shape)} and {tuple(kernels.shape)}"
        )
    if not (blurred.isfinite().all() and kernels.isfinite().all()):
        raise KernelError("the picture or the kernels have values that are not finite; expected [0, 1]")
    v = blurred.float()
    if masks is None:
        masks = v.new_ones(1, *v.shape[-2:])
    margin = kernels.shape[-1] // 2
    trusted = (v.amax(0, keepdim=True) < saturated).float()
    u = F.pad(v[None], (margin,) * 4, mode="replicate")[0]
    size = fast_size(u.shape[-2], u.shape[-1])
    shares = masks.flatten(1).mean(1)
    power = torch.einsum("b,bij->ij", shares, kernel_spectrum(kernels.float(), size).abs().square_())
    gradient_power = difference_power(size)
    target = blur_adjoint_image(trusted * v, kernels, masks, border="valid")

    for count, penalty in enumerate(_PENALTIES):
        rho = weight * penalty
        spectrum = power + rho * gradient_power + 1e-6

        def system(x: Tensor, rho: float = rho) -> Tensor:
            seen = trusted * blur(x, kernels, masks, border="valid")
            return blur_adjoint_image(seen, kernels, masks, border="valid") + rho * _divergence(_gradient(x))

        def precondition(x: Tensor, spectrum: Tensor = spectrum) -> Tensor:
            quotient = torch.fft.rfft2(x, s=size) / spectrum
            wide: Tensor = torch.fft.irfft2(quotient, s=size)
            return wide[..., : x.shape[-2], : x.shape[-1]]

        right = target + rho * _divergence(_shrunk(_gradient(u), penalty))
        u = _conjugate_gradients(system, precondition, right, u, tolerance, steps)
        if progress is not None:
            progress((count + 1) / len(_PENALTIES))
    return u[..., margin : margin + v.shape[-2], margin : margin + v.shape[-1]].clamp(0, 1)


def _gradient(x: Tensor) -> Tensor:
    """Return (2, C, H, W): differences to the right and downwards, 0 at the last column and row."""
    right = F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1))
    down = F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1))
    return torch.stack([right, down])


def _divergence(field: Tensor) -> Tensor:
    """The adjoint of `_gradient`, minus the divergence: (2, C, H, W) to (C, H, W)."""
    right, down = field[0][..., :, :-1], field[1][..., :-1, :]
    return F.pad(right, (1, 0)) - F.pad(right, (0, 1)) + F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))


def _shrunk(field: Tensor, penalty: float) -> Tensor:
    """z = g max(1 − 1/(β |g|), 0), |g| over directions and colours: the minimum of |z| + β/2 |z − g|²."""
    length = field.square().sum((0, 1)).sqrt_().clamp_min_(1e-8)
    return field * (1 - 1 / (penalty * length)).clamp_min_(0)


def _conjugate_gradients(
    system: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    start: Tensor,
    tolerance: float,
    steps: int,
) -> Tensor:
    x = start
    residual = right - system(x)
    direction = precondition(residual)
    energy = (residual * direction).sum()
    enough = tolerance**2 * float((right * precondition(right)).sum())
    for _ in range(steps):
        if float(energy) <= enough:
            break
        image = system(direction)
        step = energy / (direction * image).sum()
        x = x + step * direction
        residual = residual - step * image
        preconditioned = precondition(residual)
        new = (residual * preconditioned).sum()
        direction = preconditioned + (new / energy) * direction
        energy = new
    return x

"""Pixel by pixel: PSNR and the SSIMs that published figures were made with."""

import math
from collections.abc import Callable

import torch
from einops import reduce
from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.metrics.planes import checked, decibel, size_of

# Wang et al. 2004, "Image quality assessment": Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2


def psnr_rgb(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB over all pixels and the three colours, data range 1.

    Shapes (3,H,W) or (N,3,H,W), sRGB-encoded in [0,1]; gives one float64 value per image, inf where the two
    are equal. The same as scikit-image's peak_signal_noise_ratio(data_range=1) on each image.
    """
    restored, sharp = checked(restored, sharp)
    return decibel(reduce((restored - sharp).square_(), "... c h w -> ...", "mean"))


def ssim_gauss_rgb(restored: Tensor, sharp: Tensor, *, sample_covariance: bool = False) -> Tensor:
    """Structural similarity of Wang et al. 2004, mean over the three colours, in [-1, 1].

    Gaussian window 11×11, sigma 1.5; K1 0.01, K2 0.03, data range 1; a border of 5 pixels has no whole window
    and is left out. Each colour is a plane of its own (MATLAB's ssim on a colour picture is another number).
    Variances are weighted population variances, as in the paper, RealBlur's protocol and torchmetrics;
    `sample_covariance` multiplies them by 121/120, the default of scikit-image. torchmetrics differs in one
    thing: it keeps the border, filled by reflection.

    Shapes (3,H,W) or (N,3,H,W) with H, W ≥ 11; one float64 value per image, equal to scikit-image's
    structural_similarity(gaussian_weights=True, sigma=1.5, data_range=1, use_sample_covariance=…).
    """
    restored, sharp = checked(restored, sharp)
    return ssim_gauss(restored, sharp, sample_covariance=sample_covariance)


def ssim_gauss(restored: Tensor, sharp: Tensor, *, sample_covariance: bool = False) -> Tensor:
    """`ssim_gauss_rgb` of any planes (...,C,H,W) float64 of one shape, mean over the planes."""
    if min(sharp.shape[-2:]) < SSIM_WINDOW:
        raise EvaluationError(
            f"SSIM needs at least {SSIM_WINDOW}×{SSIM_WINDOW} pixels; these images are {size_of(sharp)}."
        )
    correction = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1) if sample_covariance else 1.0
    return reduce(similarity(restored, sharp, gauss, correction=correction), "... c h w -> ...", "mean")


def ssim_uniform_rgb(restored: Tensor, sharp: Tensor, *, window: int = 7, data_range: float = 1.0) -> Tensor:
    """SSIM with a window of equal weights, window×window, and sample covariance: scikit-image's default.

    Uformer's published SSIM is this one with window 7 and data_range 2: its script gives pictures of floating
    numbers without their range, which old releases of scikit-image then took for that of the type, -1 to 1.
    C1 and C2 grow fourfold and flatter the score.

    Shapes (3,H,W) or (N,3,H,W) with H, W ≥ window; one float64 value per image, equal to scikit-image's
    structural_similarity(win_size=window, data_range=data_range).
    """
    restored, sharp = checked(restored, sharp)
    if min(sharp.shape[-2:]) < window:
        raise EvaluationError(
            f"SSIM needs at least {window}×{window} pixels; these images are {size_of(sharp)}."
        )

    def box(x: Tensor) -> Tensor:
        planes = x.flatten(0, -3).unsqueeze(1) if x.ndim > 3 else x.unsqueeze(1)
        means = torch.nn.functional.avg_pool2d(planes, window, stride=1)
        return means.reshape(*x.shape[:-2], *means.shape[-2:])

    correction = window**2 / (window**2 - 1)
    score = similarity(restored, sharp, box, correction=correction, data_range=data_range)
    return reduce(score, "... c h w -> ...", "mean")


def ssim_volume_rgb(restored: Tensor, sharp: Tensor) -> Tensor:
    """SSIM of MATLAB's ssim(A, ref) on colour pictures: height × width × 3 is taken for a volume.

    Gaussian window 11×11×11, sigma 1.5, over the three colours too; population variances; the border
    replicated and kept. The tables of MPRNet, Restormer and NAFNet have it. It is higher the less the errors
    of the colours differ.

    Shapes (3,H,W) or (N,3,H,W); one float64 value per image; oracle: SciPy's gaussian_filter in three
    dimensions with mode="nearest" and truncate=3.5.
    """
    restored, sharp = checked(restored, sharp)
    across = _across_colours().to(sharp.device)

    def cube(x: Tensor) -> Tensor:
        mixed = torch.einsum("dc,...chw->...dhw", across, x)
        radius = SSIM_WINDOW // 2
        planes = mixed if x.ndim > 3 else mixed[None]
        wide = torch.nn.functional.pad(planes, (radius,) * 4, mode="replicate")
        return gauss(wide if x.ndim > 3 else wide[0])

    return reduce(similarity(restored, sharp, cube), "... c h w -> ...", "mean")


def similarity(
    restored: Tensor,
    sharp: Tensor,
    window: Callable[[Tensor], Tensor],
    *,
    correction: float = 1.0,
    data_range: float = 1.0,
) -> Tensor:
    """The map of Wang et al. 2004 with any window of local means; `correction` multiplies the variances."""
    c1, c2 = SSIM_C1 * data_range**2, SSIM_C2 * data_range**2
    mean_r, mean_s = window(restored), window(sharp)
    product, squares = mean_r * mean_s, mean_r.square_().add_(mean_s.square_())
    # Var(r) + Var(s) and Cov(r, s) are all that SSIM uses of the second moments: three windows less one.
    variances = window(restored.square().add_(sharp.square())).sub_(squares).mul_(correction)
    covariance = window(restored * sharp).sub_(product).mul_(correction)
    score = product.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    return score.div_(squares.add_(c1).mul_(variances.add_(c2)))


def _across_colours() -> Tensor:
    """(3,3): the Gaussian window along an axis of three places whose ends are replicated."""
    radius = SSIM_WINDOW // 2
    weights = torch.tensor(gauss_taps(), dtype=torch.float64)
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    for place in range(3):
        for tap in range(-radius, radius + 1):
            matrix[place, min(max(place + tap, 0), 2)] += weights[tap + radius]
    return matrix


def gauss_taps() -> list[float]:
    """The 11 weights of the Gaussian window along one axis; their sum is 1."""
    radius = SSIM_WINDOW // 2
    weights = [math.exp(-0.5 * (offset / SSIM_SIGMA) ** 2) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def gauss(x: Tensor) -> Tensor:
    """Gaussian window at every place where it fits whole: (...,H,W) -> (...,H-10,W-10)."""
    radius = SSIM_WINDOW // 2
    weights = gauss_taps()
    for axis in (-1, -2):
        length = x.shape[axis] - SSIM_WINDOW + 1
        # The window is symmetric: two pixels share a weight, which halves the multiplications.
        y = x.narrow(axis, radius, length) * weights[radius]
        for tap in range(radius):
            ends = x.narrow(axis, tap, length) + x.narrow(axis, SSIM_WINDOW - 1 - tap, length)
            y.add_(ends, alpha=weights[tap])
        x = y
    return x

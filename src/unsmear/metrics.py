"""Scores of a restored picture against the true one: pure functions, named exactly, one value per image.

Every function takes tensors (3,H,W) or (N,3,H,W) of any floating dtype, sRGB-encoded in [0,1] (values outside
are scored as they are); sums run in float64. It gives a float64 tensor without axes for (3,H,W) and of shape
(N,) for (N,3,H,W): a mean over images is the caller's, never a mean over pooled pixels.

All raise EvaluationError for shapes that do not match, and for images too small to be scored.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import reduce
from torch import Tensor

from unsmear.errors import EvaluationError

Channels = Literal["luma", "rgb"]

# ITU-R BT.601 luma of R, G, B at full range: the weights of the Köhler 2012 evaluation code.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)

# Wang et al. 2004, "Image quality assessment": Gaussian window of 11 pixels, sigma 1.5, K1 = 0.01, K2 = 0.03.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2

# The largest shift, in pixels along each axis, that an aligned score looks for unless told otherwise: covers
# those of the Köhler blurs against one frame of their truth (up to 26 px) and leaves 736×736 of 800×800.
MAX_SHIFT = 32


def psnr_rgb(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB over all pixels and the three colours, data range 1.

    Shapes (3,H,W) or (N,3,H,W), sRGB-encoded in [0,1]; gives one float64 value per image, inf where the two
    are equal. The same as scikit-image's peak_signal_noise_ratio(data_range=1) on each image.
    """
    restored, sharp = _checked(restored, sharp)
    return _decibel(reduce((restored - sharp).square_(), "... c h w -> ...", "mean"))


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
    restored, sharp = _checked(restored, sharp)
    if min(sharp.shape[-2:]) < SSIM_WINDOW:
        raise EvaluationError(
            f"SSIM needs at least {SSIM_WINDOW}×{SSIM_WINDOW} pixels; these images are {_size(sharp)}."
        )
    correction = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1) if sample_covariance else 1.0
    mean_r, mean_s = _gauss(restored), _gauss(sharp)
    product, squares = mean_r * mean_s, mean_r.square_().add_(mean_s.square_())
    # Var(r) + Var(s) and Cov(r, s) are all that SSIM uses of the second moments: three windows less one.
    variances = _gauss(restored.square().add_(sharp.square())).sub_(squares).mul_(correction)
    covariance = _gauss(restored * sharp).sub_(product).mul_(correction)
    score = product.mul_(2).add_(SSIM_C1).mul_(covariance.mul_(2).add_(SSIM_C2))
    score.div_(squares.add_(SSIM_C1).mul_(variances.add_(SSIM_C2)))
    return reduce(score, "... c h w -> ...", "mean")


@dataclass(frozen=True)
class Aligned:
    """A restored picture moved onto the true one, both cut to the region that every shift in range covers.

    restored, sharp: (3, H-2m, W-2m) float64, m = max_shift; restored bears the gain, nothing is clamped.
    shift: (down, right) in pixels, how far the restored content lies from the true content.
    gain: the factor on the restored values.
    """

    restored: Tensor
    sharp: Tensor
    shift: tuple[int, int]
    gain: float


def align(
    restored: Tensor,
    sharp: Tensor,
    *,
    max_shift: int = MAX_SHIFT,
    gain: bool = True,
    channels: Channels = "luma",
) -> Aligned:
    """Find the whole-pixel shift s and the gain g ≥ 0 that minimise Σ_i (g · restored(i+s) - sharp(i))².

    The sum runs over `sharp` less a border of max_shift pixels, so that every shift in range is scored on the
    same pixels and no zero-filled border enters: two pictures aligned with one truth share one region.
    All (2·max_shift+1)² shifts are tried: <sharp, restored(·+s)> by FFT cross-correlation, the energies by
    running sums; the least-squares gain is <sharp, restored> / <restored, restored>, with gain=False it is 1.
    The sums are taken on luma (.299 .587 .114) or on all three colours ("rgb").

    Both (3,H,W), one picture at a time. Raises EvaluationError if fewer than 11 pixels would be left.
    """
    restored, sharp = _checked(restored, sharp)
    if sharp.ndim != 3:
        raise EvaluationError(f"Pictures are aligned one at a time as (3,H,W); got {tuple(sharp.shape)}.")
    height, width = sharp.shape[-2] - 2 * max_shift, sharp.shape[-1] - 2 * max_shift
    if max_shift < 0 or min(height, width) < SSIM_WINDOW:
        raise EvaluationError(
            f"A shift of up to {max_shift} px leaves {width}×{height} of an image of {_size(sharp)}; "
            f"at least {SSIM_WINDOW}×{SSIM_WINDOW} are needed. Choose a smaller max_shift."
        )
    core = sharp[:, max_shift : max_shift + height, max_shift : max_shift + width]
    down, right = _best_shift(_planes(restored, channels), _planes(core, channels), gain=gain)
    moved = restored[:, down : down + height, right : right + width]
    factor = _least_squares_gain(_planes(moved, channels), _planes(core, channels)) if gain else 1.0
    return Aligned(moved * factor, core, (down - max_shift, right - max_shift), factor)


def psnr_shift_gain(
    restored: Tensor, sharp: Tensor, *, max_shift: int = MAX_SHIFT, channels: Channels = "luma"
) -> Tensor:
    """PSNR in dB after the best whole-pixel shift and the best gain (see `align`), on luma or on all colours.

    For benchmarks like Köhler 2012, where neither position nor brightness of the truth is known. The official
    Köhler score differs in three ways: it takes the best of about 199 true frames, it finds the gain before
    the shift, and it counts the zero-filled border as pixels without error.

    Shapes (3,H,W) or (N,3,H,W) in [0,1]; one float64 value per image; unchanged by a shift of `restored`
    within the range and by any positive factor on it. Both are chosen for `restored`: it is not symmetric.
    """
    return _psnr_aligned(restored, sharp, max_shift=max_shift, gain=True, channels=channels)


def psnr_shift(
    restored: Tensor, sharp: Tensor, *, max_shift: int = MAX_SHIFT, channels: Channels = "luma"
) -> Tensor:
    """PSNR in dB after the best whole-pixel shift alone: `psnr_shift_gain` with the gain held at 1."""
    return _psnr_aligned(restored, sharp, max_shift=max_shift, gain=False, channels=channels)


def psnr_aligned(aligned: Aligned, *, channels: Channels = "luma") -> Tensor:
    """PSNR in dB of what `align` has brought together, on the same channels: float64 without axes."""
    difference = _planes(aligned.restored, channels) - _planes(aligned.sharp, channels)
    return _decibel(difference.square_().mean())


def _psnr_aligned(
    restored: Tensor, sharp: Tensor, *, max_shift: int, gain: bool, channels: Channels
) -> Tensor:
    restored, sharp = _checked(restored, sharp)
    if sharp.ndim == 3:
        together = align(restored, sharp, max_shift=max_shift, gain=gain, channels=channels)
        return psnr_aligned(together, channels=channels)
    scores = [
        _psnr_aligned(one, truth, max_shift=max_shift, gain=gain, channels=channels)
        for one, truth in zip(restored, sharp, strict=True)
    ]
    return torch.stack(scores)


def _best_shift(picture: Tensor, core: Tensor, *, gain: bool) -> tuple[int, int]:
    """Corner (down, right) of the window of `picture` (C,H,W) that fits `core` (C,h,w) best."""
    height, width = picture.shape[-2:]
    rows, columns = height - core.shape[-2] + 1, width - core.shape[-1] + 1
    # Circular correlation at the size of the picture: no shift in range lets the window wrap round.
    spectrum = torch.fft.rfft2(picture) * torch.fft.rfft2(core, s=(height, width)).conj()
    likeness = torch.fft.irfft2(spectrum.sum(0), s=(height, width))[:rows, :columns]
    energy = _window_sums(picture.square().sum(0), (core.shape[-2], core.shape[-1]))
    # How much of Σ core² the window explains; what it leaves is the squared error.
    if gain:
        explained = likeness.clamp(min=0).square() / energy.clamp(min=torch.finfo(energy.dtype).tiny)
    else:
        explained = 2 * likeness - energy
    # Rounding must not choose among equals (a flat picture fits everywhere): the smallest shift does.
    slack = 1e-12 * core.square().sum() + 1e-300
    down = torch.arange(rows, device=picture.device) - rows // 2
    right = torch.arange(columns, device=picture.device) - columns // 2
    distance = down[:, None].square() + right.square()
    equals = explained >= explained.max() - slack
    best = int(torch.where(equals, distance, torch.iinfo(distance.dtype).max).argmin())
    return divmod(best, columns)


def _window_sums(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Sum of x (H,W) over every window (h,w) that lies inside: (H-h+1, W-w+1)."""
    total = torch.nn.functional.pad(x.cumsum(0).cumsum(1), (1, 0, 1, 0))
    h, w = window
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def _least_squares_gain(picture: Tensor, truth: Tensor) -> float:
    energy = float((picture * picture).sum())
    return max(float((picture * truth).sum()) / energy, 0.0) if energy > 0 else 1.0


def _planes(x: Tensor, channels: Channels) -> Tensor:
    """The planes (C,H,W) that a score looks at: luma alone (1,H,W) or the three colours."""
    if channels == "rgb":
        return x
    if channels != "luma":
        raise EvaluationError(f"Channels are 'luma' or 'rgb', not {channels!r}.")
    weights = torch.tensor(LUMA_WEIGHTS, dtype=x.dtype, device=x.device)
    return torch.einsum("c,chw->hw", weights, x)[None]


def _gauss(x: Tensor) -> Tensor:
    """Gaussian window at every place where it fits whole: (...,H,W) -> (...,H-10,W-10)."""
    radius = SSIM_WINDOW // 2
    weights = [math.exp(-0.5 * (offset / SSIM_SIGMA) ** 2) for offset in range(-radius, radius + 1)]
    total = sum(weights)
    for axis in (-1, -2):
        length = x.shape[axis] - SSIM_WINDOW + 1
        # The window is symmetric: two pixels share a weight, which halves the multiplications.
        y = x.narrow(axis, radius, length) * (weights[radius] / total)
        for tap in range(radius):
            ends = x.narrow(axis, tap, length) + x.narrow(axis, SSIM_WINDOW - 1 - tap, length)
            y.add_(ends, alpha=weights[tap] / total)
        x = y
    return x


def _decibel(mean_square: Tensor) -> Tensor:
    return -10 * torch.log10(mean_square)


def _checked(restored: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64, after a look at their shapes."""
    if restored.shape != sharp.shape:
        raise EvaluationError(
            f"The images differ in size: {_size(restored)} against {_size(sharp)} "
            f"(shapes {tuple(restored.shape)} and {tuple(sharp.shape)}). They must show the same pixels."
        )
    if sharp.ndim not in (3, 4) or sharp.shape[-3] != 3:
        raise EvaluationError(f"Expected images (3,H,W) or (N,3,H,W), got shape {tuple(sharp.shape)}.")
    if 0 in sharp.shape:
        raise EvaluationError(f"There is nothing to score in images of shape {tuple(sharp.shape)}.")
    return restored.detach().to(torch.float64), sharp.detach().to(torch.float64)


def _size(x: Tensor) -> str:
    return f"{x.shape[-1]}×{x.shape[-2]}" if x.ndim >= 2 else f"shape {tuple(x.shape)}"

"""After the best shift, and the best factor: for benchmarks whose truth lies nobody knows where."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unsmear.blurring import good_length
from unsmear.errors import EvaluationError
from unsmear.metrics.planes import Channels, checked, decibel, planes_of, size_of
from unsmear.metrics.similarity import SSIM_WINDOW

# The largest shift, in pixels along each axis, that an aligned score looks for unless told otherwise: covers
# those of the Köhler blurs against one frame of their truth (up to 26 px) and leaves 736×736 of 800×800.
MAX_SHIFT = 32


@dataclass(frozen=True)
class Aligned:
    """A restored picture moved onto the true one, both cut to the region that every shift in range covers.

    restored, sharp: (3, H-2m, W-2m) float64, m = border; restored bears the gain, nothing is clamped.
    shift: (down, right) in pixels, how far the restored content lies from the true content.
    gain: the factor on the restored values.
    """

    restored: Tensor
    sharp: Tensor
    shift: tuple[float, float]
    gain: float


def align(
    restored: Tensor,
    sharp: Tensor,
    *,
    max_shift: int = MAX_SHIFT,
    gain: bool = True,
    channels: Channels = "luma",
    border: int | None = None,
    steps: int = 1,
) -> Aligned:
    """Find the shift s and the gain g ≥ 0 that minimise Σ_i (g · restored(i+s) - sharp(i))².

    The sum runs over `sharp` less a border (max_shift pixels unless told otherwise), so that every shift in
    range is scored on the same pixels and no filled-in border enters: two pictures aligned with one truth
    share one region. All (2·max_shift+1)² whole-pixel shifts are tried: <sharp, restored(·+s)> by FFT
    cross-correlation, the energies by running sums; the least-squares gain is <sharp, restored> / <restored,
    restored>, with gain=False it is 1. steps > 1 tries steps of 1/steps pixel as well, between pixels by
    bilinear interpolation: steps² searches. The sums are taken on luma (.299 .587 .114), on MATLAB's Y
    ("ycbcr") or on all three colours ("rgb").

    Both (3,H,W), one picture at a time. Raises EvaluationError if fewer than 11 pixels would be left.
    """
    restored, sharp = checked(restored, sharp)
    if sharp.ndim != 3:
        raise EvaluationError(f"Pictures are aligned one at a time as (3,H,W); got {tuple(sharp.shape)}.")
    border = max_shift if border is None else border
    height, width = sharp.shape[-2] - 2 * border, sharp.shape[-1] - 2 * border
    if max_shift < 0 or min(height, width) < SSIM_WINDOW:
        raise EvaluationError(
            f"A shift of up to {max_shift} px leaves {width}×{height} of an image of {size_of(sharp)}; "
            f"at least {SSIM_WINDOW}×{SSIM_WINDOW} are needed. Choose a smaller max_shift."
        )
    if border < max_shift:
        raise EvaluationError(f"A border of {border} px does not hold shifts of up to {max_shift} px.")
    core = sharp[:, border : border + height, border : border + width]
    target = planes_of(core, channels)
    reach = border - max_shift
    wide = restored[:, reach : restored.shape[1] - reach, reach : restored.shape[2] - reach]
    planes = planes_of(wide, channels)
    part, best = (0.0, 0.0), _best_shift(planes, target, gain=gain)
    for place in range(1, steps * steps):
        down, right = place // steps / steps, place % steps / steps
        found = _best_shift(_between(planes, down, right), target, gain=gain)
        if found.explained > best.explained + found.slack:
            part, best = (down, right), found
    moved = _between(wide, *part)[:, best.row : best.row + height, best.column : best.column + width]
    factor = _least_squares_gain(planes_of(moved, channels), target) if gain else 1.0
    shift = (best.row - max_shift + part[0], best.column - max_shift + part[1])
    return Aligned(moved * factor, core, shift, factor)


def _between(x: Tensor, down: float, right: float) -> Tensor:
    """x(i + (down, right)) for parts of a pixel, bilinear; one row or column less where they are not 0."""
    if down:
        x = x[:, :-1] * (1 - down) + x[:, 1:] * down
    if right:
        x = x[:, :, :-1] * (1 - right) + x[:, :, 1:] * right
    return x


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
    difference = planes_of(aligned.restored, channels) - planes_of(aligned.sharp, channels)
    return decibel(difference.square_().mean())


def _psnr_aligned(
    restored: Tensor, sharp: Tensor, *, max_shift: int, gain: bool, channels: Channels
) -> Tensor:
    restored, sharp = checked(restored, sharp)
    if sharp.ndim == 3:
        together = align(restored, sharp, max_shift=max_shift, gain=gain, channels=channels)
        return psnr_aligned(together, channels=channels)
    scores = [
        _psnr_aligned(one, truth, max_shift=max_shift, gain=gain, channels=channels)
        for one, truth in zip(restored, sharp, strict=True)
    ]
    return torch.stack(scores)


@dataclass(frozen=True)
class _Found:
    """Corner of the best window; how much of Σ core² it explains; what is rounding of that."""

    row: int
    column: int
    explained: float
    slack: float


def _best_shift(picture: Tensor, core: Tensor, *, gain: bool) -> _Found:
    """The window of `picture` (C,H,W) that fits `core` (C,h,w) best."""
    height, width = picture.shape[-2:]
    rows, columns = height - core.shape[-2] + 1, width - core.shape[-1] + 1
    # Circular correlation at the size of the picture or more: no shift in range lets the window wrap round.
    size = (good_length(height), good_length(width))
    spectrum = torch.fft.rfft2(picture, s=size) * torch.fft.rfft2(core, s=size).conj()
    likeness = torch.fft.irfft2(spectrum.sum(0), s=size)[:rows, :columns]
    energy = _window_sums(picture.square().sum(0), (core.shape[-2], core.shape[-1]))
    # How much of Σ core² the window explains; what it leaves is the squared error.
    if gain:
        explained = likeness.clamp(min=0).square() / energy.clamp(min=torch.finfo(energy.dtype).tiny)
    else:
        explained = 2 * likeness - energy
    # Rounding must not choose among equals (a flat picture fits everywhere): the smallest shift does.
    slack = float(1e-12 * core.square().sum() + 1e-300)
    down = torch.arange(rows, device=picture.device) - rows // 2
    right = torch.arange(columns, device=picture.device) - columns // 2
    distance = down[:, None].square() + right.square()
    most = explained.max()
    equals = explained >= most - slack
    best = int(torch.where(equals, distance, torch.iinfo(distance.dtype).max).argmin())
    return _Found(*divmod(best, columns), float(most), slack)


def _window_sums(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Sum of x (H,W) over every window (h,w) that lies inside: (H-h+1, W-w+1)."""
    total = torch.nn.functional.pad(x.cumsum(0).cumsum(1), (1, 0, 1, 0))
    h, w = window
    return total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]


def _least_squares_gain(picture: Tensor, truth: Tensor) -> float:
    energy = float((picture * picture).sum())
    return max(float((picture * truth).sum()) / energy, 0.0) if energy > 0 else 1.0

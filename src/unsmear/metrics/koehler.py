"""The score of the Köhler 2012 benchmark: the best of about 199 true frames, each after gain and shift.

For a restored picture z and a true frame x, levels 0 to 255, as the authors' evaluation code has it:

    z ← z · <x, z> / <z, z>                       over pixels and colours
    s = argmax circular cross-correlation of the means over the colours of x and z
    z ← z moved by s, zeros where nothing was; x ← x where z is, else zero
    PSNR = 10 log10(255² / mean square of the difference of luma)       over ALL pixels
    MSSIM: `mssim` of luma

and of each the best frame counts: the two may be different frames. A moved picture's empty border counts as
pixels without error.

The sums of levels are whole numbers, so that a shift can be found with certainty: transforms in float32 leave
few candidates within their rounding, and whole numbers decide. The scores of all frames are found in float32;
those within its rounding of the best are found again in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.metrics.planes import LUMA_WEIGHTS, size_of
from unsmear.metrics.similarity import SSIM_C1, SSIM_C2, SSIM_WINDOW, gauss

# Low-pass filter of the biorthogonal 9/7 wavelet (analysis): between the scales of the benchmark's MSSIM.
LOW_PASS = (
    0.037828455507260,
    -0.023849465019560,
    -0.110624404418440,
    0.377402855612830,
    0.852698679008890,
    0.377402855612830,
    -0.110624404418440,
    -0.023849465019560,
    0.037828455507260,
)
# Exponents of contrast and structure at the five scales, from fine to coarse (Wang, Simoncelli, Bovik 2003);
# luminance counts at the coarsest alone, with the last.
SCALE_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_PEAK = 255.0
_LEAST = SSIM_WINDOW * 2 ** (len(SCALE_EXPONENTS) - 1)  # pixels a side
_QUICK, _EXACT = torch.float32, torch.float64
_ROUNDING = 2e-6  # of a correlation in float32, in parts of the norms: more than ten times what it is
_SLACK_DB = 1e-2  # far above the rounding of float32, which is 1e-4 dB
_SLACK_MSSIM = 1e-4
_CANDIDATES = 64  # more shifts than that within rounding: float64 decides


@dataclass(frozen=True)
class BestFrame:
    """Best scores over the frames, and the places of those frames from 0."""

    psnr: float
    psnr_frame: int
    mssim: float
    mssim_frame: int


def best_frame(restored: Tensor, frames: Sequence[Tensor], *, structure: bool = True) -> BestFrame:
    """PSNR in dB and MSSIM of a restored picture, each against the frame that suits it best.

    restored: (3,H,W) uint8 levels, sRGB. frames: each (3,H,W) uint8; taken one by one, so that a sequence may
    read them from files. structure=False leaves MSSIM out (nan), which takes most of the time.

    Raises EvaluationError for other shapes or types, pictures that are black, and where there is no frame.
    """
    if not len(frames):
        raise EvaluationError("There is no true frame to score against.")
    search = _Search(restored)
    if structure and min(restored.shape[-2:]) < _LEAST:
        raise EvaluationError(f"MSSIM needs at least {_LEAST}×{_LEAST} pixels; got {size_of(restored)}.")
    psnrs, mssims = [], []
    for frame in frames:
        match = search.match(frame)
        psnrs.append(search.psnr(match))
        if structure:
            mssims.append(search.mssim(match))
    psnr, psnr_frame = _exactly(
        psnrs, _SLACK_DB, lambda place: search.psnr(search.match(frames[place], _EXACT))
    )
    if not structure:
        return BestFrame(psnr, psnr_frame, math.nan, -1)
    best, place = _exactly(
        mssims, _SLACK_MSSIM, lambda place: search.mssim(search.match(frames[place], _EXACT))
    )
    return BestFrame(psnr, psnr_frame, best, place)


def mssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """The multi-scale SSIM of the Köhler 2012 evaluation code, of two planes (...,H,W), levels 0 to 255.

    Five scales; between them the low-pass filter of the 9/7 wavelet, borders mirrored with the edge repeated,
    every second pixel from the first. Gaussian window 11×11, sigma 1.5, without border; K1 0.01, K2 0.03; the
    means of contrast and structure at each scale to the powers `SCALE_EXPONENTS`, of luminance at the last
    scale to .1333, multiplied. torchmetrics' multi-scale SSIM averages 2×2 pixels between scales and takes
    contrast times structure in one: another number.

    A structure that is negative on the mean, which has no power, counts as 0. H, W ≥ 176.
    """
    if restored.shape != sharp.shape or min(sharp.shape[-2:]) < _LEAST:
        raise EvaluationError(
            f"The multi-scale SSIM needs two planes of at least {_LEAST}×{_LEAST} pixels; got "
            f"{size_of(restored)} and {size_of(sharp)}."
        )
    return _mssim(_Scales(restored), _Scales(sharp), 1.0)


@dataclass(frozen=True)
class _Match:
    """Luma of a true frame, how far (down, right) the restored picture has to move onto it, and its gain."""

    luma: Tensor
    shift: tuple[int, int]
    gain: float


class _Search:
    """A restored picture, and what of it all frames share."""

    def __init__(self, restored: Tensor) -> None:
        _check(restored, restored)
        self._levels = {dtype: restored.to(dtype) for dtype in (_QUICK, _EXACT)}
        self._lumas = {dtype: _luma(levels) for dtype, levels in self._levels.items()}
        self._energy = float(self._levels[_EXACT].square().sum())
        if self._energy == 0:
            raise EvaluationError("The restored picture is black: no gain brings it to the truth.")
        self._sums = self._levels[_QUICK].sum(0)  # whole numbers up to 765: the mean over colours, times 3
        self._spectrum = torch.fft.rfft2(self._sums).conj().resolve_conj()
        self._spectrum[0, 0] = 0  # the means of both say nothing about the shift, and cost precision
        self._frame = torch.empty_like(self._levels[_QUICK])  # kept: memory that is new costs more than sums
        self._norm = float(self._sums.norm())
        # Neighbouring frames share their shift. No method of this object: a cycle would keep all these planes
        # in memory until Python happens to look for cycles.
        self._scales = lru_cache(maxsize=4)(partial(_moved_scales, self._lumas))

    def match(self, frame: Tensor, dtype: torch.dtype = torch.float32) -> _Match:
        """Gain and shift of a frame (3,H,W) uint8; with the quick type valid until the next one."""
        if frame.shape != self._frame.shape or frame.dtype != torch.uint8:
            _check(frame, self._frame)
        levels = self._frame.copy_(frame) if dtype == _QUICK else frame.to(dtype)
        gain = float(torch.dot(levels.flatten(), self._levels[dtype].flatten())) / self._energy
        return _Match(_luma(levels), self._shift(levels.to(_QUICK).sum(0)), gain)

    def psnr(self, match: _Match) -> float:
        """PSNR of luma over all pixels."""
        there, here = _overlap(match.shift, self._sums.shape)
        error = torch.sub(match.luma[there], self._lumas[match.luma.dtype][here], alpha=match.gain)
        mean = float(error.square_().sum()) / self._sums.numel()
        return 10 * math.log10(_PEAK**2 / mean) if mean > 0 else math.inf

    def mssim(self, match: _Match) -> float:
        """MSSIM of luma over all pixels."""
        there, _ = _overlap(match.shift, self._sums.shape)
        truth = torch.zeros_like(match.luma)
        truth[there] = match.luma[there]
        return float(_mssim(self._scales(match.shift, truth.dtype), _Scales(truth), match.gain))

    def _shift(self, sums: Tensor) -> tuple[int, int]:
        """The circular shift with the largest correlation; of several equal ones the smallest."""
        height, width = sums.shape
        spectrum = torch.fft.rfft2(sums).mul_(self._spectrum)
        # irfft2 in two steps, which torch does in half the time
        likeness = torch.fft.irfft(torch.fft.ifft(spectrum, dim=0), n=width, dim=1)
        most = likeness.amax(1)
        least = float(most.max()) - _ROUNDING * float(sums.norm()) * self._norm
        rows = (most >= least).nonzero()[:, 0]
        places = [(int(rows[row]), column) for row, column in (likeness[rows] >= least).nonzero().tolist()]
        if (
            len(places) > _CANDIDATES
        ):  # hardly a picture: float64 decides, and the smallest shift among equals
            pair = sums.to(_EXACT), self._sums.to(_EXACT)
            spectrum = torch.fft.rfft2(pair[0]) * torch.fft.rfft2(pair[1]).conj()
            exact = torch.fft.irfft2(spectrum, s=(height, width))
            places = [
                (row, column) for row, column in (exact >= exact.max() * (1 - 1e-12)).nonzero().tolist()
            ]
        shifts = [
            (row - height if row >= height // 2 else row, column - width if column >= width // 2 else column)
            for row, column in places
        ]
        if 1 < len(shifts) <= _CANDIDATES:
            values = [self._correlation(sums, shift) for shift in shifts]
            shifts = [s for s, value in zip(shifts, values, strict=True) if value == max(values)]
        return min(shifts, key=lambda shift: (shift[0] ** 2 + shift[1] ** 2, shift))

    def _correlation(self, sums: Tensor, shift: tuple[int, int]) -> float:
        """Circular correlation at one shift: a whole number, exact in float64."""
        moved = self._sums.roll(shift, (0, 1)).to(_EXACT)
        return float((moved * sums.to(_EXACT)).sum())


class _Scales:
    """A plane (...,H,W) at five scales: itself, local means, local variances."""

    def __init__(self, plane: Tensor) -> None:
        self.planes, self.means, self.variances = [], [], []
        for scale in range(len(SCALE_EXPONENTS)):
            if scale:
                plane = _halved(plane)
            mean = gauss(plane)
            self.planes.append(plane)
            self.means.append(mean)
            self.variances.append(gauss(plane.square()).sub_(mean.square()).clamp_(min=0))


def _moved_scales(lumas: dict[torch.dtype, Tensor], shift: tuple[int, int], dtype: torch.dtype) -> _Scales:
    """The scales of the luma of that type, moved, zeros where nothing was."""
    there, here = _overlap(shift, lumas[dtype].shape)
    moved = torch.zeros_like(lumas[dtype])
    moved[there] = lumas[dtype][here]
    return _Scales(moved)


def _mssim(restored: _Scales, sharp: _Scales, gain: float) -> Tensor:
    """MSSIM of gain · restored and sharp."""
    c1, c2 = SSIM_C1 * _PEAK**2, SSIM_C2 * _PEAK**2
    score = torch.ones(sharp.planes[0].shape[:-2], dtype=sharp.planes[0].dtype)
    luminance = score
    for scale, power in enumerate(SCALE_EXPONENTS):
        product = gauss(restored.planes[scale] * sharp.planes[scale])
        covariance = product.sub_(restored.means[scale] * sharp.means[scale]).mul_(gain)
        deviations = (restored.variances[scale] * sharp.variances[scale]).sqrt_().mul_(gain)
        variances = sharp.variances[scale] + restored.variances[scale] * gain**2
        contrast = (2 * deviations + c2).div_(variances.add_(c2)).mean((-2, -1))
        structure = covariance.add_(c2 / 2).div_(deviations.add_(c2 / 2)).mean((-2, -1))
        score = score * (contrast * structure.clamp(min=0)) ** power
        if scale == len(SCALE_EXPONENTS) - 1:
            means = restored.means[scale] * gain, sharp.means[scale]
            ratio = (2 * means[0] * means[1] + c1) / (means[0].square() + means[1].square() + c1)
            luminance = ratio.mean((-2, -1)) ** power
    return score * luminance


def _halved(x: Tensor) -> Tensor:
    """Low-pass along both axes, every second pixel from the first."""
    radius = len(LOW_PASS) // 2
    total = sum(LOW_PASS)
    for axis in (-2, -1):
        length = x.shape[axis]
        x = x.transpose(axis, -1)
        wide = torch.cat([x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)], -1)
        span = 2 * ((length + 1) // 2) - 1
        y = wide[..., radius : radius + span : 2] * (LOW_PASS[radius] / total)
        for tap in range(radius):
            other = 2 * radius - tap
            ends = wide[..., tap : tap + span : 2] + wide[..., other : other + span : 2]
            y.add_(ends, alpha=LOW_PASS[tap] / total)
        x = y.transpose(axis, -1)
    return x.contiguous()


def _exactly(values: Sequence[float], slack: float, exact: Callable[[int], float]) -> tuple[float, int]:
    """The best of the exact values, found where the quick ones are within `slack` of the best; the first."""
    most = max(values)
    near = [place for place, value in enumerate(values) if value >= most - slack or value == most]
    value, place = max((exact(place), -place) for place in near)
    return value, -place


def _overlap(shift: tuple[int, int], size: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where the moved picture lies in the frame, and which part of the picture that is."""
    there = tuple(slice(max(s, 0), length + min(s, 0)) for s, length in zip(shift, size, strict=True))
    here = tuple(slice(max(-s, 0), length + min(-s, 0)) for s, length in zip(shift, size, strict=True))
    return (there[0], there[1]), (here[0], here[1])


def _luma(levels: Tensor) -> Tensor:
    red, green, blue = LUMA_WEIGHTS
    return (levels[0] * red).add_(levels[1], alpha=green).add_(levels[2], alpha=blue)


def _check(levels: Tensor, like: Tensor) -> None:
    if levels.dtype != torch.uint8 or levels.ndim != 3 or levels.shape[0] != 3:
        raise EvaluationError(f"Expected levels (3,H,W) uint8, got {tuple(levels.shape)} {levels.dtype}.")
    if levels.shape != like.shape:
        raise EvaluationError(
            f"A true frame is {size_of(levels)}, the restored picture {size_of(like)}: expected one size."
        )

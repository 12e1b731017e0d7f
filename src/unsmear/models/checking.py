"""How far to believe what estimated kernels make of a photo: v the photo, u what was restored by kernels.

Three signs, each blind where others see. Blurred again by its kernels u must be v, which wrong kernels pass
where the picture lets them: a wall of upright lines explains an upright streak. And u must go, as far as that
goes, where a network goes that knows no kernels and was trained on the squared error; its p is the mean of
what the truth may be for this v, so that the truth itself has E⟨u − v, p − v⟩ = ‖p − v‖². And motion along
the kernels' paths must have left its trace: fine detail is missing along them that coarse detail promises.

And two signs that p undoes motion, which has a direction, and does not sharpen what was merely soft: one by
the photo alone (`direction`), one by what p gives back to it (`sidedness`).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.blurring import blur
from unsmear.estimation.field import KernelField

BELIEF = (0.85, 0.35)
"""From 0 to 1 between these parts of a photo that its kernels leave unexplained (docs/DEBLURRING.md)."""

AGREED = (-0.50, -0.45)
"""From 0 to 1 between these values of agreement − 2 · unexplained + trace (docs/DEBLURRING.md)."""

PARTED = (-0.2, -0.1)
"""The same for these values of the agreement alone: whatever it explains, u goes the other way."""

CLIPPED = 0.97
"""Values from here on are taken for clipped: compression and reducing spread what was at 1."""

_MOST_CLIPPED = 0.5  # of a photo may be left out; where more is clipped, white is its paper or its sky
_STEEPNESS = 2.0  # how much more agreement is asked for where more is left unexplained
_FINE, _COARSE = 1.0, 8.0  # standard deviations that a photo is smoothed by for its trace, in pixels
_LINES = 0.15  # of how far coarse lines run along the paths, which they would explain for nothing
_LEAST_TRACE = -0.2  # long blur, in small pictures, reaches what is taken for coarse
_FAR = 0.01  # a move of ten times the root mean square without kernels is one too far
_EXACT = 1e-9  # mean squared change by kernels that do not blur
_CELL, _WINDOW = 8, 7  # pixels of a cell's side, cells of a window's
_TINY = 1e-7  # the square of less than a tenth of a level of 8 bits
_SIDE, _SECTORS, _BAND = 96, 8, (0.05, 0.35)  # of sidedness: pixels, directions, cycles a pixel
_LITTLE = 1e-4  # of lost, which is nothing
_EDGE = 8  # pixels beside the kernel's reach that are left out at the border


def unclipped(picture: Tensor, reach: int) -> Tensor:
    """Where a photo can be held against kernels: 1, and 0 where the sensor was at its limit, (h, w).

    A lamp is brighter than the brightest value, and so is its streak in the middle: no picture of values in
    [0, 1] blurred gives that, whatever the kernel. That is so as far around as kernels reach. Where this is
    more than half of the photo nothing is left out.

    Args:
        picture: v, (3, h, w), sRGB in [0, 1].
        reach: how far kernels reach, in pixels.
    """
    clipped = (picture.amax(0) >= CLIPPED).float()[None, None]
    near = F.max_pool2d(clipped, (2 * reach + 1, 1), 1, (reach, 0))
    seen = 1 - F.max_pool2d(near, (1, 2 * reach + 1), 1, (0, reach))[0, 0]
    return seen if float(seen.mean()) >= _MOST_CLIPPED else torch.ones_like(seen)


def unexplained(grey: Tensor, field: KernelField, restored: Tensor, seen: Tensor | None = None) -> float:
    """How much of a photo the restored one does not give back when it is blurred again, 0 to about 1.

    ‖k ∗ u − v‖² / ‖k ∗ v − v‖² of the luma, a border left out: 0 where u, blurred, is the photo v, and 1
    where u is v itself, nothing having been restored. 0 for kernels that do not blur.

    Args:
        grey: v, (h, w), the photo's luma at the size of the kernels.
        field: the kernels.
        restored: u, (h, w), the luma of the restored photo, reduced as v is.
        seen: (h, w), 1 for the pixels that count, by `unclipped`, and 0; None: all.
    """
    height, width = grey.shape
    edge = min(field.reach + _EDGE, height // 4, width // 4)
    inside = (slice(edge, height - edge), slice(edge, width - edge))
    weight = torch.ones_like(grey) if seen is None else seen
    left, moved = (
        float(((blurred_again(x, field) - grey).square() * weight)[inside].mean()) for x in (restored, grey)
    )
    return left / moved if moved > _EXACT else 0.0


def agreement(grey: Tensor, restored: Tensor, without: Tensor, seen: Tensor | None = None) -> float:
    """How far what was restored by kernels goes the way of what was restored without: 1 and more, all of it.

    ⟨u − v, p − v⟩ / (‖p − v‖² + 0.01 ‖u − v‖²) of the luma. About 1 for right kernels, which may go further;
    less where u goes elsewhere, or far where p sees next to nothing to restore; 0 where nothing moves.

    Args:
        grey: v, (h, w), the photo's luma.
        restored: u, by kernels.
        without: p, by a network that is shown no kernels.
        seen: (h, w), 1 for the pixels that count, by `unclipped`, and 0; None: all.
    """
    moved, other = restored - grey, without - grey
    if seen is not None:
        moved, other = moved * seen, other * seen
    power = float(other.square().mean()) + _FAR * float(moved.square().mean())
    return float((moved * other).mean()) / power if power > 0 else 0.0


def trace(grey: Tensor, field: KernelField) -> float:
    """How much of a photo's fine detail is missing along its kernels' paths and not across: −0.2 to about 1.

    With g the photo's gradient after a Gaussian of σ pixels, along and across the long axis of the kernel at
    each place, weighted by how elongated that is,

        A(σ) = Σ (g⊥² − g∥²) / Σ (g⊥² + g∥²)        and        A(1) − A(8) − 0.15 max(A(8), 0)

    Motion takes fine detail along its path: A(1) is above A(8). Which way the photo's own lines run changes
    both alike, and where they run along the path, A(8) > 0, that is held against kernels: lines explain a
    streak along them for nothing. 0 for kernels that are as wide as long.

    Args:
        grey: v, (h, w), the photo's luma at the size of the kernels; 0 below 64 pixels.
        field: the kernels.
    """
    if min(grey.shape) < 8 * _COARSE:
        return 0.0
    fine, coarse = (_across(_smoothed(grey, sigma), field) for sigma in (_FINE, _COARSE))
    return max(fine - coarse - _LINES * max(coarse, 0.0), _LEAST_TRACE)


def belief(unexplained: float, agreement: float | None = None, trace: float = 0.0) -> float:
    """How much of a restored photo to take, 0 to 1.

    Args:
        unexplained: the part that its kernels leave unexplained.
        agreement: with what is restored without kernels; None: not asked.
        trace: that motion along the kernels' paths has left in the photo.
    """
    believed = ramp(unexplained, *BELIEF)
    if agreement is not None:
        believed *= ramp(agreement - _STEEPNESS * unexplained + trace, *AGREED) * ramp(agreement, *PARTED)
    return believed


def direction(grey: Tensor) -> float:
    """How much sharper a photo is across some direction than along it: 1, alike in all, and more.

    A lens out of focus softens alike in all directions, motion along its own. Sharpness is by how much the
    squared differences of neighbours in a direction are more than those of the photo after a Gaussian of one
    pixel, in windows of 56 pixels, so that how strong edges are, and which way they run, is divided out. Of
    two directions at right angles the logarithm of the sharper over the other, the greater of two such pairs;
    1 plus its mean over the photo, weighted by its edges.

    Args:
        grey: v, (h, w), the photo's luma; 1 where it has less than 16 pixels a side.
    """
    if min(grey.shape) < 2 * _CELL:
        return 1.0
    before, after = _directed(grey), _directed(_smoothed(grey, 1.0))
    sharpness = (before + _TINY) / (after + _TINY)
    right, falling, down, rising = sharpness
    pairs = torch.stack([right / down, falling / rising]).log().abs().amax(0)
    weight = after.sum(0)
    return float((pairs * weight).sum() / (weight.sum() + _TINY)) + 1.0


def sidedness(grey: Tensor, without: Tensor) -> float:
    """How much is given back to a photo in one direction and not in the one at right angles, 0 to 1.

    Motion takes away along its path and leaves what is across; a lens, compression and a soft subject take
    alike from all directions, and whoever restores them gives back alike. In windows of 96 pixels, with
    spectra V and P of photo and restored photo, the part of P that v lacks is by least squares

        lost(θ) = 1 − Σ Re(V P*) / Σ |P|²       over the frequencies of direction θ, 0.05 to 0.35 a pixel

    for eight directions. With m the mean of |lost| and c the amplitude of what in it goes as cos 2(θ − θ₀),
    a window's value is c² / m: m where lost is m (1 + cos 2(θ − θ₀)), as along a straight path, 0 where it is
    the same for all. Meaned over the windows by Σ (p − v)², which is where something was given back; objects
    that move by themselves may have each their own direction.

    Args:
        grey: v, (h, w), the photo's luma.
        without: p, (h, w), that of the photo restored without kernels; 0 where it is v, or below 16 pixels.
    """
    side = min(_SIDE, *grey.shape)
    if side < 2 * _CELL:
        return 0.0
    line = torch.hann_window(side, periodic=False)
    v, p = (_windows(x, side) * torch.outer(line, line) for x in (grey, without))
    weight = (p - v).square().sum((1, 2))
    if weight.sum() <= 0:
        return 0.0
    spectrum, restored = torch.fft.fft2(v), torch.fft.fft2(p)
    down, right = torch.meshgrid(torch.fft.fftfreq(side), torch.fft.fftfreq(side), indexing="ij")
    sector = (torch.atan2(down, right) % math.pi / math.pi * _SECTORS).long() % _SECTORS
    frequency = torch.hypot(down, right)
    sectors = (
        F.one_hot(sector, _SECTORS).float() * ((_BAND[0] < frequency) & (frequency < _BAND[1]))[..., None]
    )
    kept, power = (
        torch.einsum("nhw,hwd->nd", x, sectors)
        for x in ((spectrum * restored.conj()).real, restored.abs().square())
    )
    lost = (1 - kept / (power + _TINY * power.mean())).clamp(-0.5, 1)
    turns = torch.exp(2j * math.pi * (torch.arange(_SECTORS) + 0.5) / _SECTORS)
    amplitude = 2 * (lost * turns).mean(1).abs()
    return float((weight * amplitude.square() / (lost.abs().mean(1) + _LITTLE)).sum() / weight.sum())


def _smoothed(x: Tensor, sigma: float) -> Tensor:
    """A picture (h, w) after a Gaussian, mirrored at its border."""
    reach = round(4 * sigma)
    line = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    line /= line.sum()
    padded = F.pad(x[None, None], (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))[0, 0]


def _across(picture: Tensor, field: KernelField) -> float:
    """A of `trace`, −1 to 1."""
    height, width = picture.shape
    down, right = picture.diff(dim=0)[:, :-1], picture.diff(dim=1)[:-1]
    products = torch.stack([down * down, down * right, right * right])
    masks = field.masks(rows=slice(0, height), columns=slice(0, width))
    along = both = 0.0
    for index, kernel in enumerate(field.kernels):
        part = products if masks is None else products * masks[index, :-1, :-1]
        axis, elongation = _long_axis(kernel)
        moments = [float(x) * elongation for x in part.sum((1, 2))]
        along += axis[0] ** 2 * moments[0] + 2 * axis[0] * axis[1] * moments[1] + axis[1] ** 2 * moments[2]
        both += moments[0] + moments[2]
    return 1 - 2 * along / both if both > 0 else 0.0


def _long_axis(kernel: Tensor) -> tuple[tuple[float, float], float]:
    """The direction (down, right) in which a kernel (K, K) is longest, and 1 − (width / length)²."""
    kernel = kernel.double() / kernel.sum()
    place = torch.arange(len(kernel), dtype=torch.float64)
    taps = torch.stack(torch.meshgrid(place, place, indexing="ij"), -1)
    from_centre = taps - torch.einsum("ij,ijx->x", kernel, taps)
    spread = torch.einsum("ij,ijx,ijy->xy", kernel, from_centre, from_centre)
    tap = torch.eye(2, dtype=torch.float64) / 12  # is a pixel wide
    squares, axes = torch.linalg.eigh(spread + tap)
    return (float(axes[0, 1]), float(axes[1, 1])), 1 - float(squares[0] / squares[1])


def _windows(x: Tensor, side: int) -> Tensor:
    """Windows (N, side, side) that overlap by half, each without its mean."""
    cut = x.unfold(0, side, side // 2).unfold(1, side, side // 2).reshape(-1, side, side)
    return cut - cut.mean((1, 2), keepdim=True)


def _directed(x: Tensor) -> Tensor:
    """Squared differences of neighbours in four directions, (4, h', w'): means of windows around cells."""
    corner = x[:-1, :-1]
    steps = (x[:-1, 1:] - corner, x[1:, 1:] - corner, x[1:, :-1] - corner, x[1:, :-1] - x[:-1, 1:])
    cells = F.avg_pool2d(torch.stack([step.square() for step in steps])[None], _CELL)
    return F.avg_pool2d(cells, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)[0]


def ramp(value: float, none: float, all_: float) -> float:
    """0 at `none` and 1 at `all_`, straight in between and the same beyond."""
    return min(max((value - none) / (all_ - none), 0.0), 1.0)


def blurred_again(grey: Tensor, field: KernelField) -> Tensor:
    """A luma (h, w), blurred by the kernels of a field of its size."""
    height, width = grey.shape
    masks = field.masks(rows=slice(0, height), columns=slice(0, width))
    return blur(grey[None], field.centred(), torch.ones(1, height, width) if masks is None else masks)[0]

"""One blurred photograph, nothing else known: kernels that vary, and how far they are to be believed.

The photograph is cut into overlapping regions. Each gets two blind estimates of one kernel that begin
differently (`uniform.STARTS`). Three things are asked of a region:

- Do both estimates agree, and is a neighbour's kernel like it? Without texture they do neither. The answer
  is the region's *weight*.
- Is the kernel larger than a sharp photograph's (a pixel or two: lens, demosaicking)?
- Is it *thin*? A path covers few pixels for its spread; a defocused lens spreads light evenly. Thinness is
  the kernel's area 1 / Σ k² over that of the round Gaussian with its largest standard deviation s, 4π s²: 1
  for a Gaussian or a disc, 12 t / (4π L) for a straight line of length L and breadth t.

Spread and thinness together are the region's *evidence* of motion, its confidence is evidence times weight.
The photograph is blurred by motion if the weighted mean evidence says so; where regions carry no weight, or
the evidence is in between, the answer is that it cannot be told. Thresholds: docs/ESTIMATION.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unsmear.basis.kernels import center_kernels, trim_kernels
from unsmear.basis.masks import grid_masks
from unsmear.blurring import blur, luma
from unsmear.errors import KernelError
from unsmear.estimation.deconvolution import SATURATED, deconvolve
from unsmear.estimation.noise import noise_level
from unsmear.estimation.uniform import STARTS, centred, estimate_uniform

Verdict = Literal["motion", "none", "unknown"]

SMALLEST = 64  # pixels, shorter side of a photograph
_SIDES = (128, 320)  # pixels, a region's side: half of the shorter side between these
_LEAST_TEXTURE = 4.0  # gradient energy of a region over that of the noise, and …
_LEAST_STEP = 0.004  # … root mean square step between neighbours, a level of 8 bit
_MOST_SATURATED = 0.25  # part of a region

# From 0 to 1 between two values each.
_AGREEMENT = (0.70, 0.95)  # normalised correlation of a region's two estimates
_NEIGHBOUR = (0.50, 0.85)  # … of its kernel and that of the most similar neighbour
_SPREAD = (1.1, 1.5)  # pixels, the largest standard deviation: a straight line of 3.8 to 5.2 pixels
_THINNESS = (0.58, 0.35)

_MOTION, _NONE = 0.5, 0.2  # weighted mean evidence: motion from here on, none up to there
_LEAST_WEIGHT = 0.2  # mean weight of the regions; below it nothing can be told
_DEFOCUS = 1.3  # pixels of spread from which a photograph without motion is called soft
_ALIKE = 0.8  # normalised correlation from which two kernels count as one
_MOST_BASES = 9
_LEAST_TRUST = 0.05  # of all confidence; a group of kernels with less is a stray estimate


@dataclass(frozen=True)
class Region:
    """A square of the photograph and what it says.

    Attributes:
        top, left, side: where, in pixels.
        kernel: (K,K) float32 on the simplex, centred by mass; None where nothing was estimated (flat or
            saturated).
        weight: how far the estimate is to be believed, 0 to 1.
        evidence: of motion, 0 to 1.
    """

    top: int
    left: int
    side: int
    kernel: Tensor | None
    weight: float
    evidence: float

    @property
    def confidence(self) -> float:
        """Weight times evidence: 0 in flat, sharp and defocused regions."""
        return self.weight * self.evidence


@dataclass(frozen=True)
class PhotographFit:
    """What a photograph says of its own blur.

    Attributes:
        verdict: "motion", "none" (no motion blur found) or "unknown" (it cannot be told).
        kernels: k, (B,K,K) float32 on the simplex, centred by mass, K odd; without motion the one that
            changes nothing, (1,1,1).
        masks: m, (B,H,W) float32 on the simplex; None for B = 1.
        regions: row by row.
        latent: u, (3,H,W), restored with them; None where that was not asked for.
        reblur_psnr: of the photograph against latent, kernels and masks put through Eq. 2, in dB over the
            pixels that are not saturated, a border of K//2 left out; NaN without latent.
        sentence: the verdict in plain words.
    """

    verdict: Verdict
    kernels: Tensor
    masks: Tensor | None
    regions: tuple[Region, ...]
    latent: Tensor | None
    reblur_psnr: float
    sentence: str

    @property
    def motion(self) -> bool:
        """Whether motion blur was found."""
        return self.verdict == "motion"

    @property
    def confidence(self) -> Tensor:
        """Of each region, (R,)."""
        return torch.tensor([region.confidence for region in self.regions])


@dataclass(frozen=True)
class Shape:
    """A kernel's shape in numbers.

    Attributes:
        length: pixels along the direction of largest spread that hold the middle 90 % of the mass, over 0.9:
            the length of a straight even motion.
        angle: of that direction, degrees counter-clockwise from "to the right", 0 ≤ angle < 180.
        spread: standard deviation along it, pixels.
        breadth: standard deviation across it, pixels.
        thinness: see the head of this file; small for paths, 1 for a Gaussian.
    """

    length: float
    angle: float
    spread: float
    breadth: float
    thinness: float


def estimate_photograph(
    image: Tensor, *, most_regions: int = 20, side: int | None = None, restore: bool = True
) -> PhotographFit:
    """Estimate the blur of a photograph from itself, and whether it is motion blur at all.

    Args:
        image: v, (3,H,W), values in [0, 1] as they are in the file (sRGB); 64 pixels a side or more.
        most_regions: regions at most; they move apart until they are no more, overlapping by half otherwise.
        side: of a region in pixels; half of the shorter side, 128 to 320, where None. Kernels are at most a
            fifth of it.
        restore: restore the photograph as well, for `latent` and `reblur_psnr`.

    Returns:
        The fit.

    Raises:
        KernelError: no picture (3,H,W), one that is smaller, or with values that are not finite.

    """
    if image.ndim != 3 or len(image) != 3 or min(image.shape[-2:]) < SMALLEST:
        raise KernelError(
            f"expected a photograph (3,H,W) of {SMALLEST}×{SMALLEST} pixels or more, got {tuple(image.shape)}"
        )
    if not image.isfinite().all():
        raise KernelError("the photograph has values that are not finite; expected values in [0, 1]")
    image = image.float()
    grey = luma(image)
    regions, grid = _estimate_regions(grey, most_regions, side)
    verdict = _judge(regions)
    if verdict != "motion":
        kernels, masks = image.new_ones(1, 1, 1), None
        sentence = _without_motion(verdict, regions)
        return PhotographFit(
            verdict,
            kernels,
            masks,
            regions,
            image if restore else None,
            math.inf if restore else math.nan,
            sentence,
        )
    kernels, masks = _field(regions, grid, grey.shape)
    if restore and masks is None:
        kernels = _whole(grey, kernels)
    latent, psnr = None, math.nan
    if restore:
        latent = deconvolve(image, kernels, masks)
        psnr = reblurred_psnr(image, latent, kernels, masks)
    return PhotographFit(verdict, kernels, masks, regions, latent, psnr, _with_motion(kernels, masks))


def reblurred(latent: Tensor, kernels: Tensor, masks: Tensor | None) -> Tensor:
    """Eq. 2: (C,H,W), (B,K,K) and masks (B,H,W) or None to (C,H,W), the border mirrored."""
    return blur(latent, kernels, latent.new_ones(1, *latent.shape[-2:]) if masks is None else masks)


def reblurred_psnr(image: Tensor, latent: Tensor, kernels: Tensor, masks: Tensor | None) -> float:
    """PSNR in dB of v against Eq. 2 over unsaturated pixels, K//2 from the border or more."""
    margin = kernels.shape[-1] // 2
    inside = (..., slice(margin, image.shape[-2] - margin), slice(margin, image.shape[-1] - margin))
    error = (reblurred(latent, kernels, masks) - image).square()[inside]
    seen = (image.amax(0) < SATURATED)[inside].expand_as(error)
    if not seen.any():
        return math.nan
    return -10 * math.log10(max(float(error[seen].mean()), 1e-20))


def shape_of(kernel: Tensor) -> Shape:
    """Measure a kernel (K,K) on the simplex."""
    kernel = kernel.double()
    at = torch.arange(kernel.shape[-1], dtype=torch.float64)
    down, right = float(kernel.sum(1) @ at), float(kernel.sum(0) @ at)
    y, x = (at - down)[:, None].expand_as(kernel), (at - right).expand_as(kernel)
    yy, xx, xy = (float((kernel * product).sum()) for product in (y * y, x * x, x * y))
    half, off = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    tilt = 0.5 * math.atan2(2 * xy, xx - yy)  # rows grow downwards
    along = (x * math.cos(tilt) + y * math.sin(tilt)).flatten()
    order = along.argsort()
    mass = kernel.flatten()[order].cumsum(0)
    low, high = (
        float(along[order][int((mass < part).sum().clamp(max=len(mass) - 1))]) for part in (0.05, 0.95)
    )
    spread = math.sqrt(half + off)
    area = 1 / float(kernel.square().sum())
    return Shape(
        length=(high - low) / 0.9,
        angle=-math.degrees(tilt) % 180,
        spread=spread,
        breadth=math.sqrt(max(half - off, 0.0)),
        thinness=area / (4 * math.pi * max(spread, 0.3) ** 2),
    )


def alikeness(kernel: Tensor, other: Tensor) -> float:
    """Largest normalised correlation of two kernels (K,K), (L,L) over whole shifts, after a blur by ¼ ½ ¼."""
    return _correlated(kernel, other)[0]


def _correlated(kernel: Tensor, other: Tensor) -> tuple[float, tuple[int, int]]:
    """Largest correlation, and how far `other` must move for it."""
    size = kernel.shape[-1] + other.shape[-1] + 4
    one, two = (torch.fft.rfft2(_softened(k), s=(size, size)) for k in (kernel, other))
    values = torch.fft.irfft2(one * two.conj(), s=(size, size))
    best = int(values.argmax())
    norm = float(_softened(kernel).norm() * _softened(other).norm())
    return float(values.flatten()[best]) / norm, divmod(best, size)


def _softened(kernel: Tensor) -> Tensor:
    tap = kernel.new_tensor([0.25, 0.5, 0.25])
    return F.conv2d(kernel[None, None], (tap[:, None] * tap)[None, None], padding=2)[0, 0]


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 before the first end, 1 beyond the second, straight in between."""
    return min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))


# Regions


def _places(length: int, side: int, count: int) -> list[int]:
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _estimate_regions(
    grey: Tensor, most: int, side: int | None
) -> tuple[tuple[Region, ...], tuple[list[float], list[float]]]:
    """Return the regions row by row, and the centres of their rows and columns."""
    height, width = grey.shape
    shorter = min(height, width)
    side = min(shorter, side or min(max(shorter // 2, _SIDES[0]), _SIDES[1]))
    rows, columns = (1 + math.ceil(2 * (length - side) / side) for length in (height, width))
    while rows * columns > max(1, most):
        if rows * width > columns * height and rows > 1:
            rows -= 1
        else:
            columns -= 1
    tops, lefts = _places(height, side, rows), _places(width, side, columns)
    noise = noise_level(grey[None])
    found = [_estimate(grey[top : top + side, left : left + side], noise) for top in tops for left in lefts]
    regions = []
    for number, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        kernel, agreement = found[number]
        weight = evidence = 0.0
        if kernel is not None:
            shape = shape_of(kernel)
            row, column = divmod(number, columns)
            near = [
                found[r * columns + c][0]
                for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
                if 0 <= r < rows and 0 <= c < columns
            ]
            support = max((alikeness(kernel, other) for other in near if other is not None), default=0.0)
            if rows * columns == 1:
                support = 1.0
            weight = _ramp(agreement, _AGREEMENT) * _ramp(support, _NEIGHBOUR)
            evidence = _ramp(shape.spread, _SPREAD) * _ramp(shape.thinness, _THINNESS)
        regions.append(Region(top, left, side, kernel, weight, evidence))
    return tuple(regions), ([top + side / 2 for top in tops], [left + side / 2 for left in lefts])


def _estimate(patch: Tensor, noise: float) -> tuple[Tensor | None, float]:
    """The kernel of a region, and how alike its two estimates are; None where there is nothing to see."""
    energy = 0.5 * float(patch.diff(dim=0).square().mean() + patch.diff(dim=1).square().mean())
    if energy < max(_LEAST_TEXTURE * 2 * noise**2, _LEAST_STEP**2):
        return None, 0.0
    if float((patch >= SATURATED).float().mean()) > _MOST_SATURATED:
        return None, 0.0
    fits = [estimate_uniform(patch, starts=(start,)) for start in STARTS]
    best = min(fits, key=lambda fit: fit.cost)
    return best.kernel, alikeness(fits[0].kernel, fits[1].kernel)


# The photograph


def _judge(regions: Sequence[Region]) -> Verdict:
    total = sum(region.weight for region in regions)
    if total < _LEAST_WEIGHT * len(regions):
        return "unknown"
    evidence = sum(region.confidence for region in regions) / total
    return "motion" if evidence >= _MOTION else "none" if evidence <= _NONE else "unknown"


def _field(
    regions: Sequence[Region], grid: tuple[list[float], list[float]], size: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """Few kernels for many regions: one group after the other around the most trusted kernel that is left."""
    trust = np.array([region.confidence for region in regions])
    trusted = [
        (i, k) for i, region in enumerate(regions) if (k := region.kernel) is not None and trust[i] > 0
    ]
    groups: list[list[tuple[int, Tensor]]] = []
    for number, kernel in sorted(trusted, key=lambda pair: -trust[pair[0]]):
        values = [alikeness(kernel, group[0][1]) for group in groups]
        if values and (max(values) >= _ALIKE or len(groups) == _MOST_BASES):
            groups[int(np.argmax(values))].append((number, kernel))
        else:
            groups.append([(number, kernel)])
    least = _LEAST_TRUST * trust.sum()
    groups = [group for group in groups if sum(trust[number] for number, _ in group) >= least]
    basis = np.stack(_same_size([_mean_kernel(group, trust) for group in groups]))
    result = torch.from_numpy(np.ascontiguousarray(trim_kernels(center_kernels(basis))))
    if len(groups) == 1:
        return result, None
    # A region without confidence takes what the others say, the nearer the more.
    rows, columns = grid
    places = np.array([(row, column) for row in rows for column in columns])
    distance = ((places[:, None] - places[None]) ** 2).sum(-1) / regions[0].side ** 2
    influence = trust / (distance + 0.05)
    shares = np.stack([influence[:, [number for number, _ in group]].sum(1) for group in groups], 1)
    shares /= shares.sum(1, keepdims=True)
    nodes = grid_masks(rows, columns, int(size[0]), int(size[1]))
    masks = np.einsum("nb,nhw->bhw", shares, nodes).astype(np.float32)
    return result, torch.from_numpy(masks / masks.sum(0))


def _mean_kernel(group: Sequence[tuple[int, Tensor]], trust: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weighted mean of a group's kernels, each moved onto the first."""
    first = group[0][1]
    wide = 2 * max(len(kernel) for _, kernel in group) + 1
    total = torch.zeros(wide, wide)
    for number, kernel in group:
        _, moves = _correlated(first, kernel)
        size = len(first) + len(kernel) + 4
        # At shift 0 the corners coincide; the centres are half of the difference of the sizes apart.
        apart = (len(first) - len(kernel)) // 2
        down, right = ((move if move < size // 2 else move - size) - apart for move in moves)
        total += float(trust[number]) * F.pad(kernel, ((wide - len(kernel)) // 2,) * 4).roll(
            (down, right), (0, 1)
        )
    total = centred(total / total.sum())
    total = torch.where(total < 0.02 * total.max(), 0.0, total)
    return np.asarray((total / total.sum()).numpy())


def _same_size(kernels: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    largest = max(len(kernel) for kernel in kernels)
    return [np.pad(kernel, (largest - len(kernel)) // 2) for kernel in kernels]


def _whole(grey: Tensor, kernels: Tensor) -> Tensor:
    """The whole photograph's kernel, if it is like the one that its regions agree on."""
    kernel = estimate_uniform(grey).kernel
    if alikeness(kernel, kernels[0]) < _ALIKE:
        return kernels
    result = trim_kernels(center_kernels(kernel[None].numpy()))
    return torch.from_numpy(np.ascontiguousarray(result))


# In words


def direction(angle: float) -> str:
    """Say an angle (degrees counter-clockwise from "to the right") in words."""
    names = ("horizontal", "rising to the right", "vertical", "falling to the right")
    return names[round(angle / 45) % 4]


def _without_motion(verdict: Verdict, regions: Sequence[Region]) -> str:
    seen = [(region.weight, shape_of(region.kernel)) for region in regions if region.kernel is not None]
    total = sum(weight for weight, _ in seen)
    if verdict == "unknown":
        if total < _LEAST_WEIGHT * len(regions):
            return "Cannot tell: too little texture, or regions that contradict one another."
        if any(region.weight > 0.5 and region.evidence > 0.8 for region in regions):
            return "Cannot tell: some regions look as if something moved, others do not."
        return "Cannot tell: a little blur, too short or too round to say that something moved."
    spread = sum(weight * shape.spread for weight, shape in seen) / total
    if spread >= _DEFOCUS:
        return f"No motion blur found; soft by about {4 * spread:.0f} pixels all round, as if out of focus."
    return "No motion blur found: edges are sharp to within a few pixels."


def _with_motion(kernels: Tensor, masks: Tensor | None) -> str:
    shares = [1.0] if masks is None else masks.flatten(1).mean(1).tolist()
    shapes = [shape_of(kernel) for kernel in kernels]
    kept = [shape for shape, share in zip(shapes, shares, strict=True) if share >= 0.1] or shapes
    low, high = (round(end(shape.length for shape in kept)) for end in (min, max))
    main = max(zip(shares, shapes, strict=True), key=lambda pair: pair[0])[1]
    turned = {direction(shape.angle) for shape in kept}
    bent = main.breadth > 0.35 * main.spread and main.length >= 7
    way = "along a curved path" if bent else f"mostly {direction(main.angle)}"
    if masks is None:
        return f"Motion blur of about {high} pixels, {way}, much the same over the whole picture."
    about = f"about {high}" if low == high else f"about {low} to {high}"
    changes = "its length and direction change" if len(turned) > 1 else "it changes"
    return f"Motion blur of {about} pixels, {way}; {changes} over the picture."

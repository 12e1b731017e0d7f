"""Blind: one kernel for a whole picture, from the blurred picture alone, from coarse to fine.

At each scale two steps take turns. The *latent* picture S, with few edges, that the kernel k explains:

    minimise over S   ‖k ∗ S − v‖² + λ ‖∇S‖₀                        (Xu, Zheng and Jia 2013; Pan et al. 2014)

by half-quadratic splitting: a gradient is kept where |∇S|² ≥ λ/β, β doubling from 2λ on. And the kernel that
makes v's gradients from those of S, on the simplex:

    minimise over k   ½ ‖k ∗ ∇S − ∇v‖² + γ/2 ‖k‖²                       k ≥ 0, Σ k = 1

λ starts high, so that at coarse scales only strong edges speak, and falls by the same factor at every step.
Which start finds the kernel depends on the picture, so several are tried at a coarse scale; taken is the one
whose restored picture has the sparsest gradients, by the ratio Σ |g|^½ / (Σ g²)^¼ that no change of contrast
alters (after Krishnan, Tay and Fergus 2011), times a low power of how much Σ |g| has grown: wrong kernels
ring.

Picture and kernel can be shifted against each other unseen; kernels are centred by mass.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.errors import KernelError
from unsmear.estimation.simplex import minimise
from unsmear.estimation.spectra import (
    Size,
    Toeplitz,
    difference_power,
    fast_size,
    kernel_spectrum,
    periodic,
)
from unsmear.estimation.splitting import shortened, split
from unsmear.runtime import shared_map

ROUNDS = 5  # of both steps at each scale (Pan et al. 2014)
RIDGE = 2.0  # γ, for gradients of values in [0, 1] (Pan et al. 2014)
_LAST_PENALTY = 1e3  # of β; Pan et al. go to 1e5, which gains nothing here and takes twice the time
_LEAST_WEIGHT = 1e-4  # of λ (Pan et al. 2014)
_FIRST_SIZE = 5  # pixels; the kernel's largest size at the coarsest scale
_SMALLEST_SIDE = 24  # pixels of the coarsest picture
_COARSE = 150_000  # pixels; the last scale below is as far as `search` goes
_COMPARED = 0.5  # of these pixels: there the starts are compared, and the better one goes on
_DECONVOLUTION = 2e-3  # weight of the total variation in the comparison
_GROWTH = 0.1
_PRODUCTS = 150
_WIDTH = 8.0  # pixels; 280 kernels estimated on GoPro, REDS, Köhler, Lai and Levin have 1.4 to 5.9


@dataclass(frozen=True)
class Start:
    """How a run from coarse to fine begins and goes on.

    Attributes:
        weight: λ of the first step.
        decay: what λ is divided by after each step.
        ratio: of two neighbouring scales.
        threshold: taps below this part of the largest are noise.
    """

    weight: float = 4e-3
    decay: float = 1.05
    ratio: float = 0.7071
    threshold: float = 0.05


STARTS = (
    Start(weight=1.6e-2, decay=1.1),
    Start(weight=8e-3, decay=1.03, ratio=0.84, threshold=0.02),  # finds faint tails of long kernels too
)
"""Of five starts on 24 Köhler and 10 Levin pictures these two lost least against all five."""


@dataclass(frozen=True)
class UniformFit:
    """A kernel and the picture that it was found with.

    Attributes:
        kernel: (K,K) float32 on the simplex, centred by mass, K odd.
        latent: (H,W), S: the picture reduced to its strong edges.
        cost: by which starts are compared, of the picture restored with the kernel; less is better.
        weight: λ at the end.
    """

    kernel: Tensor
    latent: Tensor
    cost: float
    weight: float


def estimate_uniform(
    grey: Tensor, *, largest: int | None = None, starts: Sequence[Start] = STARTS, coarse: int = _COARSE
) -> UniformFit:
    """Estimate the one kernel of a blurred picture.

    Args:
        grey: v, (H,W), values in [0, 1].
        largest: the kernel's largest side in pixels; a fifth of the shorter side where None.
        starts: what is tried.
        coarse: pixels at which `search` stops, at most; the starts are compared at half of them.

    Returns:
        The fit at full size.

    Raises:
        KernelError: no picture (H,W), one smaller than 8 × 8, with values that are not finite, or flat.

    """
    found = search(grey, largest=largest, starts=starts, coarse=coarse)
    found.refine(1.0)
    return UniformFit(found.kernel, found.latent, found.cost(), found.weight)


def search(
    grey: Tensor, *, largest: int | None = None, starts: Sequence[Start] = STARTS, coarse: int = _COARSE
) -> "Search":
    """Look for the kernel of a picture as far as the last scale of at most `coarse` pixels.

    The starts are compared at half as many pixels, and the better one goes on, not one whose kernel is
    `scattered` where another's is not.

    Arguments and errors are those of `estimate_uniform`, which goes on from here to full size.
    """
    if grey.ndim != 2 or min(grey.shape) < 8:
        raise KernelError(f"expected a picture (H,W) of 8×8 pixels or more, got {tuple(grey.shape)}")
    if not grey.isfinite().all():
        raise KernelError("the picture has values that are not finite; expected values in [0, 1]")
    if grey.max() == grey.min():
        raise KernelError("the picture is of one colour: without edges no kernel can be told from it")
    grey = grey.float()
    largest = max(3, largest or min(grey.shape) // 5)
    stop = min(1.0, math.sqrt(_COMPARED * coarse / grey.numel()))
    runs = refined([Search(grey, start, largest) for start in starts], stop)
    found = min(runs, key=lambda run: (scattered(run.kernel), run.cost())) if len(runs) > 1 else runs[0]
    found.refine(min(1.0, math.sqrt(coarse / grey.numel())))
    return found


def refined(searches: Sequence["Search"], stop: float = 1.0) -> list["Search"]:
    """Return searches gone on with up to a scale, by processes that share the work if a command has some.

    What is given may be gone on with itself, or be left behind as it was: take what is returned.
    """
    order = sorted(range(len(searches)), key=lambda index: -searches[index].grey.numel())  # the longest first
    found = shared_map(_refined, [searches[index] for index in order], [stop] * len(order))
    return [found[order.index(index)] for index in range(len(order))]


def _refined(search: "Search", stop: float) -> "Search":
    search.refine(stop)
    return search


class Search:
    """One way from coarse to fine: where it is, and what it knows there.

    Attributes:
        grey: the picture at full size.
        scale: of the last kernel and latent picture, 1 at full size.
        kernel: (K,K) on the simplex, centred by mass, K odd, in pixels of that scale.
        latent: S at that scale.
        weight: λ.
    """

    def __init__(self, grey: Tensor, start: Start, largest: int) -> None:
        self.grey, self.start, self.largest = grey, start, largest
        self.weight = start.weight
        self.scales = [1.0]
        while largest * self.scales[-1] > _FIRST_SIZE and min(grey.shape) * self.scales[-1] > _SMALLEST_SIDE:
            self.scales.append(self.scales[-1] * start.ratio)
        self.kernel = torch.zeros(_FIRST_SIZE, _FIRST_SIZE)
        self.kernel[_FIRST_SIZE // 2, _FIRST_SIZE // 2 : _FIRST_SIZE // 2 + 2] = 0.5
        self.scale = self.scales[-1]
        self.picture = self.latent = grey

    def __getstate__(self) -> dict[str, Any]:
        """For another process: tensors as arrays, copied, not shared."""
        return {name: x.numpy() if isinstance(x, Tensor) else x for name, x in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        for name, x in state.items():
            setattr(self, name, torch.from_numpy(x) if isinstance(x, np.ndarray) else x)

    def refine(self, stop: float) -> None:
        """Go on to the last scale that is not above `stop`, but at least to the first."""
        first = self.scales[-1] if self.scales else 0.0
        while self.scales and (self.scales[-1] <= stop * 1.001 or self.scales[-1] == first):
            scale = self.scales.pop()
            self._rescale(scale)
            problem = Periodic(self.picture, self.kernel.shape[-1])
            for _ in range(ROUNDS):
                self.latent = problem.latent(self.kernel, self.weight)
                kernel = problem.kernel(self.latent, self.kernel)
                self.kernel = centred(pruned(kernel, self.start.threshold))
                self.weight = max(self.weight / self.start.decay, _LEAST_WEIGHT)
            self.latent = self.latent[: self.picture.shape[0], : self.picture.shape[1]]

    def cost(self) -> float:
        """Mean |g|^½ / (mean g²)^¼ · (mean |g| / mean |∇v|)^0.1, g = ∇u, u restored by total variation."""
        side = self.kernel.shape[-1]
        restored = Periodic(self.picture, side).restored(self.kernel, _DECONVOLUTION)
        height, width = self.picture.shape
        margin = side // 2 + 4
        if min(height, width) <= 3 * margin:
            margin = 0
        inside = (slice(margin, height - margin), slice(margin, width - margin))
        return restoration_cost(restored[inside], self.picture[inside])

    def _rescale(self, scale: float) -> None:
        size = self.kernel.shape[-1]
        if scale != self.scale:
            grown = _resized_kernel(self.kernel, max(3, round(size * scale / self.scale) // 2 * 2 + 1))
            reach = min(
                math.ceil(1.5 * extent(grown, self.start.threshold)) + 1, int(self.largest * scale) // 2 + 1
            )
            self.kernel = _framed(grown, 2 * reach + 1)
        self.scale = scale
        self.picture = self.grey if scale == 1 else _shrunk_picture(self.grey, scale)


class Periodic:
    """A picture made periodic, and the two steps of the alternation on it."""

    def __init__(self, picture: Tensor, reach: int) -> None:
        """Take (H,W) and the size of the kernels to come."""
        height, width = picture.shape
        self.size: Size = fast_size(height + reach, width + reach)
        self.picture = periodic(picture, self.size)
        self.spectrum = torch.fft.rfft2(self.picture)
        self.differences = difference_power(self.size)
        margin = reach // 2 + 1
        self.inside = torch.zeros(self.size)
        self.inside[margin : height - margin - 1, margin : width - margin - 1] = 1

    def latent(self, kernel: Tensor, weight: float) -> Tensor:
        """The picture with few edges that the kernel explains: λ is `weight`."""

        def keep(energy: Tensor, penalty: float) -> Tensor:
            return energy.ge_(weight / penalty)

        steps = math.ceil(math.log2(_LAST_PENALTY / weight)) - 1
        return self._split(kernel, [2 * weight * 2.0**step for step in range(steps)], keep)

    def restored(self, kernel: Tensor, weight: float) -> Tensor:
        """The picture restored by total variation, (H', W') of the periodic size."""
        return self._split(kernel, [weight * 2.0**step for step in range(9)], shortened(weight))

    def _split(
        self, kernel: Tensor, penalties: Sequence[float], part: Callable[[Tensor, float], Tensor]
    ) -> Tensor:
        response = kernel_spectrum(kernel, self.size)
        explained, power = response.conj() * self.spectrum, response.abs().square()
        return split(self.picture, explained, power, self.differences, penalties, part)

    def kernel(self, latent: Tensor, start: Tensor) -> Tensor:
        """The kernel, of the size of `start`, that makes the picture's gradients from those of the latent."""
        side = start.shape[-1]
        reach = side // 2
        lags, far = torch.arange(-reach, reach + 1), torch.arange(-2 * reach, 2 * reach + 1)
        moments = start.new_zeros(len(far), len(far))
        image = start.new_zeros(side, side)
        for difference in (right_difference, down_difference):
            edges = torch.fft.rfft2(difference(latent) * self.inside)
            seen = torch.fft.rfft2(difference(self.picture) * self.inside)
            moments += torch.fft.irfft2(edges.abs().square(), s=self.size)[far][:, far]
            image += torch.fft.irfft2(seen.conj() * edges, s=self.size)[lags][:, lags]
        normal = Toeplitz(moments)

        def hessian(rows: Tensor) -> Tensor:
            return normal.product(rows.view(-1, side, side).float()).flatten(1) + RIDGE * rows

        row = start.view(1, -1)
        slope = hessian(row) - image.view(1, -1)
        minimum = minimise(
            hessian,
            slope,
            row,
            row.new_ones(1, 1),
            tolerance=1e-4 * float(moments[2 * reach, 2 * reach]),
            products=_PRODUCTS,
        )
        return minimum.point.view(side, side)


def restoration_cost(restored: Tensor, blurred: Tensor) -> float:
    """How far a restored picture (H,W) is from having few edges: less is better, for one blurred picture.

    Mean |g|^½ / (mean g²)^¼ · (mean |g| / mean |∇v|)^0.1, g = ∇u: the first factor does not change with the
    contrast, the second one speaks against ringing (docs/ESTIMATION.md has what each is worth).
    """
    seen = _steps(blurred).mean() + 1e-4
    steps = _steps(restored)
    sparsity = (steps + 1e-4).sqrt().mean() / (steps.square().mean() + 1e-12) ** 0.25
    return float(sparsity * ((steps.mean() + 1e-4) / seen) ** _GROWTH)


def pruned(kernel: Tensor, threshold: float, component: float = 0.1) -> Tensor:
    """Drop taps below `threshold` of the largest, and parts with less than `component` of the mass.

    The heaviest part stays, however little it holds.
    """
    kept = torch.where(kernel < threshold * kernel.max(), 0.0, kernel)
    label = torch.where(kept > 0, torch.arange(1, kept.numel() + 1).view_as(kept).float(), 0.0)
    while True:  # spread the largest label through each connected part
        spread = F.max_pool2d(label[None], 3, 1, 1)[0] * (kept > 0)
        if torch.equal(spread, label):
            break
        label = spread
    parts, place = torch.unique(label, return_inverse=True)
    mass = kept.new_zeros(len(parts)).index_add_(0, place.flatten(), kept.flatten())
    kept = torch.where(mass[place] < min(component * kept.sum(), mass.max()), 0.0, kept)
    return kept / kept.sum()


def scattered(kernel: Tensor) -> bool:
    """Whether a kernel (K,K) is no path but spread all over its square: an estimate that went astray.

    exp(−Σ k log k), how many taps share the mass as it were, is a path's length times its width. More than
    8 times the longer side of what the kernel covers is no motion.
    """
    covered = (kernel > 0.02 * kernel.max()).nonzero()
    side = int((covered.amax(0) - covered.amin(0)).max()) + 1
    return float(torch.special.entr(kernel).sum().exp()) > _WIDTH * side


def extent(kernel: Tensor, threshold: float) -> int:
    """How far from the centre taps above `threshold` of the largest lie, in pixels."""
    reach = kernel.shape[-1] // 2
    return int(((kernel > threshold * kernel.max()).nonzero() - reach).abs().max())


def centred(kernel: Tensor) -> Tensor:
    """Move the kernel by whole pixels so that its centre of mass is nearest to the middle."""
    side = kernel.shape[-1]
    places = torch.arange(side, dtype=kernel.dtype) - side // 2
    down, right = float(kernel.sum(1) @ places), float(kernel.sum(0) @ places)
    return kernel.roll((-round(down), -round(right)), (0, 1))


def _steps(picture: Tensor) -> Tensor:
    """All absolute differences of neighbours."""
    return torch.cat([picture.diff(dim=0).flatten(), picture.diff(dim=1).flatten()]).abs_()


def right_difference(picture: Tensor) -> Tensor:
    """x(i, j + 1) − x(i, j), the picture taken as periodic."""
    return picture.roll(-1, -1) - picture


def down_difference(picture: Tensor) -> Tensor:
    """x(i + 1, j) − x(i, j), the picture taken as periodic."""
    return picture.roll(-1, -2) - picture


def _resized_kernel(kernel: Tensor, size: int) -> Tensor:
    grown = F.interpolate(kernel[None, None], size=(size, size), mode="bicubic", align_corners=False)[0, 0]
    grown = grown.clamp_min(0)
    return grown / grown.sum()


def _framed(kernel: Tensor, size: int) -> Tensor:
    """Put zeros around the kernel, or cut its border off."""
    more = (size - kernel.shape[-1]) // 2
    framed = F.pad(kernel, (more,) * 4)
    return framed / framed.sum()


def _shrunk_picture(grey: Tensor, scale: float) -> Tensor:
    size = [max(8, round(side * scale)) for side in grey.shape]
    return F.interpolate(grey[None, None], size=size, mode="bicubic", antialias=True, align_corners=False)[
        0, 0
    ]

"""Blind: kernels that change over the picture as a moving camera makes them, from one kernel for all of it.

During the exposure the camera passes through poses s: a shift d and a turn θ in the image plane about the
picture's middle c. A pose takes place i to i + d + θ J (i − c), J a quarter turn, so with w(d, θ) the part of
the exposure that is spent in a pose the kernel at place i is

    k_i(p) = Σ_θ w(p − θ J (i − c), θ)                        w ≥ 0, Σ w = 1           (Whyte et al. 2012, for
                                                                                      turns of a few degrees)

the slices w(·, θ), each moved by what its turn is worth there. Kernels of neighbouring places are far from
free: all of them together have as many unknowns as there are poses near the kernel of the whole picture.
Two steps take turns: the picture with few edges, in each region with the region's own kernel
(`uniform.Periodic`), and the poses,

    minimise over w   Σ_r ½ ‖√m_r (k_r ∗ ∇S − ∇v)‖² + γ/2 ‖w‖²

with masks m_r that fade from region to region: convex, on the simplex (`simplex.minimise`).

The picture with few edges is made with the kernels of the round before, so a turn is found as far as those
leave its traces: blind, large turns come out too small, other than with the sharp picture for S.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unsmear.basis.masks import grid_masks
from unsmear.errors import KernelError
from unsmear.estimation.field import KernelField
from unsmear.estimation.simplex import minimise
from unsmear.estimation.spectra import Toeplitz, fast_size
from unsmear.estimation.uniform import RIDGE, Periodic, down_difference, right_difference
from unsmear.runtime import shared_map

GRID = (3, 3)
"""Regions down and across; 5×5 brings +0.05 dB on Köhler 2_2 for half as much time again."""

ROUNDS = 3
TURN = 12.0  # pixels by which the largest turn moves the picture's corners
STEP = 2.0  # pixels there, from turn to turn
_GROWTH = 2  # pixels around the kernel of the whole picture in which poses are looked for
_THRESHOLD = 0.03  # poses below this part of the largest weight are noise
_WEIGHT = 1e-4  # λ of the picture with few edges; larger ones cost decibels (docs/ESTIMATION.md)
_PRODUCTS = 200


@dataclass(frozen=True)
class CameraFit:
    """The kernels that one camera motion makes over the picture.

    Attributes:
        field: kernels at the nodes of the grid, from one origin, so that nothing restored is distorted.
        poses: (P,3): shift down and to the right in pixels, turn in radians.
        weights: (P,), the part of the exposure spent in each pose; sum one, none is zero.
    """

    field: KernelField
    poses: Tensor
    weights: Tensor


def estimate_camera(
    grey: Tensor,
    kernel: Tensor,
    *,
    grid: tuple[int, int] = GRID,
    rounds: int = ROUNDS,
    turn: float = TURN,
    step: float = STEP,
) -> CameraFit:
    """Estimate the camera's motion from a blurred picture and the one kernel that fits all of it best.

    Args:
        grey: v, (H,W), values in [0, 1].
        kernel: (K,K) on the simplex, K odd, centred, as `estimate_uniform` finds it.
        grid: regions (down, across).
        rounds: of both steps.
        turn: how far the largest turn moves the corners, in pixels.
        step: from turn to turn, in pixels at the corners.

    Returns:
        The fit.

    Raises:
        KernelError: shapes that do not fit, or values that are not finite.

    """
    if grey.ndim != 2 or kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] % 2 == 0:
        raise KernelError(
            f"expected a picture (H,W) and a kernel (K,K), K odd; got {tuple(grey.shape)} and "
            f"{tuple(kernel.shape)}"
        )
    if not (grey.isfinite().all() and kernel.isfinite().all()):
        raise KernelError("the picture or the kernel has values that are not finite; expected [0, 1]")
    height, width = grey.shape
    rows, columns = (np.linspace(0, n - 1, count) for n, count in zip(grey.shape, grid, strict=True))
    masks = torch.from_numpy(grid_masks(rows, columns, height, width))
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2])
    places = torch.cartesian_prod(torch.from_numpy(rows), torch.from_numpy(columns)).float() - middle
    corner = max(math.hypot(height, width) / 2, 1.0)
    turns = torch.arange(-int(turn / step), int(turn / step) + 1) * step / corner
    reach = kernel.shape[0] // 2 + _GROWTH + math.ceil(turn)
    flat = F.pad(kernel.float(), (reach - kernel.shape[0] // 2,) * 4)
    kernels = flat.expand(len(places), -1, -1)
    for _ in range(max(rounds, 1)):
        latent = _latent(grey.float(), masks, kernels)
        motion = _Motion(_around(flat), turns, places, reach)
        weights = motion.solve(_Regions(latent, grey.float(), masks, reach), flat)
        kernels, flat = motion.kernels(weights), motion.flat(weights)
    kept = weights > 0
    used = int((kernels.amax(0) > 0).nonzero().sub(reach).abs().max())
    inner = slice(reach - used, reach + used + 1)
    kernels = kernels[:, inner, inner]
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    field = KernelField(kernels.contiguous(), rows, columns)
    return CameraFit(field, motion.poses[kept], weights[kept])


class _Motion:
    """The linear map from weights of poses (a turn's shifts together, turn by turn) to kernels of regions."""

    def __init__(self, shifts: Tensor, turns: Tensor, places: Tensor, reach: int) -> None:
        """Take shifts (S,2), turns (T,), places (B,2) from the middle, and the reach of the kernels."""
        self.side, self.reach, self.regions, self.turns = 2 * reach + 1, reach, len(places), len(turns)
        self.shifts = shifts
        turned = torch.stack([places[:, 1], -places[:, 0]], 1)  # J (i − c)
        where = shifts[None, None].double() + (turns[None, :, None] * turned[:, None]).double()[:, :, None]
        corner = where.floor()  # (B, T, S, 2)
        part = where - corner
        self.poses = torch.cat(
            [shifts.float().repeat(len(turns), 1), turns.float().repeat_interleave(len(shifts))[:, None]], 1
        )
        taps, shares = [], []
        for down in (0, 1):
            for right in (0, 1):
                tap = (corner + torch.tensor([down, right]) + reach).clamp(0, 2 * reach).long()
                taps.append(tap[..., 0] * self.side + tap[..., 1])
                shares.append(
                    (part[..., 0] if down else 1 - part[..., 0])
                    * (part[..., 1] if right else 1 - part[..., 1])
                )
        first = torch.arange(self.regions)[:, None, None, None] * self.side**2
        self.taps = torch.stack(taps, -1) + first  # (B, T, S, 4)
        self.shares = torch.stack(shares, -1).float()

    def kernels(self, weights: Tensor) -> Tensor:
        """Return the regions' kernels (B, K, K) of weights (T·S,)."""
        spread = weights.view(1, self.turns, -1, 1) * self.shares
        flat = weights.new_zeros(self.regions * self.side**2)
        flat.index_add_(0, self.taps.reshape(-1), spread.reshape(-1))
        return flat.view(self.regions, self.side, self.side)

    def adjoint(self, kernels: Tensor) -> Tensor:
        """Return (T·S,): ⟨kernels(w), k⟩ = ⟨w, adjoint(k)⟩."""
        seen = kernels.reshape(-1)[self.taps]
        return (seen * self.shares).sum((0, 3)).reshape(-1)

    def flat(self, weights: Tensor) -> Tensor:
        """Return the kernel in the middle of the picture, (K, K): all turns together."""
        flat = weights.new_zeros(self.side, self.side)
        row, column = (self.shifts + self.reach).unbind(1)
        flat.index_put_((row, column), weights.view(self.turns, -1).sum(0), accumulate=True)
        return flat

    def solve(self, regions: "_Regions", start: Tensor) -> Tensor:
        """Return the weights that explain the regions best, from the motion without turns of a kernel."""
        row, column = (self.shifts + self.reach).unbind(1)
        weights = torch.zeros(self.turns, len(self.shifts))
        weights[self.turns // 2] = start[row, column]
        weights = (weights / weights.sum()).view(1, -1)

        def hessian(rows: Tensor) -> Tensor:
            images = regions.normal.product(self.kernels(rows.view(-1).float()))
            return self.adjoint(images).view(1, -1) + RIDGE * rows

        slope = hessian(weights) - self.adjoint(regions.image).view(1, -1)
        found = minimise(
            hessian,
            slope,
            weights,
            weights.new_ones(1, 1),
            tolerance=1e-4 * regions.energy,
            products=_PRODUCTS,
        ).point.view(-1)
        found = torch.where(found < _THRESHOLD * found.max(), 0.0, found)
        return found / found.sum()


class _Regions:
    """For each region the normal equations of its kernel: what makes ∇v of ∇S under the region's mask."""

    def __init__(self, latent: Tensor, seen: Tensor, masks: Tensor, reach: int) -> None:
        """Take S and v, (H,W), masks (B,H,W) and the reach of the kernels."""
        lags, far = torch.arange(-reach, reach + 1), torch.arange(-2 * reach, 2 * reach + 1)
        inside = torch.zeros_like(seen)
        border = min(reach // 2, min(seen.shape) // 4) + 1
        inside[border:-border, border:-border] = 1
        moments = seen.new_zeros(len(masks), len(far), len(far))
        self.image = seen.new_zeros(len(masks), len(lags), len(lags))
        for index, (window, mask) in enumerate(_windows(masks, reach)):
            size = fast_size(mask.shape[0] + 2 * reach + 1, mask.shape[1] + 2 * reach + 1)
            root = mask.sqrt()
            for difference in (right_difference, down_difference):
                edges = (difference(latent) * inside)[window]
                blurred = (difference(seen) * inside)[window] * mask
                power = torch.fft.rfft2(edges * root, s=size).abs().square()
                moments[index] += torch.fft.irfft2(power, s=size)[far][:, far]
                both = torch.fft.rfft2(blurred, s=size).conj() * torch.fft.rfft2(edges, s=size)
                self.image[index] += torch.fft.irfft2(both, s=size)[lags][:, lags]
        self.normal = Toeplitz(moments)
        self.energy = float(moments[:, 2 * reach, 2 * reach].sum())


def _windows(masks: Tensor, reach: int) -> list[tuple[tuple[slice, slice], Tensor]]:
    """For each mask the rectangle in which it is not zero, wider by `reach`, and the mask in it."""
    windows = []
    for mask in masks:
        spans = []
        for dim in (0, 1):
            there = (mask.amax(1 - dim) > 0).nonzero()
            spans.append(slice(max(int(there[0]) - reach, 0), int(there[-1]) + 1 + reach))
        window = (spans[0], spans[1])
        windows.append((window, mask[window]))
    return windows


def _latent(grey: Tensor, masks: Tensor, kernels: Tensor) -> Tensor:
    """The picture with few edges: in each region by its own kernel, faded into one another."""
    windows = _windows(masks, kernels.shape[-1] // 2)
    pieces = shared_map(
        _region,
        [grey[window].detach().numpy() for window, _ in windows],
        [kernel.detach().numpy() for kernel in kernels],
    )
    latent = torch.zeros_like(grey)
    for (window, mask), piece in zip(windows, pieces, strict=True):
        latent[window] += mask * torch.from_numpy(piece)
    return latent


def _region(grey: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    picture = Periodic(torch.from_numpy(grey), len(kernel)).latent(
        torch.from_numpy(kernel / kernel.sum()), _WEIGHT
    )
    return picture[: grey.shape[0], : grey.shape[1]].numpy()


def _around(kernel: Tensor) -> Tensor:
    """Places (S,2) from the middle, of the kernel's taps and of what lies around them."""
    wide = F.max_pool2d((kernel > 0).float()[None], 2 * _GROWTH + 1, 1, _GROWTH)[0]
    return wide.nonzero() - kernel.shape[-1] // 2

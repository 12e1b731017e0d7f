"""Eq. 3 with the sharp photograph but without masks: B kernels and their masks together.

    minimise  ½ Σ_c Σ_i (Σ_b m_b(i) Σ_p k_b(p) u_c(i + p) − v_c(i))² + s/2 · Σ_{n ~ n'} ‖M_n − M_n'‖²

over kernels on the simplex and weights M_n on the simplex at each node n of a coarse grid (n ~ n' are
neighbours, s is the smoothness). The masks are their bilinear interpolation, so they lie on the simplex at
each pixel by themselves, and 3 H W equations meet B unknowns at each node instead of B at each pixel.

The problem is convex in the kernels and in the weights, not in both. It starts from kernels of overlapping
patches, clustered to B (`patches`); then the two halves alternate, each going down from where it stands, so
that the objective never rises. Only Σ_b m_b(i) k_b is determined by the photographs, never the factors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.known_masks import Problem
from unsmear.estimation.patches import (
    Patches,
    cluster,
    gather_patches,
    grid_laplacian,
    patch_kernels,
    share,
)
from unsmear.estimation.simplex import minimise

_MASK_CHANGE = 0.08  # expected difference of neighbouring nodes: smoothness = noise variance / this²
_SPACING = 24  # pixels between the nodes of the masks, or K if that is more
_START_ROUNDS = 30  # on the patches alone
_KERNEL_PRODUCTS = 60  # Hessian products for the kernels in one round
_MASK_PRODUCTS = 60  # likewise for the masks, which are far cheaper


@dataclass(frozen=True)
class BasisFit:
    """Kernels and masks of Eq. 2 and how well they re-blur.

    Attributes:
        kernels: k, (B,K,K), each on the simplex; dtype of the blurred photograph.
        masks: m, (B,H,W), on the simplex at each pixel.
        weights: M, (B,R,C): the masks at the nodes.
        objective: the data term plus the smoothness term.
        history: the objective at the start and after each half of each round; it never rises.
        reblur_psnr: of blur(u, k, m) against v in dB, without a border of K//2.
        smoothness: the weight that was used.
        converged: whether the last round gained less than the tolerance.
    """

    kernels: Tensor
    masks: Tensor
    weights: Tensor
    objective: float
    history: tuple[float, ...]
    reblur_psnr: float
    smoothness: float
    converged: bool


@dataclass(frozen=True)
class CountReport:
    """How well each number of kernels re-blurs.

    Attributes:
        counts: the numbers B that were tried, increasing.
        psnr: of re-blurring in dB, for each.
        proposed: the smallest B within ``within`` dB of the best.
        within: in dB.
        fits: the fit of each.
    """

    counts: tuple[int, ...]
    psnr: tuple[float, ...]
    proposed: int
    within: float
    fits: tuple[BasisFit, ...]


def estimate_basis(
    sharp: Tensor,
    blurred: Tensor,
    count: int,
    size: int,
    *,
    spacing: int | None = None,
    smoothness: float | None = None,
    tolerance: float = 3e-4,
    rounds: int = 60,
    patches: Patches | None = None,
) -> BasisFit:
    """Estimate B kernels and their masks from a sharp and a blurred photograph.

    Args:
        sharp: u, (C,H,W), values usually in [0, 1].
        blurred: v, (C,H,W), aligned with u.
        count: B.
        size: K, odd.
        spacing: of the grid that holds the masks, in pixels; max(K, 24) where None. 1 is a mask value at each
            pixel.
        smoothness: weight of the smoothness term, in units of the data term; where None the noise variance,
            taken from the residual of the start, over 0.08².
        tolerance: stop when a round lowers the objective by less than this part of it.
        rounds: stop after so many.
        patches: `gather_patches` of the same photographs, if at hand.

    Returns:
        The fit. Arithmetic is float32 for the Hessians, float64 for objective, gradients and unknowns.

    Raises:
        KernelError: shapes that do not fit, or a photograph too small for the kernels.

    """
    if spacing is not None and spacing < 1:
        raise KernelError(f"The masks' spacing is {spacing} pixels; expected 1 or more.")
    problem = Problem(sharp, blurred, None, size, "mean")
    found = gather_patches(sharp, blurred, size) if patches is None else patches
    single = patch_kernels(found)
    kernels, labels = cluster(single, found.texture, count)
    weights = torch.nn.functional.one_hot(labels, count).double()
    variance = 2 * found.objective(single) / (found.samples * len(single))
    chosen = variance / _MASK_CHANGE**2 if smoothness is None else smoothness
    kernels, weights, _ = share(found, kernels, weights, smoothness=chosen, rounds=_START_ROUNDS)
    if smoothness is None:
        variance = 2 * found.objective(weights @ kernels) / (found.samples * len(single))
        chosen = variance / _MASK_CHANGE**2
    grid = _Grid(problem, max(size, _SPACING) if spacing is None else spacing)
    return _Alternation(problem, grid, kernels, grid.moved(weights, found), chosen).run(tolerance, rounds)


def compare_counts(
    sharp: Tensor,
    blurred: Tensor,
    size: int,
    *,
    counts: Sequence[int] = (1, 2, 4, 6, 9, 16, 25),
    within: float = 0.3,
    spacing: int | None = None,
    rounds: int = 30,
) -> CountReport:
    """Fit several numbers of kernels and propose the smallest that re-blurs nearly as well as the best.

    Args:
        sharp: u, (C,H,W).
        blurred: v, (C,H,W).
        size: K, odd.
        counts: the numbers B to try; those above the number of patches are left out.
        within: how many dB of re-blur PSNR may be given away.
        spacing: as in :func:`estimate_basis`.
        rounds: as in :func:`estimate_basis`.

    Returns:
        The report.

    Raises:
        KernelError: no count to try, or what `estimate_basis` raises.

    """
    patches = gather_patches(sharp, blurred, size)
    tried = tuple(sorted({count for count in counts if 1 <= count <= len(patches.grams)}))
    if not tried:
        raise KernelError(f"The counts are {list(counts)}; expected some from 1 to {len(patches.grams)}.")
    fits = tuple(
        estimate_basis(sharp, blurred, count, size, spacing=spacing, rounds=rounds, patches=patches)
        for count in tried
    )
    psnr = tuple(fit.reblur_psnr for fit in fits)
    proposed = next(count for count, value in zip(tried, psnr, strict=True) if value >= max(psnr) - within)
    return CountReport(tried, psnr, proposed, within, fits)


class _Grid:
    """Nodes every ``spacing`` pixels or so over the inside, from edge to edge, and tents between them."""

    def __init__(self, problem: Problem, spacing: int):
        self.size = (problem.target.shape[-2], problem.target.shape[-1])
        self.margin = problem.size // 2
        self.shape = (_nodes(self.size[0], spacing), _nodes(self.size[1], spacing))
        self.down, self.across = (
            _tents(length, nodes, 0).to(problem.dtype)
            for length, nodes in zip(self.size, self.shape, strict=True)
        )

    def masks(self, weights: Tensor, *, border: int = 0) -> Tensor:
        """(R C, B) at the nodes → (B, H, W) over the inside and ``border`` pixels around it."""
        nodes = weights.T.reshape(-1, *self.shape)
        down, across = self.down, self.across
        if border:
            down, across = (
                _tents(length, count, border) for length, count in zip(self.size, self.shape, strict=True)
            )
        return down @ nodes.to(down.dtype) @ across.T

    def gather(self, planes: Tensor) -> Tensor:
        """Adjoint of :meth:`masks`: (B, H, W) over the inside → (R C, B), float64."""
        return (self.down.T @ planes @ self.across).double().flatten(1).T

    def moved(self, weights: Tensor, patches: Patches) -> Tensor:
        """Weights of the patches (N, B) → at the nodes (R C, B), linear between centres."""
        nodes = weights.T.reshape(-1, *patches.grid)
        for axis, (centres, length, count) in enumerate(
            zip((patches.rows, patches.columns), self.size, self.shape, strict=True)
        ):
            places = torch.linspace(0, length - 1, count, dtype=torch.float64) + self.margin
            hats = _interpolation(centres, places)
            nodes = torch.einsum("nr,brc->bnc" if axis == 0 else "nc,brc->brn", hats, nodes)
        return nodes.flatten(1).T.contiguous()


class _Alternation:
    """State: kernels (B, K²), weights (R C, B), residual of each kernel by itself, objective."""

    def __init__(self, problem: Problem, grid: _Grid, kernels: Tensor, weights: Tensor, smoothness: float):
        self.problem, self.grid, self.smoothness = problem, grid, smoothness
        self.kernels, self.weights = kernels, weights
        self.wide, _ = problem.fast
        self.target = problem.target.to(problem.dtype)
        self.lipschitz: float | None = None
        self.masks = grid.masks(weights)
        self.errors = self.responses(kernels)
        self.history = [self.objective()]

    def responses(self, kernels: Tensor) -> Tensor:
        """Σ_p k_b(p) u(i + p) − v(i), each kernel over the whole inside: (B,C,H,W)."""
        size = self.problem.size
        stack = kernels.reshape(-1, 1, size, size).to(self.problem.dtype)
        ones = self.target.new_ones(1, *self.grid.size)
        return blur(self.wide, stack, ones, border="valid").sub_(self.target)

    def residual(self) -> Tensor:
        return torch.einsum("bchw,bhw->chw", self.errors, self.masks)

    def objective(self) -> float:
        rough = float((self.weights * grid_laplacian(self.weights, self.grid.shape)).sum())
        data = float(self.residual().square().sum(dtype=torch.float64))
        return 0.5 * data + 0.5 * self.smoothness * rough

    def run(self, tolerance: float, rounds: int) -> BasisFit:
        converged = False
        for _ in range(rounds):
            before = self.history[-1]
            self.improve_masks()
            self.improve_kernels()
            converged = before - self.history[-1] <= tolerance * before
            if converged:
                break
        problem, size = self.problem, self.problem.size
        kernels = self.kernels.reshape(-1, size, size).to(problem.result_dtype)
        masks = self.grid.masks(self.weights, border=size // 2).clamp(min=0)
        masks = (masks / masks.sum(0)).to(problem.result_dtype)
        error = float(self.residual().square().mean(dtype=torch.float64))
        return BasisFit(
            kernels=kernels,
            masks=masks,
            weights=self.weights.T.reshape(-1, *self.grid.shape),
            objective=self.history[-1],
            history=tuple(self.history),
            reblur_psnr=math.inf if error == 0 else -10 * math.log10(error),
            smoothness=self.smoothness,
            converged=converged,
        )

    def improve_masks(self) -> None:
        """Go down in the weights: ½ Σ_i ‖Σ_b m_b(i) e_b(i)‖², e_b the residual of kernel b by itself."""
        grid, errors = self.grid, self.errors

        def hessian(x: Tensor) -> Tensor:
            seen = torch.einsum("bchw,bhw->chw", errors, grid.masks(x))
            back = torch.einsum("bchw,chw->bhw", errors, seen)
            return grid.gather(back) + self.smoothness * grid_laplacian(x, grid.shape)

        # The tents sum to one at each pixel, so this diagonal is an upper bound of the Hessian (Jensen).
        energy = errors.square().sum((0, 1))[None]
        scale = grid.gather(energy) + 8 * self.smoothness + 1e-12
        slope = hessian(self.weights)
        found = minimise(
            hessian,
            slope - (slope * self.weights).sum(-1, keepdim=True),
            self.weights,
            scale,
            tolerance=0.0,
            products=_MASK_PRODUCTS,
            lipschitz=1.0,
        )
        kept = self.weights, self.masks
        self.weights = found.point
        self.masks = grid.masks(self.weights)
        self.record(kept, None)

    def improve_kernels(self) -> None:
        """Go down in the kernels with the masks held: the convex problem of `known_masks`."""
        problem = self.problem
        problem.use_masks(self.masks)
        apply, gram = problem.hessian("auto", products=_KERNEL_PRODUCTS)
        slope = problem.quick_slope(self.residual())
        found = minimise(
            lambda x: apply(x).double(),
            slope - (slope * self.kernels).sum(-1, keepdim=True),
            self.kernels,
            problem.scale().double(),
            tolerance=0.0,
            products=_KERNEL_PRODUCTS + (12 if self.lipschitz is None else 0),
            lipschitz=self.lipschitz,
            matrix=gram,
        )
        self.lipschitz = found.lipschitz or None
        kept = self.kernels, self.errors
        self.kernels = found.point
        self.errors = self.responses(self.kernels)
        self.record(None, kept)

    def record(self, masks: tuple[Tensor, Tensor] | None, kernels: tuple[Tensor, Tensor] | None) -> None:
        """Write the objective down; take a half-round back that rounding has spoilt."""
        value = self.objective()
        if value > self.history[-1]:
            if masks is not None:
                self.weights, self.masks = masks
            if kernels is not None:
                self.kernels, self.errors = kernels
            return
        self.history.append(value)


def permuted(fit: BasisFit, order: Sequence[int]) -> BasisFit:
    """Return the same fit with its kernels in another order: the same blur."""
    index = torch.as_tensor(list(order))
    return replace(fit, kernels=fit.kernels[index], masks=fit.masks[index], weights=fit.weights[index])


def _nodes(length: int, spacing: int) -> int:
    return max(2, round((length - 1) / spacing) + 1)


def _tents(length: int, nodes: int, border: int) -> Tensor:
    """Linear interpolation from nodes spread over 0 … length − 1, (length + 2 border, nodes), float64."""
    places = torch.linspace(0, length - 1, nodes, dtype=torch.float64)
    return _interpolation(places, torch.arange(-border, length + border, dtype=torch.float64))


def _interpolation(nodes: Tensor, places: Tensor) -> Tensor:
    """(places, nodes): weights of linear interpolation, constant beyond the ends; each row sums to one."""
    if len(nodes) == 1:
        return torch.ones(len(places), 1, dtype=torch.float64)
    inside = places.clamp(nodes[0], nodes[-1])
    right = torch.searchsorted(nodes, inside, right=True).clamp(1, len(nodes) - 1)
    part = (inside - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    weights = torch.zeros(len(places), len(nodes), dtype=torch.float64)
    index = torch.arange(len(places))
    weights[index, right - 1] = 1 - part
    weights[index, right] += part
    return weights

"""The simplex {x : x ≥ 0, Σ x = 1}: nearest point, distance certificate, and quadratics minimised on it.

Kernels lie on it (a row is a kernel of K² taps) and so do masks (a row is a pixel or node with B weights), so
that both halves of Eq. 3 are one problem: minimise a convex quadratic over rows that each lie on a simplex.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]

_BURST = 8  # accelerated steps between two visits to the face
_FACE_STEPS = 40  # conjugate gradient steps of one visit, at most
_SLOW = 0.05  # a visit ends when a step gains less than this part of its best step so far
_SOLVES = 12  # factorisations of one visit with the Hessian at hand as a matrix, at most
_SMALL_FACE = 200  # taps; so few that dropping one at a time is quicker than gradient steps
_LARGEST_SOLVE = 1500  # taps above zero; their Cholesky factor takes 0.1 s
_MARGIN = 1.01  # on the largest eigenvalue as the power iterations know it; every step checks it
_POWER_STEPS = 12


def project_simplex(values: Tensor, dim: int = -1) -> Tensor:
    """Nearest point of the simplex in the Euclidean distance, exactly, by sorting (Held et al. 1974).

    x_j = max(s_j − τ, 0) with the one τ for which Σ x = 1.

    Args:
        values: any shape and floating dtype; what lies along ``dim`` is projected.
        dim: the axis that sums to one afterwards.

    Returns:
        The same shape and dtype, ≥ 0, with sums of one to rounding. Carries no gradient.

    """
    s = values.detach().movedim(dim, -1)
    s = s - s.amax(-1, keepdim=True)  # moves τ alone, and keeps the sums small
    ordered = s.sort(-1, descending=True).values
    count = torch.arange(1, s.shape[-1] + 1, device=s.device, dtype=s.dtype)
    threshold = (ordered.cumsum(-1) - 1) / count
    last = (ordered > threshold).sum(-1, keepdim=True) - 1
    return (s - threshold.gather(-1, last)).clamp_(min=0).movedim(-1, dim)


def frank_wolfe_gap(gradient: Tensor, point: Tensor, dim: int = -1) -> Tensor:
    """Frank–Wolfe gap Σ_rows (⟨g, x⟩ − min_j g_j) of a point whose rows lie on the simplex.

    For a convex f with gradient g at x it is an upper bound of f(x) − min f over the simplices, and zero only
    at a minimum. It is computed as Σ_j x_j (g_j − min g): no rounding can make it negative.

    Args:
        gradient: g, any shape.
        point: x, the same shape.
        dim: the axis along which x lies on the simplex; all others are rows.

    Returns:
        One value without axes, float64.

    """
    above = (gradient - gradient.amin(dim, keepdim=True)).double()
    return (above * point.double()).sum()


@dataclass(frozen=True)
class Minimum:
    """Where `minimise` stopped.

    Attributes:
        point: x, (rows, n).
        values: f(x) − f(start) after each accepted step, never rising; the first is 0.
        gap: Frank–Wolfe gap at x, in the arithmetic of the solver.
        products: how often the Hessian was applied.
        lipschitz: the largest eigenvalue of D^-½ H D^-½ with its margin: 1 / the step, D = ``scale``; 0 where
            no gradient step was needed.
    """

    point: Tensor
    values: tuple[float, ...]
    gap: float
    products: int
    lipschitz: float


def minimise(
    hessian: Operator,
    gradient: Tensor,
    start: Tensor,
    scale: Tensor,
    *,
    tolerance: float,
    products: int,
    lipschitz: float | None = None,
    matrix: Tensor | None = None,
) -> Minimum:
    """Minimise f(x) = f(start) + ⟨g, x − start⟩ + ½⟨x − start, H (x − start)⟩ with each row on the simplex.

    Bursts of accelerated projected gradient steps (FISTA), restarted when the momentum points uphill or f
    would rise, alternate with conjugate gradients on the face that they reached (the taps above zero), whose
    result is projected and taken only if f falls. So f falls at every step. Everything is kept relative to
    ``start``: rounding errors scale with how far x has moved, not with f.

    Where H is at hand as a matrix, the minimum over the face is also solved for directly; taps that it drives
    below zero are taken out one after the other, as far as each step is downhill. Ill-conditioned problems,
    for which gradients need thousands of steps, end that way.

    Args:
        hessian: x ↦ H x for (rows, n), symmetric and positive semidefinite.
        gradient: g = ∇f(start), (rows, n).
        start: (rows, n), each row on the simplex.
        scale: D, (rows, 1), above zero: a row's share of the curvature. Steps are 1 / (L D), with L the
            largest eigenvalue of D^-½ H D^-½.
        tolerance: stop when the Frank–Wolfe gap is below this.
        products: stop after so many applications of H.
        lipschitz: L if known (an upper bound); power iterations find it where None.
        matrix: H as (rows · n, rows · n), if there is one.

    Returns:
        The last and best point.

    """
    return _Descent(hessian, gradient, start, scale, products, matrix).run(tolerance, lipschitz)


class _Descent:
    """State of `minimise`: the point x, H (x − start), and f(x) − f(start)."""

    def __init__(
        self,
        hessian: Operator,
        gradient: Tensor,
        start: Tensor,
        scale: Tensor,
        budget: int,
        matrix: Tensor | None,
    ):
        self.apply, self.slope, self.start, self.scale = hessian, gradient, start, scale
        self.budget, self.used, self.matrix = budget, 0, matrix
        self.x, self.curved = start, torch.zeros_like(start)
        self.values = [0.0]

    def hessian(self, x: Tensor) -> Tensor:
        self.used += 1
        return self.apply(x)

    def value(self, x: Tensor, curved: Tensor) -> float:
        return float(((self.slope + 0.5 * curved) * (x - self.start)).sum(dtype=torch.float64))

    def gap(self) -> float:
        return float(frank_wolfe_gap(self.slope + self.curved, self.x))

    def accept(self, x: Tensor, curved: Tensor, value: float) -> None:
        self.x, self.curved = x, curved
        self.values.append(value)

    def run(self, tolerance: float, lipschitz: float | None) -> Minimum:
        gap, pause, longer = self.gap(), 0, 1
        if self.matrix is not None:
            while gap > tolerance and self.used < self.budget and self.solve_face(self.matrix):
                gap = self.gap()
        self.lipschitz = 0.0 if lipschitz is None else lipschitz
        if gap > tolerance and lipschitz is None:
            self.lipschitz = self.largest_eigenvalue()
        while gap > tolerance and self.used < self.budget:
            before = self.values[-1]
            self.burst(tolerance)
            if self.used < self.budget and self.gap() > tolerance:
                self.visit_face()
            if self.matrix is not None and self.used < self.budget and self.gap() > tolerance:
                if pause > 0:
                    pause -= 1
                elif self.solve_face(self.matrix):
                    longer = 1
                    while self.gap() > tolerance and self.used < self.budget:
                        if not self.solve_face(self.matrix):
                            break
                else:  # too early: the taps of the minimum are not found yet
                    pause, longer = longer, 2 * longer
            gap = self.gap()
            if not self.values[-1] < before:  # nothing more to be had in this arithmetic
                break
        return Minimum(self.x, tuple(self.values), gap, self.used, self.lipschitz)

    def largest_eigenvalue(self) -> float:
        """Power iterations on D^-½ H D^-½, from a start with a part in every direction."""
        root = self.scale.sqrt()
        count = self.start.numel()
        angle = torch.arange(1, count + 1, device=root.device, dtype=root.dtype)
        x = torch.sin(angle * 1.618034).reshape(self.start.shape)
        value = 0.0
        for _ in range(_POWER_STEPS):
            x = x / x.norm()
            y = self.hessian(x / root) / root
            value = float(y.norm())
            if value == 0:
                break
            x = y
        return max(_MARGIN * value, 1e-30)

    def burst(self, tolerance: float) -> None:
        """Take accelerated steps until f would rise, or _BURST of them."""
        last, last_curved, t = self.x, self.curved, 1.0
        for _ in range(_BURST):
            grown = 0.5 * (1 + (1 + 4 * t * t) ** 0.5)
            momentum = (t - 1) / grown
            z = self.x + momentum * (self.x - last)
            z_curved = self.curved + momentum * (self.curved - last_curved)
            x, curved = self.step(z, z_curved)
            value = self.value(x, curved)
            if not value < self.values[-1]:
                if momentum == 0:
                    return  # a plain gradient step that gains nothing: rounding
                last, last_curved, t = self.x, self.curved, 1.0
                continue
            uphill = float((self.scale * (z - x) * (x - self.x)).sum()) > 0
            last, last_curved, t = (x, curved, 1.0) if uphill else (self.x, self.curved, grown)
            self.accept(x, curved, value)
            if self.used >= self.budget or self.gap() <= tolerance:
                return

    def step(self, z: Tensor, z_curved: Tensor) -> tuple[Tensor, Tensor]:
        """Projected gradient step from z; L is raised if the step shows more curvature than it."""
        while True:
            x = project_simplex(z - (self.slope + z_curved) / (self.lipschitz * self.scale))
            curved = self.hessian(x - self.start)
            moved = x - z
            bound = float((self.scale * moved.square()).sum(dtype=torch.float64))
            found = float((moved * (curved - z_curved)).sum(dtype=torch.float64))
            if found <= 1.0001 * self.lipschitz * bound or bound == 0:
                return x, curved
            if found / bound > 1e3 * self.lipschitz or self.used >= self.budget:
                return x, curved  # a difference of roundings, no curvature
            self.lipschitz = _MARGIN * found / bound

    def visit_face(self) -> None:
        """Conjugate gradients over the taps above zero, then the best projected multiple of the result."""
        free = self.x > 0
        count = free.sum(-1, keepdim=True).clamp(min=1)

        def tangent(x: Tensor) -> Tensor:
            x = torch.where(free, x, 0)
            return torch.where(free, x - x.sum(-1, keepdim=True) / count, 0)

        residual = -tangent(self.slope + self.curved)
        moved, moved_curved = torch.zeros_like(self.x), torch.zeros_like(self.x)
        direction = residual / self.scale
        product = float((residual * direction).sum(dtype=torch.float64))
        best, first = 0.0, product
        for _ in range(min(_FACE_STEPS, self.budget - self.used)):
            if product <= 1e-12 * first or product <= 0:
                break
            image = self.hessian(direction)
            curvature = float((direction * image).sum(dtype=torch.float64))
            if curvature <= 0:
                break
            length = product / curvature
            moved, moved_curved = moved + length * direction, moved_curved + length * image
            gain = 0.5 * length * product
            best = max(best, gain)
            if gain < _SLOW * best:
                break
            residual = residual - length * tangent(image)
            scaled = residual / self.scale
            following = float((residual * scaled).sum(dtype=torch.float64))
            direction = scaled + (following / product) * direction
            product = following
        for part in (1.0, 0.5, 0.25, 0.0625):
            if self.used >= self.budget:
                return
            if self.try_point(project_simplex(self.x + part * moved)):
                return

    def solve_face(self, matrix: Tensor) -> bool:
        """Go to the minimum over the taps above zero and those that would grow, less those driven below zero.

        Returns whether it is worth coming again at once. Where that point is not downhill, go as far as the
        first tap that reaches zero, which is.
        """
        slope = self.slope + self.curved
        level = (slope * self.x).sum(-1, keepdim=True)
        free = ((self.x > 0) | (slope < level)).flatten().nonzero()[:, 0]
        if len(free) > _LARGEST_SOLVE:
            return False
        part = matrix[free][:, free].double()
        part.diagonal().add_(1e-9 * float(part.diagonal().mean()))
        kept = torch.ones(len(free), dtype=torch.bool, device=free.device)
        first = move = self._newton(part, free, kept)
        for _ in range(_SOLVES):
            if move is None:
                break
            below = kept & ((self.x + move).flatten()[free] < 0)
            if not bool(below.any()):
                break
            kept = kept & ~below
            move = self._newton(part, free, kept)
        if first is None or (move is not None and self.try_point(project_simplex(self.x + move))):
            return first is not None
        if self.used < self.budget:
            room = torch.where(first < 0, self.x / -first.clamp(max=-1e-300), torch.inf)
            furthest = min(float(room.min()), 1.0)
            x = torch.where(room <= furthest, 0, (self.x + furthest * first).clamp(min=0))
            downhill = self.try_point(x / x.sum(-1, keepdim=True))
            return downhill and len(free) <= _SMALL_FACE
        return False

    def try_point(self, x: Tensor) -> bool:
        """Accept x if f is lower there."""
        curved = self.hessian(x - self.start)
        value = self.value(x, curved)
        if not value < self.values[-1]:
            return False
        self.accept(x, curved, value)
        return True

    def _newton(self, part: Tensor, free: Tensor, kept: Tensor) -> Tensor | None:
        """Step to the minimum over the kept ones of the free taps, the others at zero, row sums unchanged.

        ``part`` is H over the free taps. None if it is singular over the kept ones or a row has none.
        """
        rows, taps = self.x.shape
        values = self.x.flatten()[free].to(part)
        slope = (self.slope + self.curved).flatten()[free].to(part)
        gone = torch.where(kept, 0, values)
        inner = part[kept][:, kept]
        factor, failed = torch.linalg.cholesky_ex(inner)
        if int(failed) > 0:  # a float32 Hessian may have lost its smallest eigenvalues
            inner.diagonal().add_(1e-6 * float(inner.diagonal().mean()))
            factor, failed = torch.linalg.cholesky_ex(inner)
        member = torch.nn.functional.one_hot(free // taps, rows).to(part)
        if int(failed) > 0 or not bool((member[kept].sum(0) > 0).all()):
            return None
        slope = (slope - part @ gone)[kept]
        solved = torch.cholesky_solve(torch.cat([slope[:, None], member[kept]], 1), factor)
        plain, each = solved[:, 0], solved[:, 1:]
        missing = member.T @ gone
        level = torch.linalg.solve(member[kept].T @ each, missing + member[kept].T @ plain)
        steps = -gone
        steps[kept] = each @ level - plain
        move = torch.zeros_like(self.x).flatten()
        move[free] = steps.to(move)
        return move.reshape(rows, taps)

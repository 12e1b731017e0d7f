"""Eq. 3 with the sharp photograph and the masks known: a convex problem, solved with a certificate.

    minimise  ½ Σ_c Σ_i (Σ_b m_b(i) Σ_p k_b(p) u_c(i + p) − v_c(i))² + R(k)     k_b ≥ 0, Σ_p k_b(p) = 1

i runs over the pixels that lie K//2 or more from the border: nothing outside the photograph is asked for. In
k it is a quadratic with the Hessian AᵀA, A the blur of Eq. 2. `simplex.minimise` works with a Hessian in the
arithmetic of the arguments; then residual, gradient and Frank–Wolfe gap are computed afresh in float64 with
the operators of `unsmear.blurring`, and the solver goes on from there until that gap is small enough. So what
is reported is exact whatever the Hessian's arithmetic, and float32 is enough for a float64 minimum.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.blurring import blur, blur_adjoint_kernels, check_blur
from unsmear.errors import KernelError
from unsmear.estimation.priors import Prior, as_prior
from unsmear.estimation.simplex import Operator, frank_wolfe_gap, minimise, project_simplex

Domain = Literal["mean", "gradient"]
Method = Literal["auto", "gram", "fft"]

QUIET = 1e-4  # the tolerance is relative to the objective or to this part of v's energy (40 dB below it)
_ROUNDS = 60  # exact gradients in float64, at most
_REACH = {torch.float32: 1e-5, torch.float64: 1e-9}  # how far one round can lower the gap before it rounds
_TANGENT_REACH = 0.05  # with a concave prior: the tangent is not worth more
_TILE = 32  # pixels; side of the tiles in which a weighted Gram matrix is summed
_SMALL_GRAM = 400  # unknowns; up to here float64 costs less than the rounds that float32 needs more
_LARGEST_GRAM = 6000  # unknowns; 144 MB in float32
_USUAL_PRODUCTS = 300  # for the choice between the two forms of the Hessian
# Seconds, measured with benchmarks/estimation.py on one core of the machine in docs/ESTIMATION.md; only their
# ratio counts.
_PRODUCT_COST = 0.02e-9  # per multiplication of a matrix product
_READ_COST = 0.3e-9  # per entry of the Gram matrix, once a product
_FFT_COST = 0.15e-9  # per n·log2(n) of one real transform of n pixels


@dataclass(frozen=True)
class KernelFit:
    """Kernels of Eq. 3 and how good they are.

    Attributes:
        kernels: k, (B,K,K), each on the simplex; dtype of the blurred photograph.
        objective: data term plus prior at k, float64 arithmetic.
        gap: Frank–Wolfe gap at k, float64 arithmetic: objective − best objective ≤ gap where the prior is
            convex; with a concave prior the distance from being stationary.
        iterations: applications of the Hessian AᵀA.
        history: the objective at the start and after each step; it never rises. With a concave prior after
            each majoriser.
        converged: whether the gap came below the tolerance.
        lipschitz: largest eigenvalue of the scaled Hessian, with its margin; NaN where no gradient step was
            needed.
        method: "gram" or "fft", the form of the Hessian.
    """

    kernels: Tensor
    objective: float
    gap: float
    iterations: int
    history: tuple[float, ...]
    converged: bool
    lipschitz: float
    method: str


def estimate_kernels(
    sharp: Tensor,
    blurred: Tensor,
    masks: Tensor | None,
    size: int,
    *,
    prior: Prior | str = "none",
    domain: Domain = "mean",
    tolerance: float = 1e-4,
    iterations: int = 2000,
    start: Tensor | None = None,
    method: Method = "auto",
    saturated: float | None = None,
) -> KernelFit:
    """Estimate the B kernels of Eq. 2 from a sharp and a blurred photograph and the masks.

    Args:
        sharp: u, (C,H,W), values usually in [0, 1]; blurred as they are (for linear light convert before).
        blurred: v, (C,H,W), aligned with u.
        masks: m, (B,H,W), ≥ 0 with sums of one; None is one kernel for the whole photograph.
        size: K, odd, at most the shorter side.
        prior: R with its weight (`unsmear.estimation.priors`), or "none", or "l1" which does nothing.
        domain: "mean" takes the mean of u off u and v, which changes no residual (kernels and masks sum to
            one) but the conditioning. "gradient" fits the differences to the right and downwards instead:
            better conditioned still, worse with noise, and exact only where masks are flat.
        tolerance: stop when gap ≤ tolerance · max(objective, 1e-4 · ½ Σ v²), v without its mean.
        iterations: stop after so many applications of the Hessian (at least).
        start: (B,K,K) on the simplex; flat kernels where None. Only a concave prior's result depends on it.
        method: "gram" sums the B K² × B K² Hessian up once, "fft" applies it by `unsmear.blurring`; "auto"
            takes the cheaper one. Both end at the same kernels.
        saturated: where given, pixels of v with a channel from here on leave the data term, and so do those
            that see such a pixel of u through the kernel's window: how bright either really was, nobody
            knows. The problem stays convex, and objective and gap are those of the pixels that are left.

    Returns:
        The fit; arithmetic of the solver is float64 if ``sharp`` or ``blurred`` is and else float32.

    Raises:
        KernelError: shapes that do not fit, masks that are none, an unknown option, no pixel left.

    """
    problem = Problem(sharp, blurred, masks, size, domain, saturated)
    return _solve(problem, as_prior(prior), tolerance, iterations, start, method)


def reblur_psnr(
    sharp: Tensor, blurred: Tensor, kernels: Tensor, masks: Tensor | None, *, saturated: float | None = None
) -> float:
    """PSNR in dB of v against blur(u, k, m) over all channels; a border of K//2 pixels is left out.

    So are pixels that are saturated or see saturated ones, where ``saturated`` is given (`estimate_kernels`).
    """
    problem = Problem(sharp, blurred, masks, kernels.shape[-1], "mean", saturated)
    squares = problem.residual(kernels.double().flatten(1)).square()
    error = float(squares.sum()) / (len(squares) * float(problem.weights.sum()))
    return math.inf if error == 0 else -10 * math.log10(error)


class Problem:
    """The data term as tensors ready for border="valid": u with its margin, v and m without.

    ``wide``, ``target`` and ``masks`` are float64, ``fast`` holds u and m in the arithmetic of the arguments.
    ``weights`` is 1 where a pixel counts and 0 where not; masks and v are 0 there, so that nothing else has
    to know of it.
    """

    def __init__(
        self,
        sharp: Tensor,
        blurred: Tensor,
        masks: Tensor | None,
        size: int,
        domain: Domain,
        saturated: float | None = None,
    ):
        if domain not in ("mean", "gradient"):
            raise KernelError(f'domain is {domain!r}; expected "mean" or "gradient".')
        if sharp.ndim != 3 or sharp.shape != blurred.shape:
            raise KernelError(
                f"sharp is {tuple(sharp.shape)}, blurred {tuple(blurred.shape)}; expected the same (C,H,W)."
            )
        height, width = sharp.shape[-2:]
        if size < 1 or size % 2 == 0 or size >= min(height, width):
            raise KernelError(
                f"The kernel's size is {size}; expected an odd number below both sides of {width}×{height}."
            )
        uniform = masks is None or len(masks) == 1
        if masks is not None:
            if masks.ndim != 3 or masks.shape[-2:] != (height, width):
                raise KernelError(f"The masks are {tuple(masks.shape)}; expected (B, {height}, {width}).")
            check_blur(masks.new_ones(1, 1, 1), masks)
        self.size, self.uniform = size, uniform
        self.dtype = torch.float64 if torch.float64 in (sharp.dtype, blurred.dtype) else torch.float32
        self.result_dtype = blurred.dtype
        margin = size // 2
        inside = (..., slice(margin, height - margin), slice(margin, width - margin))
        level = sharp.double().mean((-2, -1), keepdim=True)
        self.wide = sharp.double() - level
        self.target = (blurred.double() - level)[inside]
        if masks is None or uniform:
            self.masks = self.target.new_ones(1, *self.target.shape[-2:])
        else:
            m = masks.double()[inside]
            self.masks = m / m.sum(0)
        if domain == "gradient":
            self.wide, self.target = _differences(self.wide), _differences(self.target)
            self.masks = self.masks[:, 1:, 1:]
        self.weights = torch.ones_like(self.masks[0])
        if saturated is not None:
            self.weights = _unsaturated(sharp, blurred, size, saturated, domain).to(self.weights)
            if not self.weights.any():
                raise KernelError(
                    f"every pixel is at {saturated} or above, or sees one that is; take another part of the "
                    "photograph, a smaller kernel, or a higher threshold"
                )
            self.masks, self.target = self.weights * self.masks, self.weights * self.target
            self.uniform = uniform = uniform and bool(self.weights.all())
        self.bases = len(self.masks)
        self.fast = (self.wide.to(self.dtype), self.masks.to(self.dtype))

    @property
    def energy(self) -> float:
        """½ Σ v², v without its mean."""
        centred = self.target - self.target.mean((-2, -1), keepdim=True)
        return 0.5 * float(centred.square().sum())

    def residual(self, rows: Tensor) -> Tensor:
        """Return A k − v for k as (B, K²), float64."""
        kernels = rows.reshape(-1, self.size, self.size)
        return blur(self.wide, kernels, self.masks, border="valid") - self.target

    def slope(self, residual: Tensor) -> Tensor:
        """Aᵀ r, (B, K²), float64."""
        gradient = blur_adjoint_kernels(
            residual, self.wide, self.masks, kernel_size=self.size, border="valid"
        )
        return gradient.flatten(1)

    def use_masks(self, masks: Tensor) -> None:
        """Take other masks, (B,H,W) over the inside; `residual` and `slope` keep the old ones."""
        self.fast = (self.fast[0], masks.to(self.dtype))
        self.bases, self.uniform = len(masks), False

    def quick_slope(self, residual: Tensor) -> Tensor:
        """Aᵀ r, (B, K²), in the arithmetic of the arguments, given back as float64."""
        wide, masks = self.fast
        gradient = blur_adjoint_kernels(residual, wide, masks, kernel_size=self.size, border="valid")
        return gradient.flatten(1).double()

    def scale(self) -> Tensor:
        """Mean of the Hessian's diagonal over each kernel's taps, (B, 1): Σ_i m_b(i)² ‖patch(i)‖² / K²."""
        wide, masks = self.fast
        energy = F.avg_pool2d(wide.square().sum(0)[None], self.size, stride=1)[0]
        scale = (masks.square() * energy).sum((-2, -1))
        return scale.clamp(min=1e-6 * float(scale.max()) + 1e-12)[:, None]

    def hessian(self, method: Method, *, products: int = _USUAL_PRODUCTS) -> tuple[Operator, Tensor | None]:
        """x ↦ AᵀA x on (B, K²), and AᵀA itself if that form was chosen or is cheaper for so many products."""
        if method not in ("auto", "gram", "fft"):
            raise KernelError(f'method is {method!r}; expected "auto", "gram" or "fft".')
        wide, masks = self.fast
        count = self.bases * self.size**2
        if method == "gram" or (method == "auto" and self._gram_pays(products)):
            if count <= _SMALL_GRAM:
                wide, masks = wide.double(), masks.double()
            gram = uniform_gram(wide, self.size) if self.uniform else weighted_gram(wide, masks, self.size)
            return lambda x: (gram @ x.reshape(count).to(gram.dtype)).reshape(x.shape), gram

        def apply(x: Tensor) -> Tensor:
            kernels = x.reshape(self.bases, self.size, self.size).to(self.dtype)
            image = blur(wide, kernels, masks, border="valid")
            back = blur_adjoint_kernels(image, wide, masks, kernel_size=self.size, border="valid")
            return back.flatten(1)

        return apply, None

    def _gram_pays(self, products: int) -> bool:
        unknowns = self.bases * self.size**2
        if unknowns > _LARGEST_GRAM:
            return False
        channels, height, width = self.wide.shape
        samples = channels * self.target.shape[-2] * self.target.shape[-1]
        multiplications = samples * (self.size**3 if self.uniform else unknowns**2 / 2)
        gram = _PRODUCT_COST * multiplications + products * _READ_COST * unknowns**2
        transforms = 2 * (channels + self.bases * (channels + 0.5))
        pixels = height * width
        return gram < products * _FFT_COST * pixels * math.log2(pixels) * transforms


def _solve(
    problem: Problem,
    prior: Prior,
    tolerance: float,
    iterations: int,
    start: Tensor | None,
    method: Method,
) -> KernelFit:
    taps = problem.size**2
    rows = torch.full((problem.bases, taps), 1 / taps, dtype=torch.float64, device=problem.wide.device)
    if start is not None:
        if start.shape != (problem.bases, problem.size, problem.size):
            raise KernelError(
                f"start is {tuple(start.shape)}; expected {(problem.bases, problem.size, problem.size)}."
            )
        rows = project_simplex(start.double().flatten(1))
    data_hessian, gram = problem.hessian(method)
    form = "fft" if gram is None else "gram"
    curvature = prior.curvature
    if gram is not None:
        gram.diagonal().add_(curvature)
    extra = curvature if gram is None else 0.0

    def hessian(x: Tensor) -> Tensor:  # vectors in float64, the Hessian in the arithmetic of the arguments
        return data_hessian(x).double() + extra * x

    scale, quiet = problem.scale().double() + curvature, QUIET * problem.energy
    reach = _REACH[problem.dtype] if prior.convex else _TANGENT_REACH
    used, lipschitz, history = 0, None, list[float]()
    best, best_objective, gap, converged = rows, math.inf, math.inf, False
    for _ in range(_ROUNDS):
        residual = problem.residual(rows)
        penalty = prior.value(rows)
        objective = 0.5 * float(residual.square().sum()) + penalty
        if objective > best_objective:
            break  # the last round was lost in rounding
        gradient = problem.slope(residual) + prior.slope(rows)
        best, best_objective, gap = rows, objective, float(frank_wolfe_gap(gradient, rows))
        while history and history[-1] <= objective:  # the solver's own values, within its rounding
            history.pop()
        history.append(objective)
        allowed = tolerance * max(objective - penalty, quiet)
        converged = gap <= allowed
        if converged or used >= iterations:
            break
        # A constant along a row means nothing on the simplex, but would meet the rounding of its sum.
        level = (gradient * rows).sum(-1, keepdim=True)
        found = minimise(
            hessian,
            gradient - level,
            rows,
            scale,
            tolerance=max(0.5 * allowed, reach * gap),
            products=iterations - used,
            lipschitz=lipschitz,
            matrix=gram,
        )
        used, lipschitz = used + found.products, found.lipschitz or None
        if len(found.values) == 1:
            break
        rows = found.point
        if prior.convex:  # else they are values of the majoriser
            history.extend(objective + change for change in found.values[1:])
    while history[-1] < best_objective:
        history.pop()
    kernels = best.reshape(-1, problem.size, problem.size).to(problem.result_dtype)
    return KernelFit(
        kernels, best_objective, gap, used, tuple(history), converged, lipschitz or math.nan, form
    )


def uniform_gram(wide: Tensor, size: int) -> Tensor:
    """AᵀA of one kernel without masks: H(p, q) = Σ_c Σ_i u_c(i + p) u_c(i + q), (K², K²).

    Rows first: G_y,dy = Σ_x u(y, x + p) u(y + dy, x + q) is a K×K product for each row y of u, and H sums
    it over the rows of a window that moves with p: differences of running sums. K³ multiplications a pixel
    instead of the K⁴ of the patches.

    Args:
        wide: u with its margin, (C, H+K−1, W+K−1).
        size: K.

    Returns:
        (K², K²), symmetric, dtype of ``wide``; sums over rows in float64.

    """
    rows, columns = wide.shape[-2], wide.shape[-1] - size + 1
    height = rows - size + 1
    gram = wide.new_empty(size, size, size, size)  # p's row and column, q's row and column
    shifted = [plane.unfold(-1, columns, 1).contiguous() for plane in wide]  # (rows, K, W) each
    for apart in range(size):
        products = torch.zeros(rows - apart, size, size, dtype=torch.float64, device=wide.device)
        for plane in shifted:
            products += plane[: rows - apart] @ plane[apart:].transpose(1, 2)
        running = F.pad(products.cumsum(0), (0, 0, 0, 0, 1, 0))
        sums = running[height : height + size - apart] - running[: size - apart]  # (K − apart, K, K)
        for row, block in enumerate(sums.to(wide.dtype)):
            gram[row, :, row + apart] = block
            gram[row + apart, :, row] = block.T
    return gram.reshape(size**2, size**2)


def weighted_gram(wide: Tensor, masks: Tensor, size: int) -> Tensor:
    """AᵀA of B kernels: H(b p, a q) = Σ_c Σ_i m_b(i) m_a(i) u_c(i + p) u_c(i + q), (B K², B K²).

    Summed tile by tile over the kernels whose masks reach the tile.

    Args:
        wide: u with its margin, (C, H+K−1, W+K−1).
        masks: m, (B,H,W).
        size: K.

    Returns:
        (B K², B K²), symmetric, dtype of ``wide``.

    """
    bases, height, width = masks.shape
    taps = size**2
    gram = wide.new_zeros(bases, taps, bases, taps)
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            m = masks[:, top : top + _TILE, left : left + _TILE]
            active = (m.amax((-2, -1)) > 0).nonzero()[:, 0].tolist()
            seen = wide[:, top : top + m.shape[1] + size - 1, left : left + m.shape[2] + size - 1]
            patches = seen.unfold(1, size, 1).unfold(2, size, 1)  # (C,h,w,K,K)
            weighted = [(m[b][None, :, :, None, None] * patches).reshape(-1, taps) for b in active]
            for place, b in enumerate(active):
                together = torch.cat(weighted[place:], 1)  # (C·h·w, several K²)
                block = weighted[place].T @ together
                for a, part in zip(active[place:], torch.split(block, taps, 1), strict=True):
                    gram[b, :, a] += part
    for b in range(bases):
        for a in range(b):
            gram[b, :, a] = gram[a, :, b].T
    return gram.reshape(bases * taps, bases * taps)


def _unsaturated(sharp: Tensor, blurred: Tensor, size: int, level: float, domain: Domain) -> Tensor:
    """Which pixels of the inside are below the level and see only such ones."""
    margin = size // 2
    inside = (slice(margin, blurred.shape[-2] - margin), slice(margin, blurred.shape[-1] - margin))
    bright = (sharp.amax(0) >= level).double()
    sees = F.max_pool2d(bright[None], size, stride=1)[0] > 0
    kept = (blurred.amax(0)[inside] < level) & ~sees
    if domain == "gradient":  # a difference counts where all three of its pixels do
        kept = kept[:-1, :-1] & kept[:-1, 1:] & kept[1:, :-1]
    return kept


def _differences(planes: Tensor) -> Tensor:
    """Differences to the right, then downwards, as further channels: (C,H,W) → (2C, H−1, W−1)."""
    corner = planes[:, :-1, :-1]
    return torch.cat([planes[:, :-1, 1:] - corner, planes[:, 1:, :-1] - corner])

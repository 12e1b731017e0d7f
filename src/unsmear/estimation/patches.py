"""One kernel for each of many overlapping patches: where the estimate of kernels and masks starts from.

Within a patch n the kernel is taken as constant, z_n. Its data term is a quadratic of K² unknowns,

    ½ Σ_c Σ_{i in n} (Σ_p z_n(p) u_c(i + p) − v_c(i))² = ½ z_nᵀ H_n z_n − h_nᵀ z_n + e_n,

and once (H_n, h_n, e_n) are summed up, the photograph is not looked at again: every step costs as much as the
matrices have entries. With z_n = Σ_b M_nb k_b the patches share B kernels, and both halves of the problem are
small quadratics on simplices. The means of u and v over the patch are taken off both, which changes nothing.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from unsmear.blurring import blur_adjoint_kernels
from unsmear.errors import KernelError
from unsmear.estimation.known_masks import uniform_gram
from unsmear.estimation.simplex import minimise

_LARGEST_BYTES = 2**29  # of all H_n together; the patches move apart until they fit
_SMALLEST_SIDE = 48  # pixels
_RIDGE = 1e-3  # of the mean diagonal of H: patches without texture keep a flat kernel
_PRODUCTS = 120  # for the kernels of the patches
_KERNEL_STEPS, _MASK_STEPS = 8, 30  # Hessian products in one round of `share`


@dataclass(frozen=True)
class Patches:
    """Quadratics of overlapping patches on a grid of R × C places, N = R C.

    Attributes:
        rows: (R,) centres in pixels of the photograph, increasing, float64.
        columns: (C,) likewise.
        grams: H, (N, K², K²) float32.
        slopes: h, (N, K²) float64.
        energies: e, (N,) float64.
        samples: pixels times channels of a patch.
        side: of a patch in pixels.
    """

    rows: Tensor
    columns: Tensor
    grams: Tensor
    slopes: Tensor
    energies: Tensor
    samples: int
    side: int

    @property
    def grid(self) -> tuple[int, int]:
        """(R, C)."""
        return len(self.rows), len(self.columns)

    @property
    def texture(self) -> Tensor:
        """Mean of H_n's diagonal, (N,): how much a patch says of its kernel."""
        return self.grams.diagonal(dim1=1, dim2=2).double().mean(1)

    def apply(self, z: Tensor) -> Tensor:
        """H_n z_n for z (N, K²), float64 around a float32 product."""
        return torch.bmm(self.grams, z.to(self.grams.dtype)[..., None])[..., 0].double()

    def objective(self, z: Tensor) -> float:
        """Σ_n of the data terms at z (N, K²)."""
        return float(((0.5 * self.apply(z) - self.slopes) * z).sum() + self.energies.sum())


def gather_patches(sharp: Tensor, blurred: Tensor, size: int, *, side: int | None = None) -> Patches:
    """Sum up the quadratics of square patches that overlap by half (less where memory would not do).

    Args:
        sharp: u, (C,H,W).
        blurred: v, (C,H,W).
        size: K, odd.
        side: of a patch in pixels; where None 3 K, at least 48, but no more than a third of the photograph
            unless that is below 2 K.

    Returns:
        The patches; all lie K//2 or more from the border.

    Raises:
        KernelError: the photograph is too small for the kernel.

    """
    margin = size // 2
    height, width = sharp.shape[-2] - 2 * margin, sharp.shape[-1] - 2 * margin
    if min(height, width) < size:
        raise KernelError(
            f"A photograph of {sharp.shape[-1]}×{sharp.shape[-2]} is too small for kernels of {size} pixels; "
            f"expected {2 * size} or more on each side."
        )
    if side is None:
        side = max(min(max(3 * size, _SMALLEST_SIDE), min(height, width) // 3), 2 * size)
    side = min(side, height, width)
    step = side / 2
    while True:
        tops, lefts = _places(height - side, step), _places(width - side, step)
        if len(tops) * len(lefts) * size**4 * 4 <= _LARGEST_BYTES or len(tops) * len(lefts) == 1:
            break
        step *= 1.1
    grams, slopes, energies = [], [], []
    ones = torch.ones(1, side, side, dtype=torch.float64, device=sharp.device)
    for top in tops:
        for left in lefts:
            u = sharp[:, top : top + side + size - 1, left : left + side + size - 1].double()
            v = blurred[:, top + margin : top + margin + side, left + margin : left + margin + side].double()
            level = u.mean((-2, -1), keepdim=True)
            u, v = u - level, v - level
            grams.append(uniform_gram(u.float(), size))
            slope = blur_adjoint_kernels(v, u, ones, kernel_size=size, border="valid")
            slopes.append(slope.flatten())
            energies.append(0.5 * v.square().sum())
    centre = margin + (side - 1) / 2
    return Patches(
        rows=torch.tensor(tops, dtype=torch.float64) + centre,
        columns=torch.tensor(lefts, dtype=torch.float64) + centre,
        grams=torch.stack(grams),
        slopes=torch.stack(slopes),
        energies=torch.stack(energies),
        samples=side * side * sharp.shape[0],
        side=side,
    )


def patch_kernels(patches: Patches, *, products: int = _PRODUCTS) -> Tensor:
    """Kernel of each patch by itself, with a slight ridge: (N, K²) float64, each on the simplex."""
    largest = _largest_eigenvalues(patches)
    ridge = _RIDGE * float(patches.texture.mean()) + 1e-12
    taps = patches.slopes.shape[-1]
    start = torch.full_like(patches.slopes, 1 / taps)
    gradient = patches.apply(start) - patches.slopes + ridge * start
    found = minimise(
        lambda z: patches.apply(z) + ridge * z,
        gradient - (gradient * start).sum(-1, keepdim=True),
        start,
        largest + ridge,
        tolerance=1e-3 * patches.objective(start) / 100,
        products=products,
        lipschitz=1.0,
    )
    return found.point


def singular_values(kernels: Tensor, weights: Tensor) -> Tensor:
    """Singular values of the K² × N matrix of patch kernels, each weighted by the root of its texture.

    Args:
        kernels: (N, K²).
        weights: texture, (N,).

    Returns:
        Falling, scaled to Σ s² = 1: their running sum of squares is the part of the kernels that so many
        basis kernels explain at best.

    """
    share = (weights.clamp(min=0) / weights.sum()).sqrt()
    values: Tensor = torch.linalg.svdvals(kernels * share[:, None])
    values = values / values.norm()
    return values


def cluster(kernels: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """B kernels out of N by weighted k-means, compared after a slight blur; no chance is involved.

    The first centre is the mean; each further one is the kernel with the largest weighted distance to those
    there are; then Lloyd's rounds until nothing moves.

    Args:
        kernels: (N, K²), K odd.
        weights: (N,), ≥ 0.
        count: B, at most N.

    Returns:
        centres (B, K²), weighted means of the kernels as they are; labels (N,).

    Raises:
        KernelError: more centres than kernels.

    """
    if not 1 <= count <= len(kernels):
        raise KernelError(f"{count} kernels out of {len(kernels)} patches; expected 1 to {len(kernels)}.")
    size = round(kernels.shape[-1] ** 0.5)
    tap = torch.tensor([0.25, 0.5, 0.25], dtype=kernels.dtype, device=kernels.device)
    planes = kernels.reshape(-1, 1, size, size)
    seen = F.conv2d(planes, (tap[:, None] * tap)[None, None], padding=1).flatten(1)
    chosen = [(weights[:, None] * seen).sum(0) / weights.sum()]
    while len(chosen) < count:
        distance = torch.cdist(seen, torch.stack(chosen)).amin(1).square() * weights
        chosen.append(seen[distance.argmax()])
    centres = torch.stack(chosen)
    labels = torch.full((len(seen),), -1, device=kernels.device)
    for _ in range(50):
        found = torch.cdist(seen, centres).argmin(1)
        if torch.equal(found, labels):
            break
        labels = found
        for b in range(count):
            inside = labels == b
            if bool(inside.any()) and float(weights[inside].sum()) > 0:
                centres[b] = (weights[inside, None] * seen[inside]).sum(0) / weights[inside].sum()
    result = kernels.new_empty(count, kernels.shape[-1])
    for b in range(count):
        inside = labels == b
        if bool(inside.any()) and float(weights[inside].sum()) > 0:
            result[b] = (weights[inside, None] * kernels[inside]).sum(0) / weights[inside].sum()
        else:  # a centre that lost all its kernels starts at the one it came from
            result[b] = kernels[torch.cdist(seen, centres[b : b + 1]).argmin()]
    return result, labels


def share(
    patches: Patches, kernels: Tensor, weights: Tensor, *, smoothness: float, rounds: int
) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Alternate between B kernels and the weights of each patch in Σ_n of the data terms; it never rises.

    minimise Σ_n ½ z_nᵀ H_n z_n − h_nᵀ z_n + e_n + smoothness / 2 · Σ_{n ~ n'} ‖M_n − M_n'‖²,  z = M k

    over k with rows on the simplex and M likewise; n ~ n' are neighbours in the grid.

    Args:
        patches: the quadratics.
        kernels: k at the start, (B, K²).
        weights: M at the start, (N, B).
        smoothness: ≥ 0.
        rounds: of both halves.

    Returns:
        k, M, and the objective at the start and after each round.

    """
    largest = _largest_eigenvalues(patches)
    k, m = kernels, weights

    def objective() -> float:
        rough = float((m * grid_laplacian(m, patches.grid)).sum())
        return patches.objective(m @ k) + 0.5 * smoothness * rough

    history = [objective()]
    for _ in range(rounds):
        # ‖Σ_b M_nb x_b‖² ≤ Σ_b M_nb ‖x_b‖² (Jensen) in the norm of H_n: an exact bound, kernel by kernel.
        scale = (m.T @ largest).clamp(min=1e-6 * float(largest.sum()))
        slope = m.T @ (patches.apply(m @ k) - patches.slopes)
        found = minimise(
            partial(_kernels_hessian, patches, m),
            slope - (slope * k).sum(-1, keepdim=True),
            k,
            scale,
            tolerance=0.0,
            products=_KERNEL_STEPS,
            lipschitz=1.0,
        )
        k = found.point
        # With weights that sum to one a patch's data term is ½ M_nᵀ R_n M_n, R_n of the B residuals.
        images = torch.einsum("npq,bq->nbp", patches.grams, k.float()).double()
        inner = torch.einsum("nbp,ap->nba", images, k)
        linear = patches.slopes @ k.T
        pairs = inner - linear[:, :, None] - linear[:, None, :] + 2 * patches.energies[:, None, None]
        bound = torch.linalg.eigvalsh(pairs)[:, -1:].clamp(min=0)
        slope = _weights_hessian(pairs, smoothness, patches.grid, m)
        found = minimise(
            partial(_weights_hessian, pairs, smoothness, patches.grid),
            slope - (slope * m).sum(-1, keepdim=True),
            m,
            bound + 8 * smoothness + 1e-12,
            tolerance=0.0,
            products=_MASK_STEPS,
            lipschitz=1.0,
        )
        m = found.point
        history.append(objective())
        if history[-2] - history[-1] < 1e-3 * history[-1]:
            break
    return k, m, tuple(history)


def grid_laplacian(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Σ over the neighbours n' of n in the grid of x_n − x_n', for x (R C, B): at most 8 as an operator."""
    x = values.reshape(*grid, -1)
    result = torch.zeros_like(x)
    for axis in (0, 1):
        steps = x.diff(dim=axis)
        after = [0, 0] * (2 - axis)
        result += F.pad(steps, [*after, 1, 0]) - F.pad(steps, [*after, 0, 1])
    return result.reshape(values.shape)


def _kernels_hessian(patches: Patches, weights: Tensor, kernels: Tensor) -> Tensor:
    return weights.T @ patches.apply(weights @ kernels)


def _weights_hessian(pairs: Tensor, smoothness: float, grid: tuple[int, int], weights: Tensor) -> Tensor:
    return torch.einsum("nba,na->nb", pairs, weights) + smoothness * grid_laplacian(weights, grid)


def _largest_eigenvalues(patches: Patches) -> Tensor:
    """Of each H_n with 1 % on top, (N, 1), by power iterations; `minimise` checks them again."""
    taps = patches.slopes.shape[-1]
    x = torch.sin(torch.arange(1, taps + 1, dtype=torch.float64) * 1.618034).expand(len(patches.grams), taps)
    value = x.new_zeros(len(x), 1)
    for _ in range(15):
        x = patches.apply(x / x.norm(dim=1, keepdim=True).clamp(min=1e-30))
        value = x.norm(dim=1, keepdim=True)
    return 1.01 * value + 1e-12


def _places(room: int, step: float) -> list[int]:
    """Evenly spread whole numbers from 0 to ``room``, about ``step`` apart."""
    count = max(1, round(room / step) + 1) if room > 0 else 1
    return [round(room * n / max(count - 1, 1)) for n in range(count)]

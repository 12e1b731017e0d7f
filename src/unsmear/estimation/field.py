"""A field of blur kernels: a basis at the nodes of a grid, and masks that fade from node to node (Eq. 2).

It has no pixels of its own: masks are made for any rectangle, and a field that was estimated on a smaller
copy of a photograph is brought to the photograph's size.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unsmear.basis.masks import grid_masks
from unsmear.errors import KernelError

_NEAR = 0.2  # of the kernel's length: how near its centre of mass a tap lies that helps to find its middle


@dataclass(frozen=True)
class KernelField:
    """Kernels, and the share that each has at the nodes of a grid: bilinear in between, constant outside.

    Attributes:
        kernels: (B, K, K) float32 on the simplex, K odd.
        rows: (R,) rows of the nodes in pixels, increasing.
        columns: (C,) their columns.
        shares: (B, R, C) on the simplex at each node; None: a kernel for each node, row by row (B = R·C).
        apart: whether each kernel has a middle of its own, as those of things that move on their own have;
            otherwise all count from one origin, as those of one moving camera do.
    """

    kernels: Tensor
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    shares: Tensor | None = None
    apart: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not fit.

        Raises:
            KernelError: not one kernel (K,K), K odd, for each node, or for each of the shares.
        """
        nodes, shape = len(self.rows) * len(self.columns), tuple(self.kernels.shape)
        count = nodes if self.shares is None else len(self.shares)
        if len(shape) != 3 or shape[0] != count or shape[1] != shape[2] or shape[1] % 2 == 0:
            whom = f"each of {nodes} nodes" if self.shares is None else f"{count} shares of the nodes"
            raise KernelError(f"expected a kernel (K,K), K odd, for {whom}; got {shape}")
        if self.shares is not None and self.shares.shape[1:] != (len(self.rows), len(self.columns)):
            raise KernelError(
                f"expected shares (B, {len(self.rows)}, {len(self.columns)}), one at each node; "
                f"got {tuple(self.shares.shape)}"
            )

    @classmethod
    def uniform(cls, kernel: Tensor) -> Self:
        """Return the field of one kernel (K,K) everywhere."""
        return cls(kernel[None].float(), np.zeros(1), np.zeros(1))

    @property
    def is_uniform(self) -> bool:
        """Whether there is one kernel only."""
        return len(self.kernels) == 1

    @property
    def reach(self) -> int:
        """How far the kernels reach from their middle, in pixels: K // 2."""
        return self.kernels.shape[-1] // 2

    def masks(self, *, rows: slice, columns: slice) -> Tensor | None:
        """Return the masks (B, h, w) of a rectangle, on the simplex; None for a uniform field."""
        if self.is_uniform:
            return None
        if self.shares is not None:
            line = np.zeros(1)
            down = grid_masks(self.rows - rows.start, line, rows.stop - rows.start, 1)[:, :, 0]
            right = grid_masks(line, self.columns - columns.start, 1, columns.stop - columns.start)[:, 0]
            return torch.einsum(
                "brc,rh,cw->bhw", self.shares, torch.from_numpy(down), torch.from_numpy(right)
            )
        return torch.from_numpy(
            grid_masks(
                self.rows - rows.start,
                self.columns - columns.start,
                rows.stop - rows.start,
                columns.stop - columns.start,
            )
        )

    def middles(self) -> list[tuple[float, float]]:
        """Where the middle of the exposure lies for each kernel: its own, or the same for all (`apart`)."""
        if self.apart:
            return [middle(kernel) for kernel in self.kernels]
        return [middle(self.kernels.mean(0))] * len(self.kernels)

    def centred(self) -> Tensor:
        """Return the kernels (B,K,K), moved by whole pixels: their middles lie nearest to the centre."""
        moved = [
            kernel.roll((-round(down), -round(right)), (0, 1))
            for kernel, (down, right) in zip(self.kernels, self.middles(), strict=True)
        ]
        return torch.stack(moved)

    def scaled(self, factor: float) -> "KernelField":
        """Return the field of a picture that is larger by `factor`, or smaller where that is below 1."""
        if factor == 1:
            return self
        side = self.kernels.shape[-1]
        size = max(3, 2 * math.ceil(side * factor / 2) + 1)
        fine = math.ceil(1 / factor) | 1  # samples in a tap that takes in several
        count = size * fine // 2
        place = torch.arange(-count, count + 1) / (fine * factor * side / 2)  # ±1 is the edge of the taps
        grid = torch.stack(torch.meshgrid(place, place, indexing="ij")[::-1], -1)
        grown = F.grid_sample(
            self.kernels[:, None],
            grid.expand(len(self.kernels), -1, -1, -1),
            mode="bicubic",
            align_corners=False,
        ).clamp_min_(0)
        grown = F.avg_pool2d(grown, fine)[:, 0]
        kernels = grown / grown.sum((1, 2), keepdim=True)
        # Pixels are areas: the middle of the first one lies at (½) · factor − ½ of the larger picture.
        rows, columns = ((x + 0.5) * factor - 0.5 for x in (self.rows, self.columns))
        return KernelField(kernels, rows, columns, self.shares, self.apart)


def middle(kernel: Tensor) -> tuple[float, float]:
    """Where the middle of the exposure lies: (down, right) in pixels from the origin of a kernel (K,K).

    The blurred picture lies over the sharp one of mid exposure when this point is the origin. It is the
    point of the kernel's path nearest to its centre of mass c: a bent path does not run through c
    itself. Taps near c, weighed by exp(−|p − c|² / 2s²) with s a fifth of the kernel's length, say how
    far the path passes by; along the path, where they say little, c stays.
    """
    kernel = kernel.double()
    reach = len(kernel) // 2
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.stack(torch.meshgrid(place, place, indexing="ij"), -1)  # (K, K, 2)
    centre = torch.einsum("ij,ijx->x", kernel, taps) / kernel.sum()
    distance = (taps - centre).square().sum(-1)
    length = 2 * math.sqrt(float((kernel * distance).sum()))
    near = kernel * torch.exp(-distance / (2 * max(_NEAR * length, 0.7) ** 2))
    near = near / near.sum()
    aside = torch.einsum("ij,ijx->x", near, taps) - centre
    rest = taps - centre - aside
    across = torch.linalg.eigh(torch.einsum("ij,ijx,ijy->xy", near, rest, rest)).eigenvectors[:, 0]
    down, right = (centre + (aside @ across) * across).tolist()
    return down, right

"""The low-rank module (LRM) of section 3.2 and Fig. 4: features projected onto a learned basis of rank K =
C/r.

The paper (Chen et al., Optoelectronics Letters 21, 43, 2025, doi:10.1007/s11801-025-3275-x) writes

    F_rs = conv(F) ∈ R^{N×C},  Q ∈ R^{N×K} "by downsampling and other related operations",
    P = Q F^T,  Ψ_LR = P Q  (Eq. 4),  then concatenation by a skip connection,

with N = H·W. As printed the shapes do not conform, and a Q that is not normalised makes ‖QP‖ grow with N, so
that a network trained on 256×256 explodes at 1280×720. Ours is the one reading that conforms and does not
depend on the size: Q has orthonormal columns, P = Qᵀ F_rs and L = Q P is the orthogonal projection of F_rs
onto span(Q).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn


class LowRankStatistics(NamedTuple):
    """Sums over pixels, all that a projection must know of an image; sums of parts add up to those of the
    whole.

    gram: SᵀS (…, K, K); cross: SᵀF_rs (…, K, C); pixels: the number N of pixels summed over.
    """

    gram: Tensor
    cross: Tensor
    pixels: float

    def __add__(self, other: "LowRankStatistics") -> "LowRankStatistics":  # type: ignore[override]
        """Add the sums of another part of the same image."""
        return LowRankStatistics(self.gram + other.gram, self.cross + other.cross, self.pixels + other.pixels)


def low_rank_statistics(scores: Tensor, features: Tensor) -> LowRankStatistics:
    """Sum SᵀS and SᵀF over the rows of scores S (…, N, K) and features F (…, N, C)."""
    transposed = scores.transpose(-1, -2)
    return LowRankStatistics(transposed @ scores, transposed @ features, float(scores.shape[-2]))


def low_rank_mixing(statistics: LowRankStatistics, ridge: float) -> Tensor:
    """Return M (…, K, C) with L = S M, the projection of F onto span(S).

    G = SᵀS/N + (ridge · tr(SᵀS)/(N K) + 1e-8) I,  M = G⁻¹ SᵀF/N,  so L = S G⁻¹ SᵀF/N = Q QᵀF with Q = S
    R⁻¹/√N and G = RᵀR (Cholesky). Relative ridge: the scale of S does not matter; the floor 1e-8 keeps S = 0
    finite.
    """
    gram, cross, pixels = statistics
    rank = gram.shape[-1]
    gram = gram / pixels
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    identity = torch.eye(rank, dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + (ridge * trace / rank + 1e-8) * identity)
    return torch.cholesky_solve(cross / pixels, factor)


class LowRankModule(nn.Module):
    """Add to features what their projection of rank K = max(1, C // reduction) tells: Out = F + fuse([F_rs,
    L]).

    F_rs = conv(F), S = conv1×1_{C→K}(GELU(F_rs)), L = S (SᵀS + ridge)⁻¹ SᵀF_rs, fuse = conv1×1_{2C→C}, zero
    at init, so that a network with the module starts as the network without it. conv is a depthwise 3×3 and a
    1×1: the reach of a full 3×3 for a ninth of its weights, so that what the module brings is the projection
    and not its parameters. Input and output (N, C, H, W) of any size and memory layout; the projection itself
    is computed in float32 (float64 for float64) whatever the autocast.

    Args:
        channels: C.
        reduction: r of the paper, K = C // r. The paper gives no value; 8 keeps K ≤ N for 128×128
            photographs.
        ridge: relative ridge; 0 makes L an exact projection but leaves rank-deficient S to the 1e-8 floor.
    """

    def __init__(self, *, channels: int, reduction: int = 8, ridge: float = 1e-4) -> None:
        super().__init__()
        self.rank = max(1, channels // reduction)
        self.ridge = ridge
        self.reshape = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1)
        )
        self.score = nn.Conv2d(channels, self.rank, 1)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        nn.init.zeros_(self.fuse.weight)
        nn.init.zeros_(self.fuse.bias)  # type: ignore[arg-type]
        self._given: LowRankStatistics | None = None

    def project_from(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return F_rs (N, C, H, W) and the scores S (N, K, H, W)."""
        reshaped = self.reshape(features)
        return reshaped, self.score(nn.functional.gelu(reshaped))

    def statistics(self, features: Tensor, window: tuple[slice, slice] | None = None) -> LowRankStatistics:
        """Sum over the pixels of `window` (rows, columns; all by default) of features (N, C, H, W)."""
        maps = self.project_from(features)
        rows, columns = window or (slice(None), slice(None))
        flat = [rearrange(_wide(m[..., rows, columns]), "n c h w -> n (h w) c") for m in maps]
        with torch.autocast(features.device.type, enabled=False):
            return low_rank_statistics(flat[1], flat[0])

    def forward(self, features: Tensor) -> Tensor:
        """Add the fused low-rank features to features (N, C, H, W)."""
        reshaped, scores = self.project_from(features)
        with torch.autocast(features.device.type, enabled=False):
            s = rearrange(_wide(scores), "n k h w -> n (h w) k")
            f = rearrange(_wide(reshaped), "n c h w -> n (h w) c")
            mixing = low_rank_mixing(self._given or low_rank_statistics(s, f), self.ridge)
            low = rearrange(s @ mixing, "n (h w) c -> n c h w", h=features.shape[-2])
        fused: Tensor = self.fuse(torch.cat([reshaped, low.to(reshaped.dtype)], 1))
        return features + fused

    @contextmanager
    def given(self, statistics: LowRankStatistics | None) -> Iterator[None]:
        """Project with these statistics, those of a whole image, instead of the input's own."""
        previous, self._given = self._given, statistics
        try:
            yield
        finally:
            self._given = previous


def _wide(x: Tensor) -> Tensor:
    """Float32 at least: sums over pixels and their factorisation do not survive 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

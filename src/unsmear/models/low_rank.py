"""The low-rank module (LRM) of section 3.2 and Fig. 4: features projected onto a learned basis of rank K =
C/r.

The paper (Chen et al., Optoelectronics Letters 21, 43, 2025, doi:10.1007/s11801-025-3275-x) writes

    F_rs = conv(F) ∈ R^{N×C},  Q ∈ R^{N×K} "by downsampling and other related operations",
    P = Q F^T,  Ψ_LR = P Q  (Eq. 4),  then concatenation by a skip connection,

with N = H·W. As printed the shapes do not conform, and a Q that is not normalised makes ‖QP‖ grow with N, so
that a network trained on 256×256 explodes at 1280×720. Ours is the one reading that conforms and does not
depend on the size: Q has orthonormal columns, P = Qᵀ F_rs and L = Q P is the orthogonal projection of F_rs
onto span(Q).

`PlainBlock` is the control: as many parameters at the same place, and no projection. `insert_low_rank` puts
either into any network.
"""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from unsmear.errors import ModelError


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
    return LowRankStatistics(transposed @ scores, transposed @ features, scores.shape[-2])


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
    gram = gram + (ridge * trace / rank + 1e-8) * identity
    if torch.compiler.is_exporting():
        return eliminated(gram, cross / pixels)
    return torch.cholesky_solve(cross / pixels, torch.linalg.cholesky(gram))


def eliminated(gram: Tensor, right: Tensor) -> Tensor:
    """Return G⁻¹ B by Gauss-Jordan elimination of [G B], G (…, K, K) positive definite, B (…, K, C).

    For ONNX, which has no Cholesky factor: sums and products only. A positive definite G needs no pivots.
    """
    table = torch.cat([gram, right], -1)
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    for k in range(gram.shape[-1]):
        row = table[..., k : k + 1, :] / table[..., k : k + 1, k : k + 1]
        table = table - (table[..., :, k : k + 1] - unit[:, k : k + 1]) * row
    return table[..., gram.shape[-1] :]


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
        self.reshape = _reshaping(channels)
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
        with _no_autocast(features.device):
            return low_rank_statistics(flat[1], flat[0])

    def forward(self, features: Tensor) -> Tensor:
        """Add the fused low-rank features to features (N, C, H, W)."""
        reshaped, scores = self.project_from(features)
        with _no_autocast(features.device):
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


class PlainBlock(nn.Module):
    """The control for `LowRankModule`: its place, its shape, its number of parameters, and no projection.

    F_rs = conv(F), H = GELU(conv1×1_{C→M}(GELU(F_rs))), Out = F + fuse([F_rs, H]), fuse = conv1×1_{C+M→C},
    zero at init: the identity, too. The width M = (C² + K (C + 1)) / (2C + 1), rounded, gives it as many
    parameters as the module of rank K has, within 1 % from 32 channels on. What a network with the module
    does better than one with this block is the projection's merit. Input and output (N, C, H, W).

    Args:
        channels: C.
        reduction: r of the module whose parameters it matches, K = max(1, C // r).
    """

    def __init__(self, *, channels: int, reduction: int = 8) -> None:
        super().__init__()
        rank = max(1, channels // reduction)
        width = round((channels**2 + rank * (channels + 1)) / (2 * channels + 1))
        self.reshape = _reshaping(channels)
        self.widen = nn.Conv2d(channels, width, 1)
        self.fuse = nn.Conv2d(channels + width, channels, 1)
        nn.init.zeros_(self.fuse.weight)
        nn.init.zeros_(self.fuse.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Add the fused features to features (N, C, H, W)."""
        reshaped = self.reshape(features)
        hidden = nn.functional.gelu(self.widen(nn.functional.gelu(reshaped)))
        fused: Tensor = self.fuse(torch.cat([reshaped, hidden], 1))
        return features + fused


def insert_low_rank(
    model: nn.Module,
    point: str | None = None,
    *,
    channels: int | None = None,
    control: bool = False,
    reduction: int = 8,
    ridge: float = 1e-4,
) -> LowRankModule | PlainBlock:
    """Put the low-rank module of the paper (section 3.2, Eq. 4) into a network, which goes on as it was.

    The module starts as the identity: outputs change only once it is trained. It gets the device, the type
    and the mode (training or evaluation) of the network.

    Args:
        model: any network. If `create` made it, checkpoints will know of the module.
        point: name of the submodule behind whose output (N, C, H, W) the module goes, as
            `model.named_modules()` has it; it is replaced by Sequential(submodule, module). None: the
            network's declared `LOW_RANK_POINT`.
        channels: C; None: those of the convolution or norm at `point`, or else found by running the network
            once on a small picture (1, 3, H, 2 H).
        control: put in the `PlainBlock` of as many parameters instead.
        reduction: r, the rank is K = max(1, C // r).
        ridge: of the projection.

    Returns:
        the module that was put in.

    Raises:
        ModelError: no such submodule (the message has the nearest names), no declared point, a module there
            already, or an output that is no batch of feature maps.
    """
    declared = point is None
    if point is None:
        point = str(getattr(model, "LOW_RANK_POINT", ""))
        if not point:
            raise ModelError(f"{type(model).__name__} declares no LOW_RANK_POINT; name a submodule of it")
    names = dict(model.named_modules())
    if point not in names or not point:
        near = difflib.get_close_matches(point, [n for n in names if n], n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(f"{type(model).__name__} has no submodule {point!r}{hint}")
    place = names[point]
    if declared and not isinstance(place, nn.Identity):
        raise ModelError(f"{type(model).__name__}: there is a {type(place).__name__} at {point!r} already")
    if channels is None:
        channels = int(model.low_rank_channels) if declared else _channels_at(model, place, point)  # type: ignore[arg-type]
    module: LowRankModule | PlainBlock
    if control:
        module = PlainBlock(channels=channels, reduction=reduction)
    else:
        module = LowRankModule(channels=channels, reduction=reduction, ridge=ridge)
    weight = next(place.parameters(), next(model.parameters(), torch.zeros(0)))
    module.to(weight.device, weight.dtype).train(model.training)
    model.set_submodule(point, module if declared else nn.Sequential(place, module))
    if isinstance(made_by := getattr(model, "made_by", None), dict):
        arguments: dict[str, Any] = {"channels": channels, "reduction": reduction, "ridge": ridge}
        arguments |= {"control": control} | ({} if declared else {"point": point})
        made_by["low_rank"] = [*insertions(made_by["low_rank"]), arguments]
    return module


def insertions(low_rank: Any) -> list[dict[str, Any]]:
    """Return the arguments of each `insert_low_rank` that `create`'s `low_rank` asks for."""
    if isinstance(low_rank, bool):
        return [{}] if low_rank else []
    if low_rank == "control":
        return [{"control": True}]
    if isinstance(low_rank, str):
        raise ValueError(f"low_rank is {low_rank!r}; expected true, false, 'control', or arguments")
    return [dict(low_rank)] if isinstance(low_rank, Mapping) else [dict(one) for one in low_rank]


def _channels_at(model: nn.Module, place: nn.Module, point: str) -> int:
    """Channels of what the submodule `place` gives: as it declares, or as a run on a small picture shows."""
    for attribute in ("out_channels", "num_features", "num_channels"):  # convolutions, batch and group norms
        if isinstance(channels := getattr(place, attribute, None), int):
            return channels
    seen: list[Any] = []
    hook = place.register_forward_hook(lambda _, __, output: seen.append(output))
    modes = {module: module.training for module in model.modules()}
    weight = next(model.parameters(), torch.zeros(0))
    side = -(-max(64, int(getattr(model, "minimum_size", 1))) // 64) * 64
    side = -(-side // int(getattr(model, "size_multiple", 1))) * int(getattr(model, "size_multiple", 1))
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(1, 3, side, 2 * side, device=weight.device, dtype=weight.dtype))
    except Exception as error:  # whatever a foreign network raises at such a picture
        raise ModelError(
            f"{type(model).__name__}: the channels at {point!r} cannot be found by running it on a picture "
            f"(1, 3, {side}, {2 * side}) ({error}); name them: channels=…"
        ) from error
    finally:
        hook.remove()
        for module, training in modes.items():
            module.training = training
    shape = tuple(seen[0].shape) if seen and isinstance(seen[0], Tensor) else None
    if shape is None or len(shape) != 4 or shape[3] != 2 * shape[2]:  # e.g. (N, H, W, C)
        raise ModelError(
            f"{point!r} gives {shape or 'no tensor'} for a picture (1, 3, {side}, {2 * side}); "
            "expected feature maps (N, C, H, W): name another submodule"
        )
    return shape[1]


def _reshaping(channels: int) -> nn.Sequential:
    """F → F_rs: a depthwise 3×3 and a 1×1 convolution."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1)
    )


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Full precision where there is another: not on "meta", where costs are counted, nor in an export."""
    available = torch.amp.is_autocast_available(device.type) and not torch.compiler.is_exporting()
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _wide(x: Tensor) -> Tensor:
    """Float32 at least: sums over pixels and their factorisation do not survive 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""Uformer: a U-shaped transformer with locally enhanced windows (Wang et al., CVPR 2022).

Paper: https://arxiv.org/abs/2106.03106. Official code: https://github.com/ZhendongWang6/Uformer (MIT), not
    copied.

What differs: any H×W (multiples of 128, not only squares); the features stay in the layout (N, H, W, C)
throughout; inference walks through an image in bands of window rows, so that the wide intermediate features
stay in the processor's cache (same numbers, a fraction of the memory traffic). The low-rank module stands at
`LOW_RANK_POINT`.
"""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from unsmear.models.window_attention import window_attention

WINDOW = 8
"""Side of an attention window, pixels of its own scale."""

SHIFT = WINDOW // 2
"""Every second block moves its windows by half a window."""

BAND_ELEMENTS = 2**23
"""Widest feature (4C channels) of a band in inference: 32 MiB in float32, 16 in bfloat16, a large cache."""


class WindowAttention(nn.Module):
    """Self-attention within windows: softmax(Q Kᵀ/√d + B) V, with B a learned bias of the relative
    position."""

    def __init__(self, *, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.zeros(2 * WINDOW - 1, 2 * WINDOW - 1, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def position_bias(self, height: int, width: int) -> Tensor:
        """Return B (heads, height·width, height·width) for windows of height×width ≤ 8×8 tokens."""
        rows, columns = (torch.arange(size, device=self.bias_table.device) for size in (height, width))
        row = rows[:, None, None, None] - rows[None, None, :, None] + WINDOW - 1  # (h, 1, h, 1)
        column = columns[None, :, None, None] - columns[None, None, None, :] + WINDOW - 1  # (1, w, 1, w)
        return rearrange(self.bias_table[row, column], "qh qw kh kw heads -> heads (qh qw) (kh kw)")

    def forward(self, windows: Tensor, bias: Tensor) -> Tensor:
        """Attend within each of the windows (M, T, C), T tokens each; bias (heads, T, T)."""
        qkv = rearrange(self.qkv(windows), "m t (three h d) -> m t three h d", three=3, h=self.heads)
        return self.out(window_attention(qkv, bias).flatten(2))  # type: ignore[no-any-return]


class LocallyEnhancedFeedForward(nn.Module):
    """LeFF: Linear(C → 4C), GELU, 3×3 depthwise convolution, GELU, Linear(4C → C), on (N, H, W, C)."""

    def __init__(self, *, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.widen = nn.Linear(channels, ratio * channels)
        self.local = nn.Conv2d(ratio * channels, ratio * channels, 3, padding=1, groups=ratio * channels)
        self.narrow = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        wide = F.gelu(self.widen(x)).permute(0, 3, 1, 2)  # (N, 4C, H, W), channels last in memory
        local = F.gelu(self.local(wide)).permute(0, 2, 3, 1)
        return self.narrow(local)  # type: ignore[no-any-return]


class LeWinBlock(nn.Module):
    """x ← x + W-MSA(LN(x) + modulator), x ← x + LeFF(LN(x)), on (N, H, W, C) with H and W multiples of 8.

    With `shift` the windows stand half a window further and those at the borders are cut there, which is what
    the cyclic shift with a mask of the official code computes.
    """

    def __init__(self, *, channels: int, heads: int, shift: bool, modulator: bool, drop_path: float) -> None:
        super().__init__()
        self.shift = SHIFT if shift else 0
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels)
        self.modulator = nn.Parameter(torch.randn(WINDOW, WINDOW, channels)) if modulator else None
        self.attention = WindowAttention(channels=channels, heads=heads)
        self.norm2 = nn.LayerNorm(channels)
        self.feed_forward = LocallyEnhancedFeedForward(channels=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        x = x + self._dropped(self._attend(x))
        return x + self._dropped(self._feed_forward(x))

    def _attend(self, x: Tensor) -> Tensor:
        """Attend in every region of whole or cut windows, band by band."""
        rows = []
        for start, end, top, a in self._cuts(x.shape[1]):
            for band in _bands(x, start, end):
                parts = [
                    self._attend_region(x[:, band, j:j_end], top=top, left=left, a=a, b=b)
                    for j, j_end, left, b in self._cuts(x.shape[2])
                ]
                rows.append(torch.cat(parts, 2) if len(parts) > 1 else parts[0])
        return torch.cat(rows, 1) if len(rows) > 1 else rows[0]

    def _feed_forward(self, x: Tensor) -> Tensor:
        """LeFF band by band, each with the neighbouring rows that its 3×3 convolution sees."""
        rows = []
        for band in _bands(x, 0, x.shape[1]):
            above = max(band.start - 1, 0)
            seen = self.feed_forward(self.norm2(x[:, above : band.stop + 1]))
            rows.append(seen[:, band.start - above : band.stop - above])
        return torch.cat(rows, 1) if len(rows) > 1 else rows[0]

    def _cuts(self, length: int) -> list[tuple[int, int, int, int]]:
        """(start, end, first token within its window, tokens of a window) of the runs of equal windows along
        an axis."""
        s = self.shift
        if not s:
            return [(0, length, 0, WINDOW)]
        cuts = [(0, s, WINDOW - s, s), (s, length - s, 0, WINDOW), (length - s, length, 0, s)]
        return [cut for cut in cuts if cut[1] > cut[0]]

    def _attend_region(self, x: Tensor, *, top: int, left: int, a: int, b: int) -> Tensor:
        """Attend in a region (N, h, w, C) of equal windows a×b that begin at token (top, left) of a full one.

        a and b are plain numbers, not made of h and w, which are symbols in an export.
        """
        n, height, _, _ = x.shape
        windows = rearrange(self.norm1(x), "n (i a) (j b) c -> (n i j) a b c", a=a, b=b)
        if self.modulator is not None:
            windows = windows + self.modulator[top : top + a, left : left + b]
        attended: Tensor = self.attention(windows.flatten(1, 2), self.attention.position_bias(a, b))
        return rearrange(attended, "(n i j) (a b) c -> n (i a) (j b) c", n=n, i=height // a, a=a, b=b)

    def _dropped(self, branch: Tensor) -> Tensor:
        """Stochastic depth: leave a whole branch out for some images of a training batch."""
        if not self.training or self.drop_path == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * (kept / (1 - self.drop_path)).to(branch.dtype)


class Uformer(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB: y = x + network(x), H and W multiples of 128.

    Args:
        width: channels e at full resolution; 2e, 4e, 8e and 16e below.
        depths: blocks in the 4 encoder stages, the bottleneck and the 4 decoder stages.
        heads: attention heads of the same 9 stages.
        drop_path: highest rate of stochastic depth, reached at the end of the encoder.
    """

    size_multiple = 16 * WINDOW
    minimum_size = 16 * WINDOW
    global_context = False
    LOW_RANK_POINT = "middle"

    def __init__(
        self,
        *,
        width: int,
        depths: tuple[int, ...] = (2,) * 9,
        heads: tuple[int, ...] = (1, 2, 4, 8, 16, 16, 8, 4, 2),
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        channels = [width * factor for factor in (1, 2, 4, 8, 16, 16, 8, 4, 2)]
        if not len(depths) == len(heads) == 9 or any(c % h for c, h in zip(channels, heads, strict=True)):
            raise ValueError(
                f"depths {depths}, heads {heads}: expected 9 each, the heads dividing {channels}"
            )
        rising = torch.linspace(0, drop_path, sum(depths[:4]), device="cpu").tolist()
        falling = torch.linspace(drop_path, 0, sum(depths[5:]), device="cpu").tolist()
        rates = iter(rising + [drop_path] * depths[4] + falling)

        def stage(index: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    LeWinBlock(
                        channels=channels[index],
                        heads=heads[index],
                        shift=block % 2 == 1,
                        modulator=index > 4,
                        drop_path=next(rates),
                    )
                    for block in range(depths[index])
                )
            )

        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = nn.ModuleList(stage(i) for i in range(4))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1) for c in channels[:4])
        self.bottleneck = stage(4)
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = channels[4]
        into = [2 * channels[3], *channels[5:8]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c, channels[5 + i] // 2, 2, stride=2) for i, c in enumerate(into)
        )
        self.decoder = nn.ModuleList(stage(i) for i in range(5, 9))
        self.leave = nn.Conv2d(channels[8], 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        x = _last(F.leaky_relu(self.enter(image.contiguous(memory_format=torch.channels_last)), 0.01))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = _last(down(_first(skips[-1])))
        x = _last(self.middle(_first(self.bottleneck(x))))
        for stage, up in zip(self.decoder, self.up, strict=True):
            x = stage(torch.cat([_last(up(_first(x))), skips.pop()], -1))
        return image + self.leave(_first(x))  # type: ignore[no-any-return]


def _bands(x: Tensor, start: int, end: int) -> Iterator[slice]:
    """Cut rows start to end of x (N, H, W, C) into bands: in inference so small that their LeFF stays in
    cache."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return iter((slice(start, end),))  # no `range`, which would fix the size in an export to ONNX
    height = max(1, BAND_ELEMENTS // (4 * x[:, 0].numel()) // WINDOW) * WINDOW
    return (slice(row, min(row + height, end)) for row in range(start, end, height))


def _first(x: Tensor) -> Tensor:
    """(N, H, W, C) as (N, C, H, W), without moving a number."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)

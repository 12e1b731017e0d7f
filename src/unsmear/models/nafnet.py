"""NAFNet: a U-shaped network without nonlinear activations (Chen, Chu, Zhang, Sun, ECCV 2022).

Paper: https://arxiv.org/abs/2204.04676. Official code: https://github.com/megvii-research/NAFNet (MIT), not
    copied.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NAFBlock(nn.Module):
    """x ← x + β · branch1(x), x ← x + γ · branch2(x), with β and γ zero at the start."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 2 * channels)
        self.local = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Linear(channels, channels)
        self.narrow = nn.Linear(channels, channels)
        self.beta = nn.Parameter(torch.zeros(channels))
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 2 * channels)
        self.contract = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        y = _last(self.local(_first(self.widen(self.norm1(x)))))
        y = _gate(y)
        y = y * self.attention(y.mean((1, 2), keepdim=True))
        x = x + self.narrow(y) * self.beta
        return x + self.contract(_gate(self.expand(self.norm2(x)))) * self.gamma  # type: ignore[no-any-return]


class NAFNet(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB: y = x + network(x), H and W multiples of 16.

    Args:
        width: channels at full resolution, doubled at each of the levels below.
        encoder: blocks at each level on the way down.
        middle: blocks at the bottom.
        decoder: blocks at each level on the way up.
    """

    size_multiple = 16
    minimum_size = 16
    global_context = True
    LOW_RANK_POINT = "middle"

    def __init__(
        self,
        *,
        width: int,
        encoder: tuple[int, ...] = (1, 1, 1, 28),
        middle: int = 1,
        decoder: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        if len(encoder) != len(decoder):
            raise ValueError(f"encoder {encoder} and decoder {decoder}: expected as many levels in both")
        self.size_multiple = self.minimum_size = 2 ** len(encoder)
        channels = [width * 2**level for level in range(len(encoder) + 1)]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = nn.ModuleList(_stage(c, n) for c, n in zip(channels, encoder, strict=False))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.bottleneck = _stage(channels[-1], middle)
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = channels[-1]
        self.up = nn.ModuleList(nn.Conv2d(c, 2 * c, 1, bias=False) for c in channels[:0:-1])
        self.decoder = nn.ModuleList(_stage(c, n) for c, n in zip(channels[-2::-1], decoder, strict=True))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        x = _last(self.enter(image.contiguous(memory_format=torch.channels_last)))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = _last(down(_first(skips[-1])))
        x = _last(self.middle(_first(self.bottleneck(x))))
        for stage, up in zip(self.decoder, self.up, strict=True):
            x = stage(_last(F.pixel_shuffle(up(_first(x)), 2)) + skips.pop())
        return image + self.leave(_first(x))  # type: ignore[no-any-return]


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels=channels) for _ in range(blocks)))


def _gate(x: Tensor) -> Tensor:
    """SimpleGate: the first half of the channels times the second, on (N, H, W, 2C)."""
    first, second = x.chunk(2, -1)
    return first * second


def _first(x: Tensor) -> Tensor:
    """(N, H, W, C) as (N, C, H, W), without moving a number."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)

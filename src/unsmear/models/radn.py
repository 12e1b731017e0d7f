"""RADN-like: dense blocks, deformable modules, self-attention (after Purohit and Rajagopalan, AAAI 2020).

"Region-Adaptive Dense Network for Efficient Motion Deblurring", https://arxiv.org/abs/1903.11394. There is no
official code and the paper does not give every width, so that this can only be like it.

From the paper: space-to-depth by 2 at the entrance; an encoder of three densely connected blocks of 12, 16
and 24 layers (growth 32, bottleneck 4 × 32) with transitions that halve the channels; self-attention at the
bottleneck; a decoder of three dense deformable modules (6 layers, the last one with learned offsets and
modulation) with 2×2 transposed convolutions; skips of dense features to the decoder; context pooled over 4,
8, 16 and 32 pixels; a global residual.

Ours, where it differs or is silent: the weights are not those of an ImageNet classifier, which are a download
(nor would DenseNet-121's fit: its blocks have 6, 12 and 24 layers). Without those there is no reason for
batch norm, which a batch of 4 estimates badly, so there is none; each layer's ReLU then comes once, right
after its convolution, instead of again wherever its result is read. The skips are the transitions' results
before they are pooled. Keys, queries and values of the attention have C/8 channels, all three, as PyTorch's
fused attention on a CPU wants it: it never holds the matrix of all pairs. The widths of the decoder are ours.
10.17 million parameters: the dense layers of the encoder hold 5.51, its transitions 1.02, the attention 0.16,
the deformable modules 2.13, the transposed convolutions 1.34.
"""

from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from unsmear.models.deformable import DeformableConv2d


class DenseLayer(nn.Module):
    """1×1 to 4·growth, ReLU, 3×3 (deformable or not) to `growth`, ReLU; appended to what it has seen."""

    def __init__(self, *, channels: int, growth: int, deformable: bool = False) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, 4 * growth, 1)
        self.local: nn.Module = (
            DeformableConv2d(channels=4 * growth, out_channels=growth)
            if deformable
            else nn.Conv2d(4 * growth, growth, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth, H, W)."""
        return torch.cat([x, F.relu(self.local(F.relu(self.narrow(x))))], 1)


class SelfAttention(nn.Module):
    """x + conv1×1(softmax(Q Kᵀ/√d) V): every pixel looks at all the others; d = C/8."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.width = max(1, channels // 8)
        self.qkv = nn.Conv2d(channels, 3 * self.width, 1)
        self.out = nn.Conv2d(self.width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        q, k, v = rearrange(self.qkv(x), "n (three d) h w -> three n 1 (h w) d", three=3)
        seen = F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous())
        return x + self.out(rearrange(seen, "n 1 (h w) d -> n d h w", h=x.shape[2]))  # type: ignore[no-any-return]


class ContextPooling(nn.Module):
    """Append means over squares of 4, 8, 16 and 32 pixels, each narrowed to C/4 and brought back to size."""

    SIDES = (4, 8, 16, 32)

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(channels, channels // 4, 1) for _ in self.SIDES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2C, H, W)."""
        parts = [x]
        for side, narrow in zip(self.SIDES, self.narrow, strict=True):
            pooled = F.relu(narrow(F.avg_pool2d(x, side)))
            parts.append(F.interpolate(pooled, scale_factor=side, mode="bilinear"))
        return torch.cat(parts, 1)


class RADN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB: y = x + network(x), H and W multiples of 32.

    Args:
        width: channels after the first convolution, at half the size.
        growth: channels that a dense layer adds.
        encoder: dense layers of the three encoder blocks, at 1/2, 1/4 and 1/8 of the size.
        decoder: dense layers of the three deformable modules, at 1/8, 1/4 and 1/2 of the size.
        up: channels of the three transposed convolutions, at 1/4, 1/2 and the full size.
    """

    size_multiple = 32
    minimum_size = 32
    global_context = True  # the attention sees the whole picture
    LOW_RANK_POINT = "middle"

    def __init__(
        self,
        *,
        width: int = 64,
        growth: int = 32,
        encoder: tuple[int, int, int] = (12, 16, 24),
        decoder: tuple[int, int, int] = (6, 6, 6),
        up: tuple[int, int, int] = (256, 128, 64),
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3 * 2 * 2, width, 3, padding=1)
        self.dense = nn.ModuleList()
        self.transitions = nn.ModuleList()
        skips = []
        channels = width
        for layers in encoder:
            block, channels = _dense(channels, growth, layers)
            self.dense.append(block)
            self.transitions.append(nn.Conv2d(channels, channels // 2, 1))
            channels //= 2
            skips.append(channels)
        self.attention = SelfAttention(channels=channels)
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = channels
        self.deformable = nn.ModuleList()
        self.up = nn.ModuleList()
        for layers, after, skip in zip(decoder, up, (*skips[1::-1], 0), strict=True):
            block, channels = _dense(channels, growth, layers, deformable=True)
            self.deformable.append(block)
            self.up.append(nn.ConvTranspose2d(channels, after, 2, stride=2))
            channels = after + skip
        self.context = ContextPooling(channels=channels)
        self.leave = nn.Conv2d(2 * channels, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        x = F.pixel_unshuffle(image, 2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.enter(x))
        skips: list[Tensor] = []
        for block, transition in zip(self.dense, self.transitions, strict=True):
            x = F.relu(transition(block(F.avg_pool2d(x, 2) if skips else x)))
            skips.append(x)
        x = self.middle(self.attention(skips.pop()))
        for block, up in zip(self.deformable, self.up, strict=True):
            x = F.relu(up(block(x)))
            x = torch.cat([x, skips.pop()], 1) if skips else x
        return image + self.leave(self.context(x))  # type: ignore[no-any-return]


def _dense(channels: int, growth: int, layers: int, *, deformable: bool = False) -> tuple[nn.Sequential, int]:
    """Make a block of dense layers, the last one deformable or not, and say how many channels it gives."""
    counts = list(accumulate([growth] * layers, initial=channels))
    block = (
        DenseLayer(channels=count, growth=growth, deformable=deformable and count == counts[-2])
        for count in counts[:-1]
    )
    return nn.Sequential(*block), counts[-1]

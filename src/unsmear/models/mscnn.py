"""MSCNN: three residual networks, from a quarter of the size to the whole (Nah, Kim, Lee, CVPR 2017).

Paper: https://arxiv.org/abs/1612.02177. Official code: https://github.com/SeungjunNah/DeepDeblur-PyTorch
    (MIT), not copied.

Each scale has weights of its own and begins with the blurred picture of its size and what the scale before it
restored, enlarged by a learned convolution and a pixel shuffle. No norms, no activation after a sum, no
residual from input to output.

What differs: the picture comes in [0, 1] and is centred by -0.5 (the PyTorch code: [0, 255] and -127.5, the
same network with biases 255 times as large). The blurred pictures of the smaller scales are made here, in the
way of the official data loader (a Gaussian of 2/3 pixel, then means over 2×2), which a training's sharp
pictures are not: those are means over areas (`over_scales`). The paper's adversarial term (weight 1e-4) is
left to the recipe ([adversarial]). The low-rank module stands in the middle of the finest scale, where the
paper's description ("in the middle") leaves three places: the finest is the one whose output is the picture.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 5
"""Side of every convolution."""

SIGMA = 2 / 3
"""Of the Gaussian before a halving, in pixels: 2 · 2 / 6, the default of scikit-image's pyramid_gaussian."""

REACH = 3
"""Pixels to each side that the Gaussian is cut at: 4 sigma, rounded, as SciPy does."""


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x)))."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape; sums in place, for there are 57 of these at full size."""
        return self.second(F.relu(self.first(x), inplace=True)).add_(x)  # type: ignore[no-any-return]


class Scale(nn.Module):
    """The network of one scale: convolution, residual blocks, convolution."""

    def __init__(self, *, into: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(into, width, KERNEL, padding=KERNEL // 2)
        half = (blocks + 1) // 2
        self.before = nn.Sequential(*(ResidualBlock(channels=width) for _ in range(half)))
        self.middle: nn.Module = nn.Identity()
        self.after = nn.Sequential(*(ResidualBlock(channels=width) for _ in range(blocks - half)))
        self.leave = nn.Conv2d(width, 3, KERNEL, padding=KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, into, H, W) to (N, 3, H, W)."""
        return self.leave(self.after(self.middle(self.before(self.enter(x)))))  # type: ignore[no-any-return]


class MSCNN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB, H and W multiples of 4.

    In training mode the outputs of all scales, coarse to fine: (N, 3, H/4, W/4), (N, 3, H/2, W/2) and
    (N, 3, H, W).

    Args:
        width: channels of every scale.
        blocks: residual blocks of every scale (19: with the two outer ones 40 convolutions).
    """

    size_multiple = 4
    minimum_size = 8
    global_context = False
    LOW_RANK_POINT = "scales.2.middle"

    def __init__(self, *, width: int = 64, blocks: int = 19) -> None:
        super().__init__()
        self.low_rank_channels = width
        self.scales = nn.ModuleList(Scale(into=into, width=width, blocks=blocks) for into in (3, 6, 6))
        self.enlarge = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 12, KERNEL, padding=KERNEL // 2), nn.PixelShuffle(2)) for _ in range(2)
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Restore image (N, 3, H, W)."""
        blurred = [image.contiguous(memory_format=torch.channels_last) - 0.5]
        for _ in range(2):
            blurred.insert(0, halved(blurred[0]))
        outputs = [self.scales[0](blurred[0])]
        for scale, enlarge, picture in zip(self.scales[1:], self.enlarge, blurred[1:], strict=True):
            outputs.append(scale(torch.cat([picture, enlarge(outputs[-1])], 1)))
        return tuple(output + 0.5 for output in outputs) if self.training else outputs[-1] + 0.5


def halved(image: Tensor) -> Tensor:
    """Half of an image (N, C, H, W), even H and W: a Gaussian of `SIGMA`, then means over 2×2 pixels.

    Equal to scikit-image's pyramid_gaussian, whose linear interpolation falls halfway between pixels. Beyond
    the borders the image goes on mirrored, the last pixel doubled.
    """
    weights = [math.exp(-((offset / SIGMA) ** 2) / 2) for offset in range(-REACH, REACH + 1)]
    # the Gaussian and the mean of two in one filter of 8 taps
    pairs = [(a + b) / (2 * sum(weights)) for a, b in zip([*weights, 0.0], [0.0, *weights], strict=True)]
    taps = torch.tensor(pairs, dtype=image.dtype, device=image.device)
    channels = image.shape[1]
    for axis in (2, 3):
        size = image.shape[axis]
        inside = torch.arange(-REACH, size + REACH, device=image.device)
        mirrored = torch.where(
            inside < 0, -1 - inside, torch.where(inside < size, inside, 2 * size - 1 - inside)
        )
        kernel = taps.reshape((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)).expand(channels, 1, -1, -1)
        stride = (2, 1) if axis == 2 else (1, 2)
        image = F.conv2d(image.index_select(axis, mirrored), kernel, stride=stride, groups=channels)
    return image

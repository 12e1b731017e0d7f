"""A U-Net that is shown what the estimated blur kernels make of the photograph, and finishes the work.

Ours; it follows no paper to the letter. A network that is trained from end to end must find the blur and undo
it; here the estimate of Eq. 3 (unsmear.estimation) finds it, Tikhonov's filter undoes it, keeping detail with
its noise and ringing, and total variation does, calm and with sharp edges (estimation/filtering.py), and the
network, residual blocks of plain 3×3 convolutions at half resolution and below, chooses and mends:

    y = v + g₁ (d₁ − v) + g₂ (d₂ − v) + r

v is the blurred picture, d₁ and d₂ the restored ones; the maps g₁, g₂ and the picture r are the network's.

Its last layer starts at zero, so it starts as y = v. Trained with kernels as estimates have them, wrong ones
among them, it learns to leave d₁ and d₂ alone where they are no help.

The same U-Net without guides, y = v + r, is trained from end to end, for photos that no kernels explain.

Related: a learned finish of a classical inversion (Schuler et al., A machine learning approach for non-blind
image deconvolution, CVPR 2013; Son and Lee, ICCP 2017), kernels as a network's input (UFPNet, CVPR 2023).
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """x + conv3×3(GELU(conv3×3(x))), the identity at first."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.second(F.gelu(self.first(x)))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Restore v (N, 3, H, W), sRGB in [0, 1], H and W multiples of 16: y = v + r. Returns (N, 3, H, W).

    Args:
        widths: channels at 1/2, 1/4, 1/8 … of the resolution.
        depths: residual blocks at each; those above the last stand there twice, before and after.
    """

    size_multiple = 16
    minimum_size = 16
    global_context = False
    image_channels = 3
    LOW_RANK_POINT = "middle"

    def __init__(
        self, *, widths: tuple[int, ...] = (32, 64, 96, 160), depths: tuple[int, ...] = (2, 2, 2, 3)
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or not 1 <= len(widths) <= 4:
            raise ValueError(f"widths {widths}, depths {depths}: expected as many of both, 4 at most")

        def stage(index: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels=widths[index]) for _ in range(depths[index])))

        pairs = list(itertools.pairwise(widths))
        maps = 3 + self.image_channels // 3 - 1
        self.enter = nn.Conv2d(4 * self.image_channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(stage(i) for i in range(len(pairs)))
        self.down = nn.ModuleList(nn.Conv2d(wide, deep, 2, stride=2) for wide, deep in pairs)
        self.bottom = stage(len(pairs))
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = widths[-1]
        self.up = nn.ModuleList(nn.Conv2d(deep, 4 * wide, 1) for wide, deep in pairs)
        self.decoder = nn.ModuleList(stage(i) for i in range(len(pairs)))
        self.leave = nn.Conv2d(widths[0], 4 * maps, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Restore v, with its guides behind it where there are any."""
        v, *guides = torch.split(image, 3, 1)
        x = F.pixel_unshuffle(torch.cat([v - 0.5, *(guide - v for guide in guides)], 1), 2)
        x = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = down(skips[-1])
        x = self.middle(self.bottom(x))
        for up, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = stage(F.pixel_shuffle(up(x), 2) + skips.pop())
        maps = F.pixel_shuffle(self.leave(x), 2).to(v.dtype)
        rest, *weights = torch.split(maps, [3] + [1] * len(guides), 1)
        y: Tensor = v + rest
        for weight, guide in zip(weights, guides, strict=True):
            y = y + weight * (guide - v)
        return y


class GuidedUNet(UNet):
    """The U-Net with two guides: restore (N, 9, H, W), which is v, d₁ and d₂.

    (N, 3, H, W) is taken as a picture whose kernels are not known: d₁ = d₂ = v.
    """

    image_channels = 9
    not_in_onnx = "it restores from nine channels, six of which estimated kernels make of the photo"

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 9, H, W), or (N, 3, H, W) without kernels."""
        return super().forward(image if image.shape[1] > 3 else image.repeat(1, 3, 1, 1))

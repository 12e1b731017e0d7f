"""SVRNN: spatially variant recurrences in four directions (Zhang et al., CVPR 2018).

"Dynamic Scene Deblurring Using Spatially Variant Recurrent Neural Networks",
https://openaccess.thecvf.com/content_cvpr_2018/html/Zhang_Dynamic_Scene_Deblurring_CVPR_2018_paper.html.
Official code: https://github.com/zhjwustc/cvpr18_rnn_deblur_matcaffe (Caffe, MIT; networks as prototxt), not
copied. Layers, widths, order of the gates and first weights are those of its test.prototxt.

A blur is a filter whose inverse reaches far; a recurrence reaches as far as a row is long with one weight.
Here the weights (the gates) are computed for every pixel by a second network, of the form of VGG16, which
holds 8.96 of the 9.23 million parameters.

What differs: the last convolution of the gate network (256 → 512) is four of 256 → 128, computed where
their recurrence needs them (the same numbers and parameters, a quarter of the memory); the recurrences
are scans (models/recurrence.py), not loops; bilinear resizing takes pixel centres (the source of the
official Resize layer was not at hand). Weights of the official release are a caffemodel, which nothing
here reads. The low-rank module stands at the bottom of the gate network, at an eighth of the size: the
trunk has 32 channels only, too few for a low rank, and it is there that the network sums up how the
picture is blurred. Unlike most of its successors the network has no global residual: at first it does not
give the picture back.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsmear.models.recurrence import DIRECTIONS, four_directions


class Recurrence(nn.Module):
    """Four directions of h_t = (1 − g_t) x_t + g_t h_{t−1}, g = tanh(conv3×3(guidance)); 3×3 to C; LReLU."""

    def __init__(self, *, channels: int, guidance: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(guidance, len(DIRECTIONS) * channels, 3, padding=1)
        self.mix = nn.Conv2d(len(DIRECTIONS) * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Map x (N, C, H, W) to the same shape, guided by (N, G, H, W)."""
        return F.leaky_relu(self.mix(four_directions(x, self.gates(guidance).tanh())), 0.1)


class SVRNN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB, H and W multiples of 8.

    Args:
        width: C, channels of the recurrent trunk at half the size; C/2 at the full size.
        guidance: channels of the gate network at the full size; 2, 4 and 8 times as many below.
        recurrences: how many times the four directions are run.
    """

    size_multiple = 8
    minimum_size = 8
    global_context = True  # a recurrence reaches to the border of the picture
    LOW_RANK_POINT = "middle"
    not_in_onnx = "its recurrences take as many steps as the picture has columns and rows, not a fixed number"

    def __init__(self, *, width: int = 32, guidance: int = 64, recurrences: int = 4) -> None:
        super().__init__()
        c, g = width, guidance
        self.enter = nn.Conv2d(3, c // 2, 11, padding=5)
        self.down = nn.Conv2d(c // 2, c, 7, stride=2, padding=3)
        self.recurrences = nn.ModuleList(Recurrence(channels=c, guidance=4 * g) for _ in range(recurrences))
        self.narrow = nn.Conv2d(2 * c, c // 2, 9, padding=4)
        self.leave = nn.Conv2d(c // 2 + c // 2, 3, 5, padding=2)
        # The gate network: VGG16's first ten layers, without their pooling, and a decoder with two skips.
        self.guide1 = _stage(3, g, g)
        self.guide2 = _stage(g, 2 * g, 2 * g)
        self.guide3 = _stage(2 * g, 4 * g, 4 * g)
        self.guide3_end = _stage(4 * g, 4 * g)  # the skip leaves before this one
        self.guide4 = _stage(4 * g, 8 * g, 8 * g, 4 * g)
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = 4 * g
        self.join3 = _stage(8 * g, 2 * g, 2 * g)
        self.join2 = _stage(4 * g, 4 * g)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")  # Caffe's "xavier"
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        image = image.contiguous(memory_format=torch.channels_last)
        guidance = self._guidance(image)
        early = F.leaky_relu(self.enter(image), 0.1)
        x = trunk = self.down(early)
        for recurrence in self.recurrences:
            x = recurrence(x, guidance)
        x = F.leaky_relu(self.narrow(torch.cat([trunk, x], 1)), 0.1)
        return self.leave(torch.cat([early, _twice(x)], 1))  # type: ignore[no-any-return]

    def _guidance(self, image: Tensor) -> Tensor:
        """What all gates are made of, (N, 4G, H/2, W/2)."""
        half = self.guide2(F.max_pool2d(self.guide1(image), 2))
        quarter = self.guide3(F.max_pool2d(half, 2))
        x = self.middle(self.guide4(F.max_pool2d(self.guide3_end(quarter), 2)))
        x = self.join3(torch.cat([quarter, _twice(x)], 1))
        return self.join2(torch.cat([half, _twice(x)], 1))  # type: ignore[no-any-return]


def _stage(*channels: int) -> nn.Sequential:
    """3×3 convolutions from each number of channels to the next, a ReLU after each."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")

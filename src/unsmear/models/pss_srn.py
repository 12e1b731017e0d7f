"""PSS-SRN: an encoder-decoder at three scales that share the inner modules but not the scaling layers (Gao
et al., CVPR 2019; there PSS-NSC).

Paper: "Dynamic Scene Deblurring with Parameter Selective Sharing and Nested Skip Connections", CVPR 2019,
    3848-3856, http://jiaya.me/papers/deblur_cvpr19.pdf. Released code (TensorFlow, tests only, no licence):
    https://github.com/firenxygao/deblur, read for its facts, not copied.

Selective sharing: the first and last convolutions and those that change the size belong to one scale each;
the nested modules at the three levels of encoder and decoder serve all scales, and each is applied twice in
a row. Nested skips: four pairs of convolutions f_k with x_0 = x and x_k = x + n_1 + … + n_k, n_k =
f_k(x_{k-1}), so that each pair sees the sum of the input and all that the pairs before it found; which is a
chain, x_k = x_{k-1} + f_k(x_{k-1}). A scale gives its blurred picture plus a correction.

What differs: the counts. The paper has 2.84 M parameters; the released graph has 3.87 M (grey), counted, and
so have we (3.88 M for colours); we could not find what was left out there. The released weights restore red,
green and blue one by one as grey pictures (`per_colour`); ours by default the three together, for a third of
the work. Scaling and padding are those of models/srn.py, which see. Training code was never released; like
the released graph we let no gradient into the picture of the scale before. First weights are the
graph's (Xavier), but a tenth of them in the second convolution of each pair and in the last: each of the 48
pairs of a pass adds half to the variance of what it gets, which at the third scale would make an output of
10⁷ out of a picture in [0, 1]. The low-rank module stands between encoder and decoder of the last, full-size
pass. TensorFlow's checkpoints cannot be converted here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (4, 2, 1)
"""By how much the picture is smaller in each pass."""

CALM = 0.1
"""Of the first weights of the second convolutions and of the last one, beside the graph's Xavier."""

TIMES = 2
"""How often each nested module is applied in a row."""


class NestedModule(nn.Module):
    """Four pairs of convolutions, each fed with the sum of the input and of all pairs before it."""

    def __init__(self, *, channels: int, pairs: int = 4) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(pairs))
        self.second = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(pairs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        for first, second in zip(self.first, self.second, strict=True):
            x = second(F.relu(first(x), inplace=True)).add_(x)
        return x


class ScaleLayers(nn.Module):
    """The layers of one scale: first convolution, two that halve, two that double, last convolution."""

    def __init__(self, *, colours: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2 * colours, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(width << i, width << (i + 1), 3, stride=2, padding=1) for i in range(2)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(width << (i + 1), width << i, 4, stride=2, padding=1) for i in (1, 0)
        )
        self.leave = nn.Conv2d(width, colours, 3, padding=1)


class PSSSRN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB, H and W multiples of 16.

    In training mode the outputs of all scales, coarse to fine: (N, 3, H/4, W/4), (N, 3, H/2, W/2) and
    (N, 3, H, W).

    Args:
        width: channels at full size, doubled at each of the two levels below.
        per_colour: restore red, green and blue one by one, with the same weights.
    """

    size_multiple = 16
    minimum_size = 16
    global_context = False
    LOW_RANK_POINT = "middle"

    def __init__(self, *, width: int = 32, per_colour: bool = False) -> None:
        super().__init__()
        colours = 1 if per_colour else 3
        self.per_colour = per_colour
        self.low_rank_channels = 4 * width
        self.scales = nn.ModuleList(ScaleLayers(colours=colours, width=width) for _ in SCALES)
        self.encoder = nn.ModuleList(NestedModule(channels=width << i) for i in range(3))
        self.middle: nn.Module = nn.Identity()
        self.decoder = nn.ModuleList(NestedModule(channels=width << i) for i in (2, 1, 0))
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                calm = ".second." in name or name.endswith("leave")
                nn.init.xavier_uniform_(module.weight, gain=CALM if calm else 1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Restore image (N, 3, H, W)."""
        shape = image.shape
        x = image.reshape(-1, 1, *shape[2:]) if self.per_colour else image  # (3N, 1, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        outputs: list[Tensor] = []
        for smaller, layers in zip(SCALES, self.scales, strict=True):
            blurred = F.avg_pool2d(x, smaller) if smaller > 1 else x
            before = blurred
            if outputs:
                before = F.interpolate(outputs[-1], blurred.shape[-2:], mode="bilinear", align_corners=False)
            correction = self._correction(torch.cat([blurred, before.detach()], 1), layers, smaller == 1)
            outputs.append(blurred + correction)
        outputs = [output.reshape(len(image), 3, *output.shape[2:]) for output in outputs]
        return tuple(outputs) if self.training else outputs[-1]

    def _correction(self, x: Tensor, layers: nn.Module, last: bool) -> Tensor:
        """One pass with the layers of its scale and the modules of all."""
        assert isinstance(layers, ScaleLayers)
        x = _twice(self.encoder[0], F.relu(layers.enter(x), inplace=True))
        skips = []
        for down, nested in zip(layers.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = _twice(nested, F.relu(down(x), inplace=True))
        if last:
            x = self.middle(x)
        x = _twice(self.decoder[0], x)
        for up, nested in zip(layers.up, self.decoder[1:], strict=True):
            x = _twice(nested, F.relu(up(x), inplace=True) + skips.pop())
        return layers.leave(x)  # type: ignore[no-any-return]


def _twice(module: nn.Module, x: Tensor) -> Tensor:
    for _ in range(TIMES):
        x = module(x)
    return x

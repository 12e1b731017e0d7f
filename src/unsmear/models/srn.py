"""SRN: one encoder-decoder run at three scales, each fed with what the one before restored (Tao et al., CVPR
2018).

Paper: https://arxiv.org/abs/1802.01770. Official code: https://github.com/jiangsutx/SRN-Deblur (TensorFlow,
    MIT), not copied.

The weights are the same at every scale. With `lstm` a convolutional LSTM between encoder and decoder carries
its state (c, h) from scale to scale, enlarged by bilinear interpolation: the recurrence of the paper. The
official code has three models: colour pictures without it (6.88 M parameters, our `srn`), grey pictures
without it, and grey pictures with it, to which the three colours are given one by one (8.06 M). Ours with it,
`srn-lstm`, restores the colours together; `per_colour` gives the grey network of the released weights.

As in the official code the gradient does not flow from a scale into the picture that the one before gave it
(through the LSTM's state it does), every convolution but the last is followed by a ReLU, and nothing is added
from input to output.

What differs: the smaller pictures are means over areas and enlarging is bilinear between the centres of
pixels; the code's TensorFlow 1 takes every second or fourth pixel, which aliases, and enlarges from corners.
A stride of 2 is padded alike on all sides, where TensorFlow leaves out the first row and column: the same
network on the mirrored picture. First weights are the code's, but the second convolution of each residual
block has a tenth of them: every block adds half to the variance of what it gets, and what one pass makes of
that the next one gets. The low-rank module stands between encoder and decoder of the last,
full-size pass alone, so that it is called once and a photograph in tiles can be given its sums. TensorFlow's
checkpoints cannot be converted here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = 5
"""Side of the convolutions; those that enlarge have 4, the LSTM's 3."""

SCALES = (4, 2, 1)
"""By how much the picture is smaller in each pass."""

CALM = 0.1
"""Of the first weights of a residual block's second convolution, beside the official code's Xavier."""

FORGET_BIAS = 1.0
"""Added to the LSTM's forget gate, so that it remembers from the start."""


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x)))."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2)
        self.second = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.second(F.relu(self.first(x), inplace=True)).add_(x)  # type: ignore[no-any-return]


class ConvLSTM(nn.Module):
    """Convolutional LSTM with a state of as many channels as its input.

    (i, j, f, o) = conv3×3([x, h]);  c ← σ(f + 1) c + σ(i) tanh(j);  h ← σ(o) tanh(c).
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)
        nn.init.trunc_normal_(self.gates.weight, std=1e-3, a=-2e-3, b=2e-3)
        nn.init.zeros_(self.gates.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return (c, h), each as x (N, C, H, W), from x and the state of the scale before, of any size."""
        if state is None:
            c = h = torch.zeros_like(x)
        else:
            c, h = (_resized(part, x.shape[-2], x.shape[-1]) for part in state)
        i, j, f, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = c * torch.sigmoid(f + FORGET_BIAS) + torch.sigmoid(i) * torch.tanh(j)
        return c, torch.tanh(c) * torch.sigmoid(o)


class SRN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB, H and W multiples of 16.

    In training mode the outputs of all scales, coarse to fine: (N, 3, H/4, W/4), (N, 3, H/2, W/2) and
    (N, 3, H, W).

    Args:
        width: channels at full size, doubled at each of the two levels below.
        blocks: residual blocks of each level, in the encoder and in the decoder.
        lstm: the convolutional LSTM between them.
        per_colour: restore red, green and blue one by one, with the same weights.
    """

    size_multiple = 16
    minimum_size = 16
    global_context = False
    LOW_RANK_POINT = "middle"

    def __init__(
        self, *, width: int = 32, blocks: int = 3, lstm: bool = False, per_colour: bool = False
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        colours = 1 if per_colour else 3
        self.per_colour = per_colour
        self.low_rank_channels = widths[2]

        def level(into: int, channels: int, stride: int) -> nn.Sequential:
            enter = nn.Conv2d(into, channels, KERNEL, stride=stride, padding=KERNEL // 2)
            residual = (ResidualBlock(channels=channels) for _ in range(blocks))
            return nn.Sequential(enter, nn.ReLU(inplace=True), *residual)

        self.encoder = nn.ModuleList(map(level, [2 * colours, *widths[:2]], widths, (1, 2, 2)))
        self.lstm = ConvLSTM(channels=widths[2]) if lstm else None
        self.middle: nn.Module = nn.Identity()
        self.decoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels=channels) for _ in range(blocks)))
            for channels in reversed(widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1)
            for channels in reversed(widths[:2])
        )
        self.leave = nn.Conv2d(width, colours, KERNEL, padding=KERNEL // 2)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not name.startswith("lstm"):
                nn.init.xavier_uniform_(module.weight, gain=CALM if name.endswith("second") else 1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Restore image (N, 3, H, W)."""
        shape = image.shape
        x = image.reshape(-1, 1, *shape[2:]) if self.per_colour else image  # (3N, 1, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        outputs: list[Tensor] = []
        state = None
        for smaller in SCALES:
            blurred = F.avg_pool2d(x, smaller) if smaller > 1 else x
            before = _resized(outputs[-1], *blurred.shape[-2:]) if outputs else blurred
            output, state = self._restored(torch.cat([blurred, before.detach()], 1), state, smaller == 1)
            outputs.append(output)
        outputs = [output.reshape(len(image), 3, *output.shape[2:]) for output in outputs]
        return tuple(outputs) if self.training else outputs[-1]

    def _restored(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, last: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """One pass: the picture of this scale, and the LSTM's state after it."""
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        skips.pop()
        if self.lstm is not None:
            state = self.lstm(x, state)
            x = state[1]
        if last:
            x = self.middle(x)
        x = self.decoder[0](x)
        for up, blocks in zip(self.up, self.decoder[1:], strict=True):
            x = blocks(F.relu(up(x), inplace=True) + skips.pop())
        return self.leave(x), state


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False)

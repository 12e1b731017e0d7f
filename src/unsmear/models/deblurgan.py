"""DeblurGAN: a residual network that is trained against a critic (Kupyn et al., CVPR 2018).

Paper: https://arxiv.org/abs/1711.07064. Official code: https://github.com/KupynOrest/DeblurGAN (BSD-like),
    not copied; its generator follows https://arxiv.org/abs/1603.08155 as CycleGAN's does.

7×7 convolution, two that halve, nine residual blocks, two that double, 7×7 convolution, tanh; added to the
picture and clamped. Instance norms (mean and variance of each channel over the whole picture, nothing
learned) make every output depend on all of the picture: `global_context`. The critic is models/critic.py, the
training with it training/adversarial.py.

What differs:
- A slip in the public code (`a + b if dropout else c + d` means `(a + b) if dropout else (c + d)`) drops the
  second convolution and norm of each block: 6.07 M parameters instead of the paper's 11.38 M. `deblurgan` is
  the paper's; `deblurgan-public` (`whole_blocks=False`) is the code's, which its released weights need.
- Dropout works in training alone. The official test keeps it on, as the noise of the generator, so that two
  runs give two pictures.
- The norms always use the picture at hand. The code keeps running averages and never uses them.
- The picture comes in [0, 1]; inside it is in [-1, 1], as there.
- The low-rank module stands after the fifth of the nine blocks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INITIAL_STD = 0.02
"""Of the normal distribution of first weights, as the official code; biases 0."""


class ResidualBlock(nn.Module):
    """x + branch(x), branch: conv, norm, ReLU, dropout, conv, norm; without the last two if not `whole`."""

    def __init__(self, *, channels: int, dropout: float, whole: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Conv2d(channels, channels, 3) if whole else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = self.dropout(_norm_relu(self.first(_mirrored(x, 1))))
        return x + (y if self.second is None else F.instance_norm(self.second(_mirrored(y, 1))))


class DeblurGAN(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB: y = clamp(x + tanh(network(x))), H and W multiples of
    4.

    Args:
        width: channels at full size, doubled at each of the two levels below.
        blocks: residual blocks at a quarter of the size.
        dropout: rate within them, in training.
        whole_blocks: two convolutions in each, as the paper; False: one, as the public code.
    """

    size_multiple = 4
    minimum_size = 16
    global_context = True
    LOW_RANK_POINT = "middle"

    def __init__(
        self, *, width: int = 64, blocks: int = 9, dropout: float = 0.5, whole_blocks: bool = True
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 7)
        self.down = nn.ModuleList(
            nn.Conv2d(width << i, width << (i + 1), 3, stride=2, padding=1) for i in range(2)
        )
        self.low_rank_channels = channels = 4 * width

        def chain(length: int) -> nn.Sequential:
            block = {"channels": channels, "dropout": dropout, "whole": whole_blocks}
            return nn.Sequential(*(ResidualBlock(**block) for _ in range(length)))  # type: ignore[arg-type]

        half = (blocks + 1) // 2
        self.before, self.middle, self.after = chain(half), nn.Identity(), chain(blocks - half)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(width << (i + 1), width << i, 3, stride=2, padding=1, output_padding=1)
            for i in (1, 0)
        )
        self.leave = nn.Conv2d(width, 3, 7)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        signed = image.contiguous(memory_format=torch.channels_last) * 2 - 1
        x = _norm_relu(self.enter(_mirrored(signed, 3)))
        for down in self.down:
            x = _norm_relu(down(x))
        x = self.after(self.middle(self.before(x)))
        for up in self.up:
            x = _norm_relu(up(x))
        correction = torch.tanh(self.leave(_mirrored(x, 3)))
        return ((signed + correction).clamp(-1, 1) + 1) / 2


def _mirrored(x: Tensor, pixels: int) -> Tensor:
    """Go on by `pixels` beyond each border, mirrored at the last pixel, which is not doubled."""
    return F.pad(x, (pixels,) * 4, mode="reflect")


def _norm_relu(x: Tensor) -> Tensor:
    return F.relu(F.instance_norm(x), inplace=True)

"""The critic that DeblurGAN is trained against: a PatchGAN with patches of 70×70 pixels (Isola et al., CVPR
2017, https://arxiv.org/abs/1611.07004), as the official code of DeblurGAN has it (models/deblurgan.py).

Not a network of the table: it restores nothing, and a trained network does not need it.
"""

from torch import Tensor, nn

KERNEL = 4
"""Side of the convolutions."""

PADDING = 2
"""Of the official code, ⌈(4 - 1) / 2⌉; pix2pix has 1, which gives fewer patches."""

SLOPE = 0.2
"""Of the leaky ReLUs."""

INITIAL_STD = 0.02
"""Of the normal distribution of first weights; biases 0."""


class Critic(nn.Module):
    """Score (N, 3, H, W) images in [-1, 1]: (N, 1, h, w), one number for each 70×70 patch, any number.

    Three convolutions that halve and two that do not, 64, 128, 256, 512 and 1 channels; instance norms
    without learned parts after the middle three, which WGAN-GP allows (batch norms would tie the images of a
    batch together, and the penalty is on each image's own gradient).

    Args:
        width: channels of the first convolution.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths, strides = (3, width, 2 * width, 4 * width, 8 * width, 1), (2, 2, 2, 1, 1)
        for number, (into, out, stride) in enumerate(zip(widths, widths[1:], strides, strict=False)):
            layers.append(nn.Conv2d(into, out, KERNEL, stride=stride, padding=PADDING))
            if 0 < number < 4:
                layers.append(nn.InstanceNorm2d(out))
            if number < 4:
                layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Score each patch of image (N, 3, H, W)."""
        return self.layers(image)  # type: ignore[no-any-return]

"""The perceptual loss of DeblurGAN: the distance of two pictures as VGG19 sees them.

VGG19's weights are a download of half a gigabyte under terms of their own; unsmear does not fetch them. The
recipe names a file that is there (`vgg`): torchvision's vgg19-dcbb9e9d.pth, or the same names in safetensors.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unsmear.errors import ModelError, RecipeError
from unsmear.models.checkpoints import misfits
from unsmear.models.convert import read_official_weights

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256)
"""Channels of the 3×3 convolutions up to the third of the third level (conv3_3); 0: a maximum over 2×2."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours in [0, 1], by which torchvision's VGG19 was trained on normalised pictures."""


class Vgg19Features(nn.Module):
    """Map images (N, 3, H, W) in [0, 1], H and W ≥ 4, to VGG19's conv3_3 before its ReLU: (N, 256, H/4, W/4).

    DeblurGAN's code feeds pictures in [-1, 1] that are not normalised; ours are, as the weights expect.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            if width:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])  # numbered as torchvision's
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """See image (N, 3, H, W)."""
        return self.features((image - self.mean) / self.std)  # type: ignore[no-any-return]


def perceptual_loss(path: Path, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Return mean((φ(restored) - φ(sharp))²), φ = `Vgg19Features` with the weights in `path`, frozen.

    Raises:
        RecipeError: no such file, one that would run code, or not the weights of a VGG19.
    """
    with torch.device("meta"):
        network = Vgg19Features()
    wanted = network.state_dict()
    try:
        found = read_official_weights(path)
    except ModelError as error:
        raise RecipeError(f"vgg: {error}; expected VGG19's weights as torchvision hands them out") from error
    found = {name if name.startswith("features.") else f"features.{name}": found[name] for name in found}
    if problems := misfits(
        missing=wanted.keys() - found.keys(),
        unexpected=(),
        shapes=[name for name in wanted.keys() & found.keys() if found[name].shape != wanted[name].shape],
    ):
        raise RecipeError(f"vgg: {path} does not hold the weights of a VGG19; {problems}")
    network = Vgg19Features()
    network.load_state_dict({name: found[name] for name in wanted})
    network.to(device).requires_grad_(False)

    def loss(restored: Tensor, sharp: Tensor) -> Tensor:
        return nn.functional.mse_loss(network(restored), network(sharp))

    return loss

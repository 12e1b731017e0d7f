"""What scores look at: pictures checked and in float64, planes of them, decibels."""

from typing import Literal

import torch
from torch import Tensor

from unsmear.blurring import LUMA
from unsmear.errors import EvaluationError

Channels = Literal["luma", "rgb", "ycbcr"]

LUMA_WEIGHTS = LUMA  # full range: the weights of the Köhler 2012 evaluation code, too

# Y of MATLAB's rgb2ycbcr for values in [0, 1]: ITU-R BT.601 in the range [16, 235] / 255.
YCBCR_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
YCBCR_OFFSET = 16 / 255


def planes_of(x: Tensor, channels: Channels) -> Tensor:
    """The planes that a score looks at: of (...,3,H,W) luma, or MATLAB's Y ("ycbcr"), or all colours."""
    if channels == "rgb":
        return x
    if channels not in ("luma", "ycbcr"):
        raise EvaluationError(f"Channels are 'luma', 'ycbcr' or 'rgb', not {channels!r}.")
    red, green, blue = LUMA_WEIGHTS if channels == "luma" else YCBCR_WEIGHTS
    r, g, b = x.unbind(-3)
    # Plane by plane: a matrix product would round by how the picture lies in memory.
    plane = (r * red + g * green) + b * blue
    return (plane if channels == "luma" else plane + YCBCR_OFFSET).unsqueeze(-3)


def decibel(mean_square: Tensor) -> Tensor:
    """10 log10(1 / mean square): PSNR of data range 1."""
    return -10 * torch.log10(mean_square)


def checked(restored: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64, after a look at their shapes."""
    if restored.shape != sharp.shape:
        raise EvaluationError(
            f"The images differ in size: {size_of(restored)} against {size_of(sharp)} "
            f"(shapes {tuple(restored.shape)} and {tuple(sharp.shape)}). They must show the same pixels."
        )
    if sharp.ndim not in (3, 4) or sharp.shape[-3] != 3:
        raise EvaluationError(f"Expected images (3,H,W) or (N,3,H,W), got shape {tuple(sharp.shape)}.")
    if 0 in sharp.shape:
        raise EvaluationError(f"There is nothing to score in images of shape {tuple(sharp.shape)}.")
    return restored.detach().to(torch.float64), sharp.detach().to(torch.float64)


def size_of(x: Tensor) -> str:
    """Width×height for messages."""
    return f"{x.shape[-1]}×{x.shape[-2]}" if x.ndim >= 2 else f"shape {tuple(x.shape)}"

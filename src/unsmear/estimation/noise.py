"""How noisy a photograph is, from the photograph alone."""

import torch
from torch import Tensor

_MEDIAN_OF_NORMAL = 0.67448975  # median of |n|, n standard normal


def noise_level(image: Tensor) -> float:
    """Standard deviation of white Gaussian noise: the median absolute diagonal detail / 0.6745.

    The detail is Haar's, d(i, j) = (x(2i, 2j) − x(2i, 2j+1) − x(2i+1, 2j) + x(2i+1, 2j+1)) / 2, in which
    smooth pictures, and blurred ones above all, are close to zero (Donoho and Johnstone's estimator). Texture
    as fine as the pixels counts as noise; JPEG and rounding to 8 bit hide noise below half a level.

    Args:
        image: (C, H, W), any range; all channels are taken together.

    Returns:
        σ in the image's units; 0 for an image of less than 2×2 pixels.
    """
    height, width = (side // 2 * 2 for side in image.shape[-2:])
    if 0 in (height, width):
        return 0.0
    x = image[..., :height, :width].float()
    top = x[..., 0::2, 0::2] - x[..., 0::2, 1::2]
    bottom = x[..., 1::2, 0::2] - x[..., 1::2, 1::2]
    detail = ((top - bottom) / 2).abs()
    return float(torch.median(detail)) / _MEDIAN_OF_NORMAL

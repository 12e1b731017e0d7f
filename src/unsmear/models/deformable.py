"""Modulated deformable convolution (Zhu et al., CVPR 2019, https://arxiv.org/abs/1811.11168), in plain torch.

    y(p) = Σ_t w_t · m_t(p) · x(p + t + Δ_t(p)),   t over the k×k taps,

x between pixels by bilinear interpolation, zero outside of the picture. A sample is a sum of four pixels with
weights, which is what `embedding_bag` computes: with the features channels last a pixel is one row of a
table, four rows are weighted and summed, and the modulation is a factor of the weights. All samples of a
pixel side by side then meet the kernel in one matrix product. Without gradients it goes through the picture
in bands of rows, because the samples are k² times as large as the features.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

BAND_ELEMENTS = 2**22
"""Sampled numbers (k²·C for every pixel) of a band in inference: 16 MiB in float32."""


def deformable_conv2d(
    features: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolve with taps that every pixel moves and weighs for itself; stride 1, zeros around.

    Args:
        features: x (N, C, H, W).
        offsets: Δ (N, 2k², H, W), pixels: dy, dx of the first tap, of the second, …, taps row by row.
        modulation: m (N, k², H, W).
        weight: w (O, C, k, k), k odd.
        bias: (O,).

    Returns:
        (N, O, H, W), channels last in memory. Under autocast positions and samples are computed in float32
        and the product with the kernel as autocast says.

    Raises:
        ValueError: the shapes do not fit.
    """
    n, channels, height, width = features.shape
    taps = weight.shape[2] * weight.shape[3]
    expected = (n, 2 * taps, height, width), (n, taps, height, width)
    if (offsets.shape, modulation.shape) != expected or weight.shape[2] % 2 == 0 or weight.shape[3] % 2 == 0:
        raise ValueError(
            f"offsets {tuple(offsets.shape)}, modulation {tuple(modulation.shape)}, kernel {tuple(weight.shape)}:"
            f" expected {expected[0]}, {expected[1]} and odd sides for features {tuple(features.shape)}"
        )
    wide = torch.promote_types(features.dtype, torch.float32)
    table = rearrange(features.to(wide), "n c h w -> (n h w) c").contiguous()
    kernel = rearrange(weight, "o c i j -> o (i j c)")
    rows = max(1, BAND_ELEMENTS // (n * width * taps * channels))
    bands = []
    for top in range(0, height, height if torch.is_grad_enabled() else rows):
        band = slice(top, min(top + (height if torch.is_grad_enabled() else rows), height))
        moved, factor = (t[:, :, band].to(wide) for t in (offsets, modulation))
        pixels, shares = _samples(moved, factor, weight.shape[2:], top, height)
        sampled = F.embedding_bag(pixels.flatten(0, -2), table, per_sample_weights=shares, mode="sum")
        bands.append(F.linear(sampled.view(n, -1, width, taps * channels), kernel, bias))
    return torch.cat(bands, 1).permute(0, 3, 1, 2)

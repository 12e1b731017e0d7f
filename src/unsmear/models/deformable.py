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
    sides = weight.shape[2], weight.shape[3]
    taps = sides[0] * sides[1]
    expected = (n, 2 * taps, height, width), (n, taps, height, width)
    if (offsets.shape, modulation.shape) != expected or taps % 2 == 0:
        raise ValueError(
            f"offsets {tuple(offsets.shape)}, modulation {tuple(modulation.shape)}, kernel {sides}: expected "
            f"{expected[0]}, {expected[1]} and odd sides for features {tuple(features.shape)}"
        )
    wide = torch.promote_types(features.dtype, torch.float32)
    table = rearrange(features.to(wide), "n c h w -> (n h w) c").contiguous()
    kernel = rearrange(weight, "o c i j -> o (i j c)")
    step, tops = height, [0]  # one band, without a range over rows: that would fix their number in an export
    if not torch.is_grad_enabled():
        step = max(1, BAND_ELEMENTS // (n * width * taps * channels))
        tops = list(range(0, height, step))
    bands = []
    for top in tops:
        moved, factors = (t[:, :, top : top + step].to(wide) for t in (offsets, modulation))
        pixels, shares = _samples(moved, factors, sides=sides, top=top, height=height)
        sampled = F.embedding_bag(pixels, table, per_sample_weights=shares, mode="sum")  # (pixels·k², C)
        bands.append(F.linear(sampled.view(n, -1, width, taps * channels), kernel, bias))
    return torch.cat(bands, 1).permute(0, 3, 1, 2)


def _samples(
    offsets: Tensor, modulation: Tensor, *, sides: tuple[int, int], top: int, height: int
) -> tuple[Tensor, Tensor]:
    """Rows of the table (n·h·w·k², 4) and their weights for a band that begins at row `top`."""
    n, _, rows, width = modulation.shape
    dy, dx = rearrange(offsets, "n (t two) h w -> two n h w t", two=2)
    i, j = (torch.arange(side, device=offsets.device) - side // 2 for side in sides)
    y = torch.arange(top, top + rows, device=offsets.device)[:, None, None] + i.repeat_interleave(sides[1])
    x = torch.arange(width, device=offsets.device)[:, None] + j.repeat(sides[0])
    (row, row_share), (column, column_share) = _corners(y + dy, height), _corners(x + dx, width)
    image = torch.arange(n, device=offsets.device).view(n, 1, 1, 1, 1, 1)
    pixels = (image * height + row[..., :, None]) * width + column[..., None, :]  # (n, h, w, t, 2, 2)
    shares = row_share[..., :, None] * column_share[..., None, :]
    shares = shares * rearrange(modulation, "n t h w -> n h w t 1 1")
    return pixels.reshape(-1, 4), shares.reshape(-1, 4)


def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two whole numbers around a position and their shares; a share is zero outside of 0 … size − 1."""
    position = position.clamp(-1, size)
    below = position.detach().floor()
    fraction = position - below
    whole = below.long()[..., None] + torch.tensor([0, 1], device=position.device)
    inside = (whole >= 0) & (whole < size)
    return whole.clamp(0, size - 1), torch.stack([1 - fraction, fraction], -1) * inside


class DeformableConv2d(nn.Module):
    """A k×k convolution whose taps are moved and weighed by what another k×k convolution sees.

    That one starts at zero: no offsets, every modulation sigmoid(0) = 1/2, as published.
    """

    def __init__(self, *, channels: int, out_channels: int, side: int = 3) -> None:
        super().__init__()
        self.taps = side * side
        self.placing = nn.Conv2d(channels, 3 * self.taps, side, padding=side // 2)
        nn.init.zeros_(self.placing.weight)
        nn.init.zeros_(self.placing.bias)  # type: ignore[arg-type]
        self.kernel = nn.Conv2d(channels, out_channels, side)  # holds weight and bias, is never called

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, O, H, W)."""
        placing = self.placing(features)
        offsets, modulation = placing.split([2 * self.taps, self.taps], 1)
        return deformable_conv2d(
            features, offsets, modulation.sigmoid(), self.kernel.weight, self.kernel.bias
        )

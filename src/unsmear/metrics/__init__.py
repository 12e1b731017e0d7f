"""Scores of a restored picture against the true one: pure functions, named exactly, one value per image.

Every function takes tensors (3,H,W) or (N,3,H,W) of any floating dtype, sRGB-encoded in [0,1] (values outside
are scored as they are); sums run in float64. It gives a float64 tensor without axes for (3,H,W) and of shape
(N,) for (N,3,H,W): a mean over images is the caller's, never a mean over pooled pixels.

All raise EvaluationError for shapes that do not match, and for images too small to be scored.
"""

from unsmear.metrics.alignment import MAX_SHIFT, Aligned, align, psnr_aligned, psnr_shift, psnr_shift_gain
from unsmear.metrics.koehler import BestFrame, best_frame, mssim
from unsmear.metrics.planes import LUMA_WEIGHTS, YCBCR_OFFSET, YCBCR_WEIGHTS, Channels
from unsmear.metrics.similarity import (
    psnr_rgb,
    ssim_gauss,
    ssim_gauss_rgb,
    ssim_uniform_rgb,
    ssim_volume_rgb,
)

__all__ = [
    "LUMA_WEIGHTS",
    "MAX_SHIFT",
    "YCBCR_OFFSET",
    "YCBCR_WEIGHTS",
    "Aligned",
    "BestFrame",
    "Channels",
    "align",
    "best_frame",
    "mssim",
    "psnr_aligned",
    "psnr_rgb",
    "psnr_shift",
    "psnr_shift_gain",
    "ssim_gauss",
    "ssim_gauss_rgb",
    "ssim_uniform_rgb",
    "ssim_volume_rgb",
]

"""Every figure of one real pair beside the library, or the plain code, that it must equal: a Markdown table.

    python benchmarks/metric_oracles.py blur/000047.png sharp/000047.png --crop 400

The tests compare the same on small and on random pictures; this is for pictures of full size, which no test
can carry. With --crop only the middle is compared, and the shifts in steps of a quarter pixel too, whose
plain loop would take an hour on a whole frame.
"""

import argparse
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.measure import blur_effect as skimage_blur_effect
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/evaluation"))
import koehler_plainly as plainly

from unsmear.evaluation.protocols.published import Shifted
from unsmear.evaluation.restorers import centre
from unsmear.metrics import (
    best_frame,
    psnr_rgb,
    ssim_gauss,
    ssim_gauss_rgb,
    ssim_uniform_rgb,
    ssim_volume_rgb,
)
from unsmear.metrics.homography import psnr_registered, register, ssim_registered
from unsmear.metrics.no_reference import blur_effect
from unsmear.metrics.planes import planes_of
from unsmear.photo import read_photo

Rows = NDArray[np.float64]
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
LUMA = np.array([0.299, 0.587, 0.114])


def volume(x: Rows, y: Rows) -> float:
    """MATLAB's ssim of height × width × 3, by SciPy."""

    def mean(values: Rows) -> Rows:
        return gaussian_filter(values, 1.5, mode="nearest", truncate=3.5)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return float(
        ((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))).mean()
    )


def registered(x: Rows, z: Rows, homography: NDArray[np.float32]) -> tuple[float, float]:
    """PSNR and SSIM of RealBlur's script by OpenCV, NumPy and scikit-image, given the homography."""
    sharp, moved = x.astype(np.float32), z.astype(np.float32)
    moved = np.sum(sharp * moved) / np.sum(moved * moved) * moved
    size = (x.shape[1], x.shape[0])
    mask = cv2.warpPerspective(np.ones_like(moved), homography, size,
                               flags=cv2.INTER_NEAREST + cv2.WARP_INVERSE_MAP)  # fmt: skip
    moved = mask * cv2.warpPerspective(moved, homography, size, flags=cv2.INTER_CUBIC + cv2.WARP_INVERSE_MAP,
                                       borderMode=cv2.BORDER_REFLECT)  # fmt: skip
    sharp = sharp * mask
    error = np.sum((sharp - moved).astype(float) ** 2) / np.sum(mask, dtype=float)
    full = structural_similarity(
        sharp.astype(float), moved.astype(float), channel_axis=-1, full=True, **WANG
    )[1]
    inner = (slice(5, -5), slice(5, -5))
    means = (full * mask)[inner].sum((0, 1)) / mask[inner].sum((0, 1), dtype=float)
    return 10 * math.log10(1 / error), float(means.mean())


def shifted(x: Rows, z: Rows, reach: int) -> tuple[float, float]:
    """Best PSNR over every quarter pixel, and the SSIM there: planes, 15 pixels cut off."""
    core = x[15:-15, 15:-15]
    height, width = core.shape

    def moved(down: float, right: float) -> Rows:
        top, left = math.floor(down), math.floor(right)
        part = z[15 + top : 16 + top + height, 15 + left : 16 + left + width]
        part = part[:-1] * (1 - down + top) + part[1:] * (down - top)
        return part[:, :-1] * (1 - right + left) + part[:, 1:] * (right - left)

    steps = np.arange(-reach, reach + 0.25, 0.25)
    error, down, right = min((float(np.mean((moved(d, r) - core) ** 2)), d, r) for d in steps for r in steps)
    return 10 * math.log10(1 / error), float(structural_similarity(core, moved(down, right), **WANG))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("restored", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--crop", type=int, default=None)
    chosen = parser.parse_args()
    z, x = (read_photo(path).tensor() for path in (chosen.restored, chosen.truth))
    if chosen.crop:
        z, x = (centre(picture, chosen.crop) for picture in (z, x))
    rows = [picture.double().permute(1, 2, 0).numpy() for picture in (x, z)]
    luminance = [(16 + picture @ np.array([65.481, 128.553, 24.966])) / 255 for picture in rows]
    both = structural_similarity_index_measure(
        z.double()[None], x.double()[None], data_range=1.0, sigma=1.5, return_full_image=True
    )
    found: list[tuple[str, float, str, float]] = [
        ("psnr_rgb", psnr_rgb(z, x).item(), "scikit-image", peak_signal_noise_ratio(*rows, data_range=1)),
        ("ssim_gauss_rgb", ssim_gauss_rgb(z, x).item(), "scikit-image",
         structural_similarity(*rows, channel_axis=-1, **WANG)),
        ("ssim_gauss_rgb", ssim_gauss_rgb(z, x).item(), "torchmetrics, without its border",
         both[1][..., 5:-5, 5:-5].mean().item()),
        ("ssim_uniform_rgb_range2", ssim_uniform_rgb(z, x, data_range=2).item(), "scikit-image",
         structural_similarity(*rows, win_size=7, data_range=2, channel_axis=-1)),
        ("ssim_volume_rgb", ssim_volume_rgb(z, x).item(), "SciPy", volume(*rows)),
        ("ssim_gauss_y", ssim_gauss(*(planes_of(p.double(), "ycbcr") for p in (z, x))).item(), "scikit-image",
         structural_similarity(*luminance, **WANG)),
        ("blur_effect", blur_effect(z), "scikit-image", skimage_blur_effect(rows[1] @ LUMA)),
    ]  # fmt: skip
    pair = register(z, x)
    for name, value, oracle in zip(
        ("psnr_ecc_rgb", "ssim_ecc_gauss_rgb"),
        (psnr_registered(pair).item(), ssim_registered(pair).item()),
        registered(*rows, pair.homography),
        strict=True,
    ):
        found.append((name, value, "OpenCV and scikit-image, given the homography", oracle))
    levels = [(picture * 255).round().to(torch.uint8) for picture in (z, x)]
    best = best_frame(levels[0], levels[1:])
    plain = [picture.permute(1, 2, 0).numpy() for picture in levels[::-1]]
    found.append(("psnr_koehler", best.psnr, "plain loop, NumPy", plainly.psnr(*plain)))
    found.append(("mssim_koehler", best.mssim, "plain loop, SciPy", plainly.multi_scale(*plain)))
    if chosen.crop:
        for name, reach, oracle in (
            ("lai_shift", 10, shifted(*luminance, 10)),
            ("levin_shift", 5, shifted(*(picture @ LUMA for picture in rows), 5)),
        ):
            channels = "luma" if name == "levin_shift" else "ycbcr"
            scores = Shifted(name, max_shift=reach, channels=channels).compare(z, x)
            found += [
                (key, value, "plain loop over quarter pixels, scikit-image", other)
                for (key, value), other in zip(scores.items(), oracle, strict=True)
            ]
    print("| figure | here | oracle | its figure | difference |\n|---|---|---|---|---|")
    for name, value, by, oracle in found:
        print(f"| `{name}` | {value:.8f} | {by} | {oracle:.8f} | {abs(value - oracle):.0e} |")


if __name__ == "__main__":
    main()

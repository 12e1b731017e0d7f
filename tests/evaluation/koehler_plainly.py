"""The Köhler 2012 score as its evaluation code says it: frame after frame, in NumPy, in float64."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate, correlate1d

LUMA = np.array([0.299, 0.587, 0.114])
LOW_PASS = np.array(
    [0.037828455507260, -0.023849465019560, -0.110624404418440, 0.377402855612830, 0.852698679008890,
     0.377402855612830, -0.110624404418440, -0.023849465019560, 0.037828455507260]
)  # fmt: skip
POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def registered(x: NDArray[np.uint8], z: NDArray[np.uint8]) -> tuple[NDArray, NDArray]:
    """True frame and restored picture (H,W,3), after gain, shift and mask."""
    x, z = x.astype(float), z.astype(float)
    z = z * ((x * z).sum() / (z * z).sum())
    spectrum = np.fft.fft2(x.mean(2)) * np.fft.fft2(z.mean(2)).conj()
    place = np.unravel_index(np.abs(np.fft.ifft2(spectrum)).argmax(), x.shape[:2])
    shift = [p - n if p >= n // 2 else p for p, n in zip(place, x.shape[:2], strict=True)]
    moved, mask = shifted(z, shift), shifted(np.ones_like(z), shift)
    return x * mask, moved


def shifted(picture: NDArray, shift: list[int]) -> NDArray:
    moved = np.zeros_like(picture)
    (down, right), (height, width) = shift, picture.shape[:2]
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = picture[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def psnr(x: NDArray[np.uint8], z: NDArray[np.uint8]) -> float:
    truth, moved = registered(x, z)
    return float(10 * np.log10(255**2 / np.mean((truth @ LUMA - moved @ LUMA) ** 2)))


def multi_scale(x: NDArray[np.uint8], z: NDArray[np.uint8]) -> float:
    truth, moved = registered(x, z)
    return mssim(truth @ LUMA, moved @ LUMA)


def mssim(a: NDArray, b: NDArray) -> float:
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(x: NDArray) -> NDArray:
        return correlate(x, window)[5:-5, 5:-5]

    c1, c2, score = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 1.0
    for scale, power in enumerate(POWERS):
        if scale:
            for axis in (0, 1):
                a, b = (correlate1d(x, LOW_PASS / LOW_PASS.sum(), axis, mode="reflect") for x in (a, b))
            a, b = a[::2, ::2], b[::2, ::2]
        ma, mb = mean(a), mean(b)
        sa, sb = (np.sqrt(np.maximum(mean(x * x) - m * m, 0)) for x, m in ((a, ma), (b, mb)))
        contrast = np.mean((2 * sa * sb + c2) / (sa**2 + sb**2 + c2))
        structure = np.mean((mean(a * b) - ma * mb + c2 / 2) / (sa * sb + c2 / 2))
        score *= contrast**power * structure**power
    return float(score * np.mean((2 * ma * mb + c1) / (ma**2 + mb**2 + c1)) ** POWERS[-1])

"""RealBlur's alignment: gain, then the homography that OpenCV's ECC finds, and a mask of what is known.

Parameters of the benchmark's evaluation script: 100 iterations, threshold 0, Gaussian filter of 5 pixels, on
grey pictures (OpenCV's .299 .587 .114); cubic interpolation with mirrored border for the picture, nearest
neighbour with zeros for the mask. The script names OpenCV 4.2 and scikit-image 0.17.2; other releases of
OpenCV may differ in the last digits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.metrics.planes import checked, decibel
from unsmear.metrics.similarity import SSIM_WINDOW, gauss, similarity

ITERATIONS = 100
THRESHOLD = 0.0
FILTER = 5


@dataclass(frozen=True)
class Registered:
    """A restored picture warped onto the truth, and the truth, both 0 outside of the mask.

    restored, sharp: (3,H,W) float64. mask: (H,W) float64 of 0 and 1. homography: (3,3), true to restored.
    """

    restored: Tensor
    sharp: Tensor
    mask: Tensor
    homography: NDArray[np.float32]
    gain: float


def register(restored: Tensor, sharp: Tensor) -> Registered:
    """Bring a restored picture (3,H,W) in [0,1] onto the true one by gain <x,z>/<z,z> and ECC homography.

    Raises EvaluationError where ECC does not converge (pictures without texture, or that have nothing in
    common), and without the extra `evaluation`, which has OpenCV.
    """
    cv2 = _opencv()
    checked(restored, sharp)
    z, x = (_rows(picture) for picture in (restored, sharp))
    energy = np.sum(z * z)
    gain = np.sum(x * z) / energy if energy > 0 else np.float32(1)
    z = gain * z
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (x, z)]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ITERATIONS, THRESHOLD)
    start = np.eye(3, dtype=np.float32)
    try:
        _, matrix = cv2.findTransformECC(*grey, start, cv2.MOTION_HOMOGRAPHY, criteria, None, FILTER)
    except cv2.error as error:
        raise EvaluationError(
            "ECC finds no homography between the restored and the true picture: too little in common."
        ) from error
    size = (x.shape[1], x.shape[0])
    warped = cv2.warpPerspective(
        z, matrix, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    mask = cv2.warpPerspective(
        np.ones(x.shape[:2], np.float32), matrix, size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=0,
    )  # fmt: skip
    if not mask.any():
        raise EvaluationError("ECC moves the restored picture off the true one: nothing is left to score.")
    moved, truth = (_planes(picture * mask[..., None]) for picture in (warped, x))
    return Registered(moved, truth, torch.from_numpy(mask).double(), matrix, float(gain))


def psnr_registered(pair: Registered) -> Tensor:
    """PSNR in dB over the pixels of the mask and three colours: float64 without axes."""
    error = (pair.restored - pair.sharp).square_().sum()
    return decibel(error / (3 * pair.mask.sum()))


def ssim_registered(pair: Registered) -> Tensor:
    """`ssim_gauss_rgb` of the masked pictures, its map averaged over the mask."""
    radius = SSIM_WINDOW // 2
    inner = pair.mask[radius:-radius, radius:-radius]
    score = similarity(pair.restored, pair.sharp, gauss)
    return ((score * inner).sum((-2, -1)) / inner.sum()).mean()


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise EvaluationError(
            "RealBlur's protocol needs OpenCV: pip install 'unsmear[evaluation]'."
        ) from error
    return cv2


def _rows(picture: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.detach().to("cpu", torch.float32).permute(1, 2, 0).numpy())


def _planes(rows: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(rows).permute(2, 0, 1).double()

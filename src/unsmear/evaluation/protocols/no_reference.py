"""Photographs without a truth."""

from functools import lru_cache
from pathlib import Path

from torch import Tensor

from unsmear.evaluation.benchmarks.base import Case, read_picture, same_size
from unsmear.evaluation.protocols.base import Metric, Protocol, round_to_8_bit
from unsmear.metrics.no_reference import blur_effect, psnr_reblur

KERNEL_CROP = 512  # the middle of the photograph that its kernel is looked for in
KERNEL_SIZE = 63


class NoReference(Protocol):
    """How blurred the restored picture looks."""

    name = "no_reference"
    title = "how blurred it looks (Crété-Roffet et al. 2007), 8 bit"
    metrics = (Metric("blur_effect", "", higher_is_better=False),)

    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """`blur_effect`; the truth, if there is one, is not looked at."""
        return {"blur_effect": blur_effect(round_to_8_bit(restored))}


class Reblur(Protocol):
    """How blurred it looks, and whether it explains the photograph by one kernel, found in that alone."""

    name = "reblur"
    title = "how blurred it looks, and PSNR of the restored picture blurred again to the photograph"
    metrics = (Metric("blur_effect", "", higher_is_better=False), Metric("psnr_reblur_rgb", "dB"))

    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """`blur_effect` and `psnr_reblur` with the kernel of the photograph's middle (`estimate_uniform`)."""
        photograph = read_picture(case.blurred)
        same_size(case, restored, photograph, case.blurred)
        restored = round_to_8_bit(restored)
        kernel = kernel_of(case.blurred)
        return {
            "blur_effect": blur_effect(restored),
            "psnr_reblur_rgb": psnr_reblur(restored, photograph, kernel),
        }


@lru_cache(maxsize=256)
def kernel_of(path: Path) -> Tensor:
    """(K,K): the one kernel of the middle of a photograph; found once."""
    from unsmear.estimation.uniform import estimate_uniform
    from unsmear.evaluation.restorers import centre

    grey = centre(read_picture(path), KERNEL_CROP).mean(0)
    return estimate_uniform(grey, largest=min(KERNEL_SIZE, min(grey.shape) // 5)).kernel

"""Figures of a restored photograph whose truth nobody knows. None is a judgement: look at pictures too."""

import torch
from torch import Tensor

from unsmear.blurring import blur
from unsmear.errors import EvaluationError
from unsmear.metrics.planes import planes_of, size_of
from unsmear.metrics.similarity import psnr_rgb


def blur_effect(picture: Tensor) -> float:
    """How blurred a picture (3,H,W) in [0,1] looks, from 0 (sharp) to 1: Crété-Roffet et al. 2007.

    How much of the variation between neighbours a further blur of 11 pixels takes away; scikit-image's
    blur_effect on luma. Ringing and noise count as sharpness. Raises EvaluationError without the extra
    `evaluation`.
    """
    try:
        from skimage import measure
    except ModuleNotFoundError as error:
        raise EvaluationError("blur_effect needs scikit-image: pip install 'unsmear[evaluation]'.") from error
    luma = planes_of(picture.detach().to("cpu", torch.float64), "luma")[0].numpy()
    return float(measure.blur_effect(luma))


def psnr_reblur(restored: Tensor, photograph: Tensor, kernel: Tensor) -> float:
    """PSNR in dB between a photograph and the restored picture blurred again by the photograph's kernel.

    kernel: (K,K) on the simplex, found in the photograph alone (`estimate_uniform`, Eq. 3's kernel without
    its sharp picture). High where the restored picture explains the photograph. A picture that was not
    restored scores low, for it is blurred twice; so does one of a photograph whose blur is not one kernel.
    The border of half a kernel, where blur needs pixels from outside, is left out. Pictures (3,H,W) in [0,1].
    """
    if restored.shape != photograph.shape:
        raise EvaluationError(
            f"The pictures differ in size: {tuple(restored.shape)} and {tuple(photograph.shape)}."
        )
    radius = kernel.shape[-1] // 2
    height, width = photograph.shape[-2] - 2 * radius, photograph.shape[-1] - 2 * radius
    if min(height, width) < 1:
        raise EvaluationError(f"A kernel of {2 * radius + 1} pixels leaves nothing of {size_of(photograph)}.")
    ones = torch.ones(1, height, width)
    again = blur(restored.float(), kernel[None].float(), ones, border="valid")
    return psnr_rgb(again, photograph[:, radius : radius + height, radius : radius + width]).item()

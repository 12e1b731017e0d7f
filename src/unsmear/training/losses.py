"""What a training makes small: functions of two batches (N, C, H, W) in [0, 1], the result a scalar."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unsmear.training.recipe import Recipe


def mse(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of d² with d = restored - sharp over all pixels: the paper's loss."""
    return torch.nn.functional.mse_loss(restored, sharp)


def l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of |d| (as MSCNN's PyTorch code)."""
    return torch.nn.functional.l1_loss(restored, sharp)


def charbonnier(restored: Tensor, sharp: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(d² + epsilon²): the absolute difference, rounded off at 0 (epsilon 1e-3 as Uformer)."""
    return ((restored - sharp).square() + epsilon * epsilon).sqrt().mean()


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean over the images of (10 / ln 10) ln(MSE + 1e-8): -PSNR in dB but for the 1e-8 (as NAFNet)."""
    errors = (restored - sharp).square().mean(dim=(1, 2, 3))
    return (10 / math.log(10)) * (errors + 1e-8).log().mean()


def psnr_soft(restored: Tensor, sharp: Tensor) -> Tensor:
    """The same with 1e-5 in place of 1e-8: an image counts no more once it is better than 50 dB.

    An image's gradient has the weight 1 / (MSE + floor). A network that starts as the identity has an MSE
    near 0 on pairs without blur; with 1e-8 each of them weighs thousands of times more than a blurred one.
    """
    errors = (restored - sharp).square().mean(dim=(1, 2, 3))
    return (10 / math.log(10)) * (errors + 1e-5).log().mean()


Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "mse": mse,
    "l1": l1,
    "charbonnier": charbonnier,
    "psnr": psnr,
    "psnr-soft": psnr_soft,
}


def find_loss(recipe: Recipe, device: torch.device) -> Loss:
    """The recipe's loss: of `LOSSES`, or the perceptual one (`training/perceptual.py`), which reads a file.

    Raises:
        RecipeError: the file is not there or holds no VGG19.
    """
    if recipe.vgg is None:
        return LOSSES[recipe.loss]
    from unsmear.training.perceptual import perceptual_loss

    return perceptual_loss(recipe.vgg, device)


def over_scales(
    loss_of: Loss,
    outputs: Tensor | Sequence[Tensor],
    sharp: Tensor,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Σ_s w_s loss(f_s(v), u_s), u_s the sharp image at the size of output s, by means over areas.

    Args:
        loss_of: one of `LOSSES`.
        outputs: (N, 3, H_s, W_s) of a network in training mode, coarse to fine; a single tensor is one scale.
        sharp: u (N, 3, H, W).
        weights: w_s; None: 1 for every scale. A network that wants others declares them as `scale_weights`.

    Raises:
        ValueError: as many weights as outputs were expected.
    """
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    total = sharp.new_zeros(())
    for output, weight in zip(outputs, weights or (1.0,) * len(outputs), strict=True):
        target = sharp
        if output.shape[-2:] != sharp.shape[-2:]:
            target = torch.nn.functional.interpolate(sharp, output.shape[-2:], mode="area")
        total = total + weight * loss_of(output.float(), target)
    return total

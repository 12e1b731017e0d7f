import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from unsmear.training.losses import LOSSES, charbonnier, psnr


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 9, 7, 2, dtype=torch.float64, generator=generator).unbind(-1)


@pytest.mark.parametrize("name", LOSSES)
def test_smallest_where_equal_and_differentiable_there(name, images):
    restored, sharp = images
    restored.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, sharp), restored)
    assert LOSSES[name](sharp, sharp) < LOSSES[name](restored, sharp)
    same = sharp.clone().requires_grad_()
    LOSSES[name](same, sharp).backward()
    assert same.grad.isfinite().all()


def test_charbonnier_is_absolute_far_from_zero(images):
    restored, sharp = images
    assert math.isclose(charbonnier(restored, sharp), (restored - sharp).abs().mean(), rel_tol=1e-4)
    assert math.isclose(charbonnier(sharp, sharp), 1e-3)


def test_psnr_is_the_mean_over_images_not_pixels(images):
    restored, sharp = images
    restored = torch.cat([restored[:1], sharp[1:] * 0.99])
    each = [peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(restored, sharp, strict=True)]
    assert math.isclose(psnr(restored, sharp), -sum(each) / 2, rel_tol=1e-3)

import pytest
import torch

from unsmear.basis.kernels import linear_motion
from unsmear.blurring import blur
from unsmear.estimation.noise import noise_level


def noisy(picture: torch.Tensor, sigma: float) -> torch.Tensor:
    return picture + sigma * torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sigma", [0.003, 0.01, 0.05])
def test_white_noise_on_a_slope_is_measured_to_three_percent(sigma: float) -> None:
    slope = torch.linspace(0, 1, 200).expand(3, 160, 200)
    assert noise_level(noisy(slope, sigma)) == pytest.approx(sigma, rel=0.03)


def test_texture_that_was_blurred_hardly_counts(photograph: torch.Tensor) -> None:
    kernel = torch.from_numpy(linear_motion(15, 40))
    blurred = blur(photograph, kernel[None], torch.ones(1, *photograph.shape[-2:]))
    assert noise_level(noisy(blurred, 0.01)) == pytest.approx(0.01, rel=0.1)
    assert noise_level(blurred) < 0.3 * noise_level(photograph)


def test_scales_with_the_picture_and_ignores_its_mean(photograph: torch.Tensor) -> None:
    assert noise_level(0.5 * photograph + 0.2) == pytest.approx(0.5 * noise_level(photograph), rel=1e-4)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 1, 9), (3, 64, 65)])
def test_constant_pictures_of_any_size_have_none(shape: tuple[int, ...]) -> None:
    assert noise_level(torch.full(shape, 0.4)) == 0

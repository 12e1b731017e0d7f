import numpy as np
import pytest
import torch

from unsmear.basis.kernels import camera_shake
from unsmear.blurring import blur
from unsmear.estimation.spectra import difference_power, fast_size, inverse, kernel_spectrum, periodic


def test_kernel_spectrum_is_the_correlation_of_eq_2(photograph: torch.Tensor) -> None:
    kernel = torch.from_numpy(camera_shake(np.random.default_rng(3), 15, length=9.0))
    size = (photograph.shape[1], photograph.shape[2])
    through = torch.fft.irfft2(kernel_spectrum(kernel, size) * torch.fft.rfft2(photograph), s=size)
    direct = blur(photograph, kernel[None], torch.ones(1, *size), method="direct")
    assert torch.allclose(through[:, 7:-7, 7:-7], direct[:, 7:-7, 7:-7], atol=2e-6)


@pytest.mark.parametrize("shape", [(9, 8), (3, 8, 9), (2, 3, 5, 6)])
def test_inverse_gives_back_what_was_transformed(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(inverse(torch.fft.rfft2(x), shape[-2:]), x, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 15), (9, 8)])
def test_difference_power_is_that_of_the_forward_differences(size: tuple[int, int]) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0))
    right, down = x.roll(-1, 1) - x, x.roll(-1, 0) - x
    energy = torch.fft.rfft2(right).abs().square() + torch.fft.rfft2(down).abs().square()
    assert torch.allclose(difference_power(size) * torch.fft.rfft2(x).abs().square(), energy, atol=1e-3)


@pytest.mark.parametrize("shape", [(40, 61), (5, 3)])
def test_periodic_keeps_the_picture_and_has_no_jump(shape: tuple[int, int]) -> None:
    ramp = torch.linspace(0, 1, shape[0])[:, None] + torch.linspace(0, 1, shape[1])
    size = fast_size(shape[0] + 31, shape[1] + 31)
    wide = periodic(ramp, size)
    assert wide.shape == size
    assert torch.equal(wide[: shape[0], : shape[1]], ramp)
    around = torch.cat([wide, wide[:1]])
    assert around.diff(dim=0).abs().max() <= max(0.15, 1.5 / (shape[0] - 1))
    assert wide.min() >= ramp.min() and wide.max() <= ramp.max()

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from unsmear.basis.kernels import camera_shake, defocus, linear_motion
from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.uniform import centred, estimate_uniform, extent, pruned, scattered


@pytest.fixture(scope="module")
def shaken() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-image's coffee, half size, grey, shaken by 14 px, with noise of 0.5 %; and the kernel."""
    grey = torch.from_numpy(skimage.data.coffee()[:, :400].mean(2) / 255).float()
    sharp = F.interpolate(grey[None, None], scale_factor=0.5, mode="area")[0]
    kernel = torch.from_numpy(camera_shake(np.random.default_rng(11), 21, length=14.0))
    blurred = blur(sharp, kernel[None], torch.ones(1, *sharp.shape[-2:]))[0]
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(4))
    return (blurred + 0.005 * noise).clamp(0, 1), kernel


def similarity(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest normalised correlation over whole-pixel shifts."""
    reach = other.shape[-1] // 2
    wide = F.pad(one, (other.shape[-1],) * 4)
    return (
        float(F.conv2d(wide[None, None], other[None, None]).max() / (one.norm() * other.norm()))
        if reach
        else 0.0
    )


def test_finds_the_kernel_of_a_shaken_photograph(shaken) -> None:
    blurred, truth = shaken
    fit = estimate_uniform(blurred, largest=31)
    kernel = fit.kernel
    assert kernel.min() >= 0 and float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert fit.latent.shape == blurred.shape
    assert similarity(kernel, truth) > 0.75
    flat = torch.full((21, 21), 1 / 441)
    assert similarity(flat, truth) < 0.6  # the bar is none that any kernel takes


def test_parts_with_little_mass_and_small_taps_are_dropped() -> None:
    kernel = torch.zeros(9, 9)
    kernel[2, 2:6] = 0.2
    kernel[3, 6] = 0.1  # touches the line at a corner
    kernel[7, 1] = 0.05
    kernel[2, 8] = 0.005
    kept = pruned(kernel, 0.05)
    assert kept[7, 1] == 0 and kept[2, 8] == 0
    assert torch.allclose(kept[2, 2:6], torch.full((4,), 0.2 / 0.9)) and kept[3, 6] > 0
    assert extent(kept, 0.05) == 2


def test_of_many_small_parts_the_heaviest_stays() -> None:
    kernel = torch.zeros(31, 31)
    kernel[::2, ::2] = 1 / 257  # 256 single taps, none with a tenth of the mass
    kernel[15, 15] = 1 / 257
    kernel[15, 16] = 1 / 257
    kept = pruned(kernel / kernel.sum(), 0.05)
    assert kept.isfinite().all() and torch.isclose(kept.sum(), torch.tensor(1.0))
    assert kept[15, 15] > 0 and kept[0, 0] == 0


def test_a_path_is_not_scattered_and_a_striped_square_is() -> None:
    shakes = [camera_shake(np.random.default_rng(seed), 45, length=30.0) for seed in range(20)]
    paths = [*shakes, linear_motion(25.0, 30.0), defocus(3.0), linear_motion(0.0, 0.0)]
    assert not any(scattered(torch.from_numpy(kernel)) for kernel in paths)
    stripes = torch.zeros(59, 59)
    stripes[::2] = torch.rand(30, 59, generator=torch.Generator().manual_seed(1))
    assert scattered(stripes / stripes.sum())


def test_centred_by_mass() -> None:
    kernel = torch.zeros(9, 9)
    kernel[0, 0:3] = 1 / 3
    assert torch.equal(centred(kernel)[4, 3:6], torch.full((3,), 1 / 3))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(KernelError, match="8×8"):
        estimate_uniform(torch.zeros(3, 40, 40))
    with pytest.raises(KernelError, match="8×8"):
        estimate_uniform(torch.zeros(7, 40))
    with pytest.raises(KernelError, match="not finite"):
        estimate_uniform(torch.full((40, 40), float("nan")))
    with pytest.raises(KernelError, match="one colour"):
        estimate_uniform(torch.full((40, 40), 0.5))

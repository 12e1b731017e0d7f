import numpy as np
import pytest
import torch

from unsmear.basis.kernels import camera_shake, linear_motion
from unsmear.basis.masks import grid_masks
from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation import deconvolution
from unsmear.estimation.deconvolution import deconvolve
from unsmear.metrics import psnr_rgb


@pytest.fixture(scope="module")
def shaken(photograph: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A photograph blurred by four kernels at its corners, with noise of 0.5 %: v, k, m."""
    generator = np.random.default_rng(5)
    kernels = torch.from_numpy(np.stack([camera_shake(generator, 17, length=11.0) for _ in range(4)]))
    height, width = photograph.shape[-2:]
    masks = torch.from_numpy(grid_masks([0, height - 1], [0, width - 1], height, width))
    blurred = blur(photograph, kernels, masks)
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(2))
    return (blurred + 0.005 * noise).clamp(0, 1), kernels, masks


def test_known_kernels_that_vary_bring_the_photograph_back(photograph, shaken) -> None:
    blurred, kernels, masks = shaken
    before = float(psnr_rgb(blurred, photograph))
    after = float(psnr_rgb(deconvolve(blurred, kernels, masks), photograph))
    average = torch.einsum("b,bij->ij", masks.flatten(1).mean(1), kernels)
    uniform = float(psnr_rgb(deconvolve(blurred, average[None]), photograph))
    assert after > before + 5
    assert after > uniform + 2  # what the masks are for


def test_divergence_is_the_adjoint_of_the_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 7, 9, generator=generator)
    field = torch.randn(2, 3, 7, 9, generator=generator)
    left = (deconvolution._gradient(x) * field).sum()
    assert torch.allclose(left, (x * deconvolution._divergence(field)).sum(), atol=1e-5)


def test_no_blur_and_no_weight_change_nothing(photograph: torch.Tensor) -> None:
    delta = torch.zeros(1, 5, 5)
    delta[0, 2, 2] = 1
    same = deconvolve(photograph, delta, weight=1e-8, saturated=2.0)
    assert (same - photograph).abs().max() < 1e-3


def test_a_constant_stays_and_rings_nowhere(shaken) -> None:
    _, kernels, masks = shaken
    grey = torch.full((3, *masks.shape[-2:]), 0.3)
    assert torch.allclose(deconvolve(grey, kernels, masks), grey, atol=1e-4)


def test_saturated_pixels_do_not_ring(photograph: torch.Tensor) -> None:
    kernel = torch.from_numpy(linear_motion(13, 20))[None]
    bright = 0.6 * photograph
    bright[:, 90:96, 100:106] = 6.0  # a lamp, ten times brighter than white
    cut = blur(bright, kernel, torch.ones(1, *photograph.shape[-2:])).clamp(0, 1)
    around = torch.zeros(photograph.shape[-2:], dtype=torch.bool)
    around[70:116, 80:126] = True
    around[84:102, 92:114] = False

    def error(saturated: float) -> float:
        return float(
            (deconvolve(cut, kernel, saturated=saturated) - bright.clamp(0, 1))[:, around].square().mean()
        )

    assert error(deconvolution.SATURATED) < 0.5 * error(2.0)


def test_more_steps_come_closer_to_the_same_solution(shaken) -> None:
    blurred, kernels, masks = shaken
    blurred, masks = blurred[:, :80, :100], masks[:, :80, :100]
    exact = deconvolve(blurred, kernels, masks, steps=40, tolerance=1e-7)
    distance = [
        float((deconvolve(blurred, kernels, masks, steps=steps, tolerance=0) - exact).square().mean())
        for steps in (1, 4, 12)
    ]
    assert distance[0] > distance[1] > distance[2]


def test_shapes_that_do_not_fit_are_named(photograph: torch.Tensor) -> None:
    with pytest.raises(KernelError, match=r"\(C,H,W\)"):
        deconvolve(photograph[0], torch.ones(1, 1, 1))
    with pytest.raises(KernelError, match="not finite"):
        deconvolve(photograph * float("nan"), torch.ones(1, 1, 1))

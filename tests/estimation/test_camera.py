import math

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from unsmear.basis.masks import camera_homographies, camera_motion_field, grid_masks
from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.camera import _around, _Motion, _Regions, estimate_camera
from unsmear.estimation.uniform import centred

SIZE = 200


@pytest.fixture(scope="module")
def turned() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A photograph blurred by a camera that turns in the image plane while it drifts: u, v, k, m."""
    grey = torch.from_numpy(skimage.data.astronaut().mean(2) / 255).float()
    sharp = F.interpolate(grey[None, None, 60:460, 20:420], size=(SIZE, SIZE), mode="area")[0]
    time = np.linspace(-0.5, 0.5, 9)
    roll = np.stack([0 * time, 0 * time, 16 / (SIZE * math.sqrt(0.5)) * time], 1)  # 16 px at the corners
    middle = ((SIZE - 1) / 2, (SIZE - 1) / 2)
    motion = camera_homographies(
        roll, focal=400.0, centre=middle, shifts=np.stack([3 * time**2, 7 * time], 1)
    )
    kernels, masks = map(
        torch.from_numpy, camera_motion_field(motion, SIZE, SIZE, grid=(7, 7), centred=False, size=25)
    )
    return sharp, blur(sharp, kernels, masks)[0], kernels, masks


def field_at(kernels: torch.Tensor, masks: torch.Tensor, row: int, column: int) -> torch.Tensor:
    return torch.einsum("b,bij->ij", masks[:, row, column], kernels)


def framed(kernel: torch.Tensor, side: int) -> torch.Tensor:
    more = (side - kernel.shape[-1]) // 2
    return F.pad(kernel, (more,) * 4)


def test_the_adjoint_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[-40.0, -30.0], [0.0, 0.0], [35.0, 20.0]])
    kernel = torch.zeros(31, 31)
    kernel[13:17, 14:18] = 1 / 16
    motion = _Motion(_around(kernel), torch.tensor([-0.1, 0.0, 0.1]), places, 15)
    weights = torch.rand(len(motion.poses), generator=generator)
    kernels = torch.rand(3, 31, 31, generator=generator)
    assert float((motion.kernels(weights) * kernels).sum()) == pytest.approx(
        float((weights * motion.adjoint(kernels)).sum()), rel=1e-5
    )
    assert torch.allclose(motion.kernels(weights / weights.sum()).sum((1, 2)), torch.ones(3), atol=1e-5)


def test_finds_the_turn_when_the_sharp_picture_is_known(turned) -> None:
    """With S = u the poses' problem is convex, and its kernels are those of each place."""
    sharp, blurred, kernels, masks = turned
    mean = centred(torch.einsum("bij,b->ij", kernels, masks.mean((1, 2))))
    reach = 24
    start = framed(mean, 2 * reach + 1)
    rows = torch.tensor([0.0, 99.5, 199.0])
    places = torch.cartesian_prod(rows, rows) - 99.5
    grid = torch.from_numpy(grid_masks(rows.numpy(), rows.numpy(), SIZE, SIZE))
    turns = torch.arange(-6, 7) * 2 / (SIZE * math.sqrt(0.5))
    motion = _Motion(_around(start), turns, places, reach)
    found = motion.kernels(motion.solve(_Regions(sharp[0], blurred, grid, reach), start))
    spots = [(row, column) for row in (25, 99, 174) for column in (25, 99, 174)]
    errors = torch.zeros(2)
    for node, (row, column) in enumerate(spots):
        truth = framed(field_at(kernels, masks, row, column), 2 * reach + 1)
        for which, kernel in enumerate((found[node], start)):  # ours, and one kernel for all of the picture
            errors[which] += (kernel - truth).abs().sum() / 2 / len(spots)
    assert errors[0] < 0.7 * errors[1]
    assert torch.allclose(found.sum((1, 2)), torch.ones(9), atol=1e-4) and found.min() >= 0


def test_blind_leaves_a_camera_that_only_drifts_without_turns(turned) -> None:
    sharp, _, kernels, masks = turned
    kernel = centred(field_at(kernels, masks, 100, 100))
    drifted = blur(sharp, kernel[None], torch.ones(1, SIZE, SIZE))[0]
    fit = estimate_camera(drifted, kernel, rounds=1)
    assert fit.field.kernels.min() >= 0 and fit.weights.min() > 0
    assert torch.allclose(fit.field.kernels.sum((1, 2)), torch.ones(9), atol=1e-4)
    assert float(fit.weights.sum()) == pytest.approx(1, abs=1e-4)
    assert fit.poses.shape == (len(fit.weights), 3)
    assert float(fit.weights @ fit.poses[:, 2].abs()) * SIZE * math.sqrt(0.5) < 0.5  # pixels at the corners
    side = fit.field.kernels.shape[-1]
    for found in fit.field.kernels:
        assert float((found * framed(kernel, side)).sum() / (found.norm() * kernel.norm())) > 0.9


def test_bad_input_is_named() -> None:
    with pytest.raises(KernelError, match="K odd"):
        estimate_camera(torch.rand(40, 40), torch.ones(4, 4) / 16)
    with pytest.raises(KernelError, match="not finite"):
        estimate_camera(torch.full((40, 40), torch.nan), torch.ones(3, 3) / 9)

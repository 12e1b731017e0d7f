import numpy as np
import pytest
import torch

from unsmear.basis.kernels import camera_shake
from unsmear.errors import KernelError
from unsmear.estimation.field import KernelField


def shake(seed: int, size: int = 21, length: float = 12.0) -> torch.Tensor:
    return torch.from_numpy(camera_shake(np.random.default_rng(seed), size, length=length))


def test_masks_of_a_rectangle_are_cut_out_of_those_of_the_picture() -> None:
    kernels = torch.stack([shake(seed) for seed in range(6)])
    field = KernelField(kernels, np.array([5.0, 40.0]), np.array([0.0, 30.0, 70.0]))
    whole = field.masks(rows=slice(0, 48), columns=slice(0, 80))
    part = field.masks(rows=slice(7, 30), columns=slice(21, 75))
    assert whole is not None and part is not None
    assert torch.allclose(whole.sum(0), torch.ones(48, 80), atol=1e-6)
    assert torch.allclose(part, whole[:, 7:30, 21:75], atol=1e-6)
    assert KernelField.uniform(kernels[0]).masks(rows=slice(0, 9), columns=slice(0, 9)) is None


def test_the_middle_of_a_straight_path_is_its_centre_of_mass() -> None:
    kernel = torch.zeros(15, 15)
    kernel[6, 3:12] = torch.linspace(1, 2, 9)  # one row above the middle; more time at its right end
    kernel /= kernel.sum()
    down, right = KernelField.uniform(kernel).middles()[0]
    centre = float(kernel.sum(0) @ torch.arange(-7, 8).float())
    assert down == pytest.approx(-1, abs=1e-6) and right == pytest.approx(centre, abs=1e-5)


def test_the_middle_of_a_bent_path_lies_on_it() -> None:
    kernel = torch.zeros(31, 31)
    angles = torch.linspace(0.3 * torch.pi, 0.7 * torch.pi, 60)  # an arc of radius 14 about (14, 0)
    for row, column in zip(14 - 14 * angles.sin(), 14 * angles.cos(), strict=True):
        kernel[round(float(row)) + 15, round(float(column)) + 15] += 1 / 60
    down, right = KernelField.uniform(kernel).middles()[0]
    centre = float(kernel.sum(1) @ torch.arange(-15, 16).float())
    assert centre > 0.6  # the centre of mass is off the arc, whose middle is at (0, 0)
    assert abs(down) < 0.4 and abs(right) < 0.3


def test_scaled_kernels_have_the_extent_and_middle_of_the_larger_picture() -> None:
    kernel = shake(3)
    field = KernelField.uniform(kernel)
    large = field.scaled(2.5)
    assert torch.allclose(large.kernels.sum((1, 2)), torch.ones(1), atol=1e-5) and large.kernels.min() >= 0

    def spread(kernel: torch.Tensor) -> torch.Tensor:
        place = torch.arange(len(kernel)).float() - len(kernel) // 2
        mean = torch.stack([kernel.sum(1) @ place, kernel.sum(0) @ place])
        return (torch.stack([kernel.sum(1) @ place**2, kernel.sum(0) @ place**2]) - mean**2).sqrt()

    assert torch.allclose(spread(large.kernels[0]), 2.5 * spread(kernel), rtol=0.12)
    assert np.allclose(large.middles(), 2.5 * np.array(field.middles()), atol=0.5)
    nodes = KernelField(torch.stack([kernel, kernel]), np.array([0.0, 39.0]), np.array([0.0])).scaled(2)
    assert nodes.rows.tolist() == [0.5, 78.5]  # pixels are areas
    assert field.scaled(1.0) is field


def test_a_field_without_a_kernel_for_each_node_is_refused() -> None:
    with pytest.raises(KernelError, match="each of 4 nodes"):
        KernelField(shake(1)[None], np.arange(2.0), np.arange(2.0))

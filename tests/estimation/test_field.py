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


def test_shares_at_the_nodes_are_bilinear_in_between() -> None:
    kernels = torch.stack([shake(1), shake(2)])
    shares = torch.tensor([[[1.0, 0.25], [0.5, 0.0]], [[0.0, 0.75], [0.5, 1.0]]])
    field = KernelField(kernels, np.array([0.0, 20.0]), np.array([4.0, 14.0]), shares)
    masks = field.masks(rows=slice(0, 30), columns=slice(0, 20))
    assert masks is not None and masks.shape == (2, 30, 20)
    assert torch.allclose(masks.sum(0), torch.ones(30, 20), atol=1e-6)
    assert masks[0, 10, 9] == pytest.approx((1 + 0.25 + 0.5 + 0) / 4, abs=1e-6)
    assert masks[0, 29, 0] == pytest.approx(0.5, abs=1e-6) and masks[1, 0, 19] == pytest.approx(
        0.75, abs=1e-6
    )
    part = field.masks(rows=slice(5, 9), columns=slice(3, 17))
    assert part is not None and torch.allclose(part, masks[:, 5:9, 3:17], atol=1e-6)
    # The same as a kernel for each node, where each node has one.
    whole = KernelField(kernels, np.array([0.0, 20.0]), np.array([4.0]), torch.eye(2).view(2, 2, 1))
    nodes = KernelField(kernels, np.array([0.0, 20.0]), np.array([4.0]))
    areas = [x.masks(rows=slice(0, 30), columns=slice(0, 9)) for x in (whole, nodes)]
    assert areas[0] is not None and areas[1] is not None and torch.allclose(areas[0], areas[1], atol=1e-6)
    with pytest.raises(KernelError, match="shares"):
        KernelField(kernels, np.array([0.0]), np.array([4.0]), shares)


def test_kernels_apart_have_a_middle_each() -> None:
    kernel = torch.zeros(15, 15)
    kernel[7, 4:11] = 1 / 7
    both = torch.stack([kernel, kernel.roll((2, -3), (0, 1))])
    shares = torch.full((2, 1, 1), 0.5)
    apart = KernelField(both, np.zeros(1), np.zeros(1), shares, apart=True)
    assert np.allclose(apart.middles(), [(0, 0), (2, -3)], atol=1e-5)
    assert torch.equal(apart.centred()[1], kernel) and torch.equal(apart.centred()[0], kernel)
    together = KernelField(both, np.zeros(1), np.zeros(1), shares)
    assert together.middles()[0] == together.middles()[1]
    assert np.allclose(apart.scaled(2).middles(), 2 * np.array(apart.middles()), atol=0.3)


def test_a_kernel_of_a_reduced_picture_takes_in_all_taps() -> None:
    kernel = torch.zeros(21, 21)
    kernel[10, 2:19] = torch.tensor([1.0, 0.0] * 8 + [1.0]) / 9  # every second tap: sampling could miss them
    small = KernelField.uniform(kernel).scaled(0.5).kernels[0]
    place = torch.arange(len(small)).float() - len(small) // 2
    assert float(small.sum()) == pytest.approx(1, abs=1e-5)
    spread = float((small.sum(0) @ place**2).sqrt())
    truth = float((kernel.sum(0) @ (torch.arange(21).float() - 10) ** 2).sqrt()) / 2
    assert spread == pytest.approx(truth, rel=0.12)


def test_a_field_without_a_kernel_for_each_node_is_refused() -> None:
    with pytest.raises(KernelError, match="each of 4 nodes"):
        KernelField(shake(1)[None], np.arange(2.0), np.arange(2.0))

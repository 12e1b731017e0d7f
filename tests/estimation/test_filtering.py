import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from unsmear.basis.kernels import camera_shake
from unsmear.basis.masks import grid_masks
from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.filtering import VARIATION_WEIGHT, WEIGHT, filtered, guided_input
from unsmear.estimation.uniform import Periodic
from unsmear.metrics import psnr_rgb


@pytest.fixture(scope="module")
def sharp() -> torch.Tensor:
    picture = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1).float() / 255
    return F.interpolate(picture[None, :, :, :400], scale_factor=0.5, mode="area")[0]


def shake(seed: int) -> torch.Tensor:
    return torch.from_numpy(camera_shake(np.random.default_rng(seed), 17, length=10.0))


def test_minimises_tikhonov_s_sum_on_a_periodic_picture() -> None:
    """Where nothing has to be continued, the gradient of ‖k ∗ u − v‖² + λ‖∇u‖² + floor ‖u‖² vanishes."""
    from unsmear.estimation.filtering import _FLOOR
    from unsmear.estimation.spectra import fast_size, periodic

    kernel, weight = shake(5)[4:13, 4:13].double(), 0.02
    kernel = kernel / kernel.sum()
    picture = torch.rand(1, 27, 36, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    size = fast_size(27 + 9, 36 + 9)
    v = periodic(picture, size)[0].double()
    u = torch.zeros(size, dtype=torch.float64, requires_grad=True)

    def shifted(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
        return x.roll((-down, -right), (0, 1))

    def blurred(x: torch.Tensor) -> torch.Tensor:
        rows = range(-4, 5)
        return torch.stack([kernel[p + 4, q + 4] * shifted(x, p, q) for p in rows for q in rows]).sum(0)

    def total(x: torch.Tensor) -> torch.Tensor:
        edges = (shifted(x, 0, 1) - x).square().sum() + (shifted(x, 1, 0) - x).square().sum()
        return (blurred(x) - v).square().sum() + weight * edges + _FLOOR * x.square().sum()

    found = filtered(picture, kernel[None].float(), weights=[weight], middles=[(0.0, 0.0)])
    full = torch.fft.rfft2(v)
    response = torch.fft.rfft2(blurred_impulse(blurred, size))
    minimum = torch.fft.irfft2(
        response.conj() * full / (response.abs() ** 2 + weight * edge_power(size) + _FLOOR), s=size
    )
    assert torch.allclose(found[0].double(), minimum[:27, :36].clamp(-0.5, 1.5), atol=1e-4)
    (gradient,) = torch.autograd.grad(total(u + minimum), u)
    assert gradient.abs().max() < 1e-9


def blurred_impulse(blurred, size: tuple[int, int]) -> torch.Tensor:
    impulse = torch.zeros(size, dtype=torch.float64)
    impulse[0, 0] = 1
    return blurred(impulse)


def edge_power(size: tuple[int, int]) -> torch.Tensor:
    impulse = torch.zeros(size, dtype=torch.float64)
    impulse[0, 0] = 1
    return sum(torch.fft.rfft2(impulse.roll(-1, dim) - impulse).abs() ** 2 for dim in (0, 1))


def test_known_kernels_bring_the_sharp_picture_nearer(sharp) -> None:
    kernels = torch.stack([shake(seed) for seed in (1, 2)])
    masks = torch.from_numpy(grid_masks([100.0], [20.0, 180.0], *sharp.shape[-2:]))
    blurred = blur(sharp, kernels, masks)
    before = float(psnr_rgb(blurred[None], sharp[None]))
    right = filtered(blurred, kernels, masks, weights=[3e-3], middles=[(0.0, 0.0)] * len(kernels)).clamp(0, 1)
    wrong = filtered(
        blurred, kernels.rot90(1, (1, 2)), masks, weights=[3e-3], middles=[(0.0, 0.0)] * len(kernels)
    ).clamp(0, 1)
    assert float(psnr_rgb(right[None], sharp[None])) > before + 4
    assert float(psnr_rgb(wrong[None], sharp[None])) < float(psnr_rgb(right[None], sharp[None])) - 4


def test_equal_kernels_under_masks_are_one_kernel(sharp) -> None:
    kernel = shake(4)
    masks = torch.from_numpy(grid_masks([30.0, 170.0], [20.0, 180.0], *sharp.shape[-2:]))
    many = filtered(sharp, kernel.expand(4, -1, -1), masks, weights=[3e-3, 3e-2])
    one = filtered(sharp, kernel[None], weights=[3e-3, 3e-2])
    assert many.shape == one.shape == (6, *sharp.shape[-2:])
    inside = (slice(None), slice(40, -40), slice(40, -40))
    difference = (many - one)[inside].square().mean().sqrt()
    assert difference < 0.02 < one[inside].std()  # each window continues the picture in its own way


def test_a_shift_is_undone_by_the_middle(sharp) -> None:
    kernel = torch.zeros(1, 9, 9)
    kernel[0, 4 + 2, 4 - 3] = 1
    blurred = blur(sharp, kernel, torch.ones(1, *sharp.shape[-2:]))
    inside = (slice(None), slice(12, -12), slice(12, -12))
    stays = filtered(blurred, kernel, weights=[1e-5])  # by the centre of mass: lies over the blurred picture
    moves = filtered(blurred, kernel, weights=[1e-5], middles=[(0.0, 0.0)])
    assert (stays - blurred)[inside].abs().max() < 0.02
    assert (moves - sharp)[inside].abs().max() < 0.02


def test_a_network_gets_the_picture_and_both_restored_ones(sharp) -> None:
    kernel = shake(6)
    seen = guided_input(sharp, kernel[None])
    assert seen.shape == (9, *sharp.shape[-2:]) and torch.equal(seen[:3], sharp)
    assert torch.equal(seen[3:6], filtered(sharp, kernel[None], weights=[WEIGHT]))
    assert torch.equal(seen[6:], filtered(sharp, kernel[None], weights=[], variation=VARIATION_WEIGHT))
    assert seen.min() >= -0.5 and seen.max() <= 1.5


@pytest.mark.parametrize("masks", [None, torch.ones(2, 5, 5)])
def test_masks_must_fit(sharp, masks) -> None:
    with pytest.raises(KernelError, match="2 kernels need masks"):
        filtered(sharp, torch.stack([shake(1), shake(2)]), masks)
    with pytest.raises(KernelError, match="K odd"):
        filtered(sharp, torch.ones(1, 4, 4) / 16)


def test_total_variation_makes_its_sum_small(sharp) -> None:
    weight, kernel = 2e-3, shake(4)
    blurred = blur(sharp, kernel[None], torch.ones(1, *sharp.shape[-2:]))
    blurred = blurred + 0.01 * torch.randn(blurred.shape, generator=torch.Generator().manual_seed(1))
    found = filtered(blurred, kernel[None], weights=[3e-3, 3e-2], variation=weight, middles=[(0.0, 0.0)])

    def value(u: torch.Tensor) -> float:
        error = (blur(u, kernel[None], torch.ones(1, *u.shape[-2:])) - blurred)[:, 16:-16, 16:-16]
        down, right = u.diff(dim=1)[:, 16:-16, 16:-17], u.diff(dim=2)[:, 16:-17, 16:-16]
        return float(0.5 * error.square().sum() + weight * (down**2 + right**2).sum(0).sqrt().sum())

    assert value(found[6:]) < 0.95 * min(value(x) for x in (found[:3], found[3:6], blurred, sharp))


def test_total_variation_of_a_grey_picture_is_that_of_the_blind_estimate(sharp) -> None:
    kernel, grey = shake(4), sharp.mean(0)
    found = filtered(grey[None], kernel[None], weights=[], variation=2e-3, middles=[(0.0, 0.0)])[0]
    oracle = Periodic(grey, kernel.shape[-1]).restored(kernel, 2e-3)[: grey.shape[0], : grey.shape[1]]
    assert torch.allclose(found, oracle.clamp(-0.5, 1.5), atol=2e-4)

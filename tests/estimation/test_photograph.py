"""Whether a photograph has motion blur, and which: against the simulator, whose blur is known."""

import math

import numpy as np
import pytest
import torch

from unsmear.basis.kernels import camera_shake, defocus, linear_motion, mass_centre
from unsmear.blurring import blur, check_blur, to_linear, to_srgb
from unsmear.errors import KernelError
from unsmear.estimation.photograph import (
    Region,
    _field,
    _judge,
    alikeness,
    direction,
    estimate_photograph,
    reblurred_psnr,
    shape_of,
)


def tensor(kernel):
    return torch.from_numpy(np.ascontiguousarray(kernel))


def blurred(sharp, kernel):
    """In linear light, with noise of 0.004, rounded to 8 bit."""
    v = to_srgb(blur(to_linear(sharp), tensor(kernel)[None], torch.ones(1, *sharp.shape[1:])).clamp(0, 1))
    v = v + 0.004 * torch.randn(v.shape, generator=torch.Generator().manual_seed(0))
    return (v.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("length, angle", [(9.0, 0.0), (15.0, 30.0), (21.0, 90.0), (12.0, 150.0)])
def test_shape_of_a_straight_line_is_its_length_and_angle(length, angle):
    shape = shape_of(tensor(linear_motion(length, angle, 31)))
    assert shape.length == pytest.approx(length, rel=0.12)
    assert min(abs(shape.angle - angle), 180 - abs(shape.angle - angle)) < 2
    assert shape.spread == pytest.approx(length / math.sqrt(12), rel=0.05)
    assert shape.thinness < 0.2


def test_discs_and_gaussians_are_not_thin_and_shakes_are():
    row = torch.exp(-(torch.arange(-10.0, 11) ** 2) / (2 * 2.5**2))
    gaussian = row[:, None] * row
    assert shape_of(gaussian / gaussian.sum()).thinness == pytest.approx(1, abs=0.02)
    assert shape_of(tensor(defocus(4.0))).thinness == pytest.approx(1, abs=0.1)
    assert shape_of(tensor(camera_shake(np.random.default_rng(1), 41, length=30.0))).thinness < 0.3


def test_alikeness_does_not_see_shifts_and_sizes():
    kernel = tensor(camera_shake(np.random.default_rng(1), 21, length=12.0))
    moved = torch.nn.functional.pad(kernel, (9, 1, 3, 7))
    assert alikeness(kernel, moved) == pytest.approx(1, abs=1e-5)
    assert alikeness(kernel, kernel.T) < 0.95


@pytest.mark.parametrize(
    "angle, words",
    [(0, "horizontal"), (176, "horizontal"), (47, "rising"), (92, "vertical"), (130, "falling")],
)
def test_directions_in_words(angle, words):
    assert words in direction(angle)


def test_a_straight_motion_is_found_with_its_length_and_direction(photograph):
    truth = linear_motion(13.0, 30.0, 21)
    v = blurred(photograph, truth)
    fit = estimate_photograph(v, most_regions=4)
    assert fit.motion and fit.verdict == "motion"
    assert fit.sentence.startswith("Motion blur of about") and "rising to the right" in fit.sentence
    check_blur(fit.kernels, torch.ones(1, 1, 1) if fit.masks is None else fit.masks)
    assert np.abs(mass_centre(fit.kernels.numpy())).max() < 0.01
    main = fit.kernels[0 if fit.masks is None else int(fit.masks.mean((1, 2)).argmax())]
    assert alikeness(main, tensor(truth)) > 0.75
    shape = shape_of(main)
    assert shape.length == pytest.approx(13, abs=5) and shape.angle == pytest.approx(30, abs=12)
    assert fit.confidence.shape == (len(fit.regions),) and 0.5 < float(fit.confidence.max()) <= 1
    assert fit.latent.shape == v.shape
    assert fit.reblur_psnr == reblurred_psnr(v, fit.latent, fit.kernels, fit.masks) > 30


def test_no_motion_where_it_is_sharp_out_of_focus_or_flat(photograph):
    for kernel, most in ((np.ones((1, 1), np.float32), 4), (defocus(3.0), 4)):
        fit = estimate_photograph(blurred(photograph, kernel), most_regions=most, restore=False)
        assert not fit.motion
        assert fit.kernels.shape == (1, 1, 1) and fit.masks is None and fit.latent is None
        assert fit.sentence.startswith(("No motion blur found", "Cannot tell"))
    flat = estimate_photograph(torch.full((3, 150, 150), 0.4))
    assert flat.verdict == "unknown" and "texture" in flat.sentence
    assert float(flat.confidence.sum()) == 0 and math.isinf(flat.reblur_psnr)


def regions(kernels, weights, evidence):
    """A row of regions, 64 pixels apart."""
    return [
        Region(0, 64 * i, 128, k, w, e)
        for i, (k, w, e) in enumerate(zip(kernels, weights, evidence, strict=True))
    ]


def test_the_verdict_asks_only_those_regions_that_are_to_be_believed():
    k = tensor(linear_motion(9.0, 0.0, 11))
    assert _judge(regions([k] * 4, [1, 1, 0, 0], [1, 1, 0, 0])) == "motion"
    assert _judge(regions([k] * 4, [1, 1, 0, 0], [0, 0, 1, 1])) == "none"
    assert _judge(regions([k] * 4, [1, 1, 1, 1], [0.4] * 4)) == "unknown"
    assert _judge(regions([k] * 8, [0.5] + [0.0] * 7, [1] * 8)) == "unknown"


def test_regions_of_one_kernel_share_it_and_those_of_two_get_masks():
    across, along = tensor(linear_motion(15.0, 0.0, 17)), tensor(linear_motion(15.0, 90.0, 17))
    grid = ([64.0], [64.0, 128.0, 192.0, 256.0])
    one, masks = _field(regions([across] * 4, [1] * 4, [1] * 4), grid, (128, 320))
    assert masks is None and one.shape[0] == 1
    torch.testing.assert_close(one[0], across[..., : one.shape[-1], : one.shape[-1]], atol=0.03, rtol=0)
    two = regions([across, across, None, along], [1, 1, 0, 0.9], [1, 1, 0, 1])
    kernels, masks = _field(two, grid, (128, 320))
    assert kernels.shape[0] == 2 and masks.shape == (2, 128, 320)
    torch.testing.assert_close(masks.sum(0), torch.ones(128, 320))
    for kernel, column in ((across, 64), (along, 300)):
        here = torch.einsum("b,bij->ij", masks[:, 64, column], kernels)
        assert alikeness(here, kernel) > 0.9
    # the region that says nothing takes what its neighbours say, half and half
    assert 0.2 < float(masks[0, 64, 192]) < 0.8
    # a stray estimate that is hardly believed is no kernel of the basis
    stray, masks = _field(regions([across] * 3 + [along], [1, 1, 1, 0.1], [1] * 4), grid, (128, 320))
    assert masks is None
    assert alikeness(stray[0], across) > 0.95


@pytest.mark.parametrize(
    "picture", [torch.ones(1, 80, 80), torch.ones(3, 80, 40), torch.full((3, 80, 80), torch.nan)]
)
def test_what_is_no_photograph_is_refused(picture):
    with pytest.raises(KernelError, match="expected"):
        estimate_photograph(picture)

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from unsmear.basis.kernels import check_kernels, mass_centre
from unsmear.blurring import blur
from unsmear.estimation.filtering import guided_input
from unsmear.metrics import psnr_rgb
from unsmear.pairs import GuideSettings, PairSampler, spoiled_kernel
from unsmear.pairs.guides import mean_kernel

STEPS = ("none_share", "turned_share", "blurred_share", "uneven_share", "grainy_share", "lost_share")
NOTHING = dict.fromkeys(STEPS, 0.0) | {"thresholds": (0.0,)}


@pytest.fixture(scope="module")
def kernels(photos):
    sampler = PairSampler(photos, seed=1, size=48)
    return [mean_kernel(sampler[index]) for index in range(12)]


def test_the_mean_kernel_is_a_kernel_weighted_by_the_masks(photos):
    sampler = PairSampler(photos, seed=1, size=48)
    for index in range(6):
        pair = sampler[index]
        kernel = mean_kernel(pair)
        check_kernels(kernel.numpy())
        by_hand = sum(
            k.double() * float(m.double().sum()) for k, m in zip(pair.kernels, pair.masks, strict=True)
        )
        torch.testing.assert_close(kernel.double(), by_hand / 48**2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", [None, *STEPS])
def test_spoiled_kernels_are_kernels(kernels, step):
    settings = GuideSettings() if step is None else GuideSettings(**(NOTHING | {step: 1.0}))
    generator = np.random.default_rng(0)
    changed = 0
    for kernel in kernels * 4:
        spoiled = spoiled_kernel(kernel, generator, settings)
        assert spoiled.dtype == torch.float32
        check_kernels(spoiled.numpy())
        assert np.abs(mass_centre(spoiled.numpy())).max() <= 0.5 + 1e-5
        changed += spoiled.shape != kernel.shape or not torch.allclose(spoiled, kernel, atol=1e-6)
    assert changed > 24, "most kernels are more than a pixel"


def test_nothing_spoils_nothing(kernels):
    generator = np.random.default_rng(0)
    for kernel in kernels:
        spoiled = spoiled_kernel(kernel, generator, GuideSettings(**NOTHING))
        margin = (kernel.shape[-1] - spoiled.shape[-1]) // 2
        torch.testing.assert_close(spoiled, kernel[margin:, margin:][: len(spoiled), : len(spoiled)])
        assert float(kernel.sum()) == pytest.approx(float(spoiled.sum()))


def test_a_turn_is_of_the_angle_that_was_asked_for():
    """The principal axis of a straight kernel, by its second moments, turns by the drawn angle."""
    kernel = torch.zeros(31, 31)
    kernel[15, 3:28] = 1 / 25
    settings = GuideSettings(**(NOTHING | {"turned_share": 1.0, "turn": 10.0, "scale": 0.0}))
    turned, drawn = [], []
    for seed in range(5):
        spoiled = spoiled_kernel(kernel, np.random.default_rng(seed), settings).double()
        places = torch.arange(len(spoiled)).double() - len(spoiled) // 2
        both = torch.einsum("ij,i,j", spoiled, places, places)
        across = torch.einsum("ij,j->", spoiled, places**2) - torch.einsum("ij,i->", spoiled, places**2)
        turned.append(abs(float(torch.atan2(2 * both, across))) / 2)
        generator = np.random.default_rng(seed)
        generator.random(), generator.random()
        drawn.append(abs(np.deg2rad(generator.normal(0.0, 10.0))))
    assert turned == pytest.approx(drawn, abs=0.02)
    assert max(drawn) > 0.05


def test_equal_generators_spoil_equally_and_leave_the_global_ones(kernels):
    before = torch.random.get_rng_state()
    one, two, other = (
        spoiled_kernel(kernels[1], np.random.default_rng(seed), GuideSettings(none_share=0.0))
        for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert one.shape != other.shape or not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_true_kernel_filters_better_than_a_spoiled_one(photos):
    """The filter undoes the blur of Eq. 2 (a correlation); with the flipped kernel it does harm."""
    sharp = PairSampler(photos, seed=2, size=128)[0].sharp
    path = torch.zeros(11, 11)
    path[5, 2:7] = path[2:6, 6] = 1.0
    kernel = path / path.sum()
    blurred = blur(sharp, kernel[None], torch.ones(1, 128, 128), border="reflect")
    before = float(psnr_rgb(blurred[None], sharp[None]))

    def score(kernel: torch.Tensor) -> float:
        restored = guided_input(blurred, kernel[None], middles=[(0.0, 0.0)])[3:6].clamp(0, 1)
        return float(psnr_rgb(restored[None], sharp[None]))

    assert score(kernel) > before + 3 > score(kernel.flip(0, 1)) + 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"estimated_share": 1.5}, "less than or equal to 1"),
        ({"blur": (0.9, 0.2)}, "expected 0 ≤ low ≤ high"),
        ({"thresholds": ()}, "thresholds"),
        ({"thresholds": (1.0,)}, "parts of 1"),
        ({"crops": 0}, "greater than or equal to 1"),
        ({"spoil": 1}, "not permitted"),
    ],
)
def test_nonsense_is_refused(values, words):
    with pytest.raises(ValidationError, match=words):
        GuideSettings(**values)

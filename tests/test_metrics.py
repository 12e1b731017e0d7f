"""Metrics: laws by hypothesis, values by scikit-image and torchmetrics, alignment by a plain loop."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from unsmear.errors import EvaluationError
from unsmear.metrics import (
    LUMA_WEIGHTS,
    align,
    psnr_aligned,
    psnr_rgb,
    psnr_shift,
    psnr_shift_gain,
    ssim_gauss_rgb,
)


def photograph(height: int = 96, width: int = 128) -> Tensor:
    return (
        torch.from_numpy(data.astronaut()[40 : 40 + height, 150 : 150 + width].copy()).permute(2, 0, 1) / 255
    )


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def rows(x: Tensor) -> np.ndarray:
    """(3,H,W) as the (H,W,3) float64 array that scikit-image reads."""
    return x.double().permute(1, 2, 0).numpy()


def couples() -> list[tuple[Tensor, Tensor]]:
    sharp = photograph()
    soft = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    return [
        (noise(1, 3, 40, 31), noise(2, 3, 40, 31)),
        (soft, sharp),
        ((sharp * 1.3 - 0.1).clamp(0, 1), sharp),
        (sharp + 1e-3 * noise(3, 3, 96, 128), sharp),
        (torch.zeros(3, 11, 11), noise(4, 3, 11, 11)),
        (torch.full((3, 16, 16), 0.5), torch.full((3, 16, 16), 0.6)),
    ]


@pytest.mark.parametrize("index", range(6))
def test_psnr_rgb_is_that_of_scikit_image_and_torchmetrics(index: int) -> None:
    restored, sharp = couples()[index]
    value = psnr_rgb(restored, sharp)
    assert value.dtype == torch.float64 and value.ndim == 0
    assert value.item() == pytest.approx(
        peak_signal_noise_ratio(rows(sharp), rows(restored), data_range=1), abs=1e-6
    )
    assert value.item() == pytest.approx(
        # its log(10) is a float32: a relative error of 4.5e-8
        torchmetrics_psnr(restored.double(), sharp.double(), data_range=1.0).item(),
        rel=1e-7,
    )


@pytest.mark.parametrize("sample_covariance", [False, True])
@pytest.mark.parametrize("index", range(6))
def test_ssim_gauss_rgb_is_that_of_scikit_image(index: int, sample_covariance: bool) -> None:
    restored, sharp = couples()[index]
    oracle = structural_similarity(
        rows(sharp),
        rows(restored),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=sample_covariance,
        data_range=1,
        channel_axis=-1,
    )
    value = ssim_gauss_rgb(restored, sharp, sample_covariance=sample_covariance)
    assert value.item() == pytest.approx(oracle, abs=1e-6)


@pytest.mark.parametrize("index", range(5))
def test_ssim_gauss_rgb_is_that_of_torchmetrics(index: int) -> None:
    restored, sharp = (x.double()[None] for x in couples()[index])
    both = torchmetrics_ssim(restored, sharp, data_range=1.0, sigma=1.5, return_full_image=True)
    oracle = both[1][..., 5:-5, 5:-5].mean()  # its own mean keeps the reflected border
    assert ssim_gauss_rgb(restored, sharp)[0].item() == pytest.approx(oracle.item(), abs=1e-6)


@pytest.mark.parametrize("metric", [psnr_rgb, ssim_gauss_rgb, psnr_shift, psnr_shift_gain])
def test_a_batch_is_scored_one_by_one(metric) -> None:
    sharp, restored = noise(5, 4, 3, 80, 81), noise(6, 4, 3, 80, 81)
    batch = metric(restored, sharp)
    assert batch.shape == (4,) and batch.dtype == torch.float64
    single = torch.stack([metric(r, s) for r, s in zip(restored, sharp, strict=True)])
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), height=st.integers(11, 40), width=st.integers(11, 40))
def test_pixel_aligned_scores_are_symmetric_bounded_and_best_for_equals(
    seed: int, height: int, width: int
) -> None:
    a, b = noise(seed, 3, height, width), noise(seed + 1, 3, height, width)
    assert psnr_rgb(a, b).item() == psnr_rgb(b, a).item() >= 0
    ssim = ssim_gauss_rgb(a, b).item()
    assert ssim == pytest.approx(ssim_gauss_rgb(b, a).item(), abs=1e-12)
    assert -1 <= ssim < 1
    assert psnr_rgb(a, a).item() == math.inf
    assert ssim_gauss_rgb(a, a).item() == pytest.approx(1, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), step=st.floats(1e-3, 0.2), turns=st.integers(0, 3))
def test_psnr_knows_the_error_of_a_constant_step_and_ignores_rotation(
    seed: int, step: float, turns: int
) -> None:
    a, b = noise(seed, 3, 12, 17).double(), noise(seed + 1, 3, 12, 17).double()
    assert psnr_rgb(a + step, a).item() == pytest.approx(-20 * math.log10(step), abs=1e-6)
    turned = psnr_rgb(a.rot90(turns, (1, 2)), b.rot90(turns, (1, 2)))
    assert turned.item() == pytest.approx(psnr_rgb(a, b).item(), abs=1e-9)


def test_more_error_scores_less() -> None:
    sharp = photograph()
    error = noise(7, 3, 96, 128) - 0.5
    for metric in (psnr_rgb, ssim_gauss_rgb, psnr_shift_gain):
        scores = [metric(sharp + amount * error, sharp).item() for amount in (0.02, 0.05, 0.1, 0.3)]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 4


def test_float32_input_is_summed_in_float64() -> None:
    """An offset of 1e-4 over ten million pixels: a float32 sum would be off in the second decimal."""
    x = torch.zeros(3, 1024, 1024)
    assert psnr_rgb(x + 1e-4, x).item() == pytest.approx(80, abs=1e-5)


def by_plain_loop(restored: Tensor, sharp: Tensor, m: int, *, gain: bool, luma: bool) -> float:
    """The best PSNR over every shift, written as it is said."""
    r, s = rows(restored), rows(sharp)
    if luma:
        r, s = r @ np.array(LUMA_WEIGHTS), s @ np.array(LUMA_WEIGHTS)
    height, width = s.shape[:2]
    truth = s[m : height - m, m : width - m]
    best = -math.inf
    for down in range(2 * m + 1):
        for right in range(2 * m + 1):
            window = r[down : down + height - 2 * m, right : right + width - 2 * m]
            factor = max((window * truth).sum() / (window**2).sum(), 0) if gain else 1.0
            best = max(best, peak_signal_noise_ratio(truth, factor * window, data_range=1))
    return best


@pytest.mark.parametrize("channels", ["luma", "rgb"])
@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("size", [(31, 40), (37, 29)])
def test_the_fourier_search_finds_what_a_plain_loop_finds(
    size: tuple[int, int], gain: bool, channels: str
) -> None:
    metric = psnr_shift_gain if gain else psnr_shift
    for seed in range(3):
        sharp, restored = noise(seed, 3, *size), noise(seed + 50, 3, *size)
        if seed == 2:  # dark and moved: here the gain changes which shift is best
            restored = 0.6 * sharp.roll((3, -2), (1, 2)) + 0.1 * restored
        oracle = by_plain_loop(restored, sharp, 5, gain=gain, luma=channels == "luma")
        assert metric(restored, sharp, max_shift=5, channels=channels).item() == pytest.approx(
            oracle, abs=1e-6
        )


@settings(deadline=None, max_examples=12)
@given(
    down=st.integers(-6, 6),
    right=st.integers(-6, 6),
    gain=st.floats(0.3, 3.0),
    channels=st.sampled_from(["luma", "rgb"]),
)
def test_the_aligned_score_ignores_what_it_aligns_away(
    down: int, right: int, gain: float, channels: str
) -> None:
    scene = photograph(108, 132).double()
    seen = scene + 0.05 * (noise(8, 3, 108, 132) - 0.5)
    sharp, still = scene[:, 6:-6, 6:-6], seen[:, 6:-6, 6:-6]
    moved = seen[:, 6 - down : 102 - down, 6 - right : 126 - right] / gain
    aligned = align(moved, sharp, max_shift=6, channels=channels)
    assert aligned.shift == (down, right)
    assert aligned.gain == pytest.approx(gain, rel=0.01)
    expected = psnr_shift_gain(still, sharp, max_shift=6, channels=channels).item()
    assert psnr_aligned(aligned, channels=channels).item() == pytest.approx(expected, abs=1e-9)
    shifted_only = psnr_shift(moved * gain, sharp, max_shift=6, channels=channels).item()
    assert shifted_only == pytest.approx(
        psnr_shift(still, sharp, max_shift=6, channels=channels).item(), abs=1e-9
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), max_shift=st.integers(0, 6))
def test_more_freedom_never_scores_less(seed: int, max_shift: int) -> None:
    sharp, restored = noise(seed, 3, 30, 33), noise(seed + 1, 3, 30, 33)
    core = (slice(None), slice(max_shift, 30 - max_shift), slice(max_shift, 33 - max_shift))
    raw = psnr_rgb(restored[core], sharp[core]).item()
    shifted = psnr_shift(restored, sharp, max_shift=max_shift, channels="rgb").item()
    both = psnr_shift_gain(restored, sharp, max_shift=max_shift, channels="rgb").item()
    assert raw <= shifted + 1e-9 and shifted <= both + 1e-9


def test_the_region_is_the_same_whatever_the_shift() -> None:
    """Input and output are scored on the same true pixels, and no border is filled in."""
    sharp = photograph()
    first = align(sharp.roll((2, 5), (1, 2)), sharp, max_shift=8)
    second = align(sharp.roll((-7, 1), (1, 2)), sharp, max_shift=8)
    assert (first.shift, second.shift) == ((2, 5), (-7, 1))
    torch.testing.assert_close(first.sharp, sharp[:, 8:-8, 8:-8].double(), rtol=0, atol=0)
    torch.testing.assert_close(second.sharp, first.sharp, rtol=0, atol=0)
    torch.testing.assert_close(first.restored, first.sharp, rtol=0, atol=1e-12)


def test_equal_pictures_stay_where_they_are_and_score_without_end() -> None:
    sharp = photograph()
    aligned = align(sharp, sharp, max_shift=4)
    assert aligned.shift == (0, 0) and aligned.gain == 1.0
    assert psnr_shift_gain(sharp, sharp).item() == math.inf
    assert psnr_shift(sharp, sharp).item() == math.inf


@pytest.mark.parametrize("restored", [0.0, 0.5])
def test_a_flat_picture_is_not_moved(restored: float) -> None:
    aligned = align(torch.full((3, 40, 40), restored), photograph(40, 40), max_shift=4)
    assert aligned.shift == (0, 0)
    assert math.isfinite(psnr_aligned(aligned).item())


def test_a_negative_picture_gets_no_negative_gain() -> None:
    sharp = photograph(40, 40)
    aligned = align(-sharp.roll(1, 2), sharp, max_shift=2)
    assert aligned.gain == 0.0 and aligned.shift == (0, 0)


def test_luma_leaves_colour_errors_with_the_same_luma_out() -> None:
    sharp = photograph()
    red, green = LUMA_WEIGHTS[:2]
    tinted = sharp + torch.tensor([0.1, -0.1 * red / green, 0.0])[:, None, None]
    assert psnr_shift(tinted, sharp, max_shift=0).item() > 100
    assert psnr_shift(tinted, sharp, max_shift=0, channels="rgb").item() < 30


@pytest.mark.parametrize("metric", [psnr_rgb, ssim_gauss_rgb, psnr_shift, psnr_shift_gain])
def test_images_that_cannot_be_compared_say_so(metric) -> None:
    with pytest.raises(EvaluationError, match="differ in size: 20×16 against 16×20"):
        metric(torch.zeros(3, 16, 20), torch.zeros(3, 20, 16))
    with pytest.raises(EvaluationError, match=r"\(3,H,W\)"):
        metric(torch.zeros(1, 16, 20), torch.zeros(1, 16, 20))
    with pytest.raises(EvaluationError, match="nothing to score"):
        metric(torch.zeros(3, 0, 20), torch.zeros(3, 0, 20))


def test_images_too_small_say_so() -> None:
    with pytest.raises(EvaluationError, match="11×11"):
        ssim_gauss_rgb(torch.zeros(3, 10, 40), torch.zeros(3, 10, 40))
    with pytest.raises(EvaluationError, match="smaller max_shift"):
        psnr_shift_gain(torch.zeros(3, 40, 40), torch.zeros(3, 40, 40), max_shift=15)
    with pytest.raises(EvaluationError, match="one at a time"):
        align(torch.zeros(2, 3, 40, 40), torch.zeros(2, 3, 40, 40))
    with pytest.raises(EvaluationError, match="'luma', 'ycbcr' or 'rgb'"):
        psnr_shift(torch.zeros(3, 40, 40), torch.zeros(3, 40, 40), max_shift=2, channels="Y")  # type: ignore[arg-type]

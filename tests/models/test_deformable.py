"""Modulated deformable convolution against SciPy's interpolation, and its laws."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from unsmear.models import deformable
from unsmear.models.deformable import DeformableConv2d, deformable_conv2d
from unsmear.models.memory import peak_bytes


def made(n=2, channels=3, out=4, height=8, width=6, side=3, spread=2.0, dtype=torch.float64, seed=0):
    """Features, offsets, modulation, kernel, bias."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    taps = side * side
    modulation = torch.rand((n, taps, height, width), generator=generator, dtype=dtype)
    return (
        normal(n, channels, height, width),
        spread * normal(n, 2 * taps, height, width),
        modulation,
        normal(out, channels, side, side),
        normal(out),
    )


def one_by_one(x, offsets, modulation, weight, bias):
    """Σ_t w_t m_t(p) x(p + t + Δ_t(p)) with SciPy's interpolation of order 1, tap by tap."""
    n, channels, height, width = x.shape
    side = weight.shape[-1]
    rows, columns = np.mgrid[:height, :width]
    out = np.zeros((n, len(weight), height, width)) + bias.numpy()[:, None, None]
    # SciPy's "constant" does not interpolate towards zero beyond the last pixel: a border of zeros does.
    border = np.pad(x.numpy(), ((0, 0), (0, 0), (9, 9), (9, 9)))
    for image in range(n):
        for tap in range(side * side):
            y = rows + tap // side - side // 2 + offsets[image, 2 * tap].numpy()
            z = columns + tap % side - side // 2 + offsets[image, 2 * tap + 1].numpy()
            for channel in range(channels):
                seen = map_coordinates(border[image, channel], [y + 9, z + 9], order=1, mode="constant")
                seen = seen * modulation[image, tap].numpy()
                kernel = weight[:, channel, tap // side, tap % side].numpy()
                out[image] += kernel[:, None, None] * seen
    return torch.from_numpy(out)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_it_is_what_scipy_samples(side):
    arguments = made(side=side)
    torch.testing.assert_close(deformable_conv2d(*arguments), one_by_one(*arguments))


@pytest.mark.parametrize("side", [1, 3, 5])
def test_without_offsets_it_is_a_convolution(side):
    x, offsets, modulation, weight, bias = made(
        height=20, width=33, channels=8, side=side, dtype=torch.float32
    )
    ours = deformable_conv2d(x, 0 * offsets, modulation**0, weight, bias)
    torch.testing.assert_close(ours, F.conv2d(x, weight, bias, padding=side // 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (-3, 2), (50, 0)])
def test_whole_offsets_shift_the_picture(down, right):
    x, offsets, modulation, weight, bias = made()
    offsets[:, 0::2], offsets[:, 1::2] = down, right
    wide = F.pad(x, (60, 60, 60, 60))  # of zeros, as around the picture
    shifted = F.conv2d(wide.roll((-down, -right), (2, 3)), weight, bias, padding=1)[..., 60:-60, 60:-60]
    ours = deformable_conv2d(x, offsets, torch.ones_like(modulation), weight, bias)
    torch.testing.assert_close(ours, shifted)


def test_every_tap_moves_by_its_own_offset_rows_first():
    x, offsets, modulation, weight, _ = made(1, 1, 1)
    offsets.zero_()
    modulation.zero_()[:, 5] = 1  # middle row, right column
    offsets[:, 10], offsets[:, 11] = 2, -1
    expected = torch.zeros_like(x)
    expected[..., :-2, :] = weight[0, 0, 1, 2] * x[..., 2:, :]  # one to the right and one to the left
    torch.testing.assert_close(deformable_conv2d(x, offsets, modulation, weight), expected)


def test_modulation_is_a_factor_of_its_tap():
    x, offsets, modulation, weight, _ = made()
    parts = []
    for tap in range(9):
        alone = torch.zeros_like(modulation)
        alone[:, tap] = 3
        parts.append(deformable_conv2d(x, offsets, alone, weight))
    whole = deformable_conv2d(x, offsets, torch.full_like(modulation, 3), weight)
    torch.testing.assert_close(sum(parts), whole)


def test_gradients_are_exact():
    arguments = made(1, 2, 2, 4, 3, spread=0.7)
    assert torch.autograd.gradcheck(deformable_conv2d, tuple(t.requires_grad_() for t in arguments))


def test_samples_far_outside_are_zero_and_have_no_gradient():
    x, offsets, modulation, weight, _ = made()
    offsets = torch.full_like(offsets, 1e30).requires_grad_()
    out = deformable_conv2d(x, offsets, modulation, weight)
    assert not out.any()
    out.sum().backward()
    assert not offsets.grad.any()


@pytest.mark.parametrize("elements", [1, 3 * 2 * 6 * 27])  # a row at a time; three, with a rest
def test_bands_of_inference_do_not_show(monkeypatch, elements):
    arguments = made()
    whole = deformable_conv2d(*arguments)
    monkeypatch.setattr(deformable, "BAND_ELEMENTS", elements)
    with torch.inference_mode():
        torch.testing.assert_close(deformable_conv2d(*arguments), whole)


def test_bands_keep_memory_small(monkeypatch):
    layer = DeformableConv2d(channels=32, out_channels=8)
    x = torch.rand(1, 32, 512, 64, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(deformable, "BAND_ELEMENTS", 2**18)
    in_bands = peak_bytes(layer, x)
    monkeypatch.setattr(deformable, "BAND_ELEMENTS", 2**40)
    assert in_bands < peak_bytes(layer, x) / 4


def test_batch_is_one_by_one_and_layout_does_not_matter():
    x, *rest = made(3)
    whole = deformable_conv2d(x, *rest)
    offsets, modulation, weight, bias = rest
    singly = [
        deformable_conv2d(x[i : i + 1], offsets[i : i + 1], modulation[i : i + 1], weight, bias)
        for i in range(3)
    ]
    torch.testing.assert_close(whole, torch.cat(singly))
    last = deformable_conv2d(x.contiguous(memory_format=torch.channels_last), *rest)
    torch.testing.assert_close(last, whole)


def test_bfloat16_autocast_rounds_the_product_and_not_the_positions():
    arguments = made(dtype=torch.float32, channels=32, height=16, width=16)
    exact = deformable_conv2d(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        rough = deformable_conv2d(*arguments)
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).norm() < 0.006 * exact.norm()


def test_the_layer_starts_as_half_a_convolution():
    layer = DeformableConv2d(channels=3, out_channels=4)
    x = made(dtype=torch.float32)[0]
    expected = F.conv2d(x / 2, layer.kernel.weight, layer.kernel.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_shapes_that_do_not_fit_are_refused():
    x, offsets, modulation, weight, bias = made()
    with pytest.raises(ValueError, match=r"offsets \(2, 9, 8, 6\).*expected \(2, 18, 8, 6\), \(2, 9, 8, 6\)"):
        deformable_conv2d(x, offsets[:, :9], modulation, weight, bias)
    with pytest.raises(ValueError, match="odd sides"):
        deformable_conv2d(x, offsets[:, :8], modulation[:, :4], weight[..., :2, :2], bias)

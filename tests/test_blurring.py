"""Blur: laws first (adjointness, derivatives, constants, energy, order of masks), then examples, errors."""

import itertools
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
import torch
from torch import Tensor

from unsmear.blurring import (
    add_gaussian_noise,
    add_poisson_gaussian_noise,
    blur,
    blur_adjoint_image,
    blur_adjoint_kernels,
    blur_adjoint_masks,
    check_blur,
    saturate,
    to_linear,
    to_srgb,
)
from unsmear.errors import KernelError

METHODS = ("direct", "fft")
BORDERS = ("reflect", "valid")
F64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_blur(
    height: int, width: int, bases: int, size: int, seed: int = 0, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor]:
    """Dense random kernels and masks on the simplex."""
    g = generator(seed)
    kernels = torch.rand(bases, size, size, generator=g, dtype=dtype)
    masks = torch.rand(bases, height, width, generator=g, dtype=dtype)
    return kernels / kernels.sum((-2, -1), keepdim=True), masks / masks.sum(0)


def patchy_blur(height: int, width: int, bases: int, size: int) -> tuple[Tensor, Tensor]:
    """Masks with holes and kernels with empty borders: what the blocks leave out."""
    kernels, masks = random_blur(height, width, bases, size, seed=5)
    masks[0, :, : width // 3] = 0
    masks[1, height // 4 :] = 0
    masks[1, :, : width // 2] = 0
    masks[2] = 0
    kernels[0, :2] = 0
    kernels[1, :, -1] = 0
    kernels[1, 0] = 0
    return kernels, masks


def picture(*shape: int, seed: int = 1, dtype: torch.dtype = F64) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=dtype)


def margined(height: int, width: int, size: int, border: str) -> tuple[int, int]:
    extra = size - 1 if border == "valid" else 0
    return height + extra, width + extra


def delta(size: int, row: int, column: int) -> Tensor:
    """One tap at (row, column) from the centre."""
    kernel = torch.zeros(1, size, size, dtype=F64)
    kernel[0, size // 2 + row, size // 2 + column] = 1
    return kernel


# Laws


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [random_blur, patchy_blur])
@pytest.mark.parametrize(("height", "width", "bases", "size"), [(13, 18, 3, 7), (9, 8, 18, 3), (6, 5, 3, 5)])
def test_adjointness(make, height, width, bases, size, method, border) -> None:
    """⟨A(u, k, m), r⟩ is the same number taken from the side of the image, the kernels and the masks."""
    kernels, masks = make(height, width, bases, size)
    u = picture(3, *margined(height, width, size, border)) - 0.3
    r = torch.randn(3, height, width, generator=generator(2), dtype=F64)
    options = {"method": method, "border": border}
    expected = (blur(u, kernels, masks, **options) * r).sum()
    scale = u.norm() * r.norm()
    for gradient, tensor in (
        (blur_adjoint_image(r, kernels, masks, **options), u),
        (blur_adjoint_kernels(r, u, masks, kernel_size=size, **options), kernels),
        (blur_adjoint_masks(r, u, kernels, **options), masks),
    ):
        assert gradient.shape == tensor.shape
        assert abs((gradient * tensor).sum() - expected) < 1e-10 * scale


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_adjoints_are_the_automatic_derivatives_of_a_plain_formula(method, border) -> None:
    """The oracle is Eq. 2 written with library calls only, differentiated by torch."""
    kernels, masks = patchy_blur(11, 14, 4, 5)
    u = picture(3, *margined(11, 14, 5, border))
    r = torch.randn(3, 11, 14, generator=generator(2), dtype=F64)
    inputs = [tensor.clone().requires_grad_() for tensor in (u, kernels, masks)]
    wide = (
        inputs[0] if border == "valid" else torch.nn.functional.pad(inputs[0], (2, 2, 2, 2), mode="reflect")
    )
    plain = (torch.nn.functional.conv2d(wide[:, None], inputs[1][:, None]) * inputs[2]).sum(1)
    expected = torch.autograd.grad((plain * r).sum(), inputs)
    options = {"method": method, "border": border}
    torch.testing.assert_close(blur(u, kernels, masks, **options), plain.detach(), rtol=0, atol=1e-12)
    ours = (
        blur_adjoint_image(r, kernels, masks, **options),
        blur_adjoint_kernels(r, u, masks, kernel_size=5, **options),
        blur_adjoint_masks(r, u, kernels, **options),
    )
    own_inputs = [tensor.clone().requires_grad_() for tensor in (u, kernels, masks)]
    automatic = torch.autograd.grad((blur(*own_inputs, **options) * r).sum(), own_inputs)
    for hand, auto, oracle in zip(ours, automatic, expected, strict=True):
        torch.testing.assert_close(hand, oracle, rtol=0, atol=1e-11)
        torch.testing.assert_close(auto, oracle, rtol=0, atol=1e-11)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_to_second_order(method, border) -> None:
    kernels, masks = random_blur(3, 4, 2, 3)

    def function(*tensors: Tensor) -> Tensor:
        return blur(*tensors, method=method, border=border)

    inputs = [picture(1, *margined(3, 4, 3, border)), kernels, masks]
    assert torch.autograd.gradcheck(function, [tensor.requires_grad_() for tensor in inputs])
    inputs[0] = picture(2, 1, *margined(3, 4, 3, border)).requires_grad_()  # a batch that shares k and m
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("method", METHODS)
def test_adjoints_are_differentiable_too(method) -> None:
    kernels, masks = random_blur(3, 4, 2, 3)
    r, u = picture(1, 3, 4, seed=3), picture(1, 3, 4)
    for function, inputs in (
        (lambda a, b, c: blur_adjoint_image(a, b, c, method=method), (r, kernels, masks)),
        (lambda a, b, c: blur_adjoint_kernels(a, b, c, kernel_size=3, method=method), (r, u, masks)),
        (lambda a, b, c: blur_adjoint_masks(a, b, c, method=method), (r, u, kernels)),
    ):
        inputs = [tensor.clone().requires_grad_() for tensor in inputs]
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "size"), [((3, 16, 21), 9), ((1, 3, 3), 7), ((2, 1, 1), 5), ((2, 1, 9), 3)]
)
def test_a_constant_picture_stays_constant_and_values_stay_in_range(shape, size, method) -> None:
    kernels, masks = random_blur(*shape[1:], 4, size)
    constant = torch.full(shape, 0.37, dtype=F64)
    torch.testing.assert_close(blur(constant, kernels, masks, method=method), constant, rtol=0, atol=1e-12)
    u = picture(*shape)
    v = blur(u, kernels, masks, method=method)
    assert v.min() >= u.min() - 1e-12
    assert v.max() <= u.max() + 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_energy(method) -> None:
    """Light is kept where none crosses the border: a dark rim of K//2 + 1 pixels, or a periodic picture."""
    kernels, masks = random_blur(20, 24, 1, 7)
    dark = torch.zeros(3, 20, 24, dtype=F64)
    dark[:, 4:-4, 4:-4] = picture(3, 12, 16)
    v = blur(dark, kernels, masks, method=method)
    torch.testing.assert_close(v.sum((1, 2)), dark.sum((1, 2)), rtol=1e-12, atol=0)
    periodic = picture(3, 20, 24)
    wide = torch.nn.functional.pad(periodic, (3, 3, 3, 3), mode="circular")
    v = blur(wide, kernels, masks, method=method, border="valid")
    torch.testing.assert_close(v.mean((1, 2)), periodic.mean((1, 2)), rtol=1e-12, atol=0)
    assert not torch.allclose(v, periodic, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_a_shifted_delta_moves_the_picture_against_its_shift(method) -> None:
    """Correlation: k = δ(p − d) gives v(i) = u(i + d), so the picture moves by −d."""
    u = picture(1, 12, 15)
    one = torch.ones(1, 12, 15, dtype=F64)
    v = blur(u, delta(7, 2, -3), one, method=method)
    torch.testing.assert_close(v[:, :10, 3:], u[:, 2:, :-3], rtol=0, atol=1e-12)
    torch.testing.assert_close(blur(u, delta(7, 0, 0), one, method=method), u, rtol=0, atol=1e-12)
    # at the border: row 12 is the mirror of row 10, column −1 of column 1
    torch.testing.assert_close(v[:, 10, 3:], u[:, 10, :-3], rtol=0, atol=1e-12)
    torch.testing.assert_close(v[:, :10, 2], u[:, 2:, 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_masks_come_after_the_kernels(method) -> None:
    """Left half still, right half shifted: with masks first the seam would be dark or double."""
    u = torch.ones(1, 8, 16, dtype=F64)
    u[..., 8:] = 0.25
    kernels = torch.cat([delta(9, 0, 0), delta(9, 0, -4)])
    masks = torch.zeros(2, 8, 16, dtype=F64)
    masks[0, :, :8] = 1
    masks[1, :, 8:] = 1
    v = blur(u, kernels, masks, method=method)
    expected = torch.tensor([1.0] * 12 + [0.25] * 4, dtype=F64).expand(1, 8, 16)
    torch.testing.assert_close(v, expected, rtol=0, atol=1e-12)
    swapped = sum(
        blur(u * masks[b], kernels[b : b + 1], torch.ones_like(masks[:1]), method=method) for b in range(2)
    )
    assert (swapped - expected).abs().max() > 0.5


@pytest.mark.parametrize(
    ("shape", "bases", "size"),
    [((3, 40, 33), 5, 11), ((1, 30, 64), 17, 5), ((3, 10, 70), 2, 33), ((2, 3, 4), 3, 9)],
)
def test_both_paths_agree_with_scipy(shape, bases, size) -> None:
    kernels, masks = random_blur(*shape[1:], bases, size)
    u = picture(*shape)
    expected = np.zeros(shape)
    for kernel, mask in zip(kernels.numpy(), masks.numpy(), strict=True):
        responses = [scipy.ndimage.correlate(plane, kernel, mode="mirror") for plane in u.numpy()]
        expected += np.stack(responses) * mask
    for method in (*METHODS, "auto"):
        np.testing.assert_allclose(
            blur(u, kernels, masks, method=method).numpy(), expected, rtol=0, atol=1e-11
        )
    single = [tensor.float() for tensor in (u, kernels, masks)]
    for method in METHODS:
        np.testing.assert_allclose(blur(*single, method=method).numpy(), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("method", METHODS)
def test_valid_border_agrees_with_scipy_signal_and_with_a_crop_of_reflect(method) -> None:
    kernels, masks = random_blur(12, 17, 3, 7)
    wide = picture(2, 18, 23)
    expected = sum(
        np.stack([scipy.signal.correlate(plane, kernel, mode="valid") for plane in wide.numpy()]) * mask
        for kernel, mask in zip(kernels.numpy(), masks.numpy(), strict=True)
    )
    v = blur(wide, kernels, masks, method=method, border="valid")
    np.testing.assert_allclose(v.numpy(), expected, rtol=0, atol=1e-12)
    whole_masks = torch.nn.functional.pad(masks, (3, 3, 3, 3))
    whole = blur(wide, kernels, whole_masks, method=method)
    torch.testing.assert_close(v, whole[:, 3:-3, 3:-3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_batch_is_one_by_one(method) -> None:
    pieces = [random_blur(10, 12, 3, 5, seed=seed) for seed in range(4)]
    kernels, masks = (torch.stack(tensors) for tensors in zip(*pieces, strict=True))
    u, r = picture(4, 3, 10, 12), picture(4, 3, 10, 12, seed=8)
    together = (
        blur(u, kernels, masks, method=method),
        blur_adjoint_image(r, kernels, masks, method=method),
        blur_adjoint_kernels(r, u, masks, kernel_size=5, method=method),
        blur_adjoint_masks(r, u, kernels, method=method),
    )
    for n, (k, m) in enumerate(pieces):
        alone = (
            blur(u[n], k, m, method=method),
            blur_adjoint_image(r[n], k, m, method=method),
            blur_adjoint_kernels(r[n], u[n], m, kernel_size=5, method=method),
            blur_adjoint_masks(r[n], u[n], k, method=method),
        )
        for whole, single in zip(together, alone, strict=True):
            assert torch.equal(whole[n], single)


def test_what_has_no_batch_axis_is_shared() -> None:
    kernels, masks = random_blur(8, 9, 2, 3)
    u = picture(3, 1, 8, 9)
    shared = blur(u, kernels, masks)
    assert torch.equal(shared, blur(u, kernels.expand(3, -1, -1, -1), masks.expand(3, -1, -1, -1)))
    many_kernels = torch.stack([kernels, kernels.flip(0), kernels.flip(-1)])
    v = blur(u[0], many_kernels, masks)
    assert v.shape == (3, 1, 8, 9)
    assert torch.equal(v[2], blur(u[0], many_kernels[2], masks))


@pytest.mark.parametrize("method", METHODS)
def test_leaving_out_zeros_changes_nothing(method) -> None:
    kernels, masks = patchy_blur(24, 30, 5, 9)
    u = picture(3, 24, 30)
    tiny = 1e-300  # fills masks and kernels without changing the result: nothing can be left out
    filled = blur(u, kernels + tiny, masks + tiny, method=method)
    torch.testing.assert_close(blur(u, kernels, masks, method=method), filled, rtol=0, atol=1e-13)
    nothing = blur(u, torch.zeros_like(kernels), masks, method=method)
    assert torch.equal(nothing, torch.zeros_like(u))


def test_dtypes() -> None:
    """float32 unless something is float64; half precisions are widened and only the result is rounded."""
    kernels, masks = random_blur(16, 16, 3, 5)
    u = picture(3, 16, 16)
    exact = blur(u, kernels, masks)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        v = blur(u.to(dtype), kernels, masks)
        assert v.dtype == dtype
        torch.testing.assert_close(
            v.double(), blur(u.to(dtype).double(), kernels, masks), rtol=0, atol=tolerance
        )
    assert exact.dtype == F64
    low = [tensor.bfloat16() for tensor in (u, kernels, masks)]
    assert blur(*low).dtype == torch.bfloat16
    with torch.autocast(
        "cpu", dtype=torch.bfloat16
    ):  # the physics keeps its precision inside a network's autocast
        v = blur(u.float(), kernels.float(), masks.float(), method="direct")
    torch.testing.assert_close(v.double(), exact, rtol=0, atol=1e-6)


def test_auto_takes_the_direct_path_for_small_kernels_only() -> None:
    kernels, masks = random_blur(64, 64, 8, 3, dtype=torch.float32)
    u = picture(3, 64, 64, dtype=torch.float32)
    assert torch.equal(blur(u, kernels, masks), blur(u, kernels, masks, method="direct"))
    kernels, masks = random_blur(64, 64, 8, 33, dtype=torch.float32)
    assert torch.equal(blur(u, kernels, masks), blur(u, kernels, masks, method="fft"))


# Light, saturation, noise


def test_light() -> None:
    x = torch.linspace(0, 1, 65536, dtype=F64)
    assert to_linear(torch.tensor(0.5, dtype=F64)).item() == pytest.approx(0.5**2.2)
    assert (to_srgb(to_linear(x)) - x).abs().max() < 0.25 / 65535
    assert to_srgb(torch.tensor([-1e-9, 0.0, 1.0])).tolist() == [0.0, 0.0, 1.0]
    zero = torch.zeros(3, dtype=F64, requires_grad=True)
    to_srgb(to_linear(zero)).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_linear_light_is_brighter_between_black_and_white() -> None:
    """A fine grid of black and white blurs to 0.5 as encoded values, to 0.73 in linear light."""
    u = (torch.arange(32) % 2).to(F64).expand(1, 32, 32)
    kernel = torch.tensor([[0, 0, 0], [0.25, 0.5, 0.25], [0, 0, 0]], dtype=F64)[None]
    masks = torch.ones(1, 32, 32, dtype=F64)
    assert blur(u, kernel, masks)[0, 5, 5].item() == pytest.approx(0.5)
    assert blur(u, kernel, masks, light="linear")[0, 5, 5].item() == pytest.approx(0.5 ** (1 / 2.2))


def test_saturation() -> None:
    x = torch.linspace(-0.5, 3, 1001, dtype=F64)
    assert torch.equal(saturate(x), x.clamp(max=1))
    smooth = saturate(x, response="smooth")
    formula = x - torch.log1p(torch.exp(50 * (x - 1))) / 50  # Whyte's R with a = 50
    torch.testing.assert_close(smooth, formula, rtol=0, atol=1e-11)
    assert saturate(torch.tensor(1.0, dtype=F64), response="smooth").item() == pytest.approx(
        1 - math.log(2) / 50
    )
    assert (smooth.diff() > -1e-12).all()
    assert smooth.max() <= 1 + 1e-12
    point = torch.tensor([0.2, 0.95, 1.0, 1.2], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: saturate(t, response="smooth"), point)
    with pytest.raises(KernelError, match="response"):
        saturate(x, response="soft")


def test_gaussian_noise() -> None:
    x = torch.full((3, 200, 200), 0.4)
    before = torch.get_rng_state()
    noisy = add_gaussian_noise(x, 0.02, generator(3))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(noisy, add_gaussian_noise(x, 0.02, generator(3)))
    assert not torch.equal(noisy, add_gaussian_noise(x, 0.02, generator(4)))
    residual = noisy - x  # 120,000 samples: the mean is within 5 σ/√n, the deviation within 2 %
    assert abs(residual.mean()) < 5 * 0.02 / 346
    assert residual.std().item() == pytest.approx(0.02, rel=0.02)
    assert scipy.stats.kstest(residual.flatten().numpy() / 0.02, "norm").pvalue > 1e-3


@pytest.mark.parametrize(
    ("level", "shot", "read"), [(0.6, 1e-3, 0.0), (0.6, 1e-3, 0.03), (0.05, 1e-2, 0.001)]
)
def test_poisson_gaussian_noise_has_the_stated_mean_and_variance(level, shot, read) -> None:
    x = torch.full((3, 200, 200), level, dtype=F64)
    noisy = add_poisson_gaussian_noise(x, shot, read, generator(3))
    assert torch.equal(noisy, add_poisson_gaussian_noise(x, shot, read, generator(3)))
    variance = shot * level + read**2
    assert noisy.mean().item() == pytest.approx(level, abs=5 * math.sqrt(variance / x.numel()))
    assert noisy.var().item() == pytest.approx(variance, rel=0.03)
    if read == 0:  # whole electrons
        electrons = noisy / shot
        torch.testing.assert_close(electrons, electrons.round(), rtol=0, atol=1e-3)


def test_no_shot_noise_is_gaussian_noise() -> None:
    x = picture(3, 8, 8, dtype=torch.float32)
    gaussian = add_gaussian_noise(x, 0.01, generator(3))
    assert torch.equal(add_poisson_gaussian_noise(x, 0.0, 0.01, generator(3)), gaussian)
    with pytest.raises(ValueError, match="shot"):
        add_poisson_gaussian_noise(x, -1.0, 0.0, generator())


# Errors

U, K, M = torch.rand(3, 8, 8), torch.full((2, 3, 3), 1 / 9), torch.full((2, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((U[0], K, M), {}, r"sharp has the shape \(8, 8\); expected \(C,H,W\)"),
        ((U, K[0], M), {}, r"kernels has the shape \(3, 3\); expected \(B,K,K\)"),
        ((U, K, M[0]), {}, r"masks has the shape \(8, 8\); expected \(B,H,W\)"),
        ((U, K[:, :2, :2], M), {}, "2×2 taps; expected square kernels of odd size"),
        ((U, K[:, :1], M), {}, "1×3 taps"),
        ((U, K[:1], M), {}, "1 kernels but 2 masks"),
        ((U, K, M[:, :7]), {}, "masks 7×8, sharp 8×8"),
        ((U, K, M), {"border": "valid"}, "sharp 6×6"),
        ((U[:, :2], K, M), {"border": "valid"}, "sharp 0×6"),
        ((U.expand(2, 3, 8, 8), K.expand(3, 2, 3, 3), M), {}, "Batch axes of different length"),
        ((U.mul(255).byte(), K, M), {}, "sharp is torch.uint8"),
        ((U, K, M), {"method": "fast"}, 'expected "auto", "direct" or "fft"'),
        ((U, K, M), {"border": "zero"}, 'expected "reflect" or "valid"'),
        ((U, K, M), {"light": "raw"}, 'expected "srgb" or "linear"'),
        ((U, -K, M), {"validate": True}, "kernels go down to -0.11"),
        ((U, K * 2, M), {"validate": True}, "Sums of each kernel are off one by up to 1"),
        ((U, K, M * 0.9), {"validate": True}, "Sums of the masks at each pixel are off one by up to 0.1"),
        ((U, K, M - 0.6), {"validate": True}, "masks go down to -0.1"),
        ((U, K, M * float("nan")), {"validate": True}, "masks hold values that are not finite"),
    ],
)
def test_what_does_not_fit_is_named(arguments, options, message) -> None:
    with pytest.raises(KernelError, match=message):
        blur(*arguments, **options)


def test_adjoints_name_what_does_not_fit() -> None:
    with pytest.raises(KernelError, match="odd"):
        blur_adjoint_kernels(U, U, M, kernel_size=4)
    with pytest.raises(KernelError, match="residual has 1 channels but sharp has 3"):
        blur_adjoint_masks(U[:1], U, K)
    with pytest.raises(KernelError, match="residual 7×8, masks 8×8"):
        blur_adjoint_image(U[:, :7], K, M)


def test_a_blur_passes_the_check() -> None:
    check_blur(*random_blur(8, 8, 3, 5))
    batches = itertools.repeat(random_blur(8, 8, 3, 5), 2)
    check_blur(*(torch.stack(tensors) for tensors in zip(*batches, strict=True)))
    kernels, masks = random_blur(8, 8, 3, 5, dtype=torch.float32)
    u = picture(3, 8, 8, dtype=torch.float32)
    assert torch.equal(blur(u, kernels, masks, validate=True), blur(u, kernels, masks))

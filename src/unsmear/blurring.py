"""Blur that changes over the picture (Eq. 1–2 of the paper), its three adjoints, light, saturation and noise.

    v(i) = Σ_b m_b(i) · Σ_p k_b(p) · u(i + p),     p from −K//2 to K//2 in both directions            (Eq. 2)

u is the sharp picture, v the blurred one, k_b are B basis kernels and m_b their masks. It is a *correlation*
(the kernel is not flipped), as in the code of the model's authors, and the masks are applied *after* the
kernels. Where i + p falls outside, u is mirrored at its border pixel without repeating it ("reflect").

v is linear in each of u, k and m, so T(r, u, k, m) = Σ_i r(i) v(i) is linear in four tensors and everything
here is one of its four partial derivatives: ∂T/∂r is the blur itself, ∂T/∂u, ∂T/∂k and ∂T/∂m are its
adjoints. Automatic differentiation of any of them, to any order, is again one of them.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from unsmear.errors import KernelError

Method = Literal["auto", "direct", "fft"]
Border = Literal["reflect", "valid"]
Light = Literal["srgb", "linear"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of sRGB values (ITU-R BT.601)."""

GAMMA = 2.2  # of the display curve: linear light = encoded value ** GAMMA (constant of the model's authors)


def blur(
    sharp: Tensor,
    kernels: Tensor,
    masks: Tensor,
    *,
    method: Method = "auto",
    border: Border = "reflect",
    light: Light = "srgb",
    validate: bool = False,
) -> Tensor:
    """Blur a picture with B kernels and B masks: v(i) = Σ_b m_b(i) Σ_p k_b(p) u(i + p) (Eq. 2).

    Args:
        sharp: u, (C,H,W) or (N,C,H,W), any number of channels; usually values in [0, 1].
        kernels: k, (B,K,K) or (N,B,K,K), K odd; a blur has k ≥ 0 and Σ_p k_b(p) = 1.
        masks: m, (B,H,W) or (N,B,H,W); a blur has m ≥ 0 and Σ_b m_b(i) = 1 at each pixel.
            Whichever of the three has no batch axis is shared by the whole batch.
        method: "direct" (time grows with the kernel's area), "fft" (hardly depends on it), or "auto":
            the cheaper one by the measured cost model of docs/BLURRING.md. Both give the same values.
        border: "reflect" mirrors u; the result has the size of u. "valid" takes u with a margin of K//2
            pixels on each side, (C, H+K−1, W+K−1), and never looks outside: for crops out of a larger
            picture.
        light: "srgb" blurs the values as they are (then the map is linear in u); "linear" takes and returns
            sRGB-encoded values but blurs in linear light, x^2.2 before and x^(1/2.2) after.
        validate: also check that kernels and masks are finite, non-negative and sum to one (reads every
            value).

    Returns:
        v, (C,H,W), or (N,C,H,W) if any argument has a batch axis; the dtype of ``sharp``. Arithmetic is
        float64 if any argument is float64 and float32 otherwise (bfloat16 and float16 are widened, the
        result is rounded). Differentiable to any order in sharp, kernels and masks.

    Raises:
        KernelError: shapes that do not fit, or with ``validate`` values that are no blur.

    """
    if light not in ("srgb", "linear"):
        raise KernelError(f'light is {light!r}; expected "srgb" or "linear".')
    if validate:
        check_blur(kernels, masks)
    batched = sharp.ndim == 4 or kernels.ndim == 4 or masks.ndim == 4
    source = to_linear(sharp) if light == "linear" else sharp
    u, k, m = _batch(sharp=source, kernels=kernels, masks=masks)
    margin = _odd_size(k) // 2
    blurred = _derivative("blurred", method, None, _widen(u, margin, border), k, m).to(sharp.dtype)
    blurred = to_srgb(blurred) if light == "linear" else blurred
    return blurred if batched else blurred[0]


def blur_adjoint_image(
    residual: Tensor,
    kernels: Tensor,
    masks: Tensor,
    *,
    method: Method = "auto",
    border: Border = "reflect",
) -> Tensor:
    """Adjoint of :func:`blur` in the picture: u(j) = Σ_b Σ_p k_b(p) · (m_b · r)(j − p), border folded back.

    ⟨blur(u, k, m), r⟩ = ⟨u, blur_adjoint_image(r, k, m)⟩ exactly, border included: what "reflect" has
    mirrored outwards is added back onto the pixels it came from.

    Args:
        residual: r, (C,H,W) or (N,C,H,W).
        kernels: k, (B,K,K) or (N,B,K,K), K odd.
        masks: m, (B,H,W) or (N,B,H,W).
        method: as in :func:`blur`.
        border: as in :func:`blur`; with "valid" the result has the margin, (C, H+K−1, W+K−1).

    Returns:
        (C,H,W), or with a batch axis if any argument has one; dtype of ``residual``, arithmetic as in
        :func:`blur`.

    Raises:
        KernelError: shapes that do not fit.

    """
    batched = residual.ndim == 4 or kernels.ndim == 4 or masks.ndim == 4
    r, k, m = _batch(residual=residual, kernels=kernels, masks=masks)
    margin = _odd_size(k) // 2
    wide = _derivative("sharp", method, r, None, k, m)
    image = _fold(wide, margin, border).to(residual.dtype)
    return image if batched else image[0]


def blur_adjoint_kernels(
    residual: Tensor,
    sharp: Tensor,
    masks: Tensor,
    *,
    kernel_size: int,
    method: Method = "auto",
    border: Border = "reflect",
) -> Tensor:
    """Adjoint of :func:`blur` in the kernels: k_b(p) = Σ_c Σ_i u_c(i + p) · (m_b · r_c)(i), K² lags only.

    Args:
        residual: r, (C,H,W) or (N,C,H,W).
        sharp: u, as in :func:`blur`; with border "valid" it carries the margin of K//2.
        masks: m, (B,H,W) or (N,B,H,W).
        kernel_size: K, odd.
        method: as in :func:`blur`.
        border: as in :func:`blur`.

    Returns:
        (B,K,K), or (N,B,K,K) if any argument has a batch axis (for kernels shared by a batch add them up
        over N); dtype of ``residual``, arithmetic as in :func:`blur`.

    Raises:
        KernelError: shapes that do not fit.

    """
    batched = residual.ndim == 4 or sharp.ndim == 4 or masks.ndim == 4
    r, u, m = _batch(residual=residual, sharp=sharp, masks=masks)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise KernelError(f"kernel_size is {kernel_size}; expected an odd number from 1 upwards.")
    gradient = _derivative("kernels", method, r, _widen(u, kernel_size // 2, border), None, m, kernel_size)
    gradient = gradient.to(residual.dtype)
    return gradient if batched else gradient[0]


def blur_adjoint_masks(
    residual: Tensor,
    sharp: Tensor,
    kernels: Tensor,
    *,
    method: Method = "auto",
    border: Border = "reflect",
) -> Tensor:
    """Adjoint of :func:`blur` in the masks: m_b(i) = Σ_c r_c(i) · Σ_p k_b(p) u_c(i + p).

    Args:
        residual: r, (C,H,W) or (N,C,H,W).
        sharp: u, as in :func:`blur`; with border "valid" it carries the margin of K//2.
        kernels: k, (B,K,K) or (N,B,K,K), K odd.
        method: as in :func:`blur`.
        border: as in :func:`blur`.

    Returns:
        (B,H,W), or (N,B,H,W) if any argument has a batch axis; dtype of ``residual``, arithmetic as in
        :func:`blur`.

    Raises:
        KernelError: shapes that do not fit.

    """
    batched = residual.ndim == 4 or sharp.ndim == 4 or kernels.ndim == 4
    r, u, k = _batch(residual=residual, sharp=sharp, kernels=kernels)
    margin = _odd_size(k) // 2
    gradient = _derivative("masks", method, r, _widen(u, margin, border), k, None).to(residual.dtype)
    return gradient if batched else gradient[0]


def check_blur(kernels: Tensor, masks: Tensor, *, tolerance: float = 1e-3) -> None:
    """Check that kernels and masks are a blur: finite, ≥ 0; a kernel's taps and a pixel's masks sum to 1.

    Args:
        kernels: (..., B,K,K).
        masks: (..., B,H,W).
        tolerance: largest accepted distance of a sum from one, and of a value below zero.

    Raises:
        KernelError: naming the first thing that is wrong.

    """
    for name, values, sums in (
        ("kernels", kernels, kernels.double().sum((-2, -1))),
        ("masks", masks, masks.double().sum(-3)),
    ):
        if not bool(torch.isfinite(values).all()):
            raise KernelError(f"The {name} hold values that are not finite (NaN or infinity).")
        if float(values.min()) < -tolerance:
            raise KernelError(
                f"The {name} go down to {float(values.min()):.4g}; expected values from 0 upwards."
            )
        worst = float((sums - 1).abs().max())
        if worst > tolerance:
            each = "each kernel" if name == "kernels" else "the masks at each pixel"
            raise KernelError(f"Sums of {each} are off one by up to {worst:.4g}; divide by the sum first.")


# Light, saturation, noise


_DARKEST = 1e-12  # linear light below which to_srgb is a straight line: an encoded value of 3.5e-6


def luma(image: Tensor) -> Tensor:
    """Return .299 R + .587 G + .114 B of sRGB values, (3,H,W) to (H,W): what blur is estimated on."""
    return torch.einsum("c,chw->hw", image.new_tensor(LUMA), image)


def to_linear(encoded: Tensor) -> Tensor:
    """Linear light of sRGB-encoded values by the power law x^2.2 (the constant of the model's authors).

    Args:
        encoded: any shape, values from 0 (negative ones count as 0), usually in [0, 1].

    Returns:
        The same shape and dtype. Black is 0 and white is 1.

    """
    return encoded.clamp(min=0).pow(GAMMA)


def to_srgb(linear: Tensor) -> Tensor:
    """Encode linear light: x^(1/2.2), the inverse of :func:`to_linear`.

    The slope of the power law is infinite at 0; below 1e-12 a straight line through 0 replaces it (off by
    less than a quarter of a 16-bit step), so that derivatives stay finite. Negative values become 0.

    Args:
        linear: any shape, linear light, usually in [0, 1].

    Returns:
        The same shape and dtype.

    """
    dark = linear.clamp(min=0, max=_DARKEST) * _DARKEST ** (1 / GAMMA - 1)
    return torch.where(linear > _DARKEST, linear.clamp(min=_DARKEST).pow(1 / GAMMA), dark)


def saturate(
    light: Tensor,
    *,
    response: Literal["clip", "smooth"] = "clip",
    maximum: float = 1.0,
    sharpness: float = 50.0,
) -> Tensor:
    """Response of a sensor that cannot record more than ``maximum``.

    "clip": R(x) = min(x, maximum). "smooth" (Whyte et al. 2014): R(x) = x − log(1 + exp(a (x − maximum))) /
    a with a = ``sharpness`` = 50, differentiable everywhere; x is first limited to maximum + 0.5, where R is
    within 1e-12 of its limit. R(maximum) = maximum − log(2)/a = 0.986 for the defaults.

    Args:
        light: any shape, linear light in units in which ``maximum`` is the full sensor.
        response: "clip" or "smooth".
        maximum: the value at which the sensor is full.
        sharpness: a of the smooth response, per unit of ``light``.

    Returns:
        The same shape and dtype.

    """
    if response == "clip":
        return light.clamp(max=maximum)
    if response != "smooth":
        raise KernelError(f'response is {response!r}; expected "clip" or "smooth".')
    limited = light.clamp(max=maximum + 0.5)
    return limited - F.softplus(limited - maximum, beta=sharpness, threshold=40)


def add_gaussian_noise(image: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """Add independent Gaussian noise: x + σ·n, n ~ N(0, 1). Nothing is clipped.

    Args:
        image: any shape.
        sigma: standard deviation in units of ``image`` (range [0, 1]: 0.01 is 2.55 levels of 255);
            a number or a tensor that broadcasts.
        generator: where the randomness comes from; the global generator is not touched.

    Returns:
        The same shape and dtype.

    """
    return image + sigma * _normal_like(image, generator)


def add_poisson_gaussian_noise(
    image: Tensor, shot: float, read: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Noise of a sensor in linear light: shot·Poisson(x / shot) + read·n; mean x, variance shot·x + read².

    Args:
        image: any shape, linear light (negative values count as 0), 1 = full sensor.
        shot: light of one electron, 1 / (electrons of a full sensor); 0.0001 is a full well of 10,000. 0: no
            shot noise.
        read: standard deviation of the read-out noise in units of ``image``.
        generator: where the randomness comes from; the global generator is not touched.

    Returns:
        The same shape and dtype; nothing is clipped. No derivative through the counts.

    """
    if shot < 0:
        raise ValueError(f"shot is {shot}; expected 0 or more.")
    counted = image
    if shot > 0:
        electrons = (image.detach().clamp(min=0) / shot).to(generator.device, torch.float32)
        counted = (shot * torch.poisson(electrons, generator=generator)).to(image)
    return add_gaussian_noise(counted, read, generator)


def _normal_like(image: Tensor, generator: torch.Generator) -> Tensor:
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    noise = torch.randn(image.shape, generator=generator, device=generator.device, dtype=dtype)
    return noise.to(image)


# Shapes and borders


def _batch(**tensors: Tensor) -> list[Tensor]:
    """Give each tensor a batch axis of one common length and the dtype of the arithmetic."""
    for name, tensor in tensors.items():
        if tensor.ndim not in (3, 4):
            axes = {"kernels": "(B,K,K) or (N,B,K,K)", "masks": "(B,H,W) or (N,B,H,W)"}
            expected = axes.get(name, "(C,H,W) or (N,C,H,W)")
            raise KernelError(f"{name} has the shape {tuple(tensor.shape)}; expected {expected}.")
        if not tensor.is_floating_point():
            raise KernelError(f"{name} is {tensor.dtype}; expected floating point.")
    lengths = {tensor.shape[0] for tensor in tensors.values() if tensor.ndim == 4}
    if len(lengths) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise KernelError(f"Batch axes of different length: {shapes}; expected one N for all, or none.")
    length = lengths.pop() if lengths else 1
    if (
        "kernels" in tensors
        and "masks" in tensors
        and tensors["kernels"].shape[-3] != tensors["masks"].shape[-3]
    ):
        kernels, masks = tensors["kernels"].shape[-3], tensors["masks"].shape[-3]
        raise KernelError(f"{kernels} kernels but {masks} masks; expected one mask for each kernel.")
    if (
        "residual" in tensors
        and "sharp" in tensors
        and tensors["residual"].shape[-3] != tensors["sharp"].shape[-3]
    ):
        channels = tensors["residual"].shape[-3], tensors["sharp"].shape[-3]
        raise KernelError(
            f"residual has {channels[0]} channels but sharp has {channels[1]}; expected the same."
        )
    wide = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    dtype = torch.float64 if wide else torch.float32
    return [
        (tensor if tensor.ndim == 4 else tensor.expand(length, *tensor.shape)).to(dtype)
        for tensor in tensors.values()
    ]


def _odd_size(kernels: Tensor) -> int:
    height, width = kernels.shape[-2:]
    if height != width or height % 2 == 0:
        raise KernelError(f"Kernels of {height}×{width} taps; expected square kernels of odd size.")
    return width


def _mirrored(size: int, margin: int) -> Tensor:
    """Index of the pixel seen at each place of −margin … size−1+margin; repeats every 2·size − 2 places."""
    period = max(2 * size - 2, 1)
    place = torch.arange(-margin, size + margin) % period
    return torch.minimum(place, period - place)


def _widen(image: Tensor, margin: int, border: Border) -> Tensor:
    """Give the image its margin: mirror it ("reflect"), or nothing to do because it has one ("valid")."""
    if border not in ("reflect", "valid"):
        raise KernelError(f'border is {border!r}; expected "reflect" or "valid".')
    if border == "valid" or margin == 0:
        return image
    height, width = image.shape[-2:]
    if margin < min(height, width):
        return F.pad(image, (margin, margin, margin, margin), mode="reflect")
    rows, columns = (_mirrored(size, margin).to(image.device) for size in (height, width))
    return image.index_select(-2, rows).index_select(-1, columns)


def _fold(wide: Tensor, margin: int, border: Border) -> Tensor:
    """Adjoint of :func:`_widen`: each margin pixel is added to the pixel that it mirrors."""
    if border not in ("reflect", "valid"):
        raise KernelError(f'border is {border!r}; expected "reflect" or "valid".')
    if border == "valid" or margin == 0:
        return wide
    for axis in (-2, -1):
        size = wide.shape[axis] - 2 * margin
        inner = wide.narrow(axis, margin, size)
        outer = torch.cat([wide.narrow(axis, 0, margin), wide.narrow(axis, margin + size, margin)], axis)
        index = _mirrored(size, margin).to(wide.device)
        wide = inner.index_add(axis, torch.cat([index[:margin], index[margin + size :]]), outer)
    return wide


# The form T(r, u, k, m) and its four derivatives; u has its margin here, every tensor has a batch axis

_SLOTS = ("blurred", "sharp", "kernels", "masks")


def _derivative(
    slot: str,
    method: Method,
    residual: Tensor | None,
    wide: Tensor | None,
    kernels: Tensor | None,
    masks: Tensor | None,
    kernel_size: int | None = None,
) -> Tensor:
    """∂T/∂slot; the tensor of that slot is None. Checks that the sizes of the others fit."""
    if method not in ("auto", "direct", "fft"):
        raise KernelError(f'method is {method!r}; expected "auto", "direct" or "fft".')
    size = kernels.shape[-1] if kernels is not None else kernel_size
    sizes = {}
    if residual is not None:
        sizes["residual"] = tuple(residual.shape[-2:])
    if masks is not None:
        sizes["masks"] = tuple(masks.shape[-2:])
    if wide is not None and size is not None:
        sizes["sharp"] = tuple(length - size + 1 for length in wide.shape[-2:])
    if len(set(sizes.values())) > 1 or min(min(pair) for pair in sizes.values()) < 1:
        named = ", ".join(f"{name} {height}×{width}" for name, (height, width) in sizes.items())
        raise KernelError(
            f'Sizes (for border="valid" that of sharp without its margin): {named}; expected all the same.'
        )
    return cast(Tensor, _Derivative.apply(slot, method, residual, wide, kernels, masks))  # type: ignore[no-untyped-call]


class _Derivative(torch.autograd.Function):
    """∂T/∂slot as a function of the other three tensors.

    For a gradient g the derivative of ⟨g, ∂T/∂slot⟩ by another tensor is the derivative of T by that tensor,
    with g in the place of ``slot``: the same function again, so that derivatives of any order exist.
    """

    @staticmethod
    def forward(ctx: Any, slot: str, method: Method, *tensors: Tensor | None) -> Tensor:
        ctx.slot, ctx.method = slot, method
        ctx.save_for_backward(*tensors)
        given = [tensor for tensor in tensors if tensor is not None]
        compute = _COMPUTE[slot]
        with torch.autocast(given[0].device.type, enabled=False):
            return torch.stack([compute(*one, method) for one in zip(*given, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors = list(ctx.saved_tensors)
        tensors[_SLOTS.index(ctx.slot)] = gradients[0]
        result: list[Tensor | None] = []
        for place, slot in enumerate(_SLOTS):
            others = [None if other == place else tensor for other, tensor in enumerate(tensors)]
            needed = slot != ctx.slot and ctx.needs_input_grad[2 + place]
            result.append(_Derivative.apply(slot, ctx.method, *others) if needed else None)  # type: ignore[no-untyped-call]
        return None, None, *result


def _blurred(wide: Tensor, kernels: Tensor, masks: Tensor, method: Method) -> Tensor:
    result = wide.new_zeros(wide.shape[0], *masks.shape[-2:])
    for k, m, seen, written in _blocks(kernels, masks):
        part = result[(..., *written)]
        for first, responses in _responses(wide[(..., *seen)], k, method):
            for response, mask in zip(responses, m[first:], strict=False):
                part.addcmul_(response, mask)
    return result


def _to_image(residual: Tensor, kernels: Tensor, masks: Tensor, method: Method) -> Tensor:
    height, width = (length + kernels.shape[-1] - 1 for length in masks.shape[-2:])
    result = residual.new_zeros(residual.shape[0], height, width)
    for k, m, seen, written in _blocks(kernels, masks):
        result[(..., *seen)] += _spread(residual[(..., *written)], k, m, method)
    return result


def _to_kernels(residual: Tensor, wide: Tensor, masks: Tensor, method: Method) -> Tensor:
    size = wide.shape[-1] - residual.shape[-1] + 1
    channels = len(residual)
    result = residual.new_zeros(len(masks), size, size)
    if _cheaper(method, wide, len(masks), (size, size)) == "direct":
        for first in range(0, len(masks), _OUTPUTS_AT_ONCE):
            m = masks[first : first + _OUTPUTS_AT_ONCE]
            masked = residual[:, None] * m  # (C,b,H,W)
            shape = (len(m), 1, size, size)
            gradient = conv2d_weight(wide[:, None], shape, masked)  # type: ignore[no-untyped-call]
            result[first : first + len(m)] = gradient[:, 0]
        return result
    fft_size = _fft_size(wide)
    mirrored = _spectrum(wide, fft_size).conj().resolve_conj()
    for first, m in _pieces(masks, channels, fft_size):
        product = (_masked_spectrum(residual, m, fft_size) * mirrored).sum(1)
        result[first : first + len(m)] = _inverse(product.conj(), (0, 0), (size, size), fft_size)
    return result


def _to_masks(residual: Tensor, wide: Tensor, kernels: Tensor, method: Method) -> Tensor:
    result = residual.new_empty(len(kernels), *residual.shape[-2:])
    for first, responses in _responses(wide, kernels, method):
        torch.sum(responses * residual, 1, out=result[first : first + len(responses)])
    return result


_COMPUTE: dict[str, Callable[..., Tensor]] = {
    "blurred": _blurred,
    "sharp": _to_image,
    "kernels": _to_kernels,
    "masks": _to_masks,
}

# Blocks: where the work can be left out

_Window = tuple[slice, slice]


def _blocks(kernels: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor, _Window, _Window]]:
    """Split B kernels into groups done together: (kernels, masks, window of u to read, window of v to write).

    On the CPU a kernel whose mask, with the kernel's margin, reaches over less than half of the picture is
    done alone, inside the mask's bounding box; kernels are cut to the box of their non-zero taps. A group
    costs one transform of u more, but a kernel with a small mask saves most of its own.
    """
    height, width = masks.shape[-2:]
    size = kernels.shape[-1]
    if masks.device.type != "cpu":
        everything = (slice(height + size - 1), slice(width + size - 1))
        yield kernels, masks, everything, (slice(height), slice(width))
        return
    groups: list[tuple[list[int], _Window]] = []
    together: list[int] = []
    for number, (rows, columns) in enumerate(_boxes(masks)):
        used_height, used_width = rows.stop - rows.start, columns.stop - columns.start
        if 2 * (used_height + size - 1) * (used_width + size - 1) > (height + size - 1) * (width + size - 1):
            together.append(number)
        elif used_height > 0:
            groups.append(([number], (rows, columns)))
    if together:
        groups.insert(0, (together, (slice(0, height), slice(0, width))))
    taps = _boxes(kernels)
    for numbers, (rows, columns) in groups:
        used = [box for box in (taps[number] for number in numbers) if box[0].stop > 0]
        if not used:
            continue
        top, left = (min(box[axis].start for box in used) for axis in (0, 1))
        bottom, right = (max(box[axis].stop for box in used) for axis in (0, 1))
        chosen = slice(None) if len(numbers) == len(kernels) else numbers
        yield (
            kernels[chosen, top:bottom, left:right],
            masks[chosen, rows, columns],
            (
                slice(rows.start + top, rows.stop + bottom - 1),
                slice(columns.start + left, columns.stop + right - 1),
            ),
            (rows, columns),
        )


def _boxes(planes: Tensor) -> list[_Window]:
    """Bounding box of the non-zero values of each plane of (B,H,W); slice(0, 0) for a plane of zeros."""
    boxes = []
    for plane in planes.detach().numpy():
        if all(edge.any() for edge in (plane[0], plane[-1], plane[:, 0], plane[:, -1])):
            boxes.append((slice(0, plane.shape[0]), slice(0, plane.shape[1])))  # dense planes cost no more
            continue
        rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
        if rows.size == 0:
            boxes.append((slice(0, 0), slice(0, 0)))
        else:
            boxes.append(
                (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
            )
    return boxes


# The two paths

_OUTPUTS_AT_ONCE = 16  # the CPU's convolution works on 16 output channels at once: 1 costs as much as 16
_INPUTS_AT_ONCE = 8  # from 16 input channels on it takes a slower way for small kernels
_PIECE_BYTES = {"cpu": 2**20, "cuda": 2**28}  # CPU: what stays in the second-level cache
# Seconds, measured with benchmarks/blurring.py on one core of the machine in docs/BLURRING.md; only their
# ratio counts.
_DIRECT_COST = 0.29e-9  # per tap, pixel, channel and 16 kernels (for the adjoint in the image: and kernel)
_FFT_COST = 0.15e-9  # per n·log2(n) of one real transform of n pixels with its product and mask


def _cheaper(
    method: Method, wide: Tensor, bases: int, taps: tuple[int, int], *, outputs: int = _OUTPUTS_AT_ONCE
) -> Method:
    """Pick the path by the cost model; ``outputs`` says how many kernels one convolution does at once."""
    if method != "auto":
        return method
    channels, height, width = wide.shape
    pixels = (height - taps[0] + 1) * (width - taps[1] + 1)
    direct = _DIRECT_COST * taps[0] * taps[1] * pixels * channels * math.ceil(bases / outputs)
    rows, columns = _fft_size(wide)
    transforms = channels + bases * (channels + 0.5)  # a kernel has few rows: half a transform
    return "direct" if direct < _FFT_COST * rows * columns * math.log2(rows * columns) * transforms else "fft"


def _responses(wide: Tensor, kernels: Tensor, method: Method) -> Iterator[tuple[int, Tensor]]:
    """Σ_p k_b(p) u(i + p) for some b at a time: (number of the first b, (b,C,H,W))."""
    taps = kernels.shape[-2], kernels.shape[-1]
    channels, height, width = wide.shape
    if _cheaper(method, wide, len(kernels), taps) == "direct":
        for first in range(0, len(kernels), _OUTPUTS_AT_ONCE):
            weights = kernels[first : first + _OUTPUTS_AT_ONCE, None]
            yield first, F.conv2d(wide[:, None], weights).transpose(0, 1)
        return
    fft_size = _fft_size(wide)
    spectrum = _spectrum(wide, fft_size)
    valid = (height - taps[0] + 1, width - taps[1] + 1)
    # A product of spectra is a convolution, so the kernel is flipped; what wraps around lies before its last
    # tap.
    corner = (taps[0] - 1, taps[1] - 1)
    for first, k in _pieces(kernels.flip(-2, -1), channels, fft_size):
        yield first, _inverse(_spectrum(k, fft_size)[:, None] * spectrum, corner, valid, fft_size)


def _spread(residual: Tensor, kernels: Tensor, masks: Tensor, method: Method) -> Tensor:
    """Σ_b Σ_p k_b(p) (m_b r)(j − p) on the widened grid, (C, H+K−1, W+K−1)."""
    taps = kernels.shape[-2], kernels.shape[-1]
    channels, height, width = residual.shape
    wide_size = (height + taps[0] - 1, width + taps[1] - 1)
    wide = residual.new_empty(()).expand(channels, *wide_size)  # only its shape is read
    if _cheaper(method, wide, len(kernels), taps, outputs=1) == "direct":
        # The library's transposed convolution is several times slower than a convolution with flipped
        # kernels.
        margins = (taps[1] - 1, taps[1] - 1, taps[0] - 1, taps[0] - 1)
        flipped = kernels.flip(-2, -1)
        result = residual.new_zeros(channels, *wide_size)
        for first in range(0, len(kernels), _INPUTS_AT_ONCE):
            masked = residual[:, None] * masks[first : first + _INPUTS_AT_ONCE]  # (C,b,H,W)
            weights = flipped[None, first : first + _INPUTS_AT_ONCE]
            result += F.conv2d(F.pad(masked, margins), weights)[:, 0]
        return result
    fft_size = _fft_size(wide)
    complex_dtype = torch.complex128 if residual.dtype == torch.float64 else torch.complex64
    total = residual.new_zeros(channels, fft_size[0], fft_size[1] // 2 + 1, dtype=complex_dtype)
    for first, k in _pieces(kernels, channels, fft_size):
        masked = _masked_spectrum(residual, masks[first : first + len(k)], fft_size)
        for transfer, spectrum in zip(_spectrum(k, fft_size), masked, strict=True):
            total.addcmul_(transfer, spectrum)
    return _inverse(total, (0, 0), wide_size, fft_size)


def _pieces(planes: Tensor, channels: int, fft_size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """Yield (number of the first, planes): as many of the B planes as keep their transforms in the cache."""
    budget = _PIECE_BYTES.get(planes.device.type, _PIECE_BYTES["cuda"])
    count = max(1, budget // (planes.element_size() * channels * fft_size[0] * fft_size[1]))
    for first in range(0, len(planes), count):
        yield first, planes[first : first + count]


def _fft_size(wide: Tensor) -> tuple[int, int]:
    # With its margin, u is large enough: whatever wraps around falls on places that are not kept.
    return good_length(wide.shape[-2]), good_length(wide.shape[-1])


@lru_cache(maxsize=1024)
def good_length(length: int) -> int:
    """Return the least even number from ``length`` up without a prime factor above 5: fast everywhere."""
    candidate = max(2, length + length % 2)
    while True:
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
        candidate += 2


def _spectrum(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Real 2-D transform of planes filled up with zeros; rows first, so that rows of zeros cost nothing."""
    rows: Tensor = torch.fft.rfft(planes, n=size[1])
    return cast(Tensor, torch.fft.fft(rows, n=size[0], dim=-2))


def _masked_spectrum(residual: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Transforms of m_b · r, (b,C,…); written into zeros of the full size, which saves a copy of each."""
    (channels, height, width), bases = residual.shape, len(masks)
    masked = residual.new_zeros(bases, channels, *size)
    torch.mul(residual, masks[:, None], out=masked[..., :height, :width])
    return _spectrum(masked, size)


def _inverse(
    spectrum: Tensor, corner: tuple[int, int], shape: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Inverse of :func:`_spectrum`: the part of ``shape`` from ``corner`` on; other rows are left out."""
    rows = torch.fft.ifft(spectrum, dim=-2)[..., corner[0] : corner[0] + shape[0], :]
    planes: Tensor = torch.fft.irfft(rows, n=size[1])
    return planes[..., corner[1] : corner[1] + shape[1]]

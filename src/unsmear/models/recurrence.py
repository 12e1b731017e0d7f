"""Linear recurrences over a picture, in four directions, with a gate for every pixel and channel.

    h_t = (1 − g_t) x_t + g_t h_{t−1},   h_{−1} = 0,   t along a row (right, left) or a column (down, up)

is linear in h, so both passes are scans h_t = b_t + a_t h_{t−1}: b = (1 − g) x and a = g forward, and the
gradient, g moved by one step, backwards. A step is one fused operation on a whole column (or row) of all
channels, whose numbers lie side by side because the features are kept channels last. Where a step costs more
to launch than to compute (a GPU), the scan runs in chunks, all of them at once, and then passes on what each
chunk hands to the next. Nothing is divided and no logarithm is taken: gates may be zero, negative and of
size one. Figures: docs/PERFORMANCE.md.
"""

from itertools import pairwise
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROW, COLUMN = 2, 1
"""Axes of (N, H, W, C) along which a row (right, left) and a column (down, up) are walked."""

DIRECTIONS = ((ROW, False), (ROW, True), (COLUMN, False), (COLUMN, True))
"""(axis, backwards) of right, left, down, up: the order of the gates and of the result."""


def four_directions(features: Tensor, gates: Tensor) -> Tensor:
    """Run h_t = (1 − g_t) x_t + g_t h_{t−1} to the right, to the left, down and up.

    Args:
        features: x (N, C, H, W), of any memory layout; channels last is not copied.
        gates: g (N, 4C, H, W), those of right, left, down, up one after the other. For |g| ≤ q < 1,
            |h| ≤ (1 + q) / (1 − q) · max |x|; for 0 ≤ g ≤ 1, |h| ≤ max |x|.

    Returns:
        h (N, 4C, H, W), in the same order, channels last in memory; float32, whatever the autocast (float64
        for float64).

    Raises:
        ValueError: the shapes do not fit.
    """
    n, channels, height, width = features.shape
    if gates.shape != (n, 4 * channels, height, width):
        raise ValueError(f"gates {tuple(gates.shape)}: expected 4 for each of {tuple(features.shape)}")
    wide = torch.promote_types(features.dtype, torch.float32)
    x, g = (t.to(wide).permute(0, 2, 3, 1).contiguous() for t in (features, gates))  # (N, H, W, C or 4C)
    return _FourDirections.apply(x, g).permute(0, 3, 1, 2)  # type: ignore[no-any-return, no-untyped-call]


def scan(
    values: Tensor,
    decay: Tensor,
    out: Tensor,
    axis: int,
    *,
    blend: bool = False,
    backwards: bool = False,
    first: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Write h_t = b_t + a_t h_{t−1}, or with `blend` h_t = (1 − a_t) b_t + a_t h_{t−1}, along an axis.

    Args:
        values: b.
        decay: a, of the same shape.
        out: h, of the same shape; must not overlap the others.
        axis: along which t runs.
        blend: the second formula, as one fused operation.
        backwards: t runs from the last to the first.
        first: h before the first step, of the shape with length 1 along the axis; zero by default.
        chunk: steps that are walked one by one; chunks of so many run at once. None: all steps on a CPU,
            where another pass over memory costs more than a step does; √T elsewhere.

    Returns:
        `out`.
    """
    steps = values.shape[axis]
    chunk = chunk or max(1, steps if values.device.type == "cpu" else isqrt(steps))
    whole = steps // chunk * chunk if steps >= 2 * chunk else 0  # in chunks; the rest follows one by one
    order = slice(None, None, -1 if backwards else 1)
    if whole:
        parts = [t.narrow(axis, steps - whole if backwards else 0, whole) for t in (values, decay, out)]
        b, a, h = (torch.unflatten(t, axis, (-1, chunk)) for t in parts)  # (…, chunks, steps, …)
        before = torch.zeros_like(h.select(axis + 1, 0))
        if first is not None:
            before.narrow(axis, -1 if backwards else 0, 1).copy_(first)
        products = a.clone()  # of a, from the beginning of its chunk
        walked = products.unbind(axis + 1)[order]
        for one, other in pairwise(walked):
            other.mul_(one)
        _walk(*(t.unbind(axis + 1)[order] for t in (b, a, h)), before=before, blend=blend)
        chunks, factors = h.unbind(axis)[order], products.unbind(axis)[order]
        for (one, other), factor in zip(pairwise(chunks), factors[1:], strict=True):
            other.addcmul_(factor, one.narrow(axis, 0 if backwards else chunk - 1, 1))
        first = out.narrow(axis, steps - whole if backwards else whole - 1, 1)
    if steps > whole:
        before = torch.zeros_like(out.select(axis, 0)) if first is None else first.squeeze(axis)
        rest = [t.narrow(axis, 0 if backwards else whole, steps - whole) for t in (values, decay, out)]
        _walk(*(t.unbind(axis)[order] for t in rest), before=before, blend=blend)
    return out


Slices = tuple[Tensor, ...]


def _walk(values: Slices, decay: Slices, out: Slices, *, before: Tensor, blend: bool) -> None:
    for b, a, h in zip(values, decay, out, strict=True):
        before = torch.lerp(b, before, a, out=h) if blend else torch.addcmul(b, a, before, out=h)


class _FourDirections(torch.autograd.Function):
    """x (N, H, W, C) and g (N, H, W, 4C) to h (N, H, W, 4C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor) -> Tensor:
        h = torch.empty_like(g)
        for (axis, backwards), gate, out in _parts(g, h):
            scan(x, gate, out, axis, blend=True, backwards=backwards)
        ctx.save_for_backward(x, g, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, g, h = ctx.saved_tensors
        x_gradient, g_gradient, d = torch.zeros_like(x), torch.empty_like(g), torch.empty_like(x)
        parts = zip(_parts(g, h), _parts(gradient, g_gradient), strict=True)
        for ((axis, backwards), gate, out), (_, given, gate_gradient) in parts:
            # d_t = given_t + g_{t+1} d_{t+1}: the scan the other way, with the gates of the step after
            steps = x.shape[axis] - 1
            begin, end = (0, steps) if backwards else (steps, 0)  # last and first step of the forward scan
            after, before = (0, 1) if backwards else (1, 0)  # where h_t and h_{t−1} start, as they lie
            first = d.narrow(axis, begin, 1).copy_(given.narrow(axis, begin, 1))
            values, to = (t.narrow(axis, before, steps) for t in (given, d))
            scan(values, gate.narrow(axis, after, steps), to, axis, backwards=not backwards, first=first)
            x_gradient.add_(d).addcmul_(gate, d, value=-1)
            # d h_t / d g_t = h_{t−1} − x_t
            torch.neg(x.narrow(axis, end, 1), out=gate_gradient.narrow(axis, end, 1))
            left, here = out.narrow(axis, before, steps), x.narrow(axis, after, steps)
            torch.sub(left, here, out=gate_gradient.narrow(axis, after, steps))
            gate_gradient.mul_(d)
        return x_gradient, g_gradient


def _parts(one: Tensor, other: Tensor) -> list[tuple[tuple[int, bool], Tensor, Tensor]]:
    return list(zip(DIRECTIONS, one.chunk(4, -1), other.chunk(4, -1), strict=True))

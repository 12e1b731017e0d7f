"""Attention within many small windows at once, with a bias that is learned: exact, and quick on a CPU.

PyTorch's fused attention falls back to plain matrix products as soon as its bias wants a gradient. Here both
passes walk through the windows in pieces that stay in the processor's cache, the softmax is done in float32
(twice as fast as in bfloat16, and more exact), and of each window only the attention weights are kept for the
backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CACHE_ELEMENTS = 2**18
"""Attention weights held at a time: 1 MiB in float32, the size of one core's second-level cache."""


def window_attention(qkv: Tensor, bias: Tensor) -> Tensor:
    """softmax(Q Kᵀ/√d + B) V within each window.

    Args:
        qkv: (M, T, 3, heads, d), M windows of T tokens.
        bias: B (heads, T, T), the same for all windows.

    Returns:
        (M, T, heads, d), in the dtype of qkv.
    """
    if torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad):
        return _Attention.apply(qkv, bias)  # type: ignore[no-any-return, no-untyped-call]
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype)).transpose(1, 2)


def _pieces(qkv: Tensor) -> Iterator[slice]:
    windows, tokens, _, heads, _ = qkv.shape
    step = windows if qkv.is_cuda else max(1, CACHE_ELEMENTS // (heads * tokens * tokens))
    return (slice(start, start + step) for start in range(0, windows, step))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        windows, tokens, _, heads, width = qkv.shape
        out = qkv.new_empty(windows, tokens, heads, width)
        weights = qkv.new_empty(windows, heads, tokens, tokens)
        scaled = bias * width**0.5
        for piece in _pieces(qkv):
            q, k, v = qkv[piece].permute(2, 0, 3, 1, 4)
            logits = ((q @ k.transpose(-1, -2)).to(bias.dtype) + scaled).mul_(width**-0.5)
            weights[piece] = logits.softmax(-1)
            out[piece] = (weights[piece] @ v).transpose(1, 2)
        ctx.save_for_backward(qkv, weights)
        ctx.bias_dtype = bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        qkv, weights = ctx.saved_tensors
        qkv_gradient = torch.empty_like(qkv)
        bias_gradient = weights.new_zeros(weights.shape[1:], dtype=ctx.bias_dtype)
        for piece in _pieces(qkv):
            q, k, v = qkv[piece].permute(2, 0, 3, 1, 4)
            outer = gradient[piece].transpose(1, 2)
            inner = torch.ops.aten._softmax_backward_data(
                outer @ v.transpose(-1, -2), weights[piece], -1, qkv.dtype
            )
            parts = qkv_gradient[piece].permute(2, 0, 3, 1, 4)
            torch.mul(inner @ k, q.shape[-1] ** -0.5, out=parts[0])
            torch.mul(inner.transpose(-1, -2) @ q, q.shape[-1] ** -0.5, out=parts[1])
            parts[2] = weights[piece].transpose(-1, -2) @ outer
            bias_gradient += inner.sum(0, dtype=ctx.bias_dtype)
        return qkv_gradient, bias_gradient

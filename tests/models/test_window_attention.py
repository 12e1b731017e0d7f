import pytest
import torch
from torch.nn import functional as F

from unsmear.models import window_attention as module
from unsmear.models.window_attention import window_attention


def made(windows=5, tokens=9, heads=2, width=4, dtype=torch.float32, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = scale * torch.randn(windows, tokens, 3, heads, width, generator=generator, dtype=dtype)
    return qkv, torch.randn(heads, tokens, tokens, generator=generator, dtype=dtype)


def naive(qkv, bias):
    """softmax(Q Kᵀ/√d + B) V, window by window and head by head."""
    out = torch.empty_like(qkv[:, :, 0])
    for window in range(qkv.shape[0]):
        for head in range(qkv.shape[3]):
            q, k, v = qkv[window, :, :, head].unbind(1)
            out[window, :, head] = torch.softmax(q @ k.T / q.shape[-1] ** 0.5 + bias[head], -1) @ v
    return out


def test_both_paths_are_the_formula():
    qkv, bias = made(dtype=torch.float64)
    expected = naive(qkv, bias)
    torch.testing.assert_close(window_attention(qkv, bias), expected)
    torch.testing.assert_close(window_attention(qkv.requires_grad_(), bias), expected)


@pytest.mark.parametrize("wanting", [(True, True), (True, False), (False, True)])
def test_gradients_are_exact(wanting):
    qkv, bias = made(3, 4, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        window_attention, (qkv.requires_grad_(wanting[0]), bias.requires_grad_(wanting[1]))
    )


def test_gradients_are_those_of_torch():
    ours, theirs = (
        [t.requires_grad_() for t in made(windows=6, tokens=64, heads=4, width=8)] for _ in range(2)
    )
    weight = torch.randn(6, 64, 4, 8, generator=torch.Generator().manual_seed(1))
    (window_attention(*ours) * weight).sum().backward()
    q, k, v = theirs[0].permute(2, 0, 3, 1, 4)
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=theirs[1][None]).transpose(1, 2)
    (fused * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("elements", [1, 2 * 81, 5 * 81])  # one window at a time; one; two, with a rest
def test_pieces_do_not_show(monkeypatch, elements):
    def results():
        qkv, bias = (t.requires_grad_() for t in made(dtype=torch.float64))
        out = window_attention(qkv, bias)
        (out**2).sum().backward()
        return out, qkv.grad, bias.grad

    whole = results()
    monkeypatch.setattr(module, "CACHE_ELEMENTS", elements)
    pieces = list(module._pieces(made()[0]))
    assert len(pieces) == {1: 5, 2 * 81: 5, 5 * 81: 3}[elements]
    for one, other in zip(results(), whole, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("grad", [True, False])
def test_bfloat16_is_as_close_as_its_rounding(grad):
    qkv, bias = made(windows=8, tokens=64, heads=4, width=16)
    expected = naive(qkv, bias)
    out = window_attention(qkv.bfloat16().requires_grad_(grad), bias)
    assert out.dtype == torch.bfloat16
    assert out.requires_grad == grad
    assert (out.float() - expected).norm() < 0.01 * expected.norm()


def test_bfloat16_gradients_are_close_and_the_bias_keeps_its_own_type():
    qkv, bias = (t.requires_grad_() for t in made(windows=8, tokens=64, heads=4, width=16))
    (window_attention(qkv, bias) ** 2).sum().backward()
    rough, rough_bias = qkv.detach().bfloat16().requires_grad_(), bias.detach().clone().requires_grad_()
    (window_attention(rough, rough_bias) ** 2).sum().backward()
    assert rough.grad.dtype == torch.bfloat16
    assert rough_bias.grad.dtype == torch.float32
    assert (rough.grad.float() - qkv.grad).norm() < 0.02 * qkv.grad.norm()
    assert (rough_bias.grad - bias.grad).norm() < 0.02 * bias.grad.norm()


@pytest.mark.parametrize("grad", [True, False])
def test_large_logits_do_not_overflow(grad):
    qkv, bias = made(scale=100)
    out = window_attention(qkv.requires_grad_(grad), bias)
    assert out.isfinite().all()
    assert out.abs().max() <= qkv[:, :, 2].abs().max() * 1.0001


def test_windows_do_not_see_each_other():
    qkv, bias = made()
    changed = qkv.clone()
    changed[1] += 1
    same = (window_attention(qkv, bias) == window_attention(changed, bias)).flatten(1).all(1)
    assert same.tolist() == [True, False, True, True, True]


def test_bias_moves_attention():
    qkv, bias = made(tokens=4)
    bias = torch.full_like(bias, -1e4)
    bias[:, torch.arange(4), torch.tensor([1, 2, 3, 0])] = 0  # every token sees the next one only
    torch.testing.assert_close(window_attention(qkv, bias), qkv[:, :, 2].roll(-1, 1))

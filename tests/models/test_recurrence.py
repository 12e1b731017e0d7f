import pytest
import torch

from unsmear.models import recurrence
from unsmear.models.recurrence import DIRECTIONS, four_directions, scan


def made(n=2, channels=3, height=7, width=11, dtype=torch.float64, seed=0):
    """Features and gates, these of both signs."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, height, width, generator=generator, dtype=dtype)
    return x, torch.tanh(torch.randn(n, 4 * channels, height, width, generator=generator, dtype=dtype))


def pixel_by_pixel(x, g):
    """h_t = (1 − g_t) x_t + g_t h_{t−1} to the right, left, down and up, one pixel after the other."""
    n, channels, height, width = x.shape
    out = []
    for direction, gates in enumerate(g.chunk(4, 1)):
        h = {}
        rows = range(height) if direction != 3 else reversed(range(height))
        for i in rows:
            columns = range(width) if direction != 1 else reversed(range(width))
            for j in columns:
                before = [(i, j - 1), (i, j + 1), (i - 1, j), (i + 1, j)][direction]
                carried = h.get(before, torch.zeros(n, channels, dtype=x.dtype))
                h[i, j] = (1 - gates[:, :, i, j]) * x[:, :, i, j] + gates[:, :, i, j] * carried
        rows = [torch.stack([h[i, j] for j in range(width)], -1) for i in range(height)]
        out.append(torch.stack(rows, -2))
    return torch.cat(out, 1)


@pytest.fixture(params=[None, 3])
def chunk(request, monkeypatch):
    """Walk as on a CPU, and as on a GPU in chunks of 3 steps, whatever the device."""
    if request.param:
        plain = recurrence.scan
        monkeypatch.setattr(recurrence, "scan", lambda *a, **k: plain(*a, **{**k, "chunk": request.param}))


# The plain loop


@pytest.mark.parametrize(("height", "width"), [(7, 11), (6, 1), (1, 9), (1, 1)])
def test_scan_is_the_plain_loop(chunk, height, width):
    x, g = made(height=height, width=width)
    torch.testing.assert_close(four_directions(x, g), pixel_by_pixel(x, g))


def test_gradients_are_those_of_the_plain_loop(chunk):
    ours, theirs = ([t.requires_grad_() for t in made()] for _ in range(2))
    weight = torch.randn(2, 12, 7, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (four_directions(*ours) * weight).sum().backward()
    (pixel_by_pixel(*theirs) * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_gradients_are_exact(chunk):
    x, g = made(1, 2, 4, 5)
    assert torch.autograd.gradcheck(four_directions, (x.requires_grad_(), g.requires_grad_()))


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 9, 10, 13])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_chunks_do_not_show(chunk, backwards, blend, started):
    generator = torch.Generator().manual_seed(2)
    b, a = (torch.randn(2, 9, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    first = torch.randn(2, 1, 3, generator=generator, dtype=torch.float64) if started else None
    expected = torch.empty_like(b)
    h = first[:, 0] if started else torch.zeros(2, 3, dtype=torch.float64)
    for t in reversed(range(9)) if backwards else range(9):
        h = (1 - a[:, t]) * b[:, t] + a[:, t] * h if blend else b[:, t] + a[:, t] * h
        expected[:, t] = h
    out = torch.full_like(b, torch.nan)
    scan(b, a, out, 1, blend=blend, backwards=backwards, first=first, chunk=chunk)
    torch.testing.assert_close(out, expected)


# Laws


def test_a_gate_of_zero_gives_the_features():
    x, g = made()
    assert torch.equal(four_directions(x, torch.zeros_like(g)), x.repeat(1, 4, 1, 1))


def test_a_gate_of_one_carries_the_first_value():
    x, g = made()
    gates = torch.ones_like(g)
    firsts = [x[..., :1], x[..., -1:], x[..., :1, :], x[..., -1:, :]]
    for gate, (axis, backwards) in zip(gates.chunk(4, 1), DIRECTIONS, strict=True):
        # where it begins, nothing comes from before
        gate.select({2: 3, 1: 2}[axis], -1 if backwards else 0).zero_()
    expected = torch.cat([first.expand_as(x) for first in firsts], 1)
    assert torch.equal(four_directions(x, gates), expected)


def test_a_constant_row_stays_constant_where_nothing_comes_from_outside():
    _, g = made()
    x = torch.full((2, 3, 7, 11), 0.3, dtype=torch.float64)
    g[:, :3, :, 0] = 0
    right = four_directions(x, g)[:, :3]
    torch.testing.assert_close(right, x)


def test_a_mirrored_picture_swaps_the_directions():
    x, g = made()
    right, left, down, up = four_directions(x, g).chunk(4, 1)
    gr, gl, gd, gu = g.chunk(4, 1)
    mirrored = four_directions(x.flip(3), torch.cat([gl, gr, gd, gu], 1).flip(3)).flip(3)
    assert torch.equal(mirrored, torch.cat([left, right, down, up], 1))
    upside_down = four_directions(x.flip(2), torch.cat([gr, gl, gu, gd], 1).flip(2)).flip(2)
    assert torch.equal(upside_down, torch.cat([right, left, up, down], 1))
    transposed = four_directions(x.mT, torch.cat([gd, gu, gr, gl], 1).mT).mT
    assert torch.equal(transposed, torch.cat([down, up, right, left], 1))


def test_it_is_linear_in_the_features():
    x, g = made()
    y, _ = made(seed=3)
    torch.testing.assert_close(
        four_directions(2 * x - y, g), 2 * four_directions(x, g) - four_directions(y, g)
    )


def test_an_impulse_decays_by_the_product_of_the_gates():
    _, g = made(1, 1, 1, 9)
    x = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    x[..., 2] = 1
    right = four_directions(x, g)[0, 0, 0]
    gates = g[0, 0, 0]
    assert not right[:2].any()
    expected = (1 - gates[2]) * torch.cat([gates.new_ones(1), gates[3:].cumprod(0)])
    torch.testing.assert_close(right[2:], expected)


@pytest.mark.parametrize("gate", [1.0, -1.0])
def test_gates_of_size_one_do_not_lose_precision_over_a_long_row(gate, chunk):
    x = torch.rand(1, 1, 1, 3000, generator=torch.Generator().manual_seed(4))
    g = torch.full((1, 4, 1, 3000), gate)
    exact = four_directions(x.double(), g.double())
    torch.testing.assert_close(four_directions(x, g).double(), exact, atol=2e-2, rtol=1e-4)
    assert exact.abs().max() > (1 if gate < 0 else -1)


# Memory and precision


def test_layout_does_not_matter_and_the_result_is_channels_last():
    x, g = made()
    expected = four_directions(x, g)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, g)]
    assert torch.equal(four_directions(*last), expected)
    assert expected.is_contiguous(memory_format=torch.channels_last)


def test_autocast_does_not_reach_it():
    x, g = (t.bfloat16() for t in made(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        h = four_directions(x, g)
    assert h.dtype == torch.float32
    assert torch.equal(h, four_directions(x.float(), g.float()))


def test_gates_of_another_shape_are_refused():
    x, g = made()
    with pytest.raises(ValueError, match=r"gates \(2, 9, 7, 11\): expected 4 for each of \(2, 3, 7, 11\)"):
        four_directions(x, g[:, :9])

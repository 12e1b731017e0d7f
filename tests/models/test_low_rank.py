"""Properties of an orthogonal projection, one by one: scores S (N, K), features F (N, C), projected L."""

import pytest
import torch
from oracles import randomise

from unsmear.models.low_rank import LowRankModule, low_rank_mixing, low_rank_statistics

N, K, C = 60, 5, 16


def matrices(*shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def project(s, f, ridge=0.0):
    """L = S M as the module computes it; without the ridge exact up to the floor of 1e-8."""
    return s @ low_rank_mixing(low_rank_statistics(s, f), ridge)


@pytest.fixture
def s_and_f():
    return matrices((N, K), (N, C))


def module(channels=16, seed=0, **arguments):
    """A low-rank module with all weights random."""
    return randomise(LowRankModule(channels=channels, **arguments), seed).eval()


def features(*shape, seed=1, dtype=torch.float32):
    return matrices(shape, seed=seed, dtype=dtype)[0]


# The projection


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_rank_is_k_at_most(s_and_f, ridge):
    singular = torch.linalg.svdvals(project(*s_and_f, ridge))
    assert singular[K - 1] > 0.1 * singular[0]
    assert singular[K] < 1e-10 * singular[0]


def test_projecting_again_changes_nothing(s_and_f):
    s, f = s_and_f
    low = project(s, f)
    torch.testing.assert_close(project(s, low), low, atol=1e-6, rtol=0)


def test_projector_is_symmetric(s_and_f):
    s, _ = s_and_f
    projector = project(s, torch.eye(N, dtype=s.dtype))
    torch.testing.assert_close(projector, projector.mT)
    assert projector.trace().item() == pytest.approx(K, abs=1e-5)


def test_rest_is_orthogonal_and_pythagoras_holds(s_and_f):
    s, f = s_and_f
    low = project(s, f)
    assert (s.mT @ (f - low)).abs().max() < 1e-5
    torch.testing.assert_close((f**2).sum(), (low**2).sum() + ((f - low) ** 2).sum(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1.0])
def test_norm_never_grows(s_and_f, ridge):
    s, f = s_and_f
    assert project(s, f, ridge).norm() < f.norm()


def test_it_is_the_least_squares_fit(s_and_f):
    s, f = s_and_f
    fit = s @ torch.linalg.lstsq(s, f).solution
    torch.testing.assert_close(project(s, f), fit, atol=1e-6, rtol=0)
    assert (project(s, f, 1e-4) - fit).norm() < 1e-3 * fit.norm()  # what the default ridge costs


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_order_of_pixels_does_not_matter(s_and_f, ridge):
    s, f = s_and_f
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(project(s[order], f[order], ridge), project(s, f, ridge)[order])


def test_any_basis_of_the_same_span_does(s_and_f):
    s, f = s_and_f
    (mixing,) = matrices((K, K), seed=3)
    torch.testing.assert_close(project(s @ mixing, f), project(s, f), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1e-2, 0.1, 10, 1e4])
def test_scale_of_the_scores_does_not_matter(s_and_f, scale):
    # Down to scores of 0.01; the floor of 1e-8 against 1e-2 squared then weighs as much as the ridge of 1e-4.
    s, f = s_and_f
    torch.testing.assert_close(project(scale * s, f, 1e-4), project(s, f, 1e-4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_twice_the_pixels_give_the_same_rows(s_and_f, ridge):
    # What makes a network trained on 256×256 valid at 1280×720; a Q that is not normalised fails here.
    s, f = s_and_f
    twice = project(s.repeat(2, 1), f.repeat(2, 1), ridge)
    torch.testing.assert_close(twice[:N], project(s, f, ridge))
    raw = s.repeat(2, 1) @ (s.repeat(2, 1).mT @ f.repeat(2, 1))
    assert (raw[:N] - s @ (s.mT @ f)).norm() > raw[:N].norm() / 3


def test_features_within_the_span_stay_as_they_are(s_and_f):
    s, _ = s_and_f
    (mixing,) = matrices((K, C), seed=4)
    errors = [(project(s, s @ mixing, ridge) - s @ mixing).norm().item() for ridge in (1e-2, 1e-4, 1e-6, 0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6 * (s @ mixing).norm()


def test_with_no_more_pixels_than_rank_it_is_the_identity():
    s, f = matrices((K, K), (K, C))
    torch.testing.assert_close(project(s, f), f, atol=1e-4, rtol=0)


def test_statistics_of_parts_add_up(s_and_f):
    s, f = s_and_f
    parts = [low_rank_statistics(s[i:j], f[i:j]) for i, j in ((0, 7), (7, 30), (30, N))]
    whole, summed = low_rank_statistics(s, f), parts[0] + parts[1] + parts[2]
    torch.testing.assert_close(summed.gram, whole.gram)
    torch.testing.assert_close(summed.cross, whole.cross)
    assert summed.pixels == whole.pixels == N


def test_gradients_of_the_projection_are_exact():
    s, f = matrices((7, 3), (7, 4))
    s.requires_grad_(), f.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, f: project(s, f, 1e-4), (s, f))


# The module


def test_it_starts_as_the_identity_bit_by_bit():
    x = features(2, 16, 6, 5)
    assert torch.equal(LowRankModule(channels=16)(x), x)


@pytest.mark.parametrize(("channels", "reduction", "rank"), [(16, 8, 2), (16, 1, 16), (17, 4, 4), (4, 8, 1)])
def test_rank_is_channels_over_reduction_but_one_at_least(channels, reduction, rank):
    made = module(channels, reduction=reduction)
    assert made.rank == rank
    assert made(features(1, channels, 3, 4)).shape == (1, channels, 3, 4)


def test_what_is_fused_is_the_reshaped_and_its_projection():
    made = module(reduction=4).double()
    x = features(2, 16, 6, 5, dtype=torch.float64)
    fused = []
    made.fuse.register_forward_pre_hook(lambda _, inputs: fused.append(inputs[0]))
    out = made(x)
    reshaped, low = fused[0].chunk(2, 1)
    torch.testing.assert_close(out, x + made.fuse(fused[0]))
    torch.testing.assert_close(reshaped, made.reshape(x))
    scores = made.score(torch.nn.functional.gelu(reshaped))
    for f, s, expected in zip(reshaped.flatten(2).mT, scores.flatten(2).mT, low.flatten(2).mT, strict=True):
        fit = s @ torch.linalg.lstsq(s, f).solution
        assert (expected - fit).norm() < 0.02 * f.norm()
        assert (expected - f).norm() > 0.1 * f.norm()  # rank 4 does not hold all of 16 channels


def test_batch_is_one_by_one_and_layout_does_not_matter():
    made, x = module(), features(3, 16, 6, 5)
    whole = made(x)
    torch.testing.assert_close(whole, torch.cat([made(x[i : i + 1]) for i in range(3)]))
    torch.testing.assert_close(whole, made(x.contiguous(memory_format=torch.channels_last)))


def test_every_pixel_sees_the_whole_picture():
    made, x = module(), features(1, 16, 12, 12)
    changed = x.clone()
    changed[..., 0, 0] += 1
    difference = (made(changed) - made(x)).abs().amax(1)[0]
    assert (difference > 0).all()


@pytest.mark.parametrize("case", ["equal columns", "zero columns", "all zero", "fewer pixels than rank"])
def test_gradients_stay_finite_where_the_scores_lose_rank(case):
    made, x = module(reduction=2), features(1, 16, 6, 5)
    with torch.no_grad():
        if case == "equal columns":
            made.score.weight[:] = made.score.weight[:1]
            made.score.bias[:] = made.score.bias[:1]
        elif case in ("zero columns", "all zero"):
            columns = slice(None) if case == "all zero" else slice(0, 3)
            made.score.weight[columns] = 0
            made.score.bias[columns] = 0
        else:
            x = x[..., :2, :1]
    x.requires_grad_()
    out = made(x)
    (out**2).mean().backward()
    assert out.isfinite().all()
    for tensor in (x, *made.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() < 1e4


def test_gradients_of_the_module_are_exact():
    made = module(4, reduction=2).double()
    x = features(1, 4, 3, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(made, (x,))
    names = [name for name, _ in made.named_parameters()]

    def with_weights(*weights):
        return torch.func.functional_call(made, dict(zip(names, weights, strict=True)), (x.detach(),))

    assert torch.autograd.gradcheck(with_weights, tuple(made.parameters()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_autocast_rounds_the_convolutions_and_not_the_projection(dtype, tolerance):
    made, x = module(64), features(1, 64, 24, 24)
    with torch.no_grad():
        exact = made(x)
        seen = []
        made.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        made.score.register_forward_hook(lambda *_args: seen.append(_args[-1]))
        with torch.autocast("cpu", dtype):
            rough = made(x)
    scores, (reshaped, low) = seen[0], seen[1].chunk(2, 1)
    assert scores.dtype == low.dtype == dtype
    assert (rough - exact).norm() < tolerance * (exact - x).norm()
    expected = project(scores[0].flatten(1).mT.double(), reshaped[0].flatten(1).mT.double(), made.ridge)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(low[0].flatten(1).mT.double(), expected, atol=1e-5, rtol=rounding)


# Statistics of a whole picture for its tiles


def test_tiles_with_the_statistics_of_the_whole_give_the_whole():
    made, x = module(reduction=4), features(2, 16, 12, 10)
    whole = made(x)
    # Tiles with a border of one pixel more, which the 3×3 convolution sees.
    tiles = [((0, 5), (0, 6)), ((0, 5), (6, 10)), ((5, 12), (0, 6)), ((5, 12), (6, 10))]
    total = None
    cut = []
    for (top, bottom), (left, right) in tiles:
        above, before = max(top - 1, 0), max(left - 1, 0)
        tile = x[..., above : bottom + 1, before : right + 1]
        window = slice(top - above, bottom - above), slice(left - before, right - before)
        statistics = made.statistics(tile, window)
        total = statistics if total is None else total + statistics
        cut.append((tile, window, (slice(top, bottom), slice(left, right))))
    assert total.pixels == 120
    own = made.statistics(x)
    torch.testing.assert_close(total.gram, own.gram)
    torch.testing.assert_close(total.cross, own.cross)
    for tile, window, place in cut:
        with made.given(total):
            given = made(tile)[..., *window]
        torch.testing.assert_close(given, whole[..., *place], atol=1e-5, rtol=1e-5)
        assert (made(tile)[..., *window] - whole[..., *place]).abs().max() > 1e-3  # a tile's own are others
    assert torch.equal(made(x), whole)  # given only within the block


def test_given_statistics_are_forgotten_after_an_error():
    made, x = module(), features(1, 16, 6, 5)
    expected = made(x)
    with pytest.raises(ZeroDivisionError), made.given(made.statistics(2 * x)):
        assert not torch.equal(made(x), expected)
        raise ZeroDivisionError
    assert torch.equal(made(x), expected)

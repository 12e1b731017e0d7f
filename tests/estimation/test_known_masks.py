"""Kernels with the masks known: against CVXPY, certificate, descent, recovery, both forms of the Hessian."""

import cvxpy
import numpy as np
import pytest
import torch

from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.known_masks import (
    Problem,
    estimate_kernels,
    reblur_psnr,
    uniform_gram,
    weighted_gram,
)
from unsmear.estimation.priors import Prior

F64 = torch.float64


def scene(bases=2, size=5, height=22, width=26, channels=2, noise=0.0, seed=0):
    """u, v, true kernels and masks, all float64; v is true inside, its border is made up of u."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(channels, height, width, generator=g, dtype=F64)
    kernels = torch.rand(bases, size, size, generator=g, dtype=F64) ** 6
    kernels = kernels / kernels.sum((-2, -1), keepdim=True)
    masks = torch.rand(bases, height, width, generator=g, dtype=F64) ** 3
    masks = masks / masks.sum(0)
    v = blur(u, kernels, masks) + noise * torch.randn(u.shape, generator=g, dtype=F64)
    return u, v, kernels, masks


def design(u, masks, size):
    """Rows of A, one for each inner pixel and channel, written out without the package: (c h w, B K²)."""
    margin = size // 2
    c, height, width = u.shape
    rows = []
    for channel in range(c):
        for y in range(margin, height - margin):
            for x in range(margin, width - margin):
                patch = u[channel, y - margin : y + margin + 1, x - margin : x + margin + 1].flatten()
                rows.append((masks[:, y, x, None] * patch).flatten())
    return torch.stack(rows).numpy()


def inner(v, size):
    margin = size // 2
    return v[:, margin:-margin, margin:-margin].flatten().numpy()


def by_cvxpy(u, v, masks, size, ridge=0.0, rows=None):
    matrix, target = design(u, masks, size), inner(v, size)
    if rows is not None:
        matrix, target = matrix[rows], target[rows]
    k = cvxpy.Variable((len(masks), size * size), nonneg=True)
    flat = cvxpy.reshape(k, (matrix.shape[1],), order="C")
    cost = 0.5 * cvxpy.sum_squares(matrix @ flat - target) + 0.5 * ridge * cvxpy.sum_squares(flat)
    problem = cvxpy.Problem(cvxpy.Minimize(cost), [cvxpy.sum(k, axis=1) == 1])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    found = np.clip(k.value, 0, None)
    found = found / found.sum(1, keepdims=True)
    error = matrix @ found.ravel() - target
    return 0.5 * error @ error + 0.5 * ridge * (found**2).sum()


@pytest.mark.parametrize("bases, size", [(1, 5), (2, 5), (3, 3), (1, 9)])
@pytest.mark.parametrize("prior", ["none", Prior(name="ridge", weight=0.3)])
def test_objective_equals_that_of_cvxpy_and_the_gap_covers_the_distance(bases, size, prior):
    u, v, _, masks = scene(bases, size, noise=0.05)
    best = by_cvxpy(u, v, masks, size, ridge=0.0 if prior == "none" else prior.weight)
    fit = estimate_kernels(u, v, masks, size, prior=prior, tolerance=1e-7)
    assert fit.converged
    assert fit.objective == pytest.approx(best, rel=1e-6)
    for budget in (1, 10, 20, 40):
        early = estimate_kernels(u, v, masks, size, prior=prior, tolerance=1e-7, iterations=budget)
        assert early.gap >= early.objective - best - 1e-9 * best


def unsaturated_rows(u, v, size, level):
    """Rows of `design` whose pixel of v and whose whole window of u are below the level, one by one."""
    margin = size // 2
    c, height, width = u.shape
    kept = [
        float(v[:, y, x].max()) < level
        and float(u[:, y - margin : y + margin + 1, x - margin : x + margin + 1].max()) < level
        for _ in range(c)
        for y in range(margin, height - margin)
        for x in range(margin, width - margin)
    ]
    return np.array(kept)


def clipped_scene(bases, size):
    """A scene with lamps four times as bright as white, then cut off at 1."""
    u, _, kernels, masks = scene(bases, size, height=30, width=34, seed=3)
    u = 0.8 * u
    u[:, 5:7, 6:9], u[:, 20, 25] = 4.0, 4.0
    v = blur(u, kernels, masks) + 0.01 * torch.randn(
        u.shape, generator=torch.Generator().manual_seed(5), dtype=F64
    )
    return u.clamp(0, 1), v.clamp(0, 1), kernels, masks


@pytest.mark.parametrize("bases, method", [(1, "gram"), (1, "fft"), (2, "gram"), (2, "fft")])
def test_without_saturated_pixels_the_objective_is_that_of_cvxpy_on_the_rows_left(bases, method):
    u, v, _, masks = clipped_scene(bases, 5)
    rows = unsaturated_rows(u, v, 5, 0.99)
    assert 0.3 < rows.mean() < 0.95
    best = by_cvxpy(u, v, masks, 5, rows=rows)
    fit = estimate_kernels(
        u, v, None if bases == 1 else masks, 5, saturated=0.99, tolerance=5e-7, method=method
    )
    assert fit.converged and fit.objective == pytest.approx(best, rel=1e-6)
    error = best * 2 / rows.sum()
    psnr = reblur_psnr(u, v, fit.kernels, masks, saturated=0.99)
    assert psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)


@pytest.mark.parametrize("domain", ["mean", "gradient"])
def test_saturated_pixels_left_out_spoil_no_kernel(domain):
    u, v, kernels, _ = clipped_scene(1, 5)
    good = estimate_kernels(u, v, None, 5, saturated=0.99, domain=domain).kernels
    spoilt = estimate_kernels(u, v, None, 5, domain=domain).kernels
    assert float((good - kernels).abs().sum()) < 0.2 * float((spoilt - kernels).abs().sum())
    with pytest.raises(KernelError, match="every pixel"):
        estimate_kernels(u, v, None, 5, saturated=0.0)


def test_a_threshold_above_all_values_changes_nothing():
    u, v, _, masks = scene(noise=0.02)
    plain = estimate_kernels(u, v, masks, 5)
    assert torch.equal(estimate_kernels(u, v, masks, 5, saturated=9.0).kernels, plain.kernels)


@pytest.mark.parametrize("domain", ["mean", "gradient"])
@pytest.mark.parametrize("method", ["gram", "fft"])
def test_descent_at_every_step(domain, method):
    u, v, _, masks = scene(noise=0.03)
    fit = estimate_kernels(u, v, masks, 5, domain=domain, method=method, tolerance=1e-7)
    assert len(fit.history) >= 2
    assert all(np.diff(fit.history) <= 0)
    assert fit.history[-1] == fit.objective


@pytest.mark.parametrize("name", ["entropy", "lp"])
def test_descent_with_concave_priors_that_favour_few_taps(name):
    u, v, _, masks = scene(noise=0.03)
    plain = estimate_kernels(u, v, masks, 5)
    fit = estimate_kernels(u, v, masks, 5, prior=Prior(name=name, weight=0.02), iterations=500)
    assert all(np.diff(fit.history) <= 0)
    assert int((fit.kernels > 1e-6).sum()) < int((plain.kernels > 1e-6).sum())
    assert not Prior(name=name, weight=0.02).convex


@pytest.mark.parametrize("name", ["ridge", "entropy", "lp"])
def test_slopes_of_the_priors_are_their_derivatives(name):
    prior = Prior(name=name, weight=0.7, floor=1e-2)
    k = torch.rand(2, 9, generator=torch.Generator().manual_seed(0), dtype=F64)
    way = torch.randn(2, 9, generator=torch.Generator().manual_seed(1), dtype=F64)
    step = 1e-6
    difference = (prior.value(k + step * way) - prior.value(k - step * way)) / (2 * step)
    assert difference == pytest.approx(float((prior.slope(k) * way).sum()), rel=1e-6)


@pytest.mark.parametrize("name", ["entropy", "lp"])
def test_tangents_lie_above_concave_priors(name):
    prior = Prior(name=name, weight=0.7)
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        here, there = torch.rand(2, 9, generator=g, dtype=F64), torch.rand(2, 9, generator=g, dtype=F64) ** 9
        tangent = prior.value(here) + float((prior.slope(here) * (there - here)).sum())
        assert tangent >= prior.value(there) - 1e-12


def test_l1_changes_nothing():
    u, v, _, masks = scene(noise=0.03)
    plain = estimate_kernels(u, v, masks, 5)
    for prior in ("l1", Prior(name="l1", weight=5.0)):
        assert torch.equal(estimate_kernels(u, v, masks, 5, prior=prior).kernels, plain.kernels)


@pytest.mark.parametrize("domain", ["mean", "gradient"])
def test_exact_recovery_without_noise(domain):
    u, v, kernels, masks = scene(bases=1, size=7, height=40, width=44)
    fit = estimate_kernels(u, v, None, 7, domain=domain, tolerance=1e-9)
    torch.testing.assert_close(fit.kernels, kernels, atol=1e-6, rtol=0)
    u, v, kernels, masks = scene(bases=3, size=5, height=40, width=44)
    fit = estimate_kernels(u, v, masks, 5, tolerance=1e-9)
    torch.testing.assert_close(fit.kernels, kernels, atol=1e-6, rtol=0)
    assert reblur_psnr(u, v, fit.kernels, masks) > 100


def test_float32_ends_within_a_hundred_thousandth_of_float64():
    u, v, _, masks = scene(noise=0.02)
    whole = estimate_kernels(u.float().double(), v.float().double(), masks, 5, tolerance=1e-8)
    half = estimate_kernels(u.float(), v.float(), masks, 5, tolerance=1e-7)
    assert half.kernels.dtype == torch.float32
    assert half.objective == pytest.approx(whole.objective, rel=1e-5)


@pytest.mark.parametrize("uniform", [True, False])
def test_both_forms_of_the_hessian_are_that_of_the_written_out_matrix(uniform):
    u, v, _, masks = scene(bases=1 if uniform else 3)
    masks[-1, :, :15] = 0  # a mask that does not reach every tile
    masks = torch.ones_like(masks) if uniform else masks / masks.sum(0)
    matrix = torch.from_numpy(design(u - u.mean((1, 2), keepdim=True), masks, 5))
    problem = Problem(u, v, masks, 5, "mean")
    gram = uniform_gram(problem.wide, 5) if uniform else weighted_gram(problem.wide, problem.masks, 5)
    torch.testing.assert_close(gram, matrix.T @ matrix)
    x = torch.rand(len(masks), 25, dtype=F64, generator=torch.Generator().manual_seed(2))
    by_fft, _ = problem.hessian("fft")
    torch.testing.assert_close(by_fft(x).flatten(), gram @ x.flatten())


def test_slope_is_the_derivative_of_the_data_term():
    u, v, kernels, masks = scene(noise=0.1)
    problem = Problem(u, v, masks, 5, "mean")
    k = kernels.flatten(1).clone().requires_grad_()
    (0.5 * problem.residual(k).square().sum()).backward()
    torch.testing.assert_close(problem.slope(problem.residual(k.detach())), k.grad)


def test_permuting_the_basis_permutes_the_kernels():
    u, v, _, masks = scene(bases=3, noise=0.02)
    order = [2, 0, 1]
    fit = estimate_kernels(u, v, masks, 5, tolerance=1e-9)
    moved = estimate_kernels(u, v, masks[order], 5, tolerance=1e-9)
    torch.testing.assert_close(moved.kernels, fit.kernels[order], atol=1e-5, rtol=0)


def test_brightness_and_contrast_move_no_kernel():
    u, v, _, masks = scene(noise=0.02)
    fit = estimate_kernels(u, v, masks, 5, tolerance=1e-9)
    other = estimate_kernels(3 * u - 1, 3 * v - 1, masks, 5, tolerance=1e-9)
    torch.testing.assert_close(fit.kernels, other.kernels, atol=1e-5, rtol=0)


def test_nothing_outside_the_photograph_is_looked_at():
    u, v, kernels, masks = scene(height=40, width=44)
    v[:, :2] = 7.0
    v[:, :, -2:] = -3.0
    masks[:, :, :2] = torch.tensor([1.0, 0.0], dtype=F64)[:, None, None]
    fit = estimate_kernels(u, v, masks, 5, tolerance=1e-9)
    torch.testing.assert_close(fit.kernels, kernels, atol=1e-6, rtol=0)


def test_a_flat_photograph_gives_flat_kernels():
    fit = estimate_kernels(torch.ones(3, 20, 20), torch.ones(3, 20, 20), None, 5)
    torch.testing.assert_close(fit.kernels, torch.full((1, 5, 5), 0.04))
    assert fit.converged


@pytest.mark.parametrize(
    "change, words",
    [
        ({"size": 4}, "odd"),
        ({"size": 41}, "below both sides"),
        ({"domain": "fourier"}, "domain"),
        ({"method": "magic"}, "method"),
        ({"prior": "ridge"}, "weight"),
        ({"masks": torch.ones(2, 22, 26, dtype=F64)}, "off one"),
        ({"masks": torch.ones(1, 3, 3, dtype=F64)}, "masks are"),
        ({"start": torch.ones(1, 5, 5)}, "start is"),
        ({"blurred": torch.ones(1, 22, 26)}, "the same"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    u, v, _, masks = scene()
    given = {"sharp": u, "blurred": v, "masks": masks, "size": 5} | change
    with pytest.raises(KernelError, match=words):
        estimate_kernels(**given)


@pytest.mark.parametrize("options", [{"name": "lasso"}, {"weight": -1.0}, {"power": 1.5}, {"floor": 0.0}])
def test_what_is_no_prior_is_refused(options):
    with pytest.raises(KernelError):
        Prior(**options)

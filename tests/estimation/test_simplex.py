"""The simplex: laws of the projection, of the gap as a certificate, and of the descent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unsmear.estimation.simplex import frank_wolfe_gap, minimise, project_simplex

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_quadratic(rows, count, seed, rank=None):
    """½⟨x, H x⟩ − ⟨h, x⟩ over rows on the simplex, H of the given rank."""
    g = generator(seed)
    a = torch.randn(rank or rows * count, rows * count, generator=g, dtype=F64)
    return a.T @ a, torch.randn(rows * count, generator=g, dtype=F64) * 3


def minimised(matrix, linear, rows, count, **options):
    start = torch.full((rows, count), 1 / count, dtype=F64)
    slope = (matrix @ start.flatten() - linear).reshape(rows, count)
    scale = torch.ones(rows, 1, dtype=F64)
    wanted = {"tolerance": 1e-10, "products": 3000} | options
    return minimise(lambda x: (matrix @ x.flatten()).reshape(x.shape), slope, start, scale, **wanted)


def value(matrix, linear, x):
    x = x.flatten()
    return float(0.5 * x @ matrix @ x - linear @ x)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.sampled_from([1e-3, 1.0, 1e3]))
def test_projection_is_the_nearest_point(seed, count, spread):
    g = generator(seed)
    s = spread * torch.randn(3, count, generator=g, dtype=F64)
    x = project_simplex(s)
    assert float(x.min()) >= 0
    torch.testing.assert_close(x.sum(-1), torch.ones(3, dtype=F64))
    # Variational inequality: ⟨s − x, y − x⟩ ≤ 0 for every y on the simplex; its corners are enough.
    corners = torch.eye(count, dtype=F64)
    worst = torch.einsum("rn,rcn->rc", s - x, corners - x[:, None]).max()
    assert float(worst) <= 1e-12 * max(spread, 1)


def test_projection_leaves_the_simplex_alone_and_forgets_constants():
    x = torch.rand(4, 7, generator=generator(), dtype=F64)
    x = x / x.sum(-1, keepdim=True)
    torch.testing.assert_close(project_simplex(x), x)
    s = torch.randn(4, 7, generator=generator(1), dtype=F64)
    torch.testing.assert_close(project_simplex(s), project_simplex(s + 100))
    torch.testing.assert_close(project_simplex(s.T, dim=0), project_simplex(s).T)


def test_projection_of_float32_sums_to_one():
    x = project_simplex(1e4 * torch.randn(50, 1000, generator=generator()))
    assert x.dtype == torch.float32
    assert float((x.double().sum(-1) - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_gap_is_at_least_the_distance_from_the_best(seed):
    matrix, linear = random_quadratic(3, 6, seed, rank=7)
    best = value(matrix, linear, minimised(matrix, linear, 3, 6).point)
    g = generator(100 + seed)
    for _ in range(20):
        x = project_simplex(torch.randn(3, 6, generator=g, dtype=F64))
        slope = (matrix @ x.flatten() - linear).reshape(3, 6)
        assert float(frank_wolfe_gap(slope, x)) >= value(matrix, linear, x) - best - 1e-12


@pytest.mark.parametrize("budget", [1, 2, 5, 10, 20, 40, 80])
def test_gap_holds_wherever_the_solver_is_stopped(budget):
    matrix, linear = random_quadratic(2, 20, 3)
    whole = minimised(matrix, linear, 2, 20)
    part = minimised(matrix, linear, 2, 20, products=budget, lipschitz=whole.lipschitz)
    assert part.gap >= value(matrix, linear, part.point) - value(matrix, linear, whole.point) - 1e-12


@pytest.mark.parametrize("rank", [3, 10, 40])
def test_descent_at_every_step_down_to_the_tolerance(rank):
    matrix, linear = random_quadratic(2, 20, rank, rank=rank)
    found = minimised(matrix, linear, 2, 20)
    assert found.gap <= 1e-6
    assert all(np.diff(found.values) < 0)
    start = torch.full((2, 20), 1 / 20, dtype=F64)
    change = value(matrix, linear, found.point) - value(matrix, linear, start)
    assert found.values[-1] == pytest.approx(change, rel=1e-9)


def test_eigenvalue_bounds_the_hessian_and_a_wrong_one_is_put_right():
    matrix, linear = random_quadratic(2, 20, 0)
    true = float(torch.linalg.eigvalsh(matrix)[-1])
    assert minimised(matrix, linear, 2, 20).lipschitz >= 0.97 * true
    hopeful = minimised(matrix, linear, 2, 20, lipschitz=true / 30)
    assert hopeful.gap <= 1e-6
    assert hopeful.lipschitz > true / 30


def test_scale_of_the_rows_does_not_move_the_minimum():
    matrix, linear = random_quadratic(2, 20, 0)
    stretch = torch.tensor([[1.0], [50.0]], dtype=F64).expand(2, 20).flatten().sqrt()
    matrix, linear = stretch[:, None] * matrix * stretch, linear * stretch
    start = torch.full((2, 20), 1 / 20, dtype=F64)
    slope = (matrix @ start.flatten() - linear).reshape(2, 20)
    points = [
        minimise(
            lambda x: (matrix @ x.flatten()).reshape(x.shape),
            slope,
            start,
            torch.tensor(scale, dtype=F64)[:, None],
            tolerance=1e-10,
            products=3000,
        ).point
        for scale in ([1.0, 1.0], [1.0, 50.0])
    ]
    torch.testing.assert_close(points[0], points[1], atol=1e-5, rtol=0)

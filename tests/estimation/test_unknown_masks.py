"""Kernels and masks together: the start, descent, simplexes, permutation, recovery, number of kernels."""

import numpy as np
import pytest
import torch

from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation.known_masks import reblur_psnr
from unsmear.estimation.patches import (
    cluster,
    gather_patches,
    grid_laplacian,
    patch_kernels,
    share,
    singular_values,
)
from unsmear.estimation.unknown_masks import compare_counts, estimate_basis

F64 = torch.float64
SIZE = 5


@pytest.fixture(scope="module")
def pair():
    """Two straight motions that cross-fade from left to right; noise 0.005."""
    g = torch.Generator().manual_seed(0)
    u = torch.rand(2, 48, 60, generator=g)
    kernels = torch.zeros(2, SIZE, SIZE)
    kernels[0, 2, :] = 0.2
    kernels[1, :, 2] = 0.2
    fade = torch.linspace(0, 1, 60).expand(48, 60)
    masks = torch.stack([fade, 1 - fade])
    v = blur(u, kernels, masks) + 0.005 * torch.randn(u.shape, generator=g)
    return u, v, kernels, masks


@pytest.fixture(scope="module")
def fit(pair):
    u, v, _, _ = pair
    return estimate_basis(u, v, 2, SIZE, tolerance=1e-3)


def field(kernels, masks):
    return torch.einsum("bpq,bhw->hwpq", kernels, masks)


def test_kernels_and_masks_lie_on_their_simplexes(fit):
    assert fit.kernels.shape == (2, SIZE, SIZE) and fit.masks.shape == (2, 48, 60)
    assert float(fit.kernels.min()) >= 0 and float(fit.masks.min()) >= 0
    torch.testing.assert_close(fit.kernels.sum((1, 2)), torch.ones(2))
    torch.testing.assert_close(fit.masks.sum(0), torch.ones(48, 60))


def test_the_objective_never_rises(fit):
    assert len(fit.history) >= 3
    assert all(np.diff(fit.history) <= 0)
    assert fit.history[-1] == fit.objective


def test_the_field_of_kernels_is_found(pair, fit):
    _, _, kernels, masks = pair
    error = 0.5 * (field(fit.kernels, fit.masks) - field(kernels, masks)).abs().sum((2, 3))
    assert float(error.mean()) < 0.05


def test_the_order_of_the_basis_means_nothing(pair, fit):
    u, v, _, _ = pair
    swapped = reblur_psnr(u, v, fit.kernels.flip(0), fit.masks.flip(0))
    assert swapped == pytest.approx(fit.reblur_psnr, abs=1e-3)
    assert swapped == pytest.approx(46, abs=0.3)  # the noise


def test_the_number_of_kernels_is_proposed(pair):
    u, v, _, _ = pair
    report = compare_counts(u, v, SIZE, counts=(1, 2, 3), rounds=4)
    assert report.counts == (1, 2, 3)
    assert report.proposed == 2
    assert report.psnr[0] < report.psnr[1] - 3


def test_a_mask_value_at_each_pixel_works_too(pair):
    u, v, _, _ = pair
    fine = estimate_basis(u, v, 2, SIZE, spacing=1, rounds=2)
    assert all(np.diff(fine.history) <= 0)
    assert fine.weights.shape == (2, 48 - SIZE + 1, 60 - SIZE + 1)


def test_a_patch_holds_the_data_term_of_its_pixels(pair):
    u, v, kernels, _ = pair
    patches = gather_patches(u, v, SIZE, side=30)
    z = kernels[0].double().flatten().expand(len(patches.grams), -1)
    whole = sum(
        0.5
        * float(
            (
                blur(
                    u[:, top : top + 34, left : left + 34].double(),
                    kernels[:1].double(),
                    torch.ones(1, 30, 30, dtype=F64),
                    border="valid",
                )
                - v[:, top + 2 : top + 32, left + 2 : left + 32]
            )
            .square()
            .sum()
        )
        for top in (int(row - 16.5) for row in patches.rows)
        for left in (int(column - 16.5) for column in patches.columns)
    )
    assert patches.objective(z) == pytest.approx(whole, rel=1e-4)
    assert patches.grid == (len(patches.rows), len(patches.columns))


def test_sharing_kernels_between_patches_only_goes_down(pair):
    u, v, _, _ = pair
    patches = gather_patches(u, v, SIZE, side=24)
    single = patch_kernels(patches)
    kernels, labels = cluster(single, patches.texture, 3)
    weights = torch.nn.functional.one_hot(labels, 3).double()
    k, m, history = share(patches, kernels, weights, smoothness=0.1, rounds=8)
    assert all(np.diff(history) <= 1e-9 * history[0])
    torch.testing.assert_close(k.sum(1), torch.ones(3, dtype=F64))
    torch.testing.assert_close(m.sum(1), torch.ones(len(m), dtype=F64))


def test_singular_values_show_the_rank(pair):
    g = torch.Generator().manual_seed(0)
    kernels = torch.rand(20, 3, generator=g, dtype=F64) @ torch.rand(3, 49, generator=g, dtype=F64)
    values = singular_values(kernels, torch.ones(20, dtype=F64))
    assert float(values.square().sum()) == pytest.approx(1)
    assert float(values[3]) < 1e-12 < float(values[2])


def test_clusters_find_separate_groups_whatever_their_order():
    g = torch.Generator().manual_seed(0)
    centres = torch.eye(49, dtype=F64)[[3, 24, 45]]
    labels = torch.arange(30) % 3
    kernels = 0.9 * centres[labels] + 0.1 * torch.rand(30, 49, generator=g, dtype=F64) / 49
    order = torch.randperm(30, generator=g)
    weights = torch.rand(30, generator=g, dtype=F64) + 0.1
    for index in (torch.arange(30), order):
        found, given = cluster(kernels[index], weights[index], 3)
        assert len({(int(a), int(b)) for a, b in zip(labels[index], given, strict=True)}) == 3
        assert sorted(found.argmax(1).tolist()) == [3, 24, 45]
    with pytest.raises(KernelError, match="31 kernels"):
        cluster(kernels, weights, 31)


def test_laplacian_is_that_of_the_grid_and_at_most_eight():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(4 * 5, 2, generator=g, dtype=F64)
    plane = x.reshape(4, 5, 2)
    rough = plane.diff(dim=0).square().sum() + plane.diff(dim=1).square().sum()
    torch.testing.assert_close((x * grid_laplacian(x, (4, 5))).sum(), rough)
    matrix = grid_laplacian(torch.eye(20, dtype=F64), (4, 5))
    assert float(torch.linalg.eigvalsh(matrix)[-1]) <= 8
    assert torch.equal(grid_laplacian(torch.ones(20, 1), (4, 5)), torch.zeros(20, 1))


def test_too_small_a_photograph_is_refused():
    with pytest.raises(KernelError, match="too small"):
        estimate_basis(torch.rand(3, 20, 20), torch.rand(3, 20, 20), 2, 15)
    with pytest.raises(KernelError, match="counts"):
        compare_counts(torch.rand(1, 60, 60), torch.rand(1, 60, 60), SIZE, counts=(0,))
    with pytest.raises(KernelError, match="spacing"):
        estimate_basis(torch.rand(1, 60, 60), torch.rand(1, 60, 60), 2, SIZE, spacing=0)

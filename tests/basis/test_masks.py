import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data
from torch.nn.functional import grid_sample

from unsmear.basis import masks as m
from unsmear.basis.kernels import (
    camera_shake,
    check_kernels,
    identity,
    linear_motion,
    mass_centre,
    pad_kernels,
)
from unsmear.blurring import blur
from unsmear.errors import KernelError

seeds = st.integers(0, 2**32 - 1)
bases = st.integers(1, 25)
sides = st.integers(1, 70)


def assert_on_simplex(masks, shape):
    assert masks.shape == shape and masks.dtype == np.float32
    assert masks.min() >= 0
    assert np.abs(masks.sum(axis=0) - 1).max() <= 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=bases, height=sides, width=sides)
def test_smooth_masks_lie_on_the_simplex(seed, count, height, width):
    masks = m.smooth_masks(np.random.default_rng(seed), count, height, width)
    assert_on_simplex(masks, (count, height, width))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=bases, height=sides, width=sides)
def test_region_masks_lie_on_the_simplex(seed, count, height, width):
    masks = m.region_masks(np.random.default_rng(seed), count, height, width)
    assert_on_simplex(masks, (count, height, width))


@settings(max_examples=40, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), columns=st.integers(1, 5), height=sides, width=sides)
def test_camera_motion_gives_kernels_and_masks_on_their_simplices(seed, rows, columns, height, width):
    rotations = 0.02 * np.random.default_rng(seed).standard_normal((7, 3))
    poses = m.camera_homographies(rotations, focal=100, centre=(height / 2, width / 2))
    kernels, masks = m.camera_motion_field(poses, height, width, grid=(rows, columns))
    assert_on_simplex(masks, (rows * columns, height, width))
    check_kernels(kernels)
    assert len(kernels) == rows * columns
    assert np.abs(mass_centre(kernels)).max() < 1e-4


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=st.integers(1, 6), side=st.integers(8, 60))
def test_softened_masks_lie_on_the_simplex(seed, count, side):
    generator = np.random.default_rng(seed)
    kernels = np.stack([camera_shake(generator, 15, length=9) for _ in range(count)])
    masks = m.softened_masks(m.region_masks(generator, count, side, side), kernels)
    assert_on_simplex(masks, (count, side, side))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, count=bases, side=st.integers(1, 30))
def test_quantised_masks_sum_to_255_and_are_less_than_a_unit_off(seed, count, side):
    masks = m.smooth_masks(np.random.default_rng(seed), count, side, side)
    units = m.quantised_masks(masks)
    assert units.dtype == np.uint8
    assert (units.sum(axis=0, dtype=np.int64) == 255).all()
    assert np.abs(units - 255.0 * masks).max() < 1.01
    assert (units[masks == 0] == 0).all()
    assert_on_simplex((units / np.float32(255)).astype(np.float32), masks.shape)


def test_smooth_field_has_mean_zero_and_variance_one_everywhere():
    field = m.smooth_field(np.random.default_rng(0), 4000, 24, 24, spread=5.0)
    assert np.abs(field.mean(axis=0)).max() < 0.08
    assert np.abs(field.var(axis=0) - 1).max() < 0.12


def test_smooth_field_correlates_like_filtered_noise():
    """Oracle: the correlation of white noise filtered by a Gaussian of σ px is exp(−d²/(4σ²))."""
    field = m.smooth_field(np.random.default_rng(1), 4000, 1, 40, spread=6.0)[:, 0]
    for distance in (3, 6, 12):
        measured = (field[:, distance:] * field[:, :-distance]).mean()
        assert measured == pytest.approx(np.exp(-(distance**2) / (4 * 36)), abs=0.04)


def test_smooth_masks_are_smooth_and_use_every_basis():
    masks = m.smooth_masks(np.random.default_rng(0), 4, 128, 128, spread=32, sharpness=4)
    assert np.abs(np.diff(masks, axis=1)).max() < 0.1
    assert (masks.max(axis=(1, 2)) > 0.3).all()


def test_softness_is_the_width_of_the_edge():
    wide, narrow = (
        m.region_masks(np.random.default_rng(2), 2, 200, 200, softness=softness) for softness in (12.0, 3.0)
    )
    soft_pixels = [((masks[1] > 0.12) & (masks[1] < 0.88)).sum() for masks in (wide, narrow)]
    assert soft_pixels[0] / soft_pixels[1] == pytest.approx(4, rel=0.25)


def test_softened_masks_are_the_masks_blurred_by_their_kernels():
    """Oracle: SciPy's correlation of each mask with its own kernel, then divided by the sum."""
    generator = np.random.default_rng(0)
    kernels = np.stack([pad_kernels(identity(), 13), linear_motion(12, 0, 13), linear_motion(9, 70, 13)])
    masks = m.region_masks(generator, 3, 50, 64)
    blurred = np.stack(
        [
            ndimage.correlate(mask.astype(np.float64), kernel, mode="nearest")
            for mask, kernel in zip(masks, kernels, strict=True)
        ]
    )
    np.testing.assert_allclose(m.softened_masks(masks, kernels), blurred / blurred.sum(axis=0), atol=2e-5)


def test_grid_masks_interpolate_linearly():
    masks = m.grid_masks([0, 10], [0, 5, 20], 11, 21)
    values = np.array([[1.0, 2.0, 5.0], [3.0, 4.0, 7.0]]).ravel()
    field = np.tensordot(values, masks, (0, 0))
    expected = 1 + 0.2 * np.arange(11)[:, None] + 0.2 * np.arange(21)[None, :]
    np.testing.assert_allclose(field, expected, atol=1e-5)


# Camera motion against the average of warped photographs


def _average_of_warps(image, homographies):
    """Oracle: mean over poses of u(H_t i), by torch's grid_sample (bilinear)."""
    height, width = image.shape[-2:]
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    points = np.stack([columns.ravel(), rows.ravel(), np.ones(height * width)])
    total = torch.zeros_like(image, dtype=torch.float64)
    for matrix in homographies:
        x, y, w = matrix @ points
        grid = np.stack([2 * x / w / (width - 1) - 1, 2 * y / w / (height - 1) - 1], axis=-1)
        grid = torch.from_numpy(grid.reshape(1, height, width, 2))
        total += grid_sample(image[None].double(), grid, align_corners=True, padding_mode="border")[0]
    return total / len(homographies)


SIDE = 128
CENTRE = (63.5, 63.5)


def _photo(side=SIDE):
    return (
        torch.from_numpy(data.astronaut()[40 : 40 + side, 150 : 150 + side].copy()).permute(2, 0, 1).float()
        / 255
    )


def _smooth_path(seed, poses=31):
    """Poses by time, as midpoints would see them: the oracle averages them with equal weight."""
    time = np.linspace(0, 1, poses)
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 1))
    return np.sin(2.5 * time + phase).T - np.sin(2.5 * time + phase).T.mean(axis=0)


MOTIONS = {
    "pitch and yaw": (0.02 * np.array([1, 1, 0]), 200.0),
    "roll in the plane": (0.06 * np.array([0, 0, 1]), 200.0),
    "all three, wide angle": (0.04 * np.array([1, 0.7, 1]), 100.0),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_camera_motion_field_is_the_average_of_warped_photographs(name):
    scale, focal = MOTIONS[name]
    photo = _photo()
    poses = m.camera_homographies(scale * _smooth_path(0), focal=focal, centre=CENTRE)
    middles = m.camera_homographies(
        scale * 0.5 * (_smooth_path(0)[1:] + _smooth_path(0)[:-1]), focal=focal, centre=CENTRE
    )
    kernels, masks = m.camera_motion_field(poses, SIDE, SIDE, grid=(9, 9), centred=False)
    field = blur(photo, torch.from_numpy(kernels), torch.from_numpy(masks))
    margin = kernels.shape[-1] // 2 + 1
    inner = slice(margin, SIDE - margin)
    truth = _average_of_warps(photo, middles)
    error = (field - truth)[:, inner, inner]
    untouched = (photo - truth)[:, inner, inner]
    assert error.pow(2).mean().sqrt() < 0.006  # 1.5 levels of 255 with nodes 16 px apart
    assert error.pow(2).mean().sqrt() < 0.15 * untouched.pow(2).mean().sqrt()


def test_camera_motion_field_converges_with_the_grid():
    photo = _photo()
    scale, focal = MOTIONS["roll in the plane"]
    path = scale * _smooth_path(1)
    poses = m.camera_homographies(path, focal=focal, centre=CENTRE)
    truth = _average_of_warps(photo, poses)
    errors = []
    for nodes in (2, 4, 10):
        kernels, masks = m.camera_motion_field(poses, SIDE, SIDE, grid=(nodes, nodes), centred=False)
        field = blur(photo, torch.from_numpy(kernels), torch.from_numpy(masks))
        errors.append(float((field - truth)[:, 12:-12, 12:-12].pow(2).mean().sqrt()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_homographies_move_the_image_as_the_camera_turns():
    centre, focal = (100.0, 150.0), 500.0
    yaw = m.camera_homographies([[0, 0.01, 0]], focal=focal, centre=centre)
    pitch = m.camera_homographies([[0.01, 0, 0]], focal=focal, centre=centre)
    roll = m.camera_homographies([[0, 0, 0.01]], focal=focal, centre=centre)
    shift = m.camera_homographies([[0, 0, 0]], focal=focal, centre=centre, shifts=[[2.0, -3.0]])
    np.testing.assert_allclose(m.homography_paths(yaw, [centre])[0, 0], [0, 500 * np.tan(0.01)], atol=1e-9)
    np.testing.assert_allclose(m.homography_paths(pitch, [centre])[0, 0], [-500 * np.tan(0.01), 0], atol=1e-9)
    np.testing.assert_allclose(m.homography_paths(roll, [centre])[0, 0], [0, 0], atol=1e-9)
    moved = m.homography_paths(roll, [(100.0, 250.0)])[0, 0]
    np.testing.assert_allclose(moved, [100 * np.sin(0.01), 100 * (np.cos(0.01) - 1)], atol=1e-9)
    np.testing.assert_allclose(m.homography_paths(shift, [(7.0, 9.0)])[0, 0], [2, -3], atol=1e-9)


def test_centred_and_uncentred_fields_differ_by_the_mean_shift():
    poses = m.camera_homographies(np.linspace([0, 0, 0], [0, 0.02, 0], 9), focal=400, centre=(32, 32))
    plain, _ = m.camera_motion_field(poses, 64, 64, centred=False)
    centred, _ = m.camera_motion_field(poses, 64, 64)
    assert mass_centre(plain)[:, 1].min() > 3.5
    assert np.abs(mass_centre(centred)).max() < 1e-4


def test_largest_shrinks_the_motion_until_it_fits():
    poses = m.camera_homographies(np.linspace([0, -0.2, 0], [0, 0.2, 0], 9), focal=400, centre=(32, 32))
    kernels, _ = m.camera_motion_field(poses, 64, 64, largest=33)
    assert kernels.shape[-1] == 33
    with pytest.raises(KernelError, match="needs a kernel"):
        m.camera_motion_field(poses, 64, 64, size=33)


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.smooth_masks(np.random.default_rng(0), 0, 5, 5),
        lambda: m.region_masks(np.random.default_rng(0), 2, 0, 5),
        lambda: m.smooth_masks(np.random.default_rng(0), 2, 5, 5, spread=0.0),
        lambda: m.camera_homographies([[0, 0]], focal=10, centre=(0, 0)),
        lambda: m.camera_homographies([[0, 0, 0]], focal=-1, centre=(0, 0)),
        lambda: m.camera_motion_field(np.eye(3), 5, 5),
        lambda: m.camera_motion_field(np.eye(3)[None], 5, 5, grid=(0, 1)),
        lambda: m.camera_motion_field(
            m.camera_homographies([[0, 1.6, 0]], focal=10, centre=(5, 5)), 100, 100
        ),
        lambda: m.softened_masks(np.ones((1, 5, 5), np.float32), np.ones((2, 1, 1), np.float32)),
        lambda: m.check_masks(np.ones((2, 4, 4))),
        lambda: m.check_masks(np.ones((4, 4))),
        lambda: m.check_masks(np.full((1, 4, 4), np.nan)),
    ],
)
def test_impossible_masks_are_refused(call):
    with pytest.raises(KernelError):
        call()

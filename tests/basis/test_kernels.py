import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unsmear.basis import kernels as k
from unsmear.errors import KernelError

seeds = st.integers(0, 2**32 - 1)
odd_sizes = st.integers(2, 32).map(lambda half: 2 * half + 1)


def assert_is_kernel(kernel, *, centred=True):
    assert kernel.dtype == np.float32
    assert kernel.shape[-1] == kernel.shape[-2] and kernel.shape[-1] % 2 == 1
    assert kernel.min() >= 0
    assert abs(kernel.sum(dtype=np.float64) - 1) < 1e-5
    if centred:
        assert np.abs(k.mass_centre(kernel)).max() < 1e-4


@settings(max_examples=60, deadline=None)
@given(seed=seeds, size=odd_sizes, length=st.floats(0, 200))
def test_camera_shake_is_a_centred_kernel_of_any_size(seed, size, length):
    kernel = k.camera_shake(np.random.default_rng(seed), size, length=length)
    assert kernel.shape == (size, size)
    assert_is_kernel(kernel)


@settings(max_examples=60, deadline=None)
@given(length=st.floats(0, 60), angle=st.floats(-360, 360))
def test_linear_motion_is_a_centred_symmetric_kernel(length, angle):
    kernel = k.linear_motion(length, angle)
    assert_is_kernel(kernel)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(radius=st.floats(0, 12))
def test_defocus_is_a_centred_kernel_with_eight_symmetries(radius):
    kernel = k.defocus(radius)
    assert_is_kernel(kernel)
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_array_equal(kernel, kernel[::-1])


@pytest.mark.parametrize(("angle", "axis"), [(0, 0), (90, 1)])
def test_linear_motion_along_an_axis_is_a_box(angle, axis):
    """By hand: the box of 5 px seen through a bilinear pixel, ∫ hat(x − i) over [−2.5, 2.5] / 5."""
    kernel = k.linear_motion(5.0, angle, 9)
    by_hand = [0, 0.025, 0.175, 0.2, 0.2, 0.2, 0.175, 0.025, 0]
    np.testing.assert_allclose(kernel.sum(axis=axis), by_hand, atol=0.005)
    assert kernel.sum(axis=1 - axis)[4] == pytest.approx(1, abs=1e-5)


def test_linear_motion_turns_counter_clockwise_on_the_screen():
    kernel = k.linear_motion(20, 45, 25)
    assert kernel[:12, 13:].sum() > 0.4 and kernel[:12, :12].sum() == 0  # up and to the right


def test_linear_motion_has_the_variance_of_its_length():
    kernel = k.linear_motion(24.0, 0.0).astype(np.float64)
    place = np.arange(kernel.shape[1]) - kernel.shape[1] // 2
    variance = (kernel.sum(axis=0) * place**2).sum()
    # L²/12 of an even motion; bilinear splatting adds f(1 − f) of the sub-pixel part, 1/6 on average.
    assert variance == pytest.approx(24**2 / 12 + 1 / 6, rel=0.01)


@pytest.mark.parametrize("radius", [2.5, 4.3, 6.0])
def test_defocus_has_the_second_moment_of_a_disc(radius):
    kernel = k.defocus(radius).astype(np.float64)
    place = np.arange(len(kernel)) - len(kernel) // 2
    # r²/4 of a disc and, by Sheppard, 1/12 for sorting it into pixels
    assert (kernel.sum(axis=0) * place**2).sum() == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.03)
    assert kernel.max() == pytest.approx(1 / (np.pi * radius**2), rel=0.05)


@pytest.mark.parametrize("length", [4.0, 15.0, 40.0])
def test_camera_shake_has_the_length_asked_for(length):
    """Oracle: the widest pair of points of the path, by brute force."""
    for seed in range(10):
        path = k.shake_path(np.random.default_rng(seed), length=length)
        distances = np.linalg.norm(path[:, None] - path[None], axis=-1)
        assert distances.max() == pytest.approx(length, rel=0.01)


def test_matern_paths_have_the_covariance_of_the_formula():
    """Independent paths estimate the covariance; differences do not see the mean that is removed."""
    paths = k.matern_paths(np.random.default_rng(0), 20_000, smoothness=0.3)
    for steps in (8, 32, 100):
        measured = ((paths[steps:] - paths[:-steps]) ** 2).mean()
        distance = np.sqrt(5) * (steps / 128) / 0.3
        expected = 2 * (1 - (1 + distance + distance**2 / 3) * np.exp(-distance))
        assert measured == pytest.approx(expected, rel=0.03)


def test_shorter_smoothness_gives_longer_arcs():
    def arc(smoothness):
        lengths = []
        for seed in range(30):
            path = k.shake_path(np.random.default_rng(seed), length=20, smoothness=smoothness)
            lengths.append(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
        return np.mean(lengths)

    assert arc(0.1) > 2 * arc(0.3) > 2 * arc(1.2) > 40


def test_same_generator_state_same_kernel():
    one, two = (k.camera_shake(np.random.default_rng(5), 33, length=20) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_drawing_keeps_the_place_where_not_centred():
    path = np.array([[1.25, -2.5], [1.25, -2.5]])
    kernel = k.draw_paths(path, size=9, centred=False)
    np.testing.assert_allclose(k.mass_centre(kernel), [1.25, -2.5], atol=1e-6)
    assert np.count_nonzero(kernel) == 4


def test_drawing_centres_a_path_from_anywhere():
    away = np.array([31.3, -7.7])
    path = k.shake_path(np.random.default_rng(4), length=12) + away
    kernel = k.draw_paths(path, size=21)
    np.testing.assert_allclose(k.mass_centre(kernel), 0, atol=1e-5)
    np.testing.assert_allclose(kernel, k.draw_paths(path - away, size=21), atol=1e-5)
    with pytest.raises(KernelError, match="needs a kernel"):
        k.draw_paths(path, size=21, centred=False)


def test_drawing_many_paths_is_drawing_each():
    generator = np.random.default_rng(3)
    paths = np.stack([k.shake_path(generator, length=length) for length in (20.0, 20.0, 20.0)])
    together = k.draw_paths(paths, size=41)
    for path, kernel in zip(paths, together, strict=True):
        np.testing.assert_allclose(k.draw_paths(path, size=41), kernel, atol=0.01)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, down=st.integers(-6, 6), right=st.integers(-6, 6))
def test_center_kernels_undoes_a_shift(seed, down, right):
    kernel = k.camera_shake(np.random.default_rng(seed), 33, length=15)
    padded = k.pad_kernels(kernel, 49)
    shifted = np.roll(padded, (down, right), axis=(0, 1))
    np.testing.assert_allclose(k.center_kernels(shifted), padded, atol=0.02)


def test_center_kernels_agrees_with_scipy():
    kernel = np.random.default_rng(0).random((15, 15)).astype(np.float32)
    kernel /= kernel.sum()
    centred = k.center_kernels(kernel)
    assert_is_kernel(centred, centred=False)
    assert np.abs(np.array(ndimage.center_of_mass(centred)) - 7).max() < 1e-3


def test_vary_kernel_turns_by_ninety_degrees_as_rot90():
    kernel = k.camera_shake(np.random.default_rng(1), 21, length=14)
    turned = k.pad_kernels(k.vary_kernel(kernel, angle=90), 23)
    np.testing.assert_allclose(turned, k.pad_kernels(np.rot90(kernel), 23), atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, angle=st.floats(-180, 180), scale=st.floats(0.3, 2))
def test_vary_kernel_keeps_a_centred_kernel(seed, angle, scale):
    kernel = k.camera_shake(np.random.default_rng(seed), 21, length=14)
    assert_is_kernel(k.vary_kernel(kernel, angle=angle, scale=scale))


def test_pad_then_trim_is_the_same():
    kernel = k.linear_motion(8, 30)
    np.testing.assert_array_equal(k.trim_kernels(k.pad_kernels(kernel, 31)), k.trim_kernels(kernel))
    assert k.trim_kernels(k.identity(9)).shape == (1, 1)


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (np.ones((4, 4)) / 16, "odd"),
        (np.ones((3, 5)) / 15, "square"),
        (np.full((3, 3), np.nan), "infinite"),
        (np.eye(3), "sum"),
        (np.array([[0, 0, 0], [0, 2, 0], [0, -1, 0]]), "below zero"),
        (np.full((3, 3), "x"), "numbers"),
    ],
)
def test_check_kernels_names_what_is_wrong(kernels, message):
    with pytest.raises(KernelError, match=message):
        k.check_kernels(kernels)


@pytest.mark.parametrize(
    "call",
    [
        lambda: k.linear_motion(20, 0, 11),
        lambda: k.defocus(8, 5),
        lambda: k.defocus(-1),
        lambda: k.linear_motion(-1, 0),
        lambda: k.identity(4),
        lambda: k.camera_shake(np.random.default_rng(0), 20, length=3),
        lambda: k.camera_shake(np.random.default_rng(0), 21, length=3, smoothness=-1.0),
        lambda: k.pad_kernels(k.identity(9), 5),
    ],
)
def test_impossible_kernels_are_refused(call):
    with pytest.raises(KernelError):
        call()

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F

from unsmear.basis.kernels import camera_shake, defocus, linear_motion
from unsmear.blurring import blur
from unsmear.estimation.field import KernelField
from unsmear.models.checking import agreement, belief, direction, sidedness, trace, unclipped, unexplained


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    picture = torch.from_numpy(skimage.data.camera()[:400, :300]).float() / 255
    return F.interpolate(picture[None, None], scale_factor=0.5, mode="area")[0, 0]


@pytest.fixture(scope="module")
def kernel() -> torch.Tensor:
    return torch.from_numpy(camera_shake(np.random.default_rng(11), 21, length=14.0))


@pytest.fixture(scope="module")
def grey(truth, kernel) -> torch.Tensor:
    return blur(truth[None], kernel[None], torch.ones(1, *truth.shape))[0]


def test_right_kernels_explain_and_wrong_ones_do_not(grey, truth, kernel) -> None:
    known, turned = KernelField.uniform(kernel), KernelField.uniform(kernel.rot90())
    assert belief(unexplained(grey, known, truth)) == 1
    assert unexplained(grey, known, grey) == pytest.approx(1)
    assert belief(unexplained(grey, turned, truth)) == 0
    one = torch.zeros(3, 3)
    one[1, 1] = 1
    assert unexplained(grey, KernelField.uniform(one), truth) == 0


def test_lamps_beyond_the_brightest_value_do_not_speak_against_right_kernels(truth, kernel) -> None:
    """The law: v = min(k ∗ s, 1) is k ∗ min(s, 1) but where kernels reach something clipped."""
    scene = 0.9 * truth
    scene[20:24, 30:34] = scene[150:153, 90:94] = 40.0
    photo = blur(scene[None], kernel[None], torch.ones(1, *truth.shape)).clamp(max=1).expand(3, -1, -1)
    known, turned = KernelField.uniform(kernel), KernelField.uniform(kernel.rot90())
    seen = unclipped(photo, known.reach)
    assert 0.7 < seen.mean() < 0.95
    assert unexplained(photo[0], known, scene.clamp(max=1)) > 0.3
    assert unexplained(photo[0], known, scene.clamp(max=1), seen) < 1e-6
    assert belief(unexplained(photo[0], turned, scene.clamp(max=1), seen)) == 0
    away = torch.where(seen > 0, 0.0, 1.0)
    p, u = photo[0] + 0.1, photo[0] + 0.1 - away  # of one mind but for the lamps
    assert agreement(photo[0], u, p) < 0.5
    assert agreement(photo[0], u, p, seen) == pytest.approx(1 / 1.01)
    white = torch.where(torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) < 0.2, 0.0, 1.0)
    assert unclipped(white.expand(3, -1, -1), 5).min() == 1  # print on white paper: all of it counts


def test_the_truth_agrees_with_the_mean_of_what_it_may_be() -> None:
    """The law behind it where that mean is known: v = u + n, Gaussians; p = E[u | v] = v / (1 + σ²)."""
    chance, sigma = torch.Generator().manual_seed(1), 0.7
    u, noise = (torch.randn(500, 500, generator=chance) for _ in range(2))
    v = u + sigma * noise
    p = v / (1 + sigma**2)
    assert 1 / agreement(v, u, p) == pytest.approx(1 + 0.01 * (1 + sigma**2) / sigma**2, abs=0.02)
    elsewhere = v + sigma * torch.randn(500, 500, generator=chance)  # as far, but anywhere
    assert abs(agreement(v, elsewhere, p)) < 0.02
    assert agreement(v, 2 * v - u, p) == pytest.approx(-agreement(v, u, p), abs=0.02)
    assert agreement(v, v, p) == agreement(v, v, v) == 0


def test_far_where_nothing_is_to_be_restored_is_no_agreement() -> None:
    v, way = torch.zeros(50, 50), torch.rand(50, 50, generator=torch.Generator().manual_seed(2))
    assert agreement(v, 2 * way, way) > 1.9
    assert agreement(v, 100 * way, way) < 1.0


def cloudy(rows: float, columns: float, seed: int = 4) -> torch.Tensor:
    """Noise with as much in each octave, so many times longer down and to the right."""
    noise = torch.randn(300, 400, generator=torch.Generator().manual_seed(seed))
    down, right = torch.fft.fftfreq(300)[:, None] * rows, torch.fft.rfftfreq(400) * columns
    cloud = torch.fft.irfft2(
        torch.fft.rfft2(noise) / torch.hypot(down, right).clamp_min(0.01) ** 1.5, s=(300, 400)
    )
    return (cloud - cloud.min()) / (cloud.max() - cloud.min())


def test_motion_leaves_its_trace_along_its_path_alone() -> None:
    picture = cloudy(1, 1)
    path = torch.from_numpy(linear_motion(9, 30))
    moved = blur(picture[None], path[None], torch.ones(1, *picture.shape))[0]
    right, wrong = KernelField.uniform(path), KernelField.uniform(path.rot90())
    assert abs(trace(picture, right)) < 0.05 and abs(trace(picture, wrong)) < 0.05
    assert trace(moved, right) > 0.2
    assert trace(moved, wrong) == -0.2
    disc = torch.from_numpy(defocus(4))
    soft = blur(picture[None], disc[None], torch.ones(1, *picture.shape))[0]
    assert abs(trace(soft, right)) < 0.1  # out of focus: as much is missing across
    assert trace(moved, KernelField.uniform(disc)) == pytest.approx(0, abs=0.3)  # a disc has no path
    both = KernelField(
        torch.stack([path, path.rot90()]), np.array([0.0, 299.0]), np.array([0.0, 399.0]),
        torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]), apart=True,
    )  # fmt: skip
    assert trace(moved, right) > trace(moved, both) + 0.1
    assert trace(moved[:60], right) == 0  # too small


def test_lines_along_the_path_are_no_trace_of_motion() -> None:
    lines = cloudy(6, 1)  # run down
    down = KernelField.uniform(torch.from_numpy(linear_motion(9, 90)))
    across = KernelField.uniform(torch.from_numpy(linear_motion(9, 0)))
    assert trace(lines, down) < 0
    assert abs(trace(lines, across)) < 0.06


def test_belief() -> None:
    assert belief(0.2) == 1 and belief(0.6) == pytest.approx(0.5) and belief(0.9) == 0
    assert belief(0.3, 0.2) == 1 and belief(0.3, 0.0) == 0
    assert belief(0.3, 0.125) == pytest.approx(0.5)  # 0.125 − 0.6 is in the middle of −0.5 and −0.45
    assert belief(0.3, 0.025, 0.1) == pytest.approx(0.5) and belief(0.3, 0.2, -0.2) == 0
    assert belief(0.6, 0.725) == pytest.approx(0.25)
    assert belief(0.05, -0.1) == 1  # what explains all is believed
    assert belief(0.05, -0.15) == pytest.approx(0.5) and belief(0.05, -0.2) == 0  # unless they part


def test_motion_has_a_direction_and_a_lens_has_none() -> None:
    picture = torch.from_numpy(skimage.data.gravel()[:256, :256]).float() / 255
    everywhere = torch.ones(1, *picture.shape)

    def blurred(kernel) -> torch.Tensor:
        return blur(picture[None], torch.from_numpy(kernel)[None], everywhere)[0]

    assert direction(blurred(defocus(3.0))) < 1.15
    moved = [direction(blurred(linear_motion(9.0, angle))) for angle in (0.0, 45.0, 90.0, 135.0)]
    assert min(moved) > 1.25
    assert max(moved) < 1.3 * min(moved)  # whichever way
    for kernel in (defocus(3.0), linear_motion(9.0, 30.0)):  # neither contrast nor brightness count
        v = blurred(kernel)
        assert direction(0.5 * v + 0.2) == pytest.approx(direction(v), rel=0.01)
    assert direction(torch.full((64, 64), 0.3)) == pytest.approx(1)
    assert direction(torch.rand(9, 200)) == 1


def test_sidedness_is_how_much_more_of_one_direction_is_given_back() -> None:
    p = torch.rand(192, 192, generator=torch.Generator().manual_seed(2))
    down, right = torch.meshgrid(torch.fft.fftfreq(192), torch.fft.fftfreq(192), indexing="ij")
    angle = torch.atan2(down, right) % torch.pi
    for least, most in ((0.0, 0.5), (0.2, 0.6), (0.3, 0.3)):
        passed = torch.where(angle < torch.pi / 4, 1 - most, 1 - least)  # two of the eight directions
        passed[0, 0] = 1
        v = torch.fft.ifft2(torch.fft.fft2(p) * passed).real
        lost = np.array([most] * 2 + [least] * 6)
        amplitude = 2 * abs(np.fft.fft(lost)[1]) / 8
        assert sidedness(v, p) == pytest.approx(amplitude**2 / lost.mean(), rel=0.1, abs=0.01)
    assert sidedness(p, p) == 0
    assert sidedness(p[:9], p[:9] + 0.1) == 0


def test_sidedness_tells_motion_from_a_lens() -> None:
    picture = torch.from_numpy(skimage.data.gravel()[:256, :256]).float() / 255
    half = torch.ones(256, 256)
    half[:, 128:] = 0

    def moved(*kernels, masks=None) -> float:
        masks = torch.ones(1, 256, 256) if masks is None else masks
        v = blur(picture[None], torch.stack([torch.from_numpy(kernel) for kernel in kernels]), masks)[0]
        bright = sidedness(0.5 * v + 0.2, 0.5 * picture + 0.2)  # contrast and brightness do not count
        assert sidedness(v, picture) == pytest.approx(bright, rel=1e-3)
        return sidedness(v, picture)

    assert moved(defocus(3.0)) < 0.02
    each = [moved(linear_motion(9.0, angle)) for angle in (0.0, 45.0, 90.0, 135.0)]
    assert min(each) > 0.15
    two = moved(
        linear_motion(9.0, 0.0, 17), linear_motion(9.0, 90.0, 17), masks=torch.stack([half, 1 - half])
    )
    assert two > 0.8 * min(each)  # two objects, each on its way

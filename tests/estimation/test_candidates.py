import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import skimage.data
import torch

from unsmear import runtime
from unsmear.basis.kernels import camera_shake
from unsmear.blurring import blur
from unsmear.errors import KernelError
from unsmear.estimation import candidates
from unsmear.estimation.camera import estimate_camera
from unsmear.estimation.candidates import OVERLAP, areas, find_candidates
from unsmear.estimation.uniform import Search


@pytest.mark.parametrize("size", [(720, 1280), (800, 800), (1280, 720), (866, 1154), (200, 2000)])
def test_areas_cover_the_picture_and_overlap(size) -> None:
    found = areas(*size)
    covered = torch.zeros(size)
    for rows, columns in found:
        covered[rows, columns] += 1
    assert covered.min() >= 1 and len(found) > 1
    assert covered.max() <= 4
    shared = (covered > 1).float().mean()
    assert OVERLAP / 3 < shared < 3 * OVERLAP
    assert max(rows.stop for rows, _ in found) == size[0] and max(c.stop for _, c in found) == size[1]


def test_a_small_picture_is_one_area() -> None:
    assert areas(255, 255) == [] and areas(100, 300) == []


def test_an_area_has_the_kernel_of_what_is_in_it() -> None:
    picture = torch.from_numpy(skimage.data.astronaut()).float().mean(-1) / 255
    picture = torch.cat([picture, picture.flip(1)], 1)[:480, 120:920]
    kernels = [torch.from_numpy(camera_shake(np.random.default_rng(seed), 15, length=9.0)) for seed in (5, 9)]
    right = torch.zeros_like(picture)
    right[:, 400:] = 1
    blurred = blur(picture[None], torch.stack(kernels), torch.stack([1 - right, right]))[0]
    blurred[:200, 500:] = 0.5  # and an area in which there is nothing, but at its border
    found = find_candidates(blurred)
    assert found[0].grey.shape == picture.shape and len(found) == 1 + len(areas(*picture.shape))

    def likeness(kernel: torch.Tensor, truth: torch.Tensor) -> float:
        size = (64, 64)
        both = torch.fft.rfft2(kernel, s=size) * torch.fft.rfft2(truth, s=size).conj()
        return float(torch.fft.irfft2(both, s=size).max() / (kernel.norm() * truth.norm()))

    left = found[1]
    left.refine(1.0)
    assert likeness(left.kernel, kernels[0]) > 0.75 > likeness(left.kernel, kernels[1])
    with pytest.raises(KernelError, match="one colour"):
        find_candidates(torch.full((480, 640), 0.3))


def test_an_area_whose_kernel_went_astray_is_left_out(monkeypatch) -> None:
    from unsmear.estimation import candidates

    class Found:
        def __init__(self, kernel: torch.Tensor) -> None:
            self.kernel = kernel

    path, square = torch.eye(41) / 41, torch.full((41, 41), 41.0**-2)
    kernels = iter([path, square, path, path, path])
    monkeypatch.setattr(candidates, "search", lambda *_, **__: Found(next(kernels)))
    monkeypatch.setattr(candidates, "Search", Found)
    found = find_candidates(torch.zeros(800, 800))
    assert len(found) == 4 and all(torch.equal(one.kernel, path) for one in found)


@pytest.fixture(scope="module")
def shaken() -> torch.Tensor:
    picture = torch.from_numpy(skimage.data.camera()[:360, :]).float() / 255
    picture = torch.cat([picture, picture.flip(1)], 1)[:, 100:900]
    kernel = torch.from_numpy(camera_shake(np.random.default_rng(3), 11, length=7.0))
    return blur(picture[None], kernel[None], torch.ones(1, *picture.shape))[0]


def test_processes_that_share_the_work_find_the_same(shaken, tmp_path) -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core, or no Linux")
    alone = find_candidates(shaken)
    np.save(tmp_path / "grey.npy", shaken.numpy())
    program = (
        "import numpy, torch; from unsmear import runtime; "
        "runtime.start_workers('unsmear.estimation.candidates'); "
        "from unsmear.estimation.candidates import find_candidates; "
        "assert runtime._workers is not None; "
        "found = find_candidates(torch.from_numpy(numpy.load('grey.npy'))); "
        "from unsmear.estimation.uniform import refined; found[:2] = refined(found[:2]); "
        "from unsmear.estimation.camera import estimate_camera; "
        "fit = estimate_camera(found[0].grey, found[0].kernel, rounds=1); "
        "numpy.savez('found.npz', *fit.field.kernels, *[search.kernel.numpy() for search in found]); "
        "runtime.stop_workers()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)
    found = list(np.load(tmp_path / "found.npz").values())
    for search in alone[:2]:
        search.refine(1.0)
    turned = estimate_camera(alone[0].grey, alone[0].kernel, rounds=1).field.kernels
    assert len(found) == len(turned) + len(alone) and len(alone) > 1
    for kernel, expected in zip(found, [*turned, *(search.kernel for search in alone)], strict=True):
        assert np.abs(kernel - expected.numpy()).max() < 1e-3


def test_without_them_where_one_is_killed(shaken, monkeypatch) -> None:
    class Broken:
        def map(self, *_) -> None:
            raise BrokenProcessPool("killed")

        def shutdown(self, **_) -> None:
            ended.append(True)

    ended: list[bool] = []
    found = object.__new__(Search)
    found.kernel = torch.eye(3) / 3
    monkeypatch.setattr(candidates, "search", lambda *_, **__: found)
    monkeypatch.setattr(runtime, "_workers", Broken())
    assert find_candidates(shaken[:250, :250]) == [found]  # one piece: not asked
    assert not ended
    assert find_candidates(shaken) == [found] * (1 + len(areas(*shaken.shape)))
    assert ended and runtime._workers is None


def test_one_thread_is_one_process(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    runtime.start_workers("unsmear.estimation.candidates")
    assert runtime._workers is None

"""Photographs → bank: what is kept and what skipped, going on after a kill, use by pairs and training."""

import numpy as np
import pytest
import torch
from skimage import data
from typer.testing import CliRunner

from unsmear import PairSampler
from unsmear.basis.bank import KernelBank
from unsmear.basis.kernels import camera_shake, check_kernels, linear_motion, mass_centre
from unsmear.blurring import blur
from unsmear.cli import app
from unsmear.errors import KernelError, PhotoError
from unsmear.estimation import collecting
from unsmear.estimation.collecting import CollectSettings, collect_bank, farthest_first, read_reduced
from unsmear.estimation.photograph import PhotographFit, Region
from unsmear.photo import Photo, write_photo
from unsmear.training.feeding import make_pair_sampler
from unsmear.training.recipe import make_recipe


def fit_of(kernel, *, verdict="motion", confidence=0.9):
    k = torch.from_numpy(np.ascontiguousarray(kernel))
    region = Region(0, 0, 64, k, confidence, 1.0)
    return PhotographFit(verdict, k[None], None, (region,), None, float("nan"), "a sentence")


@pytest.fixture
def folder(tmp_path):
    """Four photographs of one colour each, and one that is none."""
    (tmp_path / "photos").mkdir()
    for number in range(4):
        pixels = np.full((80, 100, 3), 40 * number, np.uint8)
        write_photo(Photo(pixels=pixels), tmp_path / f"photos/{number}.png")
    (tmp_path / "photos/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    return tmp_path / "photos"


@pytest.fixture
def by_level(monkeypatch):
    """Instead of the estimate, by the photograph's level: a kernel, nearly the same, another, and none."""
    base = camera_shake(np.random.default_rng(0), 31, length=20.0)
    similar = 0.97 * base + 0.03 * np.roll(base, 1, 0)
    other = linear_motion(15.0, 120.0, 31)
    fits = [fit_of(base, confidence=0.8), fit_of(similar), fit_of(other), fit_of(other, verdict="none")]
    calls = []

    def estimate(image, **options):
        calls.append(round(float(image.mean() * 255 / 40)))
        return fits[calls[-1]]

    monkeypatch.setattr(collecting, "estimate_photograph", estimate)
    return calls


def test_bank_of_different_kernels_with_their_sources(folder, tmp_path, by_level):
    bank, report = collect_bank([folder], tmp_path / "bank.safetensors", size=41, workers=0)
    loaded = KernelBank.load(tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(loaded.kernels, bank.kernels)
    assert loaded.info == bank.info
    check_kernels(loaded.kernels)
    assert loaded.kernels.dtype == np.float32 and loaded.kernels.shape == (2, 41, 41)
    assert np.abs(mass_centre(loaded.kernels)).max() < 2e-3
    assert [info["source"] for info in loaded.info] == [
        "1.png",
        "2.png",
    ]  # 0 is like 1, which is trusted more
    assert all(info["kind"] == "estimated" and info["confidence"] == 0.9 for info in loaded.info)
    assert loaded.info[1]["angle"] == pytest.approx(120, abs=2)
    assert loaded.info[1]["length"] == pytest.approx(15, rel=0.12)
    assert (report.found, report.chosen, report.duplicates) == (3, 2, 1)
    assert report.verdicts == {"motion": 3, "none": 1}
    assert [name for name, _ in report.failures] == ["broken.jpg"]
    assert "broken.jpg" in str(report) and "2 kept" in str(report)


def test_goes_on_after_a_kill_and_estimates_nothing_twice(folder, tmp_path, by_level, monkeypatch):
    whole, _ = collect_bank([folder], tmp_path / "whole.safetensors", workers=0)
    by_level.clear()
    honest = collecting.estimate_photograph

    def killed(image, **options):
        if len(by_level) == 2:
            raise KeyboardInterrupt
        return honest(image, **options)

    monkeypatch.setattr(collecting, "estimate_photograph", killed)
    with pytest.raises(KeyboardInterrupt):
        collect_bank([folder], tmp_path / "bank.safetensors", workers=0)
    assert not (tmp_path / "bank.safetensors").exists()
    monkeypatch.setattr(collecting, "estimate_photograph", honest)
    bank, report = collect_bank([folder], tmp_path / "bank.safetensors", workers=0)
    assert by_level == [0, 1, 2, 3]
    assert (report.present, report.estimated) == (2, 2)
    assert bank.to_bytes() == whole.to_bytes()
    # once more with other wishes about the bank: from the journal alone
    stricter, report = collect_bank(
        [folder], tmp_path / "bank.safetensors", workers=0, least_confidence=0.85, alike=0.999, overwrite=True
    )
    assert by_level == [0, 1, 2, 3] and report.estimated == 0 and report.found == 2
    assert len(stricter) == 2
    # other settings of the estimate are another estimate, and so is a photograph that changed
    collect_bank(
        [folder],
        tmp_path / "bank.safetensors",
        workers=0,
        settings=CollectSettings(regions=2),
        overwrite=True,
    )
    assert by_level[4:] == [0, 1, 2, 3]
    write_photo(Photo(pixels=np.full((90, 90, 3), 120, np.uint8)), folder / "0.png", overwrite=True)
    collect_bank([folder], tmp_path / "bank.safetensors", workers=0, overwrite=True)
    assert by_level[8:] == [3]


def test_no_bank_without_kernels_and_none_overwritten(folder, tmp_path, by_level):
    bank, report = collect_bank([folder / "3.png"], tmp_path / "bank.safetensors", workers=0)
    assert bank is None and not (tmp_path / "bank.safetensors").exists()
    assert report.verdicts == {"none": 1}
    (tmp_path / "bank.safetensors").write_bytes(b"mine")
    with pytest.raises(KernelError, match="overwrite"):
        collect_bank([folder], tmp_path / "bank.safetensors", workers=0)
    assert (tmp_path / "bank.safetensors").read_bytes() == b"mine"
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError, match="no photographs"):
        collect_bank([tmp_path / "empty"], tmp_path / "other.safetensors", workers=0)
    for wrong in ({"size": 40}, {"most": 0}, {"alike": 1.5}):
        with pytest.raises(KernelError, match="expected"):
            collect_bank([folder], tmp_path / "other.safetensors", workers=0, **wrong)
    with pytest.raises(KernelError, match="safetensors"):
        collect_bank([folder], tmp_path / "bank.npy", workers=0)


def test_kernels_too_long_for_the_bank_are_counted(folder, tmp_path, by_level):
    bank, report = collect_bank([folder], tmp_path / "bank.safetensors", size=11, workers=0)
    assert bank is None and report.too_long == report.found == 3


def test_farthest_first_stops_at_near_duplicates_and_at_the_number_asked_for():
    one, two = linear_motion(15.0, 0.0, 21), linear_motion(15.0, 90.0, 21)
    stack = np.stack([one, linear_motion(15.0, 1.0, 21), two, linear_motion(15.0, 45.0, 21), two])
    trust = np.array([0.5, 0.6, 0.5, 0.5, 0.5])
    order, duplicates = farthest_first(stack, trust, 10, 0.95)
    assert order[0] == 1 and sorted(order) in ([1, 2, 3], [1, 3, 4]) and duplicates == 2
    assert farthest_first(stack, trust, 2, 0.95)[0] == order[:2]
    # law: the likeness to what is chosen already never falls along the order
    rng = np.random.default_rng(0)
    many = np.stack([camera_shake(rng, 31, length=20.0) for _ in range(30)])
    order, _ = farthest_first(many, rng.random(30), 30, 1.0)
    rows = many[order].reshape(len(order), -1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = [float((rows[:n] @ rows[n]).max()) for n in range(1, len(rows))]
    assert np.mean(nearest[:5]) < np.mean(nearest[-5:])


def test_a_reduced_photograph_has_so_many_pixels_at_most(tmp_path):
    write_photo(Photo(pixels=data.astronaut()), tmp_path / "a.png")
    image, factor, photo = read_reduced(tmp_path / "a.png", 40_000)
    assert (
        image.shape == (3, 200, 200) and factor == pytest.approx(200 / 512, rel=1e-3) and photo.width == 512
    )
    same = torch.nn.functional.interpolate(photo.tensor()[None], size=(200, 200), mode="area")[0]
    assert float((image - same).abs().mean()) < 0.03
    assert read_reduced(tmp_path / "a.png", 10**6)[1] == 1.0


def test_pairs_and_training_take_an_estimated_bank_as_a_simulated_one(folder, tmp_path, by_level):
    bank, _ = collect_bank([folder], tmp_path / "bank.safetensors", workers=0)
    sharp = tmp_path / "sharp"
    sharp.mkdir()
    write_photo(Photo(pixels=data.chelsea()), sharp / "cat.png")
    recipe = make_recipe({"sharp": [str(sharp)], "bank": str(tmp_path / "bank.safetensors")})
    samplers = [
        PairSampler(sharp, tmp_path / "bank.safetensors", seed=1, size=64),
        make_pair_sampler(recipe, [sharp / "cat.png"], 1, 64),
    ]
    for sampler in samplers:
        kinds = set()
        for index in range(12):
            pair = sampler[index]
            kinds.add(pair.facts["scene"])
            torch.testing.assert_close(pair.masks.sum(0), torch.ones(64, 64))
            check_kernels(pair.kernels.numpy())
            if pair.facts["scene"] == "uniform" and len(pair.kernels[0]) > 7:
                assert any(
                    float((pair.kernels[0] - torch.from_numpy(k)[m : 65 - m, m : 65 - m]).abs().max()) < 1e-6
                    for k in bank.kernels
                    for m in [(65 - len(pair.kernels[0])) // 2]
                )
        assert "uniform" in kinds
    words = f"pairs {sharp} -o {tmp_path}/pairs --count 2 --size 64 --workers 1"
    done = CliRunner().invoke(app, [*words.split(), "--bank", str(tmp_path / "bank.safetensors")])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("2 pairs written")


def test_the_command_in_both_forms_names_what_failed(folder, tmp_path, by_level):
    for words, name in (["kernels"], "short"), (["kernels", "estimate"], "long"):
        target = tmp_path / f"{name}.safetensors"
        call = [
            *words,
            str(folder),
            "-o",
            str(target),
            "--workers",
            "0",
            "--picture",
            str(tmp_path / f"{name}.png"),
        ]
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 1, result.output  # broken.jpg
        assert "broken.jpg" in result.output and str(target) in result.output
        assert (tmp_path / f"{name}.png").exists()
    assert (tmp_path / "short.safetensors").read_bytes() == (tmp_path / "long.safetensors").read_bytes()
    (folder / "broken.jpg").unlink()
    first = ["kernels", "-o", str(tmp_path / "first.safetensors"), "--workers", "0", str(folder)]
    assert CliRunner().invoke(app, first).exit_code == 0
    shown = CliRunner().invoke(
        app, ["kernels", "show", str(tmp_path / "first.safetensors"), str(tmp_path / "s.png")]
    )
    assert shown.exit_code == 0 and "2 of 2 kernels" in shown.output
    assert "simulate" in CliRunner().invoke(app, ["kernels", "--help"]).output


def test_real_photographs_through_worker_processes(tmp_path, photograph):
    kernel = torch.from_numpy(linear_motion(13.0, 30.0, 21))
    v = blur(photograph, kernel[None], torch.ones(1, *photograph.shape[1:]))
    photo = Photo(pixels=np.zeros((200, 240, 3), np.uint8))
    photo.put(v)
    (tmp_path / "photos").mkdir()
    write_photo(photo, tmp_path / "photos" / "shaken.png")
    (tmp_path / "photos" / "empty.png").touch()
    settings = CollectSettings(pixels=30_000, regions=2)
    bank, report = collect_bank(
        [tmp_path / "photos"], tmp_path / "bank.safetensors", settings=settings, workers=1
    )
    here, _ = collect_bank([tmp_path / "photos"], tmp_path / "here.safetensors", settings=settings, workers=0)
    assert [name for name, _ in report.failures] == ["empty.png"]
    assert bank is not None and bank.to_bytes() == here.to_bytes()
    assert bank.info[0]["source"] == "shaken.png" and bank.info[0]["scale"] == pytest.approx(0.79, abs=0.01)
    assert bank.info[0]["angle"] == pytest.approx(30, abs=12)

"""Log, validation, pictures, export."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from unsmear.errors import ModelError, TrainingError
from unsmear.models.checkpoints import load_checkpoint
from unsmear.training import read_recipe, train
from unsmear.training.exporting import export
from unsmear.training.journal import Journal, read_log
from unsmear.training.validating import restored_pairs, scores, write_samples

CPU = torch.device("cpu")


def figures(step):
    return {"loss": float(step), "learning_rate": 1e-4, "gradient_norm": 1.0}


def test_log_goes_on_after_the_step_it_resumes_from(tmp_path, capsys):
    journal = Journal(tmp_path, step=0, total=9, tensorboard=False)
    for step in (1, 2, 3):
        journal.line(step, **figures(step))
    journal.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    journal = Journal(tmp_path, step=2, total=9, tensorboard=False)
    journal.validation(3, psnr_rgb=30.0, gain_psnr_rgb=1.25)
    journal.line(3, **figures(30))
    journal.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert [line.get("loss") for line in lines] == [1.0, 2.0, None, 30.0]
    said = capsys.readouterr().err
    assert "3/9" in said and "loss 30" in said and "gain +1.250 dB" in said and "left" in said


def test_tensorboard_has_the_figures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    journal = Journal(tmp_path, step=0, total=9, tensorboard=True)
    journal.line(1, **figures(1))
    journal.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("loss")[0].value == 1.0


def test_without_tensorboard_it_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    journal = Journal(tmp_path, step=0, total=9, tensorboard=True)
    journal.line(1, **figures(1))
    journal.close()
    assert "TensorBoard is not installed (pip install 'unsmear[train]')" in capsys.readouterr().err
    assert len(read_log(tmp_path / "log.jsonl")) == 1


def test_scores_are_means_per_image():
    generator = torch.Generator().manual_seed(0)
    restored, blurred, sharp = (torch.rand(3, 3, 16, 16, generator=generator) for _ in range(3))
    restored[0] = sharp[0] * 0.9
    oracle = [
        peak_signal_noise_ratio(u.numpy(), x.numpy(), data_range=1)
        for u, x in zip(sharp, restored, strict=True)
    ]
    start = [
        peak_signal_noise_ratio(u.numpy(), x.numpy(), data_range=1)
        for u, x in zip(sharp, blurred, strict=True)
    ]
    result = scores(restored, blurred, sharp)
    assert result["psnr_rgb"] == pytest.approx(sum(oracle) / 3, abs=1e-5)
    assert result["gain_psnr_rgb"] == pytest.approx((sum(oracle) - sum(start)) / 3, abs=1e-5)


def test_pairs_that_are_identical_do_not_make_the_score_infinite():
    generator = torch.Generator().manual_seed(0)
    restored, blurred, sharp = (torch.rand(3, 3, 16, 16, generator=generator) for _ in range(3))
    blurred[1] = sharp[1]
    restored[1] = sharp[1]
    kept = [0, 2]
    assert scores(restored, blurred, sharp) == scores(restored[kept], blurred[kept], sharp[kept])


def test_validation_gives_the_mode_back_and_clamps():
    model = torch.nn.Dropout(0.9).train()
    images = torch.full((2, 3, 4, 4), 1.5)
    assert torch.equal(restored_pairs(model, images, device=CPU), torch.ones(2, 3, 4, 4))
    assert model.training


def test_sample_picture(tmp_path):
    parts = [torch.full((2, 3, 8, 8), value) for value in (0.0, 0.5, 1.0)]
    write_samples(tmp_path / "a" / "x.png", *parts)
    with Image.open(tmp_path / "a" / "x.png") as picture:
        assert picture.size == (24, 16)
        assert [picture.getpixel((x, 3)) for x in (4, 12, 20)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_export(recipe, tmp_path):
    done = recipe(iterations=1, ema=0.5)
    with pytest.raises(TrainingError, match="has saved a checkpoint"):
        export(done.run, tmp_path / "x.safetensors")
    train(done)
    (Path(done.run) / "best.safetensors").unlink(missing_ok=True)
    with pytest.raises(TrainingError, match=r"best\.safetensors: not there; .*take --which last"):
        export(done.run, tmp_path / "x.safetensors")
    said = export(done.run, tmp_path / "half" / "x.safetensors", dtype="fp16", which="last")
    assert "tiny after step 1, fp16" in said and "left out: optimizer state and log; weights rounded" in said
    whole, half = (
        load_checkpoint(path) for path in (done.run / "last.safetensors", tmp_path / "half/x.safetensors")
    )
    assert half.header == {**whole.header, "dtype": "fp16"}
    for (name, weight), rounded in zip(whole.state_dict().items(), half.state_dict().values(), strict=True):
        torch.testing.assert_close(rounded, weight, rtol=2**-11, atol=6e-8, msg=name)
    with pytest.raises(TrainingError, match=r"exists already; .*--overwrite"):
        export(done.run, tmp_path / "half" / "x.safetensors", which="last")
    export(done.run, tmp_path / "half" / "x.safetensors", which="last", overwrite=True)
    assert load_checkpoint(tmp_path / "half/x.safetensors").header["dtype"] == "fp32"


def test_export_refuses_what_fp16_cannot_hold(recipe, tmp_path):
    done = recipe(iterations=1, learning_rate=1e6, low_rank=False)
    train(done)
    with pytest.raises(ModelError, match="does not fit into fp16"):
        export(done.run, tmp_path / "x.safetensors", dtype="fp16", which="last")
    assert not (tmp_path / "x.safetensors").exists()


def test_resolved_recipe_lies_in_the_run(recipe):
    done = recipe(iterations=1)
    train(done)
    assert read_recipe(done.run / "recipe.toml") == done


def test_names_that_cannot_be_exported_to(recipe, tmp_path):
    done = recipe(iterations=1)
    train(done)
    with pytest.raises(TrainingError, match=r"m\.pth: a checkpoint is a safetensors file"):
        export(done.run, tmp_path / "m.pth", which="last")
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=f"into the folder {tmp_path / 'file'}: "):
        export(done.run, tmp_path / "file/m.safetensors", which="last")
    assert not (tmp_path / "m.pth").exists()

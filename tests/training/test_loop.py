import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from unsmear.errors import RecipeError, TrainingError
from unsmear.models.checkpoints import load_checkpoint
from unsmear.pairs import Pair, PairSampler
from unsmear.training import to_toml, train
from unsmear.training.folder import RunFolder
from unsmear.training.journal import read_log
from unsmear.training.losses import LOSSES
from unsmear.training.placing import Place
from unsmear.training.state import read_header

COMMAND = [sys.executable, tiny.__file__, "train"]


def without_time(folder):
    return [{k: v for k, v in line.items() if k != "time"} for line in read_log(folder / "log.jsonl")]


def final(recipe):
    """Tensors and counters of a run's newest state."""
    path = RunFolder(recipe.run).newest
    header = read_header(path)
    return load_file(path), {key: header[key] for key in ("step", "best_gain", "losses")}


def assert_same_bits(one, other):
    (tensors, counters), (others, other_counters) = final(one), final(other)
    assert counters == other_counters
    assert tensors.keys() == others.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert without_time(one.run) == without_time(other.run)


def assert_close(one, other, tolerance):
    (tensors, _), (others, _) = final(one), final(other)
    for name, tensor in tensors.items():
        if name.startswith(("model/", "average/")):
            torch.testing.assert_close(tensor, others[name], rtol=0, atol=tolerance, msg=name)


class Blinks:
    """A sampler of `PairSampler`'s pairs that does something at one index."""

    def __init__(self, sampler, index, act):
        self.sampler, self.index, self.act = sampler, index, act

    def __getitem__(self, index):
        pair = self.sampler[index]
        return self.act(pair) if index == self.index else pair


def at_index(index, act):
    def make(recipe, photographs, seed, size):
        return Blinks(PairSampler(photographs, seed=seed, size=size), index, act)

    return make


@pytest.mark.filterwarnings("ignore:precision. this processor")  # bf16 is tested everywhere
def test_kill_and_resume_gives_the_same_bits(recipe, tmp_path):
    values = {
        "iterations": 20,
        "ema": 0.9,
        "clip": 0.5,
        "precision": "bf16",
        "schedule": "cosine",
        "warmup": 3,
        "accumulation": 2,
        "log_every": 3,
        "checkpoint_steps": 4,
        "samples_every": 10,
        "patches": [{"from_step": 14, "size": 64, "batch": 4}],
        "validation": {"every": 5, "count": 2, "size": 32},
    }
    straight = recipe(**values)
    train(straight)

    # the other run makes its pairs in a worker, is killed between two checkpoints, and goes on without one
    killed = recipe(**values, workers=1, run=str(tmp_path / "killed"))
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(killed))
    process = subprocess.Popen([*COMMAND, str(path)], stderr=subprocess.DEVNULL, start_new_session=True)
    while not any(line["step"] >= 6 for line in read_log(killed.run / "log.jsonl")):
        assert process.poll() is None, "ended by itself"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 4 <= read_header(RunFolder(killed.run).newest)["step"] < 20
    with (killed.run / "log.jsonl").open("a") as log:
        log.write('{"step": 19, "lo')  # what a kill in the middle of a line leaves behind
    train(killed.model_copy(update={"workers": 0}), resume=True)

    assert_same_bits(straight, killed)
    for name in ("best", "last"):
        weights = [load_file(run.run / f"{name}.safetensors") for run in (straight, killed)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    pictures = [
        [p.read_bytes() for p in sorted((r.run / "samples").glob("*.png"))] for r in (straight, killed)
    ]
    assert len(pictures[0]) == 2
    assert pictures[0] == pictures[1]
    starts = read_log(killed.run / "starts.jsonl")
    assert [start["step"] for start in starts] in ([0, 4 * count] for count in range(1, 5))
    assert {start["processes"] for start in starts} == {1}
    assert [path.name for path in RunFolder(killed.run).states] == [
        "step-00000016.safetensors",
        "step-00000020.safetensors",
    ]


def test_damaged_newest_state_falls_back_to_the_one_before(recipe, tmp_path):
    straight = recipe(checkpoint_steps=1)
    train(straight)
    other = recipe(checkpoint_steps=1, run=str(tmp_path / "other"))
    train(other)
    newest = RunFolder(other.run).newest
    newest.write_bytes(newest.read_bytes()[:-100])
    train(other, resume=True)
    assert_same_bits(straight, other)


@pytest.mark.parametrize(
    ("native", "precision", "told"), [("fp32", "bf16", 1), ("bf16", "bf16", 0), ("fp32", "fp32", 0)]
)
def test_a_processor_without_bf16_is_told(recipe, monkeypatch, native, precision, told):
    monkeypatch.setattr("unsmear.training.loop.native_precision", lambda device: native)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recipe(iterations=1, precision=precision))
    assert sum("does not multiply bf16" in str(warning.message) for warning in caught) == told


@pytest.mark.filterwarnings("ignore:precision. this processor")  # bf16 is tested everywhere
def test_termination_finishes_the_step_and_saves_it(recipe, tmp_path):
    """With the real network, whose stochastic depth must come out the same again."""
    values = {
        "network": "sglrn-t",
        "arguments": {"width": 4, "depths": [1] * 9, "drop_path": 0.5},
        "size": 128,
        "precision": "bf16",
        "optimizer": "adamw",
        "weight_decay": 0.02,
        "loss": "charbonnier",
    }
    straight = recipe(**values)
    train(straight)
    other = recipe(**values, run=str(tmp_path / "other"))

    def terminate(pair):
        os.kill(os.getpid(), signal.SIGTERM)
        return pair

    with pytest.raises(TrainingError, match="stopped after step 2, which is saved; go on with --resume"):
        train(other, make_sampler=at_index(3, terminate))
    train(other, resume=True)
    assert_same_bits(straight, other)


def test_a_critic_resumes_to_the_same_bits(recipe, tmp_path):
    values = {
        "iterations": 5,
        "accumulation": 2,
        "ema": 0.9,
        "adversarial": {"width": 4, "critic_steps": 2},
        "betas": [0.5, 0.999],
    }
    straight = recipe(**values)
    train(straight)
    other = recipe(**values, run=str(tmp_path / "other"))

    def terminate(pair):
        os.kill(os.getpid(), signal.SIGTERM)
        return pair

    with pytest.raises(TrainingError, match="stopped after step 3, which is saved"):
        train(other, make_sampler=at_index(5, terminate))
    assert read_header(RunFolder(other.run).newest)["step"] == 3
    train(other, resume=True)
    assert_same_bits(straight, other)
    tensors, _ = final(straight)
    assert {"critic/layers.0.weight", "critic-optimizer/exp_avg/layers.0.weight"} <= tensors.keys()
    assert tensors["critic-optimizer/step/layers.0.weight"] == 5 * 2
    lines = read_log(straight.run / "log.jsonl")
    assert {"loss", "gradient_norm", "critic_loss", "critic_gap", "critic_penalty"} <= lines[-1].keys()
    plain = load_checkpoint(straight.run / "last.safetensors").state_dict()
    assert not any("critic" in name for name in plain)


def test_the_critic_reaches_the_network(recipe, tmp_path):
    values = {"iterations": 2, "arguments": {"dropout": 0.0}}
    without = recipe(**values)
    against = recipe(**values, adversarial={"width": 4}, run=str(tmp_path / "against"))
    train(without)
    train(against)
    (one, _), (other, _) = final(without), final(against)
    assert not torch.equal(one["model/leave.weight"], other["model/leave.weight"])


def test_a_critic_that_is_not_finite_stops(recipe, monkeypatch):
    monkeypatch.setattr(
        "unsmear.training.adversarial.gradient_penalty", lambda critic, sharp, *_: sharp.sum() / 0
    )
    with pytest.raises(TrainingError, match=r"step 1: the critic is not finite .* none yet"):
        train(recipe(adversarial={"width": 4, "critic_steps": 1}))


def test_global_generators_are_left_as_found(recipe):
    before = torch.random.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    train(recipe(iterations=2, validation={"count": 1, "size": 32}, samples_every=1))
    after = torch.random.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert str(before[1:]) == str(after[1:])


@pytest.mark.parametrize(("low_rank", "what"), [(False, "loss is"), (True, "features are")])
def test_nan_stops_and_leaves_the_good_checkpoint(recipe, low_rank, what):
    def spoil(pair):
        return Pair(pair.sharp, pair.blurred * float("nan"), pair.kernels, pair.masks)

    bad = recipe(iterations=10, checkpoint_steps=2, low_rank=low_rank)
    with pytest.raises(TrainingError, match=rf"step 4: the {what} not finite .*step-00000002\.safetensors"):
        train(bad, make_sampler=at_index(6, spoil))
    assert [path.name for path in RunFolder(bad.run).states] == ["step-00000002.safetensors"]
    assert all(tensor.isfinite().all() for tensor in final(bad)[0].values())
    assert [line["step"] for line in read_log(bad.run / "log.jsonl")] == [1, 2, 3]


def test_gradient_that_is_not_finite_stops_too(recipe, monkeypatch):
    monkeypatch.setitem(LOSSES, "mse", lambda restored, sharp: (restored * 0).sum().sqrt())
    with pytest.raises(TrainingError, match=r"step 1: the norm of the gradient is not finite .* none yet"):
        train(recipe())


def test_pieces_of_a_batch_give_the_gradient_of_the_whole(recipe, tmp_path):
    arguments = {"dropout": 0.0, "norm": False}
    whole = recipe(batch=4, arguments=arguments)
    pieces = recipe(batch=4, arguments=arguments, accumulation=2, run=str(tmp_path / "pieces"))
    train(whole)
    train(pieces)
    # Adam's first steps are lr · sign(gradient), so a gradient near 0 may move a weight by some of 1e-3
    assert_close(whole, pieces, 2e-4)


@pytest.mark.filterwarnings("ignore")
def test_two_processes_take_the_steps_of_one(recipe, tmp_path):
    pytest.importorskip("accelerate")
    values = {"batch": 4, "iterations": 3, "arguments": {"dropout": 0.0, "norm": False}}
    # without a penalty the critic draws nothing, and what it learns is comparable, too
    values["adversarial"] = {"width": 4, "critic_steps": 2, "penalty": 0.0, "weight": 1e-3}
    one, two = recipe(**values), recipe(**values, run=str(tmp_path / "two"))
    train(one)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(two))
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
    ]
    done = subprocess.run([*torchrun, *COMMAND, str(path)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert_close(one, two, 2e-4)
    losses = [[line["loss"] for line in read_log(run.run / "log.jsonl")] for run in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    gaps = [[line["critic_gap"] for line in read_log(run.run / "log.jsonl")] for run in (one, two)]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-2, abs=1e-6)


def test_what_a_run_hands_out(recipe, photographs):
    done = recipe(ema=0.5, validation={"every": 2, "count": 2, "size": 32})
    checkpoint = train(done)
    model = load_checkpoint(checkpoint)
    tensors, counters = final(done)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[f"average/{name}"])
        if "running" not in name and "num_batches" not in name:  # buffers are copied, not averaged
            assert not torch.equal(tensor, tensors[f"model/{name}"])
    assert model.header["step"] == 4
    assert model.header["model"] == "tiny"
    assert model.header["data"]["photographs"] == 3
    assert {"recipe", "data", "commit", "version", "arguments"} <= model.header.keys()
    assert str(photographs.parent) not in json.dumps(model.header)
    best = load_checkpoint(done.run / "best.safetensors").header
    gains = {line["step"]: line["gain_psnr_rgb"] for line in without_time(done.run) if "psnr_rgb" in line}
    assert list(gains) == [2, 4]
    assert best["gain_psnr_rgb"] == max(gains.values()) == counters["best_gain"] == gains[best["step"]]


def test_it_learns(recipe):
    """One pair again and again: the network must take most of a known error away."""

    def same(recipe, photographs, seed, size):
        pair = PairSampler(photographs, seed=seed, size=size)[0]
        darker = Pair(pair.sharp, pair.sharp * 0.5, pair.kernels, pair.masks)
        return type("Same", (), {"__getitem__": lambda self, index: darker})()

    learned = recipe(iterations=40, learning_rate=1e-2, arguments={"dropout": 0.0})
    train(learned, make_sampler=same)
    losses = [line["loss"] for line in read_log(learned.run / "log.jsonl")]
    assert losses[-1] < losses[0] / 3


def test_weights_to_start_from(recipe, tmp_path):
    plain = {"arguments": {"norm": False}}
    first = train(recipe(**plain))
    again = recipe(
        weights=str(first), **plain, run=str(tmp_path / "again"), iterations=1, learning_rate=1e-12
    )
    train(again)
    before, after = load_file(first), load_file(again.run / "last.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(tensor.float(), after[name].float(), rtol=0, atol=1e-9)


def test_what_cannot_be_resumed(recipe, tmp_path, photographs):
    with pytest.raises(TrainingError, match="no run to resume"):
        train(recipe(), resume=True)
    train(recipe(iterations=1))
    with pytest.raises(TrainingError, match="holds a run at step 1; go on with it by --resume"):
        train(recipe())
    with pytest.raises(TrainingError, match=r"(?s)step 1.*learning_rate: was 0\.001, is 0\.002"):
        train(recipe(learning_rate=2e-3), resume=True)
    fewer = [str(path) for path in sorted(photographs.iterdir())[:2]]
    with pytest.raises(TrainingError, match="data: photographs was 3, is 2"):
        train(recipe(sharp=fewer), resume=True)
    train(recipe(iterations=2), resume=True)
    assert [line["step"] for line in read_log(recipe().run / "log.jsonl")] == [1, 2]


def test_killed_before_its_first_checkpoint(recipe, tmp_path):
    straight = recipe(iterations=2)
    train(straight)
    other = recipe(iterations=2, run=str(tmp_path / "other"))
    RunFolder(other.run).begin(other)
    train(other, resume=True)
    assert_same_bits(straight, other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sharp": []}, "sharp: name at least one folder"),
        ({"sharp": "nowhere"}, "sharp: nowhere is neither"),
        ({"size": 33}, "size: tiny takes multiples of 8"),
        ({"validation": {"size": 33, "count": 1}}, "validation.size: tiny takes multiples of 8"),
        ({"device": "cuda:77"}, "device: 'cuda:77' is not here"),
        ({"device": "meta"}, "device: 'meta' is not here .*; try 'cpu'"),
    ],
)
def test_recipes_that_do_not_fit(recipe, changes, words):
    with pytest.raises(RecipeError, match=words):
        train(recipe(**changes))


def test_batch_that_cannot_be_shared(recipe, monkeypatch):
    monkeypatch.setattr(Place, "processes", 4)
    with pytest.raises(RecipeError, match="batch: 2 cannot be shared by 4 processes"):
        train(recipe())


def test_folder_without_photographs(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match="no photograph in"):
        train(recipe(sharp=str(tmp_path / "empty")))


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_cannot_be_written(recipe, monkeypatch, resume):
    done = recipe(iterations=1)
    if resume:
        train(done)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("unsmear.writable.tempfile.TemporaryFile", refuse)
    with pytest.raises(TrainingError, match=f"folder {done.run}: permission denied; name another"):
        train(done, resume=resume)


def test_a_full_disk_is_one_sentence(recipe, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unsmear.training.keeping.Keeper.after_step", full)
    with pytest.raises(TrainingError, match=r"step 1 cannot be written .*No space left .*--resume"):
        train(recipe())

"""Training on written pairs, and guided networks on them and on the fly."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from unsmear.errors import PairsError, RecipeError, TrainingError
from unsmear.models.checkpoints import load_checkpoint
from unsmear.pairs import PairSampler, WrittenPatches, write_estimates, write_pairs
from unsmear.training import read_recipe, to_toml, train
from unsmear.training.feeding import Written, feed, make_pair_sampler, validation_pairs
from unsmear.training.folder import RunFolder
from unsmear.training.journal import read_log
from unsmear.training.placing import Place

GUIDED = {"network": "guided-s", "arguments": {"widths": [8, 16], "depths": [1, 1]}}


@pytest.fixture(scope="module")
def folder(photographs, tmp_path_factory):
    written = tmp_path_factory.mktemp("written") / "set"
    write_pairs(PairSampler(photographs, seed=5, size=48), 10, written, workers=1)
    write_estimates(written, 4, workers=1)
    return written


@pytest.fixture
def values(folder):
    validation = {"every": 2, "count": 2, "size": 48, "held_out": 0.2}
    return {"sharp": [], "written": str(folder), "size": 32, "loss": "psnr-soft", "validation": validation}


def fails_at(index):
    """A sampler that dies in the middle of a run, as a killed process would."""

    def make(recipe, items, seed, size):
        sampler = make_pair_sampler(recipe, items, seed, size)

        class Dies(WrittenPatches):
            def __getitem__(self, wanted):
                if wanted == index:
                    raise KeyboardInterrupt
                return sampler[wanted]

        return Dies(recipe.written, items, seed=seed, size=size, guides=sampler.guides)

    return make


def test_a_run_that_died_and_went_on_has_the_same_bits(recipe, values, tmp_path):
    more = GUIDED | {"iterations": 6, "ema": 0.9, "samples_every": 3, "checkpoint_steps": 2, "clip": 1.0}
    straight = recipe(**values | more)
    train(straight)
    other = recipe(**values | more, run=str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        train(other, make_sampler=fails_at(7))  # in the fourth step, after the state of the second
    train(other, resume=True)
    one, two = (load_file(RunFolder(run.run).newest) for run in (straight, other))
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    lines = [
        [{k: v for k, v in line.items() if k != "time"} for line in read_log(run.run / "log.jsonl")]
        for run in (straight, other)
    ]
    assert lines[0] == lines[1]
    assert sum("gain_psnr_rgb" in line for line in lines[0]) == 3
    pictures = [(run.run / "samples/00000006.png").read_bytes() for run in (straight, other)]
    assert pictures[0] == pictures[1]
    header = load_checkpoint(straight.run / "last.safetensors").header
    assert header["data"]["written"] == 10 and header["data"]["estimates"] == 4
    assert values["written"] not in json.dumps(header)


def test_held_out_pairs_are_the_first_and_never_trained_on(recipe, values, monkeypatch):
    asked = recipe(**values | GUIDED | {"iterations": 10})
    found = Written(asked)
    assert (list(found.held_out), list(found.trained)) == ([0, 1], list(range(2, 10)))
    seen = []
    whole = WrittenPatches._shown
    monkeypatch.setattr(
        WrittenPatches,
        "_shown",
        lambda self, number, kernel: seen.append(number) or whole(self, number, kernel),
    )
    blurred, sharp = validation_pairs(asked, found.held_out)
    assert seen == [0, 1]
    assert blurred.shape == (2, 9, 48, 48) and sharp.shape == (2, 3, 48, 48)
    seen.clear()
    fed = list(feed(asked, found.trained, step=0, place=Place(torch.device("cpu"))))
    assert {tuple(images.shape) for images in fed[0]} == {(2, 9, 32, 32), (2, 3, 32, 32)}
    assert seen and set(seen) <= set(range(2, 10))


def test_plain_networks_train_on_written_pairs_too(recipe, values):
    done = recipe(**values, iterations=1)
    train(done)
    (line,) = [line for line in read_log(done.run / "log.jsonl") if "psnr_rgb" in line]
    assert line["step"] == 1


def test_guided_networks_train_on_the_fly_and_from_weights(recipe, tmp_path):
    made = recipe(**GUIDED, iterations=1, validation={"count": 1, "size": 32}, samples_every=1)
    first = train(made)
    again = recipe(
        **GUIDED, weights=str(first), run=str(tmp_path / "again"), iterations=1, learning_rate=1e-12
    )
    train(again)
    before, after = load_file(first), load_file(again.run / "last.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, after[name], rtol=0, atol=1e-9)


def test_another_folder_is_refused_and_the_same_elsewhere_is_not(recipe, values, folder, tmp_path):
    short = values | GUIDED | {"validation": values["validation"] | {"count": 0}}
    train(recipe(**short, iterations=1))
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    train(recipe(**short | {"written": str(moved)}, iterations=2), resume=True)
    write_estimates(moved, 5, workers=1)
    with pytest.raises(TrainingError, match=r"(?s)estimates was 4, is 5.*manifest_sha256 was"):
        train(recipe(**short | {"written": str(moved)}, iterations=3), resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sharp": "photos"}, "sharp: written pairs are there already"),
        ({"bank": "b.safetensors"}, "bank: written pairs"),
        ({"pairs": {"longest": 20.0}}, "pairs: written pairs"),
        ({"guides": {"crops": 0}}, r"guides\.crops"),
        ({"guides": {"crop": 2}}, "did you mean 'crops'"),
        ({"guides": {"blur": [2.0, 1.0]}}, "guides: .*blur is"),
    ],
)
def test_contradictions_are_refused(recipe, values, changes, words):
    with pytest.raises(RecipeError, match=words):
        recipe(**values | changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"written": "nowhere"}, PairsError, "nowhere has no manifest"),
        ({"size": 64}, RecipeError, "size: 64 pixels cannot be cut from written pairs of 48"),
        ({"validation": {"count": 3, "size": 32}}, RecipeError, "count: 3 pairs, but 1 of the 10 written"),
        ({"validation": {"count": 1, "size": 64}}, RecipeError, r"validation\.size: 64 pixels"),
        ({"validation": {"count": 0, "held_out": 0.99}}, RecipeError, "held_out: of 10 .* none is left"),
        ({"guides": {"crops": 3}}, RecipeError, "guides: tiny is shown no kernels"),
    ],
)
def test_recipes_that_do_not_fit_the_folder(recipe, values, changes, error, words):
    with pytest.raises(error, match=words):
        train(recipe(**values | changes))


def test_the_resolved_recipe_of_a_run_is_the_recipe(recipe, values, tmp_path):
    made = recipe(**values | GUIDED | {"guides": {"thresholds": [0.0, 0.1]}})
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(made), "utf-8")
    assert read_recipe(path) == made

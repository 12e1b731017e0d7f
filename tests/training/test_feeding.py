import numpy as np
import pytest
import torch
from PIL import Image

from unsmear.pairs import PairSampler
from unsmear.training.feeding import Photographs, feed, validation_pairs
from unsmear.training.placing import Place


@pytest.fixture
def many(tmp_path):
    for number in range(20):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(tmp_path / f"{number:02d}.png")
    return tmp_path


def test_held_out_photographs_are_never_trained_on(recipe, many):
    drawn = recipe(sharp=str(many), validation={"count": 4, "held_out": 0.25, "size": 32})
    photographs = Photographs(drawn)
    assert len(photographs.held_out) == 5
    assert set(photographs.held_out) | set(photographs.trained) == set(many.iterdir())
    assert not set(photographs.held_out) & set(photographs.trained)
    again = Photographs(drawn.model_copy(update={"sharp": [*reversed(photographs.trained), many]}))
    assert again.count == 20
    other = recipe(sharp=str(many), validation={"count": 4, "held_out": 0.25, "size": 32, "seed": 2})
    assert Photographs(other).held_out != photographs.held_out


def test_all_are_trained_on_without_validation(recipe, many):
    assert len(Photographs(recipe(sharp=str(many), validation={"count": 0})).trained) == 20


def test_single_photograph_serves_both(recipe, photographs):
    single = recipe(sharp=str(photographs / "coffee.png"), validation={"count": 2, "size": 32})
    found = Photographs(single)
    assert found.trained == found.held_out
    (blurred, sharp) = validation_pairs(single, found.held_out)
    (first,) = feed(
        single.model_copy(update={"iterations": 1}), found.trained, step=0, place=Place(torch.device("cpu"))
    )
    assert blurred.shape == sharp.shape == first[0].shape
    assert not torch.equal(blurred, first[0])


def test_digest_follows_names_not_folders(recipe, photographs, tmp_path):
    before = Photographs(recipe())
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Photographs(recipe(sharp=str(tmp_path))).digest == before.digest
    (tmp_path / "coffee.png").rename(tmp_path / "tea.png")
    assert Photographs(recipe(sharp=str(tmp_path))).digest != before.digest


def test_batches_are_the_samplers_pairs(recipe, photographs):
    values = {"patches": [{"from_step": 2, "size": 64, "batch": 4}], "iterations": 3, "seed": 5}
    paths = sorted(photographs.iterdir())
    fed = list(feed(recipe(**values), paths, step=1, place=Place(torch.device("cpu"))))
    for (blurred, sharp), size, indices in zip(fed, (32, 64), (range(2, 4), range(4, 8)), strict=True):
        sampler = PairSampler(paths, seed=5, size=size)
        for number, index in enumerate(indices):
            assert torch.equal(blurred[number], sampler[index].blurred)
            assert torch.equal(sharp[number], sampler[index].sharp)

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from unsmear.errors import PairsError
from unsmear.estimation.filtering import guided_input
from unsmear.pairs import (
    GuidedPatches,
    GuideSettings,
    PairSampler,
    WrittenPairs,
    WrittenPatches,
    write_estimates,
    write_pairs,
)
from unsmear.pairs.patches import MARGIN

COUNT, ESTIMATES, SIDE, SIZE = 6, 3, 48, 32


@pytest.fixture(scope="module")
def written(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches") / "set"
    write_pairs(PairSampler(photos, seed=5, size=SIDE), COUNT, folder, workers=1)
    write_estimates(folder, ESTIMATES, workers=1)
    return folder


def turned(image):
    """All eight pictures that flips and quarter turns make of one."""
    return [half.rot90(turns, (1, 2)) for half in (image, image.flip(-1)) for turns in range(4)]


def place_of(patch, wholes):
    """Which pair a patch lies in, where, and how turned: by looking everywhere."""
    for number, whole in enumerate(wholes):
        corners = whole[:, : SIDE - SIZE + 1, : SIDE - SIZE + 1]
        for way, candidate in enumerate(turned(patch)):
            for top, left in (corners == candidate[:, :1, :1]).all(0).nonzero().tolist():
                if torch.equal(whole[:, top : top + SIZE, left : left + SIZE], candidate):
                    return number, way, top, left
    return None


def test_plain_patches_are_turned_crops_of_pairs_all_over(written):
    pairs = list(WrittenPairs(written))
    patches = WrittenPatches(written, seed=3, size=SIZE)
    places = []
    for index in range(60):
        patch = patches[index]
        place = place_of(patch.sharp, [pair.sharp for pair in pairs])
        assert place is not None
        assert place == place_of(patch.blurred, [pair.blurred for pair in pairs]) or (
            torch.equal(patch.sharp, patch.blurred)
        )
        places.append(place)
    assert {place[0] for place in places} == set(range(COUNT))
    assert {place[1] for place in places} == set(range(8))
    assert min(place[2] for place in places) < 4 and max(place[3] for place in places) > 12


def test_only_the_given_pairs_are_cut(written):
    pairs = WrittenPairs(written)
    patches = WrittenPatches(written, range(4, 6), seed=3, size=SIDE)
    allowed = [image for number in (4, 5) for image in turned(pairs[number].sharp)]
    for index in range(12):
        assert any(torch.equal(patches[index].sharp, image) for image in allowed)


@pytest.mark.parametrize("guides", [None, GuideSettings()])
def test_a_patch_is_a_function_of_seed_and_index(written, guides):
    def fresh(seed=3):
        return WrittenPatches(written, seed=seed, size=SIZE, guides=guides)

    forward = fresh()
    drawn = [forward[index] for index in range(10)]
    backward = fresh()
    for index in reversed(range(10)):
        assert all(map(torch.equal, backward[index], drawn[index]))
    assert torch.equal(pickle.loads(pickle.dumps(forward))[7].blurred, drawn[7].blurred)
    assert not torch.equal(fresh(seed=4)[0].sharp, drawn[0].sharp)
    loader = DataLoader(
        fresh(), batch_size=3, sampler=range(9), num_workers=1, multiprocessing_context="spawn"
    )
    for batch, first in zip(loader, (0, 3, 6), strict=True):
        for part, images in zip(batch, zip(*drawn[first : first + 3], strict=True), strict=True):
            assert torch.equal(part, torch.stack(images))


def test_features_cropped_are_the_crop_of_the_features(written):
    """With estimates alone each patch lies, all nine channels, in what the filter makes of a whole pair."""
    pairs = WrittenPairs(written)
    wholes = [
        torch.cat([guided_input(pair.blurred, pairs.estimate(number)[None]), pair.sharp])
        for number, pair in enumerate(list(pairs)[:ESTIMATES])
    ]
    patches = WrittenPatches(written, seed=3, size=SIZE, guides=GuideSettings(estimated_share=1.0))
    places = [place_of(torch.cat(patches[index]), wholes) for index in range(8)]
    assert None not in places
    assert len({place[0] for place in places}) > 1
    assert [places[i][0] for i in range(0, 8, 2)] == [places[i][0] for i in range(1, 8, 2)]
    assert len(set(places)) > 4, "two crops of one pair lie in different places"


@pytest.mark.parametrize(("share", "wrong", "own"), [(0.0, 0.0, True), (0.0, 1.0, False)])
def test_kernels_are_the_pairs_own_or_wrong(written, monkeypatch, share, wrong, own):
    """With nothing spoiled a patch comes from the true kernel of its pair, or from that of another."""
    monkeypatch.setattr("unsmear.pairs.patches.spoiled_kernel", lambda kernel, *_: kernel)
    settings = GuideSettings(estimated_share=share, wrong_share=wrong)
    pairs = list(WrittenPairs(written))
    kernels = [torch.einsum("bij,b->ij", pair.kernels, pair.masks.mean((1, 2))) for pair in pairs]
    patches = WrittenPatches(written, seed=3, size=SIDE, guides=settings)
    matches = []
    for index in range(0, 20, 2):
        patch = patches[index]
        number = next(
            n for n, p in enumerate(pairs) if any(torch.equal(patch.sharp, t) for t in turned(p.sharp))
        )
        whole = guided_input(pairs[number].blurred, (kernels[number] / kernels[number].sum())[None])
        matches.append(any(torch.allclose(patch.blurred, t, atol=1e-4) for t in turned(whole)))
    assert all(matches) if own else sum(matches) < 6


def test_middles_take_stored_estimates(written):
    pairs = WrittenPairs(written)
    patches = WrittenPatches(written, size=SIZE, guides=GuideSettings())
    inner = slice((SIDE - SIZE) // 2, (SIDE + SIZE) // 2)
    for number in range(ESTIMATES):
        whole = guided_input(pairs[number].blurred, pairs.estimate(number)[None])
        assert torch.equal(patches.middle(number).blurred, whole[:, inner, inner])
        assert torch.equal(patches.middle(number).sharp, pairs[number].sharp[:, inner, inner])
    assert torch.equal(patches.middle(ESTIMATES).blurred[:3], pairs[ESTIMATES].blurred[:, inner, inner])
    plain = WrittenPatches(written, size=SIZE).middle(1)
    assert torch.equal(plain.blurred, pairs[1].blurred[:, inner, inner])
    assert torch.equal(plain.sharp, pairs[1].sharp[:, inner, inner])


def test_guided_patches_on_the_fly(photos):
    sampler = PairSampler(photos, seed=7, size=SIZE + 2 * MARGIN)
    patches = GuidedPatches(sampler, settings=GuideSettings(wrong_share=0.5))
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for index in range(6):
        patch, pair = patches[index], sampler[index]
        assert patch.blurred.shape == (9, SIZE, SIZE) and patch.sharp.shape == (3, SIZE, SIZE)
        inner = slice(MARGIN, MARGIN + SIZE)
        assert torch.equal(patch.blurred[:3], pair.blurred[:, inner, inner])
        assert torch.equal(patch.sharp, pair.sharp[:, inner, inner])
        again = GuidedPatches(sampler, settings=GuideSettings(wrong_share=0.5))[index]
        assert torch.equal(again.blurred, patch.blurred)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_refusals(written, tmp_path):
    with pytest.raises(PairsError, match=r"patches of 49 px cannot be cut from .* have 48 px"):
        WrittenPatches(written, size=49)
    with pytest.raises(PairsError, match=r"no manifest\.json"):
        WrittenPatches(tmp_path)
    with pytest.raises(IndexError):
        WrittenPatches(written, size=SIZE)[-1]

import pickle

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import data
from torch.utils.data import DataLoader

from unsmear.basis.bank import KernelBank, simulate_bank
from unsmear.basis.kernels import check_kernels, mass_centre
from unsmear.blurring import blur, to_linear, to_srgb
from unsmear.errors import KernelError, PairsError
from unsmear.pairs import Pair, PairSampler, PairSettings, stack_pairs
from unsmear.pairs.sampling import _crisp
from unsmear.photo import Photo, write_photo

CLEAN = {
    "noise_free_share": 1.0,
    "jpeg_share": 0.0,
    "saturation_share": 0.0,
}
KINDS = ("identity", "uniform", "camera", "related", "objects", "random")


def only(kind, **changes):
    weights = {f"{name}_weight": float(name == kind) for name in KINDS}
    return PairSettings(**(CLEAN | weights | changes))


def assert_equal(one: Pair, two: Pair):
    for name in ("sharp", "blurred", "kernels", "masks"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.facts == two.facts


@pytest.fixture(scope="module")
def sampler(photos):
    return PairSampler(photos, seed=7, size=64)


# Laws


def test_every_pair_is_a_blur_on_the_eight_bit_grid(sampler):
    for index in range(60):
        pair = sampler[index]
        bases, size = len(pair.kernels), pair.kernels.shape[-1]
        assert pair.sharp.shape == pair.blurred.shape == (3, 64, 64)
        assert pair.kernels.shape == (bases, size, size) and pair.masks.shape == (bases, 64, 64)
        assert 1 <= bases <= 6 and size <= 65
        for image in (pair.sharp, pair.blurred, pair.masks):
            assert image.dtype == torch.float32 and image.min() >= 0 and image.max() <= 1
            assert (image * 255 - (image * 255).round()).abs().max() < 1e-4
        check_kernels(pair.kernels.numpy())
        assert np.abs(mass_centre(pair.kernels.numpy())).max() < 1e-3
        assert (pair.masks.sum(0) - 1).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("linear", [0.0, 1.0])
def test_the_tuple_reproduces_the_blurred_image(photos, kind, linear):
    """v = blur(u, k, m) to the rounding of u and v: inside, where the border of the crop is not seen."""
    sampler = PairSampler(photos, seed=1, size=96, settings=only(kind, linear_share=linear, longest=30.0))
    for index in range(6):
        pair = sampler[index]
        assert pair.facts["scene"] == kind and pair.facts["light"] == ("linear" if linear else "srgb")
        source = to_linear(pair.sharp) if linear else pair.sharp
        again = blur(source, pair.kernels, pair.masks)
        again = to_srgb(again) if linear else again
        margin = pair.kernels.shape[-1] // 2
        inner = slice(margin, 96 - margin)
        # Half a level of v, and the mean of the rounding of u.
        assert (again - pair.blurred)[:, inner, inner].abs().max() < 1.1 / 255


def test_the_border_of_a_crop_is_real_surroundings(photos):
    """v at the border of the crop is what the larger photograph gives, not a reflection."""
    settings = only("uniform", linear_share=0.0, smallest_scale=1.0, defocus_share=0.0, straight_share=0.0)
    pair = PairSampler(photos / "chelsea.png", seed=0, size=96, settings=settings)[2]
    margin = pair.kernels.shape[-1] // 2
    top, left, side = pair.facts["box"]
    assert side == 96 + 2 * margin
    photo = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1).float() / 255
    window = photo[:, top : top + side, left : left + side]
    turned = [torch.rot90(w, turn, (1, 2)) for w in (window, window.flip(2)) for turn in range(4)]
    inner = slice(margin, margin + 96)
    seen = next(w for w in turned if torch.allclose(w[:, inner, inner], pair.sharp, atol=1e-6))
    again = blur(seen, pair.kernels, pair.masks, border="valid")
    assert (again - pair.blurred).abs().max() < 0.51 / 255
    assert (blur(pair.sharp, pair.kernels, pair.masks) - pair.blurred).abs().max() > 2 / 255


def test_a_pair_is_a_function_of_seed_and_index(photos, sampler):
    again = PairSampler(photos, seed=7, size=64)
    for index in (11, 3, 500, 3):
        assert_equal(sampler[index], again[index])
    other = PairSampler(photos, seed=8, size=64)
    assert not torch.equal(other[3].sharp, sampler[3].sharp)
    assert not torch.equal(sampler[4].sharp, sampler[3].sharp)


def test_nothing_touches_the_global_generators(sampler):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the one that must not change)
    sampler[1]
    assert torch.equal(before, torch.get_rng_state())
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_small_cache_and_pickle_change_nothing(photos, sampler):
    tight = pickle.loads(pickle.dumps(PairSampler(photos, seed=7, size=64, cache_bytes=1)))
    for index in range(6):
        assert_equal(tight[index], sampler[index])
    assert len(tight._cache) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of multiprocessing's fork beside threads
def test_data_loader_workers_give_the_same_batches(sampler):
    plain = [stack_pairs([sampler[i] for i in pair]) for pair in ([0, 1], [2, 3])]
    loader = DataLoader(sampler, batch_size=2, num_workers=1, collate_fn=stack_pairs)
    for (blurred, sharp), (expected_blurred, expected_sharp) in zip(loader, plain, strict=True):
        assert blurred.shape == (2, 3, 64, 64)
        assert torch.equal(blurred, expected_blurred) and torch.equal(sharp, expected_sharp)


def test_an_epoch_shows_each_photo_once_in_changing_order(photos):
    sampler = PairSampler(photos, seed=0, size=64)
    assert len(sampler) == 4
    orders = [[sampler.photo_of(4 * epoch + place) for place in range(4)] for epoch in range(8)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert len(list(sampler)) == 4


def test_the_mixture_follows_the_weights(photos):
    sampler = PairSampler(photos, seed=0, size=16)
    count = 400
    facts = [sampler[index].facts for index in range(count)]
    for kind, weight in sampler.settings.weights().items():
        assert sum(fact["scene"] == kind for fact in facts) / count == pytest.approx(weight, abs=0.06)
    assert sum(fact["light"] == "linear" for fact in facts) / count == pytest.approx(0.5, abs=0.07)
    assert sum("jpeg" in fact for fact in facts) / count == pytest.approx(0.2, abs=0.06)
    noisy = [fact["noise"] for fact in facts if "noise" in fact]
    assert max(noisy) <= 2.5 / 255 and np.mean(noisy) == pytest.approx(1.25 / 255, rel=0.15)
    lengths = np.array([fact["length"] for fact in facts if fact["scene"] == "uniform"])
    assert np.median(lengths) == pytest.approx(10, rel=0.3) and lengths.max() <= 60


# Single effects


def test_identity_pairs_are_sharp(photos):
    pair = PairSampler(photos, size=64, settings=only("identity", linear_share=1.0))[0]
    assert torch.equal(pair.sharp, pair.blurred)
    assert pair.kernels.flatten().tolist() == [1.0] and (pair.masks == 1).all()


def test_noise_has_the_standard_deviation_that_the_facts_name(photos):
    settings = only("identity", noise_free_share=0.0, noise=(0.02, 0.02), linear_share=0.0)
    pair = PairSampler(photos, size=128, settings=settings)[0]
    inside = (pair.sharp > 0.1) & (pair.sharp < 0.9)
    measured = (pair.blurred - pair.sharp)[inside].std()
    assert pair.facts["noise"] == 0.02
    assert measured == pytest.approx((0.02**2 + 1 / 12 / 255**2) ** 0.5, rel=0.03)


def test_sensor_noise_grows_with_light(photos):
    settings = only(
        "identity",
        noise_free_share=0.0,
        sensor_noise_share=1.0,
        linear_share=1.0,
        shot_noise=0.01,
        read_noise=0.0,
    )
    pair = PairSampler(photos / "chelsea.png", size=256, settings=settings)[0]
    strength = pair.facts["sensor_noise"]
    light, difference = to_linear(pair.sharp), to_linear(pair.blurred) - to_linear(pair.sharp)
    for low, high in ((0.1, 0.2), (0.3, 0.5)):
        inside = (light > low) & (light < high)
        expected = strength * 0.01 * light[inside].mean()
        assert difference[inside].var() == pytest.approx(float(expected), rel=0.1)


def test_saturated_highlights_spread_further(photos):
    settings = only("uniform", saturation_share=1.0, saturation_gain=(3.0, 3.0), saturation_start=0.5)
    plain = PairSampler(photos, seed=3, size=96, settings=only("uniform"))
    bright = PairSampler(photos, seed=3, size=96, settings=settings)
    assert bright[1].sharp.max() == 1.0
    assert bright[1].facts["saturation_gain"] == 3.0
    assert bright[1].blurred.mean() > plain[1].blurred.mean()
    dark = plain[1].sharp.amax(0) < 0.5
    assert torch.equal(bright[1].sharp[:, dark], plain[1].sharp[:, dark])


def test_crisp_pairs_are_blurred_from_a_sharpened_picture(photos):
    settings = only("uniform", crisp_share=1.0, defocus_share=0.0, linear_share=0.0)
    pair = PairSampler(photos, seed=5, size=96, settings=settings)[0]
    assert pair.facts["crisp"]
    margin = pair.kernels.shape[-1] // 2 + 1
    inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
    sharper = _crisp(pair.sharp)
    errors = {
        name: (blur(u, pair.kernels, pair.masks) - pair.blurred)[inner].abs().mean()
        for name, u in (("crisp", sharper), ("plain", pair.sharp))
    }
    assert errors["crisp"] < 0.33 / 255 < 0.4 / 255 < errors["plain"]  # rounding alone gives 0.25 / 255
    for kind in ("identity", "objects"):  # what stands still is softened by nothing
        still = only(kind, crisp_share=1.0, still_share=1.0)
        assert "crisp" not in PairSampler(photos, size=96, settings=still)[0].facts


def test_soft_pairs_are_out_of_focus_before_anything_moves(photos):
    plain = PairSampler(photos, size=96, settings=only("uniform", defocus_share=0.0))
    soft = PairSampler(
        photos, size=96, settings=only("uniform", defocus_share=0.0, soft_share=1.0, soft_radius=(3.0, 3.0))
    )
    energies = []
    for index in range(6):
        pair, sharp = soft[index], plain[index].sharp
        assert pair.facts["soft"] == 3.0
        # the same place: u is softer than the photograph, and v is u, moved
        energies.append(float(pair.sharp.diff(dim=2).square().sum() / sharp.diff(dim=2).square().sum()))
        margin = pair.kernels.shape[-1] // 2 + 1
        inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
        error = (blur(pair.sharp, pair.kernels, pair.masks) - pair.blurred)[inner].abs().mean()
        assert error < 1 / 255
    assert max(energies) < 0.9
    assert min(energies) < 0.5 * max(energies)  # everywhere, and only in places


@pytest.mark.parametrize("frequency", [0.0, 0.3, 1.0, 2.5, np.pi])
def test_crisp_has_the_transfer_function_that_it_says(frequency):
    wave = torch.cos(frequency * torch.arange(64.0)).expand(3, 64, 64)
    expected = 1 + (1 - np.cos(frequency)) / 6
    for picture in (wave, wave.mT.contiguous()):
        inner = _crisp(picture)[:, 1:-1, 1:-1]
        assert torch.allclose(inner, expected * picture[:, 1:-1, 1:-1], atol=1e-5)


def test_jpeg_changes_the_blurred_image_only(photos):
    plain = PairSampler(photos, size=96, settings=only("identity"))[0]
    jpeg = PairSampler(photos, size=96, settings=only("identity", jpeg_share=1.0, jpeg_quality=(75, 75)))[0]
    assert jpeg.facts["jpeg"] == 75
    assert torch.equal(jpeg.sharp, plain.sharp)
    assert 0 < (jpeg.blurred - plain.blurred).abs().mean() < 0.05


def test_crops_are_reduced_without_aliasing(tmp_path):
    """A one-pixel checkerboard reduced by two is even grey; it would stay black and white with aliasing."""
    board = (np.indices((400, 400)).sum(0) % 2 * 255).astype(np.uint8)
    write_photo(Photo(pixels=board[..., None]), tmp_path / "board.png")
    sampler = PairSampler(tmp_path, size=64, settings=only("identity", smallest_scale=0.5))
    sides = {}
    for index in range(20):
        pair = sampler[index]
        sides[pair.facts["box"][2]] = float(pair.sharp.std())
    assert len(sides) > 10
    assert sides[max(sides)] < 0.1 < sides[min(sides)]


def test_large_photos_are_reduced_when_read(tmp_path):
    big = np.kron(data.coffee(), np.ones((4, 4, 1), np.uint8))  # 1600 × 2400
    write_photo(Photo(pixels=big), tmp_path / "big.png")
    sampler = PairSampler(tmp_path, size=64, settings=PairSettings(photo_pixels=100_000))
    sampler[0]
    (kept,) = sampler._cache.values()
    assert kept.shape[0] * kept.shape[1] == pytest.approx(100_000, rel=0.02)
    truth = data.coffee().reshape(100, 4, 150, 4, 3).mean((1, 3)).mean()
    assert kept.mean() == pytest.approx(truth, abs=1)


def test_sixteen_bit_and_alpha_are_read(tmp_path):
    wide = data.coffee().astype(np.uint16) * 257
    alpha = np.dstack([wide, np.full(wide.shape[:2], 65535, np.uint16)])
    write_photo(Photo(pixels=alpha), tmp_path / "deep.png")
    write_photo(Photo(pixels=data.coffee()), tmp_path / "flat.png")
    deep, flat = (
        PairSampler(tmp_path / name, size=64, settings=only("identity"))[0]
        for name in ("deep.png", "flat.png")
    )
    assert torch.equal(deep.sharp, flat.sharp)


# Banks


def test_kernels_come_from_the_bank(photos, tmp_path):
    bank = simulate_bank(5, size=33, seed=9)
    bank.save(tmp_path / "bank.safetensors")
    for given in (bank, tmp_path / "bank.safetensors"):
        sampler = PairSampler(photos, given, size=64, settings=only("uniform", defocus_share=0.0))
        for index in range(4):
            kernel = sampler[index].kernels[0].numpy()
            margin = (33 - len(kernel)) // 2
            inner = slice(margin, 33 - margin)
            assert any(np.array_equal(kernel, one[inner, inner]) for one in bank.kernels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_scene_works_with_a_large_bank(photos, kind):
    bank = KernelBank(np.stack([np.eye(81, dtype=np.float32) / 81] * 2))
    sampler = PairSampler(photos, bank, size=64, settings=only(kind, largest_kernel=33))
    for index in range(4):
        kernels = sampler[index].kernels
        assert kernels.shape[-1] <= 33
        check_kernels(kernels.numpy())


def test_a_bank_of_the_wrong_shape_is_refused(photos, tmp_path):
    (tmp_path / "bank.safetensors").write_bytes(b"nonsense")
    with pytest.raises(KernelError, match=r"bank\.safetensors"):
        PairSampler(photos, tmp_path / "bank.safetensors", size=64)


# Photographs that cannot be used


def test_small_and_foreign_files_are_named_and_left_out(tmp_path, photos):
    write_photo(Photo(pixels=data.coffee()[:40]), tmp_path / "flat.png")
    (tmp_path / "text.jpg").write_text("no photograph")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes((photos / "astronaut.jpg").read_bytes()[:100])
    (tmp_path / "good.png").write_bytes((photos / "chelsea.png").read_bytes())
    sampler = PairSampler(tmp_path, size=64)
    assert [path.name for path in sampler.photos] == ["good.png"]
    assert "smaller than the crop" in sampler.skipped[str(tmp_path / "flat.png")]
    assert "is no JPEG, PNG" in sampler.skipped[str(tmp_path / "text.jpg")]
    assert "the file is empty" in sampler.skipped[str(tmp_path / "empty.jpg")]
    assert "cut short or damaged" in sampler.skipped[str(tmp_path / "cut.jpg")]


def test_a_truncated_photo_is_reported_and_replaced(tmp_path, photos):
    whole = (photos / "astronaut.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.jpg").write_bytes(whole)
    sampler = PairSampler(tmp_path, size=64)
    with pytest.warns(UserWarning, match=r"a\.jpg"):
        pairs = [sampler[index] for index in range(4)]
    assert {pair.facts["photo"] for pair in pairs} == {"b.jpg"}
    assert str(tmp_path / "a.jpg") in sampler.skipped


def test_nothing_usable_is_an_error(tmp_path, photos):
    with pytest.raises(PairsError, match="no photograph"):
        PairSampler(tmp_path)
    with pytest.raises(PairsError, match="smaller than the crop"):
        PairSampler(photos / "camera.png", size=300)
    for missing in (tmp_path / "missing.jpg", [photos, tmp_path / "nope"]):
        with pytest.raises(PairsError, match=r"(missing\.jpg|nope): no such folder or file"):
            PairSampler(missing)
    (tmp_path / "cut.png").write_bytes((photos / "chelsea.png").read_bytes()[:5000])
    with pytest.warns(UserWarning), pytest.raises(PairsError, match="none of the 1"):
        PairSampler(tmp_path, size=64)[0]


def test_wrong_numbers_are_refused(photos, sampler):
    with pytest.raises(PairsError):
        PairSampler(photos, size=4)
    with pytest.raises(PairsError):
        PairSampler(photos, seed=-1)
    with pytest.raises(IndexError):
        sampler[-1]


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"lenght": 5},
        {"jpeg_share": 1.5},
        {"largest_kernel": 32},
        {"noise": (0.1, 0.0)},
        {"jpeg_quality": (0, 50)},
        {f"{name}_weight": 0.0 for name in KINDS},
    ],
)
def test_settings_refuse_nonsense(wrong):
    with pytest.raises(ValidationError):
        PairSettings(**wrong)


def test_every_setting_says_what_it_is():
    assert all(len(field.description or "") > 20 for field in PairSettings.model_fields.values())

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn

import unsmear
from unsmear.basis.kernels import camera_shake, defocus, linear_motion
from unsmear.blurring import blur, luma
from unsmear.deblurring.pictures import make_restorer
from unsmear.errors import KernelError, ModelError
from unsmear.estimation.field import KernelField
from unsmear.estimation.filtering import guided_input
from unsmear.metrics import psnr_rgb, psnr_shift
from unsmear.models import by_kernels, checking, create
from unsmear.models.by_kernels import (
    Deblurrer,
    Estimate,
    GuidedPixels,
    deblurred,
    estimate_kernels,
    reduced_luma,
)
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.tiling import TensorPixels, TiledRestorer
from unsmear.runtime import one_thread


class Threads:
    """A number of threads that is only noted."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> int:
        return self.count

    def set(self, count: int) -> None:
        self.count = count


class Believer(nn.Module):
    """Takes the first filtered picture for the restored one, whatever it looks like."""

    size_multiple = minimum_size = 1
    global_context = False
    image_channels = 9

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x[:, 3:6]


class Brightener(nn.Module):
    """Restores without kernels: adds the same everywhere."""

    size_multiple = minimum_size = 1
    global_context = False

    def __init__(self, more: float) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.tensor(more))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.more


class Inverter(Believer):
    """Makes a negative, nothing that explains a photo, where it is shown kernels; else leaves the photo."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - x[:, :3] if (x[:, 3:6] - x[:, :3]).abs().mean() > 0.02 else x[:, :3]


@pytest.fixture(scope="module")
def sharp() -> torch.Tensor:
    picture = torch.from_numpy(skimage.data.coffee()[:, :400]).permute(2, 0, 1).float() / 255
    return F.interpolate(picture[None], scale_factor=0.5, mode="area")[0]


@pytest.fixture(scope="module")
def kernel() -> torch.Tensor:
    return torch.from_numpy(camera_shake(np.random.default_rng(11), 21, length=14.0))


@pytest.fixture(scope="module")
def shaken(sharp, kernel) -> torch.Tensor:
    blurred = blur(sharp, kernel[None], torch.ones(1, *sharp.shape[-2:]))
    noise = torch.randn(blurred.shape, generator=torch.Generator().manual_seed(4))
    return (blurred + 0.004 * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def known(kernel) -> KernelField:
    return KernelField.uniform(kernel)


def gain(restored: torch.Tensor, before: torch.Tensor, sharp: torch.Tensor) -> float:
    after, was = (float(psnr_shift(x[None], sharp[None], max_shift=6)) for x in (restored, before))
    return after - was


def test_a_shaken_photograph_gets_nearer_to_the_truth_by_total_variation(shaken, sharp) -> None:
    assert gain(deblurred(shaken), shaken, sharp) > 1.0


def test_the_package_s_network_brings_a_shaken_photograph_nearer_to_the_truth(shaken, sharp) -> None:
    assert gain(unsmear.deblur(shaken, model="guided-s"), shaken, sharp) > 1.0


def test_a_rectangle_is_seen_as_in_the_whole(shaken, known) -> None:
    pixels = GuidedPixels(TensorPixels(shaken), known)
    rows, columns = slice(0, shaken.shape[1]), slice(0, shaken.shape[2])
    whole = pixels.tensor(rows=rows, columns=columns)
    assert torch.allclose(whole, guided_input(shaken, known.kernels, middles=known.middles()), atol=1e-6)
    part = pixels.tensor(rows=slice(70, 130), columns=slice(60, 150))
    assert torch.equal(part[:3], shaken[:, 70:130, 60:150])
    error = (part - whole[:, 70:130, 60:150]).square().mean().sqrt()
    assert error < 0.02  # 43 pixels around it do for nearly all that a filter of 21 pixels sees


def find(field: KernelField, monkeypatch) -> None:
    """Have the estimate find a field in every photo."""

    def estimate(source, judge=None, *, pixels):
        return Estimate(reduced_luma(source, pixels)[0], field, 1.0)

    monkeypatch.setattr(by_kernels, "estimate_kernels", estimate)


def test_what_explains_nothing_is_not_taken(shaken, known, monkeypatch) -> None:
    find(known, monkeypatch)
    for network, believed in ((Believer(), True), (Inverter(), False)):
        result = TensorPixels(torch.empty_like(shaken))
        deblurrer = Deblurrer(TiledRestorer(network, precision="fp32"))
        parts: list[float] = []
        deblurrer.restore(TensorPixels(shaken), result, progress=parts.append)
        assert deblurrer.said.startswith(
            "blur of up to 14 pixels" if believed else "the blur that was found does not"
        )
        assert torch.allclose(result.values, shaken, atol=1e-3) is not believed  # halves in between
        assert sum(parts) == pytest.approx(1)
    result = TensorPixels(torch.zeros_like(shaken))
    by_kernels._draw_back(TensorPixels(shaken), result, 0.25)
    assert torch.allclose(result.values, 0.75 * shaken)
    photo = torch.full_like(shaken, 0.4)  # nothing to be told: left to the network without kernels
    monkeypatch.undo()
    assert torch.equal(deblurred(photo, Inverter(), precision="fp32"), photo)


@pytest.mark.parametrize("fill", [True, False])
def test_what_kernels_half_explain_is_mixed_with_what_is_restored_without(
    fill, sharp, known, monkeypatch
) -> None:
    find(known, monkeypatch)
    photo = 0.8 * sharp  # nothing is clipped
    monkeypatch.setattr(by_kernels, "BOLD", (0.01, 0.0))  # never

    def restored(network: nn.Module, more: float = 0.05) -> tuple[torch.Tensor, str]:
        result = TensorPixels(torch.empty_like(photo))
        other = TiledRestorer(Brightener(more), precision="fp32")
        deblurrer = Deblurrer(
            TiledRestorer(network, precision="fp32"), witness=other, filler=other if fill else None
        )
        deblurrer.restore(TensorPixels(photo), result)
        return result.values, deblurrer.said

    values, said = restored(Inverter())  # nothing is explained: no motion blur
    assert torch.equal(values, photo) and said.endswith("left as it is")
    alone = TensorPixels(torch.empty_like(photo))
    TiledRestorer(Believer(), precision="fp32").restore(GuidedPixels(TensorPixels(photo), known), alone)
    half = sum(checking.BELIEF) / 2
    little = sum(by_kernels.FILLED_BELIEF) / 2  # what is restored without kernels has a share of a half
    asked = 2 * half + sum(checking.AGREED) / 2  # the agreement that is half enough
    for left, agreed, believed, share in (
        (half, 2.0, 0.5, 1.0),
        (half, asked, 0.25, 1.0),
        (half, 0.1, 0.0, 1.0),
        (half, 0.0, 0.0, 0.5),
        (little, 2.0, checking.belief(little), 0.5),
        (0.1, 2.0, 1.0, 0.0),
        (0.1, -1.0, 0.0, 0.0),  # explained, and yet away from where the other one goes
    ):
        monkeypatch.setattr(by_kernels, "unexplained", lambda *_, left=left: left)
        monkeypatch.setattr(by_kernels, "agreement", lambda *_, agreed=agreed: agreed)
        monkeypatch.setattr(by_kernels, "trace", lambda *_: 0.0)
        monkeypatch.setattr(by_kernels, "direction", lambda _: 1.3)
        monkeypatch.setattr(by_kernels, "sidedness", lambda *_: 0.5)
        values, said = restored(Believer())
        behind = torch.lerp(photo, photo + 0.05, share if fill else 0.0)
        expected = torch.lerp(behind, alone.values, believed)
        assert torch.allclose(values, expected, atol=1e-3), (left, agreed)
        if 0 < believed < 1:
            assert said.endswith(f"believed to {believed:.0%}")
        elif believed == 0:
            assert said.endswith("restored without it" if fill and share else "left as it is")
        else:
            assert "believed" not in said


class Sharpener(nn.Module):
    """Gives back what a mean of 5 pixels takes: along rows six times, or in a square twice."""

    size_multiple = minimum_size = 1
    global_context = False

    def __init__(self, rows_only: bool) -> None:
        super().__init__()
        self.sides = (1 if rows_only else 5, 5)
        self.times = nn.Parameter(torch.tensor(6.0 if rows_only else 2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, wide = (side // 2 for side in self.sides)
        padded = F.pad(x, (wide, wide, high, high), mode="replicate")
        return x + self.times * (x - F.avg_pool2d(padded, self.sides, stride=1))


class Variation(Believer):
    """Restores as total variation does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 6:]


@pytest.mark.parametrize("tile", [None, 96])
def test_what_is_explained_is_restored_more_boldly(tile, sharp, known, monkeypatch) -> None:
    find(known, monkeypatch)
    photo = 0.8 * sharp
    pixels = GuidedPixels(TensorPixels(photo), known)
    guided = TiledRestorer(Believer(), precision="fp32", tile=tile)
    alone, calm, result = (TensorPixels(torch.empty_like(photo)) for _ in range(3))
    guided.restore(pixels, alone)
    TiledRestorer(Variation(), precision="fp32", tile=tile).restore(pixels, calm)
    monkeypatch.setattr(by_kernels, "agreement", lambda *_: 2.0)
    other = TiledRestorer(Brightener(0.05), precision="fp32")
    assert not torch.allclose(calm.values, alone.values, atol=0.05)
    for left, part in ((0.1, 0.8), (sum(by_kernels.BOLD) / 2, 0.4)):
        monkeypatch.setattr(by_kernels, "unexplained", lambda *_, left=left: left)
        expected = torch.lerp(alone.values, calm.values, part)
        for filler in (other, None):
            Deblurrer(guided, witness=other, filler=filler, tile=tile).restore(TensorPixels(photo), result)
            assert torch.allclose(result.values, expected, atol=1e-3), (left, filler)


def test_a_network_that_declares_its_channels_only_will_do_in_tiles_of_its_restorer(
    shaken, known, monkeypatch
) -> None:
    class Bare(nn.Module):
        image_channels = 9

        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[torch.Size] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(x.shape[2:])
            return x[:, 3:6]

    find(known, monkeypatch)
    result = TensorPixels(torch.empty_like(shaken))
    Deblurrer(TiledRestorer(Bare(), precision="fp32")).restore(TensorPixels(shaken), result)
    network = Bare()
    tiled = TensorPixels(torch.empty_like(shaken))
    Deblurrer(TiledRestorer(network, precision="fp32", tile=128)).restore(TensorPixels(shaken), tiled)
    assert len(network.sizes) > 1 and max(a * b for a, b in network.sizes) <= 128**2
    assert (tiled.values - result.values).abs().mean() < 0.01 < (result.values - shaken).abs().mean()


@pytest.mark.parametrize(
    ("pixels", "length", "box"),
    [(1_000_000, 16, 1), (1_000_000, 3, 1), (10_000, 16, 1), (10_000, 7, 2), (10_000, 3, 2), (4_000, 3, 3)],
)
def test_the_witness_says_how_far_and_the_filler_restores_all_of_the_photo(
    pixels, length, box, sharp, known, monkeypatch
) -> None:
    """A large photo by a copy in which the blur is short, but no smaller than the one that was checked."""
    find(known, monkeypatch)
    monkeypatch.setattr(by_kernels, "FILLED_LENGTH", length)
    monkeypatch.setattr(by_kernels, "TAP", 100)
    sizes, parts = list[int](), list[float]()
    for name, value in (("unexplained", 0.6), ("direction", 1.3), ("sidedness", 0.5)):
        monkeypatch.setattr(by_kernels, name, lambda *_, value=value: value)
    monkeypatch.setattr(by_kernels, "ESTIMATE_PIXELS", pixels)
    photo, networks = 0.8 * sharp, (Brightener(0.05), Brightener(0.1))
    small, _ = by_kernels.reduced(TensorPixels(photo), pixels)

    def agreement(grey: torch.Tensor, _: torch.Tensor, without: torch.Tensor, __: object) -> float:
        assert torch.equal(grey, luma(small))
        assert torch.allclose(without, luma(small + 0.05))
        return 0.0

    monkeypatch.setattr(by_kernels, "agreement", agreement)
    result = TensorPixels(torch.empty_like(photo))
    networks[1].register_forward_hook(lambda _, seen, __: sizes.append(seen[0].shape[-1]))
    witness, filler = (TiledRestorer(network, precision="fp32") for network in networks)
    Deblurrer(
        TiledRestorer(Believer(), precision="fp32"), witness=witness, filler=filler, pixels=pixels
    ).restore(TensorPixels(photo), result, progress=parts.append)
    assert sum(parts) == pytest.approx(1)
    assert torch.allclose(result.values, photo + 0.05, atol=1e-6)  # half of what the filler changes
    assert [network.calls for network in networks] == [1, 1]
    assert sizes == [-(-photo.shape[-1] // box)]


@pytest.mark.parametrize(("left", "mix", "calls"), [(0.5, True, 1), (0.5, False, 0), (0.7, False, 1)])
def test_without_mixing_only_what_kernels_explain_nothing_of_is_filled(
    left, mix, calls, shaken, known, monkeypatch
) -> None:
    find(known, monkeypatch)
    signs = {"unexplained": left, "agreement": 0.9, "trace": 0.0, "direction": 1.3, "sidedness": 0.5}
    for name, value in signs.items():
        monkeypatch.setattr(by_kernels, name, lambda *_, value=value: value)
    network, filler = Believer(), Brightener(0.1)
    restorers = [TiledRestorer(x, precision="fp32") for x in (network, Brightener(0.05), filler)]
    result = TensorPixels(torch.empty_like(shaken))
    restorer = Deblurrer(restorers[0], witness=restorers[1], filler=restorers[2], mix=mix)
    restorer.restore(TensorPixels(shaken), result)
    assert ("believed to" in restorer.said) is (left == 0.5) and filler.calls == calls


@pytest.mark.parametrize(("network", "whole"), [(Believer(), True), (Inverter(), False)])
def test_a_large_photo_is_restored_only_if_its_copy_is_believed(
    network, whole, shaken, known, monkeypatch
) -> None:
    monkeypatch.setattr(by_kernels, "ESTIMATE_PIXELS", 10_000)
    find(known, monkeypatch)
    sizes: list[int] = []
    network.register_forward_hook(lambda _, seen, __: sizes.append(seen[0].shape[-2] * seen[0].shape[-1]))
    result, parts = TensorPixels(torch.empty_like(shaken)), list[float]()
    restorer = Deblurrer(TiledRestorer(network, precision="fp32"))
    restorer.restore(TensorPixels(shaken), result, progress=parts.append)
    assert sizes[0] <= 10_000 and (max(sizes) >= shaken[0].numel()) is whole
    assert torch.equal(result.values, shaken) is not whole
    assert sum(parts) == pytest.approx(1)


def test_a_large_photo_is_checked_itself_too(shaken, known, monkeypatch) -> None:
    class Small(Believer):
        """Restores small pictures, and makes large ones a negative."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(x[0, 0].numel())
            return super().forward(x) if sizes[-1] <= 10_000 else 1 - x[:, :3]

    sizes: list[int] = []
    find(known, monkeypatch)
    monkeypatch.setattr(by_kernels, "ESTIMATE_PIXELS", 10_000)
    result, parts = TensorPixels(torch.empty_like(shaken)), list[float]()
    restorer = Deblurrer(TiledRestorer(Small(), precision="fp32"))
    restorer.restore(TensorPixels(shaken), result, progress=parts.append)
    assert torch.equal(result.values, shaken) and sum(parts) == pytest.approx(1)
    assert max(sizes) >= shaken[0].numel()


@pytest.mark.parametrize(("pixels", "coarseness"), [(30_000, 1), (7_500, 1), (3_000, 2), (600, 4)])
@pytest.mark.parametrize(("by_network", "bold"), [(True, 0.0), (True, 0.32), (False, 0.0)])
def test_a_photo_is_restored_no_finer_than_its_blur_is_known(
    by_network, bold, pixels, coarseness, shaken, known, monkeypatch
) -> None:
    """Taps of about two pixels: the photo is changed as a copy of that size is, by kernels of that size."""

    class Variation:
        """Stands for total variation where it restores by itself."""

        def __init__(self, field: KernelField, *, tile: int | None) -> None:
            fields.append(field)

        def restore(self, source: TensorPixels, target: TensorPixels, *, progress) -> None:
            target.values.copy_(brighter(source.values))
            progress(1.0)

    class Shown(by_kernels.GuidedPixels):
        """Stands for the filtered pictures."""

        def __init__(self, source: TensorPixels, field: KernelField) -> None:
            super().__init__(source, field)
            fields.append(field)

        def tensor(self, *, rows: slice, columns: slice) -> torch.Tensor:
            seen = self.source.tensor(rows=rows, columns=columns)
            return torch.cat([seen, brighter(seen), darker(seen)])

    def brighter(x: torch.Tensor) -> torch.Tensor:
        return x + 0.3 * (1 - x)

    def darker(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

    def changed(way) -> torch.Tensor:
        change = F.interpolate((way(copy) - copy)[None], scale_factor=coarseness, mode="bicubic")[0]
        return (shaken + change[:, : shaken.shape[1], : shaken.shape[2]]).clamp(0, 1)

    fields: list[KernelField] = []
    factor = (shaken[0].numel() / pixels) ** 0.5
    found = by_kernels.Estimate(luma(shaken), known.scaled(1 / factor), factor)
    monkeypatch.setattr(by_kernels, "estimate_kernels", lambda *_, **__: found)
    monkeypatch.setattr(by_kernels, "_TotalVariation", Variation)
    monkeypatch.setattr(by_kernels, "GuidedPixels", Shown)
    monkeypatch.setattr(by_kernels, "_believed_by_copy", lambda *_: 1.0)
    monkeypatch.setattr(by_kernels, "ESTIMATE_PIXELS", pixels)
    monkeypatch.setattr(by_kernels, "unexplained", lambda *_: 0.35)
    monkeypatch.setattr(by_kernels, "BOLD", (0.45, 0.2) if bold else (0.2, 0.1))
    result, parts = TensorPixels(torch.empty_like(shaken)), list[float]()
    restorer = Deblurrer(TiledRestorer(Believer(), precision="fp32"), by_network=by_network, pixels=pixels)
    restorer.restore(TensorPixels(shaken), result, progress=parts.append)
    copy = F.avg_pool2d(shaken[None], coarseness, ceil_mode=True)[0]
    wanted = torch.lerp(changed(brighter), changed(darker), bold)
    assert torch.allclose(result.values, wanted, atol=1e-5)
    kernels = found.field.scaled(factor).scaled(1 / coarseness).kernels
    assert torch.equal(fields[-1].kernels, kernels) and sum(parts) == pytest.approx(1)


@pytest.mark.parametrize("box", [2, 3, 5])
def test_a_change_is_enlarged_alike_in_rectangles_and_as_a_whole(box) -> None:
    picture = torch.rand(3, 61, 47, generator=torch.Generator().manual_seed(3))
    source = TensorPixels(picture)
    copy = TensorPixels(by_kernels._box_means(source, box))
    assert torch.allclose(copy.values, F.avg_pool2d(picture[None], box, ceil_mode=True)[0])
    restored = TensorPixels(torch.rand(copy.values.shape, generator=torch.Generator().manual_seed(4)))
    changed = by_kernels._Changed(source, copy, restored, box)
    whole = changed.tensor(rows=slice(0, 61), columns=slice(0, 47))
    enlarged = F.interpolate((restored.values - copy.values)[None], scale_factor=box, mode="bicubic")[0]
    assert torch.allclose(whole, (picture + enlarged[:, :61, :47]).clamp(0, 1), atol=1e-6)
    for rows, columns in (
        (slice(13, 29), slice(7, 31)),
        (slice(50, 61), slice(0, 47)),
        (slice(0, 1), slice(46, 47)),
    ):
        part = changed.tensor(rows=rows, columns=columns)
        assert torch.allclose(part, whole[:, rows, columns], atol=1e-6)
    same = by_kernels._Changed(source, copy, copy, box)
    assert torch.equal(same.tensor(rows=slice(0, 61), columns=slice(0, 47)), picture)
    with pytest.raises(TypeError, match="cannot be written into"):
        same.put(picture)


@pytest.mark.parametrize(("traced", "part"), [(0.0, 1.0), (-0.04, 0.5), (-0.08, 0.0)])
def test_lines_along_the_path_are_not_taken_for_motion(traced, part, sharp, known, monkeypatch) -> None:
    find(known, monkeypatch)
    signs = {"unexplained": 0.6, "agreement": 0.2, "trace": traced, "direction": 1.3, "sidedness": 0.5}
    for name, value in signs.items():
        monkeypatch.setattr(by_kernels, name, lambda *_, value=value: value)
    photo = 0.8 * sharp
    result = TensorPixels(torch.empty_like(photo))
    guided, witness, filler = (
        TiledRestorer(x, precision="fp32") for x in (Believer(), Brightener(0.0), Brightener(0.1))
    )
    Deblurrer(guided, witness=witness, filler=filler).restore(TensorPixels(photo), result)
    assert torch.allclose(result.values, photo + 0.1 * part, atol=1e-6)


def test_what_is_soft_alike_in_all_directions_is_left_alone(sharp, known, monkeypatch) -> None:
    find(known, monkeypatch)
    for name, value in (("unexplained", 0.6), ("agreement", 0.3)):  # kernels not believed
        monkeypatch.setattr(by_kernels, name, lambda *_, value=value: value)
    disc, line = (
        blur(sharp, torch.from_numpy(kernel)[None], torch.ones(1, *sharp.shape[1:]))
        for kernel in (defocus(3.0), linear_motion(9.0, 0.0))
    )
    for photo, rows_only, left in ((disc, True, True), (line, False, True), (line, True, False)):
        result = TensorPixels(torch.empty_like(photo))
        other = TiledRestorer(Sharpener(rows_only), precision="fp32")
        Deblurrer(TiledRestorer(Believer(), precision="fp32"), witness=other, filler=other).restore(
            TensorPixels(photo), result
        )
        assert torch.equal(result.values, photo) is left


def test_noise_beyond_what_networks_know_is_left_alone(shaken, known, monkeypatch) -> None:
    find(known, monkeypatch)
    monkeypatch.setattr(by_kernels, "unexplained", lambda *_: 0.0)  # whatever the kernels explain
    noise = torch.randn(shaken.shape, generator=torch.Generator().manual_seed(5))
    for spread, part in ((0.01, 1.0), (0.06, 0.0)):
        photo, result = (shaken + spread * noise).clamp(0, 1), TensorPixels(torch.empty_like(shaken))
        deblurrer = Deblurrer(TiledRestorer(Believer(), precision="fp32"))
        parts: list[float] = []
        deblurrer.restore(TensorPixels(photo), result, progress=parts.append)
        assert torch.equal(result.values, photo) is (part == 0)
        assert ("noise" in deblurrer.said) is (part == 0) and sum(parts) == pytest.approx(1)


def test_right_kernels_promise_more_than_wrong_ones(shaken, known) -> None:
    judge = TiledRestorer(load_checkpoint("guided-s"), precision="fp32")
    turned = KernelField.uniform(known.kernels[0].rot90())
    right, wrong = (by_kernels._promised(shaken, field, judge) for field in (known, turned))
    assert right > 1e-4 and right > 1.5 * wrong


@pytest.mark.parametrize("kinds", [1, 2])
def test_kernels_of_areas_are_taken_where_they_promise_more(kinds, shaken, known, monkeypatch) -> None:
    """As candidates the right kernel and a wrong one, the wrong one held to be the whole picture's."""
    right, wrong = known.kernels[0], known.kernels[0].rot90()

    class Found:
        def __init__(self, kernel: torch.Tensor) -> None:
            self.kernel, self.scale, self.grey, self.refined = kernel, 1.0, shaken[0], False

        def refine(self, scale: float) -> None:
            self.refined = scale == 1.0 and torch.get_num_threads() == 1

    parts = torch.zeros(2, shaken.shape[1] // 8, shaken.shape[2] // 8)
    parts[:, :, :10], parts[1, :, 10:] = 1.0 / kinds, 1.0
    parts[0, :, :10] = 1 - parts[1, :, :10] if kinds == 2 else 0
    monkeypatch.setattr(by_kernels, "shares", lambda *_, **__: parts)
    judge = TiledRestorer(load_checkpoint("guided-s"), precision="fp32")
    source = TensorPixels(shaken)
    found = [Found(wrong), Found(right)]
    monkeypatch.setattr(torch, "get_num_threads", threads := Threads(3))
    monkeypatch.setattr(torch, "set_num_threads", threads.set)
    field = by_kernels._judged(source, found, judge)  # type: ignore[arg-type]
    assert threads() == 3
    assert field is not None and field.is_uniform is (kinds == 1)
    assert found[1].refined and found[0].refined is (kinds == 2)
    found = [Found(right), Found(wrong)]
    assert by_kernels._judged(source, found, judge) is None  # type: ignore[arg-type]
    assert not any(x.refined for x in found)


def test_the_fast_way_looks_for_one_kernel_in_all_of_the_photo(shaken, monkeypatch) -> None:
    asked, sizes = [], []

    def estimate(source, judge=None, *, pixels):
        asked.append(judge)
        sizes.append(pixels)
        raise KernelError("seen")

    monkeypatch.setattr(by_kernels, "estimate_kernels", estimate)
    for fast in (True, False):
        with pytest.raises(KernelError, match="seen"):
            make_restorer(fast=fast).restore(TensorPixels(shaken), TensorPixels(torch.empty_like(shaken)))
    assert asked[0] is None and isinstance(asked[1], TiledRestorer)
    assert sizes == [by_kernels.FAST_PIXELS, by_kernels.ESTIMATE_PIXELS] == [500_000, 1_000_000]


def test_an_estimate_is_the_same_whatever_the_threads_and_leaves_them_as_they_were(
    shaken, monkeypatch
) -> None:
    seen, judge, before = {}, make_restorer(), torch.get_num_threads()

    def watched(name, step):
        def run(*given):
            seen.setdefault(name, set()).add(torch.get_num_threads())
            return step(*given)

        return run

    for name in ("search", "find_candidates", "estimate_camera", "_cost"):
        monkeypatch.setattr(by_kernels, name, watched(name, getattr(by_kernels, name)))
    try:
        for one in (None, judge.network):
            fields = []
            for threads in (1, 3):
                torch.set_num_threads(threads)
                fields.append(estimate_kernels(TensorPixels(shaken), one).field)
                assert torch.get_num_threads() == threads
            assert torch.equal(fields[0].kernels, fields[1].kernels)
        assert len(seen) == 4 and all(threads == {1} for threads in seen.values())
        with pytest.raises(KernelError), one_thread():
            raise KernelError("left as it was")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_kernels_alone_are_judged_by_the_network(shaken, known, monkeypatch) -> None:
    find(known, monkeypatch)
    for network, believed in ((Believer(), True), (Inverter(), False)):
        result = TensorPixels(torch.empty_like(shaken))
        parts: list[float] = []
        judge = TiledRestorer(network, precision="fp32")
        Deblurrer(judge, by_network=False).restore(TensorPixels(shaken), result, progress=parts.append)
        assert torch.equal(result.values, shaken) is not believed
        assert sum(parts) == pytest.approx(1)
        if believed:  # total variation's result, not the network's
            assert torch.allclose(result.values, deblurred(shaken), atol=1e-6)


def test_a_guided_network_is_not_asked_to_restore_without_kernels(shaken) -> None:
    with pytest.raises(ModelError, match="restores by kernels as well"):
        unsmear.deblur(shaken, by="network")


def test_the_luma_is_reduced_alike_in_strips_and_as_a_whole() -> None:
    picture = torch.rand(3, 300, 170, generator=torch.Generator().manual_seed(1))
    grey, factor = reduced_luma(TensorPixels(picture))
    assert factor == 1 and torch.allclose(
        grey, torch.einsum("c,chw->hw", torch.tensor([0.299, 0.587, 0.114]), picture), atol=1e-6
    )
    small, factor = reduced_luma(TensorPixels(picture), 5000)
    assert small.numel() <= 5100 and factor == pytest.approx(300 / small.shape[0], rel=0.05)
    whole = F.interpolate(grey[None, None], size=small.shape, mode="area")[0, 0]
    assert (small - whole).square().mean().sqrt() < 0.06


def test_a_small_picture_and_a_float_array_are_restored() -> None:
    tiny = torch.rand(3, 7, 5)
    assert unsmear.deblur(tiny, model="guided-s").shape == tiny.shape
    network = create("guided-s").eval()
    assert float(psnr_rgb(deblurred(tiny, network)[None], tiny[None])) > 60  # first weights are the identity

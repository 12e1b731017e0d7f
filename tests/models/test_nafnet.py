import pytest
import torch
from oracles import randomise
from torch.nn import functional as F

from unsmear.errors import ModelError
from unsmear.models import create, nafnet
from unsmear.models.nafnet import LOCAL_WINDOW, NAFBlock, window_means

SMALL = {"encoder": (1, 2), "decoder": (1, 1)}


def image(batch=1, height=32, width=48, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def infer(model, x):
    with torch.inference_mode():
        return model(x)


def network(**arguments):
    return randomise(create("nafnet-16", **SMALL | arguments)).eval()


@pytest.mark.parametrize(
    ("name", "millions", "billions"),
    [("nafnet-16", 4.35, 4.1), ("nafnet-32", 17.11, 16.0), ("nafnet-64", 67.89, 63.1)],
)
def test_parameters_and_multiply_adds_are_those_counted_in_the_official_code(name, millions, billions):
    from unsmear.models.costs import multiply_adds, parameters

    with torch.device("meta"):
        model = create(name)
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.005)
    assert multiply_adds(model) / 1e9 == pytest.approx(billions, abs=0.06)


def test_it_starts_with_blocks_that_are_the_identity():
    x = torch.randn(2, 5, 7, 8)
    assert torch.equal(NAFBlock(channels=8)(x), x)


@pytest.mark.parametrize("elements", [1, 2**13])
def test_bands_of_inference_do_not_show(monkeypatch, elements):
    model, x = network(), image(2)
    whole = model(x).detach()
    monkeypatch.setattr(nafnet, "BAND_ELEMENTS", elements)
    torch.testing.assert_close(infer(model, x), whole, atol=1e-5, rtol=0)


def test_transposed_network_restores_the_transposed_photo():
    model, x = network(), image()
    transposed = network()
    weights = {n: w.transpose(2, 3) if w.ndim == 4 else w for n, w in model.state_dict().items()}
    # pixel shuffle takes its 2×2 from the channels: those of the two pixels off the diagonal change places
    for name in [name for name in weights if name.startswith("up.")]:
        weights[name] = weights[name].unflatten(0, (-1, 2, 2)).transpose(1, 2).flatten(0, 2)
    transposed.load_state_dict(weights)
    torch.testing.assert_close(infer(transposed, x.mT).mT, infer(model, x), atol=1e-4, rtol=0)


def test_an_encoder_without_its_decoder_is_refused():
    with pytest.raises(ModelError, match=r"nafnet-16: encoder \(1, 2\) and decoder \(1,\)"):
        create("nafnet-16", encoder=(1, 2), decoder=(1,))


# Local statistics


@pytest.mark.parametrize("window", [(3, 3), (4, 6), (1, 1), (5, 40), (8, 11), (7, 2)])
def test_window_means_are_average_pooling_with_its_border_repeated(window):
    x = torch.randn(2, 8, 11, 3, generator=torch.Generator().manual_seed(0))
    height, width = min(window[0], 8), min(window[1], 11)
    pooled = F.avg_pool2d(x.permute(0, 3, 1, 2), (height, width), stride=1)
    down, right = 8 - pooled.shape[2], 11 - pooled.shape[3]
    edges = (right // 2, right - right // 2, down // 2, down - down // 2)
    expected = F.pad(pooled, edges, mode="replicate").permute(0, 2, 3, 1)
    torch.testing.assert_close(window_means(x, window).expand_as(x), expected, atol=1e-6, rtol=1e-5)


def test_a_window_that_holds_the_picture_is_the_whole():
    x = torch.randn(1, 8, 11, 3)
    assert torch.equal(window_means(x, (8, 11)), x.mean((1, 2), keepdim=True))
    model, local = network(), network(local_window=48)
    assert torch.equal(infer(model, image()), infer(local, image()))


def test_running_sums_stay_exact_over_a_long_picture():
    x = torch.rand(1, 3, 20_000, 1, generator=torch.Generator().manual_seed(0)) + 10
    exact = window_means(x.double(), (3, 64))
    assert (window_means(x, (3, 64)) - exact).abs().max() < 1e-3


def test_local_statistics_see_a_window_and_global_ones_the_whole_picture():
    model, x = network(), image(1, 16, 256)
    changed = x.clone()
    changed[..., :8] = 0
    far = slice(200, 256)
    assert (infer(model, changed) - infer(model, x))[..., far].abs().max() > 1e-4
    model.use_local_statistics(32)
    assert (infer(model, changed) - infer(model, x))[..., far].abs().max() < 1e-5
    assert (infer(model, changed) - infer(model, x))[..., :8].abs().max() > 1e-2
    model.use_local_statistics(None)
    assert torch.equal(infer(model, x), infer(network(), x))


def test_windows_are_of_the_same_part_of_the_photograph_at_every_level():
    with torch.device("meta"):
        model = create("nafnet-16", local_window=LOCAL_WINDOW)
    stages = [*model.encoder, model.bottleneck, *model.decoder]
    sides = [384, 192, 96, 48, 24, 48, 96, 192, 384]
    assert [stage[0].window for stage in stages] == [(side, side) for side in sides]


def test_means_at_every_few_pixels_are_those_of_the_windows_around_them():
    x = torch.randn(2, 24, 40, 3, generator=torch.Generator().manual_seed(0))
    exact, coarse = window_means(x, (12, 20)), window_means(x, (12, 20), 4)
    assert coarse.shape == (2, 6, 10, 3)
    torch.testing.assert_close(coarse[:, 1:-1, 2:-2], exact[:, 5:-5:4, 9:-9:4], atol=1e-5, rtol=0)


def test_between_means_at_every_few_pixels_the_picture_is_restored_nearly_alike():
    x = image(1, 96, 128)
    exact, coarse, whole = (
        infer(network(**options), x)
        for options in ({"local_window": 20}, {"local_window": 20, "local_step": 4}, {})
    )
    assert 0 < (coarse - exact).abs().mean() < 0.3 * (whole - exact).abs().mean()


@pytest.mark.parametrize(("window", "step"), [(48, 3), (48, 32), (32, 16), (40, 16), (48, 0)])
def test_a_window_of_no_odd_number_of_steps_is_refused(window, step):
    with pytest.raises(ModelError, match=rf"local_window={window}, local_step={step}: expected a step that"):
        create("nafnet-16", local_window=window, local_step=step)


def test_local_statistics_are_for_evaluation_only():
    model, x = network(local_window=16), image()
    assert not torch.equal(infer(model, x), infer(network(), x))
    assert torch.equal(infer(model.train(), x), infer(network().train(), x))

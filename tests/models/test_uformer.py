from pathlib import Path

import pytest
import torch
from einops import rearrange
from oracles import randomise
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unsmear.errors import ModelError
from unsmear.models import create, uformer
from unsmear.models.costs import multiply_adds, parameters, table
from unsmear.models.low_rank import LowRankModule
from unsmear.models.uformer import LeWinBlock

DEPTHS = (1, 1, 1, 2, 2, 1, 2, 1, 2)
"""Half of them, with shifted windows in the encoder, the bottleneck and the decoder."""

WITHOUT = {"t": 5_291_853, "s": 20_751_197, "b": 50_880_946}
MODULE = {"t": 207_904, "s": 825_408, "b": 825_408}


@pytest.fixture(scope="module")
def network():
    """A sglrn-t of half the depth, all weights random, evaluation mode."""
    return randomise(create("sglrn-t", depths=DEPTHS)).eval()


def image(batch=1, height=128, width=128, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def infer(model, x):
    with torch.inference_mode():
        return model(x)


# Sizes of the networks


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_parameters_are_those_published_and_the_module_adds_its_own(size):
    with torch.device("meta"):
        plain, with_module = create(f"uformer-{size}"), create(f"sglrn-{size}")
        optional = create(f"uformer-{size}", low_rank=True)
        removed = create(f"sglrn-{size}", low_rank=False)
    assert parameters(plain) == parameters(removed) == WITHOUT[size]
    assert parameters(with_module) == parameters(optional) == WITHOUT[size] + MODULE[size]
    assert parameters(with_module.middle) == MODULE[size]


def test_multiply_adds_in_closed_form_are_those_that_run(network):
    with FlopCounterMode(display=False) as counter:
        network(image(1, 128, 256))
    assert counter.get_total_flops() == 2 * multiply_adds(network, 128, 256)


def test_multiply_adds_of_the_table_stay_below_the_official_count():
    # The official count takes windows at a border as whole, and norms as products.
    for size, official in {"t": 11.997e9, "s": 43.858e9, "b": 89.456e9}.items():
        with torch.device("meta"):
            model = create(f"uformer-{size}")
        assert 0.92 < multiply_adds(model) / official < 1


def test_table_in_the_documentation_is_the_one_that_is_printed():
    documentation = (Path(__file__).parents[2] / "docs" / "MODELS.md").read_text(encoding="utf-8")
    lines = [line for line in table().splitlines() if not line.startswith("| tiny ")]  # of tests/training
    assert "\n".join(lines) in documentation


# Laws of the whole network


@pytest.mark.parametrize(("height", "width"), [(128, 128), (128, 256), (384, 128)])
def test_any_multiple_of_128_gives_its_own_size(network, height, width):
    x = image(1, height, width)
    y = infer(network, x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert (y - x).std() > 0.01


def test_batch_is_one_by_one(network):
    x = image(2)
    one_by_one = torch.cat([infer(network, x[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(infer(network, x), one_by_one, atol=1e-5, rtol=0)


def test_transposed_network_restores_the_transposed_photo(network):
    # Rows and columns are nowhere mixed up, whatever the shape of the photo.
    transposed = create("sglrn-t", depths=DEPTHS).eval()
    weights = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("bias_table", "modulator")):
            tensor = tensor.transpose(0, 1)
        elif tensor.ndim == 4:
            tensor = tensor.transpose(2, 3)
        weights[name] = tensor
    transposed.load_state_dict(weights)
    x = image(1, 128, 256)
    expected = infer(network, x)
    torch.testing.assert_close(infer(transposed, x.mT).mT, expected, atol=1e-4, rtol=0)
    assert (infer(network, x.mT).mT - expected).abs().max() > 1e-2


def test_memory_layout_of_the_photo_does_not_matter(network):
    x = image(2)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(infer(network, x), infer(network, last))


def test_output_layer_at_zero_is_the_identity():
    model = create("uformer-t", depths=(1,) * 9).eval()
    nn.init.zeros_(model.leave.weight)
    nn.init.zeros_(model.leave.bias)
    assert torch.equal(infer(model, image()), image())


# Windows, shifted: an implementation that follows the official description word by word


def relative_bias(table):
    """B (heads, 64, 64) from table (15, 15, heads), entry by entry."""
    bias = torch.empty(table.shape[-1], 64, 64)
    for query in range(64):
        for key in range(64):
            rows, columns = query // 8 - key // 8, query % 8 - key % 8
            bias[:, query, key] = table[rows + 7, columns + 7]
    return bias


def cyclic_mask(height, width):
    """-inf between the tokens of a rolled window that are no neighbours in the photo: (windows, 64, 64)."""
    part = torch.zeros(height, width)
    for i, rows in enumerate((slice(0, -8), slice(-8, -4), slice(-4, None))):
        for j, columns in enumerate((slice(0, -8), slice(-8, -4), slice(-4, None))):
            part[rows, columns] = 3 * i + j
    parts = rearrange(part, "(i a) (j b) -> (i j) (a b)", a=8, b=8)
    return torch.where(parts[:, :, None] == parts[:, None, :], 0.0, -torch.inf)


def attend_by_rolling(block, x):
    """W-MSA of x (N, H, W, C): roll by half a window, cut into windows, mask, attend, roll back."""
    _, height, width, channels = x.shape
    heads, shift = block.attention.heads, block.shift
    y = torch.roll(block.norm1(x), (-shift, -shift), (1, 2))
    windows = rearrange(y, "n (i a) (j b) c -> n (i j) (a b) c", a=8, b=8)
    if block.modulator is not None:
        windows = windows + block.modulator.reshape(64, channels)
    q, k, v = block.attention.qkv(windows).chunk(3, -1)
    q, k, v = (rearrange(t, "n m t (h d) -> n m h t d", h=heads) for t in (q, k, v))
    logits = torch.einsum("nmhqd,nmhkd->nmhqk", q, k) / (channels // heads) ** 0.5
    logits = logits + relative_bias(block.attention.bias_table)
    if shift:
        logits = logits + cyclic_mask(height, width)[None, :, None]
    y = rearrange(logits.softmax(-1) @ v, "n m h t d -> n m t (h d)")
    y = rearrange(block.attention.out(y), "n (i j) (a b) c -> n (i a) (j b) c", i=height // 8, a=8)
    return torch.roll(y, (shift, shift), (1, 2))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 24), (24, 16)])
@pytest.mark.parametrize("modulator", [False, True])
@pytest.mark.parametrize("shift", [False, True])
def test_cut_windows_are_a_cyclic_shift_with_a_mask(shift, modulator, height, width):
    block = randomise(LeWinBlock(channels=8, heads=2, shift=shift, modulator=modulator, drop_path=0))
    x = torch.randn(2, height, width, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(block._attend(x), attend_by_rolling(block, x), atol=1e-5, rtol=1e-5)


def test_whole_network_on_a_rectangle_is_that_of_rolled_windows(network, monkeypatch):
    x = image(1, 128, 256)
    ours = infer(network, x)
    monkeypatch.setattr(LeWinBlock, "_attend", attend_by_rolling)
    torch.testing.assert_close(ours, infer(network, x), atol=1e-4, rtol=0)


def test_blocks_shift_alternately_and_modulate_in_the_decoder_only():
    with torch.device("meta"):
        model = create("uformer-b")
    for index, stage in enumerate([*model.encoder, model.bottleneck, *model.decoder]):
        assert [block.shift for block in stage] == [0, 4, 0, 4, 0, 4, 0, 4][: len(stage)]
        assert all((block.modulator is not None) == (index > 4) for block in stage)


# Two paths


def test_training_and_inference_paths_agree(network):
    x = image(2)
    torch.testing.assert_close(infer(network, x), network(x).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("elements", [1, 2**16])
def test_bands_of_inference_do_not_show(network, monkeypatch, elements):
    x = image(2)
    with torch.enable_grad():
        whole = network(x).detach()
    monkeypatch.setattr(uformer, "BAND_ELEMENTS", elements)
    torch.testing.assert_close(infer(network, x), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grad", [True, False])
def test_bfloat16_autocast_stays_close(network, grad):
    x = image()
    with torch.set_grad_enabled(grad):
        exact = network(x).detach()
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x).detach()
    added = (exact - x).std()
    assert (rough.float() - exact).std() < 0.05 * added
    assert not torch.equal(rough.float(), exact)


# Training


def test_every_parameter_gets_a_gradient(network):
    network.zero_grad()
    (network(image()) ** 2).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    network.zero_grad()


def test_low_rank_module_starts_as_the_identity_and_learns():
    model = create("sglrn-t", depths=(1,) * 9).eval()
    x = image()
    with_module = infer(model, x)
    module, model.middle = model.middle, nn.Identity()
    assert torch.equal(with_module, infer(model, x))
    model.middle = module
    (model(x) ** 2).mean().backward()
    assert isinstance(module, LowRankModule)
    assert module.fuse.weight.grad.any()


def test_stochastic_depth_keeps_the_mean_and_only_trains():
    block = LeWinBlock(channels=1, heads=1, shift=False, modulator=False, drop_path=0.3)
    branch = torch.ones(20_000, 1, 1, 1)
    torch.manual_seed(0)
    dropped = block.train()._dropped(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert abs(dropped.mean() - 1) < 5 * (0.3 / 0.7 / 20_000) ** 0.5
    assert block.eval()._dropped(branch) is branch


def test_stochastic_depth_rises_to_the_middle_and_falls_again():
    with torch.device("meta"):
        model = create("uformer-b")
    stages = [*model.encoder, model.bottleneck, *model.decoder]
    rates = [block.drop_path for stage in stages for block in stage]
    up, middle, down = rates[:19], rates[19:21], rates[21:]
    assert up == sorted(up)
    assert (up[0], up[-1]) == (0, pytest.approx(0.1))
    assert middle == [0.1, 0.1]
    assert down == pytest.approx(up[::-1])


def test_training_mode_without_stochastic_depth_is_evaluation_mode():
    model = create("sglrn-t", depths=(1,) * 9, drop_path=0.0)
    x = image()
    assert torch.equal(model.train()(x), model.eval()(x))


# The table of names


@pytest.mark.parametrize(
    ("name", "near"),
    [("uformer-tiny", "uformer-t"), ("SGLRN-B", "sglrn"), ("sglrn_s", "sglrn-s"), ("?", "uformer-t")],
)
def test_unknown_name_answers_with_the_nearest(name, near):
    with pytest.raises(ModelError, match=rf"no network is called .*; did you mean .*{near}"):
        create(name)


def test_unknown_argument_is_named():
    with pytest.raises(ModelError, match=r"uformer-t: .*'wdith'"):
        create("uformer-t", wdith=8)


def test_arguments_reach_the_network_and_its_module():
    with torch.device("meta"):
        model = create("uformer-t", low_rank={"reduction": 4}, depths=(1,) * 9)
    assert model.middle.rank == 256 // 4
    assert model.made_by == {
        "model": "uformer-t",
        "low_rank": {"reduction": 4},
        "arguments": {"depths": (1,) * 9},
    }


def test_same_seed_gives_the_same_first_weights():
    torch.manual_seed(3)
    one = create("sglrn-t", depths=(1,) * 9).state_dict()
    torch.manual_seed(3)
    other = create("sglrn-t", depths=(1,) * 9).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)

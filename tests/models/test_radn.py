import pytest
import torch
from oracles import randomise

from unsmear.models import create
from unsmear.models.costs import parameters
from unsmear.models.deformable import DeformableConv2d
from unsmear.models.radn import ContextPooling, DenseLayer, SelfAttention

SMALL = {"encoder": (2, 2, 2), "decoder": (2, 2, 2), "up": (64, 32, 64)}


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    return randomise(create("radn", **SMALL)).eval()


def test_parameters_are_those_of_its_layers():
    with torch.device("meta"):
        model = create("radn")

    def dense(channels, layers):
        return sum((channels + 32 * i) * 128 + 128 + 9 * 128 * 32 + 32 for i in range(layers))

    blocks = [dense(64, 12), dense(224, 16), dense(368, 24)]
    transitions = [448 * 224 + 224, 736 * 368 + 368, 1136 * 568 + 568]
    placing = 9 * 128 * 27 + 27  # offsets and modulation of the last layer
    modules = [dense(channels, 6) + placing for channels in (568, 256 + 368, 128 + 224)]
    up = [4 * 760 * 256 + 256, 4 * 816 * 128 + 128, 4 * 544 * 64 + 64]
    assert [parameters(block) for block in model.dense] == blocks
    assert [parameters(layer) for layer in model.transitions] == transitions
    assert [parameters(block) for block in model.deformable] == modules
    assert [parameters(layer) for layer in model.up] == up
    attention = 568 * 3 * 71 + 3 * 71 + 71 * 568 + 568
    ends = (12 * 64 * 9 + 64) + 4 * (64 * 16 + 16) + (128 * 3 * 9 + 3)
    assert parameters(model) == sum([*blocks, *transitions, *modules, *up, attention, ends]) == 10_165_129


def test_only_the_last_layer_of_a_decoder_block_is_deformable():
    with torch.device("meta"):
        model = create("radn")
    kinds = [[isinstance(layer.local, DeformableConv2d) for layer in block] for block in model.deformable]
    assert kinds == [[False] * 5 + [True]] * 3
    assert not any(isinstance(layer.local, DeformableConv2d) for block in model.dense for layer in block)


def test_a_dense_layer_keeps_what_it_has_seen():
    layer = randomise(DenseLayer(channels=6, growth=4))
    x = random(2, 6, 5, 7)
    y = layer(x)
    assert y.shape == (2, 10, 5, 7)
    assert torch.equal(y[:, :6], x)


def test_attention_is_the_formula():
    module = randomise(SelfAttention(channels=16))
    x = random(2, 16, 3, 5)
    q, k, v = (t.flatten(2).mT for t in module.qkv(x).chunk(3, 1))  # (N, 15, 2)
    seen = torch.softmax(q @ k.mT / 2**0.5, -1) @ v
    expected = x + module.out(seen.mT.unflatten(2, (3, 5)))
    torch.testing.assert_close(module(x), expected)


def test_attention_does_not_know_where_a_pixel_is():
    module = randomise(SelfAttention(channels=16))
    x = random(1, 16, 4, 4).flatten(2)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = module(x[..., order].unflatten(2, (4, 4))).flatten(2)
    torch.testing.assert_close(shuffled, module(x.unflatten(2, (4, 4))).flatten(2)[..., order])


def test_attention_never_holds_the_matrix_of_all_pairs():
    from unsmear.models.memory import peak_bytes

    module = SelfAttention(channels=16)
    x = random(1, 16, 64, 64)
    assert peak_bytes(module, x) < 64**4 * 4 / 20


def test_context_of_a_constant_is_constant_and_reaches_its_square():
    module = randomise(ContextPooling(channels=8))
    y = module(torch.full((1, 8, 64, 96), 0.5))
    torch.testing.assert_close(y, y[..., :1, :1].expand_as(y))
    x = random(1, 8, 64, 96)
    changed = x.clone()
    changed[..., 0, 0] += 1
    moved = (module(changed) - module(x)).abs()[:, 8:].amax((0, 2)).unflatten(0, (4, 2)).amax(1)  # (4, 96)
    reach = [int(row.nonzero().max()) for row in moved]
    # A mean over `side` pixels, brought back by interpolation: half a square beyond the square.
    assert reach == sorted(reach) and reach[0] < 8 and 31 < reach[3] < 64


def test_every_pixel_sees_the_whole_picture(network):
    x = random(1, 3, 64, 96)
    changed = x.clone()
    changed[..., :4, :4] = 1 - changed[..., :4, :4]
    with torch.inference_mode():
        difference = (network(changed) - network(x)).abs().amax(1)[0]
    assert (difference > 0).float().mean() > 0.9
    assert difference[-8:, -8:].max() > 0
    assert network.global_context


def test_output_layer_at_zero_is_the_identity():
    model = create("radn", **SMALL).eval()
    torch.nn.init.zeros_(model.leave.weight)
    torch.nn.init.zeros_(model.leave.bias)
    x = random(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(x), x)


def test_training_and_inference_paths_agree(network):
    x = random(2, 3, 64, 32)
    with torch.inference_mode():
        y = network(x)
    torch.testing.assert_close(network(x).detach(), y, atol=1e-5, rtol=1e-4)


def test_transposed_network_restores_the_transposed_photo(network):
    # Rows and columns are nowhere mixed up; the offsets are what would be.
    transposed = create("radn", **SMALL).eval()
    weights = {}
    for name, tensor in network.state_dict().items():
        value = tensor.mT if tensor.ndim == 4 else tensor
        if "placing" in name:  # (dy, dx) of the taps row by row, then the modulation
            offsets, modulation = value[:18], value[18:]
            offsets = offsets.unflatten(0, (3, 3, 2)).transpose(0, 1).flip(2).flatten(0, 2)
            modulation = modulation.unflatten(0, (3, 3)).transpose(0, 1).flatten(0, 1)
            value = torch.cat([offsets, modulation])
        if name == "enter.weight":  # channels are colour, then row and column of the 2×2 square
            value = value.unflatten(1, (3, 2, 2)).transpose(2, 3).flatten(1, 3)
        weights[name] = value
    transposed.load_state_dict(weights)
    x = random(1, 3, 32, 64)
    with torch.inference_mode():
        expected = network(x)
        torch.testing.assert_close(transposed(x.mT).mT, expected, atol=1e-4, rtol=1e-4)
        assert (network(x.mT).mT - expected).abs().max() > 1e-2

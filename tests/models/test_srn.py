import pytest
import torch
from oracles import randomise
from torch import nn
from torch.nn import functional as F

from unsmear.models import create
from unsmear.models.costs import multiply_adds, parameters
from unsmear.models.restoring import restore
from unsmear.models.srn import ConvLSTM

SMALL = {"width": 8, "blocks": 1}


def image(batch=1, height=32, width=48, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[False, True], ids=["srn", "srn-lstm"])
def network(request):
    return randomise(create("srn", lstm=request.param, **SMALL)).train()


@pytest.fixture
def recurrent():
    return randomise(create("srn-lstm", **SMALL)).train()


@pytest.mark.parametrize(("name", "millions", "giga"), [("srn", 6.88, 83.5), ("srn-lstm", 8.06, 89.4)])
def test_counts_are_those_of_the_official_graph(name, millions, giga):
    with torch.device("meta"):
        model = create(name)
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiply_adds(model) / 1e9 == pytest.approx(giga, rel=0.01)
    with torch.device("meta"):
        grey = create(name, per_colour=True)
    assert parameters(model) - parameters(grey) == 25 * 32 * 4 + 25 * 32 * 2 + 2  # first and last convolution


# The whole network, written out from the description of the official graph


def written_out(weights, x, lstm):
    def conv(x, name, stride=1):
        weight = weights[f"{name}.weight"]
        return F.conv2d(x, weight, weights[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def block(x, name):
        return x + conv(conv(x, f"{name}.first").relu(), f"{name}.second")

    def deconv(x, name):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1).relu()

    def resize(x, like):
        return F.interpolate(x, like.shape[2:], mode="bilinear")

    outputs, c, h = [], None, None
    for scale in (4, 2, 1):
        blurred = F.interpolate(x, [side // scale for side in x.shape[2:]], mode="area")
        y = torch.cat([blurred, resize(outputs[-1], blurred) if outputs else blurred], 1)
        one = block(conv(y, "encoder.0.0").relu(), "encoder.0.2")
        two = block(conv(one, "encoder.1.0", 2).relu(), "encoder.1.2")
        y = block(conv(two, "encoder.2.0", 2).relu(), "encoder.2.2")
        if lstm:
            c, h = (torch.zeros_like(y) if part is None else resize(part, y) for part in (c, h))
            i, j, f, o = conv(torch.cat([y, h], 1), "lstm.gates").chunk(4, 1)
            c = c / (1 + torch.exp(-f - 1)) + j.tanh() / (1 + torch.exp(-i))
            y = h = c.tanh() / (1 + torch.exp(-o))
        y = deconv(block(y, "decoder.0.0"), "up.0") + two
        y = deconv(block(y, "decoder.1.0"), "up.1") + one
        outputs.append(conv(block(y, "decoder.2.0"), "leave"))
    return outputs


def test_it_is_what_the_description_says(network):
    expected = written_out(network.state_dict(), image(2), network.lstm is not None)
    found = network(image(2))
    assert [tuple(output.shape[2:]) for output in found] == [(8, 12), (16, 24), (32, 48)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.eval()(image(2)), expected[-1], atol=1e-5, rtol=1e-4)


# Sharing and recurrence


def test_the_cell_is_torchs_where_the_picture_is_one_pixel():
    cell = randomise(ConvLSTM(channels=5))
    oracle = nn.LSTMCell(5, 5)
    centre = cell.gates.weight[..., 1, 1]  # of 3×3; the other taps see zeros
    i, j, f, o = (part for part in torch.cat([centre, cell.gates.bias[:, None]], 1).chunk(4))
    order = torch.cat([i, f, j, o]).detach()  # torch has the forget gate second
    oracle.weight_ih.data, oracle.weight_hh.data = order[:, :5].clone(), order[:, 5:10].clone()
    oracle.bias_ih.data = order[:, 10] + torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(5)
    oracle.bias_hh.data.zero_()
    generator = torch.Generator().manual_seed(0)
    x, c, h = torch.randn(3, 4, 5, generator=generator)
    state = None
    found = cell(x[..., None, None], state)
    expected_h, expected_c = oracle(x)
    torch.testing.assert_close(found[1][..., 0, 0], expected_h)
    found = cell(x[..., None, None], (c[..., None, None], h[..., None, None]))
    expected_h, expected_c = oracle(x, (h, c))
    torch.testing.assert_close(found[0][..., 0, 0], expected_c)
    torch.testing.assert_close(found[1][..., 0, 0], expected_h)


@pytest.mark.parametrize("name", ["encoder.1.0", "decoder.2.0.first", "up.0", "leave"])
def test_one_weight_serves_all_scales(network, name):
    before = network(image())
    with torch.no_grad():
        network.get_submodule(name).weight *= 1.5
    assert not any(torch.equal(one, other) for one, other in zip(before, network(image()), strict=True))


def test_the_state_is_carried_from_scale_to_scale(recurrent, monkeypatch):
    whole = recurrent(image())
    forward = ConvLSTM.forward
    monkeypatch.setattr(ConvLSTM, "forward", lambda self, x, state: forward(self, x, None))
    forgetful = recurrent(image())
    same = [torch.equal(one, other) for one, other in zip(whole, forgetful, strict=True)]
    assert same == [True, False, False]


def test_gradients_flow_through_the_state_and_not_through_the_picture(recurrent):
    states = []
    recurrent.lstm.register_forward_hook(lambda _, __, output: states.append(output))
    outputs = recurrent(image())
    picture, c, h = torch.autograd.grad(outputs[-1].sum(), [outputs[0], *states[0]], allow_unused=True)
    assert picture is None
    assert c.any() and h.any()


def test_a_scale_sees_what_the_one_before_restored(network):
    before = network(image())
    network.leave.register_forward_hook(lambda _, __, output: output + 1)
    after = network(image())
    torch.testing.assert_close(after[0], before[0] + 1)
    assert (after[1] - before[1] - 1).abs().max() > 1e-3


def test_the_low_rank_module_is_called_once_at_full_size():
    model = create("srn", low_rank=True, **SMALL).eval()
    sizes = []
    model.middle.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape)))
    model(image())
    assert sizes == [(1, 32, 8, 12)]


def test_colours_one_by_one_are_treated_alike():
    model = randomise(create("srn-lstm", per_colour=True, **SMALL)).eval()
    x = image()
    order = [2, 0, 1]
    torch.testing.assert_close(model(x[:, order]), model(x)[:, order])
    grey = x[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(model(grey)[:, 0], model(x)[:, 0])
    assert [output.shape[1] for output in model.train()(image(2))] == [3, 3, 3]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 18)])
def test_any_size(network, height, width):
    found = restore(network.eval(), image(2, height, width))
    assert found.shape == (2, 3, height, width)


@pytest.mark.parametrize("name", ["mscnn", "srn", "srn-lstm", "pss-srn", "deblurgan"])
def test_first_outputs_are_of_the_size_of_pictures(name):
    torch.manual_seed(0)
    outputs = create(name).train()(image(1, 32, 32))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(output.abs().max() < 10 for output in outputs)


def test_first_weights_are_the_official_ones_but_for_the_calm():
    torch.manual_seed(0)
    model = create("srn-lstm")
    bound = (6 / (2 * 25 * 128)) ** 0.5  # Xavier, uniform
    block = model.decoder[0][0]
    assert 0.98 * bound < block.first.weight.abs().max() <= bound
    assert 0.098 * bound < block.second.weight.abs().max() <= 0.1 * bound
    assert model.lstm.gates.weight.std().item() == pytest.approx(0.88e-3, rel=0.02)  # cut at two sigma
    assert all(not parameter.any() for name, parameter in model.named_parameters() if "bias" in name)

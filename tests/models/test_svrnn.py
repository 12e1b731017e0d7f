from itertools import pairwise

import pytest
import torch
from oracles import randomise
from torch.nn import functional as F

from unsmear.models import create, svrnn
from unsmear.models.costs import multiply_adds, parameters
from unsmear.models.recurrence import DIRECTIONS


def image(batch=1, height=32, width=40, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network():
    """The network at a quarter of the width of its gates, all weights random."""
    return randomise(create("svrnn", guidance=16)).eval()


def test_parameters_are_those_of_the_official_layers():
    with torch.device("meta"):
        model = create("svrnn")
    # side, channels in and out of the 25 convolutions of the official test.prototxt
    trunk = [(11, 3, 16), (7, 16, 32), *[(3, 128, 32)] * 4, (9, 64, 16), (5, 32, 3)]
    stages = [(3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 256), (512, 128, 128)]
    gates = [(3, a, b) for stage in stages for a, b in pairwise(stage)]
    gates += [(3, 256, 256), (3, 256, 512)]

    def count(layers):
        return sum(side * side * a * b + b for side, a, b in layers)

    assert parameters(model) == count(trunk + gates) == 9_227_027
    assert sum(parameters(r.gates) for r in model.recurrences) == count([(3, 256, 512)])
    assert parameters(model) - count(trunk) == count(gates) == 8_963_136
    assert multiply_adds(model) == pytest.approx(53.8e9, rel=0.01)


def test_gates_near_one_reach_across_the_picture():
    # What a recurrence is for: far beyond the 100 pixels or so that the convolutions see.
    model = randomise(create("svrnn", guidance=16)).eval()
    for recurrence in model.recurrences:
        recurrence.gates.bias.data += 2
    x = image(1, 8, 400)
    changed = x.clone()
    changed[..., :4] += 0.5
    with torch.inference_mode():
        difference = (model(changed) - model(x)).abs().amax((0, 1, 2))  # of each column
    assert (difference > 0).all()
    assert model.global_context


def test_with_gates_of_zero_nothing_recurs(monkeypatch):
    model = randomise(create("svrnn", guidance=16, recurrences=1)).eval()
    for parameter in model.recurrences[0].gates.parameters():
        parameter.data.zero_()
    x = image()
    with torch.inference_mode():
        y = model(x)
        monkeypatch.setattr(svrnn, "four_directions", lambda x, gates: x.repeat(1, len(DIRECTIONS), 1, 1))
        torch.testing.assert_close(model(x), y)


def test_mirrored_recurrences_restore_the_mirrored_picture(network):
    # Mirror every kernel and swap the gates to the right and to the left. The gates and the recurrences only:
    # the stride of 2 of a 7×7 kernel sees an even number of columns from one side.
    mirrored = create("svrnn", guidance=16).eval()
    weights = {}
    for name, tensor in network.state_dict().items():
        value = tensor.flip(-1) if tensor.ndim == 4 else tensor
        if ".gates." in name:
            right, left, down, up = value.chunk(4, 0)
            value = torch.cat([left, right, down, up], 0)
        if ".mix.weight" in name:
            right, left, down, up = value.chunk(4, 1)
            value = torch.cat([left, right, down, up], 1)
        weights[name] = value
    mirrored.load_state_dict(weights)
    x = image(1, 32, 32)
    guidance = network._guidance(x)
    torch.testing.assert_close(mirrored._guidance(x.flip(3)).flip(3), guidance, atol=1e-4, rtol=1e-4)
    features = torch.rand(1, 32, 16, 16, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(network.recurrences, mirrored.recurrences, strict=True):
        expected = ours(features, guidance)
        again = theirs(features.flip(3), guidance.flip(3)).flip(3)
        torch.testing.assert_close(again, expected, atol=1e-4, rtol=1e-4)


def test_gates_stay_below_one_in_size(network):
    with torch.inference_mode():
        guidance = network._guidance(image())
        for recurrence in network.recurrences:
            assert recurrence.gates(guidance).tanh().abs().max() <= 1


def test_it_is_the_prototxt_layer_by_layer(network):
    """The official network written out, with one convolution of 256 → 512 for all gates."""
    w = network.state_dict()

    def conv(x, name, **options):
        side = w[f"{name}.weight"].shape[-1]
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=side // 2, **options)

    def double(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def relu(x, *names):
        for name in names:
            x = conv(x, name).relu()
        return x

    def run(x, gate, axis, backwards):
        h, out = torch.zeros_like(x.select(axis, 0)), [None] * x.shape[axis]
        for t in reversed(range(x.shape[axis])) if backwards else range(x.shape[axis]):
            h = (1 - gate.select(axis, t)) * x.select(axis, t) + gate.select(axis, t) * h
            out[t] = h
        return torch.stack(out, axis)

    x = image()
    with torch.inference_mode():
        g2 = relu(F.max_pool2d(relu(x, "guide1.0", "guide1.2"), 2), "guide2.0", "guide2.2")
        g3 = relu(F.max_pool2d(g2, 2), "guide3.0", "guide3.2")
        g4 = relu(F.max_pool2d(relu(g3, "guide3_end.0"), 2), "guide4.0", "guide4.2", "guide4.4")
        d1 = relu(torch.cat([g3, double(g4)], 1), "join3.0", "join3.2")
        d2 = relu(torch.cat([g2, double(d1)], 1), "join2.0")
        weight = torch.cat([w[f"recurrences.{i}.gates.weight"] for i in range(4)])
        bias = torch.cat([w[f"recurrences.{i}.gates.bias"] for i in range(4)])
        gates = F.conv2d(d2, weight, bias, padding=1).tanh().split(32, 1)  # 16 of 32
        e1 = F.leaky_relu(conv(x, "enter"), 0.1)
        h = e2 = conv(e1, "down", stride=2)
        for i in range(4):
            ways = zip(gates[4 * i : 4 * i + 4], [(3, False), (3, True), (2, False), (2, True)], strict=True)
            h = torch.cat([run(h, gate, *way) for gate, way in ways], 1)
            h = F.leaky_relu(conv(h, f"recurrences.{i}.mix"), 0.1)
        d = F.leaky_relu(conv(torch.cat([e2, h], 1), "narrow"), 0.1)
        expected = conv(torch.cat([e1, double(d)], 1), "leave")
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-4)

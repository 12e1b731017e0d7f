import pytest
import torch
from oracles import randomise
from torch.nn import functional as F

from unsmear.models import create
from unsmear.models.costs import parameters
from unsmear.models.pss_srn import NestedModule


def image(batch=1, height=32, width=48, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    return randomise(create("pss-srn", width=8)).train()


def test_counts_are_those_of_the_released_graph():
    with torch.device("meta"):
        colour, grey = create("pss-srn"), create("pss-srn", per_colour=True)
    assert parameters(grey) == 3_871_715
    assert parameters(colour) / 1e6 == pytest.approx(3.87, rel=0.01)
    shared = sum(8 * (9 * c * c + c) for c in (32, 64, 128))
    assert sum(parameters(module) for module in (colour.encoder, colour.decoder)) == 2 * shared


def nested(weights, name, x):
    """x + n_1 + n_2 + n_3 + n_4, each n_k of the sum of x and the n before it."""
    found = []
    for k in range(4):
        total = x + sum(found)
        for half in ("first", "second"):
            layer = f"{name}.{half}.{k}".lstrip(".")
            total = F.conv2d(total, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=1)
            total = total.relu() if half == "first" else total
        found.append(total)
    return x + found[0] + found[1] + found[2] + found[3]


def test_later_sums_add_all_earlier_ones():
    module = randomise(NestedModule(channels=6))
    x = torch.randn(2, 6, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = nested(module.state_dict(), "", x)
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-4)
    assert (expected - x).std() > 0.1


def test_it_is_what_the_description_says(network):
    weights, x = network.state_dict(), image(2)

    def conv(x, name, stride=1):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, 1)

    def deconv(x, name):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, 1).relu()

    def twice(name, x):
        return nested(weights, name, nested(weights, name, x))

    expected = []
    for number, scale in enumerate((4, 2, 1)):
        own = f"scales.{number}"
        blurred = F.interpolate(x, [side // scale for side in x.shape[2:]], mode="area")
        before = F.interpolate(expected[-1], blurred.shape[2:], mode="bilinear") if expected else blurred
        one = twice("encoder.0", conv(torch.cat([blurred, before], 1), f"{own}.enter").relu())
        two = twice("encoder.1", conv(one, f"{own}.down.0", 2).relu())
        y = twice("encoder.2", conv(two, f"{own}.down.1", 2).relu())
        y = deconv(twice("decoder.0", y), f"{own}.up.0") + two
        y = deconv(twice("decoder.1", y), f"{own}.up.1") + one
        expected.append(blurred + conv(twice("decoder.2", y), f"{own}.leave"))
    found = network(image(2))
    assert [tuple(output.shape[2:]) for output in found] == [(8, 12), (16, 24), (32, 48)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(network.eval()(x), expected[-1], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "first"),
    [("encoder.0.first.0", 0), ("decoder.1.second.3", 0)]
    + [(f"scales.{number}.{layer}", number) for number in range(3) for layer in ("enter", "down.1", "up.0")],
)
def test_inner_modules_serve_all_scales_and_scaling_layers_one(network, name, first):
    """A scaling layer changes its own scale and, through the picture that is passed on, the finer ones."""
    before = network(image())
    with torch.no_grad():
        network.get_submodule(name).weight *= 1.5
    after = network(image())
    assert [not torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [
        number >= first for number in range(3)
    ]


def test_no_gradient_from_a_scale_into_the_picture_before_it(network):
    outputs = network(image())
    own = list(network.scales[0].parameters())
    assert all(grad is None for grad in torch.autograd.grad(outputs[-1].sum(), own, allow_unused=True))


def test_the_low_rank_module_is_called_once_at_full_size():
    model = create("pss-srn", low_rank=True, width=8).eval()
    sizes = []
    model.middle.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape)))
    model(image())
    assert sizes == [(1, 32, 8, 12)]


def test_colours_one_by_one_are_treated_alike():
    model = randomise(create("pss-srn", per_colour=True, width=8)).eval()
    order = [2, 0, 1]
    torch.testing.assert_close(model(image()[:, order]), model(image())[:, order])

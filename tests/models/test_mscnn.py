import numpy as np
import pytest
import torch
from oracles import randomise
from skimage.transform import pyramid_gaussian

from unsmear.models import create
from unsmear.models.costs import multiply_adds, parameters
from unsmear.models.mscnn import halved


def image(batch=1, height=32, width=24, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    return randomise(create("mscnn", width=16, blocks=3)).train()


def test_counts_are_those_of_the_official_code():
    with torch.device("meta"):
        model = create("mscnn")
    scale = 6 * 25 * 64 + 64 + 38 * (25 * 64 * 64 + 64) + 25 * 64 * 3 + 3
    assert parameters(model) == 3 * scale - 3 * 25 * 64 + 2 * (25 * 3 * 12 + 12) == 11_721_321
    assert multiply_adds(model) / 1e9 == pytest.approx(336, rel=0.01)
    convolutions = [m for m in model.scales[2].modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 40


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 36), (44, 20)])
def test_smaller_pictures_are_those_of_the_official_loader(height, width):
    x = image(1, height, width).double()
    oracle = list(pyramid_gaussian(x[0].permute(1, 2, 0).numpy(), 2, channel_axis=-1))
    for expected in oracle[1:]:
        x = halved(x)
        np.testing.assert_allclose(x[0].permute(1, 2, 0).numpy(), expected, atol=1e-7)


def test_outputs_are_coarse_to_fine_and_the_last_is_that_of_evaluation(network):
    outputs = network(image())
    assert [tuple(output.shape[2:]) for output in outputs] == [(8, 6), (16, 12), (32, 24)]
    assert torch.equal(network.eval()(image()), outputs[-1])


@pytest.mark.parametrize("scale", range(3))
def test_each_scale_has_weights_of_its_own_and_feeds_the_next(network, scale):
    before = network(image())
    with torch.no_grad():
        network.scales[scale].before[0].first.weight *= 1.5
    changed = [not torch.equal(one, other) for one, other in zip(before, network(image()), strict=True)]
    assert changed == [False] * scale + [True] * (3 - scale)


def test_the_gradient_of_the_finest_goes_through_all_scales(network):
    network(image())[-1].sum().backward()
    assert all(parameter.grad.any() for parameter in network.scales[0].parameters())


def test_the_low_rank_module_is_in_the_middle_of_the_finest_scale():
    model = create("mscnn", low_rank=True, width=32, blocks=3)
    with torch.no_grad():
        model.scales[2].middle.fuse.weight.normal_()
    plain = create("mscnn", width=32, blocks=3)
    plain.load_state_dict(model.state_dict(), strict=False)
    outputs, others = model.train()(image()), plain.train()(image())
    assert [torch.equal(one, other) for one, other in zip(outputs, others, strict=True)] == [
        True,
        True,
        False,
    ]

import pytest
import torch
from oracles import randomise
from torch import nn

from unsmear.models import create
from unsmear.models.costs import parameters
from unsmear.models.critic import Critic


def image(batch=1, height=32, width=24, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    return randomise(create("deblurgan", width=16, blocks=3)).eval()


@pytest.mark.parametrize(("name", "millions"), [("deblurgan", 11.38), ("deblurgan-public", 6.07)])
def test_counts_are_the_papers_and_the_codes(name, millions):
    with torch.device("meta"):
        model = create(name)
    assert parameters(model) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_one_far_pixel_changes_the_whole_picture(network):
    """The norms are over the whole picture: `global_context`."""
    assert network.global_context
    x = image(1, 64, 64)
    other = x.clone()
    other[..., 0, 0] = 1 - x[..., 0, 0]
    with torch.inference_mode():
        changed = (network(other) - network(x)).abs().amax(1)
    assert (changed[0, 40:, 40:] > 0).float().mean() > 0.5


def test_contrast_of_a_layer_does_not_matter(network):
    """Instance norms without learned parts: ten times the first convolution's weights change nothing."""
    x = image()
    with torch.inference_mode():
        before = network(x)
        network.enter.weight *= 10
        network.enter.bias += 3
        torch.testing.assert_close(network(x), before, atol=2e-4, rtol=0)


def test_dropout_works_in_training_alone(network):
    x = image()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))
    still = randomise(create("deblurgan", width=16, blocks=3, dropout=0.0))
    assert torch.equal(still.train()(x), still.eval()(x))
    assert torch.equal(still(x), network.eval()(x))


def test_output_stays_in_range_and_nothing_added_is_the_picture(network):
    with torch.inference_mode():
        assert network(image()).min() >= 0 and network(image()).max() <= 1
        network.leave.weight.zero_()
        network.leave.bias.zero_()
        torch.testing.assert_close(network(image()), image(), atol=1e-6, rtol=0)


# The critic


def test_the_critic_counts_as_the_patchgan_does():
    assert parameters(Critic()) == 2_764_737  # of pix2pix and CycleGAN, three colours


def test_a_score_sees_70_by_70_pixels():
    critic = randomise(Critic(width=4))
    for number, layer in enumerate(critic.layers):
        if isinstance(layer, nn.InstanceNorm2d):  # which see all of the picture
            critic.layers[number] = nn.Identity()
    x = image(1, 160, 160).requires_grad_()
    scores = critic(x)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero().unbind(1)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (70, 70)


def test_images_of_a_batch_are_scored_one_by_one():
    critic = randomise(Critic(width=4))
    x = image(3, 64, 48)
    torch.testing.assert_close(critic(x), torch.cat([critic(one[None]) for one in x]), atol=1e-5, rtol=1e-4)

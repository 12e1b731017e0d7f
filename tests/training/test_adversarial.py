import pytest
import torch
from torch import nn

from unsmear.models.critic import Critic
from unsmear.training.adversarial import Adversary, gradient_penalty
from unsmear.training.placing import Place

CPU = Place(torch.device("cpu"))


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_penalty_of_a_linear_critic_in_closed_form(factor):
    """D(x) = mean over the pixels of w·x has the gradient w/(HW) at each pixel, of norm ‖w‖/√(HW)."""
    critic = nn.Conv2d(3, 1, 1)
    critic.weight.data *= factor
    norm = critic.weight.detach().norm() / (8 * 6) ** 0.5
    found = gradient_penalty(critic, images(2, 3, 8, 6), images(2, 3, 8, 6, seed=1), torch.zeros(2, 1, 1, 1))
    torch.testing.assert_close(found, (norm - 1) ** 2)


def test_penalty_is_of_each_image_where_its_own_mix_puts_it():
    """D(x) = mean of x²/2 over pixels and one colour: the gradient is x/(HW), which tells where x was."""

    class Square(nn.Module):
        def forward(self, x):
            return x[:, :1].square() / 2

    sharp, restored = torch.full((2, 3, 4, 4), 8.0), torch.full((2, 3, 4, 4), -8.0)
    mix = torch.tensor([1.0, 0.25]).reshape(2, 1, 1, 1)
    norms = torch.tensor([8.0, 4.0]) * 4 / 16
    torch.testing.assert_close(gradient_penalty(Square(), sharp, restored, mix), ((norms - 1) ** 2).mean())


def test_gradient_of_the_penalty_by_finite_differences():
    torch.manual_seed(0)
    critic = Critic(width=2).double()
    for parameter in critic.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    names = [
        name for name, parameter in critic.named_parameters() if name in ("layers.0.weight", "layers.8.bias")
    ]
    sharp, restored = (images(2, 3, 18, 16, seed=seed, dtype=torch.float64) for seed in (0, 1))
    mix = torch.tensor([0.2, 0.7], dtype=torch.float64).reshape(2, 1, 1, 1)
    own = dict(critic.named_parameters())

    def penalty(*weights):
        def call(x):
            return torch.func.functional_call(critic, own | dict(zip(names, weights, strict=True)), (x,))

        return gradient_penalty(call, sharp, restored, mix)

    weights = [own[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(penalty, weights, eps=1e-7, atol=1e-5, rtol=1e-3)


def blurred(sharp):
    return nn.functional.avg_pool2d(nn.functional.pad(sharp, (1, 1, 1, 1), mode="reflect"), 3, stride=1)


@pytest.fixture
def adversary(recipe):
    return Adversary.begin(recipe(adversarial={"width": 8}, learning_rate=1e-3), CPU.device)


def test_the_critic_learns_to_tell_blurred_from_sharp(adversary):
    sharp = images(4, 3, 32, 32)
    figures = []
    for step in range(12):
        adversary.term(blurred(sharp))
        figures.append(adversary.learn(sharp, rate=1e-3, step=step, place=CPU))
    assert figures[-1]["critic_loss"] < figures[0]["critic_loss"] - 0.5
    assert figures[-1]["critic_gap"] > 0.5
    fresh = images(4, 3, 32, 32, seed=9)
    with torch.no_grad():
        gap = adversary.critic(fresh * 2 - 1).mean() - adversary.critic(blurred(fresh) * 2 - 1).mean()
    assert gap > 0.2


def test_the_term_moves_pictures_and_not_the_critic(adversary):
    restored = images(2, 3, 32, 32).requires_grad_()
    coarse = images(2, 3, 16, 16)
    term = adversary.term((coarse, restored))
    weight = adversary.settings.weight
    torch.testing.assert_close(term, -weight * adversary.critic(restored * 2 - 1).mean())
    term.backward()
    assert restored.grad.any()
    assert all(parameter.grad is None for parameter in adversary.critic.parameters())
    adversary.learn(images(2, 3, 32, 32, seed=1), rate=1e-3, step=0, place=CPU)
    assert not any(parameter.requires_grad for parameter in adversary.critic.parameters())


def test_what_the_critic_draws_is_a_function_of_seed_and_step(adversary, recipe):
    def learned(step):
        other = Adversary.begin(recipe(adversarial={"width": 8}), CPU.device)
        other.term(images(2, 3, 32, 32))
        return other.learn(images(2, 3, 32, 32, seed=1), rate=1e-3, step=step, place=CPU)

    before = torch.random.get_rng_state()
    assert learned(3) == learned(3) != learned(4)
    assert torch.equal(before, torch.random.get_rng_state())


def test_no_table_no_critic(recipe):
    assert Adversary.begin(recipe(), CPU.device) is None

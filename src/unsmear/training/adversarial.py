"""Training against a critic: WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028) as DeblurGAN uses it.

The network f minimises its loss plus weight · (-E[D(f(v))]); the critic D minimises

    E[D(f(v))] - E[D(u)] + penalty · E[(‖∇D(x)‖₂ - 1)²],  x = e u + (1 - e) f(v),  e uniform in [0, 1],

one e for each image, v blurred, u sharp, images in [-1, 1], D the mean over the critic's patches and the norm
over all pixels and colours of an image. (DeblurGAN's code draws one e for the batch, and takes the norm over
the three colours of each pixel by itself, of the sum over the patches; ours is the equation of the paper that
it cites.) In each step of the training the critic takes `critic_steps` steps on the pictures that the network
has just made, by Adam with the rate and betas of the recipe, in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unsmear.models.critic import Critic
from unsmear.training.placing import Place, seeded
from unsmear.training.recipe import Adversarial, Recipe
from unsmear.training.schedule import step_seed

_OWN = 1  # last part of the seeds of this file: (step, place in it, process, 1)


def gradient_penalty(critic: nn.Module, sharp: Tensor, restored: Tensor, mix: Tensor) -> Tensor:
    """Mean over the images of (‖∇D(x)‖₂ - 1)² at x = mix · sharp + (1 - mix) · restored; a scalar.

    Args:
        critic: maps images (N, 3, H, W) to scores (N, 1, h, w); D is the mean of an image's scores.
        sharp, restored: (N, 3, H, W).
        mix: (N, 1, 1, 1) in [0, 1].
    """
    between = (mix * sharp + (1 - mix) * restored).detach().requires_grad_()
    values = critic(between).mean(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(values.sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


class Adversary:
    """The critic, its optimizer, and the pictures that it has not learned from yet."""

    def __init__(self, critic: nn.Module, optimizer: torch.optim.Optimizer, settings: Adversarial, seed: int):
        """Take a critic that is on its device; `seed` is the recipe's."""
        self.critic, self.optimizer, self.settings, self.seed = critic, optimizer, settings, seed
        self._seen: list[Tensor] = []
        critic.requires_grad_(False)  # outside of `learn` it is a part of the network's loss alone

    @classmethod
    def begin(cls, recipe: Recipe, device: torch.device) -> "Adversary | None":
        """The adversary of step 0, its first weights a function of the seed; None if the recipe has none."""
        if recipe.adversarial is None:
            return None
        with seeded(step_seed(recipe.seed, 0, 0, 0, _OWN), device):
            critic = Critic(width=recipe.adversarial.width).to(device)
        optimizer = torch.optim.Adam(
            critic.parameters(), lr=recipe.learning_rate, betas=recipe.betas, fused=True
        )
        return cls(critic, optimizer, recipe.adversarial, recipe.seed)

    def term(self, outputs: Tensor | Sequence[Tensor]) -> Tensor:
        """weight · (-E[D(f(v))]) of a network's output in training, at full size; `learn` sees it, too."""
        restored = _signed(outputs if isinstance(outputs, Tensor) else outputs[-1])
        self._seen.append(restored.detach())
        return -self.settings.weight * self._value(restored)

    def learn(self, sharp: Tensor, *, rate: float, step: int, place: Place) -> dict[str, float]:
        """Take the critic's steps on the pictures of all `term`s since the last call, and their truth.

        Returns:
            of the last of these steps, over all processes: critic_loss, critic_gap E[D(u)] - E[D(f(v))] and
            critic_penalty E[(‖∇D(x)‖ - 1)²].
        """
        restored, sharp = torch.cat(self._seen), _signed(sharp)
        self._seen.clear()
        self.critic.requires_grad_(True)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for number in range(self.settings.critic_steps):
            draw = torch.Generator().manual_seed(step_seed(self.seed, step, number, place.rank, _OWN))
            mix = torch.rand(len(sharp), 1, 1, 1, generator=draw).to(sharp.device)
            gap = self._value(sharp) - self._value(restored)
            penalty = gradient_penalty(self.critic, sharp, restored, mix)
            loss = self.settings.penalty * penalty - gap
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            place.share_gradients(self.critic.parameters())
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.critic.requires_grad_(False)
        figures = place.mean(loss.detach(), gap.detach(), penalty.detach())
        return dict(zip(("critic_loss", "critic_gap", "critic_penalty"), figures, strict=True))

    def _value(self, images: Tensor) -> Tensor:
        value: Tensor = self.critic(images).mean()
        return value


def _signed(images: Tensor) -> Tensor:
    return images.float() * 2 - 1

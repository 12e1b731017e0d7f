"""All that a training is at one step, in one safetensors file: weights, average, optimizer, counters."""

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from unsmear.errors import TrainingError
from unsmear.training.adversarial import Adversary
from unsmear.training.recipe import Recipe

_HEADER = "unsmear.training"


@dataclass
class TrainingState:
    """Model, average of its weights, optimizer, the critic with its own, and what the log needs to go on as
    if never stopped.
    """

    model: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    step: int = 0  # steps done
    best_gain: float | None = None  # dB, largest validation gain so far
    losses: list[float] = field(default_factory=list)  # since the last line of the log
    adversary: Adversary | None = None

    @classmethod
    def begin(cls, recipe: Recipe, model: nn.Module) -> "TrainingState":
        """State of step 0 for a model that is on its device already."""
        average = copy.deepcopy(model).requires_grad_(False) if recipe.ema else None
        rule = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        optimizer = rule(
            model.parameters(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        device = next(model.parameters()).device
        return cls(model, average, optimizer, adversary=Adversary.begin(recipe, device))

    @property
    def published(self) -> nn.Module:
        """The network that is validated and exported: the average where there is one."""
        return self.model if self.average is None else self.average

    def update_average(self, decay: float) -> None:
        """average = decay · average + (1 - decay) · weights; buffers are copied."""
        if self.average is None:
            return
        get_ema_multi_avg_fn(decay)(  # type: ignore[no-untyped-call]
            list(self.average.parameters()), list(self.model.parameters()), self.step
        )
        for kept, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(new)

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the state with `facts` (recipe, data, …) in its header; the file appears whole or not."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        if self.adversary is not None:
            weights = self.adversary.critic.state_dict()
            tensors |= {f"critic/{name}": tensor for name, tensor in weights.items()}
        for prefix, model, optimizer in self._optimized():
            for name, parameter in model.named_parameters():
                for key, tensor in optimizer.state.get(parameter, {}).items():
                    tensors[f"{prefix}/{key}/{name}"] = tensor
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        counters = {"format": 1, "step": self.step, "best_gain": self.best_gain, "losses": self.losses}
        partial = path.with_suffix(".part")
        save_file(tensors, partial, metadata={_HEADER: json.dumps(counters | facts)})
        replace_durably(partial, path)

    def load(self, path: Path) -> None:
        """Take over the state in `path`, which must belong to the same network and optimizer.

        Raises:
            TrainingError: damaged file, or tensors of another network.
        """
        header, tensors = read_state(path)
        try:
            self.model.load_state_dict(_part(tensors, "model/"))
            if self.average is not None:
                self.average.load_state_dict(_part(tensors, "average/"))
            if self.adversary is not None:
                self.adversary.critic.load_state_dict(_part(tensors, "critic/"))
            for prefix, model, optimizer in self._optimized() if header["step"] else ():
                _load_optimizer(optimizer, model, _part(tensors, f"{prefix}/"))
        except (RuntimeError, KeyError) as error:
            raise TrainingError(f"{path}: belongs to another network or recipe: {error}") from error
        self.step, self.best_gain, self.losses = header["step"], header["best_gain"], header["losses"]

    def _optimized(self) -> list[tuple[str, nn.Module, torch.optim.Optimizer]]:
        """(prefix of the tensors' names, module, its optimizer) of all that is trained."""
        critic = self.adversary
        own = [("optimizer", self.model, self.optimizer)]
        return own if critic is None else [*own, ("critic-optimizer", critic.critic, critic.optimizer)]


def _load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give Adam back its state KEY/NAME of every parameter of `model`."""
    fused = optimizer.param_groups[0]["fused"]
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            saved = tensors[f"{key}/{name}"]
            if key == "step":
                kept = saved.to(parameter.device if fused else "cpu")
            else:  # in the memory layout of the parameter, which fused steps count on
                kept = torch.empty_like(parameter, requires_grad=False).copy_(saved)
            optimizer.state[parameter][key] = kept


def read_header(path: Path) -> dict[str, Any]:
    """Counters and facts of a state file without its tensors.

    Raises:
        TrainingError: missing, damaged, or no state file of unsmear.
    """
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_HEADER])
            return header
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: no readable training state: {error}") from error


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a state file; raises as `read_header`."""
    header = read_header(path)
    with safe_open(path, "pt") as file:
        return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def replace_durably(partial: Path, path: Path) -> None:
    """Rename a finished file to its name after its bytes have reached the disk."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.chmod(0o644)  # safetensors writes files that their owner alone may read
    partial.replace(path)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

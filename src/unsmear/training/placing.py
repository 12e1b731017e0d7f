"""Where a training runs: the CPU, one GPU, or several processes started by torchrun (through accelerate)."""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from unsmear.errors import ModelError, RecipeError, TrainingError
from unsmear.models.restoring import find_device


class Place:
    """One process with one device. `Place` alone knows no others; `_SharedPlace` is one of several."""

    rank = 0
    processes = 1

    def __init__(self, device: torch.device) -> None:
        """Take a device that is known to be there."""
        self.device = device

    @property
    def first(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages gradients over the processes."""
        return model

    def hold_gradients(self, wrapped: nn.Module, hold: bool) -> AbstractContextManager[Any]:
        """Hold back the exchange of gradients (all pieces of a batch but the last)."""
        return nullcontext()

    def mean(self, *values: Tensor | float) -> list[float]:
        """Mean over the processes of a few numbers, which are every process's answer then."""
        return [float(value) for value in values]

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over the processes in place of the gradients of a network that is not wrapped."""

    def close(self) -> None:
        """Leave the group of processes."""


class _SharedPlace(Place):
    def __init__(self, cpu: bool) -> None:
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise TrainingError(
                "several processes were started, but accelerate is missing; pip install 'unsmear[train]'"
            ) from error
        self._accelerator = Accelerator(cpu=cpu)
        super().__init__(self._accelerator.device)
        self.rank, self.processes = self._accelerator.process_index, self._accelerator.num_processes

    def wrap(self, model: nn.Module) -> nn.Module:
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        return wrapped

    def hold_gradients(self, wrapped: nn.Module, hold: bool) -> AbstractContextManager[Any]:
        held: AbstractContextManager[Any] = self._accelerator.no_sync(wrapped) if hold else nullcontext()
        return held

    def mean(self, *values: Tensor | float) -> list[float]:
        mine = torch.tensor([float(value) for value in values], dtype=torch.float64, device=self.device)
        return [float(value) for value in self._accelerator.reduce(mine, reduction="mean")]

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            parameter.grad = self._accelerator.reduce(parameter.grad, reduction="mean")

    def close(self) -> None:
        self._accelerator.end_training()


def find_place(device: str = "auto") -> Place:
    """The place that `device` ("auto", "cpu", "cuda", "cuda:1") and the environment (torchrun) ask for.

    Raises:
        RecipeError: there is no such device.
        TrainingError: several processes without accelerate.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _SharedPlace(cpu=device == "cpu" or not torch.cuda.is_available())
    try:
        return Place(find_device(device))
    except ModelError as error:
        raise RecipeError(str(error)) from error


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for a block and give them back as they were.

    Stochastic depth and first weights draw from them; a seed made of (seed, step) needs no saved state.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

"""From folders of photographs to batches: which photographs, which pairs in which step, worker processes."""

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unsmear.errors import RecipeError
from unsmear.pairs import Pair, PairSampler
from unsmear.photo import find_photos
from unsmear.training.placing import Place
from unsmear.training.recipe import Recipe
from unsmear.training.schedule import batches, stage_at


class Sampler(Protocol):
    """A source of pairs, such as `PairSampler`."""

    def __getitem__(self, index: int) -> Pair:
        """Pair `index` ≥ 0, a function of the sampler's own seed and the index alone."""


# (recipe, photographs, seed, size) → Sampler; a top-level function, since worker processes are handed it
MakeSampler = Callable[[Recipe, Sequence[Path], int, int], Sampler]


def make_pair_sampler(recipe: Recipe, photographs: Sequence[Path], seed: int, size: int) -> Sampler:
    """The sampler of `unsmear.pairs` with the recipe's bank and settings."""
    return PairSampler(photographs, recipe.bank, seed=seed, size=size, settings=recipe.pairs)


class Photographs:
    """The photographs of a recipe, split into those trained on and those held out for the validation.

    Raises:
        RecipeError: no folder named, or no photograph in one.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Find and split them."""
        if not recipe.sharp:
            raise RecipeError("sharp: name at least one folder of sharp photographs (--set sharp=FOLDER)")
        names = {path: name for folder in recipe.sharp for path, name in _photographs(folder)}
        paths = sorted(names, key=lambda path: names[path])
        digest = hashlib.sha256()
        for path in paths:
            digest.update(f"{names[path]}\0{path.stat().st_size}\n".encode())
        self.count, self.digest = len(paths), digest.hexdigest()
        share = recipe.validation.held_out if recipe.validation.count and len(paths) > 1 else 0.0
        order = np.random.default_rng([recipe.validation.seed, 0]).permutation(len(paths))
        kept_back = set(order[: int(np.ceil(share * len(paths)))].tolist())
        self.trained = [path for number, path in enumerate(paths) if number not in kept_back]
        # a single photograph, or a share of 0: validation has other crops and kernels of the same photographs
        self.held_out = [path for number, path in enumerate(paths) if number in kept_back] or self.trained


def _photographs(folder: Path) -> list[tuple[Path, str]]:
    if folder.is_file():
        return [(folder, folder.name)]
    if not folder.is_dir():
        raise RecipeError(
            f"sharp: {folder} is neither a folder nor a file (paths count from the current folder)"
        )
    found = [(path, path.relative_to(folder).as_posix()) for path in find_photos(folder)]
    if not found:
        raise RecipeError(f"sharp: no photograph in {folder}")
    return found


def data_facts(recipe: Recipe, photographs: Photographs) -> dict[str, Any]:
    """What identifies the data without naming a folder: a resumed run must find the same."""
    files = {"bank_sha256": recipe.bank, "vgg_sha256": recipe.vgg}
    sums = {
        key: hashlib.sha256(path.read_bytes()).hexdigest() if path else None for key, path in files.items()
    }
    return {"photographs": photographs.count, "photographs_sha256": photographs.digest, **sums}


class _Patches(Dataset[tuple[Tensor, Tensor]]):
    """(size, index) → (blurred, sharp), by a sampler for each size."""

    def __init__(self, samplers: dict[int, Sampler]) -> None:
        self._samplers = samplers

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        size, index = key
        pair = self._samplers[size][index]
        return pair.blurred, pair.sharp


def feed(
    recipe: Recipe,
    photographs: Sequence[Path],
    *,
    step: int,
    place: Place,
    make: MakeSampler = make_pair_sampler,
) -> Iterator[list[Tensor]]:
    """Batches [blurred, sharp], each (N, 3, size, size), of this process for every step from `step` on.

    The workers are fresh processes (spawned, one torch thread each): libraries with threads of their own,
    such as libvips, do not survive a fork.
    """
    sizes = {stage_at(recipe, step).size} | {s.size for s in recipe.stages if s.from_step > step}
    samplers = {size: make(recipe, photographs, recipe.seed, size) for size in sizes}
    loader = DataLoader(
        _Patches(samplers),
        batch_sampler=list(batches(recipe, step, rank=place.rank, processes=place.processes)),
        num_workers=recipe.workers,
        multiprocessing_context="spawn" if recipe.workers else None,
        worker_init_fn=_settle_worker,
        prefetch_factor=4 if recipe.workers else None,
        pin_memory=place.device.type == "cuda",
        generator=torch.Generator(),  # the loader's own seed would come from the global generator
    )
    return iter(loader)


def _settle_worker(number: int) -> None:
    # A signal to the whole group (Ctrl-C, a batch system) reaches the workers, too, but the training wants to
    # finish its step and save. It ends its workers itself; should it fail to, their second SIGTERM counts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def validation_pairs(
    recipe: Recipe, photographs: Sequence[Path], *, make: MakeSampler = make_pair_sampler
) -> tuple[Tensor, Tensor]:
    """The fixed (blurred, sharp), each (count, 3, size, size), of held-out photographs."""
    check = recipe.validation
    if not check.count:
        empty = torch.empty(0, 3, check.size, check.size)
        return empty, empty
    sampler = make(recipe, photographs, check.seed, check.size)
    drawn = [sampler[index] for index in range(check.count)]
    return torch.stack([pair.blurred for pair in drawn]), torch.stack([pair.sharp for pair in drawn])

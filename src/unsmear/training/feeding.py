"""From photographs or written pairs to batches: which of them, which in which step, worker processes."""

import hashlib
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unsmear.errors import RecipeError
from unsmear.models import NETWORKS
from unsmear.pairs import (
    GuidedPatches,
    GuideSettings,
    Pair,
    PairSampler,
    Patch,
    WrittenPairs,
    WrittenPatches,
)
from unsmear.pairs.patches import MARGIN
from unsmear.photo import find_photos
from unsmear.training.placing import Place
from unsmear.training.recipe import Recipe
from unsmear.training.schedule import batches, stage_at


class Sampler(Protocol):
    """A source of pairs, such as `PairSampler`, or of patches."""

    def __getitem__(self, index: int) -> Pair | Patch:
        """Pair `index` ≥ 0, a function of the sampler's own seed and the index alone."""


Items = Sequence[Any]  # photographs (paths), or numbers of written pairs

# (recipe, items, seed, size) → Sampler; a top-level function, since worker processes are handed it
MakeSampler = Callable[[Recipe, Items, int, int], Sampler]


def make_pair_sampler(recipe: Recipe, items: Items, seed: int, size: int) -> Sampler:
    """The sampler of `unsmear.pairs` that the recipe asks for, of photographs or numbers of written pairs."""
    guides = _guides(recipe)
    if recipe.written is not None:
        return WrittenPatches(recipe.written, items, seed=seed, size=size, guides=guides)
    if guides is None:
        return PairSampler(items, recipe.bank, seed=seed, size=size, settings=recipe.pairs)
    whole = PairSampler(items, recipe.bank, seed=seed, size=size + 2 * MARGIN, settings=recipe.pairs)
    return GuidedPatches(whole, settings=guides)


def _guides(recipe: Recipe) -> GuideSettings | None:
    """How the kernels go wrong that the network is shown; None for a network that is shown none.

    Raises:
        RecipeError: a network that is shown no kernels, but settings for them.
    """
    build = NETWORKS[recipe.network].build
    if getattr(build, "image_channels", 3) == 9:
        return recipe.guides
    if recipe.guides != GuideSettings():
        raise RecipeError(f"guides: {recipe.network} is shown no kernels; leave the table out")
    return None


class Written:
    """The written pairs of a recipe: the first are held out for the validation, the others trained on.

    Raises:
        PairsError: no such folder, or an unfinished one.
        RecipeError: too few pairs, or pairs smaller than what is cut from them.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Read the manifest and split them."""
        assert recipe.written is not None
        pairs, check = WrittenPairs(recipe.written), recipe.validation
        self.digest = hashlib.sha256((pairs.folder / "manifest.json").read_bytes()).hexdigest()
        self.count, self.estimates = len(pairs), pairs.estimates
        first = math.ceil(check.held_out * len(pairs))
        self.held_out, self.trained = range(first), range(first, len(pairs))
        if not self.trained:
            raise RecipeError(f"validation.held_out: of {len(pairs)} written pairs none is left to train on")
        if check.count > first:
            raise RecipeError(
                f"validation.count: {check.count} pairs, but {first} of the {len(pairs)} written ones are "
                "held out; lower it, or raise validation.held_out"
            )
        sizes = [("size" if stage.from_step == 0 else "patches", stage.size) for stage in recipe.stages]
        for key, size in sizes + ([("validation.size", check.size)] if check.count else []):
            if size > pairs.size:
                raise RecipeError(
                    f"{key}: {size} pixels cannot be cut from written pairs of {pairs.size}; "
                    "lower it, or write larger pairs"
                )


def find_data(recipe: Recipe) -> "Photographs | Written":
    """The data of a recipe: written pairs where it names them, else photographs; raises as these do."""
    return Photographs(recipe) if recipe.written is None else Written(recipe)


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


def data_facts(recipe: Recipe, found: Photographs | Written) -> dict[str, Any]:
    """What identifies the data without naming a folder: a resumed run must find the same."""
    if isinstance(found, Written):
        facts = {"written": found.count, "estimates": found.estimates}
        return {**facts, "manifest_sha256": found.digest, "vgg_sha256": _sum(recipe.vgg)}
    sums = {"bank_sha256": _sum(recipe.bank), "vgg_sha256": _sum(recipe.vgg)}
    return {"photographs": found.count, "photographs_sha256": found.digest, **sums}


def _sum(path: Path | None) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


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
    items: Items,
    *,
    step: int,
    place: Place,
    make: MakeSampler = make_pair_sampler,
) -> Iterator[list[Tensor]]:
    """Batches [blurred, sharp] of this process for every step from `step` on.

    Each is (N, 3, size, size); for guided networks blurred has 9 channels (`guided_input`).

    The workers are fresh processes (spawned, one torch thread each): libraries with threads of their own,
    such as libvips, do not survive a fork.
    """
    sizes = {stage_at(recipe, step).size} | {s.size for s in recipe.stages if s.from_step > step}
    samplers = {size: make(recipe, items, recipe.seed, size) for size in sizes}
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
    recipe: Recipe, items: Items, *, make: MakeSampler = make_pair_sampler
) -> tuple[Tensor, Tensor]:
    """The fixed (blurred, sharp) as in `feed`: of held-out photographs, or the middles of held-out pairs."""
    check = recipe.validation
    if not check.count:
        empty = torch.empty(0, 3, check.size, check.size)
        return empty, empty
    sampler = make(recipe, items, check.seed, check.size)
    if isinstance(sampler, WrittenPatches):
        drawn: list[Pair | Patch] = [sampler.middle(number) for number in items[: check.count]]
    else:
        drawn = [sampler[index] for index in range(check.count)]
    return torch.stack([pair.blurred for pair in drawn]), torch.stack([pair.sharp for pair in drawn])

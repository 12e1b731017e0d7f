"""Patches for training: crops of written pairs, flipped and turned; and what guided networks restore from."""

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unsmear.errors import PairsError
from unsmear.estimation.filtering import guided_input
from unsmear.pairs.folders import WrittenPairs
from unsmear.pairs.guides import GuideSettings, mean_kernel, spoiled_kernel
from unsmear.pairs.sampling import PairSampler

MARGIN = (
    32  # pixels: `GuidedPatches` filters so much more than it shows; half of the largest kernel by default
)


class Patch(NamedTuple):
    """What a network restores from, and what it shall come to.

    Attributes:
        blurred: (3, S, S) float32, v in sRGB, values in [0, 1]; (9, S, S) for a guided network, v first.
        sharp: (3, S, S), u.
    """

    blurred: Tensor
    sharp: Tensor


class WrittenPatches:
    """Random patches of written pairs: `patches[index]` depends on folder, settings and (seed, index) alone.

    Any index ≥ 0 works. The filtered pictures of a guided network are made of the whole pair and then
    cropped, so that few patches see the border. Safe in DataLoader workers.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        numbers: Sequence[int] | None = None,
        *,
        seed: int = 0,
        size: int = 128,
        guides: GuideSettings | None = None,
    ) -> None:
        """Look at the folder; pictures are read when needed.

        Args:
            folder: of pairs that `write_pairs` wrote.
            numbers: the pairs to cut from; all where None.
            seed: first half of the random state of each patch.
            size: S, side of the patches in pixels.
            guides: give what a guided network restores from, with kernels that are wrong in this way.

        Raises:
            PairsError: no such folder, or pairs smaller than the patches.
        """
        self.pairs = WrittenPairs(folder)
        if not 0 < size <= self.pairs.size:
            raise PairsError(
                f"patches of {size} px cannot be cut from {self.pairs.folder}, "
                f"whose pairs have {self.pairs.size} px"
            )
        self.numbers = range(len(self.pairs)) if numbers is None else numbers
        self.seed, self.size, self.guides = seed, size, guides
        self._estimated = [number for number in self.numbers if number < self.pairs.estimates]
        self._kept: tuple[int, Patch] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last pair behind when a worker gets a copy."""
        return self.__dict__ | {"_kept": None}

    def __getitem__(self, index: int) -> Patch:
        """Make patch `index`.

        Raises:
            PairsError: a file of its pair is missing or damaged.
        """
        if index < 0:
            raise IndexError(f"patch {index} does not exist; patches are counted from 0")
        draw = index if self.guides is None else index // self.guides.crops
        if self._kept is None or self._kept[0] != draw:
            self._kept = (draw, self._drawn(draw))
        generator = self._generator(index, 3)
        top, left = generator.integers(self.pairs.size - self.size + 1, size=2)
        window = (slice(top, top + self.size), slice(left, left + self.size))
        flip, turns = generator.random() < 0.5, int(generator.integers(4))

        def cut(image: Tensor) -> Tensor:
            part = image[:, *window]
            return (part.flip(-1) if flip else part).rot90(turns, (1, 2)).contiguous()

        return Patch(*map(cut, self._kept[1]))

    def middle(self, number: int) -> Patch:
        """The middle of pair `number`, for validation: with its stored estimate if it has one."""
        first = (self.pairs.size - self.size) // 2
        inner = slice(first, first + self.size)
        if self.guides is None:
            whole = Patch(*reversed(self.pairs.images(number)))
        else:
            kernel = self.pairs.estimate(number)
            if kernel is None:
                kernel = self._spoiled(number, self._generator(number, 4), self.guides)
            whole = self._shown(number, kernel)
        return Patch(*(image[:, inner, inner].contiguous() for image in whole))

    def _generator(self, index: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, index, 0, purpose]))

    def _drawn(self, draw: int) -> Patch:
        """A whole pair, as a network is shown it."""
        generator = self._generator(draw, 2)
        if self.guides is None:
            return Patch(*reversed(self.pairs.images(int(generator.choice(self.numbers)))))
        if self._estimated and generator.random() < self.guides.estimated_share:
            number = int(generator.choice(self._estimated))
            kernel = self.pairs.estimate(number)
            assert kernel is not None
            return self._shown(number, kernel)
        number, other = (int(drawn) for drawn in generator.choice(self.numbers, size=2))
        wrong = generator.random() < self.guides.wrong_share
        return self._shown(number, self._spoiled(other if wrong else number, generator, self.guides))

    def _spoiled(self, number: int, generator: np.random.Generator, guides: GuideSettings) -> Tensor:
        return spoiled_kernel(mean_kernel(self.pairs[number]), generator, guides)

    def _shown(self, number: int, kernel: Tensor) -> Patch:
        sharp, blurred = self.pairs.images(number)
        return Patch(guided_input(blurred, kernel[None]), sharp)


class GuidedPatches:
    """Pairs on the fly for a guided network: `patches[index]` is a function of sampler and index alone.

    The sampler's pairs are `MARGIN` pixels larger on each side than what is shown, so that the filter's
    errors at the border are seldom seen. Their kernel is always a spoiled one, for estimates take seconds.
    """

    def __init__(self, sampler: PairSampler, *, settings: GuideSettings) -> None:
        """Take a sampler of pairs of the size that is wanted plus 2 `MARGIN`."""
        self.sampler = sampler
        self.settings = settings

    def __getitem__(self, index: int) -> Patch:
        """Make patch `index` ≥ 0: (9, S, S) as `guided_input` gives it, and u."""
        pair = self.sampler[index]
        # Four numbers, as for the order of the photographs: never the state of a pair.
        generator = np.random.default_rng(np.random.SeedSequence([self.sampler.seed, index, 0, 2]))
        other = generator.random() < self.settings.wrong_share
        shown = self.sampler[int(generator.integers(2**31))] if other else pair
        kernel = spoiled_kernel(mean_kernel(shown), generator, self.settings)
        inner = slice(MARGIN, self.sampler.size - MARGIN)
        image = guided_input(pair.blurred, kernel[None])
        return Patch(image[:, inner, inner].contiguous(), pair.sharp[:, inner, inner].contiguous())

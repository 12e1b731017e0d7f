"""Lai et al. 2016: synthetic uniform and non-uniform blur of 25 photographs, and 100 real photographs."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, few, listing, pictures, present

GROUPS = ("manmade", "natural", "people", "saturated", "text")


class _Synthetic(Benchmark):
    """25 photographs × 4 blurs; true pictures in ground_truth/, blurred ones in a folder of the subclass."""

    homepage = "http://vllab.ucmerced.edu/wlai24/cvpr16_deblur_study (synthetic_dataset)"
    licence = "none stated; for research"
    protocol = "lai_shift"
    count = 100
    folder: ClassVar[str]
    blur: ClassVar[str]

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every blurred picture with its true one, grouped by the five kinds of scene."""
        self.choose(choice)
        root = present(root)
        top = next((top for top in (root, root / "synthetic_dataset") if (top / self.folder).is_dir()), None)
        if top is None or not (top / "ground_truth").is_dir():
            inner = top or root / "synthetic_dataset"
            raise self.wrong(root, f"in {inner.name}/ {listing(inner)}" if inner.is_dir() else "")
        truths = pictures(top / "ground_truth")
        cases = []
        for name, path in pictures(top / self.folder).items():
            match = re.fullmatch(rf"((\w+)_\d\d)_{self.blur}_\d\d", name)
            if match is None:
                raise self.wrong(root, f"{self.folder}/{path.name}")
            if match[1] not in truths:
                raise EvaluationError(
                    f"{top / 'ground_truth'} has no {match[1]}.png for {path}: found {few(list(truths))}; "
                    "download it again."
                )
            cases.append(Case(name, path, (truths[match[1]],), match[2]))
        if not cases:
            raise self.wrong(root, f"no picture in {self.folder}/")
        return cases

    def missing(self, cases: Sequence[Case]) -> Iterable[str]:
        """Kinds of scene that lack pictures."""
        for group in GROUPS:
            found = sum(case.group == group for case in cases)
            if found < self.count_of_group:
                yield f"{self.count_of_group - found} of {self.count_of_group} {group} pictures"

    @property
    def count_of_group(self) -> int:
        """Blurred pictures of one kind of scene."""
        return 100 // len(GROUPS)


class LaiUniform(_Synthetic):
    """One kernel a picture, of 51 to 101 pixels and off-centre; noise."""

    name = "lai-uniform"
    title = "Lai 2016, uniform"
    layout = (
        "synthetic_dataset/uniform/NAME_0I_kernel_0J.png beside synthetic_dataset/ground_truth/NAME_0I.png"
    )
    folder = "uniform"
    blur = "kernel"


class LaiNonuniform(_Synthetic):
    """Recorded camera rotations, relative to the first pose; noise."""

    name = "lai-nonuniform"
    title = "Lai 2016, non-uniform"
    layout = (
        "synthetic_dataset/nonuniform/NAME_0I_gyro_0J.png beside synthetic_dataset/ground_truth/NAME_0I.png"
    )
    folder = "nonuniform"
    blur = "gyro"


class LaiReal(Benchmark):
    """Blurred photographs of which nobody knows the truth."""

    name = "lai-real"
    title = "Lai 2016, real photographs"
    homepage = "http://vllab.ucmerced.edu/wlai24/cvpr16_deblur_study (real_dataset)"
    licence = "none stated; for research"
    layout = "real_dataset/NAME.jpg, or that folder itself"
    protocol = "no_reference"
    count = 100

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every photograph in real_dataset/, or right in the folder."""
        self.choose(choice)
        root = present(root)
        folder = root / "real_dataset" if (root / "real_dataset").is_dir() else root
        found = pictures(folder, (".jpg", ".jpeg", ".png"))
        if not found:
            raise self.wrong(root)
        return [Case(name, path, ()) for name, path in found.items()]

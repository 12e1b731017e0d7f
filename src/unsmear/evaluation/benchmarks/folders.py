"""What is no download: pairs as `find_pairs` reads them, photographs. And Levin 2009, repacked as pairs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from unsmear.errors import EvaluationError, PairsError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, few, not_swapped, pictures, present
from unsmear.evaluation.layouts import find_pairs
from unsmear.photo import PHOTO_SUFFIXES


class Pairs(Benchmark):
    """Any two folders of pairs."""

    name = "pairs"
    title = "two folders of pairs"
    homepage = ""
    licence = "that of the pictures"
    layout = """
        blur/… beside sharp/…, or input/… beside target/…, with equal names
        or a CSV file with the columns blurred,sharp
    """
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"blurred": ()}

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """See `find_pairs`; `blurred` names the folder meant where there are several."""
        self.choose(choice)
        try:
            found = find_pairs(root, blurred=choice.get("blurred"))
        except PairsError as error:
            raise EvaluationError(str(error)) from error
        if found.failures:
            first = found.failures[0]
            raise EvaluationError(
                f"{len(found.failures)} pictures below {root} have no partner, such as {first.name}: "
                f"{first.reason}."
            )
        cases = [Case(pair.name, pair.blurred, (pair.sharp,)) for pair in found.pairs]
        return not_swapped(sorted(cases, key=lambda case: case.name))


class Photos(Benchmark):
    """Any photographs of which nobody knows the truth."""

    name = "photos"
    title = "photographs"
    homepage = ""
    licence = "that of the pictures"
    layout = "a folder of photographs"
    protocol = "no_reference"

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every photograph right in the folder."""
        self.choose(choice)
        root = present(root)
        found = pictures(root, tuple(sorted(PHOTO_SUFFIXES)))
        if not found:
            raise self.wrong(root)
        return [Case(name, path, ()) for name, path in found.items()]


class Levin(Benchmark):
    """Levin et al. 2009: 4 pictures of 255×255 × 8 measured kernels of a shaken camera, grey."""

    name = "levin"
    title = "Levin 2009"
    homepage = "https://webee.technion.ac.il/people/anat.levin (as PNG: github csdwren/SelfDeblur)"
    licence = "none stated; for research"
    layout = "blur/imI_kernelJ_img.png (I 1 to 4, J 1 to 8) beside sharp/imI.png"
    protocol = "levin_shift"
    count = 32

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Every blurred picture with its true one, grouped by kernel."""
        self.choose(choice)
        root = present(root)
        if not (root / "blur").is_dir() or not (root / "sharp").is_dir():
            raise self.wrong(root)
        truths = pictures(root / "sharp")
        cases = []
        for name, path in pictures(root / "blur").items():
            match = re.fullmatch(r"(im\d)_(kernel\d)_img", name)
            if match is None:
                raise self.wrong(root, f"blur/{path.name}")
            if match[1] not in truths:
                raise EvaluationError(
                    f"{root / 'sharp'} has no {match[1]}.png for {path}: found {few(list(truths))}; "
                    "download it again."
                )
            cases.append(Case(name.removesuffix("_img"), path, (truths[match[1]],), match[2]))
        if not cases:
            raise self.wrong(root, "no picture in blur/")
        return not_swapped(cases)

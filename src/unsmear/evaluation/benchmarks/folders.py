"""Two folders of pairs, or a CSV file of them: whatever `find_pairs` reads. And Levin 2009, repacked so."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from unsmear.errors import EvaluationError, PairsError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, not_swapped
from unsmear.evaluation.layouts import find_pairs


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

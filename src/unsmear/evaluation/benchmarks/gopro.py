"""GoPro (Nah, Kim and Lee 2017), as downloaded or repacked."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, few, folders, not_swapped, partners, present

# Frames of each test sequence: 1111 in all.
TEST_SEQUENCES: Mapping[str, int] = {
    "GOPR0384_11_00": 100,
    "GOPR0384_11_05": 100,
    "GOPR0385_11_01": 100,
    "GOPR0396_11_00": 100,
    "GOPR0410_11_00": 134,
    "GOPR0854_11_00": 100,
    "GOPR0862_11_00": 77,
    "GOPR0868_11_00": 100,
    "GOPR0869_11_00": 100,
    "GOPR0871_11_00": 100,
    "GOPR0881_11_01": 100,
}


class GoPro(Benchmark):
    """1111 pairs of 1280×720 in 11 sequences; the blurred frame is the mean of 7 to 13 sharp ones."""

    name = "gopro"
    title = "GoPro"
    homepage = "https://seungjunnah.github.io/Datasets/gopro (GOPRO_Large.zip)"
    licence = "CC BY 4.0"
    layout = """
        GOPRO_Large/test/GOPRxxxx_yy_zz/blur/NNNNNN.png and blur_gamma/NNNNNN.png beside sharp/NNNNNN.png
        or, repacked, test/input/GOPRxxxx_yy_zz-NNNNNN.png beside test/target/
    """
    count = 1111
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "blurred": ("blur", "blur_gamma"),
        "split": ("test", "train"),
    }

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """The pairs of a split: test/ where it is there, else what is there.

        `blurred` must be chosen where both kinds are there: blur (means of the recorded values) is what the
        published figures of Uformer, Restormer, NAFNet and SRN use, blur_gamma (means of values ** 2.2) is
        the default of the authors' own code.
        """
        self.choose(choice)
        root = present(root)
        folder = self._split(root, choice.get("split"))
        if (folder / "input").is_dir() and (folder / "target").is_dir():
            if "blurred" in choice and choice["blurred"] != "blur":
                raise EvaluationError(
                    f"{folder} is a repacked GoPro, whose input/ is blur; it has no {choice['blurred']}."
                )
            files = partners(folder / "input", folder / "target")
            found = [(*name.rpartition("-")[::2], name, blurred, sharp) for name, blurred, sharp in files]
            if wrong := [name for sequence, _, name, _, _ in found if not sequence]:
                raise self.wrong(root, f"input/{wrong[0]}.png")
            cases = [
                Case(f"{sequence}/{frame}", blurred, (sharp,), sequence)
                for sequence, frame, _, blurred, sharp in found
            ]
        else:
            cases = [
                case
                for scene in folders(folder)
                for case in self._sequence(root, scene, choice.get("blurred"))
            ]
        if not cases:
            raise self.wrong(root)
        return not_swapped(cases)

    def missing(self, cases: Sequence[Case]) -> Iterable[str]:
        """Test sequences that are not there, or lack frames."""
        here = sorted({case.group for case in cases})
        if not TEST_SEQUENCES.keys() & set(here):
            yield f"the whole test set; what is here is of no sequence of it: {few(here)}"
            return
        for sequence, count in TEST_SEQUENCES.items():
            found = sum(case.group == sequence for case in cases)
            if found < count:
                yield f"{count - found} of {count} frames of test/{sequence}"

    def _split(self, root: Path, split: str | None) -> Path:
        """The folder that holds the sequences, or input/ and target/."""
        for top in (root, root / "GOPRO_Large", root / "GoPro"):
            for name in (split,) if split else ("test", "train"):
                if (top / name).is_dir():
                    return top / name
            if any(entry.name.startswith("GOPR0") for entry in folders(top)) or (top / "input").is_dir():
                if split and top.name != split:
                    raise EvaluationError(
                        f"{top} has no folder {split}/: found {few([f.name for f in folders(top)])}."
                    )
                return top
        raise self.wrong(root)

    def _sequence(self, root: Path, scene: Path, blurred: str | None) -> Iterable[Case]:
        kinds = [name for name in ("blur", "blur_gamma") if (scene / name).is_dir()]
        if blurred is None and len(kinds) > 1:
            raise EvaluationError(
                f"{scene} holds blur/ and blur_gamma/: choose blurred=blur (as Uformer, Restormer, NAFNet "
                "and SRN) or blurred=blur_gamma (as the data set's authors)."
            )
        chosen = blurred or (kinds[0] if kinds else "blur")
        if chosen not in kinds or not (scene / "sharp").is_dir():
            raise self.wrong(
                root, f"in {scene.name}/ {few([f'{f.name}/' for f in folders(scene)]) or 'no folder'}"
            )
        for name, path, sharp in partners(scene / chosen, scene / "sharp"):
            yield Case(f"{scene.name}/{name}", path, (sharp,), scene.name)

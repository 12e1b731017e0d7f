"""Means of video frames, as GoPro: HIDE (Shen et al. 2019) and REDS (Nah et al. 2019)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import (
    Benchmark,
    Case,
    few,
    folders,
    listing,
    not_swapped,
    partners,
    pictures,
    present,
)


class Hide(Benchmark):
    """People, near and far: networks trained on GoPro are tested on it."""

    name = "hide"
    title = "HIDE"
    homepage = "https://github.com/joanshen0508/HA_deblur (HIDE_dataset)"
    licence = "none stated; for research"
    layout = """
        HIDE_dataset/test/test-close-ups/NAME.png and test/test-long-shot/NAME.png
        beside HIDE_dataset/GT/NAME.png
    """
    count = 2025
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"split": ("test", "train")}

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """The pairs of a split (test unless told otherwise), grouped by close-ups and long-shot."""
        self.choose(choice)
        root = present(root)
        split = choice.get("split", "test")
        top = next(
            (t for t in (root, root / "HIDE_dataset") if (t / split).is_dir() and (t / "GT").is_dir()), None
        )
        if top is None:
            raise self.wrong(root)
        truths = pictures(top / "GT")
        cases = []
        for folder in folders(top / split) if split == "test" else [top / split]:
            for name, path in pictures(folder).items():
                if name not in truths:
                    raise EvaluationError(
                        f"{top / 'GT'} has no {name}.png for {path}, but {len(truths)} other pictures; "
                        "download it again."
                    )
                group = folder.name.removeprefix("test-")
                cases.append(Case(f"{group}/{name}", path, (truths[name],), group))
        if not cases:
            raise self.wrong(root, f"in {split}/ {listing(top / split)}")
        return not_swapped(cases)


class Reds(Benchmark):
    """Handheld video at 120 frames a second, interpolated and averaged; 1280×720."""

    name = "reds"
    title = "REDS"
    homepage = "https://seungjunnah.github.io/Datasets/reds (val_sharp.zip and val_blur.zip)"
    licence = "CC BY 4.0"
    layout = """
        val/val_blur/NNN/NNNNNNNN.png (or val_blur_comp, val_blur_jpeg) beside val/val_sharp/NNN/NNNNNNNN.png
        or, a part of it, blur/NNN_NNNNNNNN.png beside sharp/
    """
    count = 3000
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "blurred": ("blur", "blur_comp", "blur_jpeg"),
        "split": ("val", "train"),
    }

    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """The pairs of a split (val unless told otherwise), grouped by sequence.

        `blurred` must be chosen where several are there: blur, blur_comp (compressed video), blur_jpeg.
        """
        self.choose(choice)
        root = present(root)
        split = choice.get("split", "val")
        for top in (root, root / split, root / "REDS", root / "REDS" / split):
            if (top / f"{split}_sharp").is_dir():
                return not_swapped(list(self._sequences(root, top, split, choice.get("blurred"))))
        if (root / "blur").is_dir() and (root / "sharp").is_dir():
            cases = []
            for name, blurred, sharp in partners(root / "blur", root / "sharp"):
                sequence, _, frame = name.partition("_")
                cases.append(Case(f"{sequence}/{frame}", blurred, (sharp,), sequence))
            if cases:
                return not_swapped(cases)
        raise self.wrong(root)

    def _sequences(self, root: Path, top: Path, split: str, blurred: str | None) -> Iterable[Case]:
        kinds = [kind for kind in self.choices["blurred"] if (top / f"{split}_{kind}").is_dir()]
        if blurred is None and len(kinds) > 1:
            raise EvaluationError(
                f"{top} holds {few([f'{split}_{k}/' for k in kinds])}: choose blurred=… of them."
            )
        chosen = blurred or (kinds[0] if kinds else "blur")
        inputs = folders(top / f"{split}_{chosen}")
        if not inputs:
            raise self.wrong(root, listing(top))
        for sequence in inputs:
            sharp = top / f"{split}_sharp" / sequence.name
            for name, path, truth in partners(sequence, sharp):
                yield Case(f"{sequence.name}/{name}", path, (truth,), sequence.name)

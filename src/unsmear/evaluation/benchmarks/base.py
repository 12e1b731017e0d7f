"""What a benchmark is: cases to restore and score, read from a download as it lies."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from unsmear.errors import EvaluationError, UnreadablePhoto
from unsmear.photo import PHOTO_SUFFIXES, read_photo

_LOOKS = 3  # cases that are looked at for swapped folders
_SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Case:
    """One picture to restore, and what it is scored against.

    name: stable and unique within the benchmark, such as "GOPR0384_11_00/000001".
    blurred: the file to restore.
    truth: the true pictures: one; about 199 frames, or one .mat that holds them (Köhler); none for a
        real photograph.
    group: what tables may take apart, such as a sequence, a trajectory, a kind of scene.
    """

    name: str
    blurred: Path
    truth: tuple[Path, ...]
    group: str = ""


@dataclass(frozen=True)
class Survey:
    """What was found at a path: cases, those of the full set, what is missing in words, the first error."""

    found: int
    expected: int | None
    missing: tuple[str, ...] = ()
    error: str = ""


class Benchmark(ABC):
    """A public set of pictures in its own layout. A subclass with these facts and `cases` is a benchmark.

    name: what `find_benchmark` and the command line call it.
    title, homepage, licence: for people; homepage is where the download is.
    layout: the expected files, one a line.
    protocol: the name of the protocol that its published figures use.
    count: cases of the full set, None where it has no fixed size.
    choices: what `cases` can be told, each with its values; () for free text.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    homepage: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[str]
    protocol: ClassVar[str] = "gopro_rgb"
    count: ClassVar[int | None] = None
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @abstractmethod
    def cases(self, root: str | Path, **choice: str) -> list[Case]:
        """Find the cases below `root`, in the order of their names.

        A part of the full set is a set; `survey` says what is missing. Raises EvaluationError, one sentence
        with what was found and what was expected, where the layout is another one or a file is not there.
        """

    def survey(self, root: str | Path, **choice: str) -> Survey:
        """Say what is at `root`, without raising."""
        try:
            cases = self.cases(root, **choice)
        except EvaluationError as error:
            return Survey(0, self.count, error=str(error))
        return Survey(len(cases), self.count, tuple(self.missing(cases)))

    def missing(self, cases: Sequence[Case]) -> Iterable[str]:
        """In words, what of the full set is not among these cases."""
        if self.count is not None and len(cases) < self.count:
            yield f"{self.count - len(cases)} of {self.count} cases"

    def choose(self, choice: Mapping[str, str]) -> None:
        """Raise EvaluationError for a choice that this benchmark does not have."""
        for key, value in choice.items():
            if key not in self.choices:
                known = ", ".join(self.choices) or "none"
                raise EvaluationError(f"{self.name} has no choice {key!r}; its choices: {known}.")
            values = self.choices[key]
            if values and value not in values:
                raise EvaluationError(f"{self.name}: {key} is one of {', '.join(values)}, not {value!r}.")

    def wrong(self, root: Path, found: str = "") -> EvaluationError:
        """The error of a folder that is laid out in another way."""
        expected = " ".join(line.strip() for line in self.layout.strip().splitlines())
        return EvaluationError(
            f"{root} is not laid out as {self.title}: found {found or listing(root)}; expected {expected}."
        )


def listing(folder: Path) -> str:
    """The first names in a folder, for messages."""
    if not folder.exists():
        return "nothing of that name"
    if not folder.is_dir():
        return "a file"
    try:
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    except OSError as error:
        return f"a folder that cannot be read ({(error.strerror or str(error)).lower()})"
    return few(names) if names else "an empty folder"


def few(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def pictures(folder: Path, suffixes: tuple[str, ...] = (".png",)) -> dict[str, Path]:
    """The pictures right in a folder by stem, sorted.

    Raises EvaluationError if the folder cannot be read, holds pictures of another suffix (re-encoded, it is
    another benchmark), or two files of one stem.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.name[0] != "." and not entry.is_dir())
    except OSError as error:
        raise EvaluationError(f"Cannot read the folder {folder}: {error.strerror or error}.") from error
    found: dict[str, Path] = {}
    for path in entries:
        suffix = path.suffix.lower()
        if suffix not in suffixes:
            if suffix in PHOTO_SUFFIXES:
                raise EvaluationError(
                    f"{path} has the suffix {path.suffix}; expected {' or '.join(suffixes)}, as downloaded."
                )
            continue
        if path.stem in found:
            raise EvaluationError(f"{folder} has two pictures called {path.stem}: expected one.")
        found[path.stem] = path
    return found


def folders(folder: Path) -> list[Path]:
    """The visible folders right in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")


def partners(
    blurred: Path, sharp: Path, suffixes: tuple[str, ...] = (".png",)
) -> list[tuple[str, Path, Path]]:
    """Stem, blurred and true file of two folders; EvaluationError if they do not hold the same names."""
    inputs, truths = pictures(blurred, suffixes), pictures(sharp, suffixes)
    for here, there, lonely in (
        (blurred, sharp, sorted(inputs.keys() - truths.keys())),
        (sharp, blurred, sorted(truths.keys() - inputs.keys())),
    ):
        if lonely:
            raise EvaluationError(
                f"{there} lacks {len(lonely)} of the pictures that {here} has: {few(lonely)}; "
                "download it again."
            )
    return [(stem, inputs[stem], truths[stem]) for stem in inputs]


def present(root: str | Path) -> Path:
    """The folder itself; EvaluationError where there is none."""
    root = Path(root)
    if root.is_file():
        raise EvaluationError(f"{root} is a file; expected the folder of the unpacked download.")
    if not root.is_dir():
        raise EvaluationError(f"There is no folder {root}; expected the unpacked download of the benchmark.")
    return root


def not_swapped(cases: Sequence[Case]) -> list[Case]:
    """The cases, after a look at a few: EvaluationError if each blurred picture is the sharper one."""
    step = max(1, len(cases) // _LOOKS)
    chosen = [case for case in cases[step // 2 :: step][:_LOOKS] if case.truth]
    sharper = []
    for case in chosen:
        try:
            blurred, truth = read_picture(case.blurred), read_picture(case.truth[0])
        except EvaluationError:  # scoring names it, and goes on with the others
            continue
        sharper.append(_steepness(blurred) > _steepness(truth))
    if sharper and all(sharper):
        raise EvaluationError(
            f"{chosen[0].blurred} is sharper than {chosen[0].truth[0]}, and so it is in all {len(sharper)} "
            "pairs that were looked at: the folders of blurred and sharp pictures seem to be swapped."
        )
    return list(cases)


def read_picture(path: Path) -> Tensor:
    """(3,H,W) float32 in [0,1] as in the file; EvaluationError with the file's name if it cannot be read."""
    try:
        return read_photo(path).tensor()
    except UnreadablePhoto as error:
        raise EvaluationError(f"{str(error).rstrip('.')}; download it again.") from error


def same_size(case: Case, restored: Tensor, truth: Tensor, path: Path | None = None) -> None:
    """Raise EvaluationError unless both pictures of a case have one size."""
    if restored.shape[-2:] != truth.shape[-2:]:
        sizes = [f"{x.shape[-1]}×{x.shape[-2]}" for x in (restored, truth)]
        raise EvaluationError(
            f"{case.name}: the picture to score is {sizes[0]}, but the truth {path or case.truth[0]} is "
            f"{sizes[1]}; expected one size."
        )


def _steepness(picture: Tensor) -> float:
    """Mean squared difference of neighbours: less in a blurred picture than in the same one sharp."""
    grey = picture.mean(0)
    return float(torch.diff(grey, dim=0).square().mean() + torch.diff(grey, dim=1).square().mean())

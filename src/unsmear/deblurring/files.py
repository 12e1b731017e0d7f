"""Deblur files and folders: every photo once, a bad one named and the rest done.

A finished file is one that is there: files appear under their name only when they are complete, so a second
run goes on where the first one stopped, even after a kill.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn
from tqdm import tqdm

from unsmear.deblurring.pictures import DEFAULT_MODEL, By, Restorer, make_restorer
from unsmear.deblurring.sharpness import gradient_energy
from unsmear.errors import PhotoError, UnsmearError, UnwritablePhoto
from unsmear.models.checkpoints import find_checkpoint
from unsmear.models.restoring import Precision
from unsmear.models.tiling import STATISTICS, Statistics
from unsmear.photo import (
    PHOTO_SUFFIXES,
    Photo,
    check_target,
    copy_photo,
    find_photos,
    read_photo,
    write_photo,
)
from unsmear.writable import make_writable

BESIDE = "-before-after"
"""Added to a photo's name for the picture that shows it before and after, side by side, as JPEG."""

_GAP = 8  # white columns between before and after
_BAR = "{desc} {percentage:3.0f}% |{bar}| [{elapsed}<{remaining}]"


class Job(NamedTuple):
    """One photo: where it is, where its restored version goes, and where the side-by-side picture."""

    source: Path
    target: Path
    beside: Path


@dataclass(frozen=True)
class Restored:
    """A photo that was restored, or that there was nothing to restore in.

    Attributes:
        job: its files.
        megapixels: its size.
        seconds: from reading to written.
        gradient_energy_ratio: after over before, see `gradient_energy`; NaN for a photo without any gradient.
        said: what was found in the photo, in a few words; "" where nothing was looked for.
        untouched: whether every pixel is what it was.
    """

    job: Job
    megapixels: float
    seconds: float
    gradient_energy_ratio: float
    said: str = ""
    untouched: bool = False

    def __str__(self) -> str:
        """One line."""
        ratio = "–" if math.isnan(self.gradient_energy_ratio) else f"{self.gradient_energy_ratio:.2f}"
        return (
            f"{self.job.source} → {self.job.target}: gradient energy × {ratio}, "
            f"{self.megapixels:.2f} megapixels in {self.seconds:.1f} s{f'; {self.said}' if self.said else ''}"
        )


@dataclass
class Summary:
    """What a run did: photos gone through, photos found finished, (path, message) of those that failed."""

    restored: list[Restored] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)

    def __str__(self) -> str:
        """Give the numbers, and a line for every failure."""
        untouched = sum(done.untouched for done in self.restored)
        parts = [f"{len(self.restored) - untouched} restored"]
        if untouched:
            parts.append(f"{untouched} left as {'it is' if untouched == 1 else 'they are'}")
        if len(self.skipped) == 1:
            parts.append(f"1 there already: {self.skipped[0].target} (--overwrite makes it again)")
        elif self.skipped:
            parts.append(f"{len(self.skipped)} there already (--overwrite makes them again)")
        if self.failures:
            parts.append(f"{len(self.failures)} failed:")
        return ", ".join(parts) + "".join(f"\n  {message}" for _, message in self.failures)


def deblur_files(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    model: str | Path | nn.Module = DEFAULT_MODEL,
    device: str = "auto",
    precision: Precision = "auto",
    statistics: Statistics = STATISTICS,
    tile: int | None = None,
    by: By = "auto",
    fast: bool = False,
    format: str | None = None,
    quality: int = 95,
    overwrite: bool = False,
    side_by_side: bool = False,
    progress: bool = False,
) -> Summary:
    """Deblur photographs from disk to disk.

    Args:
        inputs: files and folders in any mixture. Sub-folders of a folder are mirrored below `output`.
        output: a folder, which is made if it is missing; for a single file also the name of the new file.
        model, device, precision, statistics, tile, by, fast: as for `deblur`; the network is loaded once.
        format: suffix of the new files ("png"); as the input's if not given.
        quality: of formats that lose something, 1 to 100. A photo in which there is nothing to restore is
            copied byte for byte where its format stays.
        overwrite: make photos again that are there already.
        side_by_side: also write NAME-before-after.jpg next to each new file (NAME.SUFFIX-before-after.jpg
            where two new files differ in the suffix only); one that is there is kept unless `overwrite`.
        progress: show a bar and a line for every photo on the terminal.

    Returns:
        what was done. A photo that cannot be read, restored or written is in `failures`.

    Raises:
        PhotoError: no photo at all; a new file would replace an input; two inputs would become one file; the
            output cannot be written.
        ModelError: no such network or device.
    """
    summary = Summary()
    jobs = plan_jobs(inputs, output, format=format)
    if side_by_side:
        _check_targets(jobs, [job.beside for job in jobs])
    if overwrite or not all(job.target.exists() for job in jobs):
        restorer = make_restorer(
            model, device=device, precision=precision, statistics=statistics, tile=tile, by=by, fast=fast
        )
        make_writable(output if jobs[0].target != Path(output) else jobs[0].target.parent, UnwritablePhoto)
    elif not isinstance(model, nn.Module):
        find_checkpoint(model)  # a mistyped name is told although nothing is left to be done
    with _Bar(jobs, shown=progress) as bar:
        for job in jobs:
            bar.begin(job)
            try:
                if overwrite or not job.target.exists():
                    done = _restore_file(job, restorer, quality, overwrite, side_by_side, bar.advance)
                    summary.restored.append(done)
                    bar.say(str(done))
                else:
                    summary.skipped.append(job)
                    if side_by_side and not job.beside.exists():
                        write_side_by_side(read_photo(job.source), read_photo(job.target), job.beside)
            except (UnsmearError, OSError, MemoryError, RuntimeError) as error:
                message = str(error) if str(job.source) in str(error) else f"{job.source}: {error}"
                summary.failures.append((job.source, message))
                bar.say(f"failed: {message}")
            except KeyboardInterrupt:
                again = " without --overwrite" if overwrite else ""
                bar.say(f"stopped at {job.source}; the same command{again} goes on. So far: {summary}")
                raise
            bar.end()
    return summary


def plan_jobs(inputs: Sequence[str | Path], output: str | Path, *, format: str | None = None) -> list[Job]:
    """List what is to be done; see `deblur_files` for the arguments and the errors.

    A path that is missing becomes a job too: it fails by itself, and the rest is done. Photos that lie in
    `output` are no inputs, if that is a folder inside of an input folder.
    """
    output = Path(output)
    suffix = None if format is None else "." + format.lower().removeprefix(".")
    if suffix not in (None, *PHOTO_SUFFIXES):
        raise PhotoError(f"the format {format!r} is unknown; expected one of {_names(PHOTO_SUFFIXES)}")
    paths = list({Path(path).absolute(): Path(path) for path in inputs}.values())
    names_a_file = output.suffix.lower() in PHOTO_SUFFIXES and not output.is_dir()
    if (names_a_file or output.is_file()) and (len(paths) != 1 or paths[0].is_dir()):
        raise UnwritablePhoto(
            f"the output {output} is a file, and there may be several photos: name a folder"
        )
    alone = len(paths) == 1 and not paths[0].is_dir()
    if alone and output.suffix and not names_a_file and not output.is_dir():
        raise UnwritablePhoto(
            f"the output {output} has the suffix of no format that can be written; expected one of "
            f"{_names(PHOTO_SUFFIXES)}, or a folder (make it first if its name is to hold a dot)"
        )
    if names_a_file:
        if suffix is not None and output.suffix.lower() != suffix:
            raise UnwritablePhoto(f"the output {output} contradicts the format {format!r}")
        targets = [(paths[0], output)]
    else:
        targets = [
            (source, output / (name if suffix is None else name.with_suffix(suffix)))
            for path in paths
            for source, name in _found(path, output)
        ]
    # A photo given by itself and with its folder is taken once.
    targets = list({(source.absolute(), target): (source, target) for source, target in targets}.values())
    stems = Counter(target.with_suffix("") for _, target in targets)
    jobs = [
        Job(
            source,
            target,
            target.with_name(
                f"{target.stem if stems[target.with_suffix('')] == 1 else target.name}{BESIDE}.jpg"
            ),
        )
        for source, target in targets
    ]
    if not jobs:
        raise PhotoError(f"no photos in {', '.join(map(str, paths))}; looked for {_names(PHOTO_SUFFIXES)}")
    _check_targets(jobs, [job.target for job in jobs])
    return jobs


def write_side_by_side(before: Photo, after: Photo, path: Path) -> None:
    """Write both photos into one picture, before on the left, without alpha; replace one that is there."""
    colours = 1 if before.is_grey else 3
    gap = np.full((before.height, _GAP, colours), np.iinfo(before.pixels.dtype).max, before.pixels.dtype)
    halves = [photo.pixels[..., :colours] for photo in (before, after)]
    write_photo(replace(before, pixels=np.concatenate([halves[0], gap, halves[1]], 1)), path, overwrite=True)


def _found(path: Path, output: Path) -> list[tuple[Path, Path]]:
    """List (photo, its name below the output)."""
    if not path.is_dir():
        return [(path, Path(path.name))]
    inner = output.resolve()
    hidden = inner != path.resolve() and inner.is_relative_to(path.resolve())
    return [
        (photo, photo.relative_to(path))
        for photo in find_photos(path)
        if not (hidden and photo.resolve().is_relative_to(inner))
    ]


def _check_targets(jobs: Sequence[Job], targets: Sequence[Path]) -> None:
    """Refuse targets that are inputs, and targets of two jobs."""
    sources = {job.source.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    if targets != [job.target for job in jobs]:
        taken |= {job.target.resolve(): job.source for job in jobs}
    for job, target in zip(jobs, targets, strict=True):
        real = target.resolve()
        if real in sources:
            raise UnwritablePhoto(
                f"{target} would be written over, but it is an input: choose another output"
            )
        if real in taken:
            raise UnwritablePhoto(
                f"{taken[real]} and {job.source} would both be written to {target}: "
                "deblur them into different folders"
            )
        taken[real] = job.source


def _restore_file(
    job: Job,
    restorer: Restorer,
    quality: int,
    overwrite: bool,
    side_by_side: bool,
    progress: Callable[[float, float], None],
) -> Restored:
    start = time.perf_counter()
    before = read_photo(job.source)
    megapixels = before.height * before.width / 1e6
    after = before.blank_like()
    make_writable(job.target.parent, UnwritablePhoto)
    format = check_target(after, job.target, overwrite=overwrite)
    restorer.restore(before, after, progress=lambda part: progress(part, part * megapixels))
    said = [getattr(restorer, "said", "")]
    if side_by_side:  # first: a target that is there means that all is done
        if overwrite or not job.beside.exists():
            write_side_by_side(before, after, job.beside)
        else:
            said.append(f"{job.beside} was there already and is kept (--overwrite makes it again)")
    untouched = np.array_equal(before.pixels, after.pixels)
    if untouched and format == before.format:
        copy_photo(job.source, job.target, overwrite=overwrite)
    else:
        write_photo(after, job.target, overwrite=overwrite, quality=quality)
    old, new = gradient_energy(before), gradient_energy(after)
    return Restored(
        job,
        megapixels,
        time.perf_counter() - start,
        new / old if old else float("nan"),
        "; ".join(filter(None, said)),
        untouched,
    )


def _names(suffixes: Iterable[str]) -> str:
    return ", ".join(sorted(suffix.removeprefix(".") for suffix in suffixes))


class _Bar:
    """A progress bar over all photos: the name of the present one, and megapixels a second."""

    def __init__(self, jobs: Sequence[Job], *, shown: bool) -> None:
        self._shown = shown
        self._bar = tqdm(total=len(jobs), bar_format=_BAR, disable=None if shown else True)
        self._ended = 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, job: Job) -> None:
        """Show the name of a photo."""
        self._began, self._megapixels = time.perf_counter(), 0.0
        self._name = job.source.name
        self._bar.set_description_str(self._name)

    def advance(self, part: float, megapixels: float) -> None:
        """Go on by a part of a photo, which is so many megapixels."""
        self._megapixels += megapixels
        rate = self._megapixels / max(time.perf_counter() - self._began, 1e-9)
        self._bar.set_description_str(f"{self._name}, {rate:.2f} MP/s", refresh=False)
        self._bar.update(part)

    def end(self) -> None:
        """Count a photo as dealt with, whatever became of it."""
        self._ended += 1
        self._bar.update(self._ended - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the bar, or where no terminal shows one, just print it."""
        if self._shown:
            self._bar.write(text)

"""Many photographs → a bank of kernels: streaming, resumable, on every core.

    FOLDER/….jpg  →  estimate_photograph  →  BANK.safetensors.journal  →  the most different kernels  →  BANK

Every photograph is read, reduced and estimated by a worker with one thread; what comes back, a few kernels
and a line of facts, goes at once into a journal beside the bank (SQLite, committed one by one). So memory
does not grow with their number until the choice, and a run that was killed goes on where it was. Photographs
are known by name, size and time of change; the journal stays, so that more of them can be added later.

At the end kernels are chosen farthest first: the most trusted one, then always the one that is least like
those chosen already, until all others are near-duplicates (normalised correlation after a slight blur) or
there are enough. The order in the bank is that order: the first n are n different ones.
"""

import json
import math
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from unsmear.basis.bank import KernelBank
from unsmear.basis.kernels import center_kernels, pad_kernels, trim_kernels
from unsmear.errors import KernelError, PhotoError, UnsmearError
from unsmear.estimation.photograph import PhotographFit, direction, estimate_photograph, shape_of
from unsmear.photo import PHOTO_SUFFIXES, find_photos, read_photo
from unsmear.photo.pixels import Photo
from unsmear.runtime import end_with_parent, one_thread

_VERSION = 1  # of what is in the journal; raised when the estimate changes
_SIDE = 256  # pixels of a region
_WAITING = 2  # photographs handed out for each worker


@dataclass(frozen=True)
class CollectSettings:
    """What decides the estimate of a photograph.

    Attributes:
        pixels: larger photographs are reduced to so many; kernels are in pixels of the reduced one.
        regions: of a photograph at most, 256 × 256 pixels each.
    """

    pixels: int = 1_000_000
    regions: int = 6

    def __post_init__(self) -> None:
        """Refuse sizes without sense."""
        if self.pixels < 128**2 or self.regions < 1:
            raise KernelError(
                f"photographs of {self.pixels} pixels and {self.regions} regions; "
                "expected at least 16384 and 1"
            )


@dataclass
class CollectReport:
    """What `collect_bank` did.

    Attributes:
        estimated: photographs estimated by this call.
        present: photographs that the journal knew.
        verdicts: photographs by verdict: "motion", "none", "unknown".
        failures: photographs that could not be read or estimated, and why.
        found: kernels trusted enough.
        chosen: kernels in the bank.
        duplicates: kernels left out because the bank has one like them.
        too_long: kernels that do not fit into the bank's size.
        statistics: lines about the kernels chosen.
        seconds: wall time of the estimates.
    """

    estimated: int = 0
    present: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    found: int = 0
    chosen: int = 0
    duplicates: int = 0
    too_long: int = 0
    statistics: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """Give the numbers, and a line for every failure."""
        total = self.estimated + self.present
        lines = [
            f"{total} photograph{'' if total == 1 else 's'}: motion blur in {self.verdicts['motion']}, "
            f"none in {self.verdicts['none']}, cannot tell in {self.verdicts['unknown']}"
            + (f"; {self.present} were in the journal" if self.present else "")
            + (f"; {self.seconds / self.estimated:.1f} s each" if self.estimated else ""),
            f"{self.found} kernels found, {self.chosen} kept, {self.duplicates} near-duplicates left out"
            + (f", {self.too_long} too long for the bank" if self.too_long else ""),
        ]
        if self.statistics:
            lines.append(self.statistics)
        if self.failures:
            lines.append(f"{len(self.failures)} failed:")
            lines += [f"  {message}" for _, message in self.failures]
        return "\n".join(lines)


def collect_bank(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    settings: CollectSettings | None = None,
    size: int = 65,
    most: int = 5000,
    least_confidence: float = 0.5,
    alike: float = 0.95,
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[KernelBank | None, CollectReport]:
    """Estimate the kernels of many photographs and save the most different ones as a bank.

    Args:
        inputs: photographs, and folders of them.
        output: the bank, .safetensors; its journal lies beside it as NAME.journal.
        settings: of the estimate.
        size: K of the bank, odd.
        most: kernels in the bank at most.
        least_confidence: kernels below are left out, 0 to 1.
        alike: normalised correlation from which two kernels are near-duplicates, 0 to 1.
        workers: processes, one thread each; one a core where None; 0 works in this process.
        overwrite: replace a bank that is there. The journal is used in any case.
        progress: show a bar.

    Returns:
        The bank (info of each kernel: kind "estimated", source, confidence, where in the photograph, length,
        angle and more), None where no photograph had a kernel to trust, and then no file is written; and the
        report. A photograph that cannot be read is in `failures` and does not stop the others.

    Raises:
        PhotoError: no photographs at all.
        KernelError: the bank exists, cannot be written, or options without sense.
    """
    settings = settings or CollectSettings()
    output = Path(output)
    if size < 3 or size % 2 == 0 or most < 1 or not 0 < alike <= 1 or not 0 <= least_confidence <= 1:
        raise KernelError(
            f"size {size}, most {most}, alike {alike}, least confidence {least_confidence}; "
            "expected an odd size, at least one kernel, and parts between 0 and 1"
        )
    if output.suffix != ".safetensors" or output.is_dir():
        raise KernelError(f"the bank {output} is no file name that ends in .safetensors")
    if output.exists() and not overwrite:
        raise KernelError(
            f"{output} is there already; name another file, or ask for --overwrite (overwrite=True)"
        )
    photos = _photographs(inputs)
    report = CollectReport()
    started = time.monotonic()
    with _Journal(output.with_name(output.name + ".journal"), settings) as journal:
        known = journal.known()
        missing = [name for name, path in photos.items() if known.get(name) != _stamp(path)]
        report.present = len(photos) - len(missing)
        bar = tqdm(
            total=len(photos), initial=report.present, unit="photo", disable=None if progress else True
        )
        with bar:
            for name, found in _estimates({name: photos[name] for name in missing}, settings, workers):
                bar.update()
                if isinstance(found, str):
                    report.failures.append((name, found))
                    continue
                journal.put(name, _stamp(photos[name]), found)
                report.estimated += 1
        report.seconds = time.monotonic() - started
        failed = {name for name, _ in report.failures}
        there = [name for name in photos if name not in failed]
        bank = _chosen(journal, there, size, most, least_confidence, alike, report)
    if bank is not None:
        bank.save(output)
    return bank, report


# Photographs


def _photographs(inputs: Sequence[str | Path]) -> dict[str, Path]:
    """Path by name: relative to the folder that was given, or as given where two would be the same."""
    found: dict[str, Path] = {}
    for entry in map(Path, inputs):
        inside = find_photos(entry) if entry.is_dir() else [entry]
        for path in inside:
            name = str(path.relative_to(entry)) if entry.is_dir() else path.name
            if name in found and found[name].absolute() != path.absolute():
                name = str(path)
            found[name] = path
    if not found:
        raise PhotoError(
            f"no photographs in {', '.join(map(str, inputs))}; looked for {', '.join(sorted(PHOTO_SUFFIXES))}"
        )
    return found


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return "missing"
    return f"{facts.st_size} {facts.st_mtime_ns}"


def read_reduced(path: str | Path, pixels: int) -> tuple[torch.Tensor, float, Photo]:
    """Read a photograph at no more than so many pixels.

    Returns:
        (3,H,W) float32 in [0, 1], sRGB; its size over that of the file, at most 1; the photo as it was read.

    Raises:
        UnreadablePhoto: see `read_photo`.
    """
    photo = read_photo(path)
    factor = min(1.0, math.sqrt(pixels / (photo.width * photo.height)))
    if factor > 0.999:
        return photo.tensor(), 1.0, photo
    colours = np.ascontiguousarray(photo.pixels[..., : 1 if photo.is_grey else 3])
    image = pyvips.Image.new_from_array(colours).resize(factor, kernel="lanczos3")
    small = Photo(pixels=np.ascontiguousarray(np.atleast_3d(image.numpy())))
    return small.tensor(), factor, photo


Found = tuple[
    dict[str, Any], list[tuple[dict[str, Any], NDArray[np.float32]]]
]  # of the photograph; its kernels


def _estimate(path: Path, settings: CollectSettings) -> Found | str:
    """Facts and kernels of a photograph, or what is wrong with it."""
    try:
        image, factor, photo = read_reduced(path, settings.pixels)
        fit = estimate_photograph(image, most_regions=settings.regions, side=_SIDE, restore=False)
    except (UnsmearError, OSError, MemoryError, RuntimeError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    facts = {"verdict": fit.verdict, "sentence": fit.sentence, "width": photo.width, "height": photo.height}
    return facts, list(_kernels(fit, factor))


def _kernels(fit: PhotographFit, factor: float) -> Iterator[tuple[dict[str, Any], NDArray[np.float32]]]:
    """Each basis kernel with the confidence of the region where it counts most, and where that is."""
    if not fit.motion:
        return
    for number, kernel in enumerate(fit.kernels):
        values = []
        for region in fit.regions:
            row, column = region.top + region.side // 2, region.left + region.side // 2
            share = 1.0 if fit.masks is None else float(fit.masks[number, row, column])
            values.append(region.confidence * share)
        best = fit.regions[int(np.argmax(values))]
        shape = shape_of(kernel)
        facts = {
            "confidence": round(max(values), 4),
            "place": [best.left, best.top, best.side, best.side],
            "scale": round(factor, 5),
            "length": round(shape.length, 2),
            "angle": round(shape.angle, 1),
            "spread": round(shape.spread, 3),
            "breadth": round(shape.breadth, 3),
            "thinness": round(shape.thinness, 3),
        }
        yield facts, trim_kernels(kernel.numpy()[None])[0]


def _estimates(
    photos: dict[str, Path], settings: CollectSettings, workers: int | None
) -> Iterator[tuple[str, Found | str]]:
    """Go through the photographs in this process or in others; only few are handed out at a time."""
    workers = min(len(photos), (os.cpu_count() or 1) if workers is None else workers)
    if workers < 1:
        with one_thread():  # as in a worker: the same numbers
            for name, path in photos.items():
                yield name, _estimate(path, settings)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    waiting: dict[Future[Found | str], str] = {}
    rest = iter(photos.items())
    try:
        while True:
            while len(waiting) < _WAITING * workers and (entry := next(rest, None)) is not None:
                waiting[pool.submit(_estimate, entry[1], settings)] = entry[0]
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise KernelError("a worker process died (out of memory?); go on with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread, and an end when the main process is killed."""
    torch.set_num_threads(1)
    end_with_parent()


# Journal


class _Journal:
    """One row a photograph; each is on disk before the next is asked for."""

    def __init__(self, path: Path, settings: CollectSettings) -> None:
        self.path = path
        self._settings = json.dumps(asdict(settings) | {"version": _VERSION}, sort_keys=True)
        try:
            self._base = sqlite3.connect(path)
            self._base.execute(
                "CREATE TABLE IF NOT EXISTS photographs (name TEXT, settings TEXT, stamp TEXT, facts TEXT, "
                "kernels BLOB, PRIMARY KEY (name, settings))"
            )
            self._base.commit()
        except sqlite3.Error as error:
            raise KernelError(
                f"cannot keep a journal in {path}: {error}; "
                "name another file for the bank, or delete the journal"
            ) from error

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def known(self) -> dict[str, str]:
        """Stamp of each photograph that was estimated with these settings."""
        rows = self._base.execute("SELECT name, stamp FROM photographs WHERE settings = ?", (self._settings,))
        return dict(rows.fetchall())

    def put(self, name: str, stamp: str, found: Found) -> None:
        facts, kernels = found
        text = json.dumps(
            facts | {"kernels": [facts for facts, _ in kernels], "sizes": [len(k) for _, k in kernels]}
        )
        content = b"".join(np.ascontiguousarray(kernel, "<f4").tobytes() for _, kernel in kernels)
        try:
            with self._base:
                self._base.execute(
                    "INSERT OR REPLACE INTO photographs VALUES (?, ?, ?, ?, ?)",
                    (name, self._settings, stamp, text, content),
                )
        except sqlite3.Error as error:
            raise KernelError(
                f"cannot write the journal {self.path}: {error}; the same call goes on"
            ) from error

    def get(self, name: str) -> Found:
        """Facts and kernels of a photograph."""
        row = self._base.execute(
            "SELECT facts, kernels FROM photographs WHERE name = ? AND settings = ?", (name, self._settings)
        ).fetchone()
        facts = json.loads(row[0])
        values, kernels = np.frombuffer(row[1], "<f4"), []
        for about, side in zip(facts.pop("kernels"), facts.pop("sizes"), strict=True):
            kernels.append((about, values[: side * side].reshape(side, side).astype(np.float32)))
            values = values[side * side :]
        return facts, kernels


# Choice


def _chosen(
    journal: _Journal,
    names: Iterable[str],
    size: int,
    most: int,
    least_confidence: float,
    alike: float,
    report: CollectReport,
) -> KernelBank | None:
    kernels: list[NDArray[np.float32]] = []
    infos: list[dict[str, Any]] = []
    for name in names:
        facts, found = journal.get(name)
        report.verdicts[facts["verdict"]] += 1
        for about, kernel in found:
            if about["confidence"] < least_confidence:
                continue
            report.found += 1
            if len(kernel) > size:
                report.too_long += 1
                continue
            kernels.append(pad_kernels(kernel, size))
            infos.append({"kind": "estimated", "source": name} | about)
    if not kernels:
        return None
    stack = center_kernels(np.stack(kernels))
    order, duplicates = farthest_first(stack, np.array([info["confidence"] for info in infos]), most, alike)
    report.chosen, report.duplicates = len(order), duplicates
    bank = KernelBank(stack[order], tuple(infos[number] for number in order))
    report.statistics = describe(bank)
    return bank


def farthest_first(
    kernels: NDArray[np.float32], trust: NDArray[np.float64], most: int, alike: float
) -> tuple[list[int], int]:
    """Choose kernels that differ: the most trusted, then always the one that is least like those chosen.

    Args:
        kernels: (M,K,K), centred by mass.
        trust: (M,).
        most: how many at most.
        alike: stop when each kernel left has at least this normalised correlation with a chosen one.

    Returns:
        Numbers of the chosen ones in their order; how many of the others are that much like a chosen one.
    """
    tap = torch.tensor([0.25, 0.5, 0.25])
    planes = torch.from_numpy(np.ascontiguousarray(kernels))[:, None]
    rows = F.conv2d(planes, (tap[:, None] * tap)[None, None], padding=2).flatten(1).numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = [int(trust.argmax())]
    likeness = rows @ rows[order[0]]
    while len(order) < min(most, len(rows)):
        following = int(likeness.argmin())
        if likeness[following] >= alike:
            break
        order.append(following)
        likeness = np.maximum(likeness, rows @ rows[following])
    left = np.ones(len(rows), bool)
    left[order] = False
    return order, int((likeness[left] >= alike).sum())


def describe(bank: KernelBank) -> str:
    """Length, direction and breadth of a bank's kernels in a few lines."""
    shapes = [shape_of(torch.from_numpy(kernel)) for kernel in bank.kernels]
    quantiles = [np.quantile([shape.length for shape in shapes], part) for part in (0, 0.25, 0.5, 0.75, 1)]
    ways = Counter(direction(shape.angle) for shape in shapes)
    bent = sum(shape.breadth > 0.35 * shape.spread for shape in shapes)
    sources = len({info.get("source") for info in bank.info})
    return (
        f"length {quantiles[0]:.0f} to {quantiles[4]:.0f} pixels, half of them {quantiles[1]:.0f} to "
        f"{quantiles[3]:.0f}, median {quantiles[2]:.0f}; {bent} bent, {len(shapes) - bent} nearly straight; "
        + ", ".join(f"{count} {way}" for way, count in ways.most_common())
        + f"; from {sources} photographs"
    )

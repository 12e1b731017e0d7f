"""Pairs on disk: a folder that any tool can read, made by any number of processes, resumable after a kill.

    FOLDER/manifest.json                    what was asked for: settings, seed, photographs
    FOLDER/sharp/000/00000017.png           u, 8-bit RGB
    FOLDER/blurred/000/00000017.png         v, 8-bit RGB
    FOLDER/masks/000/00000017.png           {m}, 8-bit grey, B images of S×S below one another, units of 1/255
    FOLDER/kernels/000/00000017.safetensors {k}, float32 (B, K, K); the pair's facts as JSON in the header
    FOLDER/pairs.jsonl                      one line of facts a pair, written when all are there
    FOLDER/estimates/000/00000017.safetensors  what Eq. 3 makes of v alone (estimates.py), where asked for

Sub-folders hold 1000 pairs. The masks of a pair are multiples of 1/255 from the start (see `draw_scene`), so
8 bit store them without loss and PNG makes about 25 KB of them; 25 float masks would be 6.6 MB a pair. They
are stored and not made again from (seed, index), so that the folder needs neither the photographs nor this
version of the program.
"""

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyvips
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm import tqdm

from unsmear import __version__
from unsmear.errors import PairsError
from unsmear.pairs.sampling import Pair, PairSampler
from unsmear.pairs.workers import checked_workers, in_chunks

_FORMAT = "unsmear pairs 1"
_PARTS = {"sharp": ".png", "blurred": ".png", "masks": ".png", "kernels": ".safetensors"}
ESTIMATES = "estimates"  # beside them, for the first pairs, where asked for (estimates.py)
_LAST = "kernels"  # written after the others: where it is, the pair is complete
_CHUNK = 32  # pairs a worker makes between two reports
_AGAIN = "delete the pair's file in kernels/ and run `unsmear pairs` again, which makes the pair anew"
_PNG = {"compression": 3, "filter": "sub"}  # 5 ms and 110 KB an image; level 6 takes longer and saves 1 %


@dataclass
class WriteReport:
    """What `write_pairs` did.

    Attributes:
        written: pairs made by this call.
        present: pairs that were there already.
        skipped: photographs left out and why, by path.
        seconds: wall time.
    """

    written: int
    present: int
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Say it in a line, and one more for each photograph left out (the first ten)."""
        rate = f", {self.written / self.seconds:.1f} a second" if self.written and self.seconds else ""
        lines = [f"{self.written} pairs written, {self.present} were there{rate}."]
        lines += [f"left out: {path}: {why}" for path, why in list(self.skipped.items())[:10]]
        if len(self.skipped) > 10:
            lines.append(f"left out: {len(self.skipped) - 10} more photographs")
        return "\n".join(lines)


def write_pairs(
    sampler: PairSampler,
    count: int,
    folder: str | PathLike[str],
    *,
    workers: int | None = None,
    progress: bool = False,
) -> WriteReport:
    """Write pairs 0 to count − 1 of a sampler to a folder.

    The bytes of each file depend on the photographs, settings, seed and index alone, not on `workers`. Files
    appear under their names only when complete; a run that was killed is finished by the same call, and a
    larger `count` adds pairs. (A power failure can lose files that the operating system had not yet written.)
    With several workers a script that calls this needs the usual `if __name__ == "__main__":`.

    Args:
        sampler: what to write.
        count: number of pairs.
        folder: made if missing; one that holds other things, or pairs of other settings, is refused.
        workers: processes; one for each core where None; 1 works in this process.
        progress: show a bar.

    Raises:
        PairsError: the folder holds something else, the disk is full, no photograph can be read, or a
            worker died.
    """
    started = time.monotonic()
    target = Path(folder)
    if count < 1:
        raise PairsError(f"asked for {count} pairs; expected at least 1")
    workers = checked_workers(workers)
    try:
        whole = _open_folder(sampler, count, target)
        missing = [index for index in range(whole) if not pair_path(target, _LAST, index).exists()]
        # Neighbours in a chunk share photographs, which are then decoded once.
        missing.sort(key=lambda index: (sampler.photo_of(index), index))
        chunks = [missing[first : first + _CHUNK] for first in range(0, len(missing), _CHUNK)]
        skipped = dict(sampler.skipped)
        with tqdm(
            total=whole, initial=whole - len(missing), unit="pair", disable=None if progress else True
        ) as bar:
            for done, left_out in in_chunks(partial(_write_chunk, sampler, target), chunks, workers=workers):
                skipped |= left_out
                sampler.skipped |= left_out  # it was another process that found them
                bar.update(done)
        _write_lines(target, whole)
        remove_partial(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PairsError(f"cannot write pairs to {target}: {reason}; call again to go on") from error
    return WriteReport(len(missing), whole - len(missing), skipped, time.monotonic() - started)


class WrittenPairs:
    """The pairs that `write_pairs` wrote to a folder: `WrittenPairs(folder)[i]` equals `sampler[i]`."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        """Read the manifest.

        Raises:
            PairsError: no folder of pairs, or an unfinished one.
        """
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise PairsError(f"{self.folder} has no manifest.json; expected a folder made by `unsmear pairs`")
        self.manifest = manifest
        self.size = int(self.manifest["size"])
        self.estimates = int(self.manifest.get(ESTIMATES, 0))
        self._count = int(self.manifest["count"])
        if not (self.folder / "pairs.jsonl").exists():
            raise PairsError(f"{self.folder} is unfinished (no pairs.jsonl); finish it with `unsmear pairs`")

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self._count

    def __iter__(self) -> Iterator[Pair]:
        """Go through all pairs."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Pair:
        """Read pair `index`, 0 ≤ index < len.

        Raises:
            PairsError: a file of it is missing or damaged; the message names it.
        """
        kernels, facts = read_kernels(self._path("kernels", index))
        size, bases = self.size, len(kernels)
        sharp, blurred = self.images(index)
        masks = _read_png(self._path("masks", index), (bases * size, size, 1))
        return Pair(
            sharp=sharp,
            blurred=blurred,
            kernels=torch.from_numpy(kernels),
            masks=torch.from_numpy(masks.reshape(bases, size, size)).float() / 255,
            facts=facts,
        )

    def images(self, index: int) -> tuple[Tensor, Tensor]:
        """Read u and v of pair `index` alone, (3, S, S) float32 in [0, 1]; raises as for the whole pair."""
        shape = (self.size, self.size, 3)
        sharp, blurred = (_read_png(self._path(part, index), shape) for part in ("sharp", "blurred"))
        return _image(sharp), _image(blurred)

    def estimate(self, index: int) -> Tensor | None:
        """Read the kernel that was estimated from the blurred picture of pair `index` alone.

        Returns:
            (K, K) float32 on the simplex, centred by mass; one pixel where nothing could be estimated; None
            for pairs from `estimates` on.

        Raises:
            PairsError: its file is missing or damaged; the message names it.
        """
        path = self._path(ESTIMATES, index)
        return torch.from_numpy(read_kernels(path)[0][0]) if index < self.estimates else None

    def _path(self, part: str, index: int) -> Path:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} does not exist; {self.folder} holds 0 to {len(self) - 1}")
        return pair_path(self.folder, part, index)


# The folder


def pair_path(folder: Path, part: str, index: int) -> Path:
    """Where a part of a pair lies, such as FOLDER/kernels/000/00000017.safetensors."""
    return folder / part / f"{index // 1000:03d}" / f"{index:08d}{_PARTS.get(part, '.safetensors')}"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, None where there is none.

    Raises:
        PairsError: it is broken or another program's.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise PairsError(f"{folder / 'manifest.json'} is broken: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise PairsError(f"{folder / 'manifest.json'} is no manifest of pairs; expected “{_FORMAT}”")
    return manifest


def _open_folder(sampler: PairSampler, count: int, folder: Path) -> int:
    """Make the folder and its manifest or compare with the one there; return how many pairs it shall hold."""
    wanted: dict[str, Any] = {
        "format": _FORMAT,
        "unsmear": __version__,
        "seed": sampler.seed,
        "size": sampler.size,
        "settings": sampler.settings.model_dump(mode="json"),
        "bank": None if sampler.bank is None else hashlib.sha256(sampler.bank.to_bytes()).hexdigest(),
        "photos": [
            {"name": name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path, name in zip(sampler.photos, sampler.names, strict=True)
        ],
    }
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in what is read back
    found = read_manifest(folder)
    if found is None:
        if folder.is_dir() and any(item.name != ".partial" for item in folder.iterdir()):
            raise PairsError(f"{folder} holds other things but no pairs; give a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    else:
        other = [key for key, value in wanted.items() if found.get(key) != value]
        if other:
            raise PairsError(
                f"{folder} holds pairs made with other {', '.join(other)}; "
                "give another folder or the same options"
            )
        count = max(count, int(found["count"]))
    for part in _PARTS:
        for thousand in range(-(-count // 1000)):
            (folder / part / f"{thousand:03d}").mkdir(parents=True, exist_ok=True)
    make_partial(folder)
    if found is None or count > int(found["count"]):
        (folder / "pairs.jsonl").unlink(missing_ok=True)
        kept = {key: value for key, value in (found or {}).items() if key == ESTIMATES}
        write_manifest(folder, wanted | {"count": count} | kept)
    return count


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write manifest.json."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    write_whole(folder, folder / "manifest.json", text.encode())


def make_partial(folder: Path) -> None:
    """Make the sub-folder of unfinished files, and clear it of what dead processes left there."""
    (folder / ".partial").mkdir(exist_ok=True)
    for leftover in (folder / ".partial").iterdir():
        if not psutil.pid_exists(int(leftover.name.partition("-")[0])):
            leftover.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove the sub-folder of unfinished files."""
    shutil.rmtree(folder / ".partial", ignore_errors=True)


def write_whole(folder: Path, path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete."""
    part = folder / ".partial" / f"{os.getpid()}-{threading.get_ident()}"
    part.write_bytes(content)
    part.replace(path)


def _write_lines(folder: Path, count: int) -> None:
    """Write pairs.jsonl from the facts in the kernels' files, in the order of the index."""
    lines = []
    for index in range(count):
        _, facts = read_kernels(pair_path(folder, "kernels", index), only_facts=True)
        lines.append(json.dumps(facts, ensure_ascii=False))
    write_whole(folder, folder / "pairs.jsonl", ("\n".join(lines) + "\n").encode())


# Writing one pair, and many


def _write_pair(folder: Path, index: int, pair: Pair) -> None:
    bases, size = pair.masks.shape[0], pair.masks.shape[-1]
    levels = {
        "sharp": _levels(pair.sharp.permute(1, 2, 0)),
        "blurred": _levels(pair.blurred.permute(1, 2, 0)),
        "masks": _levels(pair.masks).reshape(bases * size, size, 1),  # B images below one another
    }
    for part, pixels in levels.items():
        image = pyvips.Image.new_from_array(np.ascontiguousarray(pixels))
        write_whole(folder, pair_path(folder, part, index), image.pngsave_buffer(**_PNG))
    write_kernels(folder, pair_path(folder, _LAST, index), pair.kernels, pair.facts)


def write_kernels(folder: Path, path: Path, kernels: Tensor, facts: dict[str, Any]) -> None:
    """Write (B, K, K) float32 kernels with facts."""
    header = {"facts": json.dumps(facts, ensure_ascii=False)}
    write_whole(folder, path, save({"kernels": np.ascontiguousarray(kernels.numpy())}, metadata=header))


def _levels(tensor: Tensor) -> NDArray[np.uint8]:
    return np.asarray((tensor * 255).round().to(torch.uint8).numpy())


Progress = tuple[int, dict[str, str]]  # pairs made, photographs left out


def _write_chunk(sampler: PairSampler, folder: Path, indices: Iterable[int]) -> Progress:
    done = 0
    with warnings.catch_warnings():  # the report names what was left out
        warnings.filterwarnings("ignore", message="Cannot read ", category=UserWarning)
        for index in indices:
            _write_pair(folder, index, sampler[index])
            done += 1
    return done, dict(sampler.skipped)


# Reading one pair


def _image(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


def _read_png(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    try:
        pixels = pyvips.Image.pngload(str(path), fail_on="error").numpy()
    except pyvips.Error as error:
        why = "is damaged" if path.exists() else "is missing"
        raise PairsError(f"{path} {why}; {_AGAIN}") from error
    pixels = np.atleast_3d(pixels)
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise PairsError(f"{path} holds {pixels.dtype} of shape {pixels.shape}; expected uint8 of {shape}")
    return np.asarray(pixels)


def read_kernels(path: Path, *, only_facts: bool = False) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Read (B, K, K) kernels and their facts.

    Raises:
        PairsError: missing, damaged, or something else.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            kernels = np.zeros((0, 1, 1), np.float32) if only_facts else file.get_tensor("kernels")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        estimate = path.parents[1].name == ESTIMATES
        again = "delete it and run `unsmear pairs` with --estimates again" if estimate else _AGAIN
        raise PairsError(f"{path} is missing or damaged ({error}); {again}") from error
    if kernels.ndim != 3 or kernels.dtype != np.float32:
        raise PairsError(f"{path} holds kernels of shape {kernels.shape}; expected float32 (B, K, K)")
    return kernels, facts

"""Kernels as a photograph gives them: Eq. 3 on the blurred picture of written pairs, stored beside the pairs.

    FOLDER/estimates/000/00000017.safetensors  (1, K, K) float32; its facts in the header
    FOLDER/manifest.json                       "estimates": the first so many pairs have one

A network that restores with kernels (models/guided.py) must know the errors that estimates have. An estimate
takes seconds where a pair takes hundredths of one, so they are made once.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from unsmear.basis.kernels import identity
from unsmear.blurring import luma
from unsmear.errors import KernelError, PairsError
from unsmear.estimation.uniform import estimate_uniform
from unsmear.pairs.folders import (
    ESTIMATES,
    WrittenPairs,
    make_partial,
    pair_path,
    read_kernels,
    remove_partial,
    write_kernels,
    write_manifest,
)
from unsmear.pairs.workers import checked_workers, in_chunks


@dataclass(frozen=True)
class EstimateReport:
    """What `write_estimates` did.

    Attributes:
        written: estimates made by this call.
        present: estimates that were there already.
        without: pictures among all of them that gave no kernel; one pixel stands for it.
        seconds: wall time.
    """

    written: int
    present: int
    without: int
    seconds: float

    def __str__(self) -> str:
        """Say it in a line."""
        rate = f", {self.seconds / self.written:.1f} s each" if self.written else ""
        none = f"; {self.without} pictures give no kernel" if self.without else ""
        return f"{self.written} kernels estimated, {self.present} were there{rate}{none}."


def write_estimates(
    folder: str | PathLike[str], count: int, *, workers: int | None = None, progress: bool = False
) -> EstimateReport:
    """Estimate the kernel of the blurred pictures of pairs 0 to count − 1, and store them beside the pairs.

    The kernel is `estimate_uniform` of the luma of v alone; where that refuses (a picture of one colour) it
    is a single pixel, no blur, and the facts say why. A call that was killed is finished by the same call, a
    larger `count` adds estimates; the manifest counts them when all are there.

    Args:
        folder: of written pairs.
        count: number of estimates.
        workers: processes, of one thread each; one for each core where None; 1 works in this process.
        progress: show a bar.

    Raises:
        PairsError: no folder of pairs, fewer pairs than estimates, a damaged pair, the disk is full, or a
            worker died.
    """
    started = time.monotonic()
    workers = checked_workers(workers)
    pairs = WrittenPairs(folder)
    if not 1 <= count <= len(pairs):
        raise PairsError(
            f"asked for {count} estimates; {pairs.folder} holds {len(pairs)} pairs: 1 to as many"
        )
    count = max(count, pairs.estimates)
    paths = [pair_path(pairs.folder, ESTIMATES, index) for index in range(count)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    try:
        make_partial(pairs.folder)
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
        with tqdm(
            total=count, initial=count - len(missing), unit="kernel", disable=None if progress else True
        ) as bar:
            work = partial(_estimate, pairs.folder)
            for done in in_chunks(work, [[index] for index in missing], workers=workers):
                bar.update(done)
        without = sum("none" in read_kernels(path, only_facts=True)[1] for path in paths)
        if count > pairs.estimates:
            write_manifest(pairs.folder, pairs.manifest | {ESTIMATES: count})
        remove_partial(pairs.folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PairsError(f"cannot write into {pairs.folder}: {reason}; call again to go on") from error
    return EstimateReport(len(missing), count - len(missing), without, time.monotonic() - started)


def _estimate(folder: Path, indices: Sequence[int]) -> int:
    pairs = WrittenPairs(folder)
    for index in indices:
        _, blurred = pairs.images(index)
        kernel, facts = _kernel_of(blurred)
        write_kernels(folder, pair_path(folder, ESTIMATES, index), kernel[None], {"index": index, **facts})
    return len(indices)


def _kernel_of(blurred: Tensor) -> tuple[Tensor, dict[str, Any]]:
    try:
        fit = estimate_uniform(luma(blurred))
    except KernelError as error:
        return torch.from_numpy(identity()), {"none": str(error)}
    return fit.kernel, {"cost": fit.cost}

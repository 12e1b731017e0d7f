"""Work on many pairs, shared among processes: none outlives the one that started it."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import torch

from unsmear.errors import PairsError
from unsmear.runtime import end_with_parent, one_thread

Work = Callable[[Sequence[int]], Any]  # the indices of a chunk → a report


def checked_workers(workers: int | None) -> int:
    """Return how many processes: as asked for, or one for each core.

    Raises:
        PairsError: fewer than one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores if workers is None else workers
    if workers < 1:
        raise PairsError(f"asked for {workers} workers; expected at least 1")
    return workers


def in_chunks(work: Work, chunks: Sequence[Sequence[int]], *, workers: int) -> Iterator[Any]:
    """Do all chunks, in this process or in `workers` others, one thread in each; yield each report.

    Args:
        work: called with each chunk; picklable, since several workers are fresh processes.
        chunks: indices; reports come in the order in which chunks are done.
        workers: processes, not more than there are chunks.

    Raises:
        PairsError: a worker died.
    """
    workers = min(workers, len(chunks))
    if workers <= 1:
        with one_thread():  # as in a worker: the same bytes
            for chunk in chunks:
                yield work(chunk)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(work,)
    )
    try:
        for future in as_completed([pool.submit(_work, chunk) for chunk in chunks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise PairsError("a worker process died (out of memory?); go on with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


_mine: Work | None = None


def _start_worker(work: Work) -> None:
    """Keep the work of this worker process, and end it when the main process is killed."""
    global _mine
    torch.set_num_threads(1)
    _mine = work
    end_with_parent()


def _work(chunk: Sequence[int]) -> Any:
    if _mine is None:
        raise RuntimeError("worker process without work")
    return _mine(chunk)

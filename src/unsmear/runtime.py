"""The process that computes: memory kept from one large tensor to the next, threads, what there is to work
with, and processes that share its work."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Numbers of glibc's mallopt (malloc.h)."""


def prepare_process() -> bool:
    """Make glibc keep freed memory instead of handing it back to the system; True where that worked.

    By default every block above 32 MiB is mapped anew and cleared page by page by the kernel: a third and
    more of the time of a network with large feature maps (docs/PERFORMANCE.md). The price is that memory once
    used stays with the process until it ends, so this is for commands, not for a library inside another
    program.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * 2**20))
    return all([mallopt(name, value) == 1 for name, value in settings])


@contextmanager
def one_thread() -> Iterator[None]:
    """Have PyTorch compute by one thread, for thousands of small steps such as those of an estimate.

    Two make it a third quicker on an idle machine, but where other programs want the cores each step waits
    for both threads: beside four programs on two cores an estimate took 76 s for 8. And the numbers are then
    those of a worker (`start_workers`), however many cores there are.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def leave() -> NoReturn:
    """End the process with status 0 as soon as its output is written, without Python's own shutting down.

    For a process of several that have trained together. PyTorch's DistributedDataParallel keeps the threads
    of Gloo's group alive after the group is destroyed (2.13), and one that lets go of a tensor while Python
    shuts down ends the process by "terminate called without an active exception": rarely, on a busy machine.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


_workers: ProcessPoolExecutor | None = None


def start_workers(preload: str) -> None:
    """Have a process a core at hand that shares the work on one photo; see `shared_map`.

    They are forked from a server of their own that loads the module `preload` meanwhile, and compute with one
    thread each. For commands, not for a library inside another program. Without effect on one core, with
    OMP_NUM_THREADS=1, and on Windows, where a process takes seconds to start.
    """
    global _workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    count = min(cores, int(asked)) if asked.isdecimal() else cores
    if count < 2 or "forkserver" not in get_all_start_methods() or _workers is not None:
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([preload])
    forkserver.ensure_running()  # it loads while this process does
    _workers = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)


def shared_map(function: Callable[..., Result], *columns: Sequence[Any]) -> list[Result]:
    """Return [function(a, b, …) for a, b, … in columns], by the processes that `start_workers` has at hand.

    Here, one after the other, where there are none, where there is one row only, and where a process was
    killed, for memory most likely: then all of it is done again here, and so is what comes. Function,
    arguments and results must be picklable, arrays rather than tensors, which would be shared and not copied.
    """
    if _workers is not None and len(columns[0]) > 1:
        try:
            return list(_workers.map(function, *columns))
        except BrokenProcessPool:
            stop_workers()
    return list(map(function, *columns))


def stop_workers() -> None:
    """End them: what comes is done in this process."""
    global _workers
    workers, _workers = _workers, None
    if workers is not None:
        workers.shutdown(wait=False, cancel_futures=True)


def _begin_worker() -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    prepare_process()
    torch.set_num_threads(1)
    end_with_parent()


def end_with_parent() -> None:
    """End this worker process when the process that started it is gone, killed or not."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

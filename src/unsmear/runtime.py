"""The process that computes: memory kept from one large tensor to the next, threads, what there is to work
with."""

import ctypes
import os
import sys
import threading
from multiprocessing import parent_process

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


def end_with_parent() -> None:
    """End this worker process when the process that started it is gone, killed or not."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

"""How much memory is at hand, and how much a network needs for a pixel."""

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory(device: torch.device) -> int:
    """Return the bytes that a new tensor on `device` could take: free on a GPU; on a CPU without swapping,
    and without going over the limit of a container or a service (cgroup, version 1 or 2)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([int(psutil.virtual_memory().available), *_cgroup_rooms(_CGROUPS, Path("/proc/self/cgroup"))])


def _cgroup_rooms(root: Path, membership: Path) -> Iterable[int]:
    """Yield what each control group above this process still allows, in bytes."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            top, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / name.lstrip("/")
        for folder in [group, *group.parents]:
            if not folder.is_relative_to(top):
                break
            try:
                most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such file, or "max": no limit here
                continue
            # Pages of files that nobody used lately are given back as soon as somebody needs the room.
            yield most - used + int(statistics.get("inactive_file", 0))


def peak_bytes(network: nn.Module, image: Tensor) -> int:
    """Return the most bytes of tensors alive at one time while the network restores `image`."""
    live = _LiveBytes()
    with torch.inference_mode(), live:
        network(image)
    return live.most


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory behind every tensor that an operation makes, until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and PyTorch would load its compiler only to leave this out: 2 s."""
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

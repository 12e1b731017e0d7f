"""What unsmear finds on this machine: versions, devices, memory, weights, and whether a network runs.

Every line of `unsmear doctor` is one `Finding`; one that is not well says what to do.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import unsmear

GIB = 2**30  # bytes


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at, what was found, and whether unsmear can work with that."""

    topic: str
    text: str
    well: bool = True

    def __str__(self) -> str:
        """One line; a leading exclamation mark where something is wrong."""
        return f"{' ' if self.well else '!'} {self.topic:<12} {self.text}"


def examine() -> Iterator[Finding]:
    """Look at everything in turn. Nothing raises: what goes wrong is the finding."""
    for topic, look in _LOOKS.items():
        try:
            well, text = look()
        except Exception as error:  # a broken library can raise anything, and the doctor is there to say so
            well, text = False, f"{type(error).__name__}: {error}"
        yield Finding(topic=topic, text=text, well=well)


def _unsmear() -> tuple[bool, str]:
    return True, unsmear.__version__


def _python() -> tuple[bool, str]:
    return True, f"{platform.python_version()}, {platform.system()} {platform.machine()}"


def _torch() -> tuple[bool, str]:
    import torch

    return True, torch.__version__


def _libvips() -> tuple[bool, str]:
    import pyvips

    numbers = ".".join(str(pyvips.version(part)) for part in range(3))
    return True, f"{numbers} through pyvips {version('pyvips')}"


def _others() -> tuple[bool, str]:
    import numpy
    import safetensors

    return True, f"numpy {numpy.__version__}, safetensors {safetensors.__version__}"


def _processor() -> tuple[bool, str]:
    import torch

    from unsmear.models.restoring import native_precision

    bf16 = native_precision(torch.device("cpu")) == "bf16"
    hint = "multiplies bf16 in hardware" if bf16 else "no bf16 in hardware: works in fp32"
    return True, f"{torch.backends.cpu.get_cpu_capability()}, {hint}"


def _threads() -> tuple[bool, str]:
    import torch

    # Fewer than os.cpu_count() where a scheduler or a container gives this process only some.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return True, f"{torch.get_num_threads()} for {cores} core" + ("" if cores == 1 else "s")


def _memory() -> tuple[bool, str]:
    import psutil

    memory = psutil.virtual_memory()
    return True, f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} GiB available"


def _accelerator() -> tuple[bool, str]:
    import torch

    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return True, "none: the CPU does the work"
    if kind.type != "cuda":
        return True, str(kind)
    cards = [torch.cuda.get_device_properties(place) for place in range(torch.cuda.device_count())]
    return True, ", ".join(f"{card.name} ({card.total_memory / GIB:.1f} GiB)" for card in cards)


def _weights() -> tuple[bool, str]:
    from unsmear.models.checkpoints import shipped_checkpoints

    names = shipped_checkpoints()
    return bool(names), ", ".join(names) or "none in the package: name a checkpoint with --model"


def _extra(name: str, *modules: str) -> tuple[bool, str]:
    missing = [module for module in modules if find_spec(module) is None]
    return True, f"no: pip install 'unsmear[{name}]'" if missing else "yes"


def _try() -> tuple[bool, str]:
    """Restore 96×64 grey pixels with shipped weights, or with random ones where there are none."""
    import torch

    from unsmear.models import create
    from unsmear.models.checkpoints import load_checkpoint, shipped_checkpoints
    from unsmear.models.restoring import restore

    names = shipped_checkpoints()
    with torch.random.fork_rng(devices=[]):
        model = load_checkpoint(names[0]) if names else create("sglrn-t").eval()
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    picture = torch.full((3, 64, 96), 0.5)
    started = time.perf_counter()
    restored = restore(model.to(device), picture, precision="auto")
    seconds = time.perf_counter() - started
    what = f"{names[0] if names else 'sglrn-t, random weights'}: 96×64 pixels on {device}"
    if not restored.isfinite().all():
        return False, f"{what} came out as NaN; try --device cpu, or --precision fp32"
    return True, f"{what} in {seconds:.2f} s"


_LOOKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "unsmear": _unsmear,
    "python": _python,
    "torch": _torch,
    "libvips": _libvips,
    "others": _others,
    "processor": _processor,
    "threads": _threads,
    "memory": _memory,
    "accelerator": _accelerator,
    "weights": _weights,
    "extra heic": lambda: _extra("heic", "pillow_heif"),
    "extra train": lambda: _extra("train", "accelerate", "tensorboard"),
    "extra onnx": lambda: _extra("onnx", "onnx", "onnxscript", "onnxruntime"),
    "a try": _try,
}

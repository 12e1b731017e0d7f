"""Rate of unsmear.blur beside deepinv's SpaceVaryingBlur, and of both paths of unsmear against each other.

    python benchmarks/blurring.py [--threads 1] [--rounds 7] [--sweep]

Same picture, kernels and masks in one process, interleaved; a ratio is taken in each round and the median
of the ratios is printed, beside the median times. deepinv's order of masks is ``mask_first=True`` by default
(masks before the kernels, another operator); ``mask_first=False`` is the operator of Eq. 2 and its output is
compared with ours. deepinv need not be complete: what it imports and does not use here (torchvision among
others) is replaced by a stub.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import statistics
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unsmear.blurring import blur, blur_adjoint_image, blur_adjoint_kernels, blur_adjoint_masks

UNUSED_BY_THE_BLUR = ("torchvision", "requests", "natsort", "h5py", "matplotlib", "hdf5storage")


class _AnyName(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Stub(types.ModuleType):
    """A module that has every name, as an empty class."""

    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for modules that are not installed; asked last."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in UNUSED_BY_THE_BLUR:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def space_varying_blur(kernels: Tensor, masks: Tensor, *, use_fft: bool, mask_first: bool) -> Any:
    import sys

    sys.meta_path.append(_Stubs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from deepinv.physics.blur import SpaceVaryingBlur
    # deepinv convolves, Eq. 2 correlates: the kernels are flipped
    return SpaceVaryingBlur(
        filters=kernels.flip(-2, -1)[None, None],
        multipliers=masks[None, None],
        padding="reflect",
        use_fft=use_fft,
        mask_first=mask_first,
    )


def smooth_masks(bases: int, size: int, generator: torch.Generator) -> Tensor:
    """Dense masks (softmax of smooth fields): nothing in them can be left out."""
    field = 3 * torch.randn(1, bases, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(field, size=(size, size), mode="bicubic")[0].softmax(0)


def grid_masks(cells: int, size: int) -> Tensor:
    """cells² tent functions (bilinear interpolation between kernels on a grid): local masks."""
    place = torch.linspace(0, cells - 1, size)
    tents = (1 - (place - torch.arange(cells)[:, None]).abs()).clamp(min=0)  # (cells, size)
    return torch.einsum("ay,bx->abyx", tents, tents).reshape(cells * cells, size, size)


def walk_kernels(bases: int, size: int, generator: torch.Generator) -> Tensor:
    """Sparse kernels like a camera's path: a smooth random walk of 4·size points."""
    steps = torch.randn(bases, 4 * size, 2, generator=generator).cumsum(1).cumsum(1)
    path = steps - steps.mean(1, keepdim=True)
    path = path / path.abs().amax((1, 2), keepdim=True) * (size // 2)
    place = (path.round().long() + size // 2).clamp(0, size - 1)
    kernels = torch.zeros(bases, size * size)
    kernels.scatter_add_(1, place[..., 0] * size + place[..., 1], torch.ones(bases, 4 * size))
    return (kernels / kernels.sum(1, keepdim=True)).reshape(bases, size, size)


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn > 0:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    return times


def against_deepinv(rounds: int) -> None:
    if importlib.util.find_spec("deepinv") is None:
        print("deepinv is not installed (pip install --no-deps deepinv==0.5.0): comparison left out\n")
        return
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(3, 256, 256, generator=generator)
    kernels = walk_kernels(25, 33, generator)
    print("256×256 RGB, 25 kernels of 33×33, reflect, float32\n")
    print("| masks | operator | ms | unsmear faster by | largest difference |")
    print("|---|---|---:|---:|---:|")
    for name, masks in (
        ("dense", smooth_masks(25, 256, generator)),
        ("local, 5×5 tents", grid_masks(5, 256)),
    ):
        functions: dict[str, Callable[[], Any]] = {
            "unsmear.blur": lambda masks=masks: blur(u, kernels, masks)
        }
        for use_fft in (False, True):
            for mask_first in (True, False):
                physics = space_varying_blur(kernels, masks, use_fft=use_fft, mask_first=mask_first)
                label = f"deepinv use_fft={use_fft}, mask_first={mask_first}"
                functions[label] = lambda physics=physics: physics.A(u[None])[0]
        times = interleaved(functions, rounds)
        ours = times["unsmear.blur"]
        reference = functions["unsmear.blur"]()
        for label, function in functions.items():
            ratio = statistics.median(theirs / own for theirs, own in zip(times[label], ours, strict=True))
            difference = float((function() - reference).abs().max())
            milliseconds = 1e3 * statistics.median(times[label])
            print(f"| {name} | {label} | {milliseconds:.1f} | {ratio:.1f} | {difference:.1e} |")
    print()


def adjoints(rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    u, r = torch.rand(2, 3, 256, 256, generator=generator)
    kernels, masks = walk_kernels(25, 33, generator), smooth_masks(25, 256, generator)
    functions: dict[str, Callable[[], Any]] = {
        "blur": lambda: blur(u, kernels, masks),
        "blur_adjoint_image": lambda: blur_adjoint_image(r, kernels, masks),
        "blur_adjoint_kernels": lambda: blur_adjoint_kernels(r, u, masks, kernel_size=33),
        "blur_adjoint_masks": lambda: blur_adjoint_masks(r, u, kernels),
    }
    print("The same size, dense masks\n\n| function | ms |\n|---|---:|")
    for name, seconds in interleaved(functions, rounds).items():
        print(f"| {name} | {1e3 * statistics.median(seconds):.1f} |")
    print()


def sweep(rounds: int) -> None:
    """Both paths over sizes and numbers of kernels: where the cost model has to change over."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(3, 256, 256, generator=generator)
    print("256×256 RGB, dense kernels and masks: ms direct / FFT / auto\n")
    bases_list = (1, 4, 8, 25)
    print("| K | " + " | ".join(f"B = {bases}" for bases in bases_list) + " |")
    print("|---:|" + "---:|" * len(bases_list))
    for size in (3, 5, 7, 9, 11, 15, 21, 33, 65):
        cells = []
        for bases in bases_list:
            kernels = torch.rand(bases, size, size, generator=generator)
            kernels /= kernels.sum((-2, -1), keepdim=True)
            masks = smooth_masks(bases, 256, generator)
            methods = ("direct", "fft", "auto") if size <= 21 else ("fft", "auto")
            times = interleaved(
                {
                    method: lambda method=method, k=kernels, m=masks: blur(u, k, m, method=method)
                    for method in methods
                },
                rounds,
            )
            shown = [
                f"{1e3 * statistics.median(times[m]):.1f}" if m in times else "–"
                for m in ("direct", "fft", "auto")
            ]
            cells.append(" / ".join(shown))
        print(f"| {size} | " + " | ".join(cells) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sweep", action="store_true", help="also time both paths over kernel sizes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), {arguments.rounds} rounds\n")
    with torch.no_grad():
        against_deepinv(arguments.rounds)
        adjoints(arguments.rounds)
        if arguments.sweep:
            sweep(arguments.rounds)


if __name__ == "__main__":
    main()

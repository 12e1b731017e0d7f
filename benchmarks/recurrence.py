"""SVRNN's recurrences in four directions: the scan beside plain loops, and what the choices inside it cost.

    python benchmarks/recurrence.py [--rounds 5] [--threads 1] [--tasks forward inner training]

Each side computes h_t = (1 − g_t) x_t + g_t h_{t−1} to the right, to the left, down and up, for 32 channels:

scan       ours (models/recurrence.py), features and gates channels last
pixels     one pixel after the other, all channels and images at once
columns    one column (or row) after the other, all else at once; features as PyTorch has them by default
columns-l  the same loop, features and gates channels last

The loops take their slices by `unbind` and their results by `stack`, which autograd likes best. "forward" is
the features of a 1280×720 photograph (360×640), without gradients; "training" is forward and backward for a
batch of 4 of 256×256 (128×128). Sides take turns; the ratios are of processor time within a round, their
median and range over the rounds. "inner" is forward, to the right only: the scan in chunks, and
Hillis and Steele's, which needs log₂ T passes over all of it. All sides agree to the difference printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from unsmear.models.recurrence import ROW, four_directions, scan
from unsmear.runtime import prepare_process

CHANNELS = 32


def columns(x: Tensor, g: Tensor) -> Tensor:
    out = []
    for direction, gates in enumerate(g.chunk(4, 1)):
        axis, order = (3, 3, 2, 2)[direction], slice(None, None, (1, -1, 1, -1)[direction])
        h, hs = torch.zeros_like(x.select(axis, 0)), []
        for x_t, g_t in zip(x.unbind(axis)[order], gates.unbind(axis)[order], strict=True):
            h = (1 - g_t) * x_t + g_t * h
            hs.append(h)
        out.append(torch.stack(hs[order], axis))
    return torch.cat(out, 1)


def pixels(x: Tensor, g: Tensor) -> Tensor:
    height, width = x.shape[2:]
    xs = x.flatten(2).unbind(2)
    out = []
    for direction, gates in enumerate(g.chunk(4, 1)):
        gs = gates.flatten(2).unbind(2)
        hs: list[Tensor] = [xs[0]] * (height * width)
        step = (1, -1, 1, -1)[direction]
        lines, length = (height, width) if direction < 2 else (width, height)
        for line in range(lines):
            h = torch.zeros_like(xs[0])
            for t in range(length)[::step]:
                at = line * width + t if direction < 2 else t * width + line
                h = (1 - gs[at]) * xs[at] + gs[at] * h
                hs[at] = h
        out.append(torch.stack(hs, 2).unflatten(2, (height, width)))
    return torch.cat(out, 1)


def doubling(x: Tensor, g: Tensor) -> Tensor:
    """To the right, (N, H, W, C): passes over all, each with twice the reach of the one before."""
    a, b, step = g.clone(), (1 - g) * x, 1
    while step < x.shape[ROW]:
        kept, rest = x.shape[ROW] - step, step
        further = b.narrow(ROW, rest, kept) + a.narrow(ROW, rest, kept) * b.narrow(ROW, 0, kept)
        b = torch.cat([b.narrow(ROW, 0, rest), further], ROW)
        a = torch.cat(
            [torch.zeros_like(a.narrow(ROW, 0, rest)), a.narrow(ROW, rest, kept) * a.narrow(ROW, 0, kept)],
            ROW,
        )
        step *= 2
    return b


def made(n: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, CHANNELS, height, width, generator=generator)
    return x, torch.tanh(torch.randn(n, 4 * CHANNELS, height, width, generator=generator))


def last(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous(memory_format=torch.channels_last) for t in tensors)


def seconds(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def compare(task: str, sides: dict[str, Callable[[], Tensor]], rounds: int) -> None:
    outputs = {name: run() for name, run in sides.items()}  # warms up, too
    first = next(iter(outputs.values()))
    gap = max(float((output - first).abs().max()) for output in outputs.values())
    del outputs
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(seconds(run))
    base = next(iter(sides))
    print(f"\n{task} (largest difference {gap:.0e})\n\n| side | ms | times {base} |\n|---|---:|---:|")
    for name, taken in times.items():
        ratios = [one / other for one, other in zip(taken, times[base], strict=True)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})"
        print(f"| {name} | {1e3 * statistics.median(taken):.1f} | {spread} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["forward", "inner", "training"])
    options = parser.parse_args()
    prepare_process()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        if "forward" in options.tasks:
            forward(options.rounds)
        if "inner" in options.tasks:
            inner(options.rounds)
    if "training" in options.tasks:
        training(options.rounds)


def forward(rounds: int) -> None:
    x, g = made(1, 360, 640)
    xl, gl = last(x, g)
    sides = {
        "scan": lambda: four_directions(xl, gl),
        "columns-l": lambda: columns(xl, gl),
        "columns": lambda: columns(x, g),
        "pixels": lambda: pixels(xl, gl),
    }
    compare("forward, 1×32×360×640", sides, rounds)


def inner(rounds: int) -> None:
    x, g = (t[:, :CHANNELS].permute(0, 2, 3, 1).contiguous() for t in made(1, 360, 640))
    out = torch.empty_like(x)
    sides: dict[str, Callable[[], Tensor]] = {"scan": lambda: scan(x, g, out, ROW, blend=True)}
    for chunk in (8, 25, 80):
        sides[f"chunk {chunk}"] = lambda chunk=chunk: scan(x, g, out, ROW, blend=True, chunk=chunk)
    sides["doubling"] = lambda: doubling(x, g)
    compare("forward to the right only, 1×32×360×640", sides, rounds)


def training(rounds: int) -> None:
    tensors = made(4, 128, 128)
    plain = [t.requires_grad_() for t in tensors]
    lasts = [t.detach().requires_grad_() for t in last(*tensors)]
    (weight,) = last(torch.ones_like(tensors[1]))

    def step(run: Callable[[Tensor, Tensor], Tensor], inputs: list[Tensor]) -> Tensor:
        run(*inputs).backward(weight)
        gradient = inputs[1].grad
        inputs[0].grad = inputs[1].grad = None
        assert gradient is not None
        return gradient

    sides = {
        "scan": lambda: step(four_directions, lasts),
        "columns-l": lambda: step(columns, lasts),
        "columns": lambda: step(columns, plain),
        "pixels": lambda: step(pixels, lasts),
    }
    compare("training, 4×32×128×128", sides, rounds)


if __name__ == "__main__":
    main()

"""Uformer beside spandrel's with the same weights: equality, speed of inference and of a training step,
memory.

    python benchmarks/uformer.py [--size t] [--rounds 5] [--threads 2] [--tasks small large large-bf16 train]

Each side lives in a process of its own, as a user would start it: ours has called `prepare_process()` as
every command does; spandrel's is as it comes. "kept" is spandrel's with the same setting, to show what that
alone brings. The sides take turns; in each round the ratio is taken, and the median of the ratios is printed
with its range.

small       256×256, float32
large       1280×720, float32: ours pads to 1280×768, spandrel's takes squares only, 1280×1280
large-bf16  the same under bfloat16 autocast, our default where the processor has it
train       one step of Adam on 4×256×256 under bfloat16 autocast; ours is sglrn (with the low-rank module)
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

SIZES: dict[str, dict[str, Any]] = {
    "t": {"width": 16, "depths": [2] * 9},
    "s": {"width": 32, "depths": [2] * 9},
    "b": {"width": 32, "depths": [1, 2, 8, 8, 2, 8, 8, 2, 1]},
}


def serve(pipe: Connection, side: str, size: str, threads: int) -> None:
    """Answer (task, seed) with (seconds, output or None); "memory" with the peak resident bytes."""
    import torch
    from oracles import spandrel_uformer

    from unsmear.models import create
    from unsmear.models.convert import fill
    from unsmear.models.restoring import restore
    from unsmear.runtime import prepare_process

    warnings.simplefilter("ignore")
    if side != "spandrel":
        prepare_process()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    theirs = spandrel_uformer(**SIZES[size])
    for parameter in theirs.parameters():  # biases and tables that start at zero would prove nothing
        torch.nn.init.normal_(parameter, std=0.02) if parameter.abs().max() == 0 else None
    ours = create(f"uformer-{size}")
    fill(ours, theirs.state_dict())
    trained = create(f"sglrn-{size}") if side == "ours" else theirs
    network = ours.eval() if side == "ours" else theirs.eval()
    optimizer = torch.optim.Adam(trained.parameters(), 1e-4)
    while True:
        try:
            task, seed = pipe.recv()
        except EOFError:  # all is measured
            return
        if task == "memory":
            pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, None))
            continue
        shape = {"small": (1, 3, 256, 256), "train": (4, 3, 256, 256)}.get(task, (1, 3, 720, 1280))
        image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        begun = time.perf_counter()
        if task == "train":
            trained.train()
            with torch.autocast("cpu", torch.bfloat16):
                restored = trained(image)
            ((restored.float() - image) ** 2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            output = None
        else:
            network.eval()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=task == "large-bf16"):
                if task == "small":
                    output = network(image)
                elif side == "ours":
                    output = restore(network, image)
                else:
                    # as the official test script: zeros around the photograph, up to a square
                    pad = (1280 - 720) // 2
                    output = network(torch.nn.functional.pad(image, (0, 0, pad, pad)))[..., pad:-pad, :]
        seconds = time.perf_counter() - begun
        pipe.send((seconds, output.float() if task == "small" else None))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="t")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", nargs="+", default=["small", "large", "large-bf16", "train"])
    parser.add_argument("--sides", nargs="+", default=["ours", "spandrel", "kept"])
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    sides = options.sides
    pipes: dict[str, Connection] = {}
    workers = []
    for side in sides:
        pipes[side], end = context.Pipe()
        workers.append(
            context.Process(target=serve, args=(end, side, options.size, options.threads), daemon=True)
        )
        workers[-1].start()
        end.close()  # so that a process that dies ends the benchmark

    def ask(side: str, task: str, seed: int = 0) -> tuple[float, Any]:
        pipes[side].send((task, seed))
        answer: tuple[float, Any] = pipes[side].recv()
        return answer

    print(f"uformer-{options.size}, {options.threads} threads, median of {options.rounds} rounds\n")
    others = sides[1:]
    print("| task | " + " | ".join(f"{side} s" for side in sides), end=" | ")
    print(" | ".join(f"{side} / ours" for side in others) + " |")
    print("|---|" + "---:|" * (2 * len(sides) - 1))
    for task in options.tasks:
        times: dict[str, list[float]] = {side: [] for side in sides}
        for round_ in range(options.rounds + 1):
            answers = {side: ask(side, task, round_) for side in sides}
            if task == "small" and round_ == 0:
                gap = (answers["ours"][1] - answers["spandrel"][1]).abs().max().item()
            if round_:  # the first warms up
                for side in sides:
                    times[side].append(answers[side][0])
        ratios = {
            side: [theirs / ours for theirs, ours in zip(times[side], times["ours"], strict=True)]
            for side in others
        }
        medians = " | ".join(f"{statistics.median(times[side]):.2f}" for side in sides)
        spreads = " | ".join(
            f"{statistics.median(r):.2f} ({min(r):.2f}–{max(r):.2f})" for r in ratios.values()
        )
        print(f"| {task} | {medians} | {spreads} |", flush=True)
    if "small" in options.tasks:
        print(f"\nlargest difference of the outputs at 256×256, float32: {gap:.1e}")
    peaks = ", ".join(f"{side} {ask(side, 'memory')[0] / 1e9:.2f} GB" for side in sides)
    print(f"peak resident memory of each process over these tasks: {peaks}")


if __name__ == "__main__":
    main()

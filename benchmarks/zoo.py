"""Speed and peak memory of the networks at 256×256 and 1280×720, NAFNet and Uformer beside spandrel's.

    python benchmarks/zoo.py [--names nafnet-32 uformer-t] [--sizes 256x256 1280x720] [--rounds 3]
                             [--threads 2] [--alone] [--write]

Each network and size has a process of its own, which has called `prepare_process()` as every command of
unsmear does, and a second one for spandrel's with the same weights, as it comes. The two take turns; float32,
without gradients, one round to warm up. Seconds are medians over the rounds: by the clock, and of the
processor in brackets, which a busy machine disturbs less. The ratio spandrel / ours is the median of the
ratios of the rounds. Memory is the largest resident size of the process less that before its first picture.
spandrel's Uformer takes squares only: 1280×720 is padded to 1280×1280 for it, as its authors' test does, with
zeros where ours mirrors, so that the outputs differ. --alone leaves spandrel's out.
--write puts the table into docs/PERFORMANCE.md.
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "models"))
DOCUMENT = ROOT / "docs" / "PERFORMANCE.md"
BEGIN, END = "<!-- benchmarks/zoo.py -->\n", "<!-- end -->"

NAMES = [
    "uformer-t", "sglrn-t", "uformer-b", "nafnet-16", "nafnet-32", "nafnet-64",
    "mscnn", "srn", "srn-lstm", "pss-srn", "deblurgan", "svrnn", "radn",
]  # fmt: skip


def theirs(name: str) -> Any:
    """spandrel's network of that name, or None."""
    from oracles import spandrel_nafnet, spandrel_uformer

    from unsmear.models import NETWORKS

    arguments = dict(NETWORKS[name].arguments)
    if name.startswith("nafnet"):
        return spandrel_nafnet(**arguments)
    if name.startswith("uformer"):
        return spandrel_uformer(**{"depths": (2,) * 9} | arguments)
    return None


def serve(pipe: Connection, side: str, name: str, height: int, width: int, threads: int) -> None:
    """Answer a seed with (seconds, processor's seconds, output); None with the bytes of memory it took."""
    import torch
    from torch.nn.functional import pad

    from unsmear.models import create
    from unsmear.models.convert import fill
    from unsmear.models.restoring import restore
    from unsmear.runtime import prepare_process

    warnings.simplefilter("ignore")
    if side == "ours":
        prepare_process()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    other = theirs(name)
    if other is not None:
        for parameter in other.parameters():  # biases, β and γ that start at zero would prove nothing
            torch.nn.init.normal_(parameter, std=0.02) if not parameter.any() else None
    network = create(name).eval() if side == "ours" else other
    if side == "ours" and other is not None:
        fill(network, other.state_dict())
    del other
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while (seed := pipe.recv()) is not None:
        image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
        begun, worked = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            if side == "ours":
                output = restore(network, image)
            elif name.startswith("uformer"):
                more = width - height
                output = network(pad(image, (0, 0, more // 2, more - more // 2)))
                output = output[..., more // 2 : more // 2 + height, :].clamp(0, 1)
            else:
                output = network(image).clamp(0, 1)
        pipe.send((time.perf_counter() - begun, time.process_time() - worked, output))
    pipe.send(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def measured(name: str, height: int, width: int, rounds: int, threads: int, *, alone: bool) -> str:
    """One row of the table."""
    import torch

    context = multiprocessing.get_context("spawn")
    sides = ["ours"] if alone or theirs(name) is None else ["ours", "spandrel"]
    pipes, workers = {}, []
    for side in sides:
        pipes[side], end = context.Pipe()
        workers.append(context.Process(target=serve, args=(end, side, name, height, width, threads)))
        workers[-1].start()
        end.close()
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    gap = 0.0
    for seed in range(rounds + 1):
        outputs = []
        for side in sides:
            pipes[side].send(seed)
            seconds, worked, output = pipes[side].recv()
            outputs.append(output)
            if seed:
                times[side].append((seconds, worked))
        gap = max(gap, float(torch.stack(outputs).diff(dim=0).abs().max()) if len(outputs) > 1 else 0.0)
    memory = {}
    for side, worker in zip(sides, workers, strict=True):
        pipes[side].send(None)
        memory[side] = pipes[side].recv() / 1e9
        worker.join()

    def seconds_of(side: str) -> str:
        clock, processor = (statistics.median(column) for column in zip(*times[side], strict=True))
        return f"{clock:.2f} ({processor:.2f})"

    row = f"| {name} | {width}×{height} | {seconds_of('ours')} | {memory['ours']:.2f} "
    if len(sides) == 1:
        return row + "| | | | |"
    ratios = [
        statistics.median(
            their[i] / our[i] for our, their in zip(times["ours"], times["spandrel"], strict=True)
        )
        for i in (0, 1)
    ]
    row += f"| {seconds_of('spandrel')} | {memory['spandrel']:.2f} "
    return row + f"| {ratios[0]:.2f} ({ratios[1]:.2f}) | {gap:.0e} |"


def main() -> None:
    from unsmear.models import NETWORKS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--names", nargs="+", default=[name for name in NAMES if name in NETWORKS])
    parser.add_argument("--sizes", nargs="+", default=["256x256", "1280x720"], help="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="without spandrel's")
    parser.add_argument("--write", action="store_true", help="put the table into docs/PERFORMANCE.md")
    options = parser.parse_args()

    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    lines = [
        f"{threads}, {options.rounds} rounds, float32:\n",
        "| network | size | ours, s (processor) | GB | spandrel's, s (processor) | GB | spandrel / ours "
        "| largest difference |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.names:
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            lines.append(measured(name, height, width, options.rounds, options.threads, alone=options.alone))
            print(lines[-1], flush=True)
    if options.write:
        document = DOCUMENT.read_text(encoding="utf-8")
        before, _, rest = document.partition(BEGIN)
        text = before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]
        DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

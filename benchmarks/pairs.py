"""Rate of pairs on the fly and on disk: time of one core for each step, and what 50,000 pairs take.

    python benchmarks/pairs.py PHOTOS [--size 256] [--count 200]

The parts are interleaved pair by pair, so that other work on the machine disturbs all alike. CPU time of this
process is what counts (one torch thread), wall time is shown beside it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from unsmear.basis.kernels import camera_shake
from unsmear.pairs import PairSampler, WrittenPairs, write_pairs
from unsmear.pairs.folders import _write_pair


def timed(action):
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)

    sampler = PairSampler(options.photos, size=options.size)
    cold = PairSampler(options.photos, size=options.size, cache_bytes=0)
    for index in range(10):
        sampler[index]
    rows: dict[str, list[tuple[float, float]]] = {
        "make, photograph decoded anew": [],
        "make, photograph in memory": [],
        "write": [],
        "read": [],
    }
    scenes: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pairs"
        write_pairs(sampler, options.count, folder, workers=1)
        (folder / ".partial").mkdir(exist_ok=True)
        written = WrittenPairs(folder)
        for index in range(options.count):
            cold._cache.clear()
            _, cpu, wall = timed(lambda: cold[index])  # noqa: B023
            rows["make, photograph decoded anew"].append((cpu, wall))
            sampler._photo(sampler.photo_of(index))
            pair, cpu, wall = timed(lambda: sampler[index])  # noqa: B023
            rows["make, photograph in memory"].append((cpu, wall))
            scenes.setdefault(pair.facts["scene"], []).append(cpu)
            _, cpu, wall = timed(lambda: _write_pair(folder, index, pair))  # noqa: B023
            rows["write"].append((cpu, wall))
            _, cpu, wall = timed(lambda: written[index])  # noqa: B023
            rows["read"].append((cpu, wall))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / options.count

    print(f"{options.count} pairs of {options.size}×{options.size}, {len(sampler)} photographs, one core\n")
    print(f"{'':32}{'CPU ms, mean':>14}{'median':>10}{'95 %':>10}{'wall ms, mean':>16}{'a second':>10}")
    for label, times in rows.items():
        cpu, wall = ([pair[place] for pair in times] for place in (0, 1))
        top = sorted(cpu)[int(0.95 * len(cpu))]
        print(
            f"{label:32}{statistics.mean(cpu):14.1f}{statistics.median(cpu):10.1f}{top:10.1f}"
            f"{statistics.mean(wall):16.1f}{1e3 / statistics.mean(cpu):10.0f}"
        )
    print(
        "\nmake, by scene: " + ", ".join(f"{k} {statistics.mean(v):.1f}" for k, v in sorted(scenes.items()))
    )
    import numpy as np

    generator = np.random.default_rng(0)
    _, cpu, _ = timed(lambda: [camera_shake(generator, 65, length=20.0) for _ in range(200)])
    print(f"camera_shake, 65×65: {cpu / 200:.2f} ms")
    for label in ("make, photograph in memory", "make, photograph decoded anew"):
        each = statistics.mean(cpu for cpu, _ in rows[label]) + statistics.mean(
            cpu for cpu, _ in rows["write"]
        )
        hours = each * 50_000 / 3.6e6
        print(
            f"50,000 pairs ({label}): {each / 1e3:.3f} core-seconds a pair, "
            f"{hours:.2f} hours on 1 core, {hours / 2:.2f} on 2; {size * 50_000 / 1e9:.1f} GB"
        )


if __name__ == "__main__":
    main()

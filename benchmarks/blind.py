"""Blind estimate of one kernel, and restoration with it, on pairs whose truth is known.

    python benchmarks/blind.py --data DATA [--sets Levin Koehler] [--limit N] [--threads 1]

Levin: PSNR on luma after the best whole-pixel shift; error ratio = squared error with the estimated kernel
/ with the kernel that was measured for the set, as Levin et al. have it, and / with the one that
`estimate_kernels` finds from the sharp photograph, which fits better. All restored by `deconvolve`. Köhler:
luma, shift and gain aligned against one preview frame, which compares with nothing published. Seconds:
estimate, restoration.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from unsmear import read_photo
from unsmear.estimation.deconvolution import deconvolve
from unsmear.estimation.known_masks import estimate_kernels
from unsmear.estimation.uniform import estimate_uniform
from unsmear.metrics import psnr_shift, psnr_shift_gain

LUMA = torch.tensor([0.299, 0.587, 0.114])
LARGEST = 41  # pixels, of Levin's kernels estimated from the sharp photograph


def tensor(path: Path) -> Tensor:
    return read_photo(path).tensor()


def luma(image: Tensor) -> Tensor:
    return torch.einsum("c,chw->hw", LUMA, image)


def levin(data: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    for path in sorted((data / "pairs/Levin/blur").glob("*.png")):
        yield path.stem, tensor(path), tensor(data / "pairs/Levin/sharp" / f"{path.stem[:3]}.png")


def koehler(data: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    folder = data / "pairs/Koehler"
    for path in sorted((folder / "BlurryImages").glob("*.png")):
        truth = folder / "preview_ground_truth" / f"GroundTruth{path.stem[6]}_1_1.jpg"
        yield path.stem, tensor(path), tensor(truth)


def from_truth(sharp: Tensor, blurred: Tensor) -> Tensor:
    """The kernel by the sharp photograph; pairs are shifted against each other by a few pixels at most."""
    u, v = luma(sharp)[None], luma(blurred)[None]
    return estimate_kernels(u, v, None, LARGEST, domain="gradient").kernels


def measured(data: Path, stem: str) -> Tensor:
    """The set's own kernel; whether its files are meant for convolution or correlation differs."""
    kernel = luma(tensor(data / "pairs/Levin/kernels" / f"{stem.split('_')[1]}.png"))
    return kernel / kernel.sum()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["Levin", "Koehler"], choices=["Levin", "Koehler"])
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    for name in options.sets:
        pairs = levin(options.data) if name == "Levin" else koehler(options.data)
        score = psnr_shift if name == "Levin" else psnr_shift_gain
        gains, ratios, estimate, restore = [], [], [], []
        print(f"| {name} | kernel | input, dB | gain, dB | error ratio, to the fitted kernel's | s | s |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for number, (stem, blurred, sharp) in enumerate(pairs):
            if number == options.limit:
                break
            begun = time.perf_counter()
            kernel = estimate_uniform(luma(blurred)).kernel
            between = time.perf_counter()
            restored = deconvolve(blurred, kernel[None])
            ended = time.perf_counter()
            before, after = (float(score(x[None], sharp[None], max_shift=24)) for x in (blurred, restored))
            ratio = ""
            if name == "Levin":
                own = measured(options.data, stem)
                known = []
                for kernels in ((own, own.flip(0, 1)), from_truth(sharp, blurred)):
                    best = [deconvolve(blurred, kernel[None]) for kernel in kernels]
                    known.append(max(float(score(x[None], sharp[None], max_shift=24)) for x in best))
                ratios.append([10 ** ((best - after) / 10) for best in known])
                ratio = ", ".join(f"{r:.2f}" for r in ratios[-1])
            gains.append(after - before)
            estimate.append(between - begun)
            restore.append(ended - between)
            print(
                f"| {stem} | {len(kernel)} | {before:.2f} | {gains[-1]:+.2f} | {ratio} | "
                f"{estimate[-1]:.1f} | {restore[-1]:.1f} |",
                flush=True,
            )
        print(
            f"\n{name}, {len(gains)} pictures: gain {statistics.mean(gains):+.2f} dB, "
            f"least {min(gains):+.2f}, {sum(gain < 0 for gain in gains)} worse than the input; median "
            f"{statistics.median(estimate):.1f} s to estimate, {statistics.median(restore):.1f} s to restore"
        )
        if ratios:
            for kind, values in zip(("measured", "fitted"), zip(*ratios, strict=True), strict=True):
                counts = ", ".join(f"≤ {most}: {sum(r <= most for r in values)}" for most in (2, 3))
                print(f"error ratio to the {kind} kernel's {counts} of {len(values)}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""How much faster Köhler's best frame is found than by the plain loop of the evaluation code; equal results.

    python benchmarks/koehler_search.py                     # 199 frames of 800×800
    python benchmarks/koehler_search.py --frames 24 --rounds 3 --structure

The loop (tests/evaluation/koehler_plainly.py, NumPy in float64) takes one cross-correlation and one PSNR a
frame; with --structure both take the multi-scale SSIM too. Both get the same frames from memory, in rounds,
one after the other, so that a machine that is busy with other things is so for both. Printed: milliseconds of
the processor a frame and their ratio, medians over the rounds with the least and the largest ratio, and the
largest difference of the scores.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/evaluation"))
import koehler_plainly as plainly

from full_size import moved_mean, texture
from unsmear.metrics import best_frame


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=199)
    parser.add_argument("--size", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--structure", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    random, size = np.random.default_rng(0), chosen.size
    scene = texture(0, size + 40, size + 40)
    restored = moved_mean(scene, 9)[20 : 20 + size, 20 : 20 + size]
    places = random.integers(0, 40, (chosen.frames, 2))
    frames = [
        np.clip(scene[d : d + size, r : r + size].astype(int) + random.integers(-3, 4), 0, 255).astype(
            np.uint8
        )
        for d, r in places
    ]
    levels = [torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))) for x in (restored, *frames)]
    fast, slow, difference = [], [], 0.0
    for _ in range(chosen.rounds):
        start = time.process_time()
        found = best_frame(levels[0], levels[1:], structure=chosen.structure)
        fast.append(1000 * (time.process_time() - start) / chosen.frames)
        start = time.process_time()
        psnr = max(plainly.psnr(x, restored) for x in frames)
        best = max(plainly.multi_scale(x, restored) for x in frames) if chosen.structure else found.mssim
        slow.append(1000 * (time.process_time() - start) / chosen.frames)
        apart = abs(found.psnr - psnr), abs(found.mssim - best) if chosen.structure else 0.0
        difference = max(difference, *apart)
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    print(
        f"{chosen.frames} frames of {size}×{size}, {chosen.rounds} rounds: plain loop "
        f"{statistics.median(slow):.1f} ms a frame, best_frame {statistics.median(fast):.1f} ms, "
        f"{statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f}); "
        f"largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()

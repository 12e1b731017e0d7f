"""Claim 1 where small networks deblur well: four kernels, always the same, one for all of a picture.

    python benchmarks/claims_known.py run --sharp PHOTOS [--seeds 0 1 2] [--networks radn] [--steps 2000]
    python benchmarks/claims_known.py report [--write]

In claims.py the networks gain a tenth of a dB, and a module worth 3 % of that cannot be seen. Here a network
has to tell four blurs apart and undo them: straight motions of 5 pixels at 0, 60 and 120 degrees and one
camera shake of 7. Short ones, because a network learns them sooner: of kernels of 11 and 15 pixels RADN
gained 0.35 to 0.39 dB in 500 and 700 steps, of these 0.48 in 500; three times the rate changed nothing.
MSCNN is left out unless asked for: after 700 steps it had gained 0.08 dB (-0.02 here), having no residual
from input to output. Variants, rates, batches and the pairing of runs by seed are those of claims.py, the
pairs crops of 128×128 of photographs, blurred in sRGB values, rounded to 8 bit; scored are 48 pairs of
photographs that no run has seen. A run is a line of the log; runs that are in the log are not run again.
--write puts the tables into docs/REPRODUCTION.md.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from claims import (
    BATCH,
    HELD,
    HELD_PHOTOS,
    ROOT,
    SIZE,
    SMALL,
    STILL,
    Pool,
    commands,
    read_log,
    trained,
    write,
)
from claims_report import DIGITS, interval, put
from unsmear.basis.kernels import camera_shake, linear_motion
from unsmear.blurring import blur
from unsmear.metrics import psnr_rgb, ssim_gauss_rgb
from unsmear.pairs import PairSampler
from unsmear.photo import find_photos
from zoo_study import VARIANTS

NETWORKS, STEPS = ["radn", "uformer-t"], 2000
LOG = ROOT / "recipes" / "history" / "claims-known.jsonl"
KERNEL = 11
LENGTH, ANGLES, SHAKE = 5.0, (0.0, 60.0, 120.0), 7.0
FIELDS = ("network", "variant", "seed", "steps")
NAMES = {"off": "none", "on": "module", "control": "control"}

Key = tuple[str, str, int, int]


def kernels() -> Tensor:
    """The four, (4, K, K)."""
    straight = [linear_motion(LENGTH, angle, KERNEL) for angle in ANGLES]
    shaken = camera_shake(np.random.default_rng(3), KERNEL, length=SHAKE)
    return torch.from_numpy(np.stack([*straight, shaken]))


def pairs(photos: list[Path], count: int, seed: int) -> Pool:
    """Blurred and sharp, (count, 3, SIZE, SIZE)."""
    margin = KERNEL // 2
    sampler = PairSampler(photos, seed=seed, size=SIZE + 2 * margin, settings=STILL)
    known, everywhere = kernels(), torch.ones(1, SIZE, SIZE)
    chosen = np.random.default_rng(seed).integers(len(known), size=count)
    blurred, sharp = [], []
    for index, which in enumerate(chosen):
        u = sampler[index].sharp
        v = blur(u, known[which : which + 1], everywhere, border="valid")
        blurred.append((v.clamp(0, 1) * 255).round() / 255)
        sharp.append(u[:, margin : margin + SIZE, margin : margin + SIZE])
    return torch.stack(blurred), torch.stack(sharp)


def run(key: Key, data: Pool, held: Pool) -> dict[str, Any]:
    """Train and score one network."""
    network, variant, seed, _ = key
    model, facts = trained(network, variant, seed, data)
    model.eval()
    gains: dict[str, list[float]] = {"psnr": [], "ssim": []}
    with torch.no_grad():
        for blurred, sharp in zip(*held, strict=True):
            restored = model(blurred[None])[0].clamp(0, 1)
            for name, score in (("psnr", psnr_rgb), ("ssim", ssim_gauss_rgb)):
                gains[name].append(round(float(score(restored, sharp) - score(blurred, sharp)), 5))
    return dict(zip(FIELDS, key, strict=True)) | facts | {"gains": gains}


def run_all(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photos = sorted(find_photos(options.sharp))
    held = pairs(photos[-HELD_PHOTOS:], HELD, 10**6)
    for seed in options.seeds:
        data = pairs(photos[:-HELD_PHOTOS], options.steps * BATCH, seed)
        for network in options.networks:
            for variant in VARIANTS:
                key = (network, variant, seed, options.steps)
                if key not in read_log(options.log, FIELDS):
                    row = run(key, data, held)
                    write(options.log, row)
                    gain = statistics.fmean(row["gains"]["psnr"])
                    print(*key, f"{row['seconds']} s, {gain:+.3f} dB", flush=True)


def report(options: argparse.Namespace) -> None:
    log = read_log(options.log, FIELDS)
    means = {
        metric: {key: statistics.fmean(row["gains"][metric]) for key, row in log.items()}
        for metric in ("psnr", "ssim")
    }
    lines = [
        "| network, steps | seeds | module | parameters | PSNR, dB | SSIM |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for network, variant, steps in sorted({(key[0], key[1], key[3]) for key in log}):
        keys = [key for key in log if (key[0], key[1], key[3]) == (network, variant, steps)]
        cells = []
        for metric, digits in (("psnr", 2), ("ssim", 4)):
            values = [means[metric][key] for key in keys]
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):+.{digits}f}{spread}")
        count = log[keys[0]]["parameters"]
        lines.append(
            f"| {network}, {steps} | {len(keys)} | {NAMES[variant]} | {count:,} | {' | '.join(cells)} |"
        )
    tests = ["| difference | pairs of runs | PSNR, dB | SSIM |", "|---|---:|---:|---:|"]
    for one, other in (("on", "off"), ("on", "control"), ("control", "off")):
        both = [(key, (key[0], other, *key[2:])) for key in log if key[1] == one]
        both = [(first, second) for first, second in both if second in log]
        if both:
            cells = [
                interval([of[first] - of[second] for first, second in both], DIGITS[metric])
                for metric, of in means.items()
            ]
            tests.append(f"| {NAMES[one]} − {NAMES[other]} | {len(both)} | {' | '.join(cells)} |")
    parts = {
        f"claims_known.py: {name}": "\n".join(rows) if len(rows) > 2 else "No runs yet."
        for name, rows in (("gains", lines), ("test", tests))
    }
    for text in parts.values():
        print(text + "\n")
    if options.write:
        put(parts)


def main() -> None:
    parser, running = commands(__doc__ or "", LOG, run_all, report)
    running.add_argument("--networks", nargs="+", default=NETWORKS, choices=list(SMALL))
    running.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

"""Claim 1 where small networks deblur well: four kernels, always the same, one for all of a picture.

    python benchmarks/claims_known.py run --sharp PHOTOS [--seeds 0 1 2] [--networks radn mscnn]
    python benchmarks/claims_known.py report [--write]

In claims.py the networks gain a tenth of a dB, and a module worth 3 % of that cannot be seen. Here a network
has to tell four blurs apart and undo them: straight motions of 11 pixels at 0, 60 and 120 degrees and one
camera shake of 15. (A first look without the module: in 700 steps RADN gains 0.39 dB and MSCNN 0.08, in 282
and 163 seconds of a processor with AVX2; so --steps has to be some thousands for a test.) Networks,
variants, steps, rates and the pairing of runs by seed are those of claims.py; the pairs are crops of 128×128
of photographs, blurred in sRGB values, rounded to 8 bit; scored are 48 pairs of photographs that no run has
seen. A run is a line of the log; runs that are in the log are not run again. --write puts the tables into
docs/REPRODUCTION.md.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from claims import BATCH, HELD, HELD_PHOTOS, ROOT, SIZE, SMALL, STEPS, started, write
from claims_report import interval, put
from unsmear.basis.kernels import camera_shake, linear_motion
from unsmear.blurring import blur
from unsmear.metrics import psnr_rgb, ssim_gauss_rgb
from unsmear.models.costs import parameters
from unsmear.pairs import PairSampler, PairSettings
from unsmear.photo import find_photos
from unsmear.training.losses import mse, over_scales
from zoo_study import RATE, RATES, VARIANTS

LOG = ROOT / "recipes" / "history" / "claims-known.jsonl"
KERNEL = 21
LENGTH, ANGLES, SHAKE = 11.0, (0.0, 60.0, 120.0), 15.0
NAMES = {"off": "none", "on": "module", "control": "control"}

Pairs = tuple[Tensor, Tensor]


def kernels() -> Tensor:
    """The four, (4, K, K)."""
    straight = [linear_motion(LENGTH, angle, KERNEL) for angle in ANGLES]
    shaken = camera_shake(np.random.default_rng(3), KERNEL, length=SHAKE)
    return torch.from_numpy(np.stack([*straight, shaken]))


def pairs(photos: list[Path], count: int, seed: int) -> Pairs:
    """Blurred and sharp, (count, 3, SIZE, SIZE)."""
    still = PairSettings(
        **{f"{scene}_weight": float(scene == "identity") for scene in PairSettings().weights()},
        noise=(0, 0), jpeg_share=0, saturation_share=0,
    )  # fmt: skip
    margin = KERNEL // 2
    sampler = PairSampler(photos, seed=seed, size=SIZE + 2 * margin, settings=still)
    known, everywhere = kernels(), torch.ones(1, SIZE, SIZE)
    chosen = np.random.default_rng(seed).integers(len(known), size=count)
    blurred, sharp = [], []
    for index, which in enumerate(chosen):
        u = sampler[index].sharp
        v = blur(u, known[which : which + 1], everywhere, border="valid")
        blurred.append((v.clamp(0, 1) * 255).round() / 255)
        sharp.append(u[:, margin : margin + SIZE, margin : margin + SIZE])
    return torch.stack(blurred), torch.stack(sharp)


def run(network: str, variant: str, seed: int, steps: int, data: Pairs, held: Pairs) -> dict[str, Any]:
    """Train and score one network."""
    begun = time.process_time()
    model = started(network, variant, seed)
    optimizer = torch.optim.Adam(model.parameters())
    weights = getattr(model, "scale_weights", None)
    losses = []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATES.get(network, RATE) * 0.5 * (1 + math.cos(math.pi * step / steps))
        blurred, sharp = (side[step * BATCH : (step + 1) * BATCH] for side in data)
        loss = over_scales(mse, model(blurred), sharp, weights)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    trained = time.process_time() - begun
    model.eval()
    gains: dict[str, list[float]] = {"psnr": [], "ssim": []}
    with torch.no_grad():
        for blurred, sharp in zip(*held, strict=True):
            restored = model(blurred[None])[0].clamp(0, 1)
            for name, score in (("psnr", psnr_rgb), ("ssim", ssim_gauss_rgb)):
                gains[name].append(round(float(score(restored, sharp) - score(blurred, sharp)), 5))
    return {
        "network": network,
        "variant": variant,
        "seed": seed,
        "steps": steps,
        "parameters": parameters(model),
        "loss": [round(statistics.fmean(losses[i : i + 100]), 6) for i in range(0, steps, 100)],
        "seconds": round(trained, 1),
        "gains": gains,
    }


def read_log(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The lines of a log by network, variant, seed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["network"], row["variant"], row["seed"]): row for row in rows}


def run_all(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photos = sorted(find_photos(options.sharp))
    held = pairs(photos[-HELD_PHOTOS:], HELD, 10**6)
    for seed in options.seeds:
        data = pairs(photos[:-HELD_PHOTOS], options.steps * BATCH, seed)
        for network in options.networks:
            for variant in VARIANTS:
                if (network, variant, seed) not in read_log(options.log):
                    row = run(network, variant, seed, options.steps, data, held)
                    write(options.log, row)
                    gain = statistics.fmean(row["gains"]["psnr"])
                    print(network, variant, seed, f"{row['seconds']} s, {gain:+.3f} dB", flush=True)


def report(options: argparse.Namespace) -> None:
    log = read_log(options.log)
    means = {
        metric: {key: statistics.fmean(row["gains"][metric]) for key, row in log.items()}
        for metric in ("psnr", "ssim")
    }
    lines = [
        "| network | steps | seeds | module | parameters | PSNR, dB | SSIM |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for network in SMALL:
        for variant, name in NAMES.items():
            keys = [key for key in log if key[:2] == (network, variant)]
            if not keys:
                continue
            cells = []
            for metric, digits in (("psnr", 2), ("ssim", 4)):
                values = [means[metric][key] for key in keys]
                spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):+.{digits}f}{spread}")
            row = log[keys[0]]
            lines.append(
                f"| {network} | {row['steps']} | {len(keys)} | {name} | {row['parameters']:,} | "
                f"{' | '.join(cells)} |"
            )
    tests = ["| difference | pairs of runs | PSNR, dB | SSIM |", "|---|---:|---:|---:|"]
    for one, other in (("on", "off"), ("on", "control"), ("control", "off")):
        both = [key for key in log if key[1] == one and (key[0], other, key[2]) in log]
        if both:
            cells = [
                interval([means[metric][key] - means[metric][key[0], other, key[2]] for key in both])
                for metric in means
            ]
            tests.append(f"| {NAMES[one]} − {NAMES[other]} | {len(both)} | {' | '.join(cells)} |")
    parts = {"claims_known.py: gains": "\n".join(lines), "claims_known.py: test": "\n".join(tests)}
    for text in parts.values():
        print(text + "\n")
    if options.write:
        put(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--sharp", type=Path, required=True, help="folder of sharp photographs")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--networks", nargs="+", default=list(SMALL), choices=list(SMALL))
    running.add_argument("--steps", type=int, default=STEPS)
    running.set_defaults(act=run_all)
    reporting = commands.add_parser("report")
    reporting.add_argument("--write", action="store_true", help="put the tables into docs/REPRODUCTION.md")
    reporting.set_defaults(act=report)
    for command in (running, reporting):
        command.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

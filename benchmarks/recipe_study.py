"""What gives most in a minute of a core: one thing changed at a time, the same core time for each.

    python benchmarks/recipe_study.py run --sharp PHOTOS --data DATA [--seeds 0] [--only NAME ...]
    python benchmarks/recipe_study.py run --sharp PHOTOS --data DATA --seeds 0 --budget 1500 --only NAME ...
    python benchmarks/recipe_study.py report [--write]

The base is recipes/unet-s.toml made short: unet-s from first weights, 4 patches of 128×128, float32, AdamW at
1e-3 after 20 steps, falling as a cosine, the average of the weights with 0.98. CHANGES lists what the other
runs have instead. A run gets 150 seconds of one core (or --budget), making its pairs included. How many steps
that is, 16 steps tell first, of the base and of each run whose step costs something else (COSTS); the others
get as many as the base. Photographs and scores are those of claims.py. How far seeds of the base are apart
shows what may be chance. So short a training tells what learns fast, not what ends well; the ten times longer
ones tell a little of that.

A run is a line of the log with its gains on each picture; runs that are in the log are not run again.
`report` needs the log alone; --write puts its tables into docs/TRAINING.md.
"""

import argparse
import json
import statistics
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from claims import HELD_PHOTOS, ROOT, SMALL, Scored, commands, read_log, write
from claims_report import BLURRED, Log, put
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.costs import parameters
from unsmear.photo import find_photos
from unsmear.training import make_recipe, train

LOG = ROOT / "recipes" / "history" / "recipe-study.jsonl"
DOCUMENT = ROOT / "docs" / "TRAINING.md"
FIELDS = ("name", "seed", "budget")
SETS = {"adaptive": "Eq. 2", "GoPro": "GoPro", "REDS": "REDS", "Koehler": "Köhler", "Lai": "Lai"}
BUDGET, LONGER, PROBES, CORRELATED = 150, 1500, (4, 20), 10

UNET = tomllib.loads((ROOT / "recipes" / "unet-s.toml").read_text(encoding="utf-8"))
BASE: dict[str, Any] = UNET | {
    "size": 128, "learning_rate": 1e-3, "warmup": 20, "ema": 0.98, "precision": "fp32", "channels_last": True,
    "workers": 0, "tensorboard": False, "log_every": 20, "samples_every": 10**6, "checkpoint_seconds": 1e6,
    "validation": {"every": 10**6, "count": 1, "size": 128},
}  # fmt: skip
SCENES = ("identity", "uniform", "camera", "related", "objects", "random")
ONE_KERNEL = {f"{scene}_weight": float(scene == "uniform") for scene in SCENES}

CHANGES: dict[str, dict[str, Any]] = {
    # network
    "base": {},
    "low-rank module": {"low_rank": True},
    "half as wide": {"arguments": {"widths": (16, 32, 48, 80)}},
    "twice as wide": {"arguments": {"widths": (64, 128, 192, 320)}},
    "NAFNet, narrow": {"network": "nafnet-16", "arguments": {"encoder": (1, 1, 2), "decoder": (1, 1, 1)}},
    "NAFNet, narrow and deep": {
        "network": "nafnet-16",
        "arguments": {"encoder": (1, 1, 1, 4), "decoder": (1, 1, 1, 1)},
    },
    "sglrn-t": {"network": "sglrn-t", "channels_last": False},
    # loss, steps and patches
    "loss: Charbonnier": {"loss": "charbonnier"},
    "rate 2.5e-4": {"learning_rate": 2.5e-4},
    "rate 4e-3": {"learning_rate": 4e-3},
    "16 patches": {"batch": 16},
    "16 of 64×64": {"size": 64, "batch": 16},
    "1 of 256×256": {"size": 256, "batch": 1},
    "1 of 256×256 in the second half": {"patches": [{"from_step": 0.5, "size": 256, "batch": 1}]},
    # pairs
    "Eq. 2's defaults": {"pairs": {}},
    "median blur 7 pixels": {"pairs.typical_length": 7.0},
    "median blur 25 pixels": {"pairs.typical_length": 25.0},
    "one kernel a picture": {f"pairs.{key}": value for key, value in ONE_KERNEL.items()},
    "blurred in sRGB": {"pairs.linear_share": 0.0},
    "no `crisp_share`": {"pairs.crisp_share": 0.0},
    # and less likely to matter
    "no average": {"ema": 0.0},
    "constant rate": {"schedule": "constant"},
    "loss: squared error": {"loss": "mse"},
    "curved paths": {"pairs.straight_share": 0.0},
    "noise in all": {"pairs.noise_free_share": 0.0, "pairs.noise": (0.0, 0.01)},
    "JPEG in all": {"pairs.jpeg_share": 1.0},
    "2 basis kernels at most": {"pairs.most_bases": 2},
    "no saturation": {"pairs.saturation_share": 0.0},
    "1 patch": {"batch": 1},
    "Adam, no decay": {"optimizer": "adam", "weight_decay": 0.0},
    "RADN, small": {"network": "radn", "arguments": SMALL["radn"]},
    "Uformer-T, small": {"network": "uformer-t", "arguments": SMALL["uformer-t"]},
}
"""Recipe keys that differ from BASE, `pairs.` before those of [pairs]; `from_step` is a share of steps."""
COSTS = {"network", "arguments", "low_rank", "size", "batch", "patches"}
"""Keys that alter what a step costs."""


def values(name: str, seed: int, iterations: int) -> dict[str, Any]:
    """The whole recipe of a run, but for photographs and folder."""
    result = BASE | {"seed": seed, "iterations": iterations, "warmup": min(BASE["warmup"], iterations // 2)}
    for key, value in CHANGES[name].items():
        table, _, inner = key.partition(".")
        result[table] = result["pairs"] | {inner: value} if inner else value
    if "patches" in CHANGES[name]:
        stages = CHANGES[name]["patches"]
        result["patches"] = [
            stage | {"from_step": round(stage["from_step"] * iterations)} for stage in stages
        ]
    return result


def trained(name: str, seed: int, iterations: int, photos: list[Path]) -> tuple[torch.nn.Module, list[float]]:
    """The network after a training of `iterations` steps, and the losses in its log."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = values(name, seed, iterations) | {"sharp": photos, "run": folder}
        model = load_checkpoint(train(make_recipe(recipe)))
        lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return model, [round(row["loss"], 5) for row in map(json.loads, lines) if "loss" in row]


def step_seconds(name: str, seed: int, photos: list[Path]) -> float:
    """Processor time of a step, pairs included."""
    spent = []
    for steps in PROBES:
        begun = time.process_time()
        trained(name, seed, steps, photos)
        spent.append(time.process_time() - begun)
    return (spent[1] - spent[0]) / (PROBES[1] - PROBES[0])


def run_all(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    photos = sorted(find_photos(options.sharp))
    held, used = photos[-HELD_PHOTOS:], photos[:-HELD_PHOTOS]
    scored = Scored(options.data, held)
    blurred = {
        name: [index for index, (psnr, _) in enumerate(before) if psnr < BLURRED]
        for name, before in scored.before.items()
    }
    for seed in options.seeds:
        for name in options.only or CHANGES:
            done = read_log(options.log, FIELDS)
            budget = options.budget
            if (name, seed, budget) in done:
                continue
            base = done.get(("base", seed, budget))
            alike = base and not COSTS & CHANGES[name].keys()
            steps = base["steps"] if alike else round(budget / step_seconds(name, seed, used))
            begun = time.process_time()
            model, losses = trained(name, seed, steps, used)
            seconds = time.process_time() - begun
            gains = {
                of: [each["psnr"][index] for index in blurred[of]]
                for of, each in scored.gains(model).items()
                if of in SETS
            }
            row = {"name": name, "seed": seed, "budget": budget, "steps": steps, "seconds": round(seconds, 1)}
            write(options.log, row | {"parameters": parameters(model), "losses": losses, "gains": gains})
            means = {of: round(statistics.fmean(each), 3) for of, each in gains.items()}
            print(name, seed, f"{steps} steps, {seconds:.0f} s", means, flush=True)


def table(log: Log, budget: int) -> str:
    lines = [
        "| change | seeds | steps | core s | " + " | ".join(SETS.values()) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(SETS),
    ]
    gains: dict[str, list[float]] = {of: [] for of in SETS}
    for name in CHANGES:
        rows = [row for (of, _, seconds), row in sorted(log.items()) if (of, seconds) == (name, budget)]
        if rows:
            cells = []
            for of in SETS:
                means = [statistics.fmean(row["gains"][of]) for row in rows]
                gains[of].append(statistics.fmean(means))
                span = f" ({min(means):+.2f} to {max(means):+.2f})" if len(means) > 1 else ""
                cells.append(f"{gains[of][-1]:+.2f}{span}")
            steps = round(statistics.fmean(row["steps"] for row in rows))
            taken = round(statistics.fmean(row["seconds"] for row in rows))
            lines.append(f"| {name} | {len(rows)} | {steps} | {taken} | {' | '.join(cells)} |")
    if len(gains["REDS"]) >= CORRELATED:
        both = spearmanr(gains["REDS"], gains["adaptive"]).statistic
        lines += [
            "",
            f"Spearman's correlation of the gains on REDS and on Eq. 2, over the changes: {both:.2f}.",
        ]
    return "\n".join(lines)


def report(options: argparse.Namespace) -> None:
    log = read_log(options.log, FIELDS)
    parts = {f"recipe_study.py: {budget} seconds": table(log, budget) for budget in (BUDGET, LONGER)}
    for name, text in parts.items():
        print(f"{name}\n\n{text}\n")
    if options.write:
        put(parts, DOCUMENT)


def main() -> None:
    parser, running = commands(__doc__ or "", LOG, run_all, report)
    running.add_argument(
        "--data", type=Path, required=True, help="folder with pairs/GoPro, REDS, Koehler, Lai"
    )
    running.add_argument("--only", nargs="+", choices=list(CHANGES), metavar="NAME", help="these changes")
    running.add_argument("--budget", type=int, default=BUDGET, help="seconds of a core for a run")
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

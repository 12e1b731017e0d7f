"""The paper's two claims put to the test, small: the low-rank module (Table 1) and the data (Table 2).

    python benchmarks/claims.py run --sharp PHOTOS --data DATA [--banks FOLDER] [--seeds 0 1 2] [--log FILE]
    python benchmarks/claims.py report [--log FILE] [--write]

Claim 1: MSCNN, RADN and Uformer-T, made small (SMALL), without the module, with it, and with the control, a
plain block of as many parameters. Claim 2: the same networks without the module, trained on other data:

adaptive    our pairs: Eq. 2 with random kernels and masks (PairSettings' defaults) of all photographs
frames      averaged frames (frame_averaging.py), of all photographs: another blur, the same scenes
scene       averaged frames of FOUR photographs: a benchmark with few scenes

And a question of our own: MSCNN and RADN trained on `adaptive` with all kernels drawn from a bank, one that
was `estimated` from blurred photographs or one that was `simulated`: FOLDER/estimated.safetensors and
FOLDER/simulated.safetensors.

Every run: 700 steps of 2 patches of 128×128, each pair seen once, MSE, Adam, the rate falling from 1e-3
(MSCNN 2e-3) to 0 along a cosine, gradients clipped to norm 1, one thread, float32. Runs of one seed see the
same pairs in the same order and start from the same weights but for the inserted block, which starts as the
identity: they are compared pair by pair. Scored: 48 held-out pairs of `adaptive` and 48 of `frames`, of
photographs that no run has seen; and of the development pairs in DATA the middle 512×512 of GoPro (8), REDS
(3), Köhler (every second, 12, by shift and gain against one preview frame) and Lai's uniform ones (20, by
shift).

A run is a line of the log, written when it ends; runs that are in the log are not run again, and several
processes may share one log. `report` needs the log alone; --write puts its tables into docs/REPRODUCTION.md.
"""

import argparse
import fcntl
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from claims_report import BANKED, BEFORE, Log, report
from development import koehler_pairs
from frame_averaging import averaged_frames
from unsmear.evaluation import find_pairs
from unsmear.evaluation.benchmarks import find_benchmark
from unsmear.evaluation.benchmarks.base import read_picture
from unsmear.evaluation.restorers import centre
from unsmear.metrics import align, psnr_aligned, psnr_rgb, ssim_gauss_rgb
from unsmear.models import create
from unsmear.models.costs import parameters
from unsmear.pairs import PairSampler, PairSettings
from unsmear.pairs.sampling import stack_pairs
from unsmear.photo import find_photos
from unsmear.training.losses import mse, over_scales
from zoo_study import RATE, RATES, VARIANTS

ROOT = Path(__file__).parents[1]
LOG = ROOT / "recipes" / "history" / "claims.jsonl"
POOLS = ROOT / "runs" / "claims"

SMALL: dict[str, dict[str, Any]] = {
    "mscnn": {"width": 16, "blocks": 3},
    "radn": {"encoder": (1, 1, 1), "decoder": (1, 1, 1), "up": (64, 32, 32)},
    "uformer-t": {"width": 8, "depths": (1,) * 9},
}
STEPS, BATCH, SIZE, MARGIN, HELD, CROP = 700, 2, 128, 64, 48, 512
HELD_PHOTOS, SCENE_PHOTOS = 30, 4
DATA = ("adaptive", "frames", "scene")
BANKS = ("estimated", "simulated")
STILL = PairSettings(
    **{f"{scene}_weight": float(scene == "identity") for scene in PairSettings().weights()},
    noise=(0, 0), jpeg_share=0, saturation_share=0,
)  # fmt: skip
"""Sharp crops, to be blurred in other ways than Eq. 2's."""

Pool = tuple[Tensor, Tensor]


def wanted(seeds: list[int], banks: Path | None) -> Iterator[dict[str, Any]]:
    """Every run, seeds outermost: whenever it is cut off, each comparison has as many seeds."""
    for seed in seeds:
        for variant in VARIANTS:
            for network in SMALL:
                yield {"network": network, "variant": variant, "data": "adaptive", "seed": seed}
        for data in DATA[1:]:
            for network in SMALL:
                yield {"network": network, "variant": "off", "data": data, "seed": seed}
    for seed in seeds if banks else []:
        for data in BANKS:
            for network in BANKED:
                yield {"network": network, "variant": "off", "data": data, "seed": seed}


# Data


def pool(kind: str, photos: list[Path], count: int, seed: int, bank: Path | None = None) -> Pool:
    """Blurred and sharp (count, 3, SIZE, SIZE), kept in runs/ as 8 bit; kinds but `frames` by PairSampler."""
    path = POOLS / f"{kind}-{len(photos)}-{count}-{seed}.safetensors"
    if not path.exists():
        if kind != "frames":
            sampler = PairSampler(photos, bank, seed=seed, size=SIZE)
            blurred, sharp = stack_pairs([sampler[index] for index in range(count)])
        else:
            sampler = PairSampler(photos, seed=seed, size=SIZE + MARGIN, settings=STILL)
            made = [
                averaged_frames(sampler[index].sharp, SIZE, seed * count + index) for index in range(count)
            ]
            blurred, sharp = (torch.stack(side) for side in zip(*made, strict=True))
        POOLS.mkdir(parents=True, exist_ok=True)
        levels = {"blurred": (blurred * 255).round().byte(), "sharp": (sharp * 255).round().byte()}
        part = path.with_suffix(".part")
        save_file(levels, part)
        part.replace(path)
    kept = load_file(path)
    return kept["blurred"].float() / 255, kept["sharp"].float() / 255


def training_pool(data: str, photos: list[Path], seed: int, banks: Path | None) -> Pool:
    """What a run is trained on: STEPS · BATCH pairs."""
    shown = photos[:: max(1, len(photos) // SCENE_PHOTOS)][:SCENE_PHOTOS] if data == "scene" else photos
    bank = banks / f"{data}.safetensors" if banks and data in BANKS else None
    return pool("frames" if data == "scene" else data, shown, STEPS * BATCH, seed, bank)


class Scored:
    """The pictures that every run is scored on, and the scores of the blurred ones."""

    def __init__(self, data: Path, held: list[Path]) -> None:
        pairs = data / "pairs"
        lai = find_benchmark("lai-uniform").cases(pairs / "Lai")
        files = {
            "GoPro": [(pair.blurred, pair.sharp) for pair in find_pairs(pairs / "GoPro").pairs],
            "REDS": [(pair.blurred, pair.sharp) for pair in find_pairs(pairs / "REDS").pairs],
            "Koehler": [(pair.blurred, pair.sharp) for pair in koehler_pairs(pairs / "Koehler")[::2]],
            "Lai": [(case.blurred, case.truth[0]) for case in lai],
        }
        self.pictures = {
            name: [tuple(centre(read_picture(path), CROP) for path in both) for both in listed]
            for name, listed in files.items()
        }
        for kind in ("adaptive", "frames"):
            self.pictures[kind] = list(zip(*pool(kind, held, HELD, 10**6), strict=True))
        self.before = {name: self._scores(name, [b for b, _ in p]) for name, p in self.pictures.items()}

    def _scores(self, name: str, outputs: list[Tensor]) -> list[tuple[float, float]]:
        """PSNR and SSIM of each output of a set."""
        scores = []
        for output, (_, sharp) in zip(outputs, self.pictures[name], strict=True):
            if name in ("Koehler", "Lai"):
                together = align(output, sharp, gain=name == "Koehler")
                moved, true = together.restored.clamp(0, 1), together.sharp
                scores.append((float(psnr_aligned(together)), float(ssim_gauss_rgb(moved, true))))
            else:
                scores.append((float(psnr_rgb(output, sharp)), float(ssim_gauss_rgb(output, sharp))))
        return scores

    @torch.no_grad()
    def gains(self, model: nn.Module) -> dict[str, dict[str, list[float]]]:
        """For each set, each picture's gain in PSNR (dB) and SSIM over the blurred input."""
        model.eval()
        result = {}
        for name, pictures in self.pictures.items():
            outputs = [model(blurred[None])[0].clamp(0, 1) for blurred, _ in pictures]
            pairs = list(zip(self._scores(name, outputs), self.before[name], strict=True))
            result[name] = {
                "psnr": [round(after[0] - before[0], 4) for after, before in pairs],
                "ssim": [round(after[1] - before[1], 5) for after, before in pairs],
            }
        return result


# Runs


def started(network: str, variant: str, seed: int) -> nn.Module:
    """A new network: the weights of a seed are those of the network without module, whatever the variant."""
    torch.manual_seed(seed)
    plain = create(network, **SMALL[network])
    if variant == "off":
        return plain
    model = create(network, low_rank=VARIANTS[variant], **SMALL[network])
    unknown = model.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    assert not unknown, unknown
    return model


def trained(network: str, variant: str, seed: int, data: Pool) -> tuple[nn.Module, dict[str, Any]]:
    """Train a network on pairs, each once, BATCH in a step; also its parameters, losses and seconds."""
    begun = time.process_time()
    model = started(network, variant, seed)
    optimizer = torch.optim.Adam(model.parameters())
    weights = getattr(model, "scale_weights", None)
    losses: list[float] = []
    steps = len(data[0]) // BATCH
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
    return model, {
        "parameters": parameters(model),
        "loss": [round(statistics.fmean(losses[i : i + 100]), 6) for i in range(0, steps, 100)],
        "seconds": round(time.process_time() - begun, 1),
    }


def run(key: dict[str, Any], photos: list[Path], scored: Scored, banks: Path | None) -> dict[str, Any]:
    """Train and score one network."""
    data = training_pool(key["data"], photos, key["seed"], banks)
    model, facts = trained(key["network"], key["variant"], key["seed"], data)
    return key | facts | {"gains": scored.gains(model)}


FIELDS = ("network", "variant", "data", "seed")


def read_log(path: Path, fields: Sequence[str] = FIELDS) -> Log:
    """The lines of a log by the values of fields."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {tuple(row[field] for field in fields): row for row in rows}


def write(path: Path, row: dict[str, Any]) -> None:
    """Append a line; other processes wait."""
    with path.open("a", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.write(json.dumps(row) + "\n")


def run_all(options: argparse.Namespace) -> None:
    """Run what is not in the log; `--part 1/2` takes every second run, for two processes."""
    torch.set_num_threads(1)
    photos = sorted(find_photos(options.sharp))
    held, trained = photos[-HELD_PHOTOS:], photos[:-HELD_PHOTOS]
    scored = Scored(options.data, held)
    part, parts = map(int, options.part.split("/"))
    if BEFORE not in read_log(options.log):
        write(options.log, dict(zip(FIELDS, BEFORE, strict=True)) | {"before": scored.before})
    for number, key in enumerate(wanted(options.seeds, options.banks)):
        if tuple(key.values()) in read_log(options.log) or number % parts != part - 1:
            continue
        row = run(key, trained, scored, options.banks)
        write(options.log, row)
        means = {name: round(statistics.fmean(gain["psnr"]), 3) for name, gain in row["gains"].items()}
        print(*key.values(), f"{row['seconds']} s", means, flush=True)


Act = Callable[[argparse.Namespace], None]


def commands(
    about: str, log: Path, run: Act, report: Act
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """A parser with `run` and `report`, and the one of `run`, which may want more."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    both = parser.add_subparsers(required=True)
    running, reporting = both.add_parser("run"), both.add_parser("report")
    running.add_argument("--sharp", type=Path, required=True, help="folder of sharp photographs")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.set_defaults(act=run)
    reporting.add_argument("--write", action="store_true", help="put the tables into the document")
    reporting.set_defaults(act=report)
    for command in (running, reporting):
        command.add_argument("--log", type=Path, default=log)
    return parser, running


def main() -> None:
    parser, running = commands(
        __doc__ or "", LOG, run_all, lambda options: report(read_log(options.log), write=options.write)
    )
    running.add_argument(
        "--data", type=Path, required=True, help="folder with pairs/GoPro, REDS, Koehler, Lai"
    )
    running.add_argument(
        "--banks", type=Path, help="folder with estimated.safetensors, simulated.safetensors"
    )
    running.add_argument("--part", default="1/1", help="1/2 and 2/2 share the runs between two processes")
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

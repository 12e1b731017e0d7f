"""The default on every development pair, its slow half kept: to try checks, or other weights.

    python benchmarks/checks.py keep --data DATA --kept FOLDER [--sets GoPro REDS]      # 30 s a picture, once
    python benchmarks/checks.py score --data DATA --kept FOLDER                         # 3 s a picture
    python benchmarks/checks.py score --data DATA --kept FOLDER --filler CHECKPOINT --witness CHECKPOINT

(With `--fast` after both for what `unsmear deblur --fast` does, in a folder of its own.)

`keep` stores the estimated kernels of each pair and what guided-s makes of them. `score` has `Deblurrer` do
the rest with that: the checks, the other networks (or those given), mixing, rounding to 8 bit. Gains are over
the blurred input in dB: GoPro and REDS RGB, Köhler by shift up to 128 (--shift) and gain against one preview
frame, Lai and Levin by shift. DATA holds pairs/GoPro, REDS, Koehler, Lai and Levin as they were downloaded.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from development import koehler_pairs
from unsmear.estimation.field import KernelField
from unsmear.evaluation import find_pairs
from unsmear.evaluation.benchmarks import find_benchmark
from unsmear.evaluation.benchmarks.base import read_picture
from unsmear.metrics import psnr_rgb, psnr_shift, psnr_shift_gain
from unsmear.models import by_kernels
from unsmear.models.by_kernels import (
    ESTIMATE_PIXELS,
    FAST_PIXELS,
    FILLER,
    WITNESS,
    Deblurrer,
    Estimate,
    GuidedPixels,
    estimate_kernels,
    reduced_luma,
)
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.tiling import Pixels, TensorPixels, TiledRestorer

Score = Callable[[Tensor, Tensor], Tensor]
SHIFT = 128
SETS: dict[str, Score] = {
    "GoPro": psnr_rgb,
    "REDS": psnr_rgb,
    "Koehler": partial(psnr_shift_gain, max_shift=SHIFT),
    "Lai": psnr_shift,
    "Levin": psnr_shift,
}
BENCHMARKS = {"Lai": "lai-uniform", "Levin": "levin"}


def pairs(name: str, folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, blurred and sharp picture (3, H, W)."""
    if name in BENCHMARKS:
        files = [
            (c.blurred.stem, c.blurred, c.truth[0]) for c in find_benchmark(BENCHMARKS[name]).cases(folder)
        ]
    else:
        found = koehler_pairs(folder) if name == "Koehler" else find_pairs(folder).pairs
        files = [(pair.blurred.stem, pair.blurred, pair.sharp) for pair in found]
    for stem, *paths in files:
        blurred, sharp = (read_picture(path).expand(3, -1, -1).contiguous() for path in paths)
        yield stem, blurred, sharp


class Kept(Deblurrer):
    """Gives what guided-s made, and does the rest itself."""

    def __init__(self, restored: Tensor, witness: TiledRestorer, filler: TiledRestorer, mix: bool) -> None:
        super().__init__(TiledRestorer(torch.nn.Identity()), witness=witness, filler=filler, mix=mix)
        self.restored = restored

    def _restore_guided(self, source: Pixels, field: KernelField, target: Pixels, progress: Any) -> Pixels:
        target.put(self.restored, row=0)
        whole = {"rows": slice(0, source.height), "columns": slice(0, source.width)}
        return TensorPixels(GuidedPixels(source, field).tensor(**whole)[6:].clamp(0, 1))


def write(path: Path, estimate: Estimate, restored: Tensor) -> None:
    field = estimate.field
    tensors = {"restored": restored.half(), "kernels": field.kernels}
    tensors |= {"rows": torch.from_numpy(field.rows), "columns": torch.from_numpy(field.columns)}
    if field.shares is not None:
        tensors["shares"] = field.shares
    facts = {"apart": field.apart, "factor": estimate.factor, "nothing": estimate.nothing}
    part = path.with_suffix(".part")
    save_file({name: x.contiguous() for name, x in tensors.items()}, part, {"facts": json.dumps(facts)})
    part.replace(path)


def read(path: Path, blurred: Tensor) -> tuple[Estimate, Tensor]:
    with safe_open(path, "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["facts"])
    nodes = (kept["rows"].numpy(), kept["columns"].numpy())
    field = KernelField(kept["kernels"], *nodes, kept.get("shares"), facts["apart"])
    grey = reduced_luma(TensorPixels(blurred))[0]
    return Estimate(grey, field, facts["factor"], facts["nothing"]), kept["restored"].float()


def keep(options: argparse.Namespace) -> None:
    guided = TiledRestorer(load_checkpoint("guided-s"))
    for name in options.sets:
        for stem, blurred, _ in pairs(name, options.data / "pairs" / name):
            path = options.kept / f"{name}-{stem}.safetensors"
            if path.exists():
                continue
            if blurred[0].numel() > ESTIMATE_PIXELS:
                raise SystemExit(f"{name} {stem}: of more than a megapixel, of which a copy would be checked")
            source, restored = TensorPixels(blurred), TensorPixels(torch.empty_like(blurred))
            judge, pixels = (None, FAST_PIXELS) if options.fast else (guided, ESTIMATE_PIXELS)
            estimate = estimate_kernels(source, judge, pixels=pixels)
            guided.restore(GuidedPixels(source, estimate.field.scaled(estimate.factor)), restored)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, estimate, restored.values)
            print(path, flush=True)


def score(options: argparse.Namespace) -> None:
    others = [TiledRestorer(load_checkpoint(name)) for name in (options.witness, options.filler)]
    scores = SETS | {"Koehler": partial(psnr_shift_gain, max_shift=options.shift)}
    print("| set | mean | least | largest | worse | untouched |\n|---|---:|---:|---:|---:|---:|")
    for name in options.sets:
        gains, untouched = [], 0
        for stem, blurred, sharp in pairs(name, options.data / "pairs" / name):
            estimate, restored = read(options.kept / f"{name}-{stem}.safetensors", blurred)
            by_kernels.estimate_kernels = lambda *_, found=estimate, **__: found  # type: ignore[assignment]
            result = TensorPixels(torch.empty_like(blurred))
            Kept(restored, *others, mix=not options.fast).restore(TensorPixels(blurred), result)
            output = (result.values.clamp(0, 1) * 255).round() / 255
            untouched += torch.equal(output, blurred)
            gains.append(float(scores[name](output, sharp) - scores[name](blurred, sharp)))
        worse = sum(gain < -0.005 for gain in gains)
        mean = statistics.fmean(gains)
        print(
            f"| {name} ({len(gains)}) | {mean:+.2f} | {min(gains):+.2f} | {max(gains):+.2f} "
            f"| {worse} | {untouched} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for act in (keep, score):
        command = commands.add_parser(act.__name__)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--kept", type=Path, required=True, help="folder of what `keep` found")
        command.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
        command.add_argument("--fast", action="store_true")
        command.set_defaults(act=act)
    command.add_argument("--witness", default=WITNESS)
    command.add_argument("--filler", default=FILLER)
    command.add_argument("--shift", type=int, default=SHIFT, help="largest shift tried of Köhler's pictures")
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()

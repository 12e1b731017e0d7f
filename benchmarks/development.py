"""The development pairs in one Markdown table: does a checkpoint gain everywhere and leave sharp photos be?

    python benchmarks/development.py --data DATA checkpoint.safetensors another.safetensors
    python benchmarks/development.py --data DATA --fast runs/*/best.safetensors     # a quick look

DATA holds pairs/GoPro, pairs/REDS, pairs/Koehler (BlurryImages + preview_ground_truth) and sharp/. A MODEL is
whatever `unsmear evaluate` takes. Köhler is scored after the best shift and gain against ONE preview frame of
each image, a JPEG, not against the official 199 lossless frames: its figures compare models here and
with nothing published. The row of sharp photographs is the PSNR of the output to the photograph itself: 35 dB
and more cannot be seen; a model that does nothing reaches infinity.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from unsmear.errors import UnsmearError
from unsmear.evaluation import Evaluation, PairFiles, evaluate
from unsmear.photo import find_photos

WANTED_ON_SHARP = 35.0
SHARP = "sharp photographs"
FAST = {"crop": 512, "limit": 6}


def koehler_pairs(folder: Path) -> list[PairFiles]:
    """Every trajectory of an image with the one preview frame there is of that image."""
    truths = {
        path.stem.split("_")[0].removeprefix("GroundTruth"): path
        for path in find_photos(folder / "preview_ground_truth")
    }
    blurred = sorted(
        find_photos(folder / "BlurryImages"),
        key=lambda path: tuple(map(int, path.stem.removeprefix("Blurry").split("_"))),
    )
    return [
        PairFiles(path.stem, path, truths[path.stem.removeprefix("Blurry").split("_")[0]]) for path in blurred
    ]


def sharp_pairs(folder: Path, count: int) -> list[PairFiles]:
    """Sharp photographs as pairs with themselves, spread evenly over the folder."""
    photos = find_photos(folder)
    chosen = [
        photos[(2 * place + 1) * len(photos) // (2 * count)] for place in range(min(count, len(photos)))
    ]
    return [PairFiles(path.stem, path, path) for path in chosen]


def measure(model: str, data: Path, *, fast: bool, sharp: int, device: str) -> dict[str, Evaluation]:
    options = FAST if fast else {"crop": None, "limit": None}
    common = {"device": device, "contact_sheet": False, "progress": True, **options}
    pairs = data / "pairs"
    return {
        "GoPro": evaluate(model, pairs / "GoPro", **common),
        "REDS": evaluate(model, pairs / "REDS", **common),
        "Köhler, one preview frame": evaluate(
            model, koehler_pairs(pairs / "Koehler"), align="shift-gain", **common
        ),
        SHARP: evaluate(model, sharp_pairs(data / "sharp", sharp), **common),
    }


def markdown(results: dict[str, dict[str, Evaluation]]) -> str:
    """Rows: sets; columns: models, each as mean (gain over the input; how many pictures became worse)."""
    first = next(iter(results.values()))
    lines = [
        "| set | metric | input | " + " | ".join(results) + " |",
        "|---|---|---|" + "---|" * len(results),
    ]
    for name in first:
        protocol, count = first[name].protocol, len(first[name].scores)
        before, metric, cell = f"{first[name].mean('psnr_input'):.2f}", protocol.metrics[0].name, gain_cell
        if name == SHARP:
            before, metric, cell = "", protocol.metrics[0].name + " to the input", sharp_cell
        cells = " | ".join(cell(sets[name]) for sets in results.values())
        lines.append(f"| {name} ({count}) | {metric} | {before} | {cells} |")
    for name in [name for name in first if name != SHARP]:
        cells = " | ".join(
            f"{sets[name].mean('ssim_output'):.4f} ({sets[name].mean('ssim_gain'):+.4f})"
            for sets in results.values()
        )
        before = f"{first[name].mean('ssim_input'):.4f}"
        lines.append(f"| {name} | {first[name].protocol.metrics[1].name} | {before} | {cells} |")
    seconds = " | ".join(f"{sets['GoPro'].mean('seconds'):.2f}" for sets in results.values())
    lines.append(f"| GoPro | seconds a picture | | {seconds} |")
    return "\n".join(lines).replace("nan", "–")


def gain_cell(result: Evaluation) -> str:
    worse = sum(score.psnr_gain < 0 for score in result.scores)
    return f"{result.mean('psnr_output'):.2f} ({result.mean('psnr_gain'):+.2f}; {worse} worse)"


def sharp_cell(result: Evaluation) -> str:
    values = [score.psnr_output for score in result.scores]
    poor = sum(value < WANTED_ON_SHARP for value in values)
    return f"{statistics.fmean(values):.2f} (least {min(values):.2f}; {poor} below {WANTED_ON_SHARP:g})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", default=["input"], help="default: the blurred input"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/ and sharp/")
    parser.add_argument("--fast", action="store_true", help="the middle 512×512 of 6 pictures of each set")
    parser.add_argument("--sharp", type=int, default=24, help="how many sharp photographs")
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args(arguments)
    failed, results = 0, {}
    for model in chosen.models:
        try:
            results[model] = measure(
                model, chosen.data, fast=chosen.fast, sharp=chosen.sharp, device=chosen.device
            )
        except UnsmearError as error:
            print(f"{model}: {error}", file=sys.stderr)
            failed = 1
            continue
        for name, result in results[model].items():
            for failure in result.failures:
                print(f"{model}, {name}, {failure.name}: {failure.reason}", file=sys.stderr)
                failed = 1
    if results:
        part = ", the middle 512×512 of at most 6 pictures a set" if chosen.fast else ""
        print(f"Mean over pictures{part}; PSNR in dB.\n\n{markdown(results)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())

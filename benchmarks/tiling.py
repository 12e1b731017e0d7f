"""What tiles cost: gain over the blurred input, restored whole and in tiles, by overlap and by statistics.

    python benchmarks/tiling.py CHECKPOINT PAIRS... [--limit 2] [--tile 384] [--overlaps 0 32 64 128]

Prints a table for docs/DEBLURRING.md: gain in dB (psnr_rgb of the restored picture, 8 bit, minus that of
the blurred one), the largest distance of a gain from the whole picture's, the PSNR of tiled against whole,
and seconds of the processor, not of the clock, per megapixel: they stand on a busy machine too.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from unsmear.evaluation.layouts import find_pairs
from unsmear.metrics import psnr_rgb
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.tiling import TiledRestorer
from unsmear.photo import Photo, read_photo


def restored(photo: Photo, restorer: TiledRestorer) -> tuple[Photo, float]:
    target, start = photo.blank_like(), time.process_time()
    restorer.restore(photo, target)
    return target, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=2, help="pairs of each set")
    parser.add_argument("--tile", type=int, default=384)
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 32, 64, 128])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = load_checkpoint(arguments.checkpoint)
    ways = {"whole picture": TiledRestorer(network, precision=arguments.precision)}
    for other in ("fp32", "bf16"):
        if other != arguments.precision:
            ways[f"whole picture, {other}"] = TiledRestorer(network, precision=other)
    for overlap in arguments.overlaps:
        for kind in ("whole", "tile"):
            ways[f"tiles of {arguments.tile}, overlap {overlap}, statistics of the {kind}"] = TiledRestorer(
                network, precision=arguments.precision, statistics=kind, tile=arguments.tile, overlap=overlap
            )
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for folder in arguments.pairs:
        pairs = find_pairs(folder).pairs
        for pair in pairs[:: max(1, len(pairs) // arguments.limit)][: arguments.limit]:
            blurred, sharp = read_photo(pair.blurred), read_photo(pair.sharp).tensor()
            before, whole = psnr_rgb(blurred.tensor(), sharp), None
            for name, restorer in ways.items():
                result, seconds = restored(blurred, restorer)
                whole = whole or result
                gain = (psnr_rgb(result.tensor(), sharp) - before).item()
                same = (
                    psnr_rgb(result.tensor(), whole.tensor()).item() if result is not whole else float("inf")
                )
                rows[name].append((gain, same, seconds / blurred.height / blurred.width * 1e6))
                print(f"{pair.name:40} {name:55} {gain:+.3f} dB {same:6.1f} dB", flush=True)
    print(f"\n{len(rows['whole picture'])} pictures, {arguments.checkpoint}, {arguments.precision}\n")
    print("| | gain, dB | from whole, dB (largest) | PSNR to whole, dB (lowest) | s/MP (processor) |")
    print("|---|---:|---:|---:|---:|")
    reference = [gain for gain, _, _ in rows["whole picture"]]
    for name, values in rows.items():
        gains, same, seconds = zip(*values, strict=True)
        away = max((g - r for g, r in zip(gains, reference, strict=True)), key=abs)
        print(
            f"| {name} | {statistics.fmean(gains):+.3f} | {away:+.3f} | {min(same):.1f} "
            f"| {statistics.median(seconds):.1f} |"
        )


if __name__ == "__main__":
    main()

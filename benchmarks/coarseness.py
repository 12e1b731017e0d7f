"""At which size is a photo restored best whose kernels were estimated on a smaller copy?

    python benchmarks/coarseness.py --data DATA [--every 2]
    python benchmarks/coarseness.py --data DATA --alone

Real and simulated blur with its truth, estimates as the fast way makes them (one kernel, or a turning
camera's, for all of the picture), but on a copy reduced by r = 2, 3 and 4, as a photo of 4, 9 and 16
megapixels is by default. With the same estimate the guided network then restores the picture itself, and
copies of it reduced by 2 up to r, whose change is enlarged (models/by_kernels.py); total variation's
share and the belief in the kernels are those of `unsmear deblur`. Printed are, for each set and r, the
mean gains over the blurred picture: of all that was restored, and drawn back by the belief (that times
the gain, about what the command gives).

GoPro (8), and every --every'th of Köhler (24, by shift and gain) and Lai's uniform ones (20, by shift).

--alone: what restores without kernels (nafnet-s), on parts of three REDS and three GoPro frames, as they are
and enlarged up to four times, blur and all; restored at 1/n likewise.
"""

import argparse
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F

from development import koehler_pairs
from unsmear.blurring import luma
from unsmear.evaluation import find_pairs
from unsmear.evaluation.benchmarks import find_benchmark
from unsmear.evaluation.benchmarks.base import read_picture
from unsmear.metrics import align, psnr_aligned, psnr_rgb
from unsmear.models import by_kernels
from unsmear.models.by_kernels import BOLD, FILLER, TAP, WITNESS, Deblurrer, estimate_kernels
from unsmear.models.checking import ramp
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.tiling import TensorPixels, TiledRestorer

RATIOS = (2, 3, 4)
PART = slice(100, 600), slice(300, 980)
Gain = tuple[float, float]


def pictures(data: Path, every: int) -> dict[str, list[tuple[Path, Path]]]:
    """Blurred and sharp files of each set."""
    pairs = data / "pairs"
    koehler = [(pair.blurred, pair.sharp) for pair in koehler_pairs(pairs / "Koehler")]
    lai = [(case.blurred, case.truth[0]) for case in find_benchmark("lai-uniform").cases(pairs / "Lai")]
    return {
        "GoPro": [(pair.blurred, pair.sharp) for pair in find_pairs(pairs / "GoPro").pairs],
        "Köhler": koehler[::every],
        "Lai": lai[::every],
    }


def gains(restorer: Deblurrer, of: str, blurred: Path, sharp: Path) -> dict[tuple[int, int], Gain]:
    """For each r and each size to restore at, the gain and the gain by belief."""
    v, u = read_picture(blurred), read_picture(sharp)

    def psnr(picture: torch.Tensor) -> float:
        return float(psnr_aligned(align(picture.clamp(0, 1), u, gain=of == "Köhler")))

    before, source = psnr(v), TensorPixels(v)
    result = {}
    for ratio in RATIOS:
        estimate = estimate_kernels(source, pixels=round(v[0].numel() / ratio**2))
        field = estimate.field.scaled(estimate.factor)
        for coarseness in range(1, ratio + 1):
            target = source.blank_like()
            bolder = restorer._restore_guided(source, field, target, lambda _: None, coarseness)
            left, believed, _, _ = restorer._checked(v, field, luma(target.values), 1.0)
            calm = bolder.tensor(rows=slice(0, source.height), columns=slice(0, source.width))
            bold = by_kernels._BOLDEST * ramp(left, *BOLD)
            gain = psnr(torch.lerp(target.values, calm, bold)) - before
            result[ratio, coarseness] = (gain, believed * gain)
    return result


def alone(data: Path) -> None:
    """Print what the network without kernels gains on enlarged frames."""
    network = TiledRestorer(load_checkpoint(FILLER))
    files = [*find_pairs(data / "pairs" / "REDS").pairs, *find_pairs(data / "pairs" / "GoPro").pairs[1::3]]
    print("| enlarged | restored at 1/n, gain in dB |\n|---|---|")
    for times in (1, 2, 3, 4):
        sizes = range(1, max(2, times) + 1)
        rows = []
        for pair in files:
            v, u = (read_picture(path)[:, *PART] for path in (pair.blurred, pair.sharp))
            if times > 1:
                v, u = (
                    F.interpolate(x[None], scale_factor=times, mode="bicubic")[0].clamp(0, 1) for x in (v, u)
                )
            row = []
            for box in sizes:
                target = TensorPixels(torch.empty_like(v))
                by_kernels._restore_coarsely(network, TensorPixels(v), target, box, lambda _: None)
                row.append(float(psnr_rgb(target.values, u) - psnr_rgb(v, u)))
            rows.append(row)
        means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        cells = (f"1/{box}: {mean:+.2f}" for box, mean in zip(sizes, means, strict=True))
        print(f"| {times} | {', '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with pairs/GoPro, Koehler, Lai")
    parser.add_argument("--every", type=int, default=2, help="of Köhler and Lai")
    parser.add_argument("--alone", action="store_true", help="the network that restores without kernels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        return alone(options.data)
    network, witness = (TiledRestorer(load_checkpoint(name)) for name in ("guided-s", WITNESS))
    restorer = Deblurrer(network, witness=witness, areas=False)
    print(
        f"| set | r | restored at 1/n, gain in dB (by belief); n = r/{TAP} is the command's |\n|---|---|---|"
    )
    for of, files in pictures(options.data, options.every).items():
        rows = [gains(restorer, of, *both) for both in files]
        for ratio in RATIOS:
            cells = []
            for coarseness in range(1, ratio + 1):
                always, drawn = (
                    statistics.fmean(row[ratio, coarseness][place] for row in rows) for place in (0, 1)
                )
                cells.append(f"1/{coarseness}: {always:+.2f} ({drawn:+.2f})")
            print(f"| {of} ({len(rows)}) | {ratio} | {', '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Stand-ins of the public downloads in layout and full size, read and scored, with time and memory.

    python benchmarks/full_size.py make FOLDER               # 1,111 + 48×199 + 980 pictures, 160 MB of disk
    python benchmarks/full_size.py run FOLDER koehler        # the blurred input, by its own protocol
    python benchmarks/full_size.py run FOLDER koehler        # stopped? the same call goes on

The pictures are textures, few of them distinct: all others are hard links. Scores go to FOLDER/NAME.csv, a
line as soon as a case is done, and a later run leaves out what is there. Printed: seconds of `cases`, seconds
of the clock and of the processor a case, and the largest resident memory. This script times readers and
protocols alone; `unsmear tables` scores models.
"""

import argparse
import csv
import resource
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d

from unsmear.evaluation import find_benchmark, find_protocol
from unsmear.evaluation.benchmarks.gopro import TEST_SEQUENCES
from unsmear.evaluation.benchmarks.koehler import used_frames
from unsmear.photo import read_photo

DISTINCT = 8
REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"


def texture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Edges and grain, about as costly to decode as a photograph."""
    random = np.random.default_rng(seed)
    coarse = gaussian_filter(random.normal(size=(height, width, 3)), (12, 12, 0.5))
    values = 128 + 60 * np.sign(coarse) * np.minimum(np.abs(coarse) / coarse.std(), 1)
    fine = 25 * gaussian_filter(random.normal(size=(height, width, 1)), (1, 1, 0)) + 2 * random.normal(
        size=(height, width, 3)
    )
    return np.clip(values + fine, 0, 255).astype(np.uint8)


def moved_mean(pixels: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    return uniform_filter1d(pixels.astype(np.float32), length, axis=1).round().astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(to)


def make_pairs(store: Path, height: int, width: int) -> list[tuple[Path, Path]]:
    """Blurred and sharp files of DISTINCT pictures."""
    found = []
    for number in range(DISTINCT):
        pixels = texture(number, height, width)
        found.append(
            (
                save(store / f"{number}_blurred.png", moved_mean(pixels, 9 + 2 * number)),
                save(store / f"{number}_sharp.png", pixels),
            )
        )
    return found


def make(folder: Path) -> None:
    pairs = make_pairs(folder / "store/gopro", 720, 1280)
    for place, (name, count) in enumerate(TEST_SEQUENCES.items()):
        for frame in range(1, count + 1):
            blurred, sharp = pairs[(place + frame) % DISTINCT]
            for kind, source in (("blur", blurred), ("sharp", sharp)):
                link(folder / f"gopro/GOPRO_Large/test/{name}/{kind}/{frame:06d}.png", source)
    pairs = make_pairs(folder / "store/realblur", 773, 680)
    lines = []
    for number in range(980):
        blurred, sharp = pairs[number % DISTINCT]
        names = [
            f"{REALBLUR}/scene{number // 20:03d}/{kind}/{kind}_{number % 20 + 1}.png"
            for kind in ("gt", "blur")
        ]
        for name, source in zip(names, (sharp, blurred), strict=True):
            link(folder / "realblur-j" / name, source)
        lines.append(" ".join(names) + " \n")
    (folder / "realblur-j/RealBlur_J_test_list.txt").write_text("".join(lines), encoding="utf-8")
    random = np.random.default_rng(0)
    for image in range(1, 5):
        scene = texture(100 + image, 840, 840)
        frames = []
        for number in range(4 * DISTINCT):
            down, right = random.integers(0, 40, 2)
            cut = scene[down : down + 800, right : right + 800]
            frames.append(save(folder / f"store/koehler/{image}_{number}.png", cut))
        blurred = save(folder / f"store/koehler/{image}.png", moved_mean(scene, 15)[20:820, 20:820])
        for trajectory in range(1, 13):
            link(folder / f"koehler/BlurryImages/Blurry{image}_{trajectory}.png", blurred)
            for number in used_frames(image, trajectory):
                name = f"Image{image}/Kernel{trajectory}/GroundTruth{image}_{trajectory}_{number}.png"
                link(folder / "koehler" / name, frames[(number + trajectory) // 7 % len(frames)])


def run(folder: Path, name: str, limit: int | None) -> None:
    benchmark = find_benchmark(name)
    protocol = find_protocol(benchmark.protocol)
    start = time.perf_counter()
    cases = benchmark.cases(folder / name)
    print(f"{name}: {len(cases)} cases found in {time.perf_counter() - start:.1f} s")
    table = folder / f"{name}.csv"
    done = set()
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            done = {row[0] for row in csv.reader(file) if len(row) == 2 + len(protocol.metrics)}
        print(f"{len(done)} of them are in {table} already")
    walls, processor = [], []
    with table.open("a", encoding="utf-8", newline="") as file:
        for case in [case for case in cases if case.name not in done][:limit]:
            start, cpu = time.perf_counter(), time.process_time()
            scores = protocol.score(read_photo(case.blurred).tensor(), case)
            walls.append(time.perf_counter() - start)
            processor.append(time.process_time() - cpu)
            csv.writer(file).writerow([case.name, *(f"{v:.6f}" for v in scores.values()), f"{walls[-1]:.3f}"])
            file.flush()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if walls:
        print(
            f"{len(walls)} cases scored by {protocol.name}: {sum(walls):.0f} s, "
            f"{statistics.median(walls):.2f} s a case ({statistics.median(processor):.2f} s of the "
            f"processor), at most {memory:.0f} MB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("folder", type=Path)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=Path)
    runs.add_argument("names", nargs="*", default=["gopro", "koehler", "realblur-j"])
    runs.add_argument("--limit", type=int, default=None, help="so many cases a benchmark in this run")
    chosen = parser.parse_args()
    if chosen.command == "make":
        make(chosen.folder)
    else:
        for name in chosen.names:
            run(chosen.folder, name, chosen.limit)


if __name__ == "__main__":
    main()

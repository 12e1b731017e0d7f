"""Before and after: a region of each photograph, blurred on the left, restored on the right.

    python benchmarks/pictures.py PHOTO... -o docs/pictures [--model MODEL] [--side 480] [--at ROW,COLUMN]

The region is where the network changed most, at full size: a whole photograph made smaller hides its blur.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import unsmear
from unsmear import Photo, read_photo, write_photo
from unsmear.deblurring import DEFAULT_MODEL

GAP = 6  # white columns between the two
STEP = 16  # pixels from one region that is tried to the next


def where_most_changed(before: NDArray[np.uint8], after: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Row and column of the `side`×`side` region with the largest mean change."""
    change = np.abs(before.astype(np.int16) - after).sum(axis=2)
    sums = np.pad(change, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    height, width = min(side, change.shape[0]), min(side, change.shape[1])
    total = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    row, column = np.unravel_index(int(total[::STEP, ::STEP].argmax()), total[::STEP, ::STEP].shape)
    return int(row) * STEP, int(column) * STEP


def eight_bit_rgb(photo: Photo) -> NDArray[np.uint8]:
    """(H, W, 3), without transparency."""
    levels = (photo.pixels >> (photo.bit_depth - 8)).astype(np.uint8)
    return levels[..., [0, 0, 0]] if photo.is_grey else levels[..., :3]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--side", type=int, default=480, help="of the region, in pixels")
    parser.add_argument("--at", help="ROW,COLUMN of the region's corner, instead of where most changed")
    wanted = parser.parse_args()
    wanted.output.mkdir(parents=True, exist_ok=True)
    for path in wanted.photos:
        photo = read_photo(path)
        started = time.perf_counter()
        restored = unsmear.deblur(photo, model=wanted.model)
        seconds = time.perf_counter() - started
        before, after = eight_bit_rgb(photo), eight_bit_rgb(restored)
        place = wanted.at and tuple(map(int, wanted.at.split(",")))
        row, column = place or where_most_changed(before, after, wanted.side)
        parts = [image[row : row + wanted.side, column : column + wanted.side] for image in (before, after)]
        gap = np.full((parts[0].shape[0], GAP, 3), 255, np.uint8)
        target = wanted.output / f"{path.stem}.jpg"
        write_photo(Photo(pixels=np.hstack([parts[0], gap, parts[1]])), target, overwrite=True, quality=90)
        print(
            f"{target}: {photo.width}×{photo.height} in {seconds:.1f} s, region at row {row}, column {column}"
        )


if __name__ == "__main__":
    main()

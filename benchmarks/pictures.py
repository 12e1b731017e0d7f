"""Before and after: a region of each photograph, blurred on the left, restored on the right.

    python benchmarks/pictures.py PHOTO... -o docs/pictures [--model MODEL] [--side 480] [--at ROW,COLUMN ...]
    unsmear deblur RealBlur_J -o results
    python benchmarks/pictures.py RealBlur_J/*.png -o FOLDER --restored results --side 300 --sheet ten.jpg

The region is where the network changed most, at full size: a whole photograph made smaller hides its blur; or
by --at, once for all or once for each, `most` for the first way.
With --restored the restored photographs are read, not made; with --sheet one picture holds them all, row by
row in two columns.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import unsmear
from unsmear import Photo, read_photo, write_photo
from unsmear.deblurring import DEFAULT_MODEL

GAP = 6  # white columns between the two
ACROSS = 2  # in a row of a sheet
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
    parser.add_argument("--at", nargs="+", default=["most"], help="ROW,COLUMN of regions' corners, or most")
    parser.add_argument("--restored", type=Path, help="folder of photographs of the same names, restored")
    parser.add_argument("--sheet", help="name of one picture for all")
    parser.add_argument("--prefix", default="", help="of the names of the pictures")
    wanted = parser.parse_args()
    wanted.output.mkdir(parents=True, exist_ok=True)
    made = []
    places = wanted.at * len(wanted.photos) if len(wanted.at) == 1 else wanted.at
    for path, place in zip(wanted.photos, places, strict=True):
        photo = read_photo(path)
        if wanted.restored:
            restored = read_photo(wanted.restored / path.name)
        else:
            restored = unsmear.deblur(photo, model=wanted.model)
        before, after = eight_bit_rgb(photo), eight_bit_rgb(restored)
        if place == "most":
            row, column = where_most_changed(before, after, wanted.side)
        else:
            row, column = map(int, place.split(","))
        parts = [image[row : row + wanted.side, column : column + wanted.side] for image in (before, after)]
        made.append(beside(parts, GAP))
        if not wanted.sheet:
            write(made[-1], wanted.output / f"{wanted.prefix}{path.stem}.jpg")
        print(f"{path.stem}: {photo.width}×{photo.height}, region at row {row}, column {column}")
    if wanted.sheet:
        rows = [beside(made[index : index + ACROSS], 2 * GAP) for index in range(0, len(made), ACROSS)]
        turned = beside([row.transpose(1, 0, 2) for row in rows], 2 * GAP)
        write(turned.transpose(1, 0, 2), wanted.output / wanted.sheet)


def beside(parts: list[NDArray[np.uint8]], gap: int) -> NDArray[np.uint8]:
    """Pictures (H, W, 3) side by side on white, with so many white columns between them."""
    height = max(len(part) for part in parts)
    white = [np.full((height, gap, 3), 255, np.uint8)] * len(parts)
    filled = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in parts]
    return np.hstack([piece for pair in zip(filled, white, strict=True) for piece in pair][:-1])


def write(pixels: NDArray[np.uint8], target: Path) -> None:
    write_photo(Photo(pixels=np.ascontiguousarray(pixels)), target, overwrite=True, quality=90)


if __name__ == "__main__":
    main()

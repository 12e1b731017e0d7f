"""How long photographs take to read and write, and how much memory: the tables of docs/PHOTO.md.

Run: python benchmarks/photo.py [MEGAPIXELS...]      (default: 24 100; each measurement in a fresh process)
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyvips
import skimage.data

CASES = [("jpg", 8), ("png", 8), ("tif", 8), ("webp", 8), ("avif", 8), ("png", 16), ("tif", 16)]


def make(path: Path, megapixels: float, bits: int) -> None:
    """A photograph-like picture: a real one enlarged, with noise, so that no encoder has it easy."""
    height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
    width = height * 3 // 2
    small = pyvips.Image.new_from_array(skimage.data.astronaut()).copy(interpretation="srgb")
    large = small.resize(width / 512, vscale=height / 512)
    noisy = (large + pyvips.Image.gaussnoise(large.width, large.height, sigma=3)) * (257 if bits == 16 else 1)
    noisy = noisy.cast("ushort" if bits == 16 else "uchar").copy(
        interpretation="rgb16" if bits == 16 else "srgb"
    )
    noisy.write_to_file(str(path), **({"Q": 95} if path.suffix == ".jpg" else {"compression": 1}))


def measure(source: str, target: str) -> None:
    """Read, copy, write once in this process; print seconds and the peak in MB."""
    from unsmear.photo import read_photo, write_photo

    start = time.perf_counter()
    photo = read_photo(source)
    read = time.perf_counter()
    result = photo.blank_like()
    result.pixels[...] = photo.pixels
    both = time.perf_counter()
    write_photo(result, target)
    write = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pixels = (photo.pixels.nbytes + result.pixels.nbytes) / 2**20
    print(f"{read - start:.2f} {write - both:.2f} {pixels:.0f} {peak:.0f}")


def decode_rates(source: Path, repeats: int = 7) -> None:
    """Megapixels per second of JPEG decoding, ours and Pillow's turn by turn; the median of the ratios."""
    from PIL import Image

    from unsmear.photo import read_photo

    Image.MAX_IMAGE_PIXELS = None
    ours, theirs, eighth = [], [], []
    for _ in range(repeats):
        for times, read in (
            (ours, lambda: read_photo(source).pixels),
            (theirs, lambda: np.asarray(Image.open(source))),
            (eighth, lambda: read_photo(source, shrink=8).pixels),
        ):
            start = time.perf_counter()
            read()
            times.append(time.perf_counter() - start)
    ratio = statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
    print(
        f"JPEG decoding: unsmear {statistics.median(ours):.2f} s, Pillow {statistics.median(theirs):.2f} s, ",
        end="",
    )
    print(f"ratio {ratio:.2f}; shrink=8 {statistics.median(eighth):.2f} s")


def main(sizes: list[float]) -> None:
    """Print one line per size and format."""
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in sizes:
            for suffix, bits in CASES:
                if suffix in ("webp", "avif") and megapixels > 24:
                    continue  # minutes
                source = Path(folder, f"source{bits}.{'jpg' if bits == 8 else 'png'}")
                target = Path(folder, f"target.{suffix}")
                make(source, megapixels, bits)
                code = [sys.executable, __file__, "--one", str(source), str(target)]
                read, write, pixels, peak = subprocess.check_output(code, text=True).split()
                print(f"| {megapixels:g} | {source.suffix[1:]} → {suffix}, {bits} bit ", end="")
                print(f"| {read} | {write} | {pixels} | {peak} |", flush=True)
                target.unlink()
            decode_rates(Path(folder, "source8.jpg"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(*sys.argv[2:])
    else:
        main([float(size) for size in sys.argv[1:]] or [24, 100])

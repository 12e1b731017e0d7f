"""Peak memory and time of `unsmear deblur` by the photo's size, of the whole process.

    python benchmarks/memory.py CHECKPOINT [--megapixels 6 24 100] [--precision fp32 bf16] [--real-tiles 3]

The photo is made of scikit-image's coffee, side by side, as JPEG. Each size runs in a process of its own,
whose largest resident set the kernel reports. With --real-tiles only so many tiles of each pass go through
the network and the rest come back as they are: the memory is the same, as all tiles have one size, and takes
minutes to measure instead of hours on a busy machine. No times are printed then.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = """
import sys
from unsmear.runtime import prepare_process
prepare_process()
import torch
from unsmear.deblurring import files
from unsmear.models import tiling

source, target, model, precision, statistics, real = sys.argv[1:]
if int(real):
    class Sampled(tiling.TiledRestorer):
        tiles, collected, sums = 0, 0, None

        def _fitting(self, source, area):
            self.tiles += self._fits(area)
            if self._fits(area) and self.tiles > int(real):
                return tiling._read(source, area)
            return super()._fitting(source, area)

        def _collected_from_tile(self, *arguments):
            self.collected += 1
            if self.collected <= int(real):
                self.sums = super()._collected_from_tile(*arguments)
            return self.sums

    make = files.make_restorer

    def make_restorer(*arguments, **options):
        restorer = make(*arguments, **options)
        restorer.__class__ = Sampled
        return restorer

    files.make_restorer = make_restorer
summary = files.deblur_files([source], target, model=model, precision=precision, statistics=statistics)
assert len(summary.restored) == 1, summary
"""


def photo(path: Path, megapixels: float) -> None:
    import numpy as np
    import skimage.data

    from unsmear.photo import Photo, write_photo

    tile = skimage.data.coffee()
    width = round((megapixels * 1e6 * 1.5) ** 0.5)
    height = round(megapixels * 1e6 / width)
    repeats = (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1)
    write_photo(Photo(pixels=np.ascontiguousarray(np.tile(tile, repeats)[:height, :width])), path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[6, 24, 100])
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--statistics", default="tile")
    parser.add_argument("--real-tiles", type=int, default=0)
    arguments = parser.parse_args()
    print("| megapixels | precision | peak RSS, GB | s | s/MP | processor s/MP |", flush=True)
    print("|---:|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in arguments.megapixels:
            source = Path(folder) / f"{megapixels:g}.jpg"
            photo(source, megapixels)
            for precision in arguments.precision:
                target = Path(folder) / "out.jpg"
                target.unlink(missing_ok=True)
                rest = [arguments.statistics, str(arguments.real_tiles)]
                start = time.perf_counter()
                process = subprocess.Popen(
                    [sys.executable, "-c", RUN, source, target, arguments.checkpoint, precision, *rest]
                )
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - start
                if status:
                    sys.exit(f"failed at {megapixels:g} megapixels")
                times = f"{seconds:.0f} | {seconds / megapixels:.2f}"
                times += f" | {(usage.ru_utime + usage.ru_stime) / megapixels:.2f}"
                print(
                    f"| {megapixels:g} | {precision} | {usage.ru_maxrss * 1024 / 1e9:.2f} | "
                    + ("| | " if arguments.real_tiles else times)
                    + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()

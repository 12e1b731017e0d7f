"""How long a person waits for `unsmear --help`, and a program for `import unsmear`, each in a fresh process.

    python benchmarks/startup.py [--rounds 15]

The commands take turns, and the medians are printed, with the time of an empty Python process beside them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "python -c pass": ["-c", "pass"],
    "import unsmear": ["-c", "import unsmear"],
    "unsmear --version": ["-m", "unsmear", "--version"],
    "unsmear --help": ["-m", "unsmear", "--help"],
    "unsmear deblur --help": ["-m", "unsmear", "deblur", "--help"],
    "unsmear train --help": ["-m", "unsmear", "train", "--help"],
    "import unsmear; unsmear.Photo": ["-c", "import unsmear; unsmear.Photo"],
    "import torch": ["-c", "import torch"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    wall: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    used: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(rounds + 1):
        for name, arguments in PROGRAMS.items():
            before, started = os.times(), time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds, after = time.perf_counter() - started, os.times()
            if turn:  # the first round only fills the disk's cache
                wall[name].append(seconds)
                used[name].append(
                    after.children_user
                    + after.children_system
                    - before.children_user
                    - before.children_system
                )
    print(f"{'':<32}{'waiting':>9}{'processor':>11}   seconds, median of {rounds}")
    for name in PROGRAMS:
        print(f"{name:<32}{statistics.median(wall[name]):>9.2f}{statistics.median(used[name]):>11.2f}")


if __name__ == "__main__":
    main()

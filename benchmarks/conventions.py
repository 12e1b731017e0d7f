"""What each protocol that compares two pictures says of one pair, as a Markdown table for docs/METRICS.md.

python benchmarks/conventions.py RESTORED TRUTH
"""

import argparse
from pathlib import Path

from unsmear.evaluation import PROTOCOLS, Case
from unsmear.photo import read_photo


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("restored", type=Path)
    parser.add_argument("truth", type=Path)
    chosen = parser.parse_args()
    picture = read_photo(chosen.restored).tensor()
    case = Case("pair", chosen.restored, (chosen.truth,))
    print("| protocol | PSNR | SSIM | how |\n|---|---|---|---|")
    for name, protocol in PROTOCOLS.items():
        if protocol.metrics[0].unit == "dB":
            psnr, ssim = protocol.score(picture, case).values()
            print(f"| `{name}` | {psnr:.2f} | {ssim:.4f} | {protocol.title} |")


if __name__ == "__main__":
    main()

"""The mean of checkpoints' weights, as fp16: a uniform soup (Wortsman et al., Model soups, ICML 2022).

    python benchmarks/soup.py FIRST SECOND ... -o MEAN.safetensors

The header is that of the last, with the recipe, step and commit of all under "mean_of". Only trainings that
went on from one another, or from the same weights, lie near enough for their mean to be as good as they are.
"""

import argparse
from pathlib import Path

import torch

from unsmear.models.checkpoints import load_checkpoint, save_checkpoint


def main() -> None:
    """Average, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="files, or networks of the package")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    networks = [load_checkpoint(checkpoint) for checkpoint in arguments.checkpoints]
    made_by = {str(network.made_by) for network in networks}
    if len(made_by) > 1:
        parser.error(f"expected one network, got {', '.join(sorted(made_by))}")
    states = [network.state_dict() for network in networks]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    networks[-1].load_state_dict(mean)
    kept = ("recipe", "data", "commit", "step")
    header = {
        **networks[-1].header,
        "mean_of": [{key: network.header.get(key) for key in kept} for network in networks],
        "dtype": "fp16",
    }
    for key in ("psnr_rgb", "gain_psnr_rgb"):  # of the last, not of the mean
        header.pop(key, None)
    save_checkpoint(networks[-1].half(), arguments.output, header)


if __name__ == "__main__":
    main()

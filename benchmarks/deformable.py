"""Modulated deformable convolution beside the usual way in plain torch (grid_sample) and a plain convolution.

    python benchmarks/deformable.py [--rounds 5] [--threads 1]

128 channels to 32, 3×3, as in RADN; "inference" is a quarter of 1280×720 (180×320), "training" forward and
backward for 4×32×32. Sides take turns; ratios of processor time to ours within a round, median and range. The
largest difference between ours and grid_sample is printed: that computes positions as fractions of the size,
in float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from unsmear.models.deformable import deformable_conv2d
from unsmear.models.memory import peak_bytes
from unsmear.runtime import prepare_process


def by_grid_sample(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
    height, width = x.shape[2:]
    y = torch.arange(height)[:, None] + torch.arange(-1, 2).repeat_interleave(3)[:, None, None]
    z = torch.arange(width) + torch.arange(-1, 2).repeat(3)[:, None, None]
    y, z = y + offsets[:, 0::2], z + offsets[:, 1::2]  # (N, 9, H, W)
    grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    sampled = F.grid_sample(x, grid.flatten(1, 2), align_corners=False)  # (N, C, 9 H, W)
    sampled = sampled.unflatten(2, (9, height)) * modulation[:, None]
    return torch.einsum("ncthw,oct->nohw", sampled, weight.flatten(2))


def by_convolution(x: Tensor, offsets: Tensor, modulation: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


SIDES: dict[str, Callable[..., Tensor]] = {
    "ours": deformable_conv2d,
    "grid_sample": by_grid_sample,
    "convolution": by_convolution,
}


def made(n: int, height: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 128, height, width, generator=generator)
    return [
        x.contiguous(memory_format=torch.channels_last),
        2 * torch.randn(n, 18, height, width, generator=generator),
        torch.rand(n, 9, height, width, generator=generator),
        torch.randn(32, 128, 3, 3, generator=generator) / 34,
    ]


class Layer(torch.nn.Module):
    """A side with everything but the features given, for `peak_bytes`."""

    def __init__(self, side: Callable[..., Tensor], given: list[Tensor]) -> None:
        super().__init__()
        self.side, self.given = side, given

    def forward(self, x: Tensor) -> Tensor:
        return self.side(x, *self.given)


def compare(task: str, run: Callable[[Callable[..., Tensor]], object], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in SIDES}
    for round_ in range(rounds + 1):
        for name, side in SIDES.items():
            begun = time.process_time()
            run(side)
            if round_:  # the first warms up
                times[name].append(time.process_time() - begun)
    print(f"\n{task}\n\n| side | ms | times ours |\n|---|---:|---:|")
    for name, taken in times.items():
        ratios = [one / other for one, other in zip(taken, times["ours"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        print(f"| {name} | {1e3 * statistics.median(taken):.0f} | {spread} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    prepare_process()
    torch.set_num_threads(options.threads)

    large = made(1, 180, 320)
    with torch.inference_mode():
        gap = (deformable_conv2d(*large) - by_grid_sample(*large)).abs().max().item()
        print(f"largest difference to grid_sample: {gap:.0e}")
        compare("inference, 1×128×180×320", lambda side: side(*large), options.rounds)

    for name, side in SIDES.items():
        print(f"peak memory of tensors, {name}: {peak_bytes(Layer(side, large[1:]), large[0]) / 1e6:.0f} MB")

    small = [t.requires_grad_() for t in made(4, 32, 32)]

    def step(side: Callable[..., Tensor]) -> None:
        (side(*small) ** 2).mean().backward()

    compare("training, 4×128×32×32", step, options.rounds)


if __name__ == "__main__":
    main()

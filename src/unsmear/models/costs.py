"""What a network costs: parameters, and multiply-adds in closed form, without running it."""

import torch
from torch import nn

from unsmear.models import NETWORKS, create
from unsmear.models.low_rank import LowRankModule
from unsmear.models.uformer import WINDOW, LeWinBlock, Uformer

OFFICIAL = {
    "uformer-t": (5_291_853, 11.997),
    "uformer-s": (20_751_197, 43.858),
    "uformer-b": (50_880_946, 89.456),
}
"""Parameters, and billions of multiply-adds at 256×256 as the official code's `flops()` counts them."""


def parameters(model: nn.Module) -> int:
    """Count the learned numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: Uformer, height: int = 256, width: int = 256) -> int:
    """Count multiply-adds of one H×W photo: convolutions, linear layers, attention, low-rank projection.

    Left out: norms, activations, softmax, biases, and the Cholesky factor of the low-rank module (K³/3).
    Windows cut at a border count at their cut size. One multiply-add is two FLOPs.
    """
    stages = [*model.encoder, model.bottleneck, *model.decoder]
    levels = [0, 1, 2, 3, 4, 3, 2, 1, 0]  # a level halves both sides
    total = 0
    for stage, level in zip(stages, levels, strict=True):
        rows, columns = height >> level, width >> level
        for block in stage:
            total += _weights(block) * rows * columns + _attention(block, rows, columns)
    total += (_weights(model.enter) + _weights(model.leave)) * height * width
    for i in range(4):  # a transposed convolution works at its input's level
        total += _weights(model.down[i]) * (height >> i + 1) * (width >> i + 1)
        total += _weights(model.up[i]) * (height >> 4 - i) * (width >> 4 - i)
    if isinstance(model.middle, LowRankModule):
        rank, channels = model.middle.rank, model.low_rank_channels
        products = rank * rank + 2 * rank * channels  # SᵀS, SᵀF, S times the mixing
        total += (_weights(model.middle) + products) * (height >> 4) * (width >> 4)
    return total


def table() -> str:
    """Return the networks with their costs as a table in Markdown."""
    lines = [
        "| network | low-rank module | parameters | GMAC at 256×256 | official code: parameters, GMAC |",
        "|---|---|---|---|---|",
    ]
    for name, row in NETWORKS.items():
        with torch.device("meta"):  # shapes without numbers
            model = create(name)
        if not isinstance(model, Uformer):
            continue
        official = OFFICIAL.get(name)
        lines.append(
            f"| {name} | {'yes' if row.low_rank else 'no'} | {parameters(model):,} "
            f"| {multiply_adds(model) / 1e9:.2f} "
            f"| {f'{official[0]:,}, {official[1]:.2f}' if official else '—'} |"
        )
    return "\n".join(lines)


def _weights(module: nn.Module) -> int:
    """Count the weights of linear layers and convolutions: multiply-adds per position."""
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, kinds))


def _attention(block: LeWinBlock, rows: int, columns: int) -> int:
    """Count Q Kᵀ and weights times V: 2 C multiply-adds for each pair of tokens that share a window."""
    channels = block.norm1.normalized_shape[0]
    return 2 * channels * _sharing(rows, block.shift) * _sharing(columns, block.shift)


def _sharing(length: int, shift: int) -> int:
    """Count the pairs of positions along an axis that share a window."""
    return WINDOW * (length - WINDOW) + shift**2 + (WINDOW - shift) ** 2

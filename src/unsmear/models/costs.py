"""What a network costs: parameters, and multiply-adds of one photo, counted on shapes without numbers."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unsmear.models import NETWORKS, create
from unsmear.models.checkpoints import shipped_checkpoints


def parameters(model: nn.Module) -> int:
    """Count the learned numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, height: int = 256, width: int = 256) -> int:
    """Count multiply-adds of one H×W photo in evaluation mode, a multiple of the network's `size_multiple`.

    Counted by torch's FLOP counter: convolutions, linear layers, matrix products, attention. Left out:
    everything that works on each number alone (norms, activations, softmax, biases, recurrences without
    products of channels), and the Cholesky factor of a low-rank module (K³/3). One multiply-add is two FLOPs.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(1, 3, height, width, device="meta", dtype=next(model.parameters()).dtype)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(image)
    return int(counter.get_total_flops()) // 2


def table() -> str:
    """Return the networks, whether their weights are in the package, and their costs, as Markdown."""
    shipped = shipped_checkpoints()
    lines = [
        "| network | low-rank module | weights here | parameters | GMAC at 256² | published: M, GMAC "
        "| why ours differs |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for name, row in NETWORKS.items():
        with torch.device("meta"):  # shapes without numbers
            model = create(name)
        lines.append(
            f"| {name} | {'yes' if row.low_rank else 'no'} | {'yes' if name in shipped else 'no'} "
            f"| {parameters(model):,} "
            f"| {multiply_adds(model) / 1e9:.2f} | {_published(row.published)} | {row.reason} |"
        )
    return "\n".join(lines)


def _published(figures: tuple[float, float | None] | None) -> str:
    if figures is None:
        return "—"
    return f"{figures[0]:.2f}, {'—' if figures[1] is None else f'{figures[1]:.2f}'}"

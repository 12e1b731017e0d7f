"""Which weights of the official code of a network become ours: one row of `OFFICIAL` for each class.

Only names and layouts change. Our outputs are then those of the official code, which
tests/models/test_convert.py shows against the independent copies in the package spandrel.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unsmear.models.nafnet import NAFNet
from unsmear.models.uformer import Uformer

Shape = tuple[int, ...]


class Official(NamedTuple):
    """How an official code keeps the weights of a network of ours.

    title: its name in messages.
    names: our name → its names; the parts are stacked by rows into ours.
    shapes: our name, our shape → the shapes of those parts.
    describe: its names and shapes → the size of the network in words, None if they are not of this network.
    example: names of its that a reader would look for.
    computed: endings of names that hold nothing learned.
    values: our name and the parts → our weight, before it gets our shape; None: stacked by rows.
    """

    title: str
    names: Callable[[str], tuple[str, ...]]
    shapes: Callable[[str, Shape], Sequence[Shape]]
    describe: Callable[[Mapping[str, Shape]], str | None]
    example: str
    computed: tuple[str, ...] = ()
    values: Callable[[str, Sequence[Tensor]], Tensor] | None = None

    def layout(self, model: nn.Module) -> dict[str, Shape]:
        """Official names and shapes of the weights of a network of ours, but its low-rank module's."""
        return {
            theirs: shape
            for ours, tensor in converted(model).items()
            for theirs, shape in zip(self.names(ours), self.shapes(ours, tuple(tensor.shape)), strict=True)
        }

    def weight(self, ours: str, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Our weight of the given shape from its official parts."""
        parts = [part.float() for part in parts]
        whole = torch.cat(list(parts)) if self.values is None else self.values(ours, parts)
        return whole.reshape(shape)


def converted(model: nn.Module) -> dict[str, Tensor]:
    """Our weights that have official names: all but those of the module at the low-rank point."""
    inside = f"{model.LOW_RANK_POINT}."
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(inside)}


# Uformer: github.com/ZhendongWang6/Uformer
#
#     to_q (C, C), to_kv (2C, C)            → attention.qkv (3C, C), rows of Q above those of K and V
#     relative_position_bias_table (225, h) → attention.bias_table (15, 15, h), difference in rows, in columns
#     modulator (64, C)                     → modulator (8, 8, C), row and column in the window

UFORMER_STAGES: Mapping[str, str] = {
    r"enter": r"input_proj.proj.0",
    r"encoder\.(\d)\.(\d+)": r"encoderlayer_\1.blocks.\2",
    r"down\.(\d)": r"dowsample_\1.conv.0",
    r"bottleneck\.(\d+)": r"conv.blocks.\1",
    r"up\.(\d)": r"upsample_\1.deconv.0",
    r"decoder\.(\d)\.(\d+)": r"decoderlayer_\1.blocks.\2",
    r"leave": r"output_proj.proj.0",
}
"""Ours (a pattern) → official, the first part of a name."""

UFORMER_BLOCK: Mapping[str, tuple[str, ...]] = {
    "norm1": ("norm1",),
    "modulator": ("modulator.weight",),
    "attention.bias_table": ("attn.relative_position_bias_table",),
    "attention.qkv": ("attn.qkv.to_q", "attn.qkv.to_kv"),
    "attention.out": ("attn.proj",),
    "norm2": ("norm2",),
    "feed_forward.widen": ("mlp.linear1.0",),
    "feed_forward.local": ("mlp.dwconv.0",),
    "feed_forward.narrow": ("mlp.linear2.0",),
}
"""Ours → official within a block, without a last `.weight` or `.bias`; several are stacked by rows."""


def names_by_table(
    name: str, stages: Mapping[str, str], block: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Return the official names of one of our weights by two tables as the Uformer's.

    Raises:
        KeyError: the tables do not have it.
    """
    for ours, theirs in stages.items():
        if not (match := re.match(rf"{ours}(?=\.)", name)):
            continue
        stage, rest = match.expand(theirs), name[match.end() + 1 :]
        if rest in ("weight", "bias"):
            return (f"{stage}.{rest}",)
        if rest in block:
            return tuple(f"{stage}.{part}" for part in block[rest])
        inner, _, kind = rest.rpartition(".")
        return tuple(f"{stage}.{part}.{kind}" for part in block[inner])
    raise KeyError(name)


def _uformer_names(name: str) -> tuple[str, ...]:
    return names_by_table(name, UFORMER_STAGES, UFORMER_BLOCK)


def _uformer_shapes(name: str, shape: Shape) -> list[Shape]:
    """15×15 or 8×8 as one axis; Q apart from K and V."""
    if name.endswith(("modulator", "bias_table")):
        return [(shape[0] * shape[1], *shape[2:])]
    if ".attention.qkv." in name:
        channels = shape[0] // 3
        return [(channels, *shape[1:]), (2 * channels, *shape[1:])]
    return [shape]


def _describe_uformer(shapes: Mapping[str, Shape]) -> str | None:
    stages = [*(f"encoderlayer_{i}" for i in range(4)), "conv", *(f"decoderlayer_{i}" for i in range(4))]
    depths = [_count(shapes, rf"{stage}\.blocks\.(\d+)\.") for stage in stages]
    first = shapes.get("input_proj.proj.0.weight", ())
    return None if len(first) != 4 or 0 in depths else f"a Uformer of width {first[0]} and depths {depths}"


# NAFNet: github.com/megvii-research/NAFNet. Its 1×1 convolutions (C, D, 1, 1) are linear layers (C, D) of
# ours, β and γ (1, C, 1, 1) are (C).

NAFNET_STAGES: Mapping[str, str] = {
    r"enter": r"intro",
    r"encoder\.(\d+)\.(\d+)": r"encoders.\1.\2",
    r"down\.(\d+)": r"downs.\1",
    r"bottleneck\.(\d+)": r"middle_blks.\1",
    r"up\.(\d+)": r"ups.\1.0",
    r"decoder\.(\d+)\.(\d+)": r"decoders.\1.\2",
    r"leave": r"ending",
}
"""Ours (a pattern) → official, the first part of a name."""

NAFNET_BLOCK: Mapping[str, tuple[str, ...]] = {
    "norm1": ("norm1",),
    "widen": ("conv1",),
    "local": ("conv2",),
    "attention": ("sca.1",),
    "narrow": ("conv3",),
    "beta": ("beta",),
    "norm2": ("norm2",),
    "expand": ("conv4",),
    "contract": ("conv5",),
    "gamma": ("gamma",),
}
"""Ours → official within a block, without a last `.weight` or `.bias`."""


def _nafnet_names(name: str) -> tuple[str, ...]:
    return names_by_table(name, NAFNET_STAGES, NAFNET_BLOCK)


def _nafnet_shapes(name: str, shape: Shape) -> list[Shape]:
    if name.endswith(("beta", "gamma")):
        return [(1, *shape, 1, 1)]
    return [(*shape, 1, 1)] if len(shape) == 2 else [shape]


def _describe_nafnet(shapes: Mapping[str, Shape]) -> str | None:
    first = shapes.get("intro.weight", ())
    levels = range(_count(shapes, r"downs\.(\d+)\."))
    encoder, decoder = ([_count(shapes, rf"{s}coders\.{i}\.(\d+)\.") for i in levels] for s in ("en", "de"))
    if len(first) != 4 or not encoder:
        return None
    middle = _count(shapes, r"middle_blks\.(\d+)\.")
    return f"a NAFNet of width {first[0]} with blocks {encoder}, {middle}, {decoder}"


def _count(names: Mapping[str, Shape], pattern: str) -> int:
    """Count the values of the pattern's group in the names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


OFFICIAL: Mapping[type[nn.Module], Official] = {
    Uformer: Official(
        "Uformer", _uformer_names, _uformer_shapes, _describe_uformer,
        example="input_proj.proj.0.weight and encoderlayer_0.blocks.0.…",
        computed=(".relative_position_index",),
    ),
    NAFNet: Official(
        "NAFNet", _nafnet_names, _nafnet_shapes, _describe_nafnet,
        example="intro.weight and encoders.0.0.…",
    ),
}  # fmt: skip
"""The networks whose official weights `unsmear convert` takes."""

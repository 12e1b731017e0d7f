"""Which weights of the official code of a network become ours: one row of `OFFICIAL` for each class.

Only names and layouts change (of MSCNN the unit of the biases, too). Our outputs are then those of the
official code: tests/models/test_convert.py shows it for Uformer and NAFNet against the independent copies in
the package spandrel, tests/models/test_convert_cnn.py for MSCNN and DeblurGAN against their layouts written
anew.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unsmear.models.deblurgan import DeblurGAN
from unsmear.models.mscnn import MSCNN
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


# MSCNN: github.com/SeungjunNah/DeepDeblur-PyTorch, whose scales are counted from the finest, and whose
# pictures are in [0, 255]. With ReLUs alone a network of pictures 255 times smaller has the same weights and
# biases 255 times smaller.

MSCNN_RANGE = 255
"""The default of its option rgb_range, which its released weights were trained with; a file does not say."""

MSCNN_BLOCKS = 19
"""Residual blocks of a scale, 10 before the low-rank point and 9 behind it."""


def _mscnn_names(name: str) -> tuple[str, ...]:
    _, scale, part, *rest, kind = name.split(".")
    if name.startswith("enlarge"):  # from a quarter to a half, from a half to the whole
        return (f"conv_end_models.{2 - int(scale)}.uppath.0.{kind}",)
    if part in ("enter", "leave"):
        layer = "0" if part == "enter" else str(MSCNN_BLOCKS + 1)
    else:
        number = 1 + int(rest[0]) + (0 if part == "before" else (MSCNN_BLOCKS + 1) // 2)
        layer = f"{number}.body.{'0' if rest[1] == 'first' else '2'}"
    return (f"body_models.{2 - int(scale)}.body.{layer}.{kind}",)


def _mscnn_values(name: str, parts: Sequence[Tensor]) -> Tensor:
    return parts[0] / MSCNN_RANGE if name.endswith("bias") else parts[0]


def _describe_mscnn(shapes: Mapping[str, Shape]) -> str | None:
    first = shapes.get("body_models.0.body.0.weight", ())
    scales = _count(shapes, r"body_models\.(\d+)\.")
    blocks = _count(shapes, r"body_models\.0\.body\.(\d+)\.body\.")
    if len(first) != 4 or not blocks:
        return None
    return f"an MSCNN of {scales} scales, width {first[0]} and {blocks} blocks"


# DeblurGAN: github.com/KupynOrest/DeblurGAN, model.N of a Sequential in which pads, norms and activations
# count, too. The second convolution of a block has number 6 behind a dropout; the code whose slip leaves it
# out has none. Its norms' running averages are never used.

DEBLURGAN_LAYERS: Mapping[str, int] = {
    "enter": 1,
    "down.0": 4,
    "down.1": 7,
    "before": 10,
    "after": 15,
    "up.0": 19,
    "up.1": 22,
    "leave": 26,
}
"""Ours → its number; of `before` and `after` that of the first block."""


def _deblurgan_names(name: str) -> tuple[str, ...]:
    layer, _, kind = name.rpartition(".")
    chain, _, rest = layer.partition(".")
    if chain not in ("before", "after"):
        return (f"model.{DEBLURGAN_LAYERS[layer]}.{kind}",)
    number, convolution = rest.split(".")
    inner = {"first": 1, "second": 6}[convolution]
    return (f"model.{DEBLURGAN_LAYERS[chain] + int(number)}.conv_block.{inner}.{kind}",)


def _describe_deblurgan(shapes: Mapping[str, Shape]) -> str | None:
    first = shapes.get("model.1.weight", ())
    blocks = _count(shapes, r"model\.(\d+)\.conv_block\.")
    if len(first) != 4 or not blocks:
        return None
    each = _count(shapes, r"model\.10\.conv_block\.(\d+)\.weight")
    convolutions = {1: "one convolution", 2: "two convolutions"}.get(each, f"{each} convolutions")
    return f"a DeblurGAN of width {first[0]} with {blocks} blocks of {convolutions}"


def _alike(name: str, shape: Shape) -> list[Shape]:
    return [shape]


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
    MSCNN: Official(
        "MSCNN", _mscnn_names, _alike, _describe_mscnn,
        example="body_models.0.body.0.weight and conv_end_models.1.…", values=_mscnn_values,
    ),
    DeblurGAN: Official(
        "DeblurGAN", _deblurgan_names, _alike, _describe_deblurgan,
        example="model.1.weight and model.10.conv_block.1.…",
        computed=(".running_mean", ".running_var", ".num_batches_tracked"),
    ),
}  # fmt: skip
"""The networks whose official weights `unsmear convert` takes."""

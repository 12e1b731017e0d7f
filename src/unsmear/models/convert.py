"""Weights of the official Uformer (github.com/ZhendongWang6/Uformer) as a checkpoint of ours.

One table, `STAGE_NAMES` and `BLOCK_NAMES`, says which of its weights become ours. Only layouts change:

    to_q (C, C), to_kv (2C, C)            → attention.qkv (3C, C), rows of Q above those of K and V
    relative_position_bias_table (225, h) → attention.bias_table (15, 15, h), difference in rows, in columns
    modulator (64, C)                     → modulator (8, 8, C), row and column in the window

The buffer `relative_position_index` is computed, not stored. Our outputs are then those of the official code,
which tests/models/test_convert.py shows against the independent copy in the package spandrel.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unsmear.errors import ModelError
from unsmear.models import NETWORKS, create
from unsmear.models.checkpoints import misfits, save_checkpoint
from unsmear.models.uformer import Uformer
from unsmear.writable import make_writable

STAGE_NAMES: Mapping[str, str] = {
    r"enter": r"input_proj.proj.0",
    r"encoder\.(\d)\.(\d+)": r"encoderlayer_\1.blocks.\2",
    r"down\.(\d)": r"dowsample_\1.conv.0",
    r"bottleneck\.(\d+)": r"conv.blocks.\1",
    r"up\.(\d)": r"upsample_\1.deconv.0",
    r"decoder\.(\d)\.(\d+)": r"decoderlayer_\1.blocks.\2",
    r"leave": r"output_proj.proj.0",
}
"""Ours (a pattern) → official, the first part of a name."""

BLOCK_NAMES: Mapping[str, tuple[str, ...]] = {
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

_COMPUTED = ".relative_position_index"

_Size = tuple[int, tuple[int, ...]]
"""Width and depths of a Uformer."""


def convert(
    source: str | Path, name: str, output: str | Path, *, overwrite: bool = False
) -> tuple[nn.Module, str]:
    """Write the official weights in `source` as a checkpoint of ours.

    Args:
        source: .pth of the official training (a state dict, bare or in {"state_dict": …}, names with or
            without "module."; read by torch's restricted unpickler) or .safetensors with the same names.
        name: one of our networks, of the same size; the low-rank module of a low-rank variant stays as it
            starts, the identity.
        output: file to write.
        overwrite: replace `output` if it is there.

    Returns:
        the network, in evaluation mode, and a sentence that says what was written.

    Raises:
        ModelError: an unknown name; a file that is missing, no checkpoint, of another network or size, or not
            to be read without running its code; an output that is there already or cannot be written.
    """
    if Path(output).suffix != ".safetensors":
        raise ModelError(f"{output}: a checkpoint is a safetensors file; name it NAME.safetensors")
    if Path(output).exists() and not overwrite:
        raise ModelError(f"{output}: exists already; choose another name, or replace it by --overwrite")
    make_writable(Path(output).parent, ModelError)
    size = _size_of(name)
    official = read_official_weights(source)
    _check_size(source, official, size, name)
    model = cast(Uformer, create(name))
    fill(model, official, source)
    save_checkpoint(model, output, {"converted_from": Path(source).name})
    said = f"{output}: {name} with the weights of {source}"
    if not isinstance(model.middle, nn.Identity):
        said += "; its low-rank module is untrained (the identity)"
    return model.eval(), said


def read_official_weights(source: str | Path) -> dict[str, Tensor]:
    """Read names and tensors from .pth or .safetensors, names without "module."; no code is ever unpickled.

    Raises:
        ModelError: missing, unreadable, or no table of tensors.
    """
    try:
        with Path(source).open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        content: Any = load_file(source) if is_safetensors else _restricted_load(source)
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle raises whatever it likes
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise ModelError(
                f"{source}: holds more than weights, and reading it could run code that it contains; if you "
                "trust it, save what is under 'state_dict' in a file of its own and convert that"
            ) from error
        raise ModelError(f"{source}: neither .pth nor .safetensors, or damaged") from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not (isinstance(content, dict) and content and all(isinstance(t, Tensor) for t in content.values())):
        raise ModelError(f"{source}: expected names and tensors, bare or under 'state_dict'")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _restricted_load(source: str | Path) -> Any:
    """Unpickle tensors and plain containers, and nothing else."""
    return torch.load(source, map_location="cpu", weights_only=True)


def fill(model: Uformer, official: Mapping[str, Tensor], source: str | Path = "official weights") -> None:
    """Copy official weights into `model`; a low-rank module keeps its own.

    Raises:
        ModelError: names that are missing, unexpected or of another shape; the model is unchanged then.
    """
    left = {name for name in official if not name.endswith(_COMPUTED)}
    missing, shapes, weights = [], [], {}
    for name, ours in model.state_dict().items():
        if name.startswith(f"{model.LOW_RANK_POINT}."):
            continue
        names = official_names(name)
        left.difference_update(names)
        missing += [n for n in names if n not in official]
        if not all(n in official for n in names):
            continue
        parts = [official[n] for n in names]
        expected = _official_shapes(ours, len(parts), flat=name.endswith(("modulator", "bias_table")))
        wrong = [
            f"{n} {tuple(part.shape)} instead of {shape}"
            for n, part, shape in zip(names, parts, expected, strict=True)
            if tuple(part.shape) != shape
        ]
        shapes += wrong
        if not wrong:
            weights[name] = torch.cat([part.float() for part in parts]).reshape(ours.shape)
    if problems := misfits(missing=missing, unexpected=left, shapes=shapes):
        raise ModelError(f"{source}: not the weights of an official Uformer; {problems}")
    model.load_state_dict(weights, strict=False)


def official_names(name: str) -> tuple[str, ...]:
    """Return the official names of one of our weights, by the table."""
    for ours, theirs in STAGE_NAMES.items():
        if not (match := re.match(rf"{ours}(?=\.)", name)):
            continue
        stage, rest = match.expand(theirs), name[match.end() + 1 :]
        if rest in ("weight", "bias"):
            return (f"{stage}.{rest}",)
        if rest in BLOCK_NAMES:
            return tuple(f"{stage}.{part}" for part in BLOCK_NAMES[rest])
        inner, _, kind = rest.rpartition(".")
        return tuple(f"{stage}.{part}.{kind}" for part in BLOCK_NAMES[inner])
    raise KeyError(name)


def _official_shapes(ours: Tensor, parts: int, *, flat: bool) -> list[tuple[int, ...]]:
    """Shapes of the official parts of one of our weights: 15×15 or 8×8 as one axis, or Q and K, V apart."""
    shape = tuple(ours.shape)
    if flat:
        return [(shape[0] * shape[1], *shape[2:])]
    if parts == 1:
        return [shape]
    channels = shape[0] // 3
    return [(channels, *shape[1:]), (2 * channels, *shape[1:])]


def _check_size(source: str | Path, official: Mapping[str, Tensor], size: _Size, name: str) -> None:
    """Compare width and depths with those of `name`: says more than hundreds of names that do not fit."""
    stages = [*(f"encoderlayer_{i}" for i in range(4)), "conv", *(f"decoderlayer_{i}" for i in range(4))]
    depths = tuple(
        len({m[1] for n in official if (m := re.match(rf"{stage}\.blocks\.(\d+)\.", n))}) for stage in stages
    )
    first = official.get("input_proj.proj.0.weight")
    if first is None or first.ndim != 4 or 0 in depths:
        raise ModelError(
            f"{source}: not an official Uformer; expected names as input_proj.proj.0.weight and "
            f"encoderlayer_0.blocks.0.…, found {', '.join(sorted(official)[:3])}"
        )
    found = (len(first), depths)
    if found == size:
        return
    fitting = [n for n in NETWORKS if n.startswith("uformer") and _size_of(n) == found]
    hint = f"that is {fitting[0]}" if fitting else "no network of ours has that size"
    raise ModelError(
        f"{source}: holds a Uformer of width {found[0]} and depths {list(depths)}, not {name}; {hint}"
    )


def _size_of(name: str) -> _Size:
    with torch.device("meta"):  # shapes without numbers
        model = create(name)
    if not isinstance(model, Uformer):
        raise ModelError(f"{name}: only the Uformer family has official weights to convert")
    stages = [*model.encoder, model.bottleneck, *model.decoder]
    return model.enter.out_channels, tuple(len(cast(nn.Sequential, stage)) for stage in stages)

"""Weights of the official codes as checkpoints of ours (models/official.py says whose, and which become
which).

They are read by torch's restricted unpickler or from safetensors: a file that would run code is refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unsmear.errors import ModelError
from unsmear.models import NETWORKS, create
from unsmear.models.checkpoints import misfits, save_checkpoint
from unsmear.models.official import OFFICIAL, Official, converted
from unsmear.writable import make_writable


def convert(
    source: str | Path,
    name: str,
    output: str | Path,
    *,
    arguments: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> tuple[nn.Module, str]:
    """Write the official weights in `source` as a checkpoint of ours.

    Args:
        source: .pth of the official training (a state dict, bare or in {"state_dict": …} or {"params": …}
            or {"G": …}, names with or without "module."; read by torch's restricted unpickler) or
            .safetensors with the same names.
        name: one of our networks, of the same size; the low-rank module of a low-rank variant stays as it
            starts, the identity.
        output: file to write.
        arguments: constructor arguments for the checkpoint that leave the weights alone, such as NAFNet's
            `local_window`.
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
    _official(_shapes_of(name), name)
    official = read_official_weights(source)
    _check_size(source, official, name)
    model = create(name, **(arguments or {}))
    fill(model, official, source)
    save_checkpoint(model, output, {"converted_from": Path(source).name})
    said = f"{output}: {name} with the weights of {source}"
    if NETWORKS[name].low_rank:
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
    for key in (
        "state_dict",
        "params",
        "G",
    ):  # the second is BasicSR's (NAFNet), the third DeepDeblur's (MSCNN)
        content = content.get(key, content) if isinstance(content, dict) else content
    if not (isinstance(content, dict) and content and all(isinstance(t, Tensor) for t in content.values())):
        raise ModelError(f"{source}: expected names and tensors, bare or under 'state_dict' or 'params'")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _restricted_load(source: str | Path) -> Any:
    """Unpickle tensors and plain containers, and nothing else."""
    return torch.load(source, map_location="cpu", weights_only=True)


def fill(model: nn.Module, official: Mapping[str, Tensor], source: str | Path = "official weights") -> None:
    """Copy official weights into `model`; a low-rank module keeps its own.

    Raises:
        ModelError: names that are missing, unexpected or of another shape; the model is unchanged then.
    """
    theirs = _official(model, type(model).__name__)
    left = {name for name in official if not name.endswith(theirs.computed)}
    missing, shapes, weights = [], [], {}
    for name, ours in converted(model).items():
        names = theirs.names(name)
        left.difference_update(names)
        missing += [n for n in names if n not in official]
        if not all(n in official for n in names):
            continue
        expected = theirs.shapes(name, tuple(ours.shape))
        wrong = [
            f"{n} {tuple(official[n].shape)} instead of {shape}"
            for n, shape in zip(names, expected, strict=True)
            if tuple(official[n].shape) != shape
        ]
        shapes += wrong
        if not wrong:
            weights[name] = theirs.weight(name, [official[n] for n in names], tuple(ours.shape))
    if problems := misfits(missing=missing, unexpected=left, shapes=shapes):
        raise ModelError(f"{source}: not the weights of an official {theirs.title}; {problems}")
    model.load_state_dict(weights, strict=False)


def _official(model: nn.Module, name: str) -> Official:
    if type(model) not in OFFICIAL:
        known = ", ".join(official.title for official in OFFICIAL.values())
        raise ModelError(f"{name}: no official weights of it are known to us; there are those of {known}")
    return OFFICIAL[type(model)]


def _check_size(source: str | Path, official: Mapping[str, Tensor], name: str) -> None:
    """Compare the size with that of `name`: says more than hundreds of names that do not fit."""
    model = _shapes_of(name)
    theirs = _official(model, name)
    found = theirs.describe({n: tuple(tensor.shape) for n, tensor in official.items()})
    if found is None:
        raise ModelError(
            f"{source}: not an official {theirs.title}; expected names as {theirs.example}, "
            f"found {', '.join(sorted(official)[:3])}"
        )
    if found == theirs.describe(theirs.layout(model)):
        return
    others = {n: _shapes_of(n) for n, row in NETWORKS.items() if not row.low_rank}
    same = {n: other for n, other in others.items() if type(other) is type(model)}
    fitting = [n for n, other in same.items() if theirs.describe(theirs.layout(other)) == found]
    hint = f"that is {fitting[0]}" if fitting else "no network of ours has that size"
    raise ModelError(f"{source}: holds {found}, not {name}; {hint}")


def _shapes_of(name: str) -> nn.Module:
    """A network without numbers."""
    with torch.device("meta"):
        return create(name)

"""Trained networks as files: safetensors with a JSON header that carries what builds the network again.

Header keys that unsmear writes: model, low_rank, arguments (what `create` takes), and, from a training:
recipe, data, commit, step, version. Nothing is ever unpickled.
"""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

import unsmear
from unsmear.errors import ModelError
from unsmear.models import create

HEADER_KEY = "unsmear"
"""The one entry of safetensors' own metadata (strings only): our header as JSON."""

_BUILDS = ("model", "low_rank", "arguments")


def save_checkpoint(model: nn.Module, path: str | Path, header: Mapping[str, Any] | None = None) -> None:
    """Write a network made by `create` to PATH; the header also gets what builds it again.

    Raises:
        ModelError: the network was not made by `create`, or the file cannot be written.
    """
    made_by = getattr(model, "made_by", None)
    if made_by is None:
        raise ModelError(f"{type(model).__name__}: only networks made by unsmear.create can be saved by name")
    full = {"version": unsmear.__version__, **(header or {}), **made_by}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(tensors, path, metadata={HEADER_KEY: json.dumps(full)})
        Path(path).chmod(0o644)  # safetensors leaves a file that only its owner can read
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the checkpoint cannot be written ({error})") from error


def load_checkpoint(source: str | Path) -> nn.Module:
    """Build the network of a checkpoint, in evaluation mode, float32, on the CPU; `.header` holds its header.

    Args:
        source: a file written by `save_checkpoint`, or the name of a network whose weights are in the
            package.

    Raises:
        ModelError: no such file or name, not safetensors, no header of ours, or weights that do not fit.
    """
    path = find_checkpoint(source)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a safetensors checkpoint ({error})") from error
    try:
        header = json.loads(metadata[HEADER_KEY])
        with torch.random.fork_rng():  # first weights are drawn and then replaced: leave no trace of it
            model = create(header["model"], low_rank=header["low_rank"], **header["arguments"])
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: has no header of unsmear's; expected a file written by `unsmear train`, "
            "`unsmear export` or `unsmear convert`"
        ) from error
    own = model.state_dict()
    if problems := misfits(
        missing=own.keys() - tensors.keys(),
        unexpected=tensors.keys() - own.keys(),
        shapes=[n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape],
    ):
        raise ModelError(f"{path}: its weights are not those of {header['model']}; {problems}")
    model.load_state_dict(tensors)
    model.header = header
    return model.eval()


def shipped_checkpoints() -> list[str]:
    """Names of the networks whose weights are in the package."""
    folder = resources.files("unsmear") / "weights"
    return sorted(
        file.name.removesuffix(".safetensors")
        for file in folder.iterdir()
        if file.name.endswith(".safetensors")
    )


def misfits(*, missing: Iterable[str], unexpected: Iterable[str], shapes: Iterable[str]) -> str:
    """Say in a few words which weights do not fit, the first three of each kind; "" if all do."""
    kinds = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(shapes)}
    return "; ".join(
        f"{kind}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    )


def find_checkpoint(source: str | Path) -> Path:
    """Return the file of a checkpoint: `source` itself, or that of a network with weights in the package.

    Raises:
        ModelError: neither.
    """
    path = Path(source)
    if path.is_file():
        return path
    packaged = resources.files("unsmear") / "weights" / f"{source}.safetensors"
    if path.name == str(source) and packaged.is_file():
        return Path(str(packaged))
    raise ModelError(
        f"{str(source)!r}: neither a checkpoint file nor a network with weights in the package "
        f"({', '.join(shipped_checkpoints()) or 'none'})"
    )

"""What is compared: the input as it is, networks, and folders of what other programs restored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unsmear.errors import EvaluationError
from unsmear.models.checkpoints import load_checkpoint, shipped_checkpoints
from unsmear.models.costs import parameters

Kind = Literal["input", "folder", "network"]


@dataclass(frozen=True)
class Method:
    """One row of a table.

    label: its name in tables; the name of a row of the paper (such as "Uformer^P") puts it into that row.
    source: "input", a folder, a checkpoint, or the name of a network with weights in the package.
    about: for a network its parameters, the hash of its weights and the header of its checkpoint.
    """

    label: str
    source: str
    kind: Kind
    about: dict[str, Any] = field(default_factory=dict)


def read_methods(texts: Sequence[str]) -> list[Method]:
    """Read "SOURCE" or "LABEL=SOURCE" each; without a label it is the source.

    Raises:
        ModelError: a source that is neither "input" nor a folder nor a network.
        EvaluationError: none is given, or two have the same label.
    """
    methods = [_read_method(text) for text in texts]
    if not methods:
        raise EvaluationError("No method: name networks, checkpoints, folders of results, or “input”.")
    labels = [method.label for method in methods]
    for label in labels:
        if labels.count(label) > 1:
            raise EvaluationError(f"Two methods are called “{label}”: give them names by LABEL=SOURCE.")
    return methods


def _read_method(text: str) -> Method:
    label, sign, source = text.partition("=")
    if not sign or _is_source(text):
        label = source = text
    if label == "truth" or (label == "input" and source != "input"):
        raise EvaluationError(
            f"“{text}”: {label} is what pictures of every figure are called; choose another name."
        )
    if not label.strip() or not source:
        raise EvaluationError(f"“{text}” is no method; expected SOURCE or LABEL=SOURCE.")
    if source == "input":
        return Method(label, source, "input")
    if Path(source).is_dir():
        return Method(label, source, "folder")
    from unsmear.evaluation.restorers import check_source, companions, weights_sha256

    check_source(source)
    network = load_checkpoint(source)
    about = {
        "network": network.made_by if hasattr(network, "made_by") else type(network).__name__,
        "parameters": parameters(network),
        "weights_sha256": weights_sha256(network, *companions(network)),
        "header": getattr(network, "header", None),
    }
    return Method(label, source, "network", about)


def _is_source(text: str) -> bool:
    return text == "input" or Path(text).exists() or text in shipped_checkpoints()

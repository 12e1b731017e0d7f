"""Networks as ONNX files, for other runtimes: any height and width that the network takes, one picture each.

Exported by torch.export with symbolic sizes, so that nothing of the example's size stays in the graph. The
low-rank module's Cholesky factor is no ONNX operator; it is replaced by an elimination that is
(`low_rank_mixing`).
"""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

import unsmear
from unsmear.errors import ModelError
from unsmear.models.checkpoints import HEADER_KEY, load_checkpoint
from unsmear.models.restoring import padded_size
from unsmear.writable import make_writable

OPSET = 18
"""Version of ONNX's operators: runtimes of 2023 and later have it."""

TOLERANCE = 1e-3
"""Largest difference, in units of [0, 1], between the network's output and that of onnxruntime."""

LARGEST = 2**14
"""Most pixels of a side."""


def export_onnx(source: str | Path | nn.Module, output: str | Path, *, overwrite: bool = False) -> str:
    """Write a network as ONNX: input `blurred`, output `restored`, (1, 3, H, W) float32, sRGB in [0, 1].

    H and W are dynamic: multiples of the network's `size_multiple`, from twice its `minimum_size` up.
    Padding, cropping and clamping are left to the caller (`unsmear.models.restoring.restore`). The file's
    metadata holds the checkpoint's header and `size_multiple`. A class that cannot be exported says why in
    `not_in_onnx`.

    Args:
        source: a checkpoint, the name of a network in the package, or a network.
        output: NAME.onnx.
        overwrite: replace `output` if it is there.

    Returns:
        a sentence that says what was written, and how far onnxruntime's output is from ours at another size.

    Raises:
        ModelError: the extra `onnx` is missing; the network says why it cannot be exported; the export fails;
            onnxruntime gives something else; an output that is there already or is not named .onnx.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise ModelError(f"{output}: expected a name that ends in .onnx")
    if output.exists() and not overwrite:
        raise ModelError(f"{output}: exists already; choose another name, or replace it by --overwrite")
    make_writable(output.parent, ModelError)
    model = source if isinstance(source, nn.Module) else load_checkpoint(source)
    name = type(model).__name__
    if reason := getattr(model, "not_in_onnx", ""):
        raise ModelError(f"{name} cannot be exported to ONNX: {reason}")
    partial = output.with_name(f"{output.name}.part")
    try:
        _write(model, partial)
        sides = 4 * padded_size(model, 1), 2 * padded_size(model, 1)  # the example has 3 and 4 times
        gap = _difference(
            model, partial, torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(0))
        )
        if not gap < TOLERANCE:
            raise ModelError(
                f"{name}: onnxruntime's output differs by {gap:.1e} from ours at {sides[0]}×{sides[1]}; "
                "not written"
            )
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return (
        f"{output}: {name}, sides in multiples of {model.size_multiple} from {2 * padded_size(model, 1)} up, "
        f"{output.stat().st_size / 1e6:.1f} MB; onnxruntime differs by {gap:.0e} at {sides[0]}×{sides[1]}"
    )


def _write(model: nn.Module, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - what torch.onnx.export translates with
    except ImportError as error:
        raise ModelError(f"{error.name} is missing; pip install 'unsmear[onnx]'") from error
    multiple, least = int(model.size_multiple), 2 * padded_size(model, 1)  # type: ignore[arg-type]
    bounds = {"min": -(-least // multiple), "max": LARGEST // multiple}
    sizes = {2: multiple * Dim("rows", **bounds), 3: multiple * Dim("columns", **bounds)}
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training, level = model.training, logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)  # the exporter's remarks on operators that are not used
        model.eval().requires_grad_(False)  # inference in one piece: bands would fix the size
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Traced here and not by torch.onnx.export, which tries less strict ways one after the other until
            # one of them leaves sizes of the example in the graph without a word.
            # 3 and 4 times the smallest size: at twice, one whole window stands between the two that are cut
            # in Uformer's deepest stage, and a count of one is taken for a constant.
            example = (torch.rand(1, 3, least // 2 * 3, 2 * least),)
            traced = torch.export.export(model, example, dynamic_shapes=(sizes,))
            program = torch.onnx.export(
                traced, dynamo=True, opset_version=OPSET, input_names=["blurred"],
                output_names=["restored"], verbose=False,
            )  # fmt: skip
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # whatever tracing raises
        raise ModelError(f"{type(model).__name__}: the export failed ({str(error)[:300]})") from error
    finally:
        logging.disable(level)
        model.train(was_training)
        for parameter, grad in wanted:
            parameter.requires_grad_(grad)
    facts = {**(getattr(model, "header", None) or getattr(model, "made_by", {}))}
    facts |= {"version": unsmear.__version__, "size_multiple": multiple, "smallest": least}
    onnx.helper.set_model_props(proto, {HEADER_KEY: json.dumps(facts)})
    try:
        onnx.save(proto, str(path), format="protobuf")
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


def _difference(model: nn.Module, path: Path, image: Tensor) -> float:
    """Largest difference between our output and onnxruntime's."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(f"{error.name} is missing; pip install 'unsmear[onnx]'") from error
    was_training = model.training
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"blurred": image.numpy()})
    with torch.inference_mode():
        expected = model.eval()(image)
    model.train(was_training)
    return float((torch.from_numpy(restored) - expected).abs().max())

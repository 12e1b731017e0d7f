"""From a run to one file to hand out."""

from pathlib import Path
from typing import Any, Literal, cast

import torch

from unsmear.errors import ModelError, TrainingError
from unsmear.models.checkpoints import load_checkpoint, save_checkpoint
from unsmear.training.state import replace_durably
from unsmear.writable import make_writable


def export(
    run: str | Path,
    output: str | Path,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
    which: Literal["best", "last"] = "best",
    overwrite: bool = False,
) -> str:
    """Write the network of a run as a checkpoint of its own.

    Args:
        run: folder of a run.
        output: the checkpoint, NAME.safetensors; its header is that of the run's checkpoint plus `dtype`.
        dtype: "fp16" halves the file; weights keep 11 significant bits (relative error ≤ 2⁻¹¹), those below
            6·10⁻⁸ become 0.
        which: "best" by validation gain, or "last".
        overwrite: replace an existing file.

    Returns:
        a sentence that says what was written and what it leaves out.

    Raises:
        TrainingError: no such checkpoint in `run`; `output` exists, is not named .safetensors, or its folder
            cannot be written.
        ModelError: weights that 16 bits cannot hold.
    """
    source, output = Path(run) / f"{which}.safetensors", Path(output)
    if not source.exists():
        last = source.with_name("last.safetensors")
        hint = "; the run has had no validation: take --which last" if last.exists() else ""
        raise TrainingError(
            f"{source}: not there; expected the folder of a run that has saved a checkpoint{hint}"
        )
    if output.suffix != ".safetensors":
        raise TrainingError(f"{output}: a checkpoint is a safetensors file; name it NAME.safetensors")
    if output.exists() and not overwrite:
        raise TrainingError(f"{output}: exists already; choose another name, or replace it by --overwrite")
    make_writable(output.parent, TrainingError)
    model = load_checkpoint(source)
    header: dict[str, Any] = {**cast(dict[str, Any], model.header), "dtype": dtype}
    if dtype == "fp16":
        largest = max(float(tensor.abs().max()) for tensor in model.state_dict().values() if tensor.numel())
        if largest > torch.finfo(torch.float16).max:
            raise ModelError(f"{source}: a weight of {largest:.3g} does not fit into fp16; export as fp32")
        model = model.half()
    partial = output.with_name(f"{output.name}.part")
    save_checkpoint(model, partial, header)
    replace_durably(partial, output)
    rounded = "; weights rounded to 11 significant bits" if dtype == "fp16" else ""
    return (
        f"{output}: {header.get('model')} after step {header.get('step')}, {dtype}, "
        f"{output.stat().st_size / 1e6:.1f} MB; left out: optimizer state and log{rounded}"
    )

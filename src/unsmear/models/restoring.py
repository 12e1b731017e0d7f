"""Any network, any size of photo: what a network declares of itself decides how a photo is brought to it.

A network declares `size_multiple` and `minimum_size`; `restore` pads to them, calls, crops and clamps.
(models/tiling.py does that tile by tile.)
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsmear.errors import ModelError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""What autocast computes linear layers, convolutions and attention in; "auto" is `native_precision`."""


def restore(model: nn.Module, image: Tensor, *, precision: Precision = "fp32") -> Tensor:
    """Restore a picture of any size with a network that declares `size_multiple` and `minimum_size`.

    The picture is padded at the bottom and on the right, which leaves the network's windows where they are:
    by reflection, and beyond what a small picture can reflect by its last row or column.

    Args:
        model: maps (N, 3, H, W) in [0, 1] to the same; called as it is (`load_checkpoint` gives it in
            evaluation mode), without gradients.
        image: (3, H, W) or (N, 3, H, W), float, sRGB in [0, 1], from 1×1 on; with as many channels as the
            network declares by `image_channels`, if it does.
        precision: of the large products.

    Returns:
        the restored picture, (3, H, W) or (N, 3, H, W), of the type and device of `image`, clamped to [0, 1];
        with as many channels as the network declares by `output_channels`, if it does.

    Raises:
        ValueError: another shape, or an empty picture; a network that gives other channels.
    """
    if image.ndim not in (3, 4) or image.shape[-3] not in (3, image_channels(model)) or 0 in image.shape:
        raise ValueError(f"expected a picture (3, H, W) or (N, 3, H, W), got {tuple(image.shape)}")
    weight = next(model.parameters(), image)
    with torch.inference_mode(), autocast(weight.device, precision):
        batch = image.to(weight.device, weight.dtype).reshape(-1, *image.shape[-3:])
        height, width = image.shape[-2:]
        restored: Tensor = model(padded(batch, padded_size(model, height), padded_size(model, width)))
        if restored.shape[-3] != (given := int(getattr(model, "output_channels", 3))):
            raise ValueError(f"expected {given} channels of the network, got {tuple(restored.shape)}")
        restored = restored[..., :height, :width].float().clamp(0, 1)
    # A clone outside of inference mode: the result may go into a graph again.
    shape = (*image.shape[:-3], *restored.shape[-3:])
    return restored.clone().reshape(shape).to(image.device, image.dtype)


def image_channels(model: nn.Module) -> int:
    """Channels that a network restores from: 3, or more where it declares that it is shown more."""
    return int(getattr(model, "image_channels", 3))


def find_device(device: str) -> torch.device:
    """Return the device of a name that PyTorch knows, such as "cuda:1"; "auto" takes a GPU if there is one.

    Raises:
        ModelError: there is no such device here, or it holds no numbers ("meta").
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if torch.empty(0, device=device).is_meta:
            raise RuntimeError("it computes shapes only")
    except (
        RuntimeError,
        AssertionError,
        ImportError,
    ) as error:  # PyTorch asserts that it was built with CUDA
        raise ModelError(
            f"device: {device!r} is not here ({str(error).splitlines()[0][:80]}); try 'cpu', or 'cuda' where "
            "PyTorch sees a GPU"
        ) from error
    return torch.device(device)


def padded_size(model: nn.Module, size: int) -> int:
    """Return the smallest size that the network takes and that is not below `size`."""
    multiple = int(getattr(model, "size_multiple", 1))
    size = max(size, int(getattr(model, "minimum_size", 1)))
    return -(-size // multiple) * multiple


def padded(batch: Tensor, height: int, width: int) -> Tensor:
    """Pad (N, C, h, w) at the bottom and on the right to (N, C, height, width): reflect, then replicate."""
    down, right = height - batch.shape[-2], width - batch.shape[-1]
    reflected = (0, min(right, batch.shape[-1] - 1), 0, min(down, batch.shape[-2] - 1))
    batch = F.pad(batch, reflected, mode="reflect")
    return F.pad(batch, (0, width - batch.shape[-1], 0, height - batch.shape[-2]), mode="replicate")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context that computes large products on `device` in `precision`."""
    chosen = native_precision(device) if precision == "auto" else precision
    dtype = torch.float16 if chosen == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=chosen != "fp32")


def native_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Return the fastest type that the device multiplies in by itself: bf16, or fp16 on older GPUs."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16") else "fp32"
    return "fp32"

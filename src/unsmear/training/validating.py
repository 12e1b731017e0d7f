"""The gain over the blurred input on fixed pairs, and pictures of it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from unsmear.metrics import psnr_rgb


@torch.inference_mode()
def restored_pairs(model: nn.Module, blurred: Tensor, *, device: torch.device, bf16: bool = False) -> Tensor:
    """Restore (N, 3 or guided 9, H, W) one by one in evaluation mode (given back); float32 in [0, 1]."""
    was_training = model.training
    model.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        images = [model(image[None].to(device)).float().clamp(0, 1).cpu() for image in blurred]
    model.train(was_training)
    return torch.cat(images)


def scores(restored: Tensor, blurred: Tensor, sharp: Tensor) -> dict[str, float]:
    """Mean over the images of PSNR (dB), and of its gain over the blurred input.

    Pairs whose input is the truth (the identity scene without noise) have no finite PSNR and do not count.
    """
    after, before = psnr_rgb(restored, sharp), psnr_rgb(blurred, sharp)
    real = before.isfinite() if before.isfinite().any() else torch.ones_like(before, dtype=torch.bool)
    after, before = after[real], before[real]
    return {"psnr_rgb": float(after.mean()), "gain_psnr_rgb": float((after - before).mean())}


def write_samples(path: Path, blurred: Tensor, restored: Tensor, sharp: Tensor, *, rows: int = 4) -> None:
    """Write a PNG: one row for each of the first pairs, blurred | restored | sharp."""
    import pyvips

    shown = [torch.cat(list(images), dim=-1) for images in zip(blurred[:rows], restored, sharp, strict=False)]
    sheet = torch.cat(shown, dim=-2)
    pixels = (sheet.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.png")
    pyvips.Image.new_from_array(pixels, interpretation="srgb").write_to_file(str(partial))
    partial.replace(path)

"""How two pictures are compared."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.metrics import MAX_SHIFT, Channels, align, psnr_aligned, psnr_rgb, ssim_gauss_rgb

Align = Literal["none", "shift", "shift-gain"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How two pictures are compared.

    align: "none", pixel by pixel, on RGB; "shift", after the best whole-pixel shift; "shift-gain", after the
        best shift and the best factor on the values (see `unsmear.metrics.align`).
    channels: what an aligned PSNR looks at, "luma" (.299 .587 .114) or "rgb".
    max_shift: the largest shift in pixels; the border of that width is left out of an aligned score.
    eight_bit: the restored picture is rounded to 8 bit first.
    crop: only the middle crop×crop pixels are restored and scored: for a quick look, not for publishing.
    """

    align: Align = "none"
    channels: Channels = "luma"
    max_shift: int = MAX_SHIFT
    eight_bit: bool = True
    crop: int | None = None

    def __post_init__(self) -> None:
        """Refuse a manner of alignment that there is not, and sizes that are none."""
        if self.align not in ("none", "shift", "shift-gain"):
            raise EvaluationError(f"align is 'none', 'shift' or 'shift-gain', not {self.align!r}.")
        if self.crop is not None and self.crop < 1:
            raise EvaluationError(f"crop is {self.crop}; expected a side in pixels, from 1 up.")
        if self.max_shift < 0:
            raise EvaluationError(f"max_shift is {self.max_shift}; expected pixels, from 0 up.")

    @property
    def psnr(self) -> str:
        """The exact name of the PSNR."""
        how = self.align.replace("-", "_")
        return "psnr_rgb" if self.align == "none" else f"psnr_{how}_{self.channels}"

    @property
    def ssim(self) -> str:
        """The exact name of the SSIM."""
        return "ssim_gauss_rgb" if self.align == "none" else f"ssim_gauss_rgb_{self.align.replace('-', '_')}"

    def score(self, restored: Tensor, sharp: Tensor) -> tuple[float, float]:
        """PSNR in dB and SSIM of one picture (3,H,W) in [0,1]."""
        if self.align == "none":
            return psnr_rgb(restored, sharp).item(), ssim_gauss_rgb(restored, sharp).item()
        pair = align(
            restored,
            sharp,
            max_shift=self.max_shift,
            gain=self.align == "shift-gain",
            channels=self.channels,
        )
        psnr = psnr_aligned(pair, channels=self.channels)
        return psnr.item(), ssim_gauss_rgb(pair.restored, pair.sharp).item()

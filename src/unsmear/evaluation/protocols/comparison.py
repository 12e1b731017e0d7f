"""Two pictures compared pixel by pixel, or after the best shift: `unsmear evaluate --align …`."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.evaluation.protocols.base import Metric, PictureProtocol
from unsmear.metrics import MAX_SHIFT, Channels, align, psnr_aligned, psnr_rgb, ssim_gauss_rgb

Align = Literal["none", "shift", "shift-gain"]


@dataclass(frozen=True, kw_only=True)
class Comparison(PictureProtocol):
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
    name: str = "comparison"
    title: str = ""
    version: int = 1

    def __post_init__(self) -> None:
        """Refuse a manner of alignment that there is not, and sizes that are none."""
        if self.align not in ("none", "shift", "shift-gain"):
            raise EvaluationError(f"align is 'none', 'shift' or 'shift-gain', not {self.align!r}.")
        if self.crop is not None and self.crop < 1:
            raise EvaluationError(f"crop is {self.crop}; expected a side in pixels, from 1 up.")
        if self.max_shift < 0:
            raise EvaluationError(f"max_shift is {self.max_shift}; expected pixels, from 0 up.")

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """The exact names of its PSNR and SSIM."""
        how = self.align.replace("-", "_")
        if self.align == "none":
            return Metric("psnr_rgb", "dB"), Metric("ssim_gauss_rgb")
        return Metric(f"psnr_{how}_{self.channels}", "dB"), Metric(f"ssim_gauss_rgb_{how}")

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR in dB and SSIM of one picture (3,H,W) in [0,1]."""
        names = [metric.name for metric in self.metrics]
        if self.align == "none":
            values = psnr_rgb(restored, truth).item(), ssim_gauss_rgb(restored, truth).item()
        else:
            pair = align(
                restored,
                truth,
                max_shift=self.max_shift,
                gain=self.align == "shift-gain",
                channels=self.channels,
            )
            psnr = psnr_aligned(pair, channels=self.channels)
            values = psnr.item(), ssim_gauss_rgb(pair.restored, pair.sharp).item()
        return dict(zip(names, values, strict=True))

    def settings(self) -> dict[str, Any]:
        """Its options beside name and version."""
        options = ("align", "channels", "max_shift", "crop")
        return super().settings() | {option: getattr(self, option) for option in options}

    def manner(self) -> list[str]:
        """Rounding, and the range of the shifts."""
        words = super().manner()
        return words if self.align == "none" else [*words, f"shifts up to {self.max_shift} px"]

"""One truth of the same size: Lai's alignments, RealBlur's, and variants of published figures."""

from torch import Tensor

from unsmear.evaluation.protocols.base import Metric, PictureProtocol
from unsmear.metrics import align, psnr_aligned, psnr_rgb, ssim_gauss, ssim_uniform_rgb, ssim_volume_rgb
from unsmear.metrics.planes import Channels, decibel, planes_of


class Shifted(PictureProtocol):
    """One plane, border cut off, after the best shift in steps of a quarter pixel: SelfDeblur's convention.

    Lai 2016 has no evaluation code. Its kernels are off-centre, so that restored pictures are shifted; the
    figures that papers compare are those of SelfDeblur's script: Y of MATLAB's rgb2ycbcr (16 to 235), 15
    pixels cut off, shifts up to 10 pixels in steps of a quarter, bilinear; PSNR for a peak of 255 and the
    SSIM of Wang et al. 2004 on Y. For Levin 2009, grey: shifts up to 5 pixels.
    """

    def __init__(
        self, name: str, *, max_shift: int, gain: bool = False, channels: Channels = "ycbcr", border: int = 15
    ) -> None:
        self.name, self.max_shift, self.gain, self.channels, self.border = (
            name,
            max_shift,
            gain,
            channels,
            border,
        )
        end = name.partition("_")[2]
        plane = "y" if channels == "ycbcr" else "grey"
        self.metrics = (Metric(f"psnr_{plane}_{end}", "dB"), Metric(f"ssim_gauss_{plane}_{end}"))
        how = f"shifts up to {max_shift} px in steps of ¼" if max_shift else "no shift"
        self.title = ", ".join([plane.upper() if plane == "y" else plane, how, *(["gain"] if gain else [])])

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR and SSIM of the plane."""
        pair = align(
            restored,
            truth,
            max_shift=self.max_shift,
            gain=self.gain,
            channels=self.channels,
            border=self.border,
            steps=4 if self.max_shift else 1,
        )
        planes = planes_of(pair.restored, self.channels), planes_of(pair.sharp, self.channels)
        psnr = psnr_aligned(pair, channels=self.channels)
        return {self.metrics[0].name: psnr.item(), self.metrics[1].name: ssim_gauss(*planes).item()}

    def manner(self) -> list[str]:
        """Rounding, plane, border, alignment."""
        return [*super().manner(), self.title, f"{self.border} px of border cut off"]


class RealBlurECC(PictureProtocol):
    """Gain, ECC homography, validity mask (see `unsmear.metrics.homography`)."""

    name = "realblur_ecc"
    title = "after gain and ECC homography, where the warped picture is known, RGB, 8 bit"
    metrics = (Metric("psnr_ecc_rgb", "dB"), Metric("ssim_ecc_gauss_rgb"))

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR and SSIM over the mask."""
        from unsmear.metrics.homography import psnr_registered, register, ssim_registered

        pair = register(restored, truth)
        return {
            "psnr_ecc_rgb": psnr_registered(pair).item(),
            "ssim_ecc_gauss_rgb": ssim_registered(pair).item(),
        }

    def manner(self) -> list[str]:
        """Rounding and alignment."""
        return [*super().manner(), "after gain and ECC homography", "inside the mask"]


class UformerLegacy(PictureProtocol):
    """Uformer's script: not rounded, SSIM by 7×7 equal weights for a data range of 2."""

    name = "uformer_legacy"
    title = "Uformer's script: not rounded; SSIM 7×7 uniform with data range 2, too high"
    metrics = (Metric("psnr_rgb_float", "dB"), Metric("ssim_uniform_rgb_range2"))
    eight_bit = False

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR and SSIM of the restored picture, clamped."""
        restored = restored.clamp(0, 1)
        return {
            "psnr_rgb_float": psnr_rgb(restored, truth).item(),
            "ssim_uniform_rgb_range2": ssim_uniform_rgb(restored, truth, window=7, data_range=2.0).item(),
        }


class Volume(PictureProtocol):
    """SSIM of height × width × 3 as a volume: MATLAB's ssim on colour pictures, and NAFNet's copy of it."""

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title
        self.metrics = (Metric("psnr_rgb", "dB"), Metric("ssim_volume_rgb"))

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR and SSIM."""
        return {
            "psnr_rgb": psnr_rgb(restored, truth).item(),
            "ssim_volume_rgb": ssim_volume_rgb(restored, truth).item(),
        }


class BasicsrY(PictureProtocol):
    """BasicSR's test_y_channel: PSNR and SSIM of Y in [16, 235] for a peak of 255, no alignment."""

    name = "basicsr_y"
    title = "Y of rgb2ycbcr for a peak of 255, higher than RGB"
    metrics = (Metric("psnr_y", "dB"), Metric("ssim_gauss_y"))

    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """PSNR and SSIM."""
        planes = planes_of(restored.double(), "ycbcr"), planes_of(truth.double(), "ycbcr")
        error = (planes[0] - planes[1]).square().mean()
        return {"psnr_y": decibel(error).item(), "ssim_gauss_y": ssim_gauss(*planes).item()}

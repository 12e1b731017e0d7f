"""What the blur of random pairs looks like: every range, its default and where it comes from."""

import tomllib
from os import PathLike
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unsmear.errors import PairsError

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class PairSettings(BaseModel):
    """What the blur of random pairs looks like. Unknown fields are refused.

    Lengths are in pixels, noise in units of the full range 1, shares are probabilities.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The mixture of scenes; the six weights are divided by their sum.
    identity_weight: float = Field(
        default=0.08,
        ge=0,
        description="No blur at all, so that networks leave sharp photos alone; MSCNN has 10 % sharp pairs.",
    )
    uniform_weight: float = Field(
        default=0.17,
        ge=0,
        description="One kernel for the whole crop: Köhler's and Lai's small neighbourhoods.",
    )
    camera_weight: float = Field(
        default=0.25,
        ge=0,
        description="A rotating camera (pitch, yaw, roll) as a kernel field: Blur2Seq, Köhler, Lai.",
    )
    related_weight: float = Field(
        default=0.15,
        ge=0,
        description="Variations of one path under smooth random masks: redundant kernels, the paper's 3.1.",
    )
    objects_weight: float = Field(
        default=0.25,
        ge=0,
        description="Objects with their own motion before a shaken or still background: SBDD, DMBSR, GoPro.",
    )
    random_weight: float = Field(
        default=0.10,
        ge=0,
        description="Unrelated kernels under smooth random masks: the paper's recipe to the letter.",
    )

    most_bases: int = Field(
        default=6,
        ge=1,
        le=25,
        description="Most basis kernels of a pair, B. 25 in the paper's model; 6 keeps a pair within 25 ms.",
    )
    largest_kernel: int = Field(
        default=65,
        ge=3,
        le=129,
        description="Largest kernel size K, odd; 33 and 65 in Carbajal et al. Paths are shrunk to fit.",
    )
    typical_length: float = Field(
        default=10.0,
        gt=0,
        description="Median extent of a path; with the spread below 95 % lie in 3 to 32 px.",
    )
    length_spread: float = Field(
        default=0.6, ge=0, description="Standard deviation of the logarithm of the extent (log-normal)."
    )
    longest: float = Field(
        default=60.0,
        gt=0,
        description="Extents are cut off here: DeblurGAN's longest path, and what K = 65 holds.",
    )
    straight_share: Share = Field(
        default=0.25,
        description="Straight even motions among the paths; the others are camera shakes (Matérn).",
    )
    defocus_share: Share = Field(
        default=0.06,
        description="Uniform scenes that are a mild defocus instead: photographs that are merely soft.",
    )
    defocus_radius: tuple[float, float] = Field(
        default=(0.7, 2.5), description="Radius of the disc: mild, deblurring is about motion."
    )
    soft_share: Share = Field(
        default=0.0,
        description="Pairs whose photograph was out of focus before anything moved, in u as well as in v: "
        "softness to leave alone. Half of them only in places.",
    )
    soft_radius: tuple[float, float] = Field(
        default=(0.7, 4.0), description="Radius of that disc: a background out of focus, or a missed focus."
    )
    still_share: Share = Field(
        default=0.35,
        description="Object scenes whose background stands still: a camera on a tripod or a short exposure.",
    )

    linear_share: Share = Field(
        default=0.5,
        description="Pairs blurred in linear light x^2.2; the others in sRGB values (GoPro `blur`, Köhler).",
    )
    crisp_share: Share = Field(
        default=0.0,
        description="Pairs in which all moves, made up for what bilinearly drawn kernels soften besides "
        "(docs/PAIRS.md): Eq. 2 then blurs a slightly sharpened u.",
    )
    saturation_share: Share = Field(
        default=0.15, description="Pairs whose highlights outshine the sensor: light streaks (SBDD, RSBlur)."
    )
    saturation_gain: tuple[float, float] = Field(
        default=(1.25, 3.0),
        description="Gain on the HSV value of highlights before blurring: SBDD 1 + 2 U[0, 1].",
    )
    saturation_start: float = Field(
        default=0.8, gt=0, lt=1, description="HSV value (sRGB) above which the gain sets in; it is full at 1."
    )

    noise: tuple[float, float] = Field(
        default=(0.0, 2.5 / 255),
        description="Standard deviation of Gaussian noise in sRGB: up to Blur2Seq's .01; MSCNN: about 2/255.",
    )
    noise_free_share: Share = Field(default=0.25, description="Pairs without noise; 1/9 in DMBSR.")
    sensor_noise_share: Share = Field(
        default=0.2, description="Noisy pairs in linear light with Poisson-Gaussian noise instead: RSBlur."
    )
    shot_noise: float = Field(
        default=8.8915e-5,
        ge=0,
        description="Variance per unit of linear light at full strength (RSBlur); times U[0, 1] a pair.",
    )
    read_noise: float = Field(
        default=2.943e-5, ge=0, description="Variance in the dark at full strength (RSBlur); same scale."
    )
    jpeg_share: Share = Field(
        default=0.2,
        description="Blurred images that went through JPEG, as nearly every real photo and REDS `blur_jpeg`.",
    )
    jpeg_quality: tuple[int, int] = Field(
        default=(75, 98), description="JPEG quality: from visibly compressed to nearly lossless (our choice)."
    )

    smallest_scale: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Crops are reduced by a log-uniform factor from here to 1, antialiased: a target sharp "
        "at pixel level even where the photograph is not.",
    )
    photo_pixels: int = Field(
        default=2_000_000,
        ge=1024,
        description="Larger photographs are reduced to this many pixels when read.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PairSettings":
        for name in ("defocus_radius", "soft_radius", "saturation_gain", "noise", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} is ({low}, {high}); expected 0 ≤ low ≤ high")
        if self.largest_kernel % 2 == 0:
            raise ValueError(f"largest_kernel is {self.largest_kernel}; it must be odd")
        if self.jpeg_quality[1] > 100 or self.jpeg_quality[0] < 1:
            raise ValueError(f"jpeg_quality is {self.jpeg_quality}; expected 1 to 100")
        if sum(self.weights().values()) <= 0:
            raise ValueError("all scene weights are zero; give at least one")
        return self

    def weights(self) -> dict[str, float]:
        """Return the weight of each kind of scene."""
        return {
            "identity": self.identity_weight,
            "uniform": self.uniform_weight,
            "camera": self.camera_weight,
            "related": self.related_weight,
            "objects": self.objects_weight,
            "random": self.random_weight,
        }


def read_settings(path: str | PathLike[str]) -> PairSettings:
    """Read settings from a TOML file that lists what differs from the defaults.

    Raises:
        PairsError: the file cannot be read, or a field is unknown or out of its range; each is named.
    """
    try:
        return PairSettings.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}" for item in error.errors()
        )
        raise PairsError(f"{path}: {wrong}") from error
    except (OSError, ValueError) as error:
        raise PairsError(f"cannot read the settings {path}: {error}") from error

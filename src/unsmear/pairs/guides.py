"""What a guided network is shown in training: pictures filtered by kernels that are wrong as estimates are.

A guided network (models/guided.py) restores from v and from what a filter and total variation make of it with
an estimated kernel (estimation/filtering.py). Trained with true kernels it would believe them too readily. So
a share of the draws takes kernels that were estimated (estimates.py), and the others the pair's true mean
kernel, spoiled: turned, scaled, blurred, uneven, grainy, its faint taps or one end lost; sometimes another
pair's, sometimes none.
"""

import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from unsmear.basis.kernels import identity, pad_kernels, trim_kernels, vary_kernel
from unsmear.estimation.uniform import centred
from unsmear.pairs.sampling import Pair

_LUMPS = 7  # nodes along a side of the field that makes a kernel uneven

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class GuideSettings(BaseModel):
    """How far the kernels of a guided network's training are from the truth. Unknown fields are refused.

    The defaults are our choice, not the result of a search.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    estimated_share: Share = Field(
        default=0.6, description="draws with a stored estimate, where the folder of pairs has some"
    )
    wrong_share: Share = Field(
        default=0.15, description="of the other draws, those with the kernel of another pair"
    )
    none_share: Share = Field(default=0.08, description="spoiled kernels that are a single pixel: no blur")
    crops: int = Field(
        default=2, ge=1, description="patches in a row from one written pair, which is filtered once for all"
    )

    turned_share: Share = Field(default=0.6, description="kernels turned and scaled")
    turn: float = Field(default=2.9, ge=0, description="standard deviation of the angle in degrees")
    scale: float = Field(default=0.05, ge=0, description="standard deviation of the scale's logarithm")
    blurred_share: Share = Field(default=0.7, description="kernels blurred by a Gaussian")
    blur: tuple[float, float] = Field(default=(0.2, 0.9), description="its standard deviation in pixels")
    uneven_share: Share = Field(
        default=0.6, description="kernels with taps weighted by a smooth random field"
    )
    uneven: tuple[float, float] = Field(default=(0.1, 0.5), description="standard deviation of its logarithm")
    grainy_share: Share = Field(default=0.3, description="kernels with each tap weighted by itself")
    grain: tuple[float, float] = Field(default=(0.1, 0.8), description="standard deviation of that weight")
    thresholds: tuple[float, ...] = Field(
        default=(0.0, 0.02, 0.05, 0.1), description="taps below one of these parts of the largest are lost"
    )
    lost_share: Share = Field(default=0.3, description="kernels that lose one end")
    lost_from: Share = Field(
        default=0.5, description="nearest to the centre, as part of the reach, that one ends"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "GuideSettings":
        for name in ("blur", "uneven", "grain"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} is ({low}, {high}); expected 0 ≤ low ≤ high")
        if not self.thresholds or not all(0 <= part < 1 for part in self.thresholds):
            raise ValueError(f"thresholds is {self.thresholds}; expected parts of 1 from 0 up")
        return self


def mean_kernel(pair: Pair) -> Tensor:
    """Mean of a pair's kernels over its picture, Σ_b k_b · mean of m_b: (K, K) float32 on the simplex."""
    kernel = torch.einsum("bij,b->ij", pair.kernels, pair.masks.mean((1, 2)))
    return kernel / kernel.sum()


def spoiled_kernel(kernel: Tensor, generator: np.random.Generator, settings: GuideSettings) -> Tensor:
    """Make of a true kernel one such as an estimate might be.

    Args:
        kernel: (K, K) float32 on the simplex, K odd.
        generator: source of randomness.
        settings: how wrong.

    Returns:
        (K', K') float32 on the simplex, K' odd, its centre of mass within half a pixel of the middle; what is
        around it is cut off.
    """
    if generator.random() < settings.none_share:
        return torch.from_numpy(identity())
    taps = kernel.numpy()
    if generator.random() < settings.turned_share:
        angle, size = generator.normal(0.0, settings.turn), math.exp(generator.normal(0.0, settings.scale))
        taps = vary_kernel(taps, angle=angle, scale=size)
    taps = taps.astype(np.float64)
    if generator.random() < settings.blurred_share:
        taps = _blurred(taps, float(generator.uniform(*settings.blur)))
    if generator.random() < settings.uneven_share:
        taps = taps * np.exp(generator.uniform(*settings.uneven) * _smooth_field(generator, len(taps)))
    if generator.random() < settings.grainy_share:
        strength = generator.uniform(*settings.grain)
        grainy = taps * np.maximum(1 + strength * generator.standard_normal(taps.shape), 0)
        taps = grainy if grainy.any() else taps
    taps = np.where(taps < generator.choice(settings.thresholds) * taps.max(), 0.0, taps)
    if generator.random() < settings.lost_share:
        taps = _without_end(taps, generator, settings.lost_from)
    taps = pad_kernels((taps / taps.sum()).astype(np.float32), 2 * len(taps) + 1)  # room to move in
    return torch.from_numpy(np.ascontiguousarray(trim_kernels(centred(torch.from_numpy(taps)).numpy())))


def _blurred(taps: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Blur a kernel by a Gaussian, cut off at 3 σ; it grows by as much."""
    wide = np.pad(taps, math.ceil(3 * sigma))
    far = (np.arange(len(wide))[:, None] - np.arange(len(wide))) / max(sigma, 1e-3)
    row = np.where(np.abs(far) <= 3, np.exp(-0.5 * far**2), 0.0)
    return np.asarray(row @ wide @ row)


def _smooth_field(generator: np.random.Generator, side: int) -> NDArray[np.float64]:
    nodes = torch.from_numpy(generator.standard_normal((_LUMPS, _LUMPS)))
    return np.asarray(F.interpolate(nodes[None, None], size=(side, side), mode="bicubic")[0, 0].numpy())


def _without_end(
    taps: NDArray[np.float64], generator: np.random.Generator, nearest: float
) -> NDArray[np.float64]:
    """Lose the taps beyond a line across a random direction; what is nearer to the centre stays."""
    places = np.arange(len(taps)) - len(taps) // 2
    angle = generator.uniform(0.0, 2 * np.pi)
    along = places[:, None] * np.sin(angle) + places * np.cos(angle)
    limit = generator.uniform(nearest, 1.0) * max(along[taps > 0].max(), 0.0)
    kept = np.where(along > limit, 0.0, taps)
    return kept if kept.any() else taps

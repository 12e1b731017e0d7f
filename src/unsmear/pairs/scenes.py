"""Scenes of motion: how the basis kernels and masks of one random pair are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unsmear.basis.bank import KernelBank
from unsmear.basis.kernels import (
    Kernel,
    Path,
    center_kernels,
    defocus,
    draw_paths,
    fit_path,
    identity,
    linear_path,
    matern_paths,
    shake_path,
    trim_kernels,
    vary_kernel,
)
from unsmear.basis.masks import (
    Masks,
    camera_homographies,
    camera_motion_field,
    quantised_masks,
    region_masks,
    smooth_masks,
    softened_masks,
)
from unsmear.pairs.settings import PairSettings

Drawn = tuple[Kernel, Masks, float]  # kernels, masks, longest extent in pixels


@dataclass(frozen=True)
class Scene:
    """The motion of one pair.

    Attributes:
        kernels: (B, K, K) float32.
        mask_units: (B, S, S) uint8, units of 1/255, sum 255 at each pixel.
        facts: "scene" (its kind) and "length" (longest extent in pixels), JSON values.
    """

    kernels: Kernel
    mask_units: NDArray[np.uint8]
    facts: dict[str, Any]


def draw_scene(
    generator: np.random.Generator,
    settings: PairSettings,
    size: int,
    *,
    bank: KernelBank | None,
    centre: tuple[float, float],
    photo_side: float,
) -> Scene:
    """Draw a scene of one of the kinds that `settings` weighs.

    The masks are rounded to units of 1/255 here, before they blur anything, so that a pair written with 8-bit
    masks is the very pair that training on the fly sees.

    Args:
        generator: source of randomness.
        settings: what the blur looks like.
        size: S, side of the crop in pixels.
        bank: kernels to draw from, or None to simulate them. A bank has no paths, so camera scenes become
            related ones.
        centre: (row, column) of the photograph's centre in pixels of the crop: the principal point.
        photo_side: longer side of the photograph in pixels of the crop, which scales the focal length.
    """
    kind = _draw_name(generator, settings.weights())
    if kind == "camera" and (bank is not None or settings.most_bases < 4):
        kind = "related"
    if kind == "identity":
        kernels, masks, length = identity()[None], np.ones((1, size, size), dtype=np.float32), 0.0
    elif kind == "uniform":
        kernels, masks, length = _uniform(generator, settings, size, bank)
    elif kind == "camera":
        kernels, masks, length = _camera(generator, settings, size, centre, photo_side)
    elif kind == "objects":
        kernels, masks, length = _objects(generator, settings, size, bank)
    else:
        bases = int(generator.integers(1, settings.most_bases + 1))
        lengths = [_length(generator, settings) for _ in range(bases)]
        length = max(lengths) if kind == "random" else lengths[0]
        if kind == "random":
            kernels = _unrelated(generator, settings, lengths, bank)
        else:
            kernels = _related(generator, settings, bases, length, bank)
        masks = smooth_masks(generator, bases, size, size)
    return Scene(kernels, quantised_masks(masks), {"scene": kind, "length": round(length, 2)})


def _uniform(
    generator: np.random.Generator, settings: PairSettings, size: int, bank: KernelBank | None
) -> Drawn:
    """One kernel everywhere, sometimes a mild defocus."""
    masks = np.ones((1, size, size), dtype=np.float32)
    if generator.random() < settings.defocus_share:
        radius = float(generator.uniform(*settings.defocus_radius))
        return defocus(radius)[None], masks, 2 * radius
    length = _length(generator, settings)
    return _unrelated(generator, settings, [length], bank), masks, length


def _objects(
    generator: np.random.Generator, settings: PairSettings, size: int, bank: KernelBank | None
) -> Drawn:
    """One to three objects with their own motion before a background that stands still or moves less."""
    count = min(int(generator.integers(1, 4)), settings.most_bases - 1)
    still = generator.random() < settings.still_share
    lengths = [0.0 if still else 0.5 * _length(generator, settings)]
    lengths += [_length(generator, settings) for _ in range(count)]
    kernels = _unrelated(generator, settings, lengths, bank)
    masks = region_masks(generator, count + 1, size, size)
    return kernels, softened_masks(masks, kernels), max(lengths)


def _camera(
    generator: np.random.Generator,
    settings: PairSettings,
    size: int,
    centre: tuple[float, float],
    photo_side: float,
) -> Drawn:
    """A rotating camera: pitch and yaw that move the image by a length, and a roll about the optical axis.

    The roll angle is up to twice the other two; the focal length is 0.7 to 2 times the longer side of the
    photograph (25 to 70 mm on 35 mm film).
    """
    length = _length(generator, settings)
    grids = [(r, c) for r in range(2, 6) for c in range(2, 6) if r * c <= settings.most_bases]
    grid = grids[int(generator.integers(len(grids)))]
    focal = photo_side * float(generator.uniform(0.7, 2.0))
    sway = _path(generator, settings, length) / focal
    roll = matern_paths(generator, 1)[:, 0]
    roll *= float(generator.uniform(0.0, 2.0)) * length / focal / max(float(np.ptp(roll)), 1e-9)
    rotations = np.stack([sway[:, 0], sway[:, 1], roll], axis=1)
    homographies = camera_homographies(rotations, focal=focal, centre=centre)
    kernels, masks = camera_motion_field(homographies, size, size, grid=grid, largest=settings.largest_kernel)
    return kernels, masks, length


def _related(
    generator: np.random.Generator,
    settings: PairSettings,
    bases: int,
    length: float,
    bank: KernelBank | None,
) -> Kernel:
    """Variations of one kernel: turned (σ 20°), scaled (0.6 to 1.4) and, if simulated, bent (15 %)."""
    turns = generator.normal(0.0, 20.0, bases)
    scales = generator.uniform(0.6, 1.4, bases)
    if bank is not None:
        base = bank.kernels[generator.integers(len(bank))]
        varied = [
            vary_kernel(base, angle=angle, scale=scale) for angle, scale in zip(turns, scales, strict=True)
        ]
        return _same_size(varied, settings.largest_kernel)
    path = _path(generator, settings, length)
    bends = matern_paths(generator, 2 * bases).T.reshape(bases, 2, -1).transpose(0, 2, 1)
    angles = np.deg2rad(turns)
    rotations = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
    turned = np.einsum("ijb,tj->bti", rotations, path) * scales[:, None, None]
    return draw_paths(fit_path(turned + 0.15 * length / 2 * bends, settings.largest_kernel))


def _unrelated(
    generator: np.random.Generator,
    settings: PairSettings,
    lengths: Sequence[float],
    bank: KernelBank | None,
) -> Kernel:
    """Independent kernels of these lengths (0: identity), or as many of the bank, of any length."""
    if bank is not None:
        picks = generator.integers(len(bank), size=len(lengths))
        chosen = [
            identity() if length == 0 else bank.kernels[pick]
            for pick, length in zip(picks, lengths, strict=True)
        ]
        return _same_size(chosen, settings.largest_kernel)
    paths = [_path(generator, settings, length) for length in lengths]
    return draw_paths(np.stack([fit_path(path, settings.largest_kernel) for path in paths]))


def _length(generator: np.random.Generator, settings: PairSettings) -> float:
    """The extent of a path in pixels: log-normal, cut off at the longest."""
    drawn = settings.typical_length * np.exp(settings.length_spread * generator.standard_normal())
    return float(min(drawn, settings.longest))


def _path(generator: np.random.Generator, settings: PairSettings, length: float) -> Path:
    """One centred path of (129, 2) pixels: a straight motion or a camera shake."""
    if generator.random() < settings.straight_share:
        ends = linear_path(length, float(generator.uniform(0.0, 180.0)))
        return np.asarray(np.linspace(ends[0], ends[1], 129))
    return shake_path(generator, length=length)


def _draw_name(generator: np.random.Generator, weights: dict[str, float]) -> str:
    """Draw a name by its weight."""
    edges = np.cumsum(list(weights.values()))
    place = int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))
    return list(weights)[min(place, len(weights) - 1)]


def _same_size(kernels: Sequence[Kernel], largest: int) -> Kernel:
    """Kernels of several sizes as one (B, K, K) stack, cut to `largest` and then centred again."""
    size = max(len(kernel) for kernel in kernels)
    stack = np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels])
    cut = max(0, (size - largest) // 2)
    if cut:
        stack = stack[:, cut : size - cut, cut : size - cut]
        stack = center_kernels(stack / stack.sum(axis=(1, 2), keepdims=True))
    return np.ascontiguousarray(trim_kernels(stack))

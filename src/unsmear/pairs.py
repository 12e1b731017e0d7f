"""Pairs: sharp photographs + blur → the paper's tuples (u, v, {k}, {m}), on the fly or written to a folder.

    sampler = PairSampler("photos/", seed=0, size=256)
    pair = sampler[17]              # always the same pair for the same (seed, 17) and the same photos

Each pair draws a crop of a photograph and a scene of motion (basis kernels and masks), blurs the crop by Eq. 2
in linear light or in sRGB values, adds noise and rounds to 8 bit. `PairSettings` holds every range and its
source.
"""

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from unsmear.basis.bank import KernelBank
from unsmear.basis.kernels import (
    Kernel,
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
from unsmear.blurring import (
    GAMMA,
    add_gaussian_noise,
    add_poisson_gaussian_noise,
    blur,
    saturate,
    to_linear,
    to_srgb,
)
from unsmear.errors import PairsError, UnreadablePhoto
from unsmear.photo import find_photos, read_photo

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
    still_share: Share = Field(
        default=0.35,
        description="Object scenes whose background stands still: a camera on a tripod or a short exposure.",
    )

    linear_share: Share = Field(
        default=0.5,
        description="Pairs blurred in linear light x^2.2; the others in sRGB values (GoPro `blur`, Köhler).",
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
        description="Standard deviation of Gaussian noise in sRGB: up to Blur2Seq's .01; MSCNN had about 2/255.",
    )
    noise_free_share: Share = Field(default=0.25, description="Pairs without noise; 1/9 in DMBSR.")
    sensor_noise_share: Share = Field(
        default=0.2, description="Noisy pairs in linear light with Poisson-Gaussian noise instead: RSBlur."
    )
    shot_noise: float = Field(
        default=8.8915e-5,
        ge=0,
        description="Variance per unit of linear light at full strength (RSBlur); times U[0, 1] for each pair.",
    )
    read_noise: float = Field(
        default=2.943e-5, ge=0, description="Variance in the dark at full strength (RSBlur); same scale."
    )
    jpeg_share: Share = Field(
        default=0.2,
        description="Blurred images that went through JPEG, as nearly every real photo and REDS `blur_jpeg`.",
    )
    jpeg_quality: tuple[int, int] = Field(default=(75, 98), description="JPEG quality; cameras use 85 to 98.")

    smallest_scale: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Crops are reduced by a log-uniform factor from here to 1, antialiased: a target sharp at "
        "pixel level even where the photograph is not.",
    )
    photo_pixels: int = Field(
        default=2_000_000,
        ge=1024,
        description="Larger photographs are reduced to this many pixels when read.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "PairSettings":
        for name in ("defocus_radius", "saturation_gain", "noise", "jpeg_quality"):
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


@dataclass(frozen=True)
class Pair:
    """The tuple (u, v, {k}, {m}) of Eq. 2 and how it came about.

    Attributes:
        sharp: u, (3, S, S) float32 in [0, 1], sRGB, on the 8-bit grid.
        blurred: v, the same; noisy, on the 8-bit grid.
        kernels: {k}, (B, K, K) float32; B and K differ from pair to pair.
        masks: {m}, (B, S, S) float32 on the simplex, multiples of 1/255.
        facts: scene, photo, crop, "light" ("linear" or "srgb": where the blur was computed), noise, …
    """

    sharp: Tensor
    blurred: Tensor
    kernels: Tensor
    masks: Tensor
    facts: dict[str, Any] = field(default_factory=dict)


def stack_pairs(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return the blurred and the sharp images as two (N, 3, S, S) batches: a DataLoader's collate_fn."""
    return torch.stack([pair.blurred for pair in pairs]), torch.stack([pair.sharp for pair in pairs])


class PairSampler:
    """Random pairs on the fly: `sampler[index]` depends on the photographs, settings and (seed, index) alone.

    Any index ≥ 0 works; `len` is the number of photographs (one epoch shows each once, in another order each
    time). Safe in DataLoader workers: it touches no global random state and can be pickled. Reduced
    photographs are kept in memory as 8 bit, up to `cache_bytes` per process.
    """

    def __init__(
        self,
        sharp: str | PathLike[str] | Iterable[str | PathLike[str]],
        bank: KernelBank | str | PathLike[str] | None = None,
        *,
        seed: int = 0,
        size: int = 256,
        settings: PairSettings | None = None,
        cache_bytes: int = 512 * 2**20,
    ) -> None:
        """Look at the photographs' headers; pixels are read when needed.

        Args:
            sharp: a folder of sharp photographs (searched with sub-folders), or folders and files.
            bank: kernels to draw from; None simulates new ones for each pair.
            seed: first half of the random state of each pair.
            size: S, side of the crops in pixels. Photographs with a shorter side are left out and listed in
                `skipped`: enlarging them would teach a network that soft is sharp.
            settings: what the blur looks like.
            cache_bytes: memory for decoded photographs in this process.

        Raises:
            PairsError: no usable photograph.
            KernelError: the bank is none.
        """
        if size < 8:
            raise PairsError(f"the crops would be {size} px; expected at least 8")
        self.seed = seed
        self.size = size
        self.settings = settings or PairSettings()
        self.bank = bank if isinstance(bank, KernelBank) or bank is None else KernelBank.load(bank)
        self.cache_bytes = cache_bytes
        self.skipped: dict[str, str] = {}
        self.photos = self._usable(sharp)
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.photos)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the decoded photographs behind when a worker gets a copy."""
        return self.__dict__ | {"_cache": OrderedDict(), "_epoch": None}

    def photo_of(self, index: int) -> int:
        """Return which photograph (its place in `photos`) pair `index` is cut from."""
        epoch, place = divmod(index, len(self.photos))
        if self._epoch is None or self._epoch[0] != epoch:
            # Four numbers instead of two: never the state of a pair.
            order = np.random.SeedSequence([self.seed, epoch, 0, 1])
            self._epoch = (epoch, np.random.default_rng(order).permutation(len(self.photos)))
        return int(self._epoch[1][place])

    def __getitem__(self, index: int) -> Pair:
        """Make pair `index`."""
        if index < 0:
            raise IndexError(f"pair {index} does not exist; pairs are counted from 0")
        settings, size = self.settings, self.size
        generator = np.random.default_rng(np.random.SeedSequence([self.seed, index]))
        place, photo = self._photo(self.photo_of(index))

        kind = _draw(generator, settings.weights())
        linear = bool(generator.random() < settings.linear_share)
        scale, centre, corner = self._place_crop(generator, photo.shape[:2])
        kernels, masks, facts = self._scene(generator, kind, centre, max(photo.shape[:2]) * scale)
        margin = kernels.shape[-1] // 2
        window, box = self._window(photo, scale, corner, margin)
        if generator.random() < 0.5:
            window = window[:, ::-1]
        window = np.rot90(window, int(generator.integers(4)))
        facts = {
            "index": index,
            "photo": self.photos[place].name,
            "box": box,
            "scene": kind,
            "light": "linear" if linear else "srgb",
            **facts,
        }

        image = _encoded_values(linear)[
            torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1))).int()
        ]
        sharp = image[:, margin : margin + size, margin : margin + size]
        if generator.random() < settings.saturation_share:
            gain = float(generator.uniform(*settings.saturation_gain))
            image = _brighter_highlights(image, gain, settings.saturation_start, linear)
            sharp = image[:, margin : margin + size, margin : margin + size]
            facts["saturation_gain"] = gain
        kernel_stack = torch.from_numpy(kernels)
        mask_stack = torch.from_numpy(masks).float() / 255
        blurred = blur(image, kernel_stack, mask_stack, border="valid")
        blurred = self._photographed(generator, saturate(blurred.clamp_(min=0.0)), linear, facts)
        sharp = saturate(sharp)
        sharp = _to_eight_bit(to_srgb(sharp) if linear else sharp)
        return Pair(
            sharp=sharp.float() / 255,
            blurred=blurred.float() / 255,
            kernels=kernel_stack,
            masks=mask_stack,
            facts=facts,
        )

    # Photographs

    def _usable(self, sharp: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
        """Return the photographs that are large enough, note the others in `skipped`."""
        given = [Path(sharp)] if isinstance(sharp, str | PathLike) else [Path(item) for item in sharp]
        paths: list[Path] = []
        for item in given:
            paths += find_photos(item) if item.is_dir() else [item]
        usable = []
        for path in paths:
            try:
                header = pyvips.Image.new_from_file(str(path))
            except pyvips.Error:
                self.skipped[str(path)] = "not readable as a photograph"
                continue
            if min(header.width, header.height) < self.size:
                self.skipped[str(path)] = f"{header.width}×{header.height} px is smaller than the crop"
            else:
                usable.append(path)
        if not usable:
            seen = ", ".join(str(item) for item in given[:3]) or "an empty list"
            few = "; ".join(f"{path}: {why}" for path, why in list(self.skipped.items())[:3])
            raise PairsError(
                f"no photograph of at least {self.size}×{self.size} px in {seen}"
                + (f" ({few})" if few else "")
            )
        return usable

    def _photo(self, place: int) -> tuple[int, NDArray[np.uint8]]:
        """Return a photograph, or the next one that can be read, as (place, (H, W, 3) uint8 sRGB)."""
        for step in range(len(self.photos)):
            current = (place + step) % len(self.photos)
            if current in self._cache:
                self._cache.move_to_end(current)
                return current, self._cache[current]
            path = self.photos[current]
            if str(path) in self.skipped:
                continue
            try:
                photo = _read_reduced(path, self.settings.photo_pixels, self.size)
            except UnreadablePhoto as error:
                self.skipped[str(path)] = str(error)
                warnings.warn(f"{error} The next photograph takes its place.", stacklevel=3)
                continue
            self._cache[current] = photo
            while (
                len(self._cache) > 1 and sum(item.nbytes for item in self._cache.values()) > self.cache_bytes
            ):
                self._cache.popitem(last=False)
            return current, photo
        raise PairsError(f"none of the {len(self.photos)} photographs can be read; see the warnings")

    def _place_crop(
        self, generator: np.random.Generator, shape: tuple[int, ...]
    ) -> tuple[float, tuple[float, float], tuple[float, float]]:
        """Draw the reduction and the crop's place: (scale, photo's centre in crop pixels, place in [0, 1]²)."""
        lowest = min(1.0, max(self.settings.smallest_scale, 1.2 * self.size / min(shape)))
        scale = float(np.exp(generator.uniform(np.log(lowest), 0.0)))
        down, right = generator.random(2)
        height, width = shape[0] * scale, shape[1] * scale
        centre = (height / 2 - down * (height - self.size), width / 2 - right * (width - self.size))
        return scale, centre, (float(down), float(right))

    def _window(
        self, photo: NDArray[np.uint8], scale: float, corner: tuple[float, float], margin: int
    ) -> tuple[NDArray[np.uint8], list[int]]:
        """Cut the crop with `margin` pixels of real surroundings, reduced by `scale`.

        Where the photograph ends the surroundings are reflected, as a blurred photograph's border would be by
        `blur`; the crop itself is always real.
        """
        whole = self.size + 2 * margin
        side = min(round(whole / scale), *photo.shape[:2]) if min(photo.shape[:2]) >= whole else 0
        if side:
            top, left = (round(part * (have - side)) for part, have in zip(corner, photo.shape, strict=False))
            window = photo[top : top + side, left : left + side]
            return _resized(window, whole), [top, left, side]
        top, left = (
            round(part * (have - self.size)) for part, have in zip(corner, photo.shape, strict=False)
        )
        rows, columns = (
            _reflected(np.arange(start - margin, start + self.size + margin), have)
            for start, have in ((top, photo.shape[0]), (left, photo.shape[1]))
        )
        return photo[rows[:, None], columns[None, :]], [top, left, self.size]

    # Motion

    def _scene(
        self, generator: np.random.Generator, kind: str, centre: tuple[float, float], longer: float
    ) -> tuple[Kernel, NDArray[np.uint8], dict[str, Any]]:
        """Draw (kernels (B, K, K), masks (B, S, S) in units of 1/255, facts)."""
        settings, size = self.settings, self.size
        length = self._length(generator)
        facts: dict[str, Any] = {"length": round(length, 2)}
        masks: Masks
        if kind == "identity":
            return identity()[None], np.full((1, size, size), 255, np.uint8), {"length": 0.0}
        if kind == "uniform":
            masks = np.ones((1, size, size), dtype=np.float32)
            if generator.random() < settings.defocus_share:
                radius = float(generator.uniform(*settings.defocus_radius))
                kernels = defocus(radius)[None]
                facts = {"length": round(2 * radius, 2), "defocus": True}
            else:
                kernels = self._kernels(generator, [length])
        elif kind == "camera" and settings.most_bases >= 4 and self.bank is None:
            kernels, masks = self._camera(generator, length, centre, longer)
        elif kind == "objects":
            count = int(generator.integers(1, 4))
            lengths = [self._length(generator) for _ in range(count)]
            still = generator.random() < settings.still_share
            background = 0.0 if still else 0.5 * length
            bases = min(count + 1, settings.most_bases)
            kernels = self._kernels(generator, [background, *lengths][:bases])
            masks = softened_masks(region_masks(generator, bases, size, size), kernels)
            facts["length"] = round(max([background, *lengths]), 2)
        else:
            bases = int(generator.integers(1, settings.most_bases + 1))
            if kind == "random":
                kernels = self._kernels(generator, [self._length(generator) for _ in range(bases)])
            else:
                kernels = self._related(generator, bases, length)
            masks = smooth_masks(generator, bases, size, size)
        return kernels, quantised_masks(masks), facts

    def _length(self, generator: np.random.Generator) -> float:
        """Draw the extent of a path in pixels: log-normal, cut off at the longest."""
        settings = self.settings
        drawn = settings.typical_length * np.exp(settings.length_spread * generator.standard_normal())
        return float(min(drawn, settings.longest))

    def _path(self, generator: np.random.Generator, length: float) -> NDArray[np.float64]:
        """Draw one centred path of (129, 2) pixels: a straight motion or a camera shake."""
        if generator.random() < self.settings.straight_share:
            ends = linear_path(length, float(generator.uniform(0.0, 180.0)))
            return np.asarray(np.linspace(ends[0], ends[1], 129))
        return shake_path(generator, length=length)

    def _kernels(self, generator: np.random.Generator, lengths: Sequence[float]) -> Kernel:
        """Draw unrelated kernels of these lengths, or as many of the bank; length 0 is the identity."""
        if self.bank is not None:
            picks = generator.integers(len(self.bank.kernels), size=len(lengths))
            chosen = self.bank.kernels[picks].copy()
            middle = chosen.shape[-1] // 2
            for kernel, length in zip(chosen, lengths, strict=True):
                if length == 0:
                    kernel[...] = 0.0
                    kernel[middle, middle] = 1.0
            return np.ascontiguousarray(trim_kernels(chosen))
        paths = np.stack([self._path(generator, length) for length in lengths])
        return draw_paths(np.stack([fit_path(path, self.settings.largest_kernel) for path in paths]))

    def _related(self, generator: np.random.Generator, bases: int, length: float) -> Kernel:
        """Draw kernels that are variations of one path: turned (20°), scaled (0.6 to 1.4), bent (15 %)."""
        turns = generator.normal(0.0, 20.0, bases)
        scales = generator.uniform(0.6, 1.4, bases)
        largest = self.settings.largest_kernel
        if self.bank is not None:
            base = self.bank.kernels[generator.integers(len(self.bank.kernels))]
            varied = [
                vary_kernel(base, angle=angle, scale=scale)
                for angle, scale in zip(turns, scales, strict=True)
            ]
            return _same_size(varied, largest)
        path = self._path(generator, length)
        bends = matern_paths(generator, 2 * bases).T.reshape(bases, 2, -1).transpose(0, 2, 1)
        angles = np.deg2rad(turns)
        rotations = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
        turned = np.einsum("ijb,tj->bti", rotations, path) * scales[:, None, None]
        return draw_paths(fit_path(turned + 0.15 * length / 2 * bends, largest))

    def _camera(
        self, generator: np.random.Generator, length: float, centre: tuple[float, float], longer: float
    ) -> tuple[Kernel, Masks]:
        """Draw a rotating camera: pitch and yaw that move the image by `length`, and a roll about its centre.

        The roll angle is up to twice the other two; focal length 0.7 to 2 times the longer side of the
        photograph (25 to 70 mm on 35 mm film).
        """
        grids = [(r, c) for r in range(2, 6) for c in range(2, 6) if r * c <= self.settings.most_bases]
        grid = grids[int(generator.integers(len(grids)))]
        focal = longer * float(generator.uniform(0.7, 2.0))
        sway = self._path(generator, length) / focal
        roll = matern_paths(generator, 1)[:, 0]
        roll *= float(generator.uniform(0.0, 2.0)) * length / focal / max(float(np.ptp(roll)), 1e-9)
        rotations = np.stack([sway[:, 0], sway[:, 1], roll], axis=1)
        homographies = camera_homographies(rotations, focal=focal, centre=centre)
        return camera_motion_field(
            homographies, self.size, self.size, grid=grid, largest=self.settings.largest_kernel
        )

    # Camera

    def _photographed(
        self, generator: np.random.Generator, blurred: Tensor, linear: bool, facts: dict[str, Any]
    ) -> Tensor:
        """Add noise, encode to sRGB, round to 8 bit, sometimes through JPEG; (3, S, S) uint8."""
        settings = self.settings
        noisy = generator.random() >= settings.noise_free_share
        sensor = noisy and linear and generator.random() < settings.sensor_noise_share
        strength = float(generator.random())
        noise = torch.Generator().manual_seed(int(generator.integers(2**63)))
        if sensor:
            read = (strength * settings.read_noise) ** 0.5
            blurred = add_poisson_gaussian_noise(blurred, strength * settings.shot_noise, read, noise)
            facts["sensor_noise"] = round(strength, 4)
        if linear:
            blurred = to_srgb(blurred)
        if noisy and not sensor:
            low, high = settings.noise
            sigma = low + (high - low) * strength
            blurred = add_gaussian_noise(blurred, sigma, noise)
            facts["noise"] = round(sigma, 6)
        levels = _to_eight_bit(blurred.clamp(0.0, 1.0))
        if generator.random() < settings.jpeg_share:
            low_quality, high_quality = settings.jpeg_quality
            quality = int(generator.integers(low_quality, high_quality + 1))
            levels = _through_jpeg(levels, quality)
            facts["jpeg"] = quality
        return levels


def _draw(generator: np.random.Generator, weights: dict[str, float]) -> str:
    """Draw a name by its weight."""
    edges = np.cumsum(list(weights.values()))
    place = int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))
    return list(weights)[min(place, len(weights) - 1)]


def _same_size(kernels: list[Kernel], largest: int) -> Kernel:
    """Return kernels of several sizes as one (B, K, K) stack, cut to `largest` and centred again."""
    size = max(len(kernel) for kernel in kernels)
    stack = np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels])
    cut = max(0, (size - largest) // 2)
    if cut:
        stack = stack[:, cut : size - cut, cut : size - cut]
        stack = center_kernels(stack / stack.sum(axis=(1, 2), keepdims=True))
    return np.ascontiguousarray(trim_kernels(stack))


def _read_reduced(path: Path, most_pixels: int, size: int) -> NDArray[np.uint8]:
    """Read a photograph as (H, W, 3) uint8 of at most `most_pixels`, but no side shorter than 1.5 crops."""
    header = _header(path)
    width, height = header
    factor = min(1.0, max((most_pixels / (width * height)) ** 0.5, 1.5 * size / min(width, height)))
    shrink = max(step for step in (1, 2, 4, 8) if step * factor <= 1.0)
    pixels = read_photo(path, shrink=shrink).pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    colours = np.ascontiguousarray(colours)
    rest = factor * max(width, height) / max(colours.shape[:2])
    if rest < 0.999:
        image = pyvips.Image.new_from_array(colours, interpretation="srgb")
        colours = np.ascontiguousarray(image.resize(rest, kernel="lanczos3").numpy())
    return colours


def _header(path: Path) -> tuple[int, int]:
    """Return (width, height) as stored in the file."""
    try:
        image = pyvips.Image.new_from_file(str(path))
    except pyvips.Error as error:
        raise UnreadablePhoto(f"Cannot read {path}: the file is cut short or damaged.") from error
    return image.width, image.height


def _resized(window: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Reduce a square (H, H, 3) uint8 window to `side`, bicubic and antialiased."""
    if len(window) == side:
        return window
    tensor = torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(tensor, size=(side, side), mode="bicubic", antialias=True)
    return np.asarray(small[0].permute(1, 2, 0).numpy())


def _reflected(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions outside 0 … length − 1 back in, without repeating the border pixel."""
    period = max(2 * (length - 1), 1)
    folded = np.abs(places) % period
    return np.minimum(folded, period - folded) if length > 1 else np.zeros_like(places)


def _encoded_values(linear: bool) -> Tensor:
    """Return the table from 8-bit sRGB levels to the values that are blurred."""
    levels = torch.arange(256, dtype=torch.float32) / 255
    return to_linear(levels) if linear else levels


def _brighter_highlights(image: Tensor, gain: float, start: float, linear: bool) -> Tensor:
    """Multiply the HSV value by a gain that grows from 1 at `start` (sRGB) to `gain` at 1, hue unchanged."""
    value = image.amax(dim=0)
    low = start**GAMMA if linear else start
    rise = ((value - low) / (1.0 - low)).clamp(0.0, 1.0)
    return image * (1.0 + (gain - 1.0) * rise * rise)


def _to_eight_bit(image: Tensor) -> Tensor:
    """Round values in [0, 1] to levels 0 to 255, uint8."""
    return (image * 255).round_().to(torch.uint8)


def _through_jpeg(levels: Tensor, quality: int) -> Tensor:
    """Save and load (3, H, W) uint8 as JPEG."""
    image = pyvips.Image.new_from_array(
        np.ascontiguousarray(levels.permute(1, 2, 0).numpy()), interpretation="srgb"
    )
    read = pyvips.Image.jpegload_buffer(image.jpegsave_buffer(Q=quality))
    return torch.from_numpy(np.ascontiguousarray(read.numpy().transpose(2, 0, 1)))

"""Random pairs on the fly: a crop of a sharp photograph, a scene of motion, Eq. 2, noise, 8 bit."""

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsmear.basis.bank import KernelBank
from unsmear.basis.kernels import defocus, identity
from unsmear.basis.masks import smooth_masks
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
from unsmear.pairs.scenes import draw_scene
from unsmear.pairs.settings import PairSettings
from unsmear.photo import find_photos, read_photo


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
        if size < 8 or seed < 0:
            raise PairsError(
                f"crops of {size} px with seed {seed}; expected at least 8 px and a seed from 0 up"
            )
        self.seed = seed
        self.size = size
        self.settings = settings or PairSettings()
        self.bank = bank if isinstance(bank, KernelBank) or bank is None else KernelBank.load(bank)
        self.cache_bytes = cache_bytes
        self.skipped: dict[str, str] = {}
        self.photos, self.names = self._usable(sharp)
        self._cache: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.photos)

    def __iter__(self) -> Iterator[Pair]:
        """Go through one epoch."""
        return (self[index] for index in range(len(self)))

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
        generator = np.random.default_rng(np.random.SeedSequence([self.seed, index]))
        place, photo = self._photo(self.photo_of(index))
        linear = bool(generator.random() < self.settings.linear_share)
        crop = self._place_crop(generator, photo)
        scene = draw_scene(
            generator,
            self.settings,
            self.size,
            bank=self.bank,
            centre=crop.centre,
            photo_side=crop.scale * max(photo.shape[:2]),
        )
        margin = scene.kernels.shape[-1] // 2
        window, box = _window(photo, crop, self.size, margin)
        window = window[:, ::-1] if generator.random() < 0.5 else window
        window = np.rot90(window, int(generator.integers(4)))
        facts = {"index": index, "photo": self.names[place], "box": box, **scene.facts}
        facts["light"] = "linear" if linear else "srgb"

        levels = torch.from_numpy(np.ascontiguousarray(window.transpose(2, 0, 1)))
        image = _values_of_levels(linear)[levels.int()]
        if generator.random() < self.settings.saturation_share:
            gain = float(generator.uniform(*self.settings.saturation_gain))
            image = _brighter_highlights(image, gain, self.settings.saturation_start, linear)
            facts["saturation_gain"] = round(gain, 4)
        if self.settings.soft_share and generator.random() < self.settings.soft_share:
            radius = float(generator.uniform(*self.settings.soft_radius))
            image = _out_of_focus(generator, image, radius)
            facts["soft"] = round(radius, 4)
        kernels = torch.from_numpy(scene.kernels)
        masks = torch.from_numpy(scene.mask_units).float() / 255
        seen = image
        crisp = self.settings.crisp_share
        if crisp and generator.random() < crisp and _all_move(scene.kernels):
            seen = _crisp(image)
            facts["crisp"] = True
        blurred = saturate(blur(seen, kernels, masks, border="valid").clamp_(min=0.0))
        blurred = self._photographed(generator, blurred, linear, facts)
        inner = slice(margin, margin + self.size)
        sharp = saturate(image[:, inner, inner])
        sharp = _to_levels(to_srgb(sharp) if linear else sharp)
        return Pair(sharp.float() / 255, blurred.float() / 255, kernels, masks, facts)

    # Photographs

    def _usable(
        self, sharp: str | PathLike[str] | Iterable[str | PathLike[str]]
    ) -> tuple[list[Path], list[str]]:
        """Return the photographs that are large enough and their names, note the others in `skipped`."""
        given = [Path(sharp)] if isinstance(sharp, str | PathLike) else [Path(item) for item in sharp]
        named: list[tuple[Path, str]] = []
        for item in given:
            if not (item.is_file() or item.is_dir()):
                raise PairsError(
                    f"{item}: no such folder or file; expected sharp photographs, or folders of them"
                )
            found = find_photos(item) if item.is_dir() else [item]
            named += [
                (path, path.relative_to(item).as_posix() if path != item else path.name) for path in found
            ]
        usable = []
        for path, name in named:
            try:
                width, height = _header(path)
            except UnreadablePhoto as error:
                self.skipped[str(path)] = str(error)
                continue
            if min(width, height) < self.size:
                self.skipped[str(path)] = f"{width}×{height} px is smaller than the crop"
            else:
                usable.append((path, name))
        if not usable:
            seen = ", ".join(str(item) for item in given[:3]) or "an empty list"
            few = "; ".join(f"{path}: {why}" for path, why in list(self.skipped.items())[:3])
            raise PairsError(
                f"no photograph of at least {self.size}×{self.size} px in {seen}"
                + (f" ({few})" if few else "")
            )
        return [path for path, _ in usable], [name for _, name in usable]

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

    def _place_crop(self, generator: np.random.Generator, photo: NDArray[np.uint8]) -> "_Crop":
        """Draw the reduction, never so far that the photograph is under 1.2 crops, and the place."""
        height, width = photo.shape[:2]
        lowest = min(1.0, max(self.settings.smallest_scale, 1.2 * self.size / min(height, width)))
        scale = float(np.exp(generator.uniform(np.log(lowest), 0.0)))
        down, right = (float(part) for part in generator.random(2))
        centre = (
            scale * height / 2 - down * (scale * height - self.size),
            scale * width / 2 - right * (scale * width - self.size),
        )
        return _Crop(scale, down, right, centre)

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
        levels = _to_levels(blurred.clamp(0.0, 1.0))
        if generator.random() < settings.jpeg_share:
            low_quality, high_quality = settings.jpeg_quality
            quality = int(generator.integers(low_quality, high_quality + 1))
            levels = _through_jpeg(levels, quality)
            facts["jpeg"] = quality
        return levels


@dataclass(frozen=True)
class _Crop:
    """A crop's reduction, place (0 to 1 of the room there is) and the photograph's centre seen from it."""

    scale: float
    down: float
    right: float
    centre: tuple[float, float]


def _window(
    photo: NDArray[np.uint8], crop: _Crop, size: int, margin: int
) -> tuple[NDArray[np.uint8], list[int]]:
    """Cut a crop with `margin` pixels of surroundings and reduce it; also (top, left, side) in the photo.

    Where the photograph ends the surroundings are reflected, as `blur` does with a whole photograph; the crop
    itself is always real. A photograph too small for crop and surroundings is not reduced.
    """
    whole = size + 2 * margin
    shape = photo.shape[:2]
    if min(shape) >= whole:
        side = min(round(whole / crop.scale), *shape)
        top, left = round(crop.down * (shape[0] - side)), round(crop.right * (shape[1] - side))
        return _resized(photo[top : top + side, left : left + side], whole), [top, left, side]
    top, left = round(crop.down * (shape[0] - size)), round(crop.right * (shape[1] - size))
    rows = _reflected(np.arange(top - margin, top + size + margin), shape[0])
    columns = _reflected(np.arange(left - margin, left + size + margin), shape[1])
    return photo[rows[:, None], columns[None, :]], [top, left, size]


def _read_reduced(path: Path, most_pixels: int, size: int) -> NDArray[np.uint8]:
    """Read a photograph as (H, W, 3) uint8 of at most `most_pixels`, but no side shorter than 1.5 crops."""
    width, height = _header(path)
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
        read_photo(path)  # says what is wrong with it: empty, no photograph, HEIC without its extra, …
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


def _values_of_levels(linear: bool) -> Tensor:
    """Return the table from 8-bit sRGB levels to the values that are blurred."""
    levels = torch.arange(256, dtype=torch.float32) / 255
    return to_linear(levels) if linear else levels


def _brighter_highlights(image: Tensor, gain: float, start: float, linear: bool) -> Tensor:
    """Multiply the HSV value by a gain that grows from 1 at `start` (sRGB) to `gain` at 1, hue unchanged."""
    value = image.amax(dim=0)
    low = start**GAMMA if linear else start
    rise = ((value - low) / (1.0 - low)).clamp(0.0, 1.0)
    return image * (1.0 + (gain - 1.0) * rise * rise)


def _all_move(kernels: NDArray[np.float32]) -> bool:
    """Whether no kernel of (B, K, K) is a single tap, which softens nothing."""
    return bool((kernels.max((1, 2)) < 1.0).all())


def _out_of_focus(generator: np.random.Generator, image: Tensor, radius: float) -> Tensor:
    """Blur a picture (3, H, W) by a disc: all of it, or in every other case where a smooth mask says so."""
    disc = defocus(radius)
    kernels = np.stack([identity(len(disc)), disc])
    masks = np.zeros((2, *image.shape[1:]), dtype=np.float32)
    masks[1] = 1
    if generator.random() < 0.5:
        masks = smooth_masks(generator, 2, *image.shape[1:])
    return blur(image, torch.from_numpy(kernels), torch.from_numpy(masks)).clamp_(min=0.0)


def _crisp(image: Tensor) -> Tensor:
    """Make up for what kernels soften that are drawn bilinearly between pixels, (3, H, W) in and out.

    Averaged over where a path lies between the pixels, such a kernel is the path's own smoothed along each
    axis by a triangle of two pixels, whose transfer function is sinc² = 1 − ω²/12 + …; the taps
    (−1, 14, −1)/12 have 1 + ω²/12 + … The border's pixels stay as they are.
    """
    for dim in (1, 2):
        inner = image.narrow(dim, 1, image.shape[dim] - 2)
        outer = image.narrow(dim, 0, inner.shape[dim]) + image.narrow(dim, 2, inner.shape[dim])
        sharper = image.clone()
        sharper.narrow(dim, 1, inner.shape[dim]).copy_((14 * inner - outer) / 12)
        image = sharper
    return image


def _to_levels(image: Tensor) -> Tensor:
    """Round values in [0, 1] to levels 0 to 255, uint8."""
    return (image * 255).round_().to(torch.uint8)


def _through_jpeg(levels: Tensor, quality: int) -> Tensor:
    """Save and load (3, H, W) uint8 as JPEG."""
    image = pyvips.Image.new_from_array(
        np.ascontiguousarray(levels.permute(1, 2, 0).numpy()), interpretation="srgb"
    )
    read = pyvips.Image.jpegload_buffer(image.jpegsave_buffer(Q=quality))
    return torch.from_numpy(np.ascontiguousarray(read.numpy().transpose(2, 0, 1)))

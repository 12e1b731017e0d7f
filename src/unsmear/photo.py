"""Photograph files ↔ pixels ↔ tensors.

A `Photo` keeps the pixels once, as the 8 or 16 bit integers of the file, because a float copy of a 100-megapixel
photo would take 1.2 GB. Tensors are made from any rectangle on demand and put back into a second photo:

    photo = read_photo("in.jpg")
    result = photo.blank_like()
    result.put(network(photo.tensor(rows=slice(0, 512))), row=0)
    write_photo(result, "out.jpg")

Tensors are (3, H, W) float32 in [0, 1], encoded as in the file (sRGB for nearly every photograph; with another
profile the numbers stay in that profile's space, and the profile travels along).
"""

import logging
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from unsmear.errors import UnreadablePhoto, UnwritablePhoto

if TYPE_CHECKING:
    from torch import Tensor

# libvips reports through Python's logging, which prints to stderr unless somebody listens.
logging.getLogger("pyvips").addHandler(logging.NullHandler())

# 22,000 × 22,000: more than any camera makes, and 3 GB as 16-bit RGB.
MAX_PIXELS = 500_000_000

_FORMAT = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
    ".heic": "heic",
    ".heif": "heic",
}
PHOTO_SUFFIXES = frozenset(_FORMAT)
_NAMES = "JPEG, PNG, WebP, TIFF, AVIF or HEIC"
_DEPTHS = {"jpeg": (8,), "webp": (8,)}  # the others hold 8 and 16 bit (AVIF and HEIC: 12 of the 16)
_KEPT = re.compile(r"(exif|xmp|iptc|icc-profile)-data|resolution-unit|png-comment-.*|image(-)?description")


@dataclass(kw_only=True)
class Photo:
    """The pixels of one photograph, upright, and what its file said about them.

    Attributes:
        pixels: (H, W, C) uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        metadata: EXIF, XMP, IPTC, ICC profile and comments under libvips' field names, and the resolution
            as "xres" and "yres" in pixels per millimetre.
        source: the file it was read from, if any.
        format: "jpeg", "png", "webp", "tiff", "avif", "heic", or "" for pixels that came from no file.
    """

    pixels: NDArray[Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    format: str = ""

    def __post_init__(self) -> None:
        p = self.pixels
        if (
            p.ndim != 3
            or p.shape[2] not in (1, 2, 3, 4)
            or p.dtype not in (np.uint8, np.uint16)
            or not p.size
        ):
            raise UnreadablePhoto(
                f"Pixels of shape {p.shape} and type {p.dtype} are no photo: expected (height, width, 1 to 4) "
                "of uint8 or uint16."
            )

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return int(self.pixels.dtype.itemsize * 8)

    @property
    def is_grey(self) -> bool:
        """Whether there is one colour channel instead of three."""
        return int(self.pixels.shape[2]) < 3

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return int(self.pixels.shape[2]) % 2 == 0

    @property
    def _colours(self) -> int:
        return 1 if self.is_grey else 3

    def tensor(self, *, rows: slice = slice(None), columns: slice = slice(None)) -> "Tensor":
        """The colours of a rectangle, (3, H, W) float32 in [0, 1]: value / 255 or value / 65535, correctly rounded.

        Grey is repeated three times; alpha is left out.
        """
        import torch

        part = self.pixels[rows, columns, : self._colours].transpose(2, 0, 1)
        values = np.empty((3, *part.shape[1:]), np.float32)
        np.divide(part, np.float32(2**self.bit_depth - 1), out=values)
        return torch.from_numpy(values)

    def put(self, tensor: "Tensor", *, row: int = 0, column: int = 0) -> None:
        """Round a (3, h, w) tensor in [0, 1] into the pixels, its upper left corner at (row, column).

        Values are clamped to [0, 1] and rounded to the nearest level (a half to the even one). A grey photo takes the
        mean of the three channels. Alpha stays as it is.

        Raises:
            UnwritablePhoto: the tensor holds NaN or infinity.
            ValueError: it is not (3, h, w), or does not lie inside the photo.
        """
        _, h, w = shape = tuple(tensor.shape) if tensor.ndim == 3 else (0, 0, 0)
        if shape[0] != 3 or not (0 <= row <= self.height - h and 0 <= column <= self.width - w):
            raise ValueError(
                f"A tensor of shape {tuple(tensor.shape)} does not fit at row {row}, column {column} of a photo of "
                f"{self.height} × {self.width}: expected (3, height, width) inside it."
            )
        values = tensor.detach().to("cpu").float()
        if not values.isfinite().all():
            raise UnwritablePhoto(
                "The restored picture holds NaN or infinity: the network failed on this photo."
            )
        if self.is_grey:
            values = values.mean(dim=0, keepdim=True)
        levels = (values.clamp(0, 1) * (2**self.bit_depth - 1)).round_()
        target = self.pixels[row : row + h, column : column + w, : self._colours]
        target[...] = levels.permute(1, 2, 0).numpy().astype(self.pixels.dtype)

    def blank_like(self) -> "Photo":
        """A black photo of the same size, depth, channels, alpha and metadata, to be filled by `put`."""
        pixels = np.zeros_like(self.pixels, order="C")
        if self.has_alpha:
            pixels[:, :, -1] = self.pixels[:, :, -1]
        return Photo(pixels=pixels, metadata=dict(self.metadata), source=self.source, format=self.format)

    def with_tensor(self, tensor: "Tensor") -> "Photo":
        """This photo with other colours: a (3, H, W) tensor of the same size, rounded as by `put`."""
        if tuple(tensor.shape) != (3, self.height, self.width):
            raise ValueError(
                f"Expected a tensor (3, {self.height}, {self.width}), got {tuple(tensor.shape)}."
            )
        result = self.blank_like()
        result.put(tensor)
        return result


def read_photo(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, shrink: int = 1) -> Photo:
    """Read a photograph: the format is told from its content, the orientation is applied.

    8 and 16 bit are kept (10 and 12 bit become 16), and so are grey and alpha. A palette becomes RGB, CMYK becomes
    sRGB through its profile.

    Args:
        path: the file.
        max_pixels: refuse larger photographs before decoding them.
        shrink: 1, 2, 4 or 8: read the photo that many times smaller in each direction (sides rounded up). JPEG does it
            inside the decoder and is several times faster then; the other formats average after decoding.

    Raises:
        UnreadablePhoto: missing, a folder, no permission, empty, not a photograph, more than one frame, too large,
            truncated or damaged.
    """
    path = Path(path)
    if shrink not in (1, 2, 4, 8):
        raise ValueError(f"shrink must be 1, 2, 4 or 8, not {shrink}.")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
            return _decode(file, head, path, max_pixels, shrink)
    except OSError as error:
        raise UnreadablePhoto(f"Cannot read {path}: {error.strerror or error}.") from error
    except pyvips.Error as error:
        raise UnreadablePhoto(f"Cannot read {path}: the file is cut short or damaged.") from error


def _decode(file: BinaryIO, head: bytes, path: Path, max_pixels: int, shrink: int) -> Photo:
    format = _sniff(head)
    if not head:
        raise UnreadablePhoto(f"Cannot read {path}: the file is empty.")
    if format is None:
        raise UnreadablePhoto(f"Cannot read {path}: it is no {_NAMES} photograph.")
    load = getattr(pyvips.Image, {"avif": "heif"}.get(format, format) + "load_source")
    options: dict[str, Any] = {"shrink": shrink} if format == "jpeg" and shrink > 1 else {}
    source = pyvips.Source.new_from_descriptor(file.fileno())
    image = load(source, access="sequential", fail_on="error", **options)
    fields = image.get_fields()
    if image.width * image.height * len(options or "1") > max_pixels:
        raise UnreadablePhoto(
            f"Cannot read {path}: {image.width} × {image.height} is more than the {max_pixels:,} pixels allowed; "
            "raise max_pixels if that is meant."
        )
    if "n-pages" in fields and image.get("n-pages") > 1:
        raise UnreadablePhoto(f"Cannot read {path}: it holds {image.get('n-pages')} pictures; expected one.")
    metadata = {name: image.get(name) for name in fields if _KEPT.fullmatch(name)}
    metadata |= {"xres": image.xres, "yres": image.yres}
    orientation = image.get("orientation") if "orientation" in fields else 1
    pixels = _upright(image.numpy().reshape(image.height, image.width, image.bands), orientation)
    return Photo(pixels=pixels, metadata=metadata, source=path, format=format)


def _sniff(head: bytes) -> str | None:
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head[4:8] == b"ftyp":
        brands = head[8 : int.from_bytes(head[:4])]
        return (
            "avif" if b"avif" in brands else "heic" if re.search(b"hei[cxms]|hev[cx]|mif1", brands) else None
        )
    return None


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the EXIF orientation 1 to 8: mirrored for 2, 4, 5, 7; the sides change places from 5 on."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def write_photo(
    photo: Photo, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int = 95
) -> None:
    """Write a photograph; the suffix of the path says in which format.

    The file appears under its name only when it is complete. JPEG and WebP hold 8 bit: a 16-bit photo is rounded.

    Args:
        photo: what to write.
        path: where to.
        overwrite: whether a file of that name may be replaced.
        quality: 1 to 100 for JPEG (always 4:4:4), WebP, AVIF and HEIC; 100 is lossless for WebP and AVIF.

    Raises:
        UnwritablePhoto: the file exists, the format is unknown or cannot hold alpha, no permission, no such folder,
            disk full.
    """
    path = Path(path)
    format = _FORMAT.get(path.suffix.lower())
    if format is None:
        raise UnwritablePhoto(
            f"Cannot write {path}: its suffix is none of {', '.join(sorted(PHOTO_SUFFIXES))}."
        )
    if photo.has_alpha and format == "jpeg":
        raise UnwritablePhoto(
            f"Cannot write {path}: JPEG holds no transparency; choose PNG, TIFF, WebP or AVIF."
        )
    if os.path.lexists(path) and not overwrite:
        raise UnwritablePhoto(
            f"Cannot write {path}: the file exists already; allow overwriting or choose another name."
        )
    part = path.with_name(f".unsmear-{secrets.token_hex(6)}.part")
    try:
        try:
            with part.open("x+b", buffering=0) as file:
                _encode(photo, file, format, quality)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UnwritablePhoto(f"Cannot write {path}: {error.strerror or error}.") from error
    except pyvips.Error as error:
        raise UnwritablePhoto(
            f"Cannot write {path}: the encoder refused this picture ({error.detail})."
        ) from error


def _encode(photo: Photo, file: BinaryIO, format: str, quality: int) -> None:
    pixels = np.ascontiguousarray(photo.pixels)
    kind = "ushort" if photo.bit_depth == 16 else "uchar"
    image = pyvips.Image.new_from_memory(pixels.data, photo.width, photo.height, pixels.shape[2], kind)
    space = {
        ("uchar", True): "b-w",
        ("uchar", False): "srgb",
        ("ushort", True): "grey16",
        ("ushort", False): "rgb16",
    }
    if photo.bit_depth not in _DEPTHS.get(format, (8, 16)):
        image, kind = (image / 257).rint().cast("uchar"), "uchar"
    image = image.copy(interpretation=space[kind, photo.is_grey], xres=photo.metadata.get("xres", 72 / 25.4),
                       yres=photo.metadata.get("yres", 72 / 25.4))  # fmt: skip
    for name, value in photo.metadata.items():
        if name.endswith("-data"):
            image.set_type(pyvips.GValue.blob_type, name, value)
        elif isinstance(value, str):
            image.set_type(pyvips.GValue.gstr_type, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    lossy = {"Q": quality}
    options: dict[str, dict[str, Any]] = {
        "jpeg": lossy | {"subsample_mode": "off", "optimize_coding": True},
        "png": {},
        "webp": lossy | {"lossless": quality == 100, "smart_subsample": True},
        "tiff": {"compression": "deflate", "predictor": "horizontal"},
        "avif": lossy | {"lossless": quality == 100, "subsample_mode": "off", "compression": "av1"}
        | ({"bitdepth": 12} if kind == "ushort" else {}),
    }  # fmt: skip
    failures: list[OSError] = []

    def guarded(call: Callable[[Any], int]) -> Callable[..., int]:
        def handler(*arguments: Any) -> int:
            try:
                return call(*arguments)
            except OSError as error:  # must not cross the C code; raised again below
                failures.append(error)
                return -1

        return handler

    target = pyvips.TargetCustom()
    target.on_write(guarded(file.write))
    target.on_read(file.read)
    target.on_seek(guarded(file.seek))
    try:
        getattr(image, {"avif": "heif"}.get(format, format) + "save_target")(target, **options[format])
    except pyvips.Error:
        if not failures:
            raise
    if failures:
        raise failures[0]


def find_photos(folder: str | os.PathLike[str]) -> list[Path]:
    """All photographs below a folder by their suffix, sorted by path; hidden files and folders are left out."""
    folder = Path(folder)
    found = (p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
    return sorted(
        p for p in found if not any(s.startswith(".") for s in p.relative_to(folder).parts) and p.is_file()
    )

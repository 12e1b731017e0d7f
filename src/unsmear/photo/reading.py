"""Photograph file → `Photo`."""

import mmap
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from unsmear.errors import UnreadablePhoto
from unsmear.photo import exif, heic
from unsmear.photo.formats import PHOTO_SUFFIXES, format_of_content
from unsmear.photo.pixels import Photo

MAX_PIXELS = 500_000_000  # more than any camera makes; 3 GB as 16-bit RGB

_KEPT = re.compile(r"(exif|xmp|iptc|icc-profile)-data|image-description|png-comment-.*")
_UNKNOWN_RESOLUTION = 1.0  # libvips' value where a file says nothing
_ROWS = 64  # decoded at a time


def read_photo(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS, shrink: int = 1) -> Photo:
    """Read a photograph. Its content, not its name, tells the format; its orientation is applied.

    8 and 16 bit are kept (10 and 12 bit become 16), and so are grey and alpha. A palette becomes RGB, CMYK
    becomes sRGB through its profile. No thread is started, so this is safe in a forked worker.

    Args:
        path: the file.
        max_pixels: larger photographs are refused before they are decoded.
        shrink: 1, 2, 4 or 8: read the photo that many times smaller on each side (rounded down). The JPEG
            decoder does it itself and is faster for it; in other formats blocks of pixels are averaged.

    Raises:
        UnreadablePhoto: missing, a folder or a pipe, no permission, empty, no photograph, several pictures
            in one file, too large, cut short or damaged.
    """
    path = Path(path)
    if shrink not in (1, 2, 4, 8):
        raise ValueError(f"shrink must be 1, 2, 4 or 8, not {shrink}.")
    try:
        # Opening a pipe would wait until somebody writes into it.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UnreadablePhoto(f"Cannot read {path}: it is no regular file; save the photograph as one.")
        with path.open("rb") as file:
            return _decode(file, path, max_pixels, shrink)
    except OSError as error:
        raise UnreadablePhoto(f"Cannot read {path}: {(error.strerror or str(error)).lower()}.") from error
    except (pyvips.Error, *heic.DAMAGE) as error:
        raise UnreadablePhoto(f"Cannot read {path}: the file is cut short or damaged.") from error


def find_photos(folder: str | os.PathLike[str]) -> list[Path]:
    """All photographs below a folder, by suffix, sorted by path; hidden files and folders are left out."""
    folder = Path(folder)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    visible = (path for path in found if not any(part[0] == "." for part in path.relative_to(folder).parts))
    return sorted(path for path in visible if path.is_file())


def _decode(file: BinaryIO, path: Path, max_pixels: int, shrink: int) -> Photo:
    head = file.read(1 << 16)
    format = format_of_content(head)
    if format is None:
        what = "is no JPEG, PNG, WebP, TIFF, AVIF or HEIC photograph" if head else "is empty"
        raise UnreadablePhoto(f"Cannot read {path}: the file {what}.")
    if format == "heic" and heic.missing():
        raise UnreadablePhoto(f"Cannot read {path}: HEIC needs an extra, pip install 'unsmear[heic]'.")
    source = heic.HeicFile(file) if format == "heic" else _VipsFile(file, format)
    if source.frames > 1 or _animated(format, head):
        raise UnreadablePhoto(f"Cannot read {path}: it holds several pictures; expected a single photograph.")
    if source.width * source.height > max_pixels:
        raise UnreadablePhoto(
            f"Cannot read {path}: {source.width} × {source.height} is more than {max_pixels:,} pixels; "
            "raise max_pixels if that is meant."
        )
    if shrink > 1 and shrink > min(source.width, source.height):
        raise UnreadablePhoto(
            f"Cannot read {path}: {source.width} × {source.height} cannot shrink {shrink} times."
        )
    image, bits, metadata = source.decoded(shrink if format == "jpeg" else 1)
    if image.format not in ("uchar", "ushort") or image.bands > 4:
        raise UnreadablePhoto(
            f"Cannot read {path}: {image.bands} channels of type {image.format}; "
            "expected grey or RGB of 8 or 16 bit."
        )
    if format == "avif" and set(re.findall(rb"pixi\0{4}(.)", head, re.DOTALL)) == {b"\1"}:
        image = image[0]  # monochrome, which libvips repeats three times
    if shrink > 1 and format != "jpeg":
        height, width = image.height // shrink, image.width // shrink
        image = image.crop(0, 0, width * shrink, height * shrink).shrink(shrink, shrink)
    pixels = _pixels(image)
    if pixels.dtype == np.uint16 and bits < 16:
        pixels |= pixels >> bits  # decoders only shift 10 and 12 bit up; this makes white 65535
    pixels = _upright(pixels, metadata.pop("orientation", 1))
    if format == "tiff":
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            metadata["exif-data"] = exif.of_tiff(content)
    metadata["exif-data"] = exif.upright(metadata.get("exif-data", b""), *pixels.shape[:2])
    if "xres" not in metadata and (resolution := exif.resolution(metadata["exif-data"])):
        metadata |= dict(zip(("xres", "yres"), resolution, strict=True))
    metadata["xmp-data"] = exif.upright_xmp(metadata.get("xmp-data", b""))
    metadata = {name: value for name, value in metadata.items() if value}
    return Photo(pixels=pixels, metadata=metadata, source=path, format=format)


class _VipsFile:
    """A file opened by libvips: header read, pixels not yet decoded."""

    def __init__(self, file: BinaryIO, format: str) -> None:
        self._file, self._format = file, format
        self._image = self._opened()
        self.width, self.height = self._image.width, self._image.height
        self.frames = self._field("n-pages", 1)

    def _opened(self, **options: int) -> Any:
        load = getattr(pyvips.Image, {"avif": "heif"}.get(self._format, self._format) + "load_source")
        source = pyvips.Source.new_from_descriptor(self._file.fileno())
        return load(source, access="sequential", fail_on="error", **options)

    def _field(self, name: str, default: Any) -> Any:
        return self._image.get(name) if self._image.get_typeof(name) else default

    def decoded(self, shrink: int) -> tuple[Any, int, dict[str, Any]]:
        """The image, still lazy, a JPEG shrunk; bits per value; metadata."""
        image = self._opened(shrink=shrink) if shrink > 1 else self._image
        metadata = {name: image.get(name) for name in image.get_fields() if _KEPT.fullmatch(name)}
        if image.xres != _UNKNOWN_RESOLUTION:
            metadata |= {"xres": image.xres, "yres": image.yres}
        if self._format != "avif":  # there the file's own transformations count, and are applied already
            metadata["orientation"] = self._field("orientation", 1)
        if image.interpretation == "cmyk":
            depth = 16 if image.format == "ushort" else 8
            image = image.icc_transform(
                "srgb", depth=depth, embedded=True, input_profile="cmyk", black_point_compensation=True
            )
            metadata.pop("icc-profile-data", None)
        return image, self._field("bits-per-sample", 16), metadata


def _animated(format: str, head: bytes) -> bool:
    """Whether it is a moving picture whose other frames libvips does not report."""
    return (
        b"acTL" in head.partition(b"IDAT")[0]
        if format == "png"
        else format == "avif" and head[8:12] == b"avis"
    )


def _pixels(image: Any) -> NDArray[Any]:
    """Decode in this thread: libvips' own would hang in a process forked after they were first used."""
    pixels = np.empty(
        (image.height, image.width, image.bands), np.uint8 if image.format == "uchar" else np.uint16
    )
    region = pyvips.Region.new(image)
    for top in range(0, image.height, _ROWS):
        rows = pixels[top : top + _ROWS]
        rows[...] = np.frombuffer(region.fetch(0, top, image.width, len(rows)), pixels.dtype).reshape(
            rows.shape
        )
    return pixels


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo the EXIF orientation 1 to 8; from 5 on, rows and columns change places."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)

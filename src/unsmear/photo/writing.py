"""`Photo` → photograph file."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips

from unsmear.errors import UnwritablePhoto
from unsmear.photo import exif, heic
from unsmear.photo.formats import PHOTO_SUFFIXES, format_of_suffix
from unsmear.photo.pixels import Photo

_LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384, "heic": 16_384}
_EXISTS = "the file exists already; choose another name or ask for --overwrite (overwrite=True)"
_SCREEN_RESOLUTION = 72 / 25.4  # pixels per millimetre: what EXIF prescribes where it is unknown
_KEEP_EXIF, _KEEP_THE_REST = 1, 2 | 4 | 8 | 16  # VipsForeignKeep: XMP, IPTC, ICC, other

_threads_started = False
_threads_lost = False


def _after_fork() -> None:
    global _threads_lost
    _threads_lost = _threads_started


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)


def write_photo(
    photo: Photo, path: str | os.PathLike[str], *, overwrite: bool = False, quality: int = 95
) -> None:
    """Write a photograph; the suffix of the path says in which format.

    The file appears under its name only when it is complete. JPEG and WebP hold 8 bit, AVIF and HEIC 12: a
    16-bit photo is rounded to that. WebP and AVIF hold no grey: it becomes three equal channels.

    Args:
        photo: what to write.
        path: where to.
        overwrite: whether a file of that name may be replaced.
        quality: 1 to 100 for JPEG, AVIF, HEIC (all 4:4:4) and WebP (4:2:0); 100 is lossless in WebP and AVIF.

    Raises:
        UnwritablePhoto: the file exists, the suffix is unknown, the format cannot hold the photo, no
            permission, no such folder, disk full.
    """
    path = Path(path)
    format = check_target(photo, path, overwrite=overwrite)
    try:
        _put(path, lambda file: _encode(photo, file, format, quality))
    except OSError as error:
        raise UnwritablePhoto(f"Cannot write {path}: {(error.strerror or str(error)).lower()}.") from error
    except (pyvips.Error, *heic.DAMAGE) as error:
        raise UnwritablePhoto(f"Cannot write {path}: the {format} encoder refused this picture.") from error


def copy_photo(
    source: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a photograph's file under another name, byte for byte; it appears only when it is complete.

    Raises:
        UnwritablePhoto: the file exists, no permission, no such folder, disk full, or the source is gone.
    """
    source, path = Path(source), Path(path)
    if os.path.lexists(path) and not overwrite:
        raise UnwritablePhoto(f"Cannot write {path}: {_EXISTS}.")

    def copy(file: BinaryIO) -> None:
        with source.open("rb") as original:
            shutil.copyfileobj(original, file)

    try:
        _put(path, copy)
    except OSError as error:
        raise UnwritablePhoto(f"Cannot write {path}: {(error.strerror or str(error)).lower()}.") from error


def _put(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file beside its place, and move it there when it is complete."""
    part = path.with_name(f".unsmear-{secrets.token_hex(6)}.part")
    try:
        with part.open("x+b") as file:
            write(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_target(photo: Photo, path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Return the format that `write_photo` would write, by the photo's sizes, not its values.

    Raises:
        UnwritablePhoto: the file exists, the suffix is unknown, or the format cannot hold the photo.
    """
    path = Path(path)
    format = format_of_suffix(path.suffix)
    problem = _problem(photo, format)
    if os.path.lexists(path) and not overwrite:
        problem = _EXISTS
    if problem or format is None:
        raise UnwritablePhoto(f"Cannot write {path}: {problem}.")
    return format


def _problem(photo: Photo, format: str | None) -> str:
    """Why this photo cannot be written in this format; "" if it can."""
    block = len(photo.metadata.get("exif-data", b""))
    if format is None:
        return f"its suffix is none of {', '.join(sorted(PHOTO_SUFFIXES))}"
    if format == "heic" and heic.missing():
        return "HEIC needs an extra, pip install 'unsmear[heic]'"
    if format == "jpeg" and photo.has_alpha:
        return "JPEG holds no transparency; choose PNG, TIFF, WebP or AVIF"
    if max(photo.height, photo.width) > _LONGEST_SIDE.get(format, 10**8):
        return f"{format} holds at most {_LONGEST_SIDE[format]:,} pixels on a side; choose PNG or TIFF"
    if format in ("jpeg", "webp", "avif") and block > exif.LONGEST:
        return f"its EXIF block of {block:,} bytes is too long for {format}; choose PNG or TIFF"
    if _threads_lost and format != "heic":
        return "libvips does not survive a fork after its first use; start workers by spawn or forkserver"
    return ""


def _encode(photo: Photo, file: BinaryIO, format: str, quality: int) -> None:
    pixels = np.ascontiguousarray(photo.pixels)
    metadata = {"xres": _SCREEN_RESOLUTION, "yres": _SCREEN_RESOLUTION, **photo.metadata}
    block = metadata.pop("exif-data", b"")
    if format == "heic":
        heic.save(pixels, file, quality, metadata | {"exif-data": block})
        return
    image = pyvips.Image.new_from_memory(
        pixels.data,
        photo.width,
        photo.height,
        pixels.shape[2],
        "ushort" if photo.bit_depth == 16 else "uchar",
    )
    if photo.bit_depth == 16 and format in ("jpeg", "webp"):
        image = (image / 257).rint().cast("uchar")
    if photo.bit_depth == 16 and format == "avif":
        image = ((image * (4095 / 65535)).rint() * 16).cast("ushort")  # libvips would cut off, not round
    spaces = ("b-w", "grey16") if photo.is_grey else ("srgb", "rgb16")
    image = image.copy(
        interpretation=spaces[image.format == "ushort"], xres=metadata["xres"], yres=metadata["yres"]
    )
    for name, value in metadata.items():
        if isinstance(value, (bytes, str)):
            kind = pyvips.GValue.blob_type if isinstance(value, bytes) else pyvips.GValue.gstr_type
            image.set_type(kind, name, value)
    keep = _KEEP_THE_REST
    if block and format in ("webp", "avif"):
        image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-ImageDescription", exif.placeholder(block))
        keep |= _KEEP_EXIF
    _save(image, file, format, _options(format, quality, image.format) | {"keep": keep})
    exif.embed(file, block, format, (image.xres, image.yres))


def _options(format: str, quality: int, kind: str) -> dict[str, Any]:
    if (
        format == "jpeg"
    ):  # no optimised coding: it keeps the whole picture's coefficients, 1.2 GB for 100 megapixels
        return {"Q": quality, "subsample_mode": "off"}
    if format == "webp":
        return {"Q": quality, "lossless": quality == 100, "exact": True, "smart_subsample": True}
    if format == "avif":
        options = {"Q": quality, "lossless": quality == 100, "subsample_mode": "off", "compression": "av1"}
        return options | {"effort": 2, "bitdepth": 12 if kind == "ushort" else 8}
    return (
        {"compression": "deflate", "predictor": "horizontal", "resunit": "inch"} if format == "tiff" else {}
    )


def _save(image: Any, file: BinaryIO, format: str, options: dict[str, Any]) -> None:
    """Let libvips write into the Python file, so that a full disk is Python's OSError."""
    global _threads_started
    _threads_started = True
    failures: list[OSError] = []

    def guarded(call: Callable[[Any], int]) -> Callable[..., int]:
        def handler(*arguments: Any) -> int:
            try:
                return call(*arguments)
            except OSError as error:  # must not cross libvips' own code
                failures.append(error)
                return -1

        return handler

    target = pyvips.TargetCustom()
    target.on_write(guarded(file.write))
    target.on_read(file.read)
    target.on_seek(guarded(file.seek))
    try:
        getattr(image, {"avif": "heif"}.get(format, format) + "save_target")(target, **options)
    except pyvips.Error:
        if not failures:
            raise
    if failures:
        raise failures[0]

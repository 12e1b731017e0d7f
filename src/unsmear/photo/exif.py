"""EXIF blocks, carried over byte for byte.

libvips rewrites EXIF when it saves: it adds tags that nobody wrote, drops those it does not know, and neither
reads nor writes EXIF in TIFF. So the block is taken out of the source, the facts that turning the pixels
changes are patched where they stand (`upright`), and it is put into the finished file by hand (`embed`).

A block is a small TIFF file: "II" or "MM", 42, then directories (IFD) of 12-byte entries: tag, type, count,
and the value or its offset. Tag numbers and types are those of Exif 2.32 and TIFF 6.0.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_SIZE = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
}  # bytes of a value by type
_SHORT, _LONG = 3, 4
_SUB_IFDS = {0x8769: "exif", 0x8825: "gps", 0xA005: "interoperability"}
# What a TIFF's first directory says about the photograph; the rest of it describes how the pixels are stored.
_ABOUT_PHOTO = {
    0x010D,
    0x010E,
    0x010F,
    0x0110,
    0x011A,
    0x011B,
    0x0128,
    0x0131,
    0x0132,
    0x013B,
    0x013C,
    0x8298,
}
_ABOUT_PHOTO |= {0x4746, 0x4749, *range(0x9C9B, 0x9CA0), *_SUB_IFDS}  # ratings, Windows' title to subject
LONGEST = 65_000  # bytes of a block that fit into one segment of JPEG, and through libexif into WebP and AVIF
_PIECE = 1 << 20
_LONGEST_VALUE = 1 << 20  # bytes of one value read from a TIFF; a forged file may claim 65,535 huge ones

# tag → (type, count, little-endian value) or, for a sub-directory, its entries
Directory = dict[int, "tuple[int, int, bytes] | Directory"]


def upright(block: bytes, height: int, width: int) -> bytes:
    """The block for upright pixels of that size, every other byte as it was; b"" if it is no EXIF at all.

    Orientation becomes 1, the stored width and height those given, and the thumbnail, which shows the
    photograph as it was, is cut off.
    """
    changed = {0x0112: 1, 0x0100: width, 0xA002: width, 0x0101: height, 0xA003: height}
    data = bytearray(block.removeprefix(b"Exif\0\0"))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if order is None:
        return b""
    try:
        (first,) = struct.unpack_from(order + "I", data, 4)
        entries = list(_entries(data, first, order))
        for at, tag, _, _ in list(entries):
            if _SUB_IFDS.get(tag) == "exif":
                (below,) = struct.unpack_from(order + "I", data, at + 8)
                entries += _entries(data, below, order)
        for at, tag, kind, _ in entries:
            if tag in changed and kind in (_SHORT, _LONG):
                struct.pack_into(order + ("H" if kind == _SHORT else "I"), data, at + 8, changed[tag])
        (count,) = struct.unpack_from(order + "H", data, first)
        end = first + 2 + 12 * count
        data[end : end + 4] = bytes(len(data[end : end + 4]))  # no second directory, which is the thumbnail's
    except struct.error:
        return b""
    return bytes(data)


def upright_xmp(packet: bytes) -> bytes:
    """The XMP packet with its copy of the orientation, if any, set to 1."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[1-8]", rb"\g<1>1", packet)


def resolution(block: bytes) -> tuple[float, float] | None:
    """Pixels per millimetre, across and down, if the block says so."""
    values = {tag: entry[2] for tag, entry in _tolerant(block).items() if isinstance(entry, tuple)}
    try:
        per_mm = {2: 25.4, 3: 10.0}[struct.unpack("<H", values[0x0128])[0]]
        (x, per_x), (y, per_y) = (struct.unpack("<II", values[tag]) for tag in (0x011A, 0x011B))
        return x / per_x / per_mm, y / per_y / per_mm
    except (struct.error, KeyError, ZeroDivisionError):
        return None


def of_tiff(tiff: bytes | mmap.mmap) -> bytes:
    """The EXIF of a TIFF file as a block, b"" where there is none. (BigTIFF is not looked into.)"""
    directory = _about_photo(tiff)
    return b"II*\0\x08\0\0\0" + _written(directory, 8) if directory else b""


def embed(file: BinaryIO, block: bytes, format: str, resolution: tuple[float, float]) -> None:
    """Put a block (not longer than LONGEST) into a finished image file.

    Args:
        file: open for reading and writing; JPEG without JFIF and EXIF segments, PNG without eXIf,
            WebP or AVIF with a `placeholder` in place of the block, TIFF.
        block: from `upright` or `of_tiff`; may be empty.
        format: "jpeg", "png", "webp", "avif" or "tiff".
        resolution: pixels per millimetre, for JPEG's JFIF segment, which libvips leaves out.
    """
    file.flush()
    if format == "jpeg":
        x, y = (min(max(round(r * 25.4), 1), 65_535) for r in resolution)
        segments = struct.pack(">HH5sHBHHBB", 0xFFE0, 16, b"JFIF", 0x0102, 1, x, y, 0, 0)
        if block:
            segments += struct.pack(">HH6s", 0xFFE1, len(block) + 8, b"Exif") + block
        _insert(file, 2, segments)
    elif format == "png" and block:
        checksum = zlib.crc32(b"eXIf" + block)
        _insert(file, 33, struct.pack(">I4s", len(block), b"eXIf") + block + struct.pack(">I", checksum))
    elif format in ("webp", "avif") and block:
        file.seek(0)
        data = file.read()
        filler = data.find(_filler(block))
        start = data.rfind(b"II*\0", 0, filler)
        file.seek(start)
        file.write(block.ljust(filler + len(block) - start, b"\0"))
    elif format == "tiff" and block:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as tiff:
            directory = _about_photo(block) | _read(tiff)
            end = len(tiff) + len(tiff) % 2
        file.seek(end)
        file.write(_written(directory, end))
        file.seek(4)
        file.write(struct.pack("<I", end))


def placeholder(block: bytes) -> str:
    """A picture description that makes libvips write an EXIF block at least as long as this one."""
    text = _filler(block).decode()
    return f"{text} ({text}, ASCII, {len(text)} components, {len(text)} bytes)"


def _filler(block: bytes) -> bytes:
    return b"unsmear:" + b"." * len(block)


def _insert(file: BinaryIO, at: int, new: bytes) -> None:
    """Move the end of the file back, piece by piece, and write `new` in between."""
    end = file.seek(0, 2)
    while end > at:
        start = max(at, end - _PIECE)
        file.seek(start)
        piece = file.read(end - start)
        file.seek(start + len(new))
        file.write(piece)
        end = start
    file.seek(at)
    file.write(new)


def _entries(
    data: bytes | bytearray | mmap.mmap, first: int, order: str
) -> Iterator[tuple[int, int, int, int]]:
    """(position, tag, type, count) of each entry of the directory at `first`."""
    (count,) = struct.unpack_from(order + "H", data, first)
    for at in range(first + 2, first + 2 + 12 * count, 12):
        yield at, *struct.unpack_from(order + "HHI", data, at)


def _about_photo(data: bytes | mmap.mmap) -> Directory:
    return {tag: entry for tag, entry in _tolerant(data).items() if tag in _ABOUT_PHOTO}


def _tolerant(data: bytes | mmap.mmap) -> Directory:
    """What `_read` finds, or nothing where the directories are broken."""
    try:
        return _read(data)
    except struct.error:
        return {}


def _read(data: bytes | mmap.mmap, first: int | None = None, depth: int = 0) -> Directory:
    """The directory at `first` (or the file's first one) and those below it, turned to little-endian."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None or depth > 3:
        return {}
    if first is None:
        (first,) = struct.unpack_from(order + "I", data, 4)
    directory: Directory = {}
    for at, tag, kind, count in _entries(data, first, order):
        size = _SIZE.get(kind, 0) * count
        if tag in directory or size > _LONGEST_VALUE:
            continue
        (offset,) = struct.unpack_from(order + "I", data, at + 8)
        if tag in _SUB_IFDS:
            directory[tag] = _read(data, offset, depth + 1)
        elif size and (value := data[at + 8 : at + 8 + size] if size <= 4 else data[offset : offset + size]):
            word = 4 if kind in (5, 10) else _SIZE[kind]  # a rational is two words of four bytes
            if order == ">":
                value = b"".join(value[i : i + word][::-1] for i in range(0, len(value), word))
            directory[tag] = (kind, count, value)
    return directory


def _written(directory: Directory, start: int) -> bytes:
    """The bytes of a directory that will stand at `start`: the entries, then what they point to."""
    table, values = struct.pack("<H", len(directory)), b""
    after = start + 2 + 12 * len(directory) + 4
    for tag, entry in sorted(directory.items()):
        end = after + len(values)
        if isinstance(entry, dict):
            table += struct.pack("<HHII", tag, _LONG, 1, end)
            values += _written(entry, end)
        else:
            kind, count, value = entry
            if len(value) <= 4:
                table += struct.pack("<HHI4s", tag, kind, count, value)
            else:
                table += struct.pack("<HHII", tag, kind, count, end)
                values += value
        values += b"\0" * (len(values) % 2)
    return table + struct.pack("<I", 0) + values

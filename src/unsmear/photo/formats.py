"""The formats: how a file's first bytes and its suffix tell them."""

import re

_FORMATS = {
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
PHOTO_SUFFIXES = frozenset(_FORMATS)


def format_of_suffix(suffix: str) -> str | None:
    """The format of files with this suffix, in any case; None if it is not one of PHOTO_SUFFIXES."""
    return _FORMATS.get(suffix.lower())


def format_of_content(head: bytes) -> str | None:
    """The format of a file that starts with these bytes (64 are enough); None if it is none of ours."""
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

"""Photograph files ↔ pixels ↔ tensors.

A `Photo` keeps the pixels once, as the 8 or 16 bit integers of the file, because a float copy of a photo of
100 megapixels would take 1.2 GB. Tensors are made from any rectangle on demand and put into a second photo:

    photo = read_photo("in.jpg")
    result = photo.blank_like()
    for top in range(0, photo.height, 512):
        result.put(restore(photo.tensor(rows=slice(top, top + 512))), row=top)
    write_photo(result, "out.jpg")

Tensors are (3, H, W) float32 in [0, 1], encoded as in the file: sRGB for nearly every photograph. With
another profile the numbers stay in that profile's space, and the profile travels along.
"""

import logging
from typing import Any

import pyvips

from unsmear.photo.formats import PHOTO_SUFFIXES
from unsmear.photo.pixels import Photo
from unsmear.photo.reading import MAX_PIXELS, find_photos, read_photo
from unsmear.photo.writing import check_target, copy_photo, write_photo

__all__ = [
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "Photo",
    "check_target",
    "copy_photo",
    "find_photos",
    "read_photo",
    "write_photo",
]


def _text(message: Any) -> str:
    text: bytes = b"" if message == pyvips.ffi.NULL else pyvips.ffi.string(message)
    return text.decode(errors="replace")


# libvips warns through Python's logging, which prints to stderr unless somebody listens; GLib, below it,
# prints at once. pyvips takes a message for UTF-8: bytes of a damaged file in it would print a traceback.
logging.getLogger("pyvips").addHandler(logging.NullHandler())
pyvips.glib_lib.g_log_set_handler(b"GLib-GObject", 0xFF, pyvips._log_handler_cb, pyvips.ffi.NULL)
pyvips._to_string = _text
# The cache of recent operations would keep the pixels of photographs that were written long ago.
pyvips.cache_set_max(0)

"""HEIC photographs through pillow-heif, the extra `heic`: pyvips brings no HEVC codec, which is patented."""

from typing import Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# pillow-heif's names for the metadata, and libvips' (which Photo.metadata uses)
_NAMES = {"exif": "exif-data", "xmp": "xmp-data", "icc_profile": "icc-profile-data"}
# What pillow-heif raises for a damaged file.
DAMAGE = (ValueError, EOFError, SyntaxError, RuntimeError)


def missing() -> bool:
    """Whether the extra is not installed."""
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        return True
    return False


class HeicFile:
    """One opened file: `width`, `height` and `frames` are known before `decoded` is called."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header."""
        import pillow_heif

        self._heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=False)
        self.frames = len(self._heif)
        if not self.frames or 0 in self._heif.size:
            raise ValueError("no picture in the file")
        self.width, self.height = self._heif.size

    def decoded(self, shrink: int) -> tuple[Any, int, dict[str, Any]]:
        """The image, upright and decoded in full; bits per value; metadata."""
        pixels = np.asarray(self._heif[0])
        pixels = np.ascontiguousarray(pixels.reshape(self.height, self.width, -1))
        kind = "uchar" if pixels.dtype == np.uint8 else "ushort"
        image = pyvips.Image.new_from_memory(pixels.data, self.width, self.height, pixels.shape[2], kind)
        info: dict[str, Any] = self._heif[0].info
        return image, info["bit_depth"], {name: info[key] for key, name in _NAMES.items() if info.get(key)}


def save(pixels: NDArray[Any], file: BinaryIO, quality: int, metadata: dict[str, Any]) -> None:
    """Encode (H, W, C) uint8, or uint16 of which 12 bits are kept; 4:4:4, no grid of tiles."""
    import pillow_heif

    height, width, channels = pixels.shape
    mode = _MODES[channels] + (";16" if pixels.dtype == np.uint16 else "")
    heif = pillow_heif.from_bytes(mode, (width, height), pixels.data.cast("B"))
    about = {key: metadata[name] for key, name in _NAMES.items() if metadata.get(name)}
    heif.save(
        file, quality=quality, chroma=444, enc_params={"preset": "medium"}, bit_depth=12, tile_size=0, **about
    )

"""`Photo`: the pixels of one photograph, and tensors of any part of it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unsmear.errors import UnreadablePhoto, UnwritablePhoto

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Photo:
    """The pixels of one photograph, upright, and what its file said about them.

    Attributes:
        pixels: (H, W, C) uint8 or uint16; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        metadata: EXIF, XMP, IPTC, ICC profile and comments under libvips' names, and the resolution as "xres"
            and "yres" in pixels per millimetre.
        source: the file it was read from, if any.
        format: "jpeg", "png", "webp", "tiff", "avif", "heic", or "" for pixels that came from no file.
    """

    pixels: NDArray[Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    source: Path | None = None
    format: str = ""

    def __post_init__(self) -> None:
        """Refuse pixels that are no photo."""
        shape, kind = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] not in (1, 2, 3, 4) or kind not in (np.uint8, np.uint16) or 0 in shape:
            raise UnreadablePhoto(
                f"Pixels of shape {shape} and type {kind} are no photo: expected (height, width, 1 to 4), "
                "uint8 or uint16."
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
        """The colours of a rectangle: (3, H, W) float32, value / 255 or value / 65535 correctly rounded.

        Grey is repeated three times; alpha is left out.
        """
        import torch

        part = self.pixels[rows, columns, : self._colours].transpose(2, 0, 1)
        values = np.empty((3, *part.shape[1:]), np.float32)
        np.divide(part, np.float32(2**self.bit_depth - 1), out=values)
        return torch.from_numpy(values)

    def put(self, tensor: "Tensor", *, row: int = 0, column: int = 0) -> None:
        """Store a (3, h, w) tensor with its upper left corner at (row, column).

        Values are clamped to [0, 1] and rounded to the nearest level, a half to the even one. A grey photo
        takes the mean of the three channels. Alpha stays as it is.

        Raises:
            UnwritablePhoto: the tensor holds NaN or infinity.
            ValueError: it is not (3, h, w), or reaches out of the photo.
        """
        channels, h, w = tensor.shape if tensor.ndim == 3 else (0, 0, 0)
        if channels != 3 or not (0 <= row <= self.height - h and 0 <= column <= self.width - w):
            raise ValueError(
                f"A tensor of shape {tuple(tensor.shape)} does not fit at row {row}, column {column} of a "
                f"photo of {self.height} × {self.width}: expected (3, height, width) inside it."
            )
        values = tensor.detach().to("cpu").float()
        if not values.isfinite().all():
            raise UnwritablePhoto(
                "The restored picture holds NaN or infinity: the network failed on this photo."
            )
        if self.is_grey:
            values = values.mean(dim=0, keepdim=True)
        levels = values.clamp(0, 1).mul_(2**self.bit_depth - 1).round_()
        target = self.pixels[row : row + h, column : column + w, : self._colours]
        target[...] = levels.permute(1, 2, 0).numpy()

    def blank_like(self) -> "Photo":
        """A black photo of the same size, depth, channels, alpha and metadata, to be filled by `put`."""
        pixels = np.zeros(self.pixels.shape, self.pixels.dtype)
        if self.has_alpha:
            pixels[:, :, -1] = self.pixels[:, :, -1]
        return replace(self, pixels=pixels, metadata=dict(self.metadata))

    def with_tensor(self, tensor: "Tensor") -> "Photo":
        """This photo with other colours: a (3, H, W) tensor of the same size, stored as by `put`."""
        if tuple(tensor.shape) != (3, self.height, self.width):
            raise ValueError(
                f"Expected a tensor (3, {self.height}, {self.width}), got {tuple(tensor.shape)}."
            )
        result = self.blank_like()
        result.put(tensor)
        return result

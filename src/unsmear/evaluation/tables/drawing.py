"""Pictures beside one another: panels with captions, rectangles, zooms. Arrays are (H, W, 3) uint8, sRGB."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyvips
from numpy.typing import NDArray

from unsmear.photo import Photo

Pixels = NDArray[np.uint8]

GAP = 6  # pixels between panels
LINE = 18  # pixels a line of a caption takes
FRAME = 3  # pixels a rectangle is thick
COLOURS = ((220, 50, 47), (38, 120, 210))  # of the first and the second zoom; told apart by the colour-blind
_GROUND = 255


class Box(NamedTuple):
    """A rectangle of a picture in pixels: x and y of its upper left corner, width, height."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """A picture and the lines under it."""

    pixels: Pixels
    caption: tuple[str, ...] = ()


def rgb8(photo: Photo) -> Pixels:
    """Colours of a photo, 8 bit; grey is repeated, alpha left out."""
    colours = photo.pixels[..., :1] if photo.is_grey else photo.pixels[..., :3]
    if photo.bit_depth == 16:
        colours = (colours.astype(np.float32) / 257).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))


def scaled(pixels: Pixels, width: int) -> Pixels:
    """The picture `width` pixels wide: smaller by Lanczos, larger by repeating pixels, so none is made up."""
    image = pyvips.Image.new_from_array(pixels)
    factor = width / pixels.shape[1]
    kernel = "lanczos3" if factor < 1 else "nearest"
    height = max(1, round(pixels.shape[0] * factor))
    result = image.resize(factor, vscale=height / pixels.shape[0], kernel=kernel)
    return np.asarray(result.numpy(), np.uint8).reshape(result.height, result.width, 3)


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The part of a picture that lies in the box."""
    return pixels[box.y : box.y + box.height, box.x : box.x + box.width]


def boxed(pixels: Pixels, box: Box, colour: tuple[int, int, int]) -> Pixels:
    """A copy of the picture with the outline of a box, drawn inside its edge."""
    result = pixels.copy()
    part = cut(result, box)
    for side in (part[:FRAME], part[-FRAME:], part[:, :FRAME], part[:, -FRAME:]):
        side[...] = colour
    return result


def framed(pixels: Pixels, colour: tuple[int, int, int]) -> Pixels:
    """The picture with its own edge coloured."""
    return boxed(pixels, Box(0, 0, pixels.shape[1], pixels.shape[0]), colour)


def whole_with_boxes(pixels: Pixels, boxes: Sequence[Box], width: int) -> Pixels:
    """The whole picture `width` wide, with the places of its zooms."""
    result = scaled(pixels, width)
    factor = width / pixels.shape[1]
    for box, colour in zip(boxes, COLOURS, strict=False):
        x, y = int(box.x * factor), int(box.y * factor)
        place = Box(
            x, y, max(2 * FRAME, round(box.width * factor)), max(2 * FRAME, round(box.height * factor))
        )
        result = boxed(result, place, colour)
    return result


def with_inset(pixels: Pixels, box: Box, width: int) -> Pixels:
    """The whole picture `width` wide, the box marked and enlarged in the corner farthest from it."""
    result = whole_with_boxes(pixels, [box], width)
    room = min(width * 9 // 20, result.shape[0] * 9 // 20 * box.width // box.height)
    zoom = framed(scaled(cut(pixels, box), max(room, 1)), COLOURS[0])
    centre = (box.x + box.width / 2) / pixels.shape[1], (box.y + box.height / 2) / pixels.shape[0]
    top = 0 if centre[1] > 0.5 else result.shape[0] - zoom.shape[0]
    left = 0 if centre[0] > 0.5 else result.shape[1] - zoom.shape[1]
    result[top : top + zoom.shape[0], left : left + zoom.shape[1]] = zoom
    return result


def draw(rows: Sequence[Sequence[Panel]]) -> Photo:
    """Panels in rows and columns, each with its caption right below, as an 8-bit RGB photo.

    A column is as wide as its widest panel, a row as high as its highest with its caption.
    """
    columns = max(len(row) for row in rows)
    widths = [max(row[place].pixels.shape[1] for row in rows if place < len(row)) for place in range(columns)]
    total = sum(widths) + GAP * (columns - 1)
    bands: list[Pixels] = []
    for row in rows:
        height = max(panel.pixels.shape[0] + LINE * len(panel.caption) for panel in row)
        band = np.full((height + GAP, total, 3), _GROUND, np.uint8)
        left = 0
        for panel, width in zip(row, widths, strict=False):
            h, w = panel.pixels.shape[:2]
            band[:h, left : left + w] = panel.pixels
            for number, line in enumerate(panel.caption):
                _write(band, line, left, h + LINE * number, width)
            left += width + GAP
        bands.append(band)
    return Photo(pixels=np.concatenate(bands)[:-GAP] if bands else np.zeros((1, 1, 3), np.uint8))


def _write(band: Pixels, line: str, left: int, top: int, width: int) -> None:
    """Write a line of text; what does not fit is cut off at the right."""
    if not line.strip():
        return
    text = pyvips.Image.text(html.escape(line), font="sans 9", dpi=96)  # cut to its ink, at (x, y)offset
    start = top + 1 + text.yoffset
    ink = text.numpy().reshape(text.height, text.width)[: band.shape[0] - start, :width]
    band[start : start + ink.shape[0], left : left + ink.shape[1]] -= ink[..., None]

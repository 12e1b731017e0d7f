"""Which part of which picture to look at: what the user says, or where the methods differ most."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unsmear.errors import EvaluationError
from unsmear.evaluation.tables.drawing import Box, Pixels


def read_crop(text: str) -> tuple[str, Box]:
    """Read "NAME:x,y,width,height", in pixels of the picture.

    Raises:
        EvaluationError: it is not of that form.
    """
    name, _, numbers = text.rpartition(":")
    try:
        x, y, width, height = (int(number) for number in numbers.split(","))
    except ValueError:
        x = y = width = height = -1
    if not name or min(x, y) < 0 or min(width, height) < 1:
        raise EvaluationError(
            f"“{text}” is no crop; expected NAME:x,y,width,height in pixels, such as im1:100,50,160,120."
        )
    return name, Box(x, y, width, height)


def check_inside(box: Box, name: str, pixels: Pixels) -> None:
    """Raise EvaluationError for a box that reaches out of its picture."""
    height, width = pixels.shape[:2]
    if box.x + box.width > width or box.y + box.height > height:
        raise EvaluationError(
            f"The crop {box.x},{box.y},{box.width},{box.height} leaves {name}, which is {width}×{height}."
        )


def disagreement(pictures: Sequence[Pixels]) -> NDArray[np.float32]:
    """Variance over the pictures at every pixel, summed over the colours: (H, W)."""
    stack = np.stack(pictures).astype(np.float32) / 255
    return np.asarray(stack.var(0).sum(-1), np.float32)


def largest(where: NDArray[np.float32], count: int = 2) -> list[Box]:
    """The boxes with the largest means of (H, W), that do not overlap: fewer where there is no room.

    A box is a fifth of the picture's shorter side wide, 48 pixels at least, and three quarters as high; boxes
    lie on a grid of a quarter of their size.
    """
    height, width = where.shape
    side = min(max(48, min(height, width) // 5), width)
    size = (max(1, min(side * 3 // 4, height)), side)
    step = (max(1, size[0] // 4), max(1, size[1] // 4))
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(where)[None, None], size, stride=step)[0, 0]
    boxes: list[Box] = []
    for place in means.flatten().argsort(descending=True, stable=True).tolist():
        row, column = divmod(place, means.shape[1])
        box = Box(column * step[1], row * step[0], size[1], size[0])
        if not any(_overlap(box, other) for other in boxes):
            boxes.append(box)
            if len(boxes) == count:
                break
    return boxes


def _overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height

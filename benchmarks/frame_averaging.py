"""Pairs as GoPro's are made: the mean of the frames of a fast video, and the frame in the middle.

GoPro (Nah et al. 2017) averages 7 to 13 consecutive frames of 240 a second, in linear light (x^2.2). Here the
video is one sharp picture in which the camera moves (translation and a small roll, steady or slightly bent
over the exposure) and an object with a motion of its own goes before it: few and even motions of a held
camera, no shake in several directions within one exposure, no noise beyond the picture's own, no JPEG.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from unsmear.blurring import to_linear, to_srgb

FRAMES = (7, 9, 11, 13)  # odd counts, so that there is a frame in the middle
TYPICAL, SPREAD, LONGEST = 10.0, 0.6, 30.0  # extent of the motion in pixels, as PairSettings has it
ROLL = math.radians(1.0)  # standard deviation of the roll over an exposure
OBJECT_SHARE = 0.5


def motion(frames: int, chance: torch.Generator) -> Tensor:
    """Places (frames, 3) of one motion: right and down in pixels, roll in radians; 0 in the middle frame."""
    extent = min(TYPICAL * math.exp(SPREAD * _normal(chance)), LONGEST)
    direction = 2 * math.pi * _uniform(chance)
    bend = 0.25 * _normal(chance)
    times = torch.linspace(-0.5, 0.5, frames)
    along, across = times * extent, extent * bend * (times**2)
    right = along * math.cos(direction) - across * math.sin(direction)
    down = along * math.sin(direction) + across * math.cos(direction)
    return torch.stack([right, down, times * ROLL * _normal(chance)], 1)


def averaged_frames(picture: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Blurred and sharp, (3, size, size) each, from the middle of a sharp picture (3, S, S), S ≥ size + 64.

    All in [0, 1], sRGB, float32, on the 8-bit grid. The same seed gives the same pair.
    """
    chance = torch.Generator().manual_seed(seed)
    frames = FRAMES[int(torch.randint(len(FRAMES), (), generator=chance))]
    camera = motion(frames, chance)
    place = object_mask(picture.shape[-1], chance) if _uniform(chance) < OBJECT_SHARE else None
    own = motion(frames, chance)
    light = to_linear(picture)
    mean = torch.zeros_like(light)
    for scene, moved in zip(camera, own, strict=True):
        frame = warped(light, scene)
        if place is not None:
            alpha = warped(place, moved)
            frame = frame + alpha * (warped(light, moved) - frame)
        mean += frame / frames
    blurred, sharp = (_middle(x, size) for x in (to_srgb(mean.clamp(0, 1)), picture))
    return (blurred * 255).round() / 255, (sharp * 255).round() / 255


def object_mask(side: int, chance: torch.Generator) -> Tensor:
    """One ellipse (1, side, side) with a rim of a pixel, anywhere in the middle half."""
    centre = side * (0.25 + 0.5 * torch.rand(2, generator=chance))
    radii = side * (0.1 + 0.2 * torch.rand(2, generator=chance))
    rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    distance = (((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2).sqrt()
    return ((1 - distance) * radii.min() + 0.5).clamp(0, 1)[None]


def warped(planes: Tensor, place: Tensor) -> Tensor:
    """Planes (C, S, S) moved to the right and down and rolled about their middle (bicubic)."""
    right, down, roll = (2 * place[0] / planes.shape[-1], 2 * place[1] / planes.shape[-2], place[2])
    turn = torch.stack([roll.cos(), roll.sin(), -right, -roll.sin(), roll.cos(), -down]).reshape(1, 2, 3)
    grid = F.affine_grid(turn, [1, 1, *planes.shape[-2:]], align_corners=False)
    return F.grid_sample(planes[None], grid, "bicubic", "reflection", align_corners=False)[0].clamp(0, 1)


def _middle(planes: Tensor, size: int) -> Tensor:
    top, left = (planes.shape[-2] - size) // 2, (planes.shape[-1] - size) // 2
    return planes[..., top : top + size, left : left + size]


def _normal(chance: torch.Generator) -> float:
    return float(torch.randn((), generator=chance))


def _uniform(chance: torch.Generator) -> float:
    return float(torch.rand((), generator=chance))

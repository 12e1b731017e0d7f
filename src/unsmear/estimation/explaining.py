"""A picture that explains a photograph's blur: kernels over the photo, basis, masks, residual, one sentence.

It is laid out as SVG and drawn by librsvg, which comes with libvips: text and lines need no further library.
Kernels are shown as the square root of their values over the largest, so that faint parts are seen, and
turned by half: Eq. 2 correlates, so a lamp leaves the turned kernel behind, and that is what one can compare.
"""

import base64
import colorsys
import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyvips
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsmear.errors import KernelError
from unsmear.estimation.collecting import read_reduced
from unsmear.estimation.photograph import PhotographFit, estimate_photograph, reblurred, shape_of
from unsmear.photo import Photo, check_target, write_photo
from unsmear.runtime import one_thread

EXPLAINED = "-explained.png"
"""Added to a photo's name."""

_WIDTH, _MAIN, _EDGE, _GAP = 1280, 820, 28, 26  # pixels of the picture: whole, left panel, border, between
_SIDE = _WIDTH - 2 * _EDGE - _GAP - _MAIN
_DIM = 0.16  # mean brightness of the photo under the kernels
_RESIDUAL = 10.0  # gain
_GROUND, _INK, _FAINT, _LINE, _GLOW = "#15171c", "#f2f2ee", "#9aa0aa", "#3a3f49", (255, 196, 84)
_VERDICTS = {"motion": "#ffc454", "none": "#7fd1a0", "unknown": "#9aa0aa"}


@dataclass(frozen=True)
class Explanation:
    """The picture and what it shows.

    Attributes:
        picture: (H, W, 3) uint8 sRGB.
        fit: the estimate.
        scale: pixels of the estimate for one of the photograph, at most 1.
    """

    picture: NDArray[np.uint8]
    fit: PhotographFit
    scale: float


def explain_file(
    photo: str | Path, output: str | Path | None = None, *, pixels: int = 500_000, overwrite: bool = False
) -> tuple[Path, Explanation]:
    """Estimate a photograph's blur and write the picture that explains it.

    Args:
        photo: the file.
        output: the picture, in any format that can be written; NAME-explained.png beside the photo where
            None.
        pixels: a larger photograph is reduced to so many; lengths are then in pixels of the reduced one, and
            the sentence says so.
        overwrite: replace a picture that is there.

    Returns:
        The picture's path, and the explanation.

    Raises:
        PhotoError: the photo cannot be read or the picture not be written.
        KernelError: the photograph is too small to say anything.
    """
    photo = Path(photo)
    target = Path(output) if output is not None else photo.with_name(photo.stem + EXPLAINED)
    check_target(Photo(pixels=np.zeros((1, 1, 3), np.uint8)), target, overwrite=overwrite)
    image, scale, _ = read_reduced(photo, pixels)
    try:
        with one_thread():
            fit = estimate_photograph(image)
    except KernelError as error:
        raise KernelError(f"{photo}: {error}") from error
    explanation = Explanation(draw_explanation(image, fit, name=photo.name, scale=scale), fit, scale)
    write_photo(Photo(pixels=explanation.picture), target, overwrite=overwrite)
    return target, explanation


def draw_explanation(
    image: Tensor, fit: PhotographFit, *, name: str = "", scale: float = 1.0
) -> NDArray[np.uint8]:
    """Draw the picture.

    Args:
        image: v, (3,H,W) in [0, 1] sRGB.
        fit: of `estimate_photograph` on it.
        name: of the photograph, for the caption.
        scale: size of `image` over that of the photograph.

    Returns:
        (H, 1280, 3) uint8 sRGB.
    """
    height, width = image.shape[-2:]
    sheet = _Sheet()
    y = float(_EDGE + 26)
    for line in textwrap.wrap(fit.sentence, 72):
        sheet.text(_EDGE, y, line, size=27, colour=_VERDICTS[fit.verdict], weight=600)
        y += 36
    facts = [name, f"{round(width / scale)} × {round(height / scale)} pixels"] if name else []
    if scale < 1:
        facts.append(f"lengths in pixels of {width} × {height}, to which it was reduced")
    sheet.text(_EDGE, y - 6, "  ·  ".join(facts), size=15, colour=_FAINT)
    top = y + 14
    zoom = min(_MAIN / width, 900 / height)
    shown = (width * zoom, height * zoom)
    left = _EDGE + (_MAIN - shown[0]) / 2
    sheet.image(left, top, *shown, _bytes(image * min(1.0, _DIM / max(float(image.mean()), 1e-3))))
    _draw_field(sheet, fit, left, top, zoom, shown)
    end = _draw_column(sheet, image, fit, top)
    bottom = max(top + shown[1] + 58, end) + _EDGE / 2
    return sheet.drawn(math.ceil(bottom))


def _draw_field(
    sheet: "_Sheet", fit: PhotographFit, left: float, top: float, zoom: float, shown: tuple[float, float]
) -> None:
    """Kernels at the regions' centres, all at one scale, and the legend below the photo."""
    kernels = [_kernel_at(fit, number) for number in range(len(fit.regions))]
    rows = sorted({region.top for region in fit.regions})
    columns = sorted({region.left for region in fit.regions})
    side = fit.regions[0].side
    steps = [b - a for line in (rows, columns) for a, b in pairwise(line)] or [side]
    cell = min(steps) * zoom * 0.9
    # One scale for all kernels: the largest of those to be believed fills its cell.
    strengths = [region.confidence if fit.motion else region.weight for region in fit.regions]
    believed = 0.6 * max(strengths)
    reaches = [_reach(k) for k, s in zip(kernels, strengths, strict=True) if k is not None and s >= believed]
    tap = min(cell / (2 * max(reaches, default=4.0) + 3), 14.0)
    for region, kernel, strength in zip(fit.regions, kernels, strengths, strict=True):
        x = left + (region.left + region.side / 2) * zoom - cell / 2
        y = top + (region.top + region.side / 2) * zoom - cell / 2
        sheet.box(x, y, cell, cell, stroke="#ffffff", opacity=0.10 + 0.30 * strength)
        if kernel is None or strength < 0.02:
            sheet.text(x + cell / 2, y + cell / 2 + 6, "–", size=20, colour=_FAINT, anchor="middle")
            continue
        glow = _GLOW if fit.motion else (235, 235, 235)
        reach = min(int(cell / tap / 2), len(kernel) // 2)
        middle = len(kernel) // 2
        cut = kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        size = len(cut) * tap
        picture = _glowing(cut, glow, 0.25 + 0.75 * strength)
        sheet.image(x + (cell - size) / 2, y + (cell - size) / 2, size, size, picture)
    y = top + shown[1] + 24
    bar = next(length for length in (20, 10, 5, 2, 1) if length * tap <= 170 or length == 1)
    sheet.line(left, y - 5, left + bar * tap, y - 5)
    words = f"{bar} pixels, kernels drawn {tap / zoom:.1f} times as large as the photo"
    sheet.text(left + bar * tap + 10, y, words, size=15, colour=_INK)
    x, y = left, y + 28
    meaning = (
        "confidence: what is faint or –, is not to be believed"
        if fit.motion
        else "how far it is to be believed"
    )
    for step in range(6):
        colour = "#%02x%02x%02x" % (_GLOW if fit.motion else (235, 235, 235))
        sheet.fill(x + 17 * step, y - 12, 16, 12, colour, 0.1 + 0.9 * step / 5)
    sheet.text(x + 112, y, meaning, size=15, colour=_INK)


def _draw_column(sheet: "_Sheet", image: Tensor, fit: PhotographFit, top: float) -> float:
    """Basis, masks and residual, or what stands in their place; return where it ends."""
    x, y = _EDGE + _MAIN + _GAP, top + 14
    height, width = image.shape[-2:]
    if not fit.motion:
        sheet.text(x, y, "What was asked of each region", size=18, weight=600)
        seen = [(region.weight, region) for region in fit.regions if region.kernel is not None]
        lines = [
            f"{len(fit.regions)} regions, {len(fit.regions) - len(seen)} of them flat or saturated",
            f"{sum(weight > 0.5 for weight, _ in seen)} whose estimates agree",
            f"{sum(w > 0.5 and region.evidence > 0.5 for w, region in seen)} of those look like motion",
        ]
        for number, line in enumerate(lines):
            sheet.text(x, y + 30 + 25 * number, line, size=16, colour=_FAINT)
        y += 140
        for line in (
            "Drawn on the left is how the light of a",
            "point spreads, region by region: a dot",
            "is sharp, a round spot out of focus, a",
            "thin path would be motion.",
        ):
            sheet.text(x, y, line, size=16, colour=_INK)
            y += 25
        return y
    shares = [1.0] if fit.masks is None else fit.masks.flatten(1).mean(1).tolist()
    hues = _hues(len(shares))
    across = 2 if len(shares) < 3 else 3
    size = (_SIDE - 10 * (across - 1)) / across if len(shares) > 1 else 150.0
    what = "one kernel" if len(shares) == 1 else f"{len(shares)} kernels"
    sheet.text(x, y, f"Basis: {what}", size=18, weight=600)
    y += 14
    reach = max(max(_reach(kernel) for kernel in fit.kernels), 2)
    middle = fit.kernels.shape[-1] // 2
    for number, (kernel, share, hue) in enumerate(zip(fit.kernels, shares, hues, strict=True)):
        at = (x + number % across * (size + 10), y + number // across * (size + 26))
        reach = min(reach, middle)
        cut = kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
        sheet.fill(*at, size, size, "#000000", 1.0)
        sheet.image(*at, size, size, _glowing(cut, (255, 255, 255), 1.0))
        sheet.box(*at, size, size, stroke=_hex(hue), opacity=1.0, breadth=3)
        words = f"{shape_of(kernel).length:.0f} px, {100 * share:.0f} %"
        sheet.text(at[0], at[1] + size + 17, words, size=13, colour=_FAINT)
    y += math.ceil(len(shares) / across) * (size + 26) + 22
    zoom = min(_SIDE / width, 250 / height)
    if fit.masks is not None:
        sheet.text(x, y, "Masks: which kernel counts where", size=18, weight=600)
        mixed = torch.einsum("bhw,bc->chw", fit.masks, torch.tensor(hues, dtype=torch.float32))
        grey = image.mean(0, keepdim=True)
        sheet.image(x, y + 12, width * zoom, height * zoom, _bytes(mixed * (0.35 + 0.65 * grey)))
        y += 12 + height * zoom + 34
    if fit.latent is not None:
        sheet.text(x, y, f"Residual of re-blurring, × {_RESIDUAL:.0f}", size=18, weight=600)
        error = (reblurred(fit.latent, fit.kernels, fit.masks) - image).abs().mean(0)
        amber = torch.tensor(_GLOW)[:, None, None] / 255
        sheet.image(x, y + 12, width * zoom, height * zoom, _bytes(error * _RESIDUAL * amber))
        y += 12 + height * zoom + 20
        sheet.text(
            x,
            y,
            f"restored photo blurred again: {fit.reblur_psnr:.1f} dB from this one",
            size=13,
            colour=_FAINT,
        )
    return y


def _kernel_at(fit: PhotographFit, number: int) -> Tensor | None:
    """The field's kernel at a region's centre; without motion what the region's own estimate was."""
    region = fit.regions[number]
    if not fit.motion:
        return region.kernel
    if fit.masks is None:
        return fit.kernels[0]
    row, column = region.top + region.side // 2, region.left + region.side // 2
    return torch.einsum("b,bij->ij", fit.masks[:, row, column], fit.kernels)


def _reach(kernel: Tensor) -> int:
    """How far taps above a hundredth of the largest lie from the middle, in pixels."""
    places = (kernel > 0.01 * kernel.max()).nonzero() - kernel.shape[-1] // 2
    return int(places.abs().max())


def _hues(count: int) -> list[tuple[float, float, float]]:
    return [colorsys.hsv_to_rgb((0.11 + number / count) % 1.0, 0.65, 1.0) for number in range(count)]


def _hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def _bytes(picture: Tensor) -> NDArray[np.uint8]:
    """(3,H,W) in [0, 1] to (H,W,3)."""
    return np.ascontiguousarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def _glowing(kernel: Tensor, colour: Sequence[int], opacity: float) -> NDArray[np.uint8]:
    """A kernel as light on nothing: (S,S,4), S about 160, the alpha its square root."""
    values = (kernel.flip(0, 1) / kernel.max()).clamp_min(0).sqrt()[None, None].float()
    times = max(1, 160 // len(kernel))
    values = torch.nn.functional.interpolate(values, scale_factor=times, mode="bicubic", align_corners=False)
    alpha = (values[0, 0].clamp(0, 1) * 255 * min(1.0, opacity)).round().byte().numpy()
    picture = np.empty((*alpha.shape, 4), np.uint8)
    picture[..., :3], picture[..., 3] = colour, alpha
    return picture


class _Sheet:
    """SVG in the making."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int,
        colour: str = _INK,
        weight: int = 400,
        anchor: str = "start",
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-family="sans-serif" font-size="{size}" '
            f'font-weight="{weight}" fill="{colour}" text-anchor="{anchor}" '
            f'xml:space="preserve">{html.escape(words)}</text>'
        )

    def image(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8]) -> None:
        content = pyvips.Image.new_from_array(pixels, interpretation="srgb").pngsave_buffer(compression=3)
        data = base64.b64encode(content).decode()
        self._parts.append(
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'preserveAspectRatio="none" xlink:href="data:image/png;base64,{data}"/>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        stroke: str,
        opacity: float,
        breadth: float = 1.0,
    ) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="5" fill="none" '
            f'stroke="{stroke}" stroke-width="{breadth}" stroke-opacity="{opacity:.2f}"/>'
        )

    def fill(self, x: float, y: float, width: float, height: float, colour: str, opacity: float) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity:.2f}"/>'
        )

    def line(self, x: float, y: float, end_x: float, end_y: float) -> None:
        self._parts.append(
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{end_x:.1f}" y2="{end_y:.1f}" '
            f'stroke="{_INK}" stroke-width="3"/>'
        )

    def drawn(self, height: int) -> NDArray[np.uint8]:
        """Draw it on the dark ground: (height, 1280, 3)."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{_WIDTH}" height="{height}"><rect width="100%" height="100%" fill="{_GROUND}"/>'
        )
        content = (head + "".join(self._parts) + "</svg>").encode()
        image = pyvips.Image.svgload_buffer(content, unlimited=True)
        return np.ascontiguousarray(image.flatten().numpy()[..., :3])

"""Deblur by estimated kernels: find the camera's motion in the photo, undo it, and let a network finish.

A photo's kernels are estimated on its luma, reduced to a megapixel where it is larger (to half of one where
it is to be fast). Then a guided network
(models/guided.py) restores from the photo and what the kernels make of it, tile by tile; or, without any
network, total variation does (estimation/deconvolution.py).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsmear.blurring import luma
from unsmear.errors import KernelError
from unsmear.estimation.camera import estimate_camera
from unsmear.estimation.candidates import find_candidates
from unsmear.estimation.deconvolution import WEIGHT, deconvolve
from unsmear.estimation.field import KernelField
from unsmear.estimation.filtering import filtered, guided_input
from unsmear.estimation.noise import noise_level
from unsmear.estimation.photograph import shape_of
from unsmear.estimation.uniform import Search, refined, restoration_cost, scattered, search
from unsmear.models.checking import (
    agreement,
    belief,
    blurred_again,
    direction,
    ramp,
    sidedness,
    trace,
    unclipped,
    unexplained,
)
from unsmear.models.judging import CELL, shares
from unsmear.models.restoring import Precision, image_channels
from unsmear.models.tiling import Area, Pixels, TensorPixels, TiledRestorer
from unsmear.runtime import one_thread

ESTIMATE_PIXELS = 1_000_000
"""Larger photos are reduced to this many pixels for the estimate: 60 px of blur at 24 MP are 12 px there."""

FAST_PIXELS = 500_000
"""The same where it is to be fast; docs/DEBLURRING.md has what it saves and costs."""

TAP = 2
"""How many pixels a tap of an estimated kernel has, about, in what is restored: of the blur nothing
finer is known. Of a photo that was reduced by r for the estimate that is a copy reduced by r / TAP."""

JUDGED_PIXELS = 250_000
"""Pixels of the copy on which a guided network judges kernels."""

WITNESS = "unet-s"
"""The network of the package that restores without kernels, to hold what they make of a photo against."""

FILLER = "nafnet-s"
"""The network of the package that restores without kernels what they do not explain."""

FILLED_BELIEF = (0.75, 0.65)
"""From 0 to 1 between these unexplained parts the photo gives way to what is restored without kernels."""

FILLED_AGREED = (-0.1, 0.1)
"""The same for these agreements: where the two ways part, of neither is anything known."""

FILLED_DIRECTION = (1.17, 1.22)
"""The same for these values of `direction`: what is soft alike in all directions was out of focus."""

FILLED_SIDED = (0.06, 0.17)
"""The same for these values of `sidedness`: what is given back alike to all was soft, not moved."""

FILLED_TRACE = (-0.08, 0.0)
"""The same for these values of `trace`: lines along the path explain more than motion does."""

FILLED_LENGTH = 16
"""Pixels of blur, about, that a photo of more than `ESTIMATE_PIXELS` is restored with where it is restored
without kernels: of one with longer blur a copy is. `FILLER` was trained on up to three times as much."""

BOLD = (0.45, 0.2)
"""The more of the photo is explained, from 0 to 1 between these unexplained parts, the more of total
variation's picture, which the network was shown, is taken beside the network's: it is bolder, and right where
the kernels are (docs/DEBLURRING.md)."""

NOISE = (0.035, 0.02)
"""The same for these standard deviations of noise: with more, nothing is gained (docs/DEBLURRING.md)."""

_BOLDEST = 0.8  # the most that is taken of total variation's picture
_CAREFUL = 2  # power of the belief for total variation, which goes further than the network, right or wrong
_STRIP = 256  # rows of the photo that are made float at a time
_SMALLEST = 16  # pixels of the shorter side; below, nothing can be told of a blur
_SHARE = 0.4  # of the time that the estimate takes, for progress reports
_QUIET = (
    0.004  # noise (standard deviation) for which the prior's weight was chosen: 8-bit pictures without any
)
_TV_TILE = 1024
_COST_WEIGHT = 1e-2  # of the filter by whose results a kernel for all and the camera's kernels are compared
_MOST_KERNELS = 4  # are refined, the others' places shared among them
_LEAST_SHARE = 0.04  # of the photo; below a kernel is not taken
_SEEN_SHARE = 0.1  # of the photo; below a kernel's length is not reported
_LEAST_BELIEF = 0.005  # in kernels: less would be said to be 0 %
_MORE = 1.25  # the whole picture's kernel must promise so much more than those of areas
_CLEARLY = 0.995  # the camera's must be better by this: what else it finds are errors (docs/ESTIMATION.md)


class Deblurrer:
    """Restores photos by the kernels that it finds in them.

    A network's result is blurred again by the kernels, and held against what another network restores
    without any (models/checking.py). The less it explains the photo, because there is no motion blur, or one
    that changes too much over the picture, and the less the two go one way, the nearer the result is drawn
    to what is restored without kernels and, where they explain next to nothing, to the photo as it was.

    Of a photo of more than `ESTIMATE_PIXELS` a copy of that size is restored first; the photo itself is
    restored by kernels, and checked, only if they are believed there. A photo that is larger by far than what
    the kernels were estimated on is restored by a copy in which a tap of theirs has about `TAP` pixels.

    Args:
        network: restores with a guided network; None: total variation without any check, which fits the photo
            by whatever kernels it is given.
        by_network: whether the network's result is taken; otherwise it only says how far to believe the
            kernels, and total variation restores.
        areas: whether kernels are looked for in areas of the photo too, each of which may hold elsewhere;
            otherwise one kernel, or those of a camera that turns, for all of it: less is found, in half the
            time (docs/DEBLURRING.md).
        witness: restores without kernels, to hold the network's result against; None, or where total
            variation restores: that is not done.
        filler: restores what kernels do not explain, as far as there are signs of motion
            (docs/DEBLURRING.md, 5); None: it is left as it is, as where total variation restores or there is
            no witness.
        mix: whether a photo whose kernels are believed in part is restored by both; otherwise their result is
            mixed with the photo, however little they are believed, which saves a restoration.
        pixels: to which larger photos are reduced for the estimate.
        tile: side of the largest tile in pixels, for total variation; the network has its own.

    Attributes:
        said: what was found in the last photo, in a few words.
    """

    def __init__(
        self,
        network: TiledRestorer | None = None,
        *,
        by_network: bool = True,
        areas: bool = True,
        witness: TiledRestorer | None = None,
        filler: TiledRestorer | None = None,
        mix: bool = True,
        pixels: int = ESTIMATE_PIXELS,
        tile: int | None = None,
    ) -> None:
        self.network, self.by_network, self.tile, self.said = network, by_network, tile, ""
        self.pixels = pixels
        self.witness, self.filler, self.mix = witness, filler, mix
        self._judge = network if areas else None
        self._guided = None
        if network is not None and by_network:
            self._guided = network.of(_WithVariation(network.model))

    def restore(
        self, source: Pixels, target: Pixels, *, progress: Callable[[float], None] = lambda _: None
    ) -> None:
        """Restore `source` into `target`, which has its size; see `TiledRestorer.restore`."""
        calm = ramp(_noise(source), *NOISE) if self.by_network and self.network is not None else 1.0
        if calm == 0:
            self.said = "too much noise or fine texture to tell a blur by: left as it is"
            _draw_back(source, target, 0.0)
            progress(1.0)
            return
        estimate = estimate_kernels(source, self._judge, pixels=self.pixels)
        progress(_SHARE)
        if estimate.nothing:
            self.said = "nothing to tell a blur by: left as it is"
            _draw_back(source, target, 0.0)
            progress(1 - _SHARE)
            return
        field = estimate.field.scaled(estimate.factor)
        turning = "" if field.is_uniform else ", not the same everywhere"
        self.said = f"blur of up to {_longest(field)} pixels{turning}"

        def rest(part: float) -> None:
            progress((1 - _SHARE) * part)

        believed, without, behind = 1.0, 0.0, source
        if self._guided is not None:
            small, factor = reduced(source, ESTIMATE_PIXELS)
            known = estimate.field if factor == estimate.factor else field.scaled(1 / factor)
            copy, tried = TensorPixels(small), TensorPixels(torch.empty_like(small))
            bolder = self._restore_guided(copy, known, tried, rest if factor == 1 else lambda _: None)
            left, believed, without, alone = self._checked(small, known, luma(tried.values), calm)
            left_out = factor > 1 and believed == 0
            if factor == 1:
                _draw_back(tried, target, 0.0)
            elif not left_out:
                bolder = self._restore_guided(source, field, target, rest, _coarseness(estimate))
                restored, _ = reduced_luma(target, ESTIMATE_PIXELS)
                left, believed, without, _ = self._checked(small, known, restored, calm, alone)
            bold = _BOLDEST * ramp(left, *BOLD)
            if believed > 0 and bold > 0:
                _draw_back(bolder, target, 1 - bold)
            del bolder  # a whole photo
            filler = self.filler if without > 0 and (believed == 0 or (self.mix and believed < 1)) else None
            if filler is not None:
                behind = source.blank_like()
                box = min(int(factor), max(1, math.floor(_longest(field) / FILLED_LENGTH + 0.5)))
                _restore_coarsely(filler, source, behind, box, rest if left_out else lambda _: None)
                _draw_back(source, behind, without)
            elif left_out:
                rest(1.0)
        elif self.network is not None:
            believed = _believed_by_copy(source, field, self.network) ** _CAREFUL
            if believed == 0:
                rest(1.0)
        if believed == 0:
            instead = "restored without it" if without > 0 else "left as it is"
            self.said = f"the blur that was found does not explain the photo: {instead}"
        elif believed < 1:
            self.said += f", believed to {believed:.0%}"
        if believed > 0 and self._guided is None:
            box = _coarseness(estimate)
            variation = _TotalVariation(field.scaled(1 / box), tile=self.tile)
            _restore_coarsely(variation, source, target, box, rest)
        if believed < 1:
            _draw_back(behind, target, believed)

    def _restore_guided(
        self,
        source: Pixels,
        field: KernelField,
        target: Pixels,
        progress: Callable[[float], None],
        coarseness: int = 1,
    ) -> Pixels:
        """Restore by the guided network; return total variation's picture, which it was shown.

        With a `coarseness` above 1 both restore a copy reduced as much, and the photo is changed as that is.
        """
        assert self._guided is not None
        if coarseness > 1:
            copy = TensorPixels(_box_means(source, coarseness))
            restored = copy.blank_like()
            bolder = self._restore_guided(copy, field.scaled(1 / coarseness), restored, progress)
            _draw_back(_Changed(source, copy, restored, coarseness), target, 0.0)
            return _Changed(source, copy, bolder, coarseness)
        bolder = source.blank_like()
        self._guided.restore(GuidedPixels(source, field), _Stacked(target, bolder), progress=progress)
        return bolder

    def _checked(
        self, small: Tensor, field: KernelField, restored: Tensor, calm: float, alone: Tensor | None = None
    ) -> tuple[float, float, float, Tensor | None]:
        """What kernels leave unexplained of a reduced photo; how far to believe what they made of it, given
        by its luma; how far to restore without them what they do not explain; what the witness makes of it,
        its luma, if it was asked, now or before."""
        grey, seen = luma(small), unclipped(small, field.reach)
        left = unexplained(grey, field, restored, seen)
        if self.witness is None or belief(left) == 0:
            return left, _clear(calm * belief(left)), 0.0, alone
        if alone is None:
            result = TensorPixels(torch.empty_like(small))
            self.witness.restore(TensorPixels(small), result)
            alone = luma(result.values)
        agreed, traced = agreement(grey, restored, alone, seen), trace(grey, field)
        believed = _clear(calm * belief(left, agreed, traced))
        if self.filler is None:
            return left, believed, 0.0, alone
        share = ramp(left, *FILLED_BELIEF) * ramp(agreed, *FILLED_AGREED) * ramp(traced, *FILLED_TRACE)
        share *= ramp(direction(grey), *FILLED_DIRECTION) * ramp(sidedness(grey, alone), *FILLED_SIDED)
        return left, believed, calm * share, alone


class Estimate(NamedTuple):
    """The kernels found in a photo, at the size that they were found at.

    grey: its luma (h, w), reduced; field: kernels in pixels of it; factor: how much larger the photo is;
    nothing: whether there was nothing to estimate them by, and the field is no blur.
    """

    grey: Tensor
    field: KernelField
    factor: float
    nothing: bool = False


def deblurred(
    image: Tensor,
    finish: nn.Module | None = None,
    witness: nn.Module | None = None,
    filler: nn.Module | None = None,
    *,
    precision: Precision = "auto",
) -> Tensor:
    """Restore a picture (3,H,W) of floats in [0, 1] by its kernels and a guided network, or without any.

    `witness` and `filler` restore without kernels, see `Deblurrer`.
    """
    tiled, seen, rest = (
        None if network is None else TiledRestorer(network, precision=precision)
        for network in (finish, witness, filler)
    )
    result = TensorPixels(torch.empty_like(image))
    Deblurrer(tiled, witness=seen, filler=rest).restore(TensorPixels(image), result)
    return result.values


def estimate_kernels(
    source: Pixels, judge: TiledRestorer | None = None, *, pixels: int = ESTIMATE_PIXELS
) -> Estimate:
    """Estimate the blur kernels of a photo; one tap everywhere, no blur, where nothing can be told.

    Args:
        source: the photo.
        judge: its guided network judges the kernels of several areas, each of which may hold elsewhere too.
            None: one kernel, or those of a camera that turns, for all of the photo.
        pixels: to which it is reduced where it is larger.
    """
    grey, factor = reduced_luma(source, pixels)
    nothing = Estimate(grey, KernelField.uniform(_no_blur()), factor, True)
    if min(grey.shape) < _SMALLEST:
        return nothing
    try:
        with one_thread():
            found = [search(grey)] if judge is None else find_candidates(grey)
    except KernelError:  # one colour, without edges
        return nothing
    field = _judged(source, found, judge) if judge is not None and len(found) > 1 else None
    if field is None:
        with one_thread():
            found[0].refine(1.0)
            uniform = KernelField.uniform(found[0].kernel)
            camera = estimate_camera(grey, found[0].kernel).field
            costs = [_cost(grey, field) for field in (uniform, camera)]
        field = camera if costs[1] < _CLEARLY * costs[0] else uniform
    return Estimate(grey, field, factor)


def _judged(source: Pixels, found: list[Search], judge: TiledRestorer) -> KernelField | None:
    """Refine the kernels that a guided network sees at work in a photo, each where it is; None: the first."""
    small, _ = reduced(source, JUDGED_PIXELS)
    scale = found[0].grey.shape[0] / small.shape[1]  # of the picture that kernels are estimated on
    coarse = [
        KernelField.uniform(search.kernel).scaled(1 / (search.scale * scale)).kernels[0] for search in found
    ]
    parts = shares(small, coarse, judge.model, precision=judge.precision)
    kept = [
        index
        for index in parts.mean((1, 2)).argsort(descending=True)[:_MOST_KERNELS].tolist()
        if parts[index].mean() >= _LEAST_SHARE
    ]
    parts = parts[kept] / parts[kept].sum(0)
    if kept == [0]:
        return None
    fields = KernelField.uniform(coarse[0]), _shared([coarse[index] for index in kept], parts, CELL)
    whole, areas = (_promised(small, field, judge) for field in fields)
    if whole > _MORE * areas:
        return None
    with one_thread():
        for index, one in zip(kept, refined([found[index] for index in kept]), strict=True):
            found[index] = one
    kernels = [found[index].kernel for index in kept]
    paths = [place for place, kernel in enumerate(kernels) if not scattered(kernel)]
    if not paths:
        return None
    parts = parts[paths] / parts[paths].sum(0)
    return _shared([kernels[place] for place in paths], parts, CELL * scale)


def _longest(field: KernelField) -> int:
    """The length of the longest kernel that has a tenth of the photo, in pixels."""
    lengths = [shape_of(kernel).length for kernel in field.kernels]
    if field.shares is not None:
        parts = field.shares.mean((1, 2)).tolist()
        lengths = [x for x, part in zip(lengths, parts, strict=True) if part >= _SEEN_SHARE] or lengths
    return max(1, round(max(lengths)))


def _shared(kernels: list[Tensor], parts: Tensor, cell: float) -> KernelField:
    """Return the field of kernels that have shares of cells of so many pixels."""
    if len(kernels) == 1:
        return KernelField.uniform(kernels[0])
    reach = max(kernel.shape[-1] // 2 for kernel in kernels)
    stack = torch.stack([F.pad(kernel, (reach - kernel.shape[-1] // 2,) * 4) for kernel in kernels])
    rows, columns = ((np.arange(count, dtype=np.float64) + 0.5) * cell - 0.5 for count in parts.shape[1:])
    return KernelField(stack, rows, columns, parts, apart=True)


def _believed_by_copy(source: Pixels, field: KernelField, network: TiledRestorer) -> float:
    """The belief in kernels by what the network makes of a copy of `JUDGED_PIXELS`."""
    small, factor = reduced(source, JUDGED_PIXELS)
    restored, kernels = TensorPixels(torch.empty_like(small)), field.scaled(1 / factor)
    network.restore(GuidedPixels(TensorPixels(small), kernels), restored)
    seen = unclipped(small, kernels.reach)
    return belief(unexplained(luma(small), kernels, luma(restored.values), seen))


def _promised(picture: Tensor, field: KernelField, judge: TiledRestorer) -> float:
    """What kernels promise to gain, by a guided network: how far it moves a picture (judging.py), less what
    its result, blurred again, leaves of the picture; mean squares of the luma."""
    before, restored = luma(picture), TensorPixels(torch.empty_like(picture))
    judge.restore(GuidedPixels(TensorPixels(picture), field), restored)
    after = luma(restored.values)
    again = blurred_again(after, field)
    return float((after - before).square().mean() - (again - before).square().mean())


def _clear(believed: float) -> float:
    """A belief, without what would be said to be 0 %."""
    return 0.0 if believed < _LEAST_BELIEF else believed


def _noise(source: Pixels) -> float:
    """The noise level of the rows in the middle of a photo."""
    top = max(0, source.height // 2 - _STRIP)
    rows = slice(top, min(top + 2 * _STRIP, source.height))
    return noise_level(source.tensor(rows=rows, columns=slice(0, source.width))[:3].cpu())


def _draw_back(source: Pixels, target: Pixels, part: float) -> None:
    """Put v + part · (u − v) in the place of u, strip by strip."""
    columns = slice(0, source.width)
    for top in range(0, source.height, _STRIP):
        rows = slice(top, min(top + _STRIP, source.height))
        before = source.tensor(rows=rows, columns=columns)
        if part > 0:
            after = target.tensor(rows=rows, columns=columns).to(before.device)
            before = torch.lerp(before, after, part)
        target.put(before, row=top)


def _cost(grey: Tensor, field: KernelField) -> float:
    """Of the picture that a field's kernels make of the luma; less is better."""
    height, width = grey.shape
    masks = field.masks(rows=slice(0, height), columns=slice(0, width))
    restored = filtered(grey[None], field.kernels, masks, weights=[_COST_WEIGHT])[0]
    edge = min(16, height // 4, width // 4)
    inside = (slice(edge, height - edge), slice(edge, width - edge))
    return restoration_cost(restored[inside], grey[inside])


def reduced_luma(source: Pixels, pixels: int = ESTIMATE_PIXELS) -> tuple[Tensor, float]:
    """Return a photo's luma (h, w), of at most so many pixels, and how many times larger the photo is."""
    small, factor = reduced(source, pixels)
    return luma(small), factor


def reduced(source: Pixels, pixels: int) -> tuple[Tensor, float]:
    """Return a photo (3, h, w) reduced to at most so many pixels, and how many times larger the photo is."""
    height, width = source.height, source.width
    box = max(1, int(math.sqrt(height * width / pixels)))
    small = _box_means(source, box)
    factor = float(box)
    if small[0].numel() > pixels:
        scale = math.sqrt(pixels / small[0].numel())
        size = [max(1, round(side * scale)) for side in small.shape[1:]]
        small = F.interpolate(small[None], size=size, mode="bicubic", antialias=True)[0]
        factor /= scale
    return small.clamp(0, 1), factor


def _coarseness(estimate: "Estimate") -> int:
    """By how much a photo is reduced where it is restored: to taps of `TAP` pixels, about."""
    return max(1, math.floor(estimate.factor / TAP + 0.5))


def _restore_coarsely(
    restorer: TiledRestorer, source: Pixels, target: Pixels, box: int, progress: Callable[[float], None]
) -> None:
    """Restore a copy, the means over squares of `box` pixels, and change the photo as that is changed."""
    if box == 1:
        restorer.restore(source, target, progress=progress)
        return
    copy = TensorPixels(_box_means(source, box))
    restored = copy.blank_like()
    restorer.restore(copy, restored, progress=progress)
    _draw_back(_Changed(source, copy, restored, box), target, 0.0)


def _box_means(source: Pixels, box: int) -> Tensor:
    """Return the means (3, ⌈H/box⌉, ⌈W/box⌉) over squares of a photo, those at its end over what there is."""
    strips, step = [], _STRIP // box * box or box
    for top in range(0, source.height, step):
        area = slice(top, min(top + step, source.height)), slice(0, source.width)
        strip = source.tensor(rows=area[0], columns=area[1])[:3].float().cpu()
        strips.append(F.avg_pool2d(strip[None], box, ceil_mode=True)[0] if box > 1 else strip)
    return torch.cat(strips, 1)


class _Changed:
    """A photo v changed as its copy was, the means over squares of `box` pixels: v + (u' − v'), the bracket
    enlarged bicubically, in [0, 1]."""

    def __init__(self, source: Pixels, copy: Pixels, restored: Pixels, box: int) -> None:
        self.source, self.copy, self.restored, self.box = source, copy, restored, box
        self.height, self.width = source.height, source.width

    def tensor(self, *, rows: slice, columns: slice) -> Tensor:
        """Return a rectangle (3, h, w), by that of the copy and two pixels around it."""
        parts, inner = [], []
        for part, most in ((rows, self.copy.height), (columns, self.copy.width)):
            first = max(part.start // self.box - 2, 0)
            parts.append(slice(first, min(-(-part.stop // self.box) + 2, most)))
            inner.append(slice(part.start - first * self.box, part.stop - first * self.box))
        after, before = (each.tensor(rows=parts[0], columns=parts[1]) for each in (self.restored, self.copy))
        change = F.interpolate((after - before)[None], scale_factor=self.box, mode="bicubic")[0]
        pixels = self.source.tensor(rows=rows, columns=columns)
        return (pixels + change[:, inner[0], inner[1]].to(pixels.device)).clamp_(0, 1)

    def put(self, tensor: Tensor, *, row: int = 0, column: int = 0) -> None:
        """Refuse: it is read only."""
        raise TypeError("a photo that is changed as a copy of it was cannot be written into")

    def blank_like(self) -> Pixels:
        """Return a blank photo."""
        return self.source.blank_like()


class GuidedPixels:
    """A photo as a guided network sees it: nine channels, the filtered ones made for each rectangle anew."""

    def __init__(self, source: Pixels, field: KernelField) -> None:
        """Take the photo and its kernels."""
        self.source, self.field = source, field
        self.height, self.width = source.height, source.width
        self._middles = field.middles()

    def tensor(self, *, rows: slice, columns: slice) -> Tensor:
        """Return a rectangle (9, h, w), filtered together with a margin around it."""
        margin = 2 * self.field.reach + 1
        top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
        wide = (
            slice(top, min(rows.stop + margin, self.height)),
            slice(left, min(columns.stop + margin, self.width)),
        )
        picture = self.source.tensor(rows=wide[0], columns=wide[1])
        masks = self.field.masks(rows=wide[0], columns=wide[1])
        seen = guided_input(picture.cpu(), self.field.kernels, masks, middles=self._middles)
        return seen[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    def put(self, tensor: Tensor, *, row: int = 0, column: int = 0) -> None:
        """Refuse: it is read only."""
        raise TypeError("what a network is shown cannot be written into")

    def blank_like(self) -> Pixels:
        """Return a blank photo, of three channels."""
        return self.source.blank_like()


class _WithVariation(nn.Module):
    """A guided network that gives total variation's picture, which it is shown, under its own."""

    output_channels = 6

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.size_multiple = int(getattr(network, "size_multiple", 1))
        self.minimum_size = int(getattr(network, "minimum_size", 1))
        self.image_channels = image_channels(network)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 9, H, W) to (N, 6, H, W)."""
        return torch.cat([self.network(image), image[:, 6:]], 1)


class _Stacked:
    """Two photos of one size as one of six channels."""

    def __init__(self, first: Pixels, second: Pixels) -> None:
        self.first, self.second = first, second
        self.height, self.width = first.height, first.width

    def tensor(self, *, rows: slice, columns: slice) -> Tensor:
        """Return a rectangle (6, h, w)."""
        return torch.cat([photo.tensor(rows=rows, columns=columns) for photo in (self.first, self.second)])

    def put(self, tensor: Tensor, *, row: int = 0, column: int = 0) -> None:
        """Store a rectangle (6, h, w)."""
        self.first.put(tensor[:3], row=row, column=column)
        self.second.put(tensor[3:], row=row, column=column)

    def blank_like(self) -> "_Stacked":
        """Return two blank photos."""
        return _Stacked(self.first.blank_like(), self.second.blank_like())


class _TotalVariation(TiledRestorer):
    """Tiles restored by `deconvolve`, each with the kernels of its place."""

    def __init__(self, field: KernelField, *, tile: int | None) -> None:
        overlap = 2 * field.reach + 16
        super().__init__(nn.Identity(), tile=max(tile or _TV_TILE, 2 * overlap), overlap=overlap)
        self._field, self._kernels = field, field.centred()

    def _piece(self, source: Pixels, area: Area) -> Tensor:
        rows, columns = slice(area.top, area.bottom), slice(area.left, area.right)
        picture = source.tensor(rows=rows, columns=columns).cpu()
        weight = WEIGHT * max(1.0, noise_level(picture) / _QUIET)
        return deconvolve(
            picture, self._kernels, self._field.masks(rows=rows, columns=columns), weight=weight
        )


def _no_blur() -> Tensor:
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = 1
    return kernel

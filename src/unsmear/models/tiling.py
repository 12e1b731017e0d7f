"""Photos larger than the memory: the network sees one tile at a time.

Only the integer pixels of a photo are held as a whole (by the `Photo` that is read and the one that is
filled), and in float one band of tiles. A low-rank module projects with sums over pixels: those of its tile,
or those of the whole photo, which a first pass collects.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from unsmear.errors import ModelError
from unsmear.models.low_rank import LowRankModule, LowRankStatistics
from unsmear.models.memory import available_memory, peak_bytes
from unsmear.models.restoring import Precision, autocast, image_channels, padded_size, restore
from unsmear.models.tile_plan import Span, plan, smallest_side

Statistics = Literal["whole", "tile"]
"""Whose sums a tile's low-rank module projects with: the whole photo's, of a first pass, or its own."""

STATISTICS: Statistics = "tile"
"""The default: restores as well as with a first pass over the photo, in less time (docs/DEBLURRING.md)."""

OVERLAP = 64
"""Pixels that neighbouring tiles share (docs/DEBLURRING.md has what other widths cost and bring)."""

WHOLE_PIXELS = 2**20
"""Photos up to here are tried in one piece, without asking how much memory there is."""

CPU_MEMORY = 2**30
"""Most bytes for the features of a tile on a CPU: larger ones only save some overlap."""

MEMORY_SHARE = 0.5
"""Part of the memory at hand that features may take; the rest is for other programs, and for what changes."""

ALLOCATOR_FACTOR = 1.6
"""Memory taken in fact over the sum of the tensors: scratch of the kernels, and gaps between tensors."""

FIRST_PASS_SHARE = 0.4
"""Part of the work that is the first pass, which ends at the low-rank module (for progress reports only)."""

_STRIP = 64  # rows turned into integers at a time


class Pixels(Protocol):
    """A picture that gives rectangles as tensors (3, h, w) in [0, 1], and takes them.

    For a network with `image_channels` of its own it gives tensors of so many.
    """

    @property
    def height(self) -> int:
        """Rows."""

    @property
    def width(self) -> int:
        """Columns."""

    def tensor(self, *, rows: slice, columns: slice) -> Tensor:
        """Return a rectangle."""

    def put(self, tensor: Tensor, *, row: int = 0, column: int = 0) -> None:
        """Store a rectangle."""

    def blank_like(self) -> "Pixels":
        """Return another picture of the same kind and size, to be filled by `put`."""


class TensorPixels:
    """A tensor (3, H, W) of floats as pixels for a TiledRestorer."""

    def __init__(self, values: Tensor) -> None:
        """Take a tensor: it is read in place, and written into."""
        self.values = values
        self.height, self.width = int(values.shape[-2]), int(values.shape[-1])

    def tensor(self, *, rows: slice, columns: slice) -> Tensor:
        """Return a rectangle as float32."""
        return self.values[:, rows, columns].float()

    def put(self, tensor: Tensor, *, row: int = 0, column: int = 0) -> None:
        """Store a rectangle."""
        height, width = tensor.shape[-2:]
        self.values[:, row : row + height, column : column + width] = tensor.clamp(0, 1)

    def blank_like(self) -> "TensorPixels":
        """Return a black picture of the same size."""
        return TensorPixels(torch.zeros_like(self.values))


class Area(NamedTuple):
    """Rows top to bottom and columns left to right of a picture, the latter ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> int:
        """How many pixels it has."""
        return max(self.bottom - self.top, 0) * max(self.right - self.left, 0)

    def at(self, rows: tuple[int, int], columns: tuple[int, int]) -> "Area":
        """Rows and columns counted from this area's corner."""
        return Area(self.top + rows[0], self.top + rows[1], self.left + columns[0], self.left + columns[1])

    def within(self, other: "Area") -> "Area":
        """The part that lies in the other too."""
        return Area(
            max(self.top, other.top), min(self.bottom, other.bottom),
            max(self.left, other.left), min(self.right, other.right),
        )  # fmt: skip


class TiledRestorer:
    """Restores photos of any size with one network, in tiles as large as the memory allows.

    A tile that does not fit after all is cut again, and so are those after it: nothing that is done is lost.

    Args:
        model: a network on its device, in evaluation mode.
        precision: of the large products.
        statistics: of low-rank modules where a photo needs several tiles.
        tile: side of a square as large as a tile may be, in pixels; None: by the memory at hand.
        overlap: pixels that neighbouring tiles share.

    Raises:
        ModelError: a tile without pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: Precision = "auto",
        statistics: Statistics = STATISTICS,
        tile: int | None = None,
        overlap: int = OVERLAP,
    ) -> None:
        if tile is not None and tile < 1:
            raise ModelError(f"tile is {tile}; expected the side of a tile in pixels, from 1 up")
        self.model, self.precision, self.statistics = model, precision, statistics
        self._tile, self._overlap = tile, overlap
        self._pixels = None if tile is None else tile**2  # most that is tried in one piece
        self._sizes = {
            "multiple": int(getattr(model, "size_multiple", 1)),
            "minimum": padded_size(model, 1),
            "overlap": overlap,
        }
        self._smallest_pixels = smallest_side(**self._sizes) ** 2
        self._low_rank = [module for module in model.modules() if isinstance(module, LowRankModule)]

    def of(self, model: nn.Module) -> "TiledRestorer":
        """Return a restorer with the same settings for another network."""
        return TiledRestorer(
            model,
            precision=self.precision,
            statistics=self.statistics,
            tile=self._tile,
            overlap=self._overlap,
        )

    def restore(
        self, source: Pixels, target: Pixels, *, progress: Callable[[float], None] = lambda _: None
    ) -> None:
        """Restore `source` into `target`, which has its size.

        Args:
            source: the blurred picture.
            target: takes the restored rows, from the top to the bottom.
            progress: called with the part of the work that was done since the last call; the parts sum to 1.

        Raises:
            ModelError: the memory does not do for the smallest tile.
        """
        photo = Area(0, source.height, 0, source.width)
        whole = self._fitting(source, photo)
        if whole is not None:
            _put(target, whole, 0)
            progress(1)
            return
        two_passes = self.statistics == "whole" and bool(self._low_rank)
        known: dict[LowRankModule, LowRankStatistics] = {}
        share = FIRST_PASS_SHARE / max(len(self._low_rank), 1) if two_passes else 0.0
        for _ in self._low_rank if two_passes else ():
            known |= self._collected(source, photo, self._padded(photo), known, lambda p: progress(p * share))
        with ExitStack() as stack:
            for module, statistics in known.items():
                stack.enter_context(module.given(statistics))
            rest = 1 - share * len(known)
            for row, rows in self._bands(source, photo):
                _put(target, rows, row)
                progress(rest * rows.shape[1] / source.height)

    def _bands(self, source: Pixels, area: Area) -> Iterator[tuple[int, Tensor]]:
        """Yield (row, finished rows (c, h, w)) of an area, band by band of tiles."""
        rows, columns = self._plan(area)
        width = area.right - area.left
        band = torch.empty(0)
        for index, span in enumerate(rows):
            begun = band
            for column in columns:
                tile = self._restored(source, area.at(span[:2], column[:2]))
                if column is columns[0]:
                    band = torch.zeros(len(tile), span.stop - span.start, width)
                    if index:
                        band[:, : begun.shape[1]] = begun
                tile *= span.weight[:, None]
                tile *= column.weight
                band[:, :, column.start : column.stop] += tile
            finished = (rows[index + 1].start if index + 1 < len(rows) else span.stop) - span.start
            yield area.top + span.start, band[:, :finished]
            band = band[:, finished:].clone()

    def _restored(self, source: Pixels, area: Area) -> Tensor:
        """Return a restored tile, put together from smaller ones where the memory wants it."""
        whole = self._fitting(source, area)
        return torch.cat([rows for _, rows in self._bands(source, area)], 1) if whole is None else whole

    def _fitting(self, source: Pixels, area: Area) -> Tensor | None:
        """Return an area restored in one piece, or None where that needs too much memory."""
        if not self._fits(area):
            return None
        try:
            return self._piece(source, area)
        except (RuntimeError, MemoryError) as error:
            self._halve(area, error)
        return None

    def _piece(self, source: Pixels, area: Area) -> Tensor:
        """Return an area (c, h, w) restored in one piece."""
        return restore(self.model, _read(source, area), precision=self.precision).cpu()

    def _collected(
        self,
        source: Pixels,
        area: Area,
        core: Area,
        known: Mapping[LowRankModule, LowRankStatistics],
        progress: Callable[[float], None],
    ) -> dict[LowRankModule, LowRankStatistics]:
        """Return the sums over the core of an area of the first low-rank module that has none in `known`."""
        if self._fits(area):
            try:
                return self._collected_from_tile(_read(source, area), area, core, known)
            except (RuntimeError, MemoryError) as error:
                self._halve(area, error)
        total: dict[LowRankModule, LowRankStatistics] = {}
        rows, columns = self._plan(area)
        for row in rows:
            for column in columns:
                tile_core = area.at(row[2:4], column[2:4]).within(core)
                if not tile_core.pixels:
                    continue
                tile = area.at(row[:2], column[:2])
                for module, sums in self._collected(source, tile, tile_core, known, lambda _: None).items():
                    total[module] = total[module] + sums if module in total else sums
                progress(1 / (len(rows) * len(columns)))
        return total

    def _collected_from_tile(
        self,
        image: Tensor,
        area: Area,
        core: Area,
        known: Mapping[LowRankModule, LowRankStatistics],
    ) -> dict[LowRankModule, LowRankStatistics]:
        """Run the network up to its first low-rank module without statistics."""
        padded_area = self._padded(area)

        def leave(module: nn.Module, features: tuple[Any, ...]) -> None:
            assert isinstance(module, LowRankModule)
            if module not in known:
                scale = (padded_area.bottom - padded_area.top) / features[0].shape[-2]
                window = (
                    slice(round((core.top - area.top) / scale), round((core.bottom - area.top) / scale)),
                    slice(round((core.left - area.left) / scale), round((core.right - area.left) / scale)),
                )
                raise _Collected(module, module.statistics(features[0], window))

        with ExitStack() as stack:
            for module in self._low_rank:
                stack.callback(module.register_forward_pre_hook(leave).remove)
            for module, statistics in known.items():
                stack.enter_context(module.given(statistics))
            try:
                restore(self.model, image, precision=self.precision)
            except _Collected as collected:
                return {collected.module: collected.statistics}
        raise ModelError(f"{type(self.model).__name__} has low-rank modules that it does not call")

    def _fits(self, area: Area) -> bool:
        """Whether an area is to be tried in one piece; asks for the memory at hand once, if it must."""
        padded_area = self._padded(area)
        if self._pixels is None and padded_area.pixels > WHOLE_PIXELS:
            self._pixels = self._affordable_pixels()
        return self._pixels is None or padded_area.pixels <= max(self._pixels, self._smallest_pixels)

    def _affordable_pixels(self) -> int:
        """Return how many pixels a tile may have, measured on a small one."""
        weight = next(self.model.parameters())
        size = padded_size(self.model, 256)
        channels = image_channels(self.model)
        trial = torch.zeros(1, channels, size, size, device=weight.device, dtype=weight.dtype)
        with autocast(weight.device, self.precision):
            each = ALLOCATOR_FACTOR * peak_bytes(self.model, trial) / trial[0, 0].numel()
        memory = available_memory(weight.device) * MEMORY_SHARE
        return int((memory if weight.device.type == "cuda" else min(memory, CPU_MEMORY)) / each)

    def _halve(self, area: Area, error: BaseException) -> None:
        """Note that an area was too large; raise if it is another error, or nothing smaller is left."""
        if not _is_out_of_memory(error):
            raise error
        tried = self._padded(area).pixels
        if tried <= self._smallest_pixels:
            raise ModelError(
                "the memory does not do for the network on the smallest tile: close other programs, or take "
                "a smaller network"
            ) from error
        self._pixels = min(tried, self._pixels or tried) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _plan(self, area: Area) -> tuple[list[Span], list[Span]]:
        assert self._pixels is not None  # only what does not fit is cut
        return plan(
            area.bottom - area.top,
            area.right - area.left,
            pixels=self._pixels,
            **self._sizes,
        )

    def _padded(self, area: Area) -> Area:
        """Return the area with what `restore` adds to it."""
        return area._replace(
            bottom=area.top + padded_size(self.model, area.bottom - area.top),
            right=area.left + padded_size(self.model, area.right - area.left),
        )


class _Collected(Exception):
    """Leaves a network early, with what was wanted of it."""

    def __init__(self, module: LowRankModule, statistics: LowRankStatistics) -> None:
        super().__init__()
        self.module, self.statistics = module, statistics


def _read(source: Pixels, area: Area) -> Tensor:
    return source.tensor(rows=slice(area.top, area.bottom), columns=slice(area.left, area.right))


def _put(target: Pixels, rows: Tensor, first: int) -> None:
    """Store rows (c, h, w) strip by strip: `put` needs copies of what it is given."""
    for row in range(0, rows.shape[1], _STRIP):
        target.put(rows[:, row : row + _STRIP], row=first + row)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; PyTorch tells it by the words alone on a CPU."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(w in str(error) for w in words)

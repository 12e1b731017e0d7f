"""NAFNet: a U-shaped network without nonlinear activations (Chen, Chu, Zhang and Sun, ECCV 2022).

Paper: https://arxiv.org/abs/2204.04676. Official code: https://github.com/megvii-research/NAFNet (MIT), not
    copied. Local statistics: Chu et al., ECCV 2022, https://arxiv.org/abs/2112.04491.

What differs: the features stay in the layout (N, H, W, C) throughout, so that 1×1 convolutions are linear
layers and norms one pass over memory; inference walks through an image in bands of rows, so that the wide
intermediate features stay in the processor's cache. Same numbers, but for `local_step`, which is ours. The
low-rank module stands at `LOW_RANK_POINT`. The blocks at each level are by default those of the official
networks for GoPro.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BAND_ELEMENTS = 2**20
"""Widest feature (2C channels) of a band in inference: 4 MiB in float32, two cores' second-level caches."""

LOCAL_WINDOW = 384
"""Side in pixels of the official local statistics: 1.5 times the side of its training patches, 256."""


class NAFBlock(nn.Module):
    """x ← x + β · Linear(g · a), x ← x + γ · Linear(gate(Linear(LN(x)))), on (N, H, W, C).

    g = gate(depthwise3×3(Linear(LN(x)))) with gate(x₁, x₂) = x₁ · x₂, half of the channels times the other
    half; a = Linear(mean of g over the picture), the simplified channel attention. β and γ are one number a
    channel and start at 0, so that each block starts as the identity.

    `window` = (height, width) in pixels of its own scale takes means over windows instead (evaluation mode),
    around every `step`-th pixel, and a where no mean was taken is on straight lines between its neighbours.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.window: tuple[int, int] | None = None
        self.step = 1
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 2 * channels)
        self.local = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Linear(channels, channels)
        self.narrow = nn.Linear(channels, channels)
        self.beta = nn.Parameter(torch.zeros(channels))
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 2 * channels)
        self.contract = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        bands = _bands(x)
        gated = _joined([self._gated(x, band) for band in bands])
        if self.window is None or self.training:
            means = gated.mean((1, 2), keepdim=True)  # (N, 1, 1, C)
        else:
            means = window_means(gated, self.window, self.step)
        scales = self.attention(means)
        if scales.shape[1:3] == (1, 1):
            scales = scales.expand_as(gated)
        elif self.step > 1:
            scales = _last(F.interpolate(_first(scales), scale_factor=self.step, mode="bilinear"))
        return _joined([self._mixed(x[:, band], gated[:, band], scales[:, band]) for band in bands])

    def _gated(self, x: Tensor, band: slice) -> Tensor:
        """Rows `band` of g, from these rows of x and those that the 3×3 convolution sees besides."""
        above = max(band.start - 1, 0)
        wide = self.widen(self.norm1(x[:, above : band.stop + 1]))
        local = _last(self.local(_first(wide)))
        return _gate(local[:, band.start - above : band.stop - above])

    def _mixed(self, x: Tensor, gated: Tensor, scales: Tensor) -> Tensor:
        """Both sums, each pixel for itself."""
        x = torch.addcmul(x, self.narrow(gated * scales), self.beta)
        return torch.addcmul(x, self.contract(_gate(self.expand(self.norm2(x)))), self.gamma)


class NAFNet(nn.Module):
    """Restore (N, 3, H, W) photographs in [0, 1], sRGB: y = x + network(x), H and W multiples of 16.

    Args:
        width: channels at full resolution, doubled at each level below.
        encoder: blocks of the levels on the way down.
        bottleneck: blocks at the bottom.
        decoder: blocks of the levels on the way up.
        local_window: in evaluation mode, take the means of the channel attention over windows of so many
            pixels (`LOCAL_WINDOW`: the official test-time local statistics), as in training on patches, and
            not over the whole picture.
        local_step: take them around every so many pixels only, see `use_local_statistics`: less exact, and in
            half the network's time.
    """

    size_multiple = 16
    minimum_size = 16
    global_context = True
    LOW_RANK_POINT = "middle"

    def __init__(
        self,
        *,
        width: int,
        encoder: Sequence[int] = (1, 1, 1, 28),
        bottleneck: int = 1,
        decoder: Sequence[int] = (1, 1, 1, 1),
        local_window: int | None = None,
        local_step: int = 1,
    ) -> None:
        super().__init__()
        if len(encoder) != len(decoder):
            raise ValueError(f"encoder {encoder} and decoder {decoder}: expected as many levels in both")
        self.size_multiple = self.minimum_size = 2 ** len(encoder)
        channels = [width * 2**level for level in range(len(encoder) + 1)]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.encoder = nn.ModuleList(_stage(c, n) for c, n in zip(channels[:-1], encoder, strict=True))
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.bottleneck = _stage(channels[-1], bottleneck)
        self.middle: nn.Module = nn.Identity()
        self.low_rank_channels = channels[-1]
        self.up = nn.ModuleList(nn.Conv2d(c, 2 * c, 1, bias=False) for c in channels[:0:-1])
        self.decoder = nn.ModuleList(_stage(c, n) for c, n in zip(channels[-2::-1], decoder, strict=True))
        self.leave = nn.Conv2d(width, 3, 3, padding=1)
        self.use_local_statistics(local_window, local_step)

    def use_local_statistics(self, window: int | None = LOCAL_WINDOW, step: int = 1) -> None:
        """Take means over windows of so many pixels of the photograph from now on; None: over all of it.

        `step` is a power of two up to the network's `size_multiple`, and the window an odd number of steps.
        """
        fits = step == 1 or (step > 1 and self.size_multiple % step == 0)
        if window is not None and not (fits and (step == 1 or window % (2 * step) == step)):
            raise ValueError(
                f"local_window={window}, local_step={step}: expected a step that divides "
                f"{self.size_multiple} and a window of an odd number of steps"
            )
        local = (
            "how many windows its means are over depends on the size; after its method "
            "use_local_statistics(None), which takes means over all of the picture, it can be"
        )
        self.not_in_onnx = "" if window is None else local
        levels = len(self.encoder)
        stages = [*self.encoder, self.bottleneck, *self.decoder]
        for stage, level in zip(stages, [*range(levels + 1), *reversed(range(levels))], strict=True):
            for block in stage.modules():
                if isinstance(block, NAFBlock):
                    block.window = None if window is None else (max(1, window >> level),) * 2
                    block.step = max(1, step >> level)

    def forward(self, image: Tensor) -> Tensor:
        """Restore image (N, 3, H, W)."""
        x = _last(self.enter(image.contiguous(memory_format=torch.channels_last)))
        skips = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            skips.append(stage(x))
            x = _last(down(_first(skips[-1])))
        x = _last(self.middle(_first(self.bottleneck(x))))
        for stage, up in zip(self.decoder, self.up, strict=True):
            x = stage(_last(F.pixel_shuffle(up(_first(x)), 2)) + skips.pop())
        return image + self.leave(_first(x))  # type: ignore[no-any-return]


def window_means(x: Tensor, window: tuple[int, int], step: int = 1) -> Tensor:
    """Means of x (N, H, W, C) over windows: over all of it where they are larger, (N, 1, 1, C) then.

    Windows lie within the picture; a pixel nearer to its border than half a window takes the mean of the
    nearest window that does. Computed by running sums, along one axis after the other; of means of `step`
    by `step` pixels, one window around each, (N, H / step, W / step, C), where it is more than 1.
    """
    if step > 1:
        height, width = (side // step for side in window)
        return window_means(_last(F.avg_pool2d(_first(x), step)), (height, width))
    sizes = [min(side, length) for side, length in zip(window, x.shape[1:3], strict=True)]
    if sizes == list(x.shape[1:3]):
        return x.mean((1, 2), keepdim=True)
    for axis, (side, length) in enumerate(zip(sizes, x.shape[1:3], strict=True), start=1):
        sums = F.pad(x.float().cumsum(axis), (0,) * (2 * (3 - axis)) + (1, 0))  # a row of zeros before
        means = (sums.narrow(axis, side, length - side + 1) - sums.narrow(axis, 0, length - side + 1)) / side
        first = (side - 1) // 2  # pixels before the middle of the first window
        nearest = (torch.arange(length, device=x.device) - first).clamp(0, length - side)
        x = means.index_select(axis, nearest)
    return x


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels=channels) for _ in range(blocks)))


def _gate(x: Tensor) -> Tensor:
    """SimpleGate of (N, H, W, 2C)."""
    first, second = x.chunk(2, -1)
    return first * second


def _bands(x: Tensor) -> list[slice]:
    """Cut the rows of x (N, H, W, C) into bands: in inference so small that 2C channels stay in cache."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return [slice(0, x.shape[1])]  # no `range`, which would fix the size in an export to ONNX
    height = max(1, BAND_ELEMENTS // (2 * x[:, 0].numel()))
    return [slice(row, min(row + height, x.shape[1])) for row in range(0, x.shape[1], height)]


def _joined(bands: list[Tensor]) -> Tensor:
    return torch.cat(bands, 1) if len(bands) > 1 else bands[0]


def _first(x: Tensor) -> Tensor:
    """(N, H, W, C) as (N, C, H, W), without moving a number."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)

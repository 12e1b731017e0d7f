"""Blur kernels: camera shake, linear motion, defocus (the k^b of Eq. 2).

A kernel is a (K, K) float32 array, K odd, non-negative, sum one, with its centre of mass on the centre pixel.
It is applied by correlation: v(i) = Σ_p k(p) u(i + p), p = (row, column) from −K//2 to K//2. So k is the
histogram of the places p(t), relative to pixel i, that the pixel looks at during the exposure.

Centring matters: a kernel off its centre shifts v against u, and a network trained on such pairs learns a
translation. Paths are shifted before they are drawn, never the drawn raster, so nothing is resampled.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unsmear.errors import KernelError

Kernel = NDArray[np.float32]
Path = NDArray[np.float64]

LARGEST_SIZE = 65
"""Largest kernel size K, in pixels: the larger of the two sizes of Carbajal et al. (33 and 65)."""

SMOOTHNESS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.8, 1.2)
"""Matérn length scales offered to `shake_path`, as fractions of the exposure. 0.3 is deepinv's constant; the
neighbours span from tangled paths (long exposures of a hand trembling at 8-12 Hz) to nearly straight ones."""

_KNOTS = 129
"""Points at which the Gaussian process is drawn; the shortest length scale covers 13 of them."""

_POINTS_PER_PIXEL = 4
"""Points drawn per pixel of path, at least: dense enough that bilinear splatting leaves no beads."""


def _mean_over_time(path: Path) -> Path:
    """Return the mean over the first axis of a path that is straight between its points (trapezoid rule)."""
    return np.asarray(path[0] if len(path) == 1 else 0.5 * (path[:-1] + path[1:]).mean(axis=0))


@lru_cache(maxsize=32)
def _matern_factor(smoothness: float) -> NDArray[np.float64]:
    """Return A (knots, terms) so that A z, z ~ N(0, I), is a Matérn-5/2 process with its mean removed."""
    time = np.linspace(0.0, 1.0, _KNOTS)
    distance = np.sqrt(5.0) * np.abs(time[:, None] - time[None, :]) / smoothness
    covariance = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    values, vectors = np.linalg.eigh(covariance)
    order = np.argsort(values)[::-1]
    values, vectors = values[order], vectors[:, order]
    terms = (
        int(np.searchsorted(np.cumsum(values) / values.sum(), 1.0 - 1e-6)) + 1
    )  # Karhunen-Loève, cut at 1e-6
    factor = vectors[:, :terms] * np.sqrt(np.maximum(values[:terms], 0.0))
    return np.asarray(factor - _mean_over_time(factor))


def matern_paths(generator: np.random.Generator, count: int, *, smoothness: float | None = None) -> Path:
    """Draw `count` independent scalar paths over one exposure from a Matérn-5/2 Gaussian process.

    Covariance (1 + √5 d/ℓ + 5 d²/(3ℓ²)) exp(−√5 d/ℓ), d and ℓ in fractions of the exposure; each path's mean
    over the exposure is removed. One matrix product, so it costs microseconds.

    Args:
        generator: source of randomness.
        count: number of paths.
        smoothness: ℓ; drawn from `SMOOTHNESS` where None.

    Returns:
        (129, count) float64, unit variance before the mean is removed.
    """
    if smoothness is None:
        smoothness = float(generator.choice(SMOOTHNESS))
    if not smoothness > 0:
        raise KernelError(f"smoothness is {smoothness}; it must be a positive fraction of the exposure")
    factor = _matern_factor(float(smoothness))
    return np.asarray(factor @ generator.standard_normal((factor.shape[1], count)))


def extent(path: Path) -> float:
    """Return the largest distance between two points of a (T, 2) path in pixels, within 0.5 %.

    Taken as the largest of the widths in 32 directions.
    """
    angles = np.arange(32) * (np.pi / 32)
    shadows = path @ np.stack([np.sin(angles), np.cos(angles)])
    return float((shadows.max(axis=0) - shadows.min(axis=0)).max())


def shake_path(
    generator: np.random.Generator, *, length: float, smoothness: float | None = None
) -> NDArray[np.float64]:
    """Draw the path of a shaken camera: two independent Matérn-5/2 processes, scaled to `length`.

    Args:
        generator: source of randomness.
        length: extent of the path in pixels: the largest distance between two of its points, not the arc.
        smoothness: length scale in exposures; drawn from `SMOOTHNESS` where None.

    Returns:
        (129, 2) float64 of (row, column) in pixels at equal times, mean zero.
    """
    if not length >= 0:
        raise KernelError(f"length is {length} px; it must not be negative")
    path = matern_paths(generator, 2, smoothness=smoothness)
    return path * (length / extent(path))


def path_size(path: Path) -> int:
    """Return the smallest odd K that holds a (T, 2) path in pixels relative to the kernel's centre."""
    return 2 * int(np.ceil(np.abs(path).max() - 1e-9)) + 1


def draw_paths(paths: Path, *, size: int | None = None, centred: bool = True) -> Kernel:
    """Draw paths into kernels by bilinear splatting: each moment of the exposure adds the same mass.

    Bilinear splatting keeps the first moment, so removing a path's mean puts the kernel's centre of mass on
    the centre pixel exactly. Points between the given ones are interpolated linearly, four or more per pixel.

    Args:
        paths: (B, T, 2) or (T, 2), (row, column) in pixels relative to the centre, at equal times.
        size: K, odd; the smallest that holds every path where None.
        centred: remove each path's mean over time first.

    Returns:
        (B, K, K) or (K, K) float32, non-negative, sum one.

    Raises:
        KernelError: a path leaves the kernel.
    """
    single = paths.ndim == 2
    stack = np.asarray(paths, dtype=np.float64).reshape(-1, *paths.shape[-2:])
    count, times, _ = stack.shape
    if times > 1:
        steps = np.abs(np.diff(stack, axis=1)).max()
        parts = max(1, int(np.ceil(steps * _POINTS_PER_PIXEL)))
        # Midpoints of equal parts of each step: every step gets the same time, thus the same mass.
        share = ((np.arange(parts) + 0.5) / parts)[None, None, :, None]
        stack = (stack[:, :-1, None] * (1 - share) + stack[:, 1:, None] * share).reshape(count, -1, 2)
    if centred:
        stack = stack - stack.mean(axis=1, keepdims=True)
    needed = path_size(stack)
    size = needed if size is None else _checked_size(size)
    if needed > size:
        raise KernelError(f"the path needs a kernel of {needed} pixels but the kernel has {size}; shorten it")
    # One pixel more on the far sides, where a bilinear weight may be exactly zero.
    wide = size + 1
    position = stack + size // 2
    corner = np.floor(position + 1e-9).astype(np.int64)
    part = np.clip(position - corner, 0.0, 1.0)
    row, column = corner[..., 0], corner[..., 1]
    below, right = part[..., 0], part[..., 1]
    base = (np.arange(count)[:, None] * wide + row) * wide + column
    places = np.concatenate([base, base + 1, base + wide, base + wide + 1], axis=1)
    weights = np.concatenate(
        [(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right], axis=1
    )
    sums = np.bincount(places.ravel(), weights.ravel(), minlength=count * wide * wide)
    kernels = sums[: count * wide * wide].reshape(count, wide, wide)[:, :size, :size]
    kernels = (kernels / kernels.sum(axis=(1, 2), keepdims=True)).astype(np.float32)
    return np.asarray(kernels[0] if single else kernels)


def fit_path(path: Path, size: int) -> Path:
    """Shrink a mean-free path, or a stack of paths together, until a kernel of `size` pixels holds it."""
    reach = float(np.abs(path).max())
    room = size // 2
    return path if reach <= room else path * (room / reach)


def camera_shake(
    generator: np.random.Generator, size: int, *, length: float, smoothness: float | None = None
) -> Kernel:
    """Return the kernel of one camera shake: the path of a Matérn-5/2 Gaussian process, as in deepinv.

    Chosen over the random walk of Boracchi and Foi: a hand is a smooth low-pass system, so its path has a
    velocity and an acceleration (Matérn-5/2 is twice differentiable, the random walk has a corner at every
    step); one number, the length scale, spans straight to tangled paths; and it is one matrix product instead
    of 2000 dependent steps.

    Args:
        generator: source of randomness.
        size: K, odd, at most 65.
        length: extent of the path in pixels; a path that would leave the kernel is shrunk to fit.
        smoothness: length scale in exposures; drawn from `SMOOTHNESS` where None.

    Returns:
        (K, K) float32, non-negative, sum one, centred by mass.
    """
    size = _checked_size(size)
    return draw_paths(fit_path(shake_path(generator, length=length, smoothness=smoothness), size), size=size)


def linear_path(length: float, angle: float) -> Path:
    """Return a straight (2, 2) path of `length` pixels through the centre at `angle` degrees from the x axis.

    The angle turns counter-clockwise as seen on the screen: 0 is horizontal, 90 vertical.
    """
    if not length >= 0:
        raise KernelError(f"length is {length} px; it must not be negative")
    turn = np.deg2rad(angle)
    end = 0.5 * length * np.array([-np.sin(turn), np.cos(turn)])
    return np.stack([-end, end])


def linear_motion(length: float, angle: float, size: int | None = None) -> Kernel:
    """Return the kernel of an even straight motion, an antialiased line.

    Args:
        length: path in pixels; 0 is the identity.
        angle: degrees, counter-clockwise on the screen: 0 horizontal, 90 vertical.
        size: K, odd; the smallest that holds the line where None.

    Returns:
        (K, K) float32, non-negative, sum one, centred by mass.

    Raises:
        KernelError: the line does not fit, or the length is negative.
    """
    return draw_paths(linear_path(length, angle), size=size)


def defocus(radius: float, size: int | None = None) -> Kernel:
    """Return the kernel of a defocused lens: an even disc, antialiased by 16×16 samples a pixel.

    Args:
        radius: of the disc in pixels; below about 0.3 it is the identity.
        size: K, odd; the smallest that holds the disc where None.

    Returns:
        (K, K) float32, non-negative, sum one, centred by mass (by symmetry).

    Raises:
        KernelError: the disc does not fit, or the radius is negative.
    """
    if not radius >= 0:
        raise KernelError(f"radius is {radius} px; it must not be negative")
    needed = 2 * int(np.ceil(max(radius - 0.5, 0.0))) + 1
    size = needed if size is None else _checked_size(size)
    if needed > size:
        raise KernelError(f"a disc of radius {radius} px needs a kernel of {needed} pixels, not {size}")
    samples = 16
    axis = (np.arange(size * samples) + 0.5) / samples - size / 2
    inside = axis[:, None] ** 2 + axis[None, :] ** 2 <= max(radius, 0.05) ** 2
    kernel = inside.reshape(size, samples, size, samples).sum(axis=(1, 3), dtype=np.float64)
    return np.asarray((kernel / kernel.sum()).astype(np.float32))


def identity(size: int = 1) -> Kernel:
    """Return the (K, K) kernel that changes nothing: one at the centre."""
    kernel = np.zeros((_checked_size(size),) * 2, dtype=np.float32)
    kernel[size // 2, size // 2] = 1.0
    return kernel


def mass_centre(kernels: ArrayLike) -> NDArray[np.float64]:
    """Return the centre of mass of (…, K, K) kernels, (row, column) in pixels from the centre: (…, 2)."""
    stack = np.asarray(kernels, dtype=np.float64)
    axis = np.arange(stack.shape[-1]) - (stack.shape[-1] // 2)
    total = stack.sum(axis=(-2, -1))
    rows = (stack.sum(axis=-1) * axis).sum(axis=-1) / total
    columns = (stack.sum(axis=-2) * axis).sum(axis=-1) / total
    return np.stack([rows, columns], axis=-1)


def center_kernels(kernels: ArrayLike) -> Kernel:
    """Shift (…, K, K) kernels from anywhere so that their centre of mass is the centre pixel, size unchanged.

    For kernels of foreign origin (fitted, measured), which have no path: each is shifted by the whole pixels,
    then by the rest bilinearly, which adds a spread of at most half a pixel. Mass that would leave the kernel
    is lost, the kernel scaled back to sum one, and the shift repeated until the centre holds within 0.001 px.

    Raises:
        KernelError: shape, sign or sum is no kernel's (`check_kernels`).
    """
    stack = check_kernels(kernels)
    shape = stack.shape
    moved = stack.reshape(-1, *shape[-2:]).astype(np.float64)
    for index, kernel in enumerate(moved):
        for _ in range(20):
            centre = mass_centre(kernel)
            if np.abs(centre).max() < 1e-3:
                break
            kernel = _shifted(kernel, -centre)
            kernel = kernel / kernel.sum()
        moved[index] = kernel
    return np.asarray(moved.astype(np.float32).reshape(shape))


def _shifted(kernel: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift one (K, K) raster by (rows, columns), bilinearly, zeros coming in."""
    for axis in (0, 1):
        whole = int(np.floor(shift[axis]))
        part = shift[axis] - whole
        kernel = (1 - part) * _rolled(kernel, whole, axis) + part * _rolled(kernel, whole + 1, axis)
    return kernel


def _rolled(kernel: NDArray[np.float64], step: int, axis: int) -> NDArray[np.float64]:
    """Shift by whole pixels along one axis, zeros coming in."""
    out = np.zeros_like(kernel)
    size = kernel.shape[axis]
    if abs(step) < size:
        source = [slice(None)] * 2
        target = [slice(None)] * 2
        source[axis] = slice(max(-step, 0), size - max(step, 0))
        target[axis] = slice(max(step, 0), size - max(-step, 0))
        out[tuple(target)] = kernel[tuple(source)]
    return out


def vary_kernel(kernel: Kernel, *, angle: float = 0.0, scale: float = 1.0) -> Kernel:
    """Turn (degrees, counter-clockwise on the screen) and scale a (K, K) kernel about its centre.

    Each pixel's mass is moved and splatted bilinearly, so no mass is lost and the centre of mass stays on the
    centre. The result has the odd size that it needs, which may be larger or smaller than K.
    """
    rows, columns = np.nonzero(kernel)
    turn = np.deg2rad(angle)
    places = np.stack([rows, columns], axis=1) - kernel.shape[-1] // 2
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = scale * places @ rotation.T
    size = path_size(moved)
    moved = moved + size // 2
    corner = np.floor(moved + 1e-9).astype(np.int64)
    part = np.clip(moved - corner, 0.0, 1.0)
    mass = kernel[rows, columns].astype(np.float64)
    out = np.zeros((size + 1, size + 1))
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(out, (corner[:, 0] + down, corner[:, 1] + right), mass * weight)
    out = out[:size, :size]
    return np.asarray((out / out.sum()).astype(np.float32))


def pad_kernels(kernels: Kernel, size: int) -> Kernel:
    """Return (…, K, K) kernels in a larger odd `size`, zeros around."""
    margin = (_checked_size(size) - kernels.shape[-1]) // 2
    if margin < 0:
        raise KernelError(f"kernels of {kernels.shape[-1]} pixels do not fit into {size}")
    return np.pad(kernels, [(0, 0)] * (kernels.ndim - 2) + [(margin, margin)] * 2)


def trim_kernels(kernels: Kernel) -> Kernel:
    """Return (…, K, K) kernels without the zero border common to all, K still odd and centred."""
    size = kernels.shape[-1]
    marks = np.abs(kernels).reshape(-1, size, size).max(axis=0)
    used = np.flatnonzero(np.maximum(marks.max(axis=0), marks.max(axis=1)))
    margin = 0 if used.size == 0 else int(min(used[0], size - 1 - used[-1]))
    return kernels[..., margin : size - margin, margin : size - margin]


def check_kernels(kernels: ArrayLike, *, tolerance: float = 1e-4) -> Kernel:
    """Return kernels as (…, K, K) float32 after checking that they are: K odd, finite, non-negative, sum one.

    Args:
        kernels: (…, K, K) array-like.
        tolerance: allowed distance of each sum from one.

    Raises:
        KernelError: names what was found and what was expected.
    """
    stack = np.asarray(kernels)
    if stack.ndim < 2 or stack.shape[-1] != stack.shape[-2]:
        raise KernelError(f"kernels have the shape {stack.shape}; expected square (…, K, K)")
    _checked_size(stack.shape[-1])
    if not np.issubdtype(stack.dtype, np.number):
        raise KernelError(f"kernels hold {stack.dtype}; expected numbers")
    stack = stack.astype(np.float32, copy=False)
    if not np.isfinite(stack).all():
        raise KernelError("kernels hold infinite or undefined values")
    if stack.min(initial=0.0) < 0:
        raise KernelError(f"kernels go down to {stack.min():.3g}; expected no value below zero")
    sums = stack.sum(axis=(-2, -1), dtype=np.float64)
    worst = float(np.abs(sums - 1.0).max(initial=0.0))
    if worst > tolerance:
        raise KernelError(f"a kernel's sum is {worst:.3g} away from one; divide each kernel by its sum")
    return stack


def _checked_size(size: int) -> int:
    """Return the kernel size after checking that it is odd and positive."""
    if size < 1 or size % 2 == 0:
        raise KernelError(f"a kernel of {size} pixels has no centre; its size must be odd")
    return int(size)

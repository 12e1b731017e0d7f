"""Masks: where in the image each basis kernel acts (the m^b of Eq. 2), and camera motion as a kernel field.

Masks are (B, H, W) float32. At every pixel they lie on the simplex: m^b(i) ≥ 0 and Σ_b m^b(i) = 1, to 1e-6.
They multiply *after* the kernels: v(i) = Σ_b m^b(i) Σ_p k^b(p) u(i + p).
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unsmear.basis.kernels import Kernel, Path, draw_paths, fit_path, path_size
from unsmear.blurring import good_length
from unsmear.errors import KernelError

Masks = NDArray[np.float32]


def normalised(masks: ArrayLike) -> Masks:
    """Return non-negative (B, H, W) weights divided by their sum at each pixel, as float32."""
    stack = np.asarray(masks, dtype=np.float32)
    return np.asarray(stack / stack.sum(axis=0, keepdims=True), dtype=np.float32)


@lru_cache(maxsize=64)
def _gaussian_rows(pixels: int, spread: float) -> NDArray[np.float32]:
    """Return (pixels, cells): a Gaussian of `spread` px around each pixel, on cells `spread` px apart.

    Rows have unit square sum, so white noise on the cells becomes a field of variance one at every pixel.
    """
    cells = int(np.ceil(pixels / spread)) + 7
    places = (np.arange(cells) - 3) * spread
    rows = np.exp(-0.5 * ((np.arange(pixels)[:, None] - places[None, :]) / spread) ** 2)
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows.astype(np.float32)


def smooth_field(
    generator: np.random.Generator, count: int, height: int, width: int, *, spread: float
) -> Masks:
    """Return `count` (H, W) fields of Gaussian-filtered white noise, mean 0, variance 1, filter `spread` px.

    The noise lives on cells one `spread` apart and the filter is two small matrix products.
    """
    rows = _gaussian_rows(height, float(spread))
    columns = _gaussian_rows(width, float(spread))
    noise = generator.standard_normal((count, rows.shape[1], columns.shape[1]), dtype=np.float32)
    # torch's product and not NumPy's, whose own threads would fight with those of the other workers
    return np.asarray(
        (torch.from_numpy(rows) @ torch.from_numpy(noise) @ torch.from_numpy(columns).T).numpy()
    )


def smooth_masks(
    generator: np.random.Generator,
    bases: int,
    height: int,
    width: int,
    *,
    spread: float | None = None,
    sharpness: float | None = None,
) -> Masks:
    """Return masks from smooth random fields: softmax over b of Gaussian-filtered noise.

    The random weight masks of the paper. Neighbouring pixels share nearly the same kernel.

    Args:
        generator: source of randomness.
        bases: B ≥ 1.
        height: H in pixels.
        width: W in pixels.
        spread: of the Gaussian filter in pixels; drawn from 1/8 to 1/2 of the shorter side where None.
        sharpness: factor before the softmax, 0 is an even mixture; drawn from 2 to 8 where None.

    Returns:
        (B, H, W) float32 on the simplex at each pixel.
    """
    _check_shape(bases, height, width)
    if spread is None:
        # Eight steps, so that the filters are built once and not for every pair.
        spread = min(height, width) * float(generator.choice(np.geomspace(1 / 8, 1 / 2, 8)))
    if sharpness is None:
        sharpness = float(generator.uniform(2.0, 8.0))
    if not spread > 0:
        raise KernelError(f"spread is {spread} px; it must be positive")
    if bases == 1:
        return np.ones((1, height, width), dtype=np.float32)
    field = sharpness * smooth_field(generator, bases, height, width, spread=max(float(spread), 1.0))
    return normalised(np.exp(field - field.max(axis=0)))


def region_masks(
    generator: np.random.Generator,
    bases: int,
    height: int,
    width: int,
    *,
    softness: float | None = None,
) -> Masks:
    """Return masks of objects before a background: mask 0 is the background, the others are objects.

    Each object is an ellipse of random place, size and turn with a border bent by a smooth random field; a
    logistic edge makes it soft. Objects are laid over one another, the last in front, so the masks are a
    partition: what an object covers is taken from all behind it.

    Args:
        generator: source of randomness.
        bases: B ≥ 1: a background and B − 1 objects.
        height: H in pixels.
        width: W in pixels.
        softness: width of the edge in pixels (from 12 % to 88 %: 4 logistic units); drawn from 1 to 6 where
            None.

    Returns:
        (B, H, W) float32 on the simplex at each pixel.
    """
    _check_shape(bases, height, width)
    masks = np.zeros((bases, height, width), dtype=np.float32)
    masks[0] = 1.0
    shorter = min(height, width)
    for index in range(1, bases):
        edge = float(generator.uniform(1.0, 6.0)) if softness is None else max(float(softness), 1e-3)
        centre = generator.uniform(0.1, 0.9, 2) * (height, width)
        radii = shorter * generator.uniform(0.12, 0.45, 2)
        turn = generator.uniform(0.0, np.pi)
        bend = generator.uniform(0.0, 0.35)
        rows = (np.arange(height, dtype=np.float32) - np.float32(centre[0]))[:, None]
        columns = (np.arange(width, dtype=np.float32) - np.float32(centre[1]))[None, :]
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        along = (cos * rows + sin * columns) / np.float32(radii[0])
        across = (cos * columns - sin * rows) / np.float32(radii[1])
        field = smooth_field(generator, 1, height, width, spread=shorter / 12)[0]
        level = 1.0 - np.sqrt(along**2 + across**2) + np.float32(bend) * field
        # `level` falls by one over the mean radius: that turns pixels of edge into its units.
        steepness = 4.0 * float(radii.mean()) / edge
        cover = 1.0 / (1.0 + np.exp(np.clip(-steepness * level, -60.0, 60.0)))
        masks[:index] *= 1.0 - cover
        masks[index] = cover
    return normalised(masks)


def softened_masks(masks: Masks, kernels: Kernel) -> Masks:
    """Blur each mask with its own kernel and normalise: what a moving object covers during the exposure.

    m^b ← (k^b ⋆ m^b) / Σ_c (k^c ⋆ m^c), correlation as in Eq. 2, borders replicated. So the edge of a moving
    object is smeared along its motion while that of a still one stays sharp (the recipes of DMBSR
    and of SBDD). By Fourier transform.

    Args:
        masks: (B, H, W) on the simplex.
        kernels: (B, K, K).

    Returns:
        (B, H, W) float32 on the simplex at each pixel.
    """
    if len(masks) != len(kernels):
        raise KernelError(f"{len(masks)} masks and {len(kernels)} kernels; expected as many of each")
    margin = kernels.shape[-1] // 2
    height, width = masks.shape[1:]
    padded = torch.from_numpy(np.pad(masks, [(0, 0), (margin, margin), (margin, margin)], mode="edge"))
    shape = (good_length(height + 2 * margin), good_length(width + 2 * margin))
    spectrum = torch.fft.rfft2(padded, s=shape) * torch.fft.rfft2(torch.from_numpy(kernels), s=shape).conj()
    blurred = torch.fft.irfft2(spectrum, s=shape)[:, :height, :width].numpy()
    # The transform leaves rounding of about 1e-7 where a mask is zero; below 1e-6 there is no mask.
    return normalised(np.where(blurred > 1e-6, blurred, np.float32(0.0)))


def grid_masks(rows: ArrayLike, columns: ArrayLike, height: int, width: int) -> Masks:
    """Return the bilinear weights of a grid of nodes at each pixel; constant beyond the outer nodes.

    Args:
        rows: (R,) increasing row positions of the nodes in pixels (0 is the centre of the first row).
        columns: (C,) increasing column positions.
        height: H in pixels.
        width: W in pixels.

    Returns:
        (R·C, H, W) float32, node (r, c) at r·C + c, on the simplex at each pixel.
    """
    down = _hats(np.asarray(rows, dtype=np.float64), height)
    right = _hats(np.asarray(columns, dtype=np.float64), width)
    weights = down[:, None, :, None] * right[None, :, None, :]
    return normalised(weights.reshape(-1, height, width))


def _hats(nodes: NDArray[np.float64], pixels: int) -> NDArray[np.float32]:
    """Return (nodes, pixels): linear interpolation weights of increasing nodes."""
    place = np.arange(pixels, dtype=np.float64)
    units = np.eye(len(nodes))
    return np.stack([np.interp(place, nodes, unit) for unit in units]).astype(np.float32)


def camera_homographies(
    rotations: ArrayLike, *, focal: float, centre: tuple[float, float], shifts: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the homographies K R_t K⁻¹ of camera poses, K = [[f, 0, x0], [0, f, y0], [0, 0, 1]].

    Args:
        rotations: (T, 3) rotation vectors in radians: about x (pitch, image moves down or up), y (yaw,
            sideways) and z, the optical axis (roll, in the image plane); angle = length of the vector.
        focal: f in pixels.
        centre: (row, column) of the principal point in pixels.
        shifts: (T, 2) extra motion of the image in pixels, (row, column): a translation parallel to the image
            plane before a flat scene.

    Returns:
        (T, 3, 3) float64 acting on (x, y, 1) = (column, row, 1).
    """
    vectors = np.atleast_2d(np.asarray(rotations, dtype=np.float64))
    if vectors.shape[-1] != 3 or not np.isfinite(vectors).all():
        raise KernelError(f"rotations have the shape {vectors.shape}; expected finite (poses, 3) in radians")
    if not focal > 0:
        raise KernelError(f"the focal length is {focal} px; it must be positive")
    angle = np.linalg.norm(vectors, axis=1)
    axis = vectors / np.maximum(angle, 1e-300)[:, None]
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    turn = np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)  # Rodrigues
    camera = np.array([[focal, 0.0, centre[1]], [0.0, focal, centre[0]], [0.0, 0.0, 1.0]])
    homographies = camera @ turn @ np.linalg.inv(camera)
    if shifts is not None:
        moves = np.tile(np.eye(3), (len(vectors), 1, 1))
        moves[:, :2, 2] = np.asarray(shifts, dtype=np.float64)[:, ::-1]
        homographies = moves @ homographies
    return np.asarray(homographies)


def homography_paths(homographies: ArrayLike, places: ArrayLike) -> Path:
    """Return how far (T, 3, 3) homographies move (N, 2) places: (N, T, 2), all (row, column) in pixels."""
    matrices = np.asarray(homographies, dtype=np.float64)
    if matrices.ndim != 3 or matrices.shape[1:] != (3, 3):
        raise KernelError(f"homographies have the shape {matrices.shape}; expected (poses, 3, 3)")
    spots = np.asarray(places, dtype=np.float64)
    points = np.stack([spots[:, 1], spots[:, 0], np.ones(len(spots))])
    moved = matrices @ points  # (T, 3, N): x, y, w
    if (moved[:, 2] <= 0).any():
        raise KernelError("a pose turns part of the image behind the camera; use smaller rotations")
    moved = moved[:, :2] / moved[:, 2:]
    return np.ascontiguousarray((moved[:, ::-1] - spots.T[None]).transpose(2, 0, 1))


def camera_motion_field(
    homographies: ArrayLike,
    height: int,
    width: int,
    *,
    grid: tuple[int, int] = (3, 3),
    centred: bool = True,
    size: int | None = None,
    largest: int | None = None,
) -> tuple[Kernel, Masks]:
    """Turn camera poses into basis kernels on a grid of places and bilinear masks.

    A camera that passes through the homographies H_t (rotations, in the plane or about all three axes, or any
    projective motion) during the exposure gives v(i) = mean_t u(H_t i). That is Eq. 1 with the kernel
    k_i(p) = mean_t [p = H_t i − i]. The field is smooth in i, so it is drawn at the nodes of a grid and
    interpolated in between: Eq. 2 with B = grid nodes.

    Args:
        homographies: (T, 3, 3) acting on (column, row, 1), at equal times (`camera_homographies`); between
            them the motion is taken as straight.
        height: H in pixels.
        width: W in pixels.
        grid: nodes along (rows, columns), each ≥ 1; spread evenly from edge to edge.
        centred: remove each node's mean path, so that v is not shifted against u. Without it the field is
            the plain average of the warped images.
        size: K, odd; the smallest that holds every path where None.
        largest: shrink all paths together until they fit into this size; nothing is shrunk where None.

    Returns:
        kernels (B, K, K) and masks (B, H, W), float32; B = grid rows × grid columns, row by row.

    Raises:
        KernelError: a path does not fit into `size`, or the homographies are none.
    """
    if min(grid) < 1:
        raise KernelError(f"the grid is {grid}; expected at least one node along each side")
    rows, columns = _nodes(grid[0], height), _nodes(grid[1], width)
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    paths = homography_paths(homographies, places)
    if centred:
        paths = paths - _mean_over_time(paths)
    if largest is not None:
        paths = fit_path(paths, largest)
    kernels = draw_paths(paths, size=path_size(paths) if size is None else size, centred=False)
    return kernels, grid_masks(rows, columns, height, width)


def _mean_over_time(paths: Path) -> Path:
    """Return the mean of (N, T, 2) paths over time, (N, 1, 2), with the ends counted half (trapezoid)."""
    if paths.shape[1] == 1:
        return paths
    return np.asarray(0.5 * (paths[:, :-1] + paths[:, 1:]).mean(axis=1, keepdims=True))


def _nodes(count: int, pixels: int) -> NDArray[np.float64]:
    """Return evenly spread node positions from edge to edge, or the middle for one node."""
    return np.linspace(0.0, pixels - 1.0, count) if count > 1 else np.array([(pixels - 1) / 2])


def quantised_masks(masks: Masks) -> NDArray[np.uint8]:
    """Return (B, H, W) masks in units of 1/255 that sum to exactly 255 at each pixel.

    Differences of the rounded cumulative sum over b: each value is less than one unit off, a zero stays zero.
    """
    units = np.empty(masks.shape, dtype=np.uint8)
    total = np.zeros(masks.shape[1:], dtype=np.float32)
    before = np.zeros(masks.shape[1:], dtype=np.uint8)
    for index, mask in enumerate(masks[:-1]):
        total += np.float32(255.0) * mask
        steps = np.minimum(np.rint(total), 255.0).astype(np.uint8)
        np.subtract(steps, before, out=units[index])
        before = steps
    np.subtract(np.uint8(255), before, out=units[-1])
    return units


def check_masks(masks: ArrayLike, *, tolerance: float = 1e-4) -> Masks:
    """Return masks as (B, H, W) float32 after checking that they lie on the simplex at each pixel.

    Raises:
        KernelError: names what was found and what was expected.
    """
    stack = np.asarray(masks)
    if stack.ndim != 3 or not np.issubdtype(stack.dtype, np.number):
        raise KernelError(f"masks are {stack.dtype} of shape {stack.shape}; expected numbers, (B, H, W)")
    stack = stack.astype(np.float32, copy=False)
    if not np.isfinite(stack).all() or stack.min(initial=0.0) < 0:
        raise KernelError("masks hold negative, infinite or undefined values; expected 0 to 1")
    worst = float(np.abs(stack.sum(axis=0) - 1.0).max(initial=0.0))
    if worst > tolerance:
        raise KernelError(f"the masks' sum at a pixel is {worst:.3g} away from one; divide them by their sum")
    return stack


def _check_shape(bases: int, height: int, width: int) -> None:
    """Refuse empty masks."""
    if min(bases, height, width) < 1:
        raise KernelError(f"{bases} masks of {height}×{width} pixels; each number must be at least one")

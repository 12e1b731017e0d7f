"""Deblur one picture: a path, a Photo, an array or a tensor, back as the same."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unsmear.errors import ModelError, UnreadablePhoto
from unsmear.models.by_kernels import ESTIMATE_PIXELS, FAST_PIXELS, FILLER, WITNESS, Deblurrer
from unsmear.models.checkpoints import load_checkpoint
from unsmear.models.restoring import Precision, find_device, image_channels
from unsmear.models.tiling import STATISTICS, Pixels, Statistics, TensorPixels, TiledRestorer
from unsmear.photo import Photo, read_photo

DEFAULT_MODEL = "guided-s"
"""The network of the package that restores by default."""

By = Literal["auto", "network", "kernels"]
"""What restores: a network, the kernels that are estimated from the photo, or both; see `deblur`."""

T = TypeVar("T", Photo, Tensor, NDArray[Any])


class Restorer(Protocol):
    """What restores photos of any size."""

    def restore(self, source: Pixels, target: Pixels, *, progress: Callable[[float], None] = ...) -> None:
        """Restore `source` into `target`, which has its size; the parts given to `progress` sum to 1."""


class _Options(TypedDict, total=False):
    """The keyword arguments of `deblur`, for type checkers."""

    model: str | Path | nn.Module
    device: str
    precision: Precision
    statistics: Statistics
    tile: int | None
    by: By
    fast: bool


@overload
def deblur(picture: T, **options: Unpack[_Options]) -> T: ...
@overload
def deblur(picture: str | os.PathLike[str], **options: Unpack[_Options]) -> Photo: ...
def deblur(
    picture: Any,
    *,
    model: str | Path | nn.Module = DEFAULT_MODEL,
    device: str = "auto",
    precision: Precision = "auto",
    statistics: Statistics = STATISTICS,
    tile: int | None = None,
    by: By = "auto",
    fast: bool = False,
) -> Any:
    """Take the motion blur out of a picture. What is given is left as it is.

    Args:
        picture: a file's path; a Photo; an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or of floats in
            [0, 1], the last of 2 or 4 channels being alpha; a tensor (3, H, W) or (N, 3, H, W) of floats in
            [0, 1]. Values are sRGB; any size from 1×1 on.
        model: a network with weights in the package, a checkpoint file, or a network (it is put into
            evaluation mode).
        device: "cpu", "cuda", …; "auto" takes a GPU if there is one. A network stays where it is.
        precision: type of the large products, see `unsmear.models.restoring.Precision`.
        statistics: of the low-rank module where several tiles are needed, see `unsmear.models.tiling`.
        tile: side in pixels of the largest tile; by the memory at hand if not given.
        by: "network" has a network restore by itself; "kernels" estimates the blur kernels and undoes them by
            total variation (the guided network in the package says how far to believe them, and `model` is
            left aside); "auto" restores by kernels and a guided network where that is one, as the one in the
            package, and by `nafnet-s` what kernels do not explain; other networks restore by themselves.
        fast: look for one blur in all of the photo, not also for those of its parts, and at half a megapixel
            instead of one, and have `nafnet-s` restore only where it is not believed at all. A network that
            restores by itself is as fast without.

    Returns:
        the restored picture: a Photo for a path, otherwise what was given, with its type, shape, alpha and
        metadata.

    Raises:
        ModelError: no such network or device, or a guided network is to restore without kernels.
        UnreadablePhoto: the file is no photograph, or the array no picture.
        ValueError: floats outside of [0, 1], or a tensor of another shape.
    """
    restorer = make_restorer(
        model, device=device, precision=precision, statistics=statistics, tile=tile, by=by, fast=fast
    )
    if isinstance(picture, (str, os.PathLike)):
        picture = read_photo(picture)
    if isinstance(picture, Photo):
        return _restored_photo(restorer, picture)
    if isinstance(picture, Tensor):
        return _restored_tensor(restorer, picture)
    if isinstance(picture, np.ndarray):
        return _restored_array(restorer, picture)
    raise TypeError(f"expected a path, a Photo, a tensor or an array, got {type(picture).__name__}")


def make_restorer(
    model: str | Path | nn.Module = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    statistics: Statistics = STATISTICS,
    tile: int | None = None,
    by: By = "auto",
    fast: bool = False,
) -> Restorer:
    """Return what restores, for the arguments of `deblur`. Raises ModelError."""
    if by == "kernels":  # the network in the package says how far to believe them
        model = DEFAULT_MODEL
    place = find_device(device)
    if isinstance(model, nn.Module):
        network = model.eval() if device == "auto" else model.eval().to(place)
    else:
        path = Path(model)
        network = _loaded(str(model), str(place), path.stat().st_mtime_ns if path.is_file() else 0)
    tiled = TiledRestorer(network, precision=precision, statistics=statistics, tile=tile)
    guided = image_channels(network) > 3
    if guided and by == "network":
        raise ModelError(
            f"{model if isinstance(model, (str, Path)) else type(model).__name__}: a guided network restores "
            "by kernels as well; leave --by out, or name another network, such as --model sglrn-t"
        )
    if not guided:
        return tiled
    where = str(next(network.parameters()).device)

    def shipped(name: str) -> TiledRestorer:
        return TiledRestorer(_loaded(name, where, 0), precision=precision, tile=tile)

    return Deblurrer(
        tiled,
        by_network=by == "auto",
        areas=not fast,
        witness=shipped(WITNESS) if by == "auto" else None,
        filler=shipped(FILLER) if by == "auto" else None,
        mix=not fast,
        pixels=FAST_PIXELS if fast else ESTIMATE_PIXELS,
        tile=tile,
    )


@functools.lru_cache(maxsize=4)
def _loaded(model: str, device: str, changed: int) -> nn.Module:
    """Load a network once for many calls; `changed` is the time of its file."""
    return load_checkpoint(model).to(torch.device(device))


def _restored_photo(restorer: Restorer, photo: Photo) -> Photo:
    result = photo.blank_like()
    restorer.restore(photo, result)
    return result


def _restored_tensor(restorer: Restorer, images: Tensor) -> Tensor:
    if images.ndim not in (3, 4) or images.shape[-3] != 3 or 0 in images.shape:
        raise ValueError(f"expected a tensor (3, H, W) or (N, 3, H, W), got {tuple(images.shape)}")
    if images.isnan().any():
        raise ValueError("the picture holds NaN (not a number); expected floats in [0, 1]")
    if not images.is_floating_point() or not 0 <= images.min() <= images.max() <= 1:
        raise ValueError("expected a tensor of floats in [0, 1]; divide 8-bit values by 255")
    images = images.detach()
    result = torch.empty_like(images)
    for image, place in zip(
        images.reshape(-1, *images.shape[-3:]), result.view(-1, *images.shape[-3:]), strict=True
    ):
        restorer.restore(TensorPixels(image), TensorPixels(place))
    return result


def _restored_array(restorer: Restorer, array: NDArray[Any]) -> NDArray[Any]:
    pixels = array[..., None] if array.ndim == 2 else array
    kinds = array.dtype.kind == "f" or array.dtype in (np.uint8, np.uint16)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape or not kinds:
        hint = ""
        if kinds and array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise UnreadablePhoto(
            "expected an array (H, W) or (H, W, 1 to 4) of uint8, uint16 or floats in [0, 1], "
            f"got {array.shape} of {array.dtype}{hint}"
        )
    if array.dtype.kind != "f":
        return _restored_photo(restorer, Photo(pixels=pixels)).pixels.reshape(array.shape)
    if not np.isnan(array).any() and not 0 <= array.min() <= array.max() <= 1:
        raise ValueError(
            f"expected an array of floats in [0, 1], got {array.min():.4g} to {array.max():.4g}; "
            "divide 8-bit values by 255"
        )
    colours = 1 if pixels.shape[2] < 3 else 3
    channels = torch.from_numpy(np.ascontiguousarray(pixels[..., :colours].transpose(2, 0, 1)))
    restored = _restored_tensor(restorer, channels.expand(3, -1, -1).contiguous())
    result = array.copy()
    if colours == 1:
        restored = restored.mean(0, keepdim=True)
    result.reshape(pixels.shape)[..., :colours] = restored.permute(1, 2, 0).numpy()
    return result

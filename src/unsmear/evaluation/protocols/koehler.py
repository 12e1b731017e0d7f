"""Köhler 2012: the best of all true frames; and the same with one frame, another figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from unsmear.errors import EvaluationError, UnreadablePhoto
from unsmear.evaluation.benchmarks.base import Case
from unsmear.evaluation.protocols.base import Metric, Protocol, one_truth, to_levels
from unsmear.metrics import best_frame
from unsmear.photo import read_photo


class Koehler(Protocol):
    """Gain, whole-pixel shift, luma, best frame (see `unsmear.metrics.koehler`)."""

    name = "koehler"
    title = "best of all true frames after gain and shift, luma, 8 bit"
    metrics = (Metric("psnr_koehler", "dB"), Metric("mssim_koehler"))

    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """PSNR and MSSIM, each of the frame that suits it best."""
        frames = read_frames(case)
        best = best_frame(to_levels(restored), frames)
        return {"psnr_koehler": best.psnr, "mssim_koehler": best.mssim}

    def manner(self) -> list[str]:
        """Rounding, gain, shift, frames."""
        return [*super().manner(), "after gain and whole-pixel shift", "best of all frames"]


class KoehlerPreview(Protocol):
    """The same against one frame, whatever trajectory it is of: for comparing models with each other only."""

    name = "koehler_preview"
    title = "one preview frame after gain and shift, luma, 8 bit; not comparable with published figures"
    metrics = (Metric("psnr_koehler_one_frame", "dB"), Metric("mssim_koehler_one_frame"))

    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """PSNR and MSSIM."""
        one_truth(self, case)
        best = best_frame(to_levels(restored), read_frames(case))
        return {"psnr_koehler_one_frame": best.psnr, "mssim_koehler_one_frame": best.mssim}

    def manner(self) -> list[str]:
        """Rounding, gain, shift, the one frame."""
        return [*super().manner(), "after gain and whole-pixel shift", "ONE frame, not the official ~199"]


class FrameFiles(Sequence[Tensor]):
    """True frames (3,H,W) uint8, read when they are asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __len__(self) -> int:
        """How many frames there are."""
        return len(self._files)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> "FrameFiles": ...
    def __getitem__(self, place: int | slice) -> "Tensor | FrameFiles":
        """One frame; EvaluationError names the file that cannot be read."""
        if isinstance(place, slice):
            return FrameFiles(self._files[place])
        try:
            photo = read_photo(self._files[place])
        except UnreadablePhoto as error:
            raise EvaluationError(f"{str(error).rstrip('.')}; unpack the archive again.") from error
        if photo.bit_depth != 8 or photo.is_grey:
            raise EvaluationError(
                f"{self._files[place]} has {photo.bit_depth} bit{' grey' if photo.is_grey else ''}; "
                "expected RGB of 8 bit."
            )
        return torch.from_numpy(np.ascontiguousarray(photo.pixels[..., :3].transpose(2, 0, 1)))


def read_frames(case: Case) -> Sequence[Tensor]:
    """The true frames of a case, from pictures or from a .mat file."""
    if len(case.truth) == 1 and case.truth[0].suffix.lower() == ".mat":
        return _read_mat(case)
    if not case.truth:
        raise EvaluationError(f"{case.name} has no true frames.")
    return FrameFiles(case.truth)


def _read_mat(case: Case) -> list[Tensor]:
    """The variable GroundTruth (H,W,3,N) uint8 of a MATLAB file of version 5 to 7."""
    from unsmear.evaluation.benchmarks.koehler import used_frames

    path = case.truth[0]
    try:
        from scipy.io import loadmat, matlab
    except ModuleNotFoundError as error:
        raise EvaluationError(f"{path} needs SciPy: pip install 'unsmear[evaluation]'.") from error
    try:
        found = loadmat(path, variable_names=["GroundTruth"])
    except NotImplementedError as error:
        raise EvaluationError(
            f"{path} is of MATLAB version 7.3 (HDF5); expected version 7 or older: save it again with -v7, "
            "or unpack the PNG archives of the benchmark."
        ) from error
    except (OSError, ValueError, TypeError, EOFError, matlab.MatReadError) as error:
        raise EvaluationError(f"Cannot read {path} as a MATLAB file: {error}; download it again.") from error
    array = found.get("GroundTruth")
    if array is None or array.ndim != 4 or array.shape[2] != 3 or array.dtype != np.uint8:
        what = "no such variable" if array is None else f"{array.shape} {array.dtype}"
        raise EvaluationError(f"{path} holds {what}; expected GroundTruth, (height, width, 3, N) uint8.")
    image, trajectory = map(int, case.name.removeprefix("Blurry").split("_"))
    used = [number - 1 for number in used_frames(image, trajectory) if number <= array.shape[3]]
    return [torch.from_numpy(np.ascontiguousarray(array[..., place].transpose(2, 0, 1))) for place in used]

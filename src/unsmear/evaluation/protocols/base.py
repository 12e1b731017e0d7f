"""What a protocol is: named figures of one restored picture against the truth of its case."""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Case, read_picture, same_size


@dataclass(frozen=True)
class Metric:
    """A figure of a protocol: its exact name, its unit ("dB" or ""), and whether more of it is better."""

    name: str
    unit: str = ""
    higher_is_better: bool = True


class Protocol(ABC):
    """How one restored picture is scored. A subclass with these facts and `score` is a protocol.

    name: what `find_protocol` and the command line call it.
    version: counts up whenever a figure changes; part of the keys of caches.
    metrics: the figures of `score`, in the order of tables.
    eight_bit: whether the restored picture is rounded to 8 bit first, as a file would be.
    """

    name: str
    metrics: tuple[Metric, ...]
    version: int = 1
    title: str = ""
    eight_bit: bool = True
    crop: int | None = None

    @abstractmethod
    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """The figures, by the names of `metrics`, of a restored picture (3,H,W) in [0,1] sRGB.

        Raises EvaluationError where the truth is missing, cannot be read, or has another size.
        """

    def settings(self) -> dict[str, Any]:
        """What a summary says about it, as JSON can hold it."""
        return {"name": self.name, "version": self.version, "eight_bit": self.eight_bit}

    def manner(self) -> list[str]:
        """In words, what a table says beside the metric."""
        return ["rounded to 8 bit" if self.eight_bit else "not rounded"]


class PictureProtocol(Protocol):
    """A protocol for one truth of the same size: a subclass has `compare`."""

    @abstractmethod
    def compare(self, restored: Tensor, truth: Tensor) -> dict[str, float]:
        """The figures of two pictures (3,H,W) in [0,1]; `restored` is rounded already, if it shall be."""

    def score(self, restored: Tensor, case: Case) -> dict[str, float]:
        """Read the truth, round the restored picture, compare."""
        truth = read_picture(one_truth(self, case))
        same_size(case, restored, truth)
        return self.compare(round_to_8_bit(restored) if self.eight_bit else restored, truth)


def with_crop(protocol: Protocol, crop: int | None) -> Protocol:
    """The protocol for the middle crop×crop pixels; EvaluationError where its truth is not one picture."""
    if crop is None:
        return protocol
    if crop < 1:
        raise EvaluationError(f"crop is {crop}; expected a side in pixels, from 1 up.")
    if not isinstance(protocol, PictureProtocol):
        raise EvaluationError(f"The protocol {protocol.name} scores whole pictures: leave crop out.")
    changed = copy.copy(protocol)
    object.__setattr__(changed, "crop", crop)
    return changed


def one_truth(protocol: Protocol, case: Case) -> Any:
    """The only true picture of a case; EvaluationError if it has none, or many."""
    if len(case.truth) != 1:
        raise EvaluationError(
            f"{case.name} has {len(case.truth) or 'no'} true pictures; the protocol {protocol.name} "
            "wants one."
        )
    return case.truth[0]


def round_to_8_bit(picture: Tensor) -> Tensor:
    """The values a file of 8 bit would have: clamped to [0,1], the nearest of 256 levels."""
    return (picture.clamp(0, 1) * 255).round() / 255


def to_levels(picture: Tensor) -> Tensor:
    """The same as uint8 levels (3,H,W)."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)

"""Scoring: layouts (which pictures) → restorers (what restores them) → protocols (how compared) → scoring."""

from unsmear.evaluation.layouts import Failure, PairFiles, PairList, find_pairs
from unsmear.evaluation.protocols import Align, Protocol
from unsmear.evaluation.scoring import Evaluation, ImageScore, check_writable, evaluate

__all__ = [
    "Align",
    "Evaluation",
    "Failure",
    "ImageScore",
    "PairFiles",
    "PairList",
    "Protocol",
    "check_writable",
    "evaluate",
    "find_pairs",
]

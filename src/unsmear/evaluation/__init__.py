"""Scoring: layouts and benchmarks (which pictures) → restorers (what restores them) → protocols → scoring."""

from unsmear.evaluation.benchmarks import BENCHMARKS, Benchmark, Case, find_benchmark
from unsmear.evaluation.layouts import Failure, PairFiles, PairList, find_pairs
from unsmear.evaluation.protocols import (
    PROTOCOLS,
    Align,
    Comparison,
    Metric,
    PictureProtocol,
    Protocol,
    find_protocol,
)
from unsmear.evaluation.scoring import Evaluation, ImageScore, check_writable, evaluate

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "Align",
    "Benchmark",
    "Case",
    "Comparison",
    "Evaluation",
    "Failure",
    "ImageScore",
    "Metric",
    "PairFiles",
    "PairList",
    "PictureProtocol",
    "Protocol",
    "check_writable",
    "evaluate",
    "find_benchmark",
    "find_pairs",
    "find_protocol",
]

"""From scores of single pictures to means with intervals, and to paired differences between methods."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from unsmear.evaluation.protocols import Protocol
from unsmear.evaluation.tables.running import Result, Results, TestSet
from unsmear.evaluation.tables.statistics import bootstrap_interval, sign_flip_test


@dataclass(frozen=True)
class Summary:
    """The mean of one metric of one method on one benchmark.

    count: pictures in the mean; total: pictures that there are.
    infinite: pictures left out of the mean because their figure is not finite (the truth itself was given).
    low, high: 95 % interval by drawing pictures; group_low, group_high: by drawing groups (nan: none).
    """

    method: str
    benchmark: str
    protocol: str
    metric: str
    count: int
    total: int
    infinite: int
    groups: int
    mean: float
    median: float
    low: float
    high: float
    group_low: float
    group_high: float


@dataclass(frozen=True)
class Difference:
    """The mean difference of two methods on the pictures that both have; `method` less `against`.

    wins: part of the pictures on which `method` is better (half of those on which both are equal).
    p, group_p: sign-flip tests over pictures and over groups; not corrected for the number of comparisons.
    """

    method: str
    against: str
    benchmark: str
    protocol: str
    metric: str
    count: int
    groups: int
    mean: float
    low: float
    high: float
    p: float
    group_low: float
    group_high: float
    group_p: float
    wins: float


def values_of(results: Sequence[Result], protocol: str, metric: str) -> dict[str, float]:
    """The figure of each case that has it."""
    return {
        result.case.name: result.scores[protocol][metric]
        for result in results
        if metric in result.scores.get(protocol, {})
    }


def summarise(results: Results, method: str, one: TestSet, protocol: Protocol, metric: str) -> Summary:
    """Mean, median and intervals; nan where no picture has a finite figure."""
    found = values_of(results.of(method, one.benchmark.name), protocol.name, metric)
    groups = _groups(one)
    finite = {name: value for name, value in found.items() if math.isfinite(value)}
    values = list(finite.values())
    members = [groups[name] for name in finite]
    nothing = float("nan"), float("nan")
    low, high = bootstrap_interval(values) if values else nothing
    wide = bootstrap_interval(values, groups=members) if _grouped(members) else nothing
    return Summary(
        method, one.benchmark.name, protocol.name, metric, len(values), len(one.cases),
        len(found) - len(finite), len(set(members)), statistics.fmean(values or [math.nan]),
        statistics.median(values or [math.nan]), low, high, *wide,
    )  # fmt: skip


def compare(
    results: Results,
    method: str,
    against: str,
    one: TestSet,
    protocol: Protocol,
    metric: str,
    *,
    better: int = 1,
) -> Difference | None:
    """The paired difference; None where no picture has a finite figure of both.

    better: +1 if larger figures are better, −1 if smaller ones are.
    """
    name = one.benchmark.name
    first = values_of(results.of(method, name), protocol.name, metric)
    second = values_of(results.of(against, name), protocol.name, metric)
    both = [
        case
        for case, value in first.items()
        if math.isfinite(value) and math.isfinite(second.get(case, math.nan))
    ]
    if not both:
        return None
    groups = _groups(one)
    values, members = [first[case] - second[case] for case in both], [groups[case] for case in both]
    grouped = _grouped(members)
    wide = bootstrap_interval(values, groups=members) if grouped else (math.nan, math.nan)
    wins = sum(0.5 + 0.5 * math.copysign(1, value * better) if value else 0.5 for value in values)
    return Difference(
        method, against, name, protocol.name, metric, len(both), len(set(members)), statistics.fmean(values),
        *bootstrap_interval(values), sign_flip_test(values),
        *wide, sign_flip_test(values, groups=members) if grouped else math.nan, wins / len(both),
    )  # fmt: skip


def _groups(one: TestSet) -> dict[str, str]:
    return {case.name: str(case.group) for case in one.cases}


def _grouped(members: Sequence[str]) -> bool:
    """Whether there are groups at all: more than one, and not one for each picture."""
    return 1 < len(set(members)) < len(members)

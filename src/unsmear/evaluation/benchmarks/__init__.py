"""The public benchmarks, each read from its download as it lies.

    find_benchmark("gopro").cases("GOPRO_Large", blurred="blur")    a list of `Case`
    find_protocol(find_benchmark("gopro").protocol)                 how its published figures are made

A benchmark is a class with a few facts and one function, `cases`; an instance of a class of your own is taken
wherever a name is.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks.base import Benchmark, Case, Survey
from unsmear.evaluation.benchmarks.folders import Levin, Pairs, Photos
from unsmear.evaluation.benchmarks.gopro import GoPro
from unsmear.evaluation.benchmarks.koehler import Koehler, KoehlerPreview
from unsmear.evaluation.benchmarks.lai import LaiNonuniform, LaiReal, LaiUniform
from unsmear.evaluation.benchmarks.lists import RealBlurJ, RealBlurR, RSBlur
from unsmear.evaluation.benchmarks.video import Hide, Reds

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        GoPro(),
        Koehler(),
        KoehlerPreview(),
        LaiUniform(),
        LaiNonuniform(),
        LaiReal(),
        RealBlurJ(),
        RealBlurR(),
        Hide(),
        Reds(),
        RSBlur(),
        Levin(),
        Pairs(),
        Photos(),
    )
}

__all__ = ["BENCHMARKS", "Benchmark", "Case", "Survey", "find_benchmark"]


def find_benchmark(name: str | Benchmark) -> Benchmark:
    """The benchmark of that name, or the one that is given. EvaluationError has the nearest names."""
    if isinstance(name, Benchmark):
        return name
    if name not in BENCHMARKS:
        if Path(name).exists():
            raise EvaluationError(f"{name} is a path; expected a benchmark, one of {', '.join(BENCHMARKS)}.")
        near = difflib.get_close_matches(name, BENCHMARKS, n=3, cutoff=0.3) or list(BENCHMARKS)
        raise EvaluationError(f"no benchmark is called {name!r}; did you mean {' or '.join(near)}?")
    return BENCHMARKS[name]

"""What `unsmear datasets` says: where a benchmark is to be had, how it lies on a disk, what is at a path."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks import BENCHMARKS, find_benchmark
from unsmear.evaluation.benchmarks.base import Benchmark, Case, read_picture, same_size


def list_benchmarks() -> str:
    """One line a benchmark: name, cases, protocol, licence, title."""
    rows = [("name", "cases", "protocol", "licence", "")]
    for benchmark in BENCHMARKS.values():
        count = "" if benchmark.count is None else str(benchmark.count)
        rows.append((benchmark.name, count, benchmark.protocol, benchmark.licence, benchmark.title))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", "unsmear datasets NAME [PATH] says more, and what is at a path."])


def describe(name: str | Benchmark) -> str:
    """Where it is to be had, its licence, its layout, its protocol, what can be chosen."""
    benchmark = find_benchmark(name)
    layout = "\n".join(f"    {line.strip()}" for line in benchmark.layout.strip().splitlines())
    facts = {
        "from": benchmark.homepage or "anywhere",
        "licence": benchmark.licence,
        "cases": "any number" if benchmark.count is None else str(benchmark.count),
        "protocol": benchmark.protocol,
        "choices": "; ".join(f"{key}={'|'.join(values) or '…'}" for key, values in benchmark.choices.items())
        or "none",
    }
    lines = [f"  {key:<9} {value}" for key, value in facts.items()]
    return "\n".join([f"{benchmark.name}: {benchmark.title}", *lines, "  layout", layout])


def look(
    name: str | Benchmark,
    path: str | Path,
    *,
    choices: Mapping[str, str] | None = None,
    read: bool = False,
    progress: bool = False,
) -> tuple[str, bool]:
    """What is at a path, in words, and whether it can be scored as it is; read=True reads every picture."""
    benchmark = find_benchmark(name)
    survey = benchmark.survey(path, **(choices or {}))
    if survey.error:
        return survey.error, False
    of_all = "" if survey.expected is None else f" of {survey.expected}"
    lines = [f"{path}: {survey.found}{of_all} cases of {benchmark.title}, scored by {benchmark.protocol}"]
    lines += [f"  missing: {what}" for what in survey.missing]
    broken: list[str] = []
    if read:
        cases = benchmark.cases(path, **(choices or {}))
        bar = tqdm(cases, desc="reading", unit="case", disable=None if progress else True)
        broken = [fault for case in bar for fault in _faults(case)]
        lines += [f"  broken: {fault}" for fault in broken] or ["  every picture can be read"]
    return "\n".join(lines), not broken


def parse_choices(texts: Sequence[str]) -> dict[str, str]:
    """["blurred=blur"] -> {"blurred": "blur"}; EvaluationError for a text without "="."""
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, parts in zip(texts, pairs, strict=True) if not all(parts)]:
        raise EvaluationError(f"{wrong[0]!r} is no choice; expected KEY=VALUE, such as blurred=blur.")
    return {key: value for key, _, value in pairs}


def _faults(case: Case) -> list[str]:
    """What is wrong with the pictures of a case."""
    faults = []
    try:
        blurred = read_picture(case.blurred)
    except EvaluationError as error:
        return [str(error)]
    for path in case.truth:
        try:
            if path.suffix.lower() == ".mat":
                from unsmear.evaluation.protocols.koehler import read_frames

                for frame in read_frames(case):
                    same_size(case, blurred, frame, path)
            else:
                same_size(case, blurred, read_picture(path), path)
        except EvaluationError as error:
            faults.append(str(error))
    return faults

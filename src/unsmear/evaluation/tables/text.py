"""Tables as Markdown and CSV, and the record of where every figure comes from, as JSON."""

import csv
import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import unsmear
from unsmear.evaluation import paper_figures
from unsmear.evaluation.tables.layout import Figures, Table
from unsmear.evaluation.tables.running import Results, TestSet


def markdown(tables: Sequence[Table]) -> str:
    """Each table with its heading and notes; figures of the paper in italics under “paper:”."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def _markdown(table: Table) -> str:
    heads = []
    for column in table.columns:
        prefix = {"paper": "paper: ", "measured": "", "name": ""}[column.origin]
        group = f"{column.group}: " if column.group and column.origin == "measured" else ""
        heads.append(_escaped(f"{prefix}{group}{column.title}"))
    lines = [f"## {table.title}", "", _line(heads)]
    lines.append(_line(["---" if column.origin == "name" else "---:" for column in table.columns]))
    for row in table.rows:
        cells = []
        for cell, column in zip(row, table.columns, strict=True):
            text = _escaped(f"{cell.text} {cell.detail}".strip())
            cells.append(f"*{text}*" if column.origin == "paper" and text != "—" else text)
        lines.append(_line(cells))
    if table.notes:
        lines += ["", *(f"- {_escaped(note)}" for note in table.notes)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    for sign in "\\|*<`":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def figures_csv(figures: Figures) -> str:
    """One row for each figure: measured ones with interval and hashes, the paper's with origin “paper”."""
    head = (
        "origin", "table", "method", "benchmark", "protocol", "version", "metric", "unit",
        "mean", "low", "high", "group_low", "group_high", "median",
        "pictures", "of", "infinite", "groups", "restored_sha256", "data_sha256",
    )  # fmt: skip
    rows: list[Sequence[object]] = []
    data = {one.benchmark.name: data_sha256(figures.results, one) for one in figures.results.sets}
    for column in figures.columns:
        for method in figures.results.methods:
            found = figures.summaries[method.label, *column.key]
            rows.append((
                "measured", "", method.label, *column.key[:2], column.protocol.version, column.metric.name,
                column.metric.unit, *map(_number, (found.mean, found.low, found.high, found.group_low,
                found.group_high, found.median)), found.count, found.total, found.infinite, found.groups,
                restored_sha256(figures.results, method.label, column.one), data[column.one.benchmark.name],
            ))  # fmt: skip
    for printed in paper_figures.TABLES:
        for row in printed.rows:
            for kind, unit in (("psnr", "dB"), ("ssim", "")):
                for benchmark in printed.benchmarks:
                    figure = printed.figure(row, benchmark, kind)
                    rows.append(
                        ("paper", f"Tab. {printed.number}", row, benchmark, "", "", kind, unit, figure)
                        + ("",) * 11
                    )
    return _csv(head, rows)


def scores_csv(results: Results) -> str:
    """One row for each method, picture and metric."""
    head = (
        "benchmark", "case", "group", "method", "protocol", "metric", "value",
        "seconds", "processor_seconds", "restored_sha256", "blurred",
    )  # fmt: skip
    rows = [
        (one.benchmark.name, result.case.name, result.case.group, method.label, protocol, metric,
         *map(_number, (value, result.seconds, result.processor)), result.sha256, str(result.case.blurred))
        for one in results.sets
        for method in results.methods
        for result in results.of(method.label, one.benchmark.name)
        for protocol, scores in result.scores.items()
        for metric, value in scores.items()
    ]  # fmt: skip
    return _csv(head, rows)


def differences_csv(figures: Figures) -> str:
    """One row for each pair of methods, benchmark, protocol and metric."""
    found = [
        figures.difference(method, against, column)
        for column in figures.columns
        for method, against in figures.pairs()
    ]
    rows = [
        [_number(value) if isinstance(value, float) else value for value in asdict(one).values()]
        for one in found
        if one is not None
    ]
    head = (
        "method", "against", "benchmark", "protocol", "metric", "pictures", "groups",
        "mean", "low", "high", "p", "group_low", "group_high", "group_p", "better_on",
    )  # fmt: skip
    return _csv(head, rows)


def origins(results: Results) -> dict[str, Any]:
    """Methods, data, protocols and how time was taken, as JSON can hold it."""
    return {
        "format": "unsmear tables 1",
        "unsmear": unsmear.__version__,
        "methods": [
            {
                "label": method.label,
                "source": method.source,
                "kind": method.kind,
                **method.about,
                "restored_sha256": {
                    one.benchmark.name: restored_sha256(results, method.label, one) for one in results.sets
                },
            }
            for method in results.methods
        ],
        "benchmarks": [
            {
                "name": one.benchmark.name,
                "title": one.benchmark.title,
                "licence": one.benchmark.licence,
                "homepage": one.benchmark.homepage,
                "root": str(one.root),
                "choice": one.choice,
                "cases": len(one.cases),
                "full": one.benchmark.count,
                "missing": list(one.benchmark.missing(one.cases)),
                "sha256": data_sha256(results, one),
                "protocols": [
                    {"title": protocol.title, "how": protocol.manner(), **protocol.settings()}
                    for protocol in one.protocols
                ],
            }
            for one in results.sets
        ],
        "timing": results.timing,
        "failures": [asdict(failure) for failure in results.failures],
    }


def data_sha256(results: Results, one: TestSet) -> str:
    """Hash of the names of the cases and of all their files; files that cannot be read count as such."""
    digest = hashlib.sha256()
    for case in one.cases:
        files = [results.digests.get(file, "unreadable") for file in (case.blurred, *case.truth)]
        digest.update(f"{case.name} {' '.join(files)}\n".encode())
    return digest.hexdigest()


def restored_sha256(results: Results, method: str, one: TestSet) -> str:
    """Hash of all pictures of a method that were scored on a benchmark."""
    digest = hashlib.sha256()
    for result in results.of(method, one.benchmark.name):
        digest.update(f"{result.case.name} {result.sha256}\n".encode())
    return digest.hexdigest()


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6f}"


def _csv(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()

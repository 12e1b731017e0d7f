"""The paper's Tables 1, 2, 3 and what they lack: measured figures, and beside them, marked, the paper's.

A `Table` is text in cells with headings; `text.py` writes it as Markdown, `page.py` as HTML.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from unsmear.evaluation import paper_figures
from unsmear.evaluation.paper_figures import PaperTable
from unsmear.evaluation.protocols import Metric, Protocol
from unsmear.evaluation.tables.methods import Method
from unsmear.evaluation.tables.running import Results, TestSet
from unsmear.evaluation.tables.summaries import Difference, Summary, compare, summarise

Origin = Literal["name", "measured", "paper"]

FAMILIES = {
    "gopro": "GoPro",
    "koehler": "Köhler",
    "koehler-preview": "Köhler",
    "lai-uniform": "Lai",
    "lai-nonuniform": "Lai",
    "realblur-j": "RealBlur-J",
}
"""Which column of the paper's tables a benchmark stands beside."""

FEW = 20
"""Below so many pictures an interval is marked: it is too narrow (`bootstrap_interval`)."""

NOTHING = "—"


@dataclass(frozen=True)
class Column:
    """A column: its heading, what stands over several of them, and whose figures it holds."""

    title: str
    group: str = ""
    origin: Origin = "measured"


@dataclass(frozen=True)
class Cell:
    """Text, a second line (an interval), and where it comes from."""

    text: str = NOTHING
    detail: str = ""
    source: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `key` is its name in files and links."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredColumn:
    """One measured column."""

    one: TestSet
    protocol: Protocol
    metric: Metric

    @property
    def kind(self) -> str:
        """What the paper would call it: "psnr", "ssim", or "" for what its tables do not have."""
        return next((kind for kind in ("psnr", "ssim") if kind in self.metric.name), "")

    @property
    def key(self) -> tuple[str, str, str]:
        """The name of the benchmark, the protocol, the metric."""
        return self.one.benchmark.name, self.protocol.name, self.metric.name


class Figures:
    """All means and differences, computed once each."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.labels = [method.label for method in results.methods]
        self.columns = [
            MeasuredColumn(one, protocol, metric)
            for one in results.sets
            for protocol in one.protocols
            for metric in protocol.metrics
        ]
        self.summaries = {
            (label, *column.key): summarise(results, label, column.one, column.protocol, column.metric.name)
            for column in self.columns
            for label in self.labels
        }
        self._differences: dict[tuple[str, ...], Difference | None] = {}

    def difference(self, method: str, against: str, column: "MeasuredColumn") -> Difference | None:
        """The paired difference of two methods; None where they have no picture in common."""
        key = (method, against, *column.key)
        if key not in self._differences:
            better = 1 if column.metric.higher_is_better else -1
            self._differences[key] = compare(
                self.results, method, against, column.one, column.protocol, column.metric.name, better=better
            )
        return self._differences[key]

    def pairs(self) -> list[tuple[str, str]]:
        """All pairs (method, against); what does nothing is compared against, wherever it was named."""
        idle = {method.label for method in self.results.methods if method.kind == "input"}
        order = sorted(self.labels, key=lambda label: label not in idle)
        return [(later, earlier) for earlier, later in combinations(order, 2)]


def build_tables(figures: Figures) -> list[Table]:
    """The paper's tables for which something was measured, the other benchmarks, and all differences."""
    tables: list[Table] = []
    shown: set[tuple[str, str, str]] = set()
    for printed in paper_figures.TABLES:
        columns = [
            column
            for benchmark in printed.benchmarks
            for column in figures.columns
            if FAMILIES.get(column.one.benchmark.name) == benchmark and column.kind
        ]
        if columns:
            columns.sort(
                key=lambda column: column.kind != "psnr"
            )  # the paper has PSNR of all, then SSIM of all
            shown |= {column.key for column in columns}
            tables.append(_paper_table(figures, printed, columns))
            tables += _changes(figures, printed, columns)
    if rest := [column for column in figures.columns if column.key not in shown]:
        rows = [_measured_row(figures, method, method.label, rest) for method in figures.results.methods]
        tables.append(
            Table(
                "other",
                "What the paper does not report",
                _measured_columns(rest),
                tuple(rows),
                tuple(_notes(figures, rest)),
            )
        )
    return tables


def difference_tables(figures: Figures) -> list[Table]:
    """For each benchmark and protocol the paired differences of all methods."""
    tables = []
    for one in figures.results.sets:
        for protocol in one.protocols:
            columns = [
                column for column in figures.columns if column.one is one and column.protocol is protocol
            ]
            rows = [
                _difference_row(label, against, column, figures.difference(label, against, column))
                for column in columns
                for label, against in figures.pairs()
            ]
            names = ("method", "less", "metric")
            measured = ("mean difference", "p", "interval by groups", "p by groups", "better on", "n")
            tables.append(
                Table(
                    f"differences-{one.benchmark.name}-{protocol.name}",
                    f"{one.benchmark.title}, {protocol.name}: differences picture by picture",
                    (*(Column(title, origin="name") for title in names), *map(Column, measured)),
                    tuple(row for row in rows if row is not None),
                    _grouping(one),
                )
            )
    return [table for table in tables if table.rows]


def _paper_table(figures: Figures, printed: PaperTable, columns: Sequence["MeasuredColumn"]) -> Table:
    by_row = {method.label.casefold(): method for method in figures.results.methods}
    rows = []
    for name in printed.rows:
        method = by_row.pop(name.casefold(), None)
        cells = _measured_row(figures, method, name, columns)
        rows.append((*cells, *_printed_cells(printed, name)))
    blank = (Cell(),) * (2 * len(printed.benchmarks))
    rows += [(*_measured_row(figures, method, method.label, columns), *blank) for method in by_row.values()]
    headings = (*_measured_columns(columns), *_printed_columns(printed))
    notes = [*_notes(figures, columns), *(f"Paper: {text}" for _, text in printed.notes)]
    return Table(
        f"table-{printed.number}",
        f"Table {printed.number}: {printed.title}",
        headings,
        tuple(rows),
        tuple(notes),
    )


def _changes(figures: Figures, printed: PaperTable, columns: Sequence["MeasuredColumn"]) -> list[Table]:
    """What changes between the rows that the paper compares; nothing where none of them was measured."""
    by_row = {label.casefold(): label for label in figures.labels}
    rows, measured = [], False
    for before, after in printed.pairs:
        cells = [Cell(f"{before} → {after}")]
        pair = by_row.get(after.casefold()), by_row.get(before.casefold())
        for column in columns:
            found = figures.difference(pair[0], pair[1], column) if pair[0] and pair[1] else None
            measured |= found is not None
            cells.append(Cell() if found is None else _difference_cell(found, column))
        for kind in ("psnr", "ssim"):
            for benchmark in printed.benchmarks:
                change = printed.figure(after, benchmark, kind) - printed.figure(before, benchmark, kind)
                cells.append(Cell(signed(change, 2 if kind == "psnr" else 4), source=_paper_source(printed)))
        rows.append(tuple(cells))
    headings = (
        Column("from → to", origin="name"),
        *_measured_columns(columns)[3:],
        *_printed_columns(printed),
    )
    title = f"Table {printed.number}: what changes, picture by picture"
    return [Table(f"table-{printed.number}-changes", title, headings, tuple(rows))] if measured else []


def _measured_columns(columns: Sequence["MeasuredColumn"]) -> tuple[Column, ...]:
    first = (Column("method", origin="name"), Column("parameters"), Column("s a picture"))
    return first + tuple(
        Column(column.metric.name + (f" ({column.metric.unit})" if column.metric.unit else ""),
               f"{column.one.benchmark.title} [{column.protocol.name}]")
        for column in columns
    )  # fmt: skip


def _printed_columns(printed: PaperTable) -> tuple[Column, ...]:
    return tuple(
        Column(f"{benchmark} {kind}", "printed in the paper", "paper")
        for kind in ("PSNR (dB)", "SSIM")
        for benchmark in printed.benchmarks
    )


def _printed_cells(printed: PaperTable, row: str) -> tuple[Cell, ...]:
    marks = [number for number, (rows, _) in enumerate(printed.notes, start=1) if row in rows]
    return tuple(
        Cell(number(printed.figure(row, benchmark, kind), 2 if kind == "psnr" else 4),
             source=_paper_source(printed) + (f"; see note {', '.join(map(str, marks))}" if marks else ""))
        for kind in ("psnr", "ssim")
        for benchmark in printed.benchmarks
    )  # fmt: skip


def _paper_source(printed: PaperTable) -> str:
    return f"printed in Tab. {printed.number} of the paper; not measured here"


def _measured_row(
    figures: Figures, method: Method | None, name: str, columns: Sequence["MeasuredColumn"]
) -> tuple[Cell, ...]:
    if method is None:
        return (Cell(name), Cell(), Cell(), *(Cell() for _ in columns))
    count = method.about.get("parameters")
    places = list(dict.fromkeys(column.one.benchmark.name for column in columns))
    return (
        Cell(name, source=method_source(method)),
        Cell(NOTHING if count is None else f"{count:,}"),
        _seconds(figures.results, method, places),
        *(_mean_cell(figures.summaries[method.label, *column.key], method, column) for column in columns),
    )


def _seconds(results: Results, method: Method, benchmarks: Sequence[str]) -> Cell:
    """Medians over all pictures of the benchmarks in a table, where something was run: wall, processor."""
    found = [result for name in benchmarks for result in results.of(method.label, name)]
    wall = [result.seconds for result in found if result.seconds is not None]
    processor = [result.processor for result in found if result.processor is not None]
    if not wall:
        return Cell()
    detail = f"processor {statistics.median(processor):.3g}" if processor else ""
    return Cell(f"{statistics.median(wall):.3g}", detail, f"medians of {len(wall)} pictures")


def _mean_cell(summary: Summary, method: Method, column: "MeasuredColumn") -> Cell:
    digits = digits_of(column.metric)
    if summary.count == 0:
        return Cell("∞" if summary.infinite else NOTHING)
    detail = interval(summary.low, summary.high, digits)
    if summary.count < summary.total:
        detail += f" of {summary.count} of {summary.total}"
    few = "" if summary.count >= FEW else "*"
    source = (
        f"mean of {summary.count} pictures of {column.one.benchmark.title}, protocol {column.protocol.name} "
        f"version {column.protocol.version}; {method_source(method)}"
    )
    return Cell(number(summary.mean, digits) + few, detail.strip(), source)


def _difference_cell(found: Difference, column: "MeasuredColumn") -> Cell:
    digits = digits_of(column.metric)
    detail = f"{interval(found.low, found.high, digits, sign=True)} p {p_value(found.p)}"
    return Cell(signed(found.mean, digits), detail, f"{found.count} pictures; sign-flip test")


def _difference_row(
    label: str, against: str, column: "MeasuredColumn", found: Difference | None
) -> tuple[Cell, ...] | None:
    if found is None:
        return None
    digits = digits_of(column.metric)
    return (
        Cell(label), Cell(against), Cell(column.metric.name),
        Cell(signed(found.mean, digits), interval(found.low, found.high, digits, sign=True)),
        Cell(p_value(found.p)),
        Cell(interval(found.group_low, found.group_high, digits, sign=True) or NOTHING),
        Cell(p_value(found.group_p)),
        Cell(f"{100 * found.wins:.0f} %"),
        Cell(str(found.count)),
    )  # fmt: skip


def _notes(figures: Figures, columns: Sequence["MeasuredColumn"]) -> list[str]:
    """What must be said of the figures of some columns."""
    notes = []
    few = {}
    for column in columns:
        for label in figures.labels:
            summary = figures.summaries[label, *column.key]
            if 0 < summary.count < FEW:
                few[column.one.benchmark.title] = summary.count
    if few:
        places = ", ".join(f"{title}: {count}" for title, count in few.items())
        notes.append(f"* fewer than {FEW} pictures ({places}): the interval is too narrow.")
    sets = {column.one.benchmark.name: column.one for column in columns}
    parts = [
        f"{one.benchmark.title}: {len(one.cases)} of {one.benchmark.count}"
        for one in sets.values()
        if one.benchmark.count is not None and len(one.cases) < one.benchmark.count
    ]
    if parts:
        notes.append(f"Parts of benchmarks, not to be compared with published figures ({', '.join(parts)}).")
    protocols = {column.protocol.name: column.protocol for column in columns}
    notes += [f"{name}: {protocol.title}." for name, protocol in protocols.items() if protocol.title]
    falling = dict.fromkeys(column.metric.name for column in columns if not column.metric.higher_is_better)
    return [*notes, *(f"{name}: less is better." for name in falling)]


def _grouping(one: TestSet) -> tuple[str, ...]:
    groups = len({case.group for case in one.cases})
    if not 1 < groups < len(one.cases):
        return ()
    return (f"Groups: {groups} ({', '.join(sorted({str(case.group) for case in one.cases})[:4])} …).",)


def method_source(method: Method) -> str:
    """Where a method comes from, in words."""
    if method.kind == "network":
        return f"{method.source}, weights {method.about['weights_sha256'][:12]}"
    return "the blurred pictures as they are" if method.kind == "input" else f"pictures in {method.source}"


def digits_of(metric: Metric) -> int:
    """Decimals: two for dB, four for what has no unit."""
    return 2 if metric.unit else 4


def number(value: float, digits: int) -> str:
    """A figure as text; — where it is none."""
    return NOTHING if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int) -> str:
    """A difference as text, with its sign; no sign for what rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def interval(low: float, high: float, digits: int, *, sign: bool = False) -> str:
    """An interval as text; empty where there is none."""
    if math.isnan(low):
        return ""
    show = signed if sign else number
    return f"[{show(low, digits)}, {show(high, digits)}]"


def p_value(p: float) -> str:
    """A p-value as text."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"

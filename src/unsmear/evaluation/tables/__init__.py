"""The paper's tables and figures, measured.

methods → cache → running → summaries → layout → text, page, pictures

written = make_tables(["input", "sglrn-t", "Theirs=results/theirs"], {"gopro": "GOPRO_Large"}, "tables")
print(written)
"""

import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from unsmear.errors import EvaluationError
from unsmear.evaluation.benchmarks import Case, find_benchmark
from unsmear.evaluation.protocols import find_protocol
from unsmear.evaluation.tables import text
from unsmear.evaluation.tables.cache import Cache
from unsmear.evaluation.tables.crops import read_crop
from unsmear.evaluation.tables.drawing import Box
from unsmear.evaluation.tables.layout import Figures, Table, build_tables, difference_tables
from unsmear.evaluation.tables.methods import read_methods
from unsmear.evaluation.tables.page import page
from unsmear.evaluation.tables.pictures import check_named, choose, paper_plates, zooms
from unsmear.evaluation.tables.running import Failed, Results, TestSet, run
from unsmear.photo import Photo, write_photo
from unsmear.writable import make_writable

__all__ = ["Written", "make_tables"]

FILES = ("tables.md", "tables.html", "tables.json", "figures.csv", "scores.csv", "differences.csv")


@dataclass(frozen=True)
class Written:
    """What `make_tables` made: the tables, what was not scored, and the files."""

    tables: tuple[Table, ...]
    failures: tuple[Failed, ...]
    files: tuple[Path, ...]
    results: Results

    def __str__(self) -> str:
        """For a terminal: the tables as in tables.md, failures, files."""
        lines = [text.markdown(self.tables)]
        if self.failures:
            lines.append(f"{len(self.failures)} not scored:")
            lines += [f"  {one.benchmark}/{one.case}, {one.method}: {one.reason}" for one in self.failures]
            lines.append("")
        pictures = [file for file in self.files if file.suffix == ".png"]
        named = [str(file) for file in self.files if file.suffix != ".png"]
        named += [f"{len(pictures)} pictures in {pictures[0].parent}"] if pictures else []
        return "\n".join([*lines, "Written: " + ", ".join(named)])


def make_tables(
    methods: Sequence[str],
    benchmarks: Mapping[str, str | Path],
    output: str | Path,
    *,
    protocols: Mapping[str, Sequence[str]] | None = None,
    choices: Mapping[str, Mapping[str, str]] | None = None,
    crops: Sequence[str] = (),
    show: int = 2,
    limit: int | None = None,
    cache: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = False,
) -> Written:
    """Score methods on benchmarks, and write the paper's tables and figures for them.

    Args:
        methods: "input", names of networks with weights in the package, checkpoints, and folders of pictures
            that any program restored; each may be "LABEL=SOURCE". A label that is a row of the paper's tables
            ("Uformer^P", "MSCNN+LRM", "Proposed") stands in that row, beside the paper's figures.
        benchmarks: folder of each benchmark by its name (`unsmear datasets` lists them).
        output: folder for tables.md, tables.html, tables.json, figures.csv, scores.csv, differences.csv and
            pictures/.
        protocols: names by benchmark, where not its own.
        choices: what a benchmark must be told, such as {"gopro": {"blurred": "blur"}}.
        crops: "NAME:x,y,width,height" each, where NAME is a picture in scores.csv.
        show: pictures of each benchmark that are drawn, those on which methods differ most.
        limit: only so many pictures of each benchmark, spread evenly: a quick look.
        cache: folder of what earlier runs found; OUTPUT/cache without it.
        workers: processes; one a core without it.
        device: where networks restore: "auto" takes a GPU if there is one.
        overwrite: replace the tables of an earlier run. (A run that was killed has written none.)

    A picture that cannot be read, restored or scored is named in `failures`, and the rest is done. Every
    picture is scored from a file of 8 bit (or the depth of the blurred one), as it was written.

    Raises:
        EvaluationError: no method, an unknown benchmark or protocol, a benchmark in another layout, a folder
            that cannot be written, tables that are there already, or nothing that could be scored.
        ModelError: an unknown network.
    """
    output = Path(output)
    for file in (output / name for name in FILES):
        if file.exists() and not overwrite:
            raise EvaluationError(
                f"{file} exists already: choose another folder, or replace it by --overwrite."
            )
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit is {limit}; expected a number of pictures from 1 up.")
    chosen_crops: dict[str, list[Box]] = defaultdict(list)
    for crop in crops:
        name, box = read_crop(crop)
        chosen_crops[name].append(box)
    read = read_methods(methods)
    sets = _open_sets(benchmarks, protocols or {}, choices or {}, limit)
    check_named(chosen_crops, sets)
    make_writable(output / "pictures", EvaluationError)
    kept = Cache(output / "cache" if cache is None else cache)
    try:
        results = run(
            read, sets, kept, workers=workers or _cores(), device=device, progress=progress,
        )  # fmt: skip
    finally:
        kept.close()
    if not results.by_place:
        first = results.failures[0] if results.failures else None
        reason = f"; {first.benchmark}/{first.case}, {first.method}: {first.reason}" if first else ""
        raise EvaluationError(f"Nothing could be scored{reason}")
    return _write(results, output, chosen_crops, show)


def _open_sets(
    benchmarks: Mapping[str, str | Path],
    protocols: Mapping[str, Sequence[str]],
    choices: Mapping[str, Mapping[str, str]],
    limit: int | None,
) -> list[TestSet]:
    if not benchmarks:
        raise EvaluationError("No benchmark: name at least one by --benchmark NAME=FOLDER.")
    for name in {*protocols, *choices} - {*benchmarks}:
        raise EvaluationError(
            f"A protocol or choice is for {name}, but there is no --benchmark {name}=FOLDER."
        )
    sets = []
    for name, root in benchmarks.items():
        benchmark = find_benchmark(name)
        named = protocols.get(name) or (benchmark.protocol,)
        scored = tuple(find_protocol(protocol) for protocol in dict.fromkeys(named))
        choice = dict(choices.get(name, {}))
        cases = _spread(benchmark.cases(root, **choice), limit)
        sets.append(TestSet(benchmark, Path(root), choice, tuple(cases), scored))
    return sets


def _spread(cases: Sequence[Case], limit: int | None) -> Sequence[Case]:
    if limit is None or limit >= len(cases):
        return cases
    return [cases[(2 * place + 1) * len(cases) // (2 * limit)] for place in range(limit)]


def _cores() -> int:
    return (
        len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count() or 1
    )


def _write(results: Results, output: Path, crops: Mapping[str, Sequence[Box]], show: int) -> Written:
    figures = Figures(results)
    tables, differences = build_tables(figures), difference_tables(figures)
    shown = choose(results, crops, show)
    plates: list[tuple[str, str, Photo]] = [
        (name, f"Layout of the paper's Fig. {name[-1]}", photo) for name, photo in paper_plates(shown).items()
    ]
    plates += [
        (f"{one.benchmark}-{_plain(one.case.name)}",
         f"{one.title}, {one.case.name}: {one.chosen}. Licence: {one.licence}.", zooms(one))
        for one in shown
    ]  # fmt: skip
    files = []
    for name, _, photo in plates:
        files.append(output / "pictures" / f"{name}.png")
        write_photo(photo, files[-1], overwrite=True)
    origins = text.origins(results)
    contents = {
        "tables.md": text.markdown([*tables, *differences]),
        "tables.html": page(
            tables, differences, figures, shown, [(words, photo) for _, words, photo in plates], origins
        ),
        "figures.csv": text.figures_csv(figures),
        "scores.csv": text.scores_csv(results),
        "differences.csv": text.differences_csv(figures),
        "tables.json": json.dumps(origins, indent=2, ensure_ascii=False, default=str) + "\n",
    }
    for name, content in contents.items():
        _write_text(output / name, content)
    files = [*(output / name for name in contents), *files]
    return Written(tuple(tables), tuple(results.failures), tuple(files), results)


def _plain(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._") or "picture"


def _write_text(path: Path, content: str) -> None:
    """Write a file that appears under its name only when it is complete."""
    part = path.with_name(f".unsmear-{secrets.token_hex(6)}.part")
    try:
        try:
            part.write_text(content, encoding="utf-8", newline="")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise EvaluationError(f"Cannot write {path}: {error.strerror or error}.") from error

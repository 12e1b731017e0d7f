"""The tables of docs/REPRODUCTION.md from the log of claims.py: `python benchmarks/claims.py report`."""

import math
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scipy import stats

DOCUMENT = Path(__file__).parents[1] / "docs" / "REPRODUCTION.md"
BLURRED = 40.0  # dB of the input; what is above is not blurred (8 % of `adaptive`), and is not scored
SETS = {
    "adaptive": "held-out adaptive",
    "frames": "held-out frames",
    "GoPro": "GoPro",
    "REDS": "REDS",
    "Koehler": "Köhler, one frame",
    "Lai": "Lai, uniform",
}
NETWORKS, BANKED = ("mscnn", "radn", "uformer-t"), ("mscnn", "radn")
BEFORE = ("input", "", "", 0)
"""The line of a log that holds PSNR and SSIM of the blurred pictures themselves."""


DIGITS = {"psnr": 3, "ssim": 5}


def interval(values: list[float], digits: int) -> str:
    """Mean with its 95 % interval by Student's t, and p of the paired two-sided test against 0."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.{digits}f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    p = float(stats.ttest_1samp(values, 0.0).pvalue)
    return f"{mean:+.{digits}f} ± {half:.{digits}f} (p {p:.2g})"


Log = dict[tuple[Any, ...], dict[str, Any]]


def mean_gain(log: Log, key: tuple[Any, ...], name: str, metric: str) -> float:
    """Over the pictures of a set that are blurred: below 40 dB before."""
    pairs = zip(log[key]["gains"][name][metric], log[BEFORE]["before"][name], strict=True)
    return statistics.fmean(gain for gain, (psnr, _) in pairs if psnr < BLURRED)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.2f}{deviation}"


def table(columns: str, rows: list[str]) -> str:
    """A table with a column for each set, in Markdown."""
    head = f"| {columns} | " + " | ".join(SETS.values()) + " |"
    return "\n".join([head, "|---|---|" + "---:|" * len(SETS), *rows]) if rows else "No runs yet."


def sections(log: Log) -> dict[str, str]:
    """The tables by the name of their marker."""
    seeds = sorted({key[3] for key in log if key != BEFORE})

    def gains(network: str, arm: tuple[str, str], name: str, metric: str) -> dict[int, float]:
        keys = {seed: (network, *arm, seed) for seed in seeds}
        return {seed: mean_gain(log, key, name, metric) for seed, key in keys.items() if key in log}

    def means(column: str, networks: Iterable[str], arms: dict[str, tuple[str, str]]) -> str:
        rows = []
        for network in networks:
            for label, arm in arms.items():
                values = {name: list(gains(network, arm, name, "psnr").values()) for name in SETS}
                if count := len(values["GoPro"]):
                    cells = " | ".join(spread(gained) for gained in values.values())
                    rows.append(f"| {network}, {count} | {label} | {cells} |")
        return table(f"network, seeds | {column}", rows)

    def contrasts(networks: Iterable[str], arms: dict[str, tuple[str, str]], notes: dict[str, str]) -> str:
        rows = []
        for label, note in notes.items():
            one, other = (arms[name] for name in label.split(" − "))
            for metric, unit in (("psnr", "PSNR, dB"), ("ssim", "SSIM")):
                values: dict[str, list[float]] = {name: [] for name in SETS}
                for network in networks:
                    for name in SETS:
                        first, second = (gains(network, arm, name, metric) for arm in (one, other))
                        values[name] += [first[seed] - second[seed] for seed in first if seed in second]
                if count := len(values["GoPro"]):
                    cells = " | ".join(interval(gained, DIGITS[metric]) for gained in values.values())
                    rows.append(f"| {label}{note}, {count} | {unit} | {cells} |")
        return table("difference, pairs of runs | metric", rows)

    module = {"none": ("off", "adaptive"), "module": ("on", "adaptive"), "control": ("control", "adaptive")}
    data = {kind: ("off", kind) for kind in ("adaptive", "frames", "scene")}
    banks = {kind: ("off", kind) for kind in ("estimated", "simulated")}
    seconds = sum(row["seconds"] for key, row in log.items() if key != BEFORE)
    return {
        "module": means("module", NETWORKS, module),
        "module-test": contrasts(
            NETWORKS, module, {"module − none": "", "module − control": "", "control − none": ""}
        ),
        "data": means("trained on", NETWORKS, data),
        "data-test": contrasts(
            NETWORKS,
            data,
            {"adaptive − scene": "", "adaptive − frames": ": the blur", "frames − scene": ": the scenes"},
        ),
        "banks": means("bank", BANKED, banks),
        "banks-test": contrasts(BANKED, banks, {"estimated − simulated": ""}),
        "effort": f"{len(log) - 1} runs, {seconds / 3600:.1f} hours of one core, "
        f"seeds {seeds[0]} to {seeds[-1]}; scored are the pictures whose input has less than {BLURRED:g} dB.",
    }


def report(log: Log, *, write: bool) -> None:
    """Print the tables, and put them between their markers."""
    parts = sections(log)
    for name, text in parts.items():
        print(f"{name}\n\n{text}\n")
    if write:
        put({f"claims.py: {name}": text for name, text in parts.items()})


def put(parts: dict[str, str], path: Path = DOCUMENT) -> None:
    """Put texts between their markers in a document."""
    document = path.read_text(encoding="utf-8")
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        document, found = re.subn(pattern, lambda _, t=begin + text + "\n" + end: t, document, flags=re.S)
        if found != 1:
            raise SystemExit(f"{path} has {found} places for {name}")
    path.write_text(document, encoding="utf-8")

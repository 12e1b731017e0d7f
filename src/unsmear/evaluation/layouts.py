"""Which picture belongs to which: the layouts in which people have pairs on their disks."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unsmear.errors import PairsError
from unsmear.photo import find_photos

# Names of folders, in small letters, that hold the two sides of pairs in the sets people download.
BLURRED_FOLDERS = ("blur", "blurred", "blurry", "input", "inputs", "blur_gamma", "lq")
SHARP_FOLDERS = ("sharp", "target", "targets", "gt", "ground_truth", "groundtruth")


@dataclass(frozen=True)
class PairFiles:
    """The two files of a pair, and a name for people: its blurred path less the folder blur/ or alike."""

    name: str
    blurred: Path
    sharp: Path


@dataclass(frozen=True)
class Failure:
    """A pair that was not scored, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PairList:
    """What was found: the layout in words, the pairs, and files that have no partner."""

    layout: str
    pairs: tuple[PairFiles, ...]
    failures: tuple[Failure, ...] = ()


def find_pairs(source: str | Path, *, blurred: str | None = None) -> PairList:
    """Find the pairs in a folder or in a CSV file.

    A folder: somewhere in it, once or in several scenes, lie two folders side by side, one named blur,
    blurred, blurry, input, blur_gamma or lq, the other sharp, target, gt or ground_truth. GoPro's download
    (GOPRxxxx/blur + sharp), its repacked form (input + target), RealBlur's scenes (blur/blur_1 + gt/gt_1)
    and the sets of `unsmear pairs` are such folders. Files are partners if their paths inside are equal but
    for the suffix, or if a blurred name continues a sharp one after "_" (im1_kernel2 belongs to im1).
    If several blurred folders lie side by side (GoPro's blur and blur_gamma), `blurred` names the one meant.

    A CSV file: columns `blurred` and `sharp`, paths relative to the CSV; one truth may serve many rows.

    Raises PairsError if there are none, saying what was found instead.
    """
    source = Path(source)
    if source.is_dir():
        return _pairs_in_folder(source, blurred)
    if source.suffix.lower() == ".csv" and source.is_file():
        return _pairs_in_csv(source)
    raise PairsError(f"{source} is neither a folder of pairs nor a CSV file with the columns blurred,sharp.")


def _pairs_in_csv(source: Path) -> PairList:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairsError(f"Cannot read {source} as CSV: {error}.") from error
    pairs, failures = [], []
    for number, row in enumerate(rows, start=1):
        if row.get("blurred") and row.get("sharp"):
            parts = Path(row["blurred"]).with_suffix("").parts
            name = "/".join(part for part in parts if part not in ("..", "/"))
            pairs.append(PairFiles(name, source.parent / row["blurred"], source.parent / row["sharp"]))
        else:
            failures.append(
                Failure(f"{source.name}, row {number}", "the columns blurred and sharp are not filled")
            )
    if not pairs:
        found = ", ".join(str(column) for column in rows[0]) if rows else "no rows"
        raise PairsError(
            f"{source} lists no pairs: found {found}; expected the columns blurred,sharp with paths."
        )
    return PairList("CSV file", tuple(pairs), tuple(failures))


def _pairs_in_folder(root: Path, blurred: str | None) -> PairList:
    pairs: list[PairFiles] = []
    failures: list[Failure] = []
    layouts: dict[str, None] = {}
    blurred_names = (blurred.lower(),) if blurred else BLURRED_FOLDERS
    for scene, sides in _scenes(root, (*blurred_names, *SHARP_FOLDERS)):
        inputs = [side for side in sides if side.name.lower() in blurred_names]
        truths = [side for side in sides if side.name.lower() in SHARP_FOLDERS]
        if not inputs or not truths:
            missing = "blurred" if not inputs else "sharp"
            failures.append(
                Failure(str(sides[0].relative_to(root)), f"no folder of {missing} pictures beside it")
            )
            continue
        if len(inputs) > 1 or len(truths) > 1:
            names = ", ".join(side.name for side in (inputs if len(inputs) > 1 else truths))
            raise PairsError(f"{scene} holds {names}: say which one to score (blurred=…, --blurred …).")
        layouts[f"{inputs[0].name}/ + {truths[0].name}/"] = None
        found, lonely = _partners(root, scene, inputs[0], truths[0])
        pairs += found
        failures += lonely
    if not pairs:
        entries = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise PairsError(
            f"No pairs below {root}: found {entries}; expected two folders side by side, such as blur/ and "
            "sharp/ or input/ and target/, with pictures of the same names. A CSV file with the columns "
            "blurred,sharp describes any other layout."
        )
    return PairList(", ".join(layouts), tuple(pairs), tuple(failures))


def _scenes(folder: Path, names: Sequence[str]) -> Iterable[tuple[Path, list[Path]]]:
    """Every folder, outermost first, with those of its sub-folders that are a side of pairs."""
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    sides = [entry for entry in folders if entry.name.lower() in names]
    if sides:
        yield folder, sides
    for entry in folders:
        if entry not in sides:
            yield from _scenes(entry, names)


def _partners(root: Path, scene: Path, inputs: Path, truths: Path) -> tuple[list[PairFiles], list[Failure]]:
    sharp = {_key(path, truths): path for path in find_photos(truths)}
    prefix = scene.relative_to(root)
    pairs, failures, used = [], [], set()
    for path in find_photos(inputs):
        key = _key(path, inputs)
        name = (prefix / key).as_posix()
        # "im1_kernel2" without a partner of its own belongs to "im1", the longest such name.
        ends = [place for place, letter in enumerate(key) if letter == "_"]
        partner = next((k for k in (key, *(key[:end] for end in reversed(ends))) if k in sharp), None)
        if partner is None:
            failures.append(Failure(name, f"{path} has no partner in {truths}"))
        else:
            used.add(partner)
            pairs.append(PairFiles(name, path, sharp[partner]))
    for key in sorted(sharp.keys() - used):
        failures.append(Failure((prefix / key).as_posix(), f"{sharp[key]} has no partner in {inputs}"))
    return pairs, failures


def _key(path: Path, folder: Path) -> str:
    """Path inside the folder without suffix; RealBlur repeats the folder's name in the file: blur/blur_1."""
    inside = path.relative_to(folder).with_suffix("")
    return inside.with_name(inside.name.removeprefix(f"{folder.name}_") or inside.name).as_posix()

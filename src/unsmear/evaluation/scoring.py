"""Score a network, or any folder of restored pictures, on pairs of a blurred and a sharp picture.

    result = evaluate("sglrn-t.safetensors", "GOPRO_Large/test")
    print(result.table())
    result.write("scores")          # scores.csv, summary.json, contact_sheet.png

Every picture is scored by itself, before and after restoring, with the same protocol on the same pixels;
tables give the mean and the median over pictures. Unless told otherwise a restored picture is clamped to
[0, 1] and rounded to 8 bit first, as a program would write it to a file: published figures are made so.
"""

import csv
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import unsmear
from unsmear.errors import EvaluationError, UnsmearError
from unsmear.evaluation.benchmarks import Benchmark, Case, find_benchmark
from unsmear.evaluation.contact_sheet import Tiles, cut_tiles, draw_contact_sheet
from unsmear.evaluation.layouts import Failure, PairFiles, PairList, find_pairs
from unsmear.evaluation.protocols import Align, Comparison, PictureProtocol, Protocol, find_protocol
from unsmear.evaluation.protocols.base import with_crop
from unsmear.evaluation.restorers import Restorer, centre, find_restorer
from unsmear.metrics import MAX_SHIFT, Channels
from unsmear.photo import Photo, read_photo, write_photo
from unsmear.writable import make_writable


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """The scores of one picture before (input) and after (output); seconds is None where nothing was run."""

    name: str
    blurred: str
    sharp: str
    width: int
    height: int
    psnr_input: float
    psnr_output: float
    ssim_input: float
    ssim_output: float
    seconds: float | None

    @property
    def psnr_gain(self) -> float:
        """PSNR of the output less that of the input, in dB; 0 where both are infinite."""
        return 0.0 if self.psnr_output == self.psnr_input else self.psnr_output - self.psnr_input

    @property
    def ssim_gain(self) -> float:
        """SSIM of the output less that of the input."""
        return self.ssim_output - self.ssim_input


# Columns of tables, in their order: attribute of ImageScore.
_FIGURES = ("psnr_input", "psnr_output", "psnr_gain", "ssim_input", "ssim_output", "ssim_gain", "seconds")

# Tiles of so many pictures are kept for the contact sheet (48 MB); a larger set restores its three again.
_SHOWN = 64

_FILES = ("scores.csv", "summary.json", "contact_sheet.png")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found: a score for each picture, the pairs that failed, and where it all comes from."""

    scores: tuple[ImageScore, ...]
    failures: tuple[Failure, ...]
    protocol: Protocol
    model: dict[str, Any]
    data: dict[str, Any]
    contact_sheet: Photo | None = field(default=None, repr=False)

    def mean(self, figure: str) -> float:
        """Mean over pictures of an attribute of ImageScore; nan if it was not measured.

        PSNR and its gain: over the pictures whose input is not the truth already (`identical`), if there are.
        """
        return statistics.fmean(self._values(figure) or [math.nan])

    def median(self, figure: str) -> float:
        """Median over the pictures of `mean`; nan if it was not measured."""
        return statistics.median(self._values(figure) or [math.nan])

    @property
    def identical(self) -> int:
        """Number of pictures whose input is the truth already: their PSNR is infinite from the start."""
        return sum(score.psnr_input == math.inf for score in self.scores)

    def _rated(self) -> tuple[ImageScore, ...]:
        """The pictures that figures in dB are about: those that can gain; all where none can."""
        return tuple(score for score in self.scores if score.psnr_input < math.inf) or self.scores

    def _values(self, figure: str) -> list[float]:
        scores = self._rated() if figure.startswith("psnr") else self.scores
        values = [getattr(score, figure) for score in scores]
        return [value for value in values if value is not None]

    def extremes(self) -> dict[str, ImageScore]:
        """Of the pictures in the mean gain: the worst, the median (the lower of two) and the best."""
        order = sorted(self._rated(), key=lambda score: score.psnr_gain)
        return {"worst": order[0], "median": order[(len(order) - 1) // 2], "best": order[-1]}

    def summary(self) -> dict[str, Any]:
        """Everything but the single pictures, as JSON can hold it (infinity as the text "inf")."""
        named = {figure: self._exact(figure) for figure in _FIGURES}
        psnr, ssim = self._metrics()
        return {
            "unsmear": unsmear.__version__,
            "model": self.model,
            "data": self.data,
            "protocol": {"psnr": psnr, "ssim": ssim, **self.protocol.settings()},
            "pictures": len(self.scores),
            "identical": self.identical,
            "mean": {named[figure]: _jsonable(self.mean(figure)) for figure in _FIGURES},
            "median": {named[figure]: _jsonable(self.median(figure)) for figure in _FIGURES},
            "extremes": {
                which: {"name": score.name, named["psnr_gain"]: _jsonable(score.psnr_gain)}
                for which, score in self.extremes().items()
            },
            "failures": [asdict(failure) for failure in self.failures],
        }

    def table(self) -> str:
        """The result as text for a terminal."""
        pictures = f"{len(self.scores)} picture" + ("" if len(self.scores) == 1 else "s")
        lines = [
            f"{self.model['name']} on {self.data['name']}: {pictures}, {self._manner()}",
            "",
        ]
        width = max(27, *(len(exact) + 6 for exact in self._metrics()))
        lines.append(f"{'':{width + 7}}{'input':>9}{'output':>9}{'gain':>9}")
        for (kind, digits), exact in zip((("psnr", 2), ("ssim", 4)), self._metrics(), strict=True):
            for label, average in (("mean", self.mean), ("median", self.median)):
                before, after, gain = (average(f"{kind}_{side}") for side in ("input", "output", "gain"))
                head = f"{exact + (' (dB)' if kind == 'psnr' else ''):<{width}}{label:<7}"
                lines.append(f"{head}{before:9.{digits}f}{after:9.{digits}f}{gain:+9.{digits}f}")
        lines.append("")
        for which, score in self.extremes().items():
            lines.append(
                f"{which + ' gain':<13}{score.psnr_input:9.2f}{score.psnr_output:9.2f}{score.psnr_gain:+9.2f}"
                f"  {score.name}"
            )
        if self.identical:
            lines += [
                "",
                f"In {self.identical} of {pictures} input and truth are identical; {self._left_out()}.",
            ]
        if not math.isnan(self.mean("seconds")):
            lines += ["", f"{self.mean('seconds'):.3g} s a picture"]
        if self.failures:
            lines += ["", f"{len(self.failures)} not scored:"]
            lines += [f"  {failure.name}: {failure.reason}" for failure in self.failures]
        return "\n".join(lines)

    def _manner(self) -> str:
        words = self.protocol.manner()
        if self.protocol.crop is not None:
            words.append(f"middle {self.protocol.crop} px only")
            smaller = sum(min(score.width, score.height) < self.protocol.crop for score in self.scores)
            words += [f"{smaller} smaller than that"] if smaller else []
        return ", ".join(words)

    def _left_out(self) -> str:
        if self.identical == len(self.scores):
            return "no PSNR is finite"
        return "figures in dB leave them out"

    def _exact(self, figure: str) -> str:
        kind, _, side = figure.partition("_")
        psnr, ssim = self._metrics()
        return {"psnr": f"{psnr}_{side}", "ssim": f"{ssim}_{side}"}.get(kind, figure)

    def _metrics(self) -> tuple[str, str]:
        """The exact names of the PSNR and of the SSIM."""
        return self.protocol.metrics[0].name, self.protocol.metrics[1].name

    def write(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write scores.csv (one row per picture), summary.json and contact_sheet.png into a folder.

        Raises EvaluationError if one of them exists and may not be overwritten, or cannot be written.
        """
        folder = Path(folder)
        check_writable(folder, overwrite=overwrite)
        files = [folder / name for name in _FILES]
        if self.contact_sheet is None:
            files.pop()
        try:
            with files[0].open("w", encoding="utf-8", newline="") as table:
                writer = csv.writer(table)
                writer.writerow(("name", *map(self._exact, _FIGURES), "width", "height", "blurred", "sharp"))
                for score in self.scores:
                    figures = (_text(getattr(score, figure)) for figure in _FIGURES)
                    writer.writerow(
                        (score.name, *figures, score.width, score.height, score.blurred, score.sharp)
                    )
            text = json.dumps(self.summary(), indent=2, ensure_ascii=False, allow_nan=False)
            files[1].write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise EvaluationError(
                f"Cannot write the scores into {folder}: {error.strerror or error}."
            ) from error
        if self.contact_sheet is not None:
            write_photo(self.contact_sheet, files[2], overwrite=overwrite)
        return files


def check_writable(folder: str | Path, *, overwrite: bool = False) -> None:
    """Make the folder of the scores: to ask before long work.

    Raises EvaluationError if it cannot be written, or has scores that may not be replaced.
    """
    for file in (Path(folder) / name for name in _FILES):
        if file.exists() and not overwrite:
            raise EvaluationError(
                f"{file} exists already: choose another folder, or replace it by --overwrite."
            )
    make_writable(folder, EvaluationError)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _jsonable(value: float) -> float | str | None:
    return None if math.isnan(value) else value if math.isfinite(value) else str(value)


def evaluate(
    model: str | Path | nn.Module | Callable[[Tensor], Tensor],
    pairs: str | Path | Sequence[PairFiles],
    *,
    protocol: str | Protocol | None = None,
    benchmark: str | Benchmark | None = None,
    align: Align = "none",
    channels: Channels = "luma",
    max_shift: int = MAX_SHIFT,
    eight_bit: bool = True,
    crop: int | None = None,
    limit: int | None = None,
    blurred: str | None = None,
    device: str = "auto",
    contact_sheet: bool = True,
    save_restored: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Restore every blurred picture, and score input and output against the sharp one.

    model: a network's name or checkpoint; "input", which leaves the picture as it is; a folder of pictures
        that any program restored, found by the names of the blurred ones; a network; or a function from
        (3,H,W) in [0,1] sRGB to the same.
    pairs: a folder or CSV file for `find_pairs` (`blurred` goes there), or pairs that are known already.
    protocol: a name for `find_protocol`, or one of your own, instead of align, channels, max_shift and
        eight_bit. Its first metric is shown as the PSNR, its second as the SSIM.
    benchmark: a name for `find_benchmark`; then `pairs` is the folder of its download, and its own protocol
        is taken unless another one is named.
    align, channels, max_shift, eight_bit, crop: see `Comparison`.
    limit: score only so many pairs, spread evenly over the set.
    device: "auto" takes a GPU if there is one; or a name that PyTorch knows.
    save_restored: a folder for the restored pictures as 8-bit PNG; a file that is there already stays, and
        its pair fails.

    A pair that cannot be read, compared or restored is listed in `failures` and the rest is scored.
    Raises PairsError where there are no pairs, ModelError for an unknown model, EvaluationError if nothing
    could be scored.
    """
    options = Comparison(align=align, channels=channels, max_shift=max_shift, eight_bit=eight_bit, crop=crop)
    used = _choose(protocol, benchmark, options)
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit is {limit}; expected a number of pairs from 1 up.")
    cases: dict[str, Case] = {}
    if benchmark is not None:
        if not isinstance(pairs, (str, Path)):
            raise EvaluationError("With a benchmark, pairs is the folder of its download.")
        choice = {} if blurred is None else {"blurred": blurred}
        cases = {case.name: case for case in find_benchmark(benchmark).cases(pairs, **choice)}
        listed = tuple(PairFiles(case.name, case.blurred, _picture(case)) for case in cases.values())
        found, name = PairList(find_benchmark(benchmark).title, listed), str(pairs)
    elif isinstance(pairs, (str, Path)):
        found, name = find_pairs(pairs, blurred=blurred), str(pairs)
    else:
        found, name = PairList("list of pairs", tuple(pairs)), "a list of pairs"
    chosen = _spread(found.pairs, limit)
    restorer = find_restorer(model, chosen, device=device, crop=crop)
    if save_restored is not None:
        make_writable(save_restored, EvaluationError)
    failures, scores, digest = list(found.failures), [], hashlib.sha256()
    shown: dict[ImageScore, Tiles] = {}
    bar = tqdm(chosen, desc=restorer.about["name"], unit="pair", disable=None if progress else True)
    for pair in bar:
        try:
            pictures = _restore(pair, restorer, used)
            if save_restored is not None:
                _save(pictures.output, Path(save_restored) / f"{pair.name}.png")
            scores.append(_score(pair, pictures, used, cases))
            if contact_sheet and len(shown) < _SHOWN:
                shown[scores[-1]] = cut_tiles(pictures.input, pictures.output, pictures.truth)
            digest.update(pictures.sha256)
            if gains := [score.psnr_gain for score in scores if score.psnr_input < math.inf]:
                bar.set_postfix_str(f"{statistics.fmean(gains):+.2f} dB")
        except (UnsmearError, RuntimeError) as error:  # RuntimeError: out of memory, a network that fails
            failures.append(Failure(pair.name, str(error)))
    if not scores:
        reason = f"; {failures[0].name}: {failures[0].reason}" if failures else ""
        raise EvaluationError(f"None of {len(chosen)} pairs could be scored{reason}")
    data = {"name": name, "layout": found.layout, "pairs": len(found.pairs), "sha256": digest.hexdigest()}
    result = Evaluation(
        scores=tuple(scores), failures=tuple(failures), protocol=used, model=restorer.about, data=data
    )
    if not contact_sheet:
        return result
    rows, extremes = [], result.extremes()
    for score in dict.fromkeys(extremes.values()):
        which = ", ".join(which for which, one in extremes.items() if one == score)
        if score not in shown:
            pair = PairFiles(score.name, Path(score.blurred), Path(score.sharp))
            pictures = _restore(pair, restorer, used)
            shown[score] = cut_tiles(pictures.input, pictures.output, pictures.truth)
        rows.append(
            (f"{which}: {score.psnr_gain:+.2f} dB {used.metrics[0].name}   {score.name}", shown[score])
        )
    return replace(result, contact_sheet=draw_contact_sheet(rows))


def _choose(
    protocol: str | Protocol | None, benchmark: str | Benchmark | None, options: Comparison
) -> Protocol:
    """The protocol that was named, the benchmark's own, or the options."""
    if protocol is None and benchmark is None:
        return options
    if replace(options, crop=None) != Comparison():
        raise EvaluationError(
            "A named protocol, and a benchmark has one, fixes align, channels, max_shift and eight_bit: "
            "leave them out, or score the pairs without a benchmark."
        )
    named = find_protocol(protocol) if protocol is not None else None
    used = named or find_protocol(find_benchmark(benchmark or "pairs").protocol)
    if len(used.metrics) < 2 or used.metrics[0].unit != "dB":
        raise EvaluationError(
            f"The protocol {used.name} has no PSNR and SSIM to show: unsmear tables shows any protocol."
        )
    return with_crop(used, options.crop)


def _picture(case: Case) -> Path:
    """A true picture to show beside the restored one."""
    if not case.truth or case.truth[0].suffix.lower() == ".mat":
        what = "frames in a .mat file" if case.truth else "no truth"
        raise EvaluationError(f"{case.name} has {what}, which evaluate cannot show: use unsmear tables.")
    return case.truth[0]


@dataclass(frozen=True)
class _Pictures:
    """Input, output and truth as they are scored, (3,H,W) float32."""

    input: Tensor
    output: Tensor
    truth: Tensor
    seconds: float | None
    sha256: bytes


def _restore(pair: PairFiles, restorer: Restorer, protocol: Protocol) -> _Pictures:
    files = read_photo(pair.blurred), read_photo(pair.sharp)
    if (files[0].height, files[0].width) != (files[1].height, files[1].width):
        sizes = [f"{file.source} is {file.width}×{file.height}" for file in files]
        raise EvaluationError(f"the pictures differ in size: {sizes[0]}, {sizes[1]}")
    blurred, truth = (file.tensor() for file in files)
    if protocol.crop is not None:
        blurred, truth = centre(blurred, protocol.crop), centre(truth, protocol.crop)
    start = time.perf_counter()
    output = restorer.run(pair, blurred.clone())
    seconds = time.perf_counter() - start
    if output.shape != blurred.shape:
        raise EvaluationError(
            f"restoring gave a picture of shape {tuple(output.shape)} for one of {tuple(blurred.shape)}"
        )
    output = output.detach().to("cpu", torch.float32)
    if not output.isfinite().all():
        raise EvaluationError("the restored picture holds NaN or infinity")
    if files[0].is_grey:  # a grey photo stays grey when it is written
        output = output.mean(0, keepdim=True).expand_as(output)
    if protocol.eight_bit:
        blurred, output = ((x.clamp(0, 1) * 255).round() / 255 for x in (blurred, output))
    content = hashlib.sha256(pair.name.encode())
    for file in files:
        content.update(file.pixels.tobytes())
    return _Pictures(blurred, output, truth, seconds if restorer.timed else None, content.digest())


def _score(pair: PairFiles, pictures: _Pictures, protocol: Protocol, cases: Mapping[str, Case]) -> ImageScore:
    case = cases.get(pair.name) or Case(pair.name, pair.blurred, (pair.sharp,))

    def figures(picture: Tensor) -> tuple[float, float]:
        if isinstance(protocol, PictureProtocol):
            found = protocol.compare(picture, pictures.truth)
        else:
            found = protocol.score(picture, case)
        return found[protocol.metrics[0].name], found[protocol.metrics[1].name]

    psnr_input, ssim_input = figures(pictures.input)
    psnr_output, ssim_output = psnr_input, ssim_input
    if not torch.equal(pictures.output, pictures.input):
        psnr_output, ssim_output = figures(pictures.output)
    return ImageScore(
        name=pair.name,
        blurred=str(pair.blurred),
        sharp=str(pair.sharp),
        width=pictures.truth.shape[-1],
        height=pictures.truth.shape[-2],
        psnr_input=psnr_input,
        psnr_output=psnr_output,
        ssim_input=ssim_input,
        ssim_output=ssim_output,
        seconds=pictures.seconds,
    )


def _save(output: Tensor, path: Path) -> None:
    make_writable(path.parent, EvaluationError)
    levels = (output.clamp(0, 1) * 255).round().to(torch.uint8)
    write_photo(Photo(pixels=levels.permute(1, 2, 0).contiguous().numpy()), path)


def _spread(pairs: Sequence[PairFiles], limit: int | None) -> list[PairFiles]:
    """At most `limit` of them, evenly spaced over the whole list."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    return [pairs[(2 * place + 1) * len(pairs) // (2 * limit)] for place in range(limit)]

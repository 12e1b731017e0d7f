"""What a training says: log.jsonl, TensorBoard's event files, a line of progress."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm


class Journal:
    """Log of one run, which a resumed run continues as if it had never stopped.

    Each line of log.jsonl is one JSON object with a key `step` (steps done). What depends on the clock
    stands under its key `time`; all else is a function of the recipe. Lines after `step` are dropped at the
    start: they will be written again.
    """

    def __init__(self, folder: Path, *, step: int, total: int, tensorboard: bool) -> None:
        """Open the log in `folder` after `step` of `total` steps."""
        path = folder / "log.jsonl"
        _drop_after(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._writer: Any = _tensorboard(folder / "tensorboard", step) if tensorboard else None
        # a terminal gets tqdm's bar, anything else one plain line for each line of the log
        self._bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True, disable=None, leave=True)
        self._total, self._gain = total, ""
        self._begun = self._last = time.perf_counter()
        self._first_step = self._last_step = step
        self._waited = 0.0
        if tensorboard and self._writer is None:
            self.say("TensorBoard is not installed (pip install 'unsmear[train]'); log.jsonl has all figures")

    def advance(self, step: int, waited: float) -> None:
        """Move the bar to `step`, for whose pairs the training stood still for `waited` seconds."""
        self._waited += waited
        self._bar.update(step - self._bar.n)

    def line(self, step: int, **figures: float) -> None:
        """Write loss and the like of the steps since the last such line, with rate and share of waiting."""
        now = time.perf_counter()
        seconds = max(now - self._last, 1e-9)
        rate = (step - self._last_step) / seconds
        waiting = self._waited / seconds
        self._write(step, figures, time={"seconds": now - self._begun, "rate": rate, "waiting": waiting})
        mean_rate = (step - self._first_step) / (now - self._begun)
        left = (self._total - step) / mean_rate if mean_rate else math.inf
        text = f"loss {figures['loss']:.6g}  lr {figures['learning_rate']:.3g}{self._gain}"
        if waiting > 0.02:
            text += f"  waiting for pairs {waiting:.0%}"
        self._bar.set_postfix_str(text, refresh=False)
        if self._bar.disable:
            self.say(f"{step}/{self._total}  {rate:.3g} it/s  {text}  {_clock(left)} left")
        self._last, self._last_step, self._waited = now, step, 0.0

    def validation(self, step: int, **figures: float) -> None:
        """Write the scores on the validation pairs."""
        self._write(step, figures)
        self._gain = f"  gain {figures['gain_psnr_rgb']:+.3f} dB"
        if self._bar.disable:
            self.say(f"{step}/{self._total}  validation:{self._gain}")

    def pause(self, seconds: float) -> None:
        """Leave `seconds` (of validation, pictures, checkpoints) out of the rate."""
        self._last += seconds

    def say(self, text: str) -> None:
        """Print a line beside the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Close files and bar."""
        self._bar.close()
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, figures: dict[str, float], **more: Any) -> None:
        self._file.write(json.dumps({"step": step, **figures, **more}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl or starts.jsonl; a last line that a kill cut short is left out."""
    lines = []
    for text in path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []:
        if text.endswith("\n"):
            lines.append(json.loads(text))
    return lines


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_log(path) if line["step"] <= step]
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    partial.replace(path)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: Any = SummaryWriter(str(folder), purge_step=step + 1)
    return writer


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

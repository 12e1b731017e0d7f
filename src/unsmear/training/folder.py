"""The folder of one run: recipe, log, states to go on from, checkpoints to use, sample pictures."""

import json
import subprocess
from pathlib import Path
from typing import Any

from torch import nn

import unsmear
from unsmear.errors import TrainingError
from unsmear.training.journal import read_log
from unsmear.training.recipe import Recipe, differences, to_toml
from unsmear.training.state import TrainingState, read_header, replace_durably
from unsmear.writable import make_writable

KEPT_STATES = 2  # the newest, and the one before in case a disk fails the newest


class RunFolder:
    """Layout of a run.

    recipe.toml             the resolved recipe
    log.jsonl               one line each `log_every` steps and for each validation
    starts.jsonl            one line each time the run was started or gone on with: step, when, by what
    state/step-N.safetensors  all of the training after step N: what --resume reads
    best.safetensors        the network with the largest validation gain (its average where there is one)
    last.safetensors        the network of the newest state
    samples/N.png           blurred | restored | sharp
    tensorboard/            event files
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is made yet."""
        self.path = path

    @property
    def states(self) -> list[Path]:
        """State files, oldest first."""
        return sorted(self.path.glob("state/step-*.safetensors"))

    @property
    def newest(self) -> Path | None:
        """The newest state file."""
        return self.states[-1] if self.states else None

    def begin(self, recipe: Recipe) -> None:
        """Make the folder of a new run.

        Raises:
            TrainingError: there is a run in it, or it cannot be written.
        """
        if self.newest is not None:
            step = read_header(self.newest)["step"]
            raise TrainingError(
                f"{self.path}: holds a run at step {step}; go on with it by --resume, "
                "or name another folder by --set run=FOLDER"
            )
        make_writable(self.path, TrainingError)
        for name in ("log.jsonl", "starts.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        self.write_recipe(recipe)

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe."""
        partial = self.path / "recipe.part"
        partial.write_text(to_toml(recipe), "utf-8")
        replace_durably(partial, self.path / "recipe.toml")

    def note_start(self, facts: dict[str, Any]) -> None:
        """Add a line to starts.jsonl: `facts`, a JSON object. Kept apart from log.jsonl, which does not know
        that a run was ever stopped.
        """
        path, partial = self.path / "starts.jsonl", self.path / "starts.part"
        partial.write_text("".join(json.dumps(line) + "\n" for line in [*read_log(path), facts]), "utf-8")
        replace_durably(partial, path)

    def restore(self, state: TrainingState, recipe: Recipe, data: dict[str, Any]) -> None:
        """Bring `state` to the newest readable one of the folder; leave it if killed before the first.

        Raises:
            TrainingError: no run here, one that cannot be written, or one whose recipe or data differ: names
                each difference.
        """
        if not (self.path / "recipe.toml").exists():
            raise TrainingError(f"{self.path}: no run to resume; start one by leaving --resume out")
        make_writable(self.path, TrainingError)
        for number, path in enumerate(reversed(self.states), start=1):
            try:
                header = read_header(path)
                break
            except TrainingError:
                if number == len(self.states):
                    raise
        else:
            return
        changed = [
            f"{key}: was {old!r}, is {new!r}" for key, old, new in differences(header["recipe"], recipe)
        ]
        changed += [
            f"data: {key} was {header['data'].get(key)}, is {value}"
            for key, value in data.items()
            if header["data"].get(key) != value
        ]
        if changed:
            lines = "\n  ".join(changed)
            raise TrainingError(
                f"{self.path}: the run at step {header['step']} was made by another recipe:\n  {lines}\n"
                f"Take {self.path / 'recipe.toml'} to go on with it, or a new folder by --set run=FOLDER"
            )
        state.load(path)

    def save(self, state: TrainingState, facts: dict[str, Any]) -> Path:
        """Write the state, then let go of all but the newest `KEPT_STATES`."""
        path = self.path / "state" / f"step-{state.step:08d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        state.save(path, facts)
        for old in self.states[:-KEPT_STATES]:
            old.unlink()
        return path

    def publish(self, name: str, model: nn.Module, facts: dict[str, Any]) -> Path:
        """Write the network as NAME.safetensors, a checkpoint that `load_checkpoint` reads."""
        from unsmear.models.checkpoints import save_checkpoint

        recipe = Recipe.model_validate(facts["recipe"]).without_folders()
        path, partial = self.path / f"{name}.safetensors", self.path / f"{name}.part"
        save_checkpoint(model, partial, facts | {"recipe": recipe})
        replace_durably(partial, path)
        return path


def source_commit() -> str | None:
    """Commit of the source that runs, with "+changes" where files differ from it; None outside a checkout."""
    here = Path(unsmear.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--", ".") else commit

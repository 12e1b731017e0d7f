"""What is kept of a training while it runs: log, validation, pictures, states, checkpoints."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unsmear.training.folder import RunFolder
from unsmear.training.journal import Journal
from unsmear.training.recipe import Recipe
from unsmear.training.state import TrainingState
from unsmear.training.validating import restored_pairs, scores, write_samples


class Keeper:
    """Does after each step what the recipe's cadences ask for; lives in the first process alone."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        state: TrainingState,
        *,
        fixed: tuple[Tensor, Tensor],
        facts: dict[str, Any],
        device: torch.device,
    ) -> None:
        """Open the log; `fixed` are the validation pairs (blurred, sharp), `facts` go into every file."""
        self._recipe, self._folder, self._state, self._facts, self._device = (
            recipe,
            folder,
            state,
            facts,
            device,
        )
        self._inputs, self._sharp = fixed
        self._blurred = self._inputs[:, :3]  # a guided network is shown more beside it
        folder.write_recipe(recipe)
        self._journal = Journal(
            folder.path, step=state.step, total=recipe.iterations, tensorboard=recipe.tensorboard
        )
        self._saved = time.monotonic()

    def after_step(self, *, rate: float, figures: Mapping[str, float], waited: float, stopping: bool) -> None:
        """Log, validate, draw and save the step that `state` has just done, in this order.

        `figures` are of this step alone and go into the log beside the mean loss.

        The state comes last: whatever it holds is in the log already, and a run resumed from it writes
        nothing twice.
        """
        recipe, state, done = self._recipe, self._state, self._state.step
        last = done == recipe.iterations
        self._journal.advance(done, waited)
        if done % recipe.log_every == 0 or last:
            mean = math.fsum(state.losses) / len(state.losses)
            self._journal.line(done, loss=mean, learning_rate=rate, **figures)
            state.losses.clear()
        begun = time.perf_counter()
        validated = len(self._sharp) > 0 and (last or done % recipe.validation.every == 0)
        drawn = (
            len(self._sharp) > 0 and recipe.samples_every > 0 and (last or done % recipe.samples_every == 0)
        )
        if validated or drawn:
            count = len(self._sharp) if validated else SAMPLE_ROWS
            restored = restored_pairs(
                state.published, self._inputs[:count], device=self._device, bf16=recipe.precision == "bf16"
            )
            if validated:
                self._validate(restored)
            if drawn:
                picture = self._folder.path / "samples" / f"{done:08d}.png"
                write_samples(
                    picture, *(images[:SAMPLE_ROWS] for images in (self._blurred, restored, self._sharp))
                )
        due = recipe.checkpoint_steps > 0 and done % recipe.checkpoint_steps == 0
        if last or stopping or due or time.monotonic() - self._saved > recipe.checkpoint_seconds:
            self._folder.save(state, self._facts)
            self._folder.publish("last", state.published, self._facts | {"step": done})
            self._saved = time.monotonic()
        self._journal.pause(time.perf_counter() - begun)

    def close(self) -> None:
        """Close the log."""
        self._journal.close()

    def _validate(self, restored: Tensor) -> None:
        state = self._state
        score = scores(restored, self._blurred, self._sharp)
        self._journal.validation(state.step, **score)
        if state.best_gain is None or score["gain_psnr_rgb"] > state.best_gain:
            state.best_gain = score["gain_psnr_rgb"]
            self._folder.publish("best", state.published, self._facts | {"step": state.step} | score)


SAMPLE_ROWS = 4

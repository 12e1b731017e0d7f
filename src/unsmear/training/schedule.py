"""What depends on the step alone: the learning rate, the patch stage, the indices of the pairs, the seeds."""

import math
from collections.abc import Iterator

import numpy as np

from unsmear.training.recipe import PatchStage, Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate of `step` (from 0): linear warm-up to `learning_rate`, then as `schedule` says.

    With s = warmup + hold and t = (step - s) / (iterations - s), 0 before s:
    cosine: final + (rate - final) (1 + cos(pi t)) / 2; polynomial: final + (rate - final) (1 - t)^power;
    halving: rate / 2^n after n of the steps in `halve_at`.
    """
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "halving":
        return recipe.learning_rate * 0.5 ** len([moment for moment in recipe.halve_at if step >= moment])
    begin = recipe.warmup + recipe.hold
    part = max(0.0, (step - begin) / (recipe.iterations - begin))
    span = recipe.learning_rate - recipe.final_learning_rate
    if recipe.schedule == "polynomial":
        return float(recipe.final_learning_rate + span * (1 - part) ** recipe.power)
    return recipe.final_learning_rate + span * (1 + math.cos(math.pi * part)) / 2


def ema_decay(recipe: Recipe, step: int) -> float:
    """Decay of the average of the weights at `step` (from 0): min(ema, (1 + step) / (10 + step)).

    The ramp keeps the first, random weights from staying in the average for 1 / (1 - ema) steps.
    """
    return min(recipe.ema, (1 + step) / (10 + step))


def stage_at(recipe: Recipe, step: int) -> PatchStage:
    """The stage that `step` (from 0) belongs to."""
    return [stage for stage in recipe.stages if stage.from_step <= step][-1]


def batches(
    recipe: Recipe, step: int = 0, *, rank: int = 0, processes: int = 1
) -> Iterator[list[tuple[int, int]]]:
    """The share of process `rank` in each batch from `step` on, as pairs (patch size, index of the pair).

    Indices count every pair drawn since step 0, so no pair comes twice and a step's batch is the same
    whatever the number of processes or workers, and wherever the training was resumed. A batch is cut into
    `accumulation` pieces and each piece into `processes` shares; a share's pieces follow one another.
    """
    drawn = sum(stage_at(recipe, earlier).batch for earlier in range(step))
    for now in range(step, recipe.iterations):
        stage = stage_at(recipe, now)
        indices = np.arange(drawn, drawn + stage.batch).reshape(recipe.accumulation, processes, -1)
        yield [(stage.size, int(index)) for index in indices[:, rank].ravel()]
        drawn += stage.batch


def step_seed(seed: int, *place: int) -> int:
    """A 64-bit seed that is a function of the recipe's seed and a place (step, piece, process)."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> np.uint64(1))

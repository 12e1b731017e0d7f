"""The training loop."""

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

import unsmear
from unsmear.errors import RecipeError, TrainingError
from unsmear.models.restoring import native_precision
from unsmear.training.feeding import (
    MakeSampler,
    data_facts,
    feed,
    find_data,
    make_pair_sampler,
    validation_pairs,
)
from unsmear.training.folder import RunFolder, source_commit
from unsmear.training.keeping import Keeper
from unsmear.training.losses import find_loss, over_scales
from unsmear.training.placing import Place, find_place, seeded
from unsmear.training.recipe import Recipe
from unsmear.training.schedule import ema_decay, learning_rate, step_seed
from unsmear.training.state import TrainingState


def train(recipe: Recipe, *, resume: bool = False, make_sampler: MakeSampler = make_pair_sampler) -> Path:
    """Train the recipe's network on blur made on the fly or on written pairs, into the folder `recipe.run`.

    Minimises E[Σ_s loss(f_s(v), u_s)] over pairs of a blurred v and a sharp u, each (3, size, size), sRGB in
    [0, 1], and over the scales s of the network (`over_scales`; most have one); a guided network is given the
    nine channels of `estimation.filtering.guided_input` for v; with an [adversarial] table, against a critic
    that learns beside it (`Adversary`). Every step is a function of the recipe and its
    number: a run that was killed and resumed gives the same bits, on the same machine with the same number of
    threads (on a GPU: with `deterministic`).

    Args:
        recipe: what to do.
        resume: go on from the newest state in the folder.
        make_sampler: (recipe, photographs or numbers of written pairs, seed, size) → sampler; a top-level
            function, sent to the workers.

    Returns:
        the folder's last.safetensors.

    Raises:
        RecipeError: the recipe does not fit the network, the data or the machine.
        TrainingError: nothing to resume or another recipe's run; loss or gradient not finite; interrupted.
    """
    with contextlib.ExitStack() as stack:
        place = find_place(recipe.device)
        stack.callback(place.close)
        stack.enter_context(_settings(recipe))
        found, folder = find_data(recipe), RunFolder(recipe.run)
        if recipe.precision == "bf16" and native_precision(place.device) == "fp32":
            warnings.warn(
                "precision: this processor does not multiply bf16 by itself, which makes it several times "
                "slower than fp32; --set precision=fp32",
                stacklevel=2,
            )
        model = _network(recipe, place)
        state = TrainingState.begin(recipe, model)
        data = data_facts(recipe, found)
        if resume:
            folder.restore(state, recipe, data)
        elif place.first:
            folder.begin(recipe)
        place.mean(0.0)  # the others wait here until the folder stands
        keeper = None
        if place.first:
            facts: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "data": data}
            facts |= {"commit": source_commit(), "version": unsmear.__version__}
            fixed = validation_pairs(recipe, found.held_out, make=make_sampler)
            keeper = Keeper(recipe, folder, state, fixed=fixed, facts=facts, device=place.device)
            stack.callback(keeper.close)
            if state.step < recipe.iterations:
                folder.note_start(
                    {
                        "step": state.step,
                        "date": datetime.now(UTC).isoformat(timespec="seconds"),
                        "processes": place.processes,
                        "threads": torch.get_num_threads(),
                        "device": str(place.device),
                        "torch": torch.__version__,
                        "version": facts["version"],
                        "commit": facts["commit"],
                    }
                )
        pairs = feed(recipe, found.trained, step=state.step, place=place, make=make_sampler)
        wrapped, loss_of, pieces = place.wrap(model), find_loss(recipe, place.device), recipe.accumulation
        adversary, weights = state.adversary, getattr(model, "scale_weights", None)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        stop = stack.enter_context(_stop_on_signal())

        for step in range(state.step, recipe.iterations):
            begun = time.perf_counter()
            blurred, sharp = (images.to(place.device, non_blocking=True) for images in next(pairs))
            waited = time.perf_counter() - begun

            # the gradient of the mean loss over all pieces of the batch and all processes
            total = torch.zeros((), device=place.device)
            for piece, (v, u) in enumerate(zip(blurred.chunk(pieces), sharp.chunk(pieces), strict=True)):
                chance = seeded(step_seed(recipe.seed, step, piece, place.rank), place.device)
                with chance, place.hold_gradients(wrapped, piece + 1 < pieces), _no_factor(step, folder):
                    with torch.autocast(
                        place.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"
                    ):
                        restored = wrapped(v)
                    loss = over_scales(loss_of, restored, u, weights)
                    against = 0.0 if adversary is None else adversary.term(restored)
                    ((loss + against) / pieces).backward()  # type: ignore[no-untyped-call]
                total += loss.detach() / pieces
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            mean_loss, mean_norm, stopping = place.mean(total, norm, stop.is_set())
            if not math.isfinite(mean_loss) or not math.isfinite(mean_norm):
                what = "the norm of the gradient" if math.isfinite(mean_loss) else "the loss"
                raise _derailed(
                    step, folder, f"{what} is not finite (loss {mean_loss}, gradient's norm {mean_norm})"
                )

            # the step
            rate = learning_rate(recipe, step)
            figures = {"gradient_norm": mean_norm}
            if adversary is not None:
                figures |= adversary.learn(sharp, rate=rate, step=step, place=place)
                if not all(map(math.isfinite, figures.values())):
                    raise _derailed(step, folder, f"the critic is not finite ({figures})")
            if recipe.clip:
                nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.update_average(ema_decay(recipe, step))
            state.step += 1
            state.losses.append(mean_loss)
            if keeper is not None:
                with _kept(state.step, folder):
                    keeper.after_step(rate=rate, figures=figures, waited=waited, stopping=stopping > 0)
            if stopping and state.step < recipe.iterations:
                raise TrainingError(f"stopped after step {state.step}, which is saved; go on with --resume")
    return folder.path / "last.safetensors"


def _network(recipe: Recipe, place: Place) -> nn.Module:
    """The recipe's network on its device, with first weights that are a function of the seed."""
    from unsmear.models import create
    from unsmear.models.checkpoints import load_checkpoint

    with seeded(step_seed(recipe.seed), place.device):
        model = create(recipe.network, low_rank=recipe.low_rank, **recipe.arguments)
        if recipe.weights is not None:
            model.load_state_dict(load_checkpoint(recipe.weights).state_dict())
    multiple = int(getattr(model, "size_multiple", 1))
    sizes = [("size" if stage.from_step == 0 else "patches", stage.size) for stage in recipe.stages]
    sizes += [("validation.size", recipe.validation.size)] if recipe.validation.count else []
    for key, size in sizes:
        if size % multiple:
            raise RecipeError(f"{key}: {recipe.network} takes multiples of {multiple} pixels, got {size}")
    for stage in recipe.stages:
        if stage.batch % (recipe.accumulation * place.processes):
            raise RecipeError(
                f"batch: {stage.batch} cannot be shared by {place.processes} processes "
                f"in {recipe.accumulation} equal pieces"
            )
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(place.device).train()


def _derailed(step: int, folder: RunFolder, what: str) -> TrainingError:
    return TrainingError(
        f"step {step + 1}: {what}. The step was not taken; last good checkpoint: "
        f"{folder.newest or 'none yet'}. A smaller learning_rate, clip or a warm-up may help."
    )


@contextlib.contextmanager
def _kept(step: int, folder: RunFolder) -> Iterator[None]:
    """A full disk is no fault of the training: what was saved before it is whole."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"step {step} cannot be written into {folder.path} ({error}); last good checkpoint: "
            f"{folder.newest or 'none yet'}. Make room and go on with --resume."
        ) from error


@contextlib.contextmanager
def _no_factor(step: int, folder: RunFolder) -> Iterator[None]:
    """The low-rank module meets features that are not finite before the loss does: Cholesky refuses them."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        raise _derailed(step, folder, f"the features are not finite ({error})") from error


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Turn SIGTERM and Ctrl-C into a flag, so that the step is finished and saved; a second stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _settings(recipe: Recipe) -> Iterator[None]:
    """Set torch's threads and determinism for a block."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(recipe.threads or threads)
    torch.use_deterministic_algorithms(recipe.deterministic or deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)

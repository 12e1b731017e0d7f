import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unsmear.training.recipe import Recipe, make_recipe
from unsmear.training.schedule import batches, ema_decay, learning_rate, stage_at, step_seed


def test_constant_rate():
    assert {learning_rate(Recipe(), step) for step in (0, 1, 9_999)} == {1e-4}


def test_cosine_is_torchs():
    recipe = make_recipe(
        {
            "schedule": "cosine",
            "iterations": 50,
            "warmup": 10,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-5,
        }
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=1e-5)
    for step in range(10, 50):
        assert math.isclose(learning_rate(recipe, step), optimizer.param_groups[0]["lr"], rel_tol=1e-9)
        optimizer.step()
        oracle.step()
    assert [round(learning_rate(recipe, step), 9) for step in (0, 4, 9)] == [1e-4, 5e-4, 1e-3]


def rates_of(scheduler_of, steps):
    """Rates that one of torch's schedulers takes from 1e-3 on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = scheduler_of(optimizer)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("power", [0.3, 1.0, 2.0])
def test_polynomial_is_torchs_after_warm_up_and_hold(power):
    values = {"iterations": 50, "warmup": 5, "hold": 15, "learning_rate": 1e-3, "power": power}
    recipe = make_recipe(values | {"schedule": "polynomial"})
    oracle = rates_of(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=30, power=power), 30)
    assert [learning_rate(recipe, step) for step in range(20, 50)] == pytest.approx(list(oracle), rel=1e-9)
    assert {learning_rate(recipe, step) for step in range(5, 21)} == {1e-3}


def test_halving_is_torchs():
    values = {"iterations": 50, "schedule": "halving", "halve_at": [10, 15, 40], "learning_rate": 1e-3}
    oracle = rates_of(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [10, 15, 40], gamma=0.5), 50)
    recipe = make_recipe(values)
    assert [learning_rate(recipe, step) for step in range(50)] == pytest.approx(list(oracle), rel=1e-9)


def test_average_begins_soon_and_settles():
    recipe = make_recipe({"ema": 0.999})
    decays = [ema_decay(recipe, step) for step in (0, 10, 1_000_000)]
    assert decays == [0.1, pytest.approx(0.55), 0.999]


patches = [{"from_step": 3, "size": 64, "batch": 8}, {"from_step": 5, "size": 128, "batch": 4}]


def test_stages():
    recipe = make_recipe({"size": 32, "batch": 12, "patches": patches, "iterations": 8})
    sizes = [stage_at(recipe, step).size for step in range(8)]
    assert sizes == [32] * 3 + [64] * 2 + [128] * 3


@given(st.integers(0, 8), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_pairs_of_a_step_do_not_depend_on_processes_pieces_or_start(start, processes, pieces):
    values = {"size": 32, "batch": 16, "patches": patches, "iterations": 8}
    whole = list(batches(make_recipe(values)))
    assert sorted(index for batch in whole for _, index in batch) == list(range(3 * 16 + 2 * 8 + 3 * 4))
    if 4 % (processes * pieces):
        return
    recipe = make_recipe(values | {"accumulation": pieces})
    shares = [list(batches(recipe, start, rank=rank, processes=processes)) for rank in range(processes)]
    for number, batch in enumerate(whole[start:]):
        assert sorted(key for share in shares for key in share[number]) == batch
        # piece by piece, too: the pieces of all processes together are that piece of the whole batch
        length = len(batch) // pieces
        for piece in range(pieces):
            cut = [
                share[number][piece * length // processes : (piece + 1) * length // processes]
                for share in shares
            ]
            assert sorted(itertools.chain(*cut)) == batch[piece * length : (piece + 1) * length]


def test_seeds_differ_and_stay():
    seeds = {step_seed(0, step, piece, rank) for step in range(20) for piece in range(2) for rank in range(2)}
    assert len(seeds) == 80
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(0, 1) == step_seed(0, 1) != step_seed(1, 1)

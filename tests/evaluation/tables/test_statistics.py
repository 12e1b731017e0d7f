"""Intervals and tests: SciPy as oracle, laws, and how often an interval holds the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from unsmear.evaluation.tables import statistics
from unsmear.evaluation.tables.statistics import bootstrap_interval, sign_flip_test

VALUES = np.random.default_rng(3).gamma(2.0, size=40)
NAMES = [f"g{number:02d}" for number in range(40)]


def test_the_interval_is_scipys():
    oracle = stats.bootstrap(
        (VALUES,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    # Ends of two bootstraps of 10,000 and 20,000 draws differ by about 0.01 standard deviations of the mean.
    assert bootstrap_interval(VALUES) == pytest.approx(tuple(oracle), abs=0.05 * VALUES.std() / math.sqrt(40))


def test_the_interval_follows_scale_and_shift():
    low, high = bootstrap_interval(VALUES)
    assert bootstrap_interval(3 * VALUES - 7) == pytest.approx((3 * low - 7, 3 * high - 7))
    assert bootstrap_interval([2.5] * 9) == (2.5, 2.5)


def test_groups_of_one_are_no_groups_and_copies_bring_nothing():
    assert bootstrap_interval(VALUES, groups=NAMES) == bootstrap_interval(VALUES)
    copies = np.repeat(VALUES, 5)
    members = [name for name in NAMES for _ in range(5)]
    assert bootstrap_interval(copies, groups=members) == pytest.approx(bootstrap_interval(VALUES))
    narrow, wide = bootstrap_interval(copies), bootstrap_interval(copies, groups=members)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_groups_of_other_sizes_weigh_by_their_pictures():
    low, high = bootstrap_interval([0, 0, 0, 1], groups=["a", "a", "a", "b"])
    assert (low, high) == (0, 1)  # twice the same group is drawn in half of cases


@pytest.mark.parametrize(("count", "wanted"), [(3, 0.74), (8, 0.88), (20, 0.92), (60, 0.95)])
def test_the_interval_holds_the_true_mean_as_often_as_the_text_says(count, wanted, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 500)
    generator = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        low, high = bootstrap_interval(generator.standard_normal(count))
        held += low <= 0 <= high
    assert held / 400 == pytest.approx(wanted, abs=0.05)


def test_one_value_has_no_interval():
    assert all(map(math.isnan, bootstrap_interval([1.0])))
    assert all(map(math.isnan, bootstrap_interval([1.0, 2.0], groups=["a", "a"])))
    assert math.isnan(sign_flip_test([]))


def oracle_of_signs(values, **how):
    return stats.permutation_test((values,), np.mean, permutation_type="samples", **how).pvalue


def test_all_signs_of_few_values_are_tried():
    values = VALUES[:9] - VALUES[:9].mean() + 0.3
    exact = oracle_of_signs(values, n_resamples=np.inf)
    assert sign_flip_test(values) == pytest.approx(exact)
    assert sign_flip_test([0.1] * 8) == 2 / 2**8
    assert sign_flip_test([1.0, -1.0]) == 1
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1


def test_random_signs_of_many_values():
    values = VALUES - VALUES.mean() + 0.35
    oracle = oracle_of_signs(values, n_resamples=20_000, rng=np.random.default_rng(2))
    assert 0.02 < oracle < 0.5
    assert sign_flip_test(values) == pytest.approx(oracle, abs=0.02)
    assert sign_flip_test(np.full(50, 1.0)) == pytest.approx(1 / 10_001)


def test_flipping_groups_is_flipping_their_sums():
    values = VALUES - VALUES.mean() + 0.2
    members = [name for name in NAMES[:10] for _ in range(4)]
    sums = values.reshape(10, 4).sum(1)
    assert sign_flip_test(values, groups=members) == sign_flip_test(sums)


def test_what_cannot_be_averaged_is_refused():
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1.0, math.inf])
    with pytest.raises(ValueError, match="2 groups for 1 values"):
        sign_flip_test([1.0], groups=["a", "b"])

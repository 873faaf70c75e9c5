"""Intervals against closed forms and SciPy's own tests; the paper's values against its arithmetic."""

from collections.abc import Mapping
from math import isclose, pi, sqrt, tan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from analysis.published import PUBLISHED
from analysis.statistics.intervals import mean_interval, paired_difference

accuracies = st.integers(0, 10_000).map(lambda share: share / 100)
samples = st.lists(accuracies, min_size=2, max_size=10)


def test_two_values_by_hand() -> None:
    # With one degree of freedom t is Cauchy: its 97.5 % quantile is tan(0.475 pi); s / sqrt(2) = |a - b| / 2.
    interval = mean_interval([70.0, 72.0])
    assert interval is not None
    assert interval.half == pytest.approx(tan(0.475 * pi) * 1.0)
    assert (interval.mean, interval.n) == (71.0, 2)


def test_three_values_by_hand() -> None:
    # With two degrees of freedom t(p) = x * sqrt(2 / (1 - x^2)), x = 2 p - 1.
    x = 0.95
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert interval.half == pytest.approx(x * sqrt(2 / (1 - x * x)) / sqrt(3))
    assert interval.half is not None
    assert (interval.low, interval.high) == (2.0 - interval.half, 2.0 + interval.half)


@given(samples)
def test_interval_is_that_of_scipys_t_test(values: list[float]) -> None:
    assume(len(set(values)) > 1)
    interval = mean_interval(values)
    assert interval is not None
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_paired_difference_is_that_of_scipys_paired_test() -> None:
    ours, base = {3: 83.1, 1: 82.0, 2: 84.7, 4: 83.3}, {1: 81.0, 2: 82.5, 3: 82.8, 4: 80.9}
    difference = paired_difference(ours, base)
    assert difference is not None
    expected = stats.ttest_rel([ours[s] for s in base], [base[s] for s in base]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_only_common_seeds_are_paired() -> None:
    difference = paired_difference({0: 80.0, 1: 83.0, 5: 10.0}, {1: 81.0, 0: 79.0, 7: 90.0})
    assert difference is not None
    assert (difference.mean, difference.n) == (1.5, 2)


@given(st.dictionaries(st.integers(0, 9), accuracies, min_size=1, max_size=6), accuracies)
def test_what_a_seed_does_to_both_cancels(values: Mapping[int, float], shift: float) -> None:
    difference = paired_difference({seed: value + shift for seed, value in values.items()}, values)
    assert difference is not None
    assert isclose(difference.mean, shift, abs_tol=1e-9)
    assert (difference.half is None) if len(values) == 1 else isclose(difference.half or 0.0, 0.0, abs_tol=1e-9)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    single = mean_interval([80.0])
    assert single is not None
    assert (single.mean, single.half, single.low, single.high, single.n) == (80.0, None, None, None, 1)
    assert mean_interval([]) is None
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_published_values_are_the_papers() -> None:
    indoor, flower = PUBLISHED["Indoor67"], PUBLISHED["Flower102"]
    assert list(indoor.table1.values()) == [69.6, 70.1, 69.9, 71.0]
    assert list(flower.table1.values()) == [81.7, 81.8, 82.7, 83.4]
    assert list(indoor.table3.values()) == [(69.6, 0.0), (71.0, 63.8), (72.5, 95.0), (70.0, 97.5), (69.6, 98.1)]
    assert list(flower.table3.values()) == [(81.7, 0.0), (83.4, 63.6), (84.1, 90.0), (82.1, 98.5), (81.6, 98.7)]
    assert list(indoor.table3)[2:] == ["Sparse-TargetNet_C95", "Sparse-TargetNet_C97.5", "Sparse-TargetNet_N"]
    assert list(flower.table3)[2:] == ["Sparse-TargetNet_C90", "Sparse-TargetNet_C98.5", "Sparse-TargetNet_N"]
    assert indoor.table1["Hybrid-TransferNet(S+K-)"] == 70.1
    assert flower.table1["Hybrid-TransferNet(S-K+)"] == 82.7


@pytest.mark.parametrize("name", ["Indoor67", "Flower102"])
def test_published_table2_adds_up(name: str) -> None:
    # Printed weights are rounded to thousands and the percentages were taken before rounding: hence the tolerances.
    *layers, total = PUBLISHED[name].table2
    assert total.neurons_before == sum(layer.neurons_before for layer in layers)
    assert total.neurons == sum(layer.neurons for layer in layers)
    assert total.kiloweights_before == pytest.approx(sum(layer.kiloweights_before for layer in layers), abs=1)
    assert total.kiloweights == pytest.approx(sum(layer.kiloweights for layer in layers), abs=1)
    for layer in PUBLISHED[name].table2:
        assert layer.pruned_neurons == pytest.approx(100 * (1 - layer.neurons / layer.neurons_before), abs=0.06)
        assert layer.pruned_weights == pytest.approx(100 * (1 - layer.kiloweights / layer.kiloweights_before), abs=1.0)

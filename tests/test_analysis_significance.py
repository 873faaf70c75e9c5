"""Effect sizes, tests and power: against SciPy and statsmodels, worked examples, and simulation."""

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from analysis.statistics.effects import cohens_dz, probability_of_improvement
from analysis.statistics.intervals import mean_interval
from analysis.statistics.power import MOST_SEEDS, detectable, power, seeds_needed
from analysis.statistics.significance import ALPHA, FLIPS, holm, p_value, paired_t, sign_flip

DRAWS = 2_000
# Two-sided 99.9 % limits of a share of DRAWS whose expectation is 5 %.
ERROR = 3.3 * sqrt(0.05 * 0.95 / DRAWS)
# Student's own sleep data (1908, p. 20; additional hours of sleep, drug 2 minus drug 1): t = 4.06, p = 0.0028.
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


# Worked examples and other libraries ---------------------------------------------------------------------------------


def test_students_sleep_data() -> None:
    assert p_value(SLEEP) == pytest.approx(0.00283, abs=5e-6)
    assert cohens_dz(SLEEP) == pytest.approx(4.0621 / sqrt(10), abs=1e-4)
    # Of 1,024 ways to flip signs only the observed one, its mirror and those that flip the zero are as extreme.
    assert sign_flip(SLEEP) == pytest.approx(4 / 1024)
    share = probability_of_improvement(SLEEP)
    assert share is not None
    assert share.value == 0.95


@pytest.mark.parametrize(("wins", "n"), [(0, 3), (2, 3), (5, 5), (7, 12)])
def test_probability_of_improvement_has_wilsons_interval(wins: int, n: int) -> None:
    share = probability_of_improvement([1.0] * wins + [-0.5] * (n - wins))
    assert share is not None
    expected = stats.binomtest(wins, n).proportion_ci(method="wilson")
    assert (share.value, share.low, share.high) == pytest.approx((wins / n, expected.low, expected.high))


def test_ties_count_half() -> None:
    share = probability_of_improvement([1.0, 0.0, -1.0, 1e-14])
    assert share is not None
    assert share.value == 0.5
    one = probability_of_improvement([1.0])
    assert one is not None
    assert (one.value, one.low, one.high) == (1.0, None, None)
    assert probability_of_improvement([]) is None


def test_sign_flip_is_exact_for_few_seeds() -> None:
    for n in (2, 3, 5, 8):
        assert sign_flip([1.0 + 0.1 * i for i in range(n)]) == pytest.approx(2 ** (1 - n))
    assert sign_flip([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip([1.0]) is None


def test_sign_flip_of_many_seeds_is_sampled_alike_every_time() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 40).tolist()
    found = sign_flip(values)
    assert found == sign_flip(values)
    assert found == pytest.approx(float(paired_t(values)), abs=4 * sqrt(0.03 / FLIPS))
    # Equal steps: a sum of signs is binomial.
    ones = [1.0] * 14 + [-1.0] * 6
    exact = 2 * sum(comb(20, k) for k in range(14, 21)) / 2**20
    assert sign_flip(ones) == pytest.approx(exact, abs=0.02)


def test_without_spread_the_sign_flip_test_decides() -> None:
    assert p_value([1.0, 1.0, 1.0]) == 0.25
    assert p_value([0.0, 0.0, 0.0]) == 1.0
    assert p_value([1.0] * 10) == pytest.approx(2**-9)
    assert cohens_dz([1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize("m", [1, 2, 5, 12])
def test_holm_is_that_of_statsmodels(m: int) -> None:
    # Two decimals, so that there are ties.
    p = np.random.default_rng(m).uniform(size=m).round(2) ** 2
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_by_hand_and_many_families_at_once() -> None:
    by_hand = [0.03, 0.06, 0.06, 0.02]
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), by_hand)
    families = np.array([[0.01, 0.04, 0.03, 0.005], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(holm(families), np.array([by_hand, [1.0] * 4]))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 12])
def test_power_is_that_of_statsmodels(n: int, alpha: float) -> None:
    test = TTestPower()
    for effect in (0.1, 0.5, 1.0, 3.0):
        theirs = test.power(effect, n, alpha)
        # Far out, the lower tail of the noncentral t is nan there.
        assert np.isnan(theirs) or power(effect, n, alpha) == pytest.approx(theirs, abs=1e-6)
    assert power(detectable(2.0, n, alpha) / 2.0, n, alpha) == pytest.approx(0.8)


def test_seeds_needed_are_those_of_cohens_tables() -> None:
    # Pairs for a two-sided paired t test at 0.05 with power 0.8, as G*Power gives them too.
    assert [seeds_needed(effect) for effect in (0.2, 0.5, -0.8)] == [199, 34, 15]
    assert seeds_needed(100.0) == 2
    assert seeds_needed(0.0) is None
    assert seeds_needed(2.8 / sqrt(MOST_SEEDS) * 0.99) is None


@given(st.floats(0.05, 5), st.sampled_from([0.05, 0.05 / 7]))
def test_seeds_needed_are_the_fewest(effect: float, alpha: float) -> None:
    needed = seeds_needed(effect, alpha)
    assert needed is not None
    assert power(effect, needed, alpha) >= 0.8
    assert needed == 2 or power(effect, needed - 1, alpha) < 0.8


def test_one_seed_has_no_interval() -> None:
    one = mean_interval([80.0])
    assert one is not None
    assert (one.mean, one.low, one.high) == (80.0, None, None)
    assert mean_interval([]) is None


# Simulation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_t_interval_covers_95_percent(n: int) -> None:
    values = np.random.default_rng(n).normal(0.7, 1.3, (DRAWS, n))
    intervals = [mean_interval(row.tolist()) for row in values]
    covered = np.mean([one is not None and (one.low or 0) <= 0.7 <= (one.high or 0) for one in intervals])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("n", [3, 5, 10])
def test_table_of_null_differences_shows_one_in_at_most_5_percent(n: int) -> None:
    """Twelve comparisons that share baselines, as the table's do, so that they depend on each other."""
    accuracy = np.random.default_rng(n).normal(80, 1, (DRAWS, 13, n))
    p = paired_t(accuracy[:, 1:] - accuracy[:, :1])
    assert np.mean((holm(p) < ALPHA).any(axis=-1)) <= 0.05 + ERROR
    # Without the correction it would be far more.
    assert np.mean((p < ALPHA).any(axis=-1)) > 0.15


@pytest.mark.parametrize("images", [50, 300])
def test_accuracies_that_are_counts_make_no_more_false_claims(images: int) -> None:
    rng = np.random.default_rng(images)
    counts = rng.binomial(images, 0.8, (DRAWS, 2, 3))
    found = [p_value(row.tolist()) or 0.0 for row in 100 / images * (counts[:, 0] - counts[:, 1])]
    assert np.mean(np.asarray(found) < ALPHA) <= 0.05 + ERROR


def test_promised_power_comes_about() -> None:
    least = detectable(1.5, 5)
    values = np.random.default_rng(3).normal(least, 1.5, (DRAWS, 5))
    assert np.mean(paired_t(values) < ALPHA) == pytest.approx(0.8, abs=4 * sqrt(0.16 / DRAWS))

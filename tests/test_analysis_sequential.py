"""Seeds added while looking: the evidence against an integral, error rates by simulation, and what a report says."""

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

import analysis
from analysis.comparisons import comparisons, main_comparisons
from analysis.findings import findings
from analysis.questions import CONTROL, MAIN
from analysis.statistics.intervals import mean_interval
from analysis.statistics.sequential import EFFECT_VARIANCE, log_bayes_factor, sequential_interval, sequential_p
from analysis.statistics.significance import paired_t
from tests.analysis_study import Study, page_of, table, writer
from tests.test_analysis_significance import DRAWS, ERROR, SLEEP

LOOKS = range(3, 31)
DESIGN = {"negligible": 0.5, "most_seeds": 30}


def ever(differences: np.ndarray, mean: float = 0.0, level: float = 0.95) -> np.ndarray:
    """Number of seeds at which the interval first leaves out ``mean``, by study; 0 where it never does."""
    return np.array([next((n for n in LOOKS if leaves_out(row[:n], mean, level)), 0) for row in differences])


def leaves_out(values: np.ndarray, mean: float, level: float) -> bool:
    interval = sequential_interval(values.tolist(), level)
    assert interval is not None
    return interval.low is not None and interval.high is not None and not interval.low <= mean <= interval.high


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_evidence_is_the_mixture_of_noncentral_ts_over_the_central_one(n: int) -> None:
    t = stats.ttest_1samp(SLEEP[:n], 0.0).statistic
    prior = stats.norm(0, sqrt(EFFECT_VARIANCE))
    mixture, _ = integrate.quad(lambda d: stats.nct.pdf(t, n - 1, d * sqrt(n)) * prior.pdf(d), -12, 12, limit=200)
    assert np.exp(log_bayes_factor(SLEEP[:n])) == pytest.approx(mixture / stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 3])
def test_interval_ends_where_the_evidence_suffices(level: float) -> None:
    interval = sequential_interval(SLEEP, level)
    assert interval is not None and interval.low is not None and interval.high is not None
    for end in (interval.low, interval.high):
        assert sequential_p([value - end for value in SLEEP]) == pytest.approx(1 - level)


def test_few_seeds_and_no_spread_exclude_nothing() -> None:
    for values in ([1.0], [1.0, 1.1], [1.0, 1.1, 1.05], [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]):
        interval = sequential_interval(values)
        assert interval is not None and interval.half is None
    assert sequential_interval([]) is None
    assert sequential_p([1.0]) is None
    assert sequential_p([2.0] * 6) == 1.0


def normal(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0.0, 0.7, (DRAWS, LOOKS[-1]))


def accuracies(rng: np.random.Generator) -> np.ndarray:
    """Differences of counts out of 899 test images, whose expectation the seed draws for both nets."""
    share = np.clip(rng.normal(0.93, 0.01, (DRAWS, LOOKS[-1])), 0, 1)
    return np.asarray((rng.binomial(899, share) - rng.binomial(899, share)) / 8.99)


@pytest.mark.parametrize("draw", [normal, accuracies])
def test_looking_after_every_seed_keeps_the_error_rate(
    draw: Callable[[np.random.Generator], np.ndarray],
) -> None:
    null = draw(np.random.default_rng(0))
    assert (ever(null) > 0).mean() <= 0.05 + ERROR
    # The same looks with the ordinary t test are what this is for.
    looks = [paired_t(null[:, :n]) < 0.05 for n in LOOKS]
    assert np.any(looks, axis=0).mean() > 0.15


def test_planted_effects_are_found_and_the_interval_holds_where_one_stops() -> None:
    rng = np.random.default_rng(1)
    for effect, found, seeds in ((1.0, 0.95, 15), (2.0, 1.0, 8)):
        study = rng.normal(effect, 1.0, (500, LOOKS[-1]))
        stops = ever(study)
        assert (stops > 0).mean() >= found
        assert stops[stops > 0].mean() < seeds
        missed = [leaves_out(row[:stop], effect, 0.95) for row, stop in zip(study, stops, strict=True) if stop]
        assert np.mean(missed) <= 0.05
    # It costs: a number of seeds that is fixed beforehand gives a narrower interval.
    sequential, fixed = sequential_interval(SLEEP), mean_interval(SLEEP)
    assert sequential is not None and fixed is not None and (sequential.half or 0) > (fixed.half or 0)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    return writer(tmp_path / "study")


def test_a_report_says_that_seeds_were_added_and_judges_by_it(write: Callable[..., Path]) -> None:
    def change(study: Study) -> None:
        study.simulate({"Hybrid-TransferNet(S+K-)": 1.0, "Hybrid-TransferNet": 0.6}, spread=0.12)
        study.description["sequential"] = DESIGN

    folder = write(change, seeds=tuple(range(8)))
    results = analysis.load(folder)
    main = {one.question.name: one for one in main_comparisons(results)}
    assert list(main) == ["Sparsity (S)", "Knowledge (K)", "Sparsity with knowledge (S and K)"]
    for one in main.values():
        assert one.mean == sequential_interval(one.values, 1 - 0.05 / 3)
    assert main["Sparsity (S)"].shown and main["Knowledge (K)"].negligible
    rest = [one for one in comparisons(results) if one.question.kind != MAIN]
    assert all(one.mean == sequential_interval(one.values) for one in rest)
    for is_control in (False, True):
        family = [one for one in rest if (one.question.kind == CONTROL) == is_control]
        assert {one.family for one in family} == {len(family)}
    lines = findings(results)
    assert lines[0].startswith("Sparsity (S) helps on Digits: ")
    assert lines[1].startswith("Knowledge (K): less than 0.5 points either way: ")
    assert "Seeds were added while looking" in lines[-1] and "all are, after 8 of at most 30 seeds" in lines[-1]
    made = table(folder, "comparisons")
    assert [row[3] for row in made.rows[:2]] == ["better", "negligible"]
    assert made.data["seeds_needed"].isna().all()
    page = page_of(folder)
    assert "those of all other tables and figures do not" in page


def test_what_is_open_is_said(write: Callable[..., Path]) -> None:
    def change(study: Study) -> None:
        study.simulate({}, spread=1.0)
        study.description["sequential"] = DESIGN

    lines = findings(analysis.load(write(change, seeds=tuple(range(5)))))
    assert lines[0].startswith("Sparsity (S): no difference shown: ") and lines[0].endswith("(5 seeds); open.")
    assert "0 of 3 are, after 5 of at most 30 seeds" in lines[-1]
    early = findings(analysis.load(write(change)))
    assert early[0].endswith("(3 seeds); open, too early for an interval.")

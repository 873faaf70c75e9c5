"""Paired comparisons of few seeds: more is shown, hardly anything falsely, and cheap nets are called cheap."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.comparisons import comparisons
from analysis.findings import findings
from analysis.statistics.moderation import moderated_differences
from analysis.statistics.power import detectable, deviation_range, power
from analysis.tables.table import points_text
from benchmarks.moderation import PAIRS, STANDARD_ARMS, false_paired_claims, paired_p
from tests.analysis_study import Study, table, writer

Array = npt.NDArray[np.float64]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


def test_alike_variances_are_drawn_halfway_to_their_mean() -> None:
    values = np.array([0.5, 0.8, 1.0, 1.1, 1.3, 0.7, 0.9])
    found = moderated_differences(values, np.full(7, 3))
    assert found.values == pytest.approx((values + values.mean()) / 2)
    assert found.freedom.tolist() == [4.0] * 7 and found.moderated.all()
    assert "Variances are moderated" in found.reason


def test_others_never_count_more_than_two_seeds_nor_more_than_ones_own() -> None:
    values = np.array([0.5, 0.8, 1.0, 1.1, 1.3, 0.7, 0.9, 0.0])
    pairs = np.array([2, 3, 4, 5, 5, 4, 3, 3])
    extra = moderated_differences(values, pairs).freedom - (pairs - 1)
    assert extra.tolist() == [1, 2, 2, 2, 2, 2, 2, 2]
    assert moderated_differences(values, pairs).values[-1] > 0, "three seeds that happen to agree are no certainty"


@pytest.mark.parametrize(
    ("values", "pairs", "why"),
    [
        ([1.0] * 5, 3, "fewer than 6 comparisons have some spread"),
        ([1.0] * 8, 6, "there are seeds enough"),
        ([1e-4, 1e-4, 1e-4, 1e-4, 9.0, 9.0, 9.0, 9.0], 5, "they differ in spread"),
    ],
)
def test_own_variances_stay_where_others_say_nothing(values: list[float], pairs: int, why: str) -> None:
    found = moderated_differences(values, [pairs] * len(values))
    assert found.values.tolist() == values and not found.moderated.any() and why in found.reason


@pytest.mark.parametrize("deviations", [STANDARD_ARMS, (1.0, 1, 1, 1, 3, 3, 3, 1, 1, 1, 1), (3.0, *[1] * 10)])
def test_hardly_anything_is_claimed_falsely(deviations: tuple[float, ...]) -> None:
    studies = 400
    claims = studies * false_paired_claims(lambda rng: np.array(deviations), 3, studies, seed=1)[0]
    assert claims <= stats.binom.ppf(0.999, studies, 0.05)


def test_a_planted_effect_is_found_as_often_as_power_theory_says() -> None:
    rng, studies, effect, alpha = np.random.default_rng(0), 500, 4.0, 0.01
    found = plain = 0
    for _ in range(studies):
        accuracies = rng.standard_normal((len(STANDARD_ARMS), 3))
        accuracies[1] += effect * np.sqrt(2)
        moderated, own = paired_p(accuracies)
        found += moderated[0] < alpha
        plain += own[0] < alpha
    # The others' mean is nearly known: between what two more seeds give, and a spread that is known.
    assert power(effect, 3, alpha, 2) - 0.06 < found / studies
    assert plain / studies == pytest.approx(power(effect, 3, alpha), abs=0.06)
    assert found > 1.5 * plain


def test_studies_claim_more_with_moderated_variances(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.simulate({"Hybrid-TransferNet(S+K-)": 3.0}, spread=0.4, seed=3))
    found = {one.question.name: one for one in comparisons(analysis.load(folder))}
    one = found["Sparsity (S)"]
    assert one.moderated and one.shown and one.p_own is not None and one.p_own > 0.05 / one.family
    assert one.variance is not None and one.mean is not None and one.mean.half is not None and one.p is not None
    error = np.sqrt(one.variance / 3)
    assert one.p == pytest.approx(2 * stats.t.sf(one.mean.mean / error, one.freedom))
    assert one.mean.half == pytest.approx(stats.t.ppf(0.975, one.freedom) * error)
    assert "Variances are moderated" in findings(analysis.load(folder))[-1]
    row = table(folder, "comparisons").data.iloc[0]
    assert row["p_own"] == pytest.approx(stats.ttest_1samp(one.values, 0).pvalue) and row["verdict"] == "better"
    assert one.detectable(0.05) == pytest.approx(detectable(np.sqrt(one.variance), 3, others=one.freedom - 2))


def test_a_net_that_costs_little_is_called_cheap_and_one_beyond_the_margin_is_not(write: Callable[..., Path]) -> None:
    cheap, dear = "Sparse-TargetNet_C90", "Sparse-TargetNet_C98.75"
    folder = write(lambda study: study.simulate({cheap: -0.2, dear: -1.05}, spread=0.15), seeds=tuple(range(5)))
    lines = findings(analysis.load(folder))
    said = next(line for line in lines if line.startswith(cheap))
    assert said.startswith(f"{cheap} costs less than 1 point: ") or ", by less than 1 point" in said
    assert not any(line.startswith(dear) and "less than 1 point" in line for line in lines)


def test_beyond_the_margin_is_rarely_called_within() -> None:
    said = 0
    for seed in range(60):
        study = Study((0, 1, 2))
        study.simulate({"Sparse-TargetNet_C90": -1.02, "Sparse-TargetNet_C98.75": -1.02}, seed=seed)
        found = comparisons(study.results())
        said += any(one.within_margin for one in found if "_C" in one.question.net.name)
    assert said <= stats.binom.ppf(0.999, 60, 0.05)


def test_the_margin_is_the_studys(write: Callable[..., Path]) -> None:
    def change(study: Study) -> None:
        study.simulate({"Sparse-TargetNet_C90": -1.5}, spread=0.15)
        study.description["margin"] = 3.0

    lines = findings(analysis.load(write(change, seeds=tuple(range(5)))))
    assert any("Sparse-TargetNet_C90" in line and "less than 3 points" in line for line in lines)


def test_the_range_of_a_deviation_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    ranges = [deviation_range(float(rng.normal(0, 2, 5).std(ddof=1)), 4) for _ in range(2000)]
    assert np.mean([low < 2 < high for low, high in ranges]) == pytest.approx(0.95, abs=0.015)


def test_the_comparisons_that_are_simulated_share_nets_as_those_of_a_study_do() -> None:
    assert len(PAIRS) == 10 and {tuple(pair) for pair in PAIRS[:6].tolist()} == {(arm, 0) for arm in range(1, 7)}


def test_what_is_open_stands_on_one_line_and_the_picture_has_it_all(write: Callable[..., Path]) -> None:
    gains = {"Hybrid-TransferNet(S+K-)": 3.0, "Hybrid-TransferNet(S-K+)": -3.0}
    folder = write(lambda study: study.simulate(gains, spread=0.4, seed=3))
    results = analysis.load(folder)
    found = comparisons(results)
    open_ = [one for one in found if not one.shown and not one.within_margin]
    lines = findings(results, brief=True)
    (together,) = (line for line in lines if line.startswith("Open, with no difference shown: "))
    assert 2 <= len(open_) < len(found) and together.count("[") == len(open_)
    assert all(f"{one.question.name} {points_text(one.mean)}" in together for one in open_ if one.mean)
    (shown,) = (line for line in lines if line.startswith("Shown on Digits with "))
    assert shown.count("[") == sum(one.shown for one in found) >= 2
    # What is shown, what is cheap, what is open, the further claims, and what "shown" means.
    cheap = [one for one in found if one.within_margin and not one.shown]
    assert len(lines) == 4 + (len(cheap) > 0)
    page = analysis.report(folder)
    drawn = pd.read_csv(page.parent / "forest.csv")
    assert drawn["comparison"].tolist() == [one.question.name for one in found]
    for row, one in zip(drawn.to_dict("records"), found, strict=True):
        assert one.mean is not None and (row["mean"], row["low"]) == pytest.approx((one.mean.mean, one.mean.low))
    text = page.read_text(encoding="utf-8")
    assert (
        text.index("Open, with no ") < text.index('id="forest"') < text.index('id="table3"') < text.index("<details>")
    )
    assert text.count('id="table3"') == 1

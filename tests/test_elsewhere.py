"""Results from elsewhere, and variances moderated by those of other arms."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.__main__ import main
from analysis.elsewhere import Columns, Elsewhere, read_runs
from analysis.loading import StudyError
from analysis.statistics.moderation import moderated_variances, own_variances
from analysis.statistics.significance import holm
from analysis.tables.elsewhere import tables
from benchmarks.moderation import SCENARIOS, false_claims

COLUMNS = Columns("data_set", "net", "seed", "accuracy", "sparsity")
NETS = ("pruned", "grown", "random", "early", "late", "lottery")


def runs(data_sets: int = 3, count: int = 3, spread: float = 0.3, seed: int = 0) -> pd.DataFrame:
    """Six nets at two sparsities next to Dense; ``pruned`` loses two points, the others nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for place in range(data_sets):
        for net, sparsity in [("Dense", 0.0), *((net, s) for net in NETS for s in (0.8, 0.9))]:
            for run in range(count):
                accuracy = 80 - 2 * (net == "pruned") + spread * rng.standard_normal()
                rows.append((f"set {place}", net, sparsity, f"{net} {run}", accuracy))
    return pd.DataFrame(rows, columns=["data_set", "net", "sparsity", "seed", "accuracy"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "their_results.csv"
    runs().to_csv(path, index=False)
    return path


# Reading --------------------------------------------------------------------------------------------------------------


def test_shares_percent_blanks_and_empty_columns_are_read(file: Path, tmp_path: Path) -> None:
    table = runs()
    odd = tmp_path / "odd.csv"
    table["net"] = " " + table["net"] + "  "
    table["accuracy"] /= 100
    table["sparsity"] *= 100
    table.assign(**{"": np.nan}).rename(columns={"net": " method "}).to_csv(odd, index=False)
    read = read_runs(odd, Columns("data_set", "method", "seed", "accuracy", "sparsity"))
    pd.testing.assert_frame_equal(read, read_runs(file, COLUMNS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda table: table.rename(columns={"net": "method"}),
            r"no column 'net' \(--net\): there is data_set, method",
        ),
        (lambda table: table.assign(accuracy=table["accuracy"].astype(object).where(table.index != 4, "?")), "line 6"),
        (lambda table: table.assign(accuracy=table["accuracy"].where(table.index != 7, 180.0)), r"line 9 \(1 such"),
        (lambda table: pd.concat([table, table.head(2)]), r"line 119 \(2 such lines\): this run is there twice"),
        (lambda table: table.head(0), "has no rows"),
    ],
)
def test_what_is_no_run_is_named_with_its_line(change: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    assert callable(change)
    change(runs()).to_csv(path, index=False)
    with pytest.raises(StudyError, match=said):
        read_runs(path, COLUMNS)


def test_the_baseline_has_to_be_one_net_on_every_data_set(file: Path) -> None:
    read = read_runs(file, COLUMNS)
    with pytest.raises(StudyError, match=r"'dense' is none of the nets: Dense"):
        Elsewhere("theirs", read, "dense")
    with pytest.raises(StudyError, match="is there with 2 sparsities"):
        Elsewhere("theirs", read, "pruned")
    with pytest.raises(StudyError, match="was not run on set 1"):
        Elsewhere("theirs", read[(read["net"] != "Dense") | (read["data_set"] != "set 1")], "Dense")


# Comparing ------------------------------------------------------------------------------------------------------------


def test_each_arms_own_variance_gives_welchs_test(file: Path) -> None:
    read = read_runs(file, COLUMNS)
    rows = Elsewhere("theirs", read, "Dense").comparisons
    for row in rows.to_dict("records"):
        here = read[read["data_set"] == row["data_set"]]
        own = here[(here["net"] == row["net"]) & (here["sparsity"] == row["sparsity"])]["accuracy"]
        dense = here[here["net"] == "Dense"]["accuracy"]
        test = stats.ttest_ind(own, dense, equal_var=False)
        assert row["welch_p"] == pytest.approx(test.pvalue)
        low, high = test.confidence_interval(0.95)
        assert (row["welch_low"], row["welch_high"]) == pytest.approx((low, high))
    np.testing.assert_allclose(rows["welch_p_holm"], holm(rows["welch_p"]))


def test_a_planted_loss_is_shown_and_nothing_else(file: Path) -> None:
    results = Elsewhere("theirs", read_runs(file, COLUMNS), "Dense")
    rows = results.comparisons
    assert (rows["verdict"] == np.where(rows["net"] == "pruned", "loss", "open")).all()
    assert (rows["welch_verdict"] == "loss").sum() < 6  # with three runs, its own variance shows less
    assert results.variances.moderated.all()
    assert (
        results.findings()[0]
        == "36 comparisons with Dense on 3 data sets: 6 losses and 0 gains are shown; 30 are open."
    )


def test_what_costs_less_than_the_margin_is_told_from_what_is_open() -> None:
    table = runs(data_sets=2, count=5, spread=0.1)
    table.loc[table["net"] == "early", "accuracy"] -= 0.5
    table.loc[table["net"] == "late", "accuracy"] += 3 * np.resize([-1.0, 1.0, 0.0, 1.0, -1.0], 20)  # too wide to tell
    results = Elsewhere("theirs", table, "Dense", margin=1.0)
    found = results.comparisons.groupby("net")["verdict"].agg(set)
    assert found["pruned"] == {"loss"} and found["early"] == {"small loss"} and found["late"] == {"open"}
    assert found["grown"] == found["random"] == {"costs less"}
    assert "4 of the losses and 12 other nets are shown to cost less than 1 point" in results.findings()[0]


def test_one_family_holds_both_claims() -> None:
    read = runs()
    rows = Elsewhere("theirs", read, "Dense", margin=0.7).comparisons
    one_sided = []
    for row in rows.to_dict("records"):
        here = read[read["data_set"] == row["data_set"]]
        own = here[(here["net"] == row["net"]) & (here["sparsity"] == row["sparsity"])]["accuracy"]
        dense = here[here["net"] == "Dense"]["accuracy"]
        one_sided.append(stats.ttest_ind(own + 0.7, dense, equal_var=False, alternative="greater").pvalue)
    expected = holm(np.concatenate([rows["welch_p"], one_sided]))
    np.testing.assert_allclose([*rows["welch_p_holm"], *rows["welch_p_margin_holm"]], expected)


def test_at_the_margin_nothing_is_claimed_to_cost_less() -> None:
    """Of studies whose nets all cost just the margin, at most one in twenty may say otherwise of any."""
    studies, claims = 200, 0
    for seed in range(studies):
        table = runs(data_sets=1, seed=seed)
        table["accuracy"] += np.where(table["net"] == "pruned", 1.0, np.where(table["net"] == "Dense", 0.0, -1.0))
        verdicts = Elsewhere("theirs", table, "Dense", margin=1.0).comparisons["verdict"]
        claims += bool(verdicts.isin(["costs less", "small loss"]).any())
    assert stats.binomtest(claims, studies, 0.05, alternative="greater").pvalue > 0.01


def test_runs_that_are_all_alike_are_no_certainty() -> None:
    table = runs(data_sets=1)
    table["accuracy"] = np.where(table["net"] == "pruned", 78.0, 80.0)
    rows = Elsewhere("theirs", table, "Dense", margin=1.0).comparisons
    assert (rows["verdict"] == "open").all() and rows["p"].isna().all()


def test_a_baseline_without_an_error_has_no_relative_increase() -> None:
    table = runs(data_sets=1)
    table["accuracy"] = np.where(table["net"] == "Dense", 100.0, table["accuracy"])
    results = Elsewhere("theirs", table, "Dense")
    assert results.nets["error_increase"].isna().all() and (results.nets["difference"][1:] < 0).all()
    (nets,) = [one for one in tables(results) if one.name == "nets"]
    assert {row[5] for row in nets.rows} == {"\N{EN DASH}"}


def test_arms_with_one_run_show_nothing_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "single.csv"
    runs(count=1).to_csv(path, index=False)
    results = Elsewhere("theirs", read_runs(path, COLUMNS), "Dense")
    assert (results.comparisons["verdict"] == "open").all() and results.comparisons["p"].isna().all()
    assert "39 of 39 arms have a single run, which shows nothing." in results.findings()
    assert np.isfinite(results.comparisons["difference"]).all()


def test_ranks_and_friedmans_test(file: Path) -> None:
    read = read_runs(file, COLUMNS)
    ranks = Elsewhere("theirs", read, "Dense").ranks
    chosen = read[read["sparsity"].isin([0.0, 0.8])]
    means = chosen.groupby(["data_set", "net"])["accuracy"].mean().unstack()
    by_hand = stats.rankdata(-means.to_numpy(), axis=1).mean(0)
    own = ranks[ranks["sparsity"] == 0.8].set_index("net")["rank"]
    np.testing.assert_allclose(own[means.columns], by_hand)
    p = stats.friedmanchisquare(*means.to_numpy().T).pvalue
    assert ranks.loc[ranks["sparsity"] == 0.8, "friedman_p"].tolist() == pytest.approx([p] * 7)


# Moderation -----------------------------------------------------------------------------------------------------------


def test_variances_that_differ_by_chance_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    values, count, place = rng.chisquare(2, 60) / 2, np.full(60, 3), np.repeat([0, 1, 2], 20)
    found = moderated_variances(values, count, place)
    assert found.moderated.all() and "are moderated" in found.reason
    assert np.log(found.values).std() < 0.6 * np.log(values).std()
    assert (found.freedom == 4).all()  # its own two, and as many of the others at most
    order = np.argsort(values[:20])
    assert (np.diff(found.values[:20][order]) > 0).all()  # none overtakes another


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_where_arms_differ_each_keeps_its_own(share: float) -> None:
    rng = np.random.default_rng(2)
    true = np.where(rng.random(240) < share, 9.0, 1.0)
    values = true * rng.chisquare(2, 240) / 2
    found = moderated_variances(values, np.full(240, 3), np.repeat(np.arange(12), 20))
    assert not found.moderated.any() and "differ in spread" in found.reason
    np.testing.assert_array_equal(found.values, values)


def test_one_data_set_whose_arms_differ_is_left_out() -> None:
    rng = np.random.default_rng(3)
    values = rng.chisquare(4, 120) / 4
    values[:10] *= 60
    place = np.repeat(np.arange(6), 20)
    found = moderated_variances(values, np.full(120, 5), place)
    if found.moderated.any():  # the test of all together may have found it, too
        assert not found.moderated[:20].any()
    np.testing.assert_array_equal(found.values[:20], values[:20])


def test_few_arms_say_too_little() -> None:
    found = moderated_variances([1.0, 2.0, 3.0], [3, 3, 3], ["a", "a", "a"])
    assert not found.moderated.any() and "no data set has 6 arms" in found.reason


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1e6), min_size=6, max_size=40),
    st.integers(2, 6),
    st.floats(1e-3, 1e3),
)
def test_moderation_takes_any_variances_and_any_unit(values: list[float], count: int, unit: float) -> None:
    one = moderated_variances(values, [count] * len(values), ["a"] * len(values))
    other = moderated_variances([unit * value for value in values], [count] * len(values), ["a"] * len(values))
    assert np.isfinite(one.values).all() and (one.values >= 0).all()
    assert (one.freedom <= 2 * (count - 1)).all() and (one.freedom >= count - 1).all()
    if min(value for value in values if value > 0) > 1e-100 if any(values) else False:
        np.testing.assert_allclose(other.values, unit * one.values, rtol=1e-6)


def test_unpaired_is_welchs_closed_form() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([5.0, 5.5, 7.0, 8.0])
    own = own_variances([first.var(ddof=1), second.var(ddof=1)], [3, 4])
    p, error, freedom = own.unpaired(np.array([first.mean(), second.mean()]), np.array([0]), np.array([1]))
    test = stats.ttest_ind(first, second, equal_var=False)
    assert (p[0], freedom[0]) == pytest.approx((test.pvalue, test.df))
    assert error[0] == pytest.approx(np.sqrt(first.var(ddof=1) / 3 + second.var(ddof=1) / 4))


@pytest.mark.parametrize("name", ["as fitted to published results", "deviations 3 : 1, a fifth"])
def test_a_study_without_effects_claims_one_in_five_percent_at_most(name: str) -> None:
    """A small share of ``benchmarks.moderation``, whose figures are in benchmarks/README.md."""
    studies = 150
    moderated, _ = false_claims(*SCENARIOS[name], studies, seed=0)
    assert stats.binomtest(round(moderated * studies), studies, 0.05, alternative="greater").pvalue > 0.01


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_writes_a_report(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["import", str(file), "--sparsity", "sparsity", "--baseline", "Dense", "--margin", "1"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "6 losses and 0 gains are shown; 0 of the losses" in printed and "## Mean rank over data sets" in printed
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h1>their results</h1>" in page and "in brackets: open" in page and "<svg" in page
    data = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert len(data) == 36 and {"difference", "p_holm", "welch_p_holm", "verdict"} <= {*data.columns}
    again = tmp_path / "again"
    assert main([*arguments[:-1], str(again)]) == 0
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_the_pages_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"data_set": "dataset", "net": "method", "accuracy": "top1"}
    runs().rename(columns=names).to_csv(tmp_path / "runs.csv", index=False)
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "elsewhere.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    exec(block, scope)
    assert len(scope["results"].comparisons) == 36
    (command,) = re.findall(r"python -m analysis (import .*)", text)
    assert main(command.split()) == 0 and (tmp_path / "runs-report" / "index.html").is_file()


def test_the_command_says_what_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(file), "--net", "method", "--baseline", "Dense"]) == 2
    assert "analysis: " in (said := capsys.readouterr().err) and "no column 'method' (--net)" in said

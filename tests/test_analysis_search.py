"""The report of a hyperparameter search: its trials, figures and the sentences that are made from its numbers."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import analysis
from analysis.figures.paper import Plot
from analysis.figures.search import search_figures
from analysis.nets import outcomes
from analysis.search import LATENCY, SHARE, Trial, against, best_so_far, conclusion, front, gain, ranked, trials
from analysis.statistics.intervals import Interval
from analysis.tables.table import NOTHING
from study import schema
from tests.analysis_study import Study, columns, files_of, shown, table, writer

OWN = "this study's settings"
PLAIN: dict[int, dict[str, Any]] = {
    0: {"origin": "own", "val_accuracies": [80.0, 82.0], "hyperparameters": {"rate": 0.02, "kind": "a", "depth": 2}},
    1: {"state": "failed", "hyperparameters": {"rate": 0.1, "kind": "a", "depth": 1}},
    2: {"val_accuracies": [79.0, 80.0], "hyperparameters": {"rate": 0.0123456, "kind": "b", "depth": 3, "tau": 2.0}},
    3: {"state": "pruned", "hyperparameters": {"rate": 0.5, "kind": "b", "depth": 2, "tau": 4.0}},
    4: {"val_accuracies": [83.0, 85.0], "hyperparameters": {"rate": 0.1, "kind": "b", "depth": 2, "tau": 5.0}},
    5: {"val_accuracies": [80.5, 81.5], "hyperparameters": {"rate": 0.1, "kind": "a", "depth": 2}},
    6: {"state": "pruned", "hyperparameters": {"rate": 0.5, "kind": "a", "depth": 2}},
}
PLAIN = {number: {"prune_percent": 60.0 if "val_accuracies" in row else None, **row} for number, row in PLAIN.items()}
PLAIN[4]["best"] = True
SHARES = {"depth": (0.1, 0.3), "rate": (0.5, 0.7), "kind": (0.4, 0.0)}


def small(number: int, accuracy: float, pruned: float, **more: Any) -> dict[int, dict[str, Any]]:
    values = {"target_keep": 1 - pruned / 100}
    return {number: {"val_accuracies": [accuracy], "prune_percent": pruned, "hyperparameters": values, **more}}


# On the front, the least pruned first: 3, 1, 4. Trial 0 loses to 4, trial 2 to 1, trial 5 to 4.
SMALL = {
    **small(0, 80.0, 90.0, origin="own"),
    **small(1, 82.0, 80.0, best=True),
    **small(2, 82.0, 75.0),
    **small(3, 84.0, 50.0),
    **small(4, 80.5, 95.0, best=True),
    **small(5, 80.5, 94.0),
}


def fast(number: int, accuracy: float, latency: float, **more: Any) -> dict[int, dict[str, Any]]:
    row = {"val_accuracies": [accuracy], "prune_percent": 60.0, "latency_percent": latency, "latency_ms": latency / 200}
    return {number: {**row, "hyperparameters": {"neuron_steps": number}, **more}}


# On the front, the slowest first: 0, 3, 1. Trial 2 is slower than 1 and no better; 4 is worse than 3 and as slow.
FAST = {
    **fast(0, 84.0, 100.0, origin="own", best=True),
    **fast(1, 80.0, 86.25, best=True),
    **fast(2, 80.0, 91.0),
    **fast(3, 82.0, 93.5, best=True),
    **fast(4, 81.0, 93.5),
    5: {"state": "failed", "hyperparameters": {"neuron_steps": 5}},
}


def latency(study: Study) -> None:
    study.search(FAST, {OWN: 80.0, "trial 0": 80.0, "trial 3": 81.0, "trial 1": 79.0})


def plain(study: Study) -> None:
    study.search(PLAIN, {OWN: 80.0, "trial 4": 84.0}, SHARES)


def both(study: Study) -> None:
    study.search(SMALL, {OWN: 80.0, "trial 4": 81.0, "trial 1": 84.0})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with one objective and its report, for tests that only read."""
    folder = writer(tmp_path_factory.mktemp("search") / "study")(plain)
    analysis.report(folder)
    return folder


def of(rows: Mapping[int, Mapping[str, Any]], write: Callable[..., Path]) -> list[Trial]:
    return trials(analysis.load(write(lambda study: study.search(rows, {OWN: 80.0}))))


def plots(folder: Path) -> dict[str, Plot]:
    return {plot.name: plot for plot in search_figures(analysis.load(folder))}


def sentences(folder: Path) -> list[str]:
    results = analysis.load(folder)
    return conclusion(results, outcomes(results))


def legend(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.figure.legends[0].get_texts()]


def line(plot: Plot, label: str, panel: int = 0) -> tuple[list[float], list[float]]:
    found = next(line for line in plot.figure.axes[panel].lines if line.get_label() == label)
    return np.asarray(found.get_xdata()).tolist(), np.asarray(found.get_ydata()).tolist()


def test_other_studies_have_no_search(write: Callable[..., Path]) -> None:
    results = analysis.load(write())
    assert results.trials is results.importance is None
    assert sentences(write()) == []
    assert search_figures(results) == []
    assert "Search" not in analysis.markdown_summary(results)


def test_search_of_another_version_is_refused(write: Callable[..., Path]) -> None:
    folder = write(plain)
    pq.write_table(pq.read_table(folder / "trials.parquet").drop_columns(["origin"]), folder / "trials.parquet")
    with pytest.raises(analysis.StudyError, match=r"trials\.parquet lacks the columns origin"):
        analysis.load(folder)


def test_trials_are_ranked_by_validation_accuracy(folder: Path) -> None:
    text = shown(folder, "search_trials")
    # Trials 0 and 5 both have 81: the earlier one first.
    names = ["4 (best)", f"0 ({OWN})", "5", "2", "3", "6", "1"]
    assert list(text)[2:] == names
    assert text["4 (best)"] == [
        *("complete", "sampler", "84.0", "83.0 · 85.0", "60.0"),
        "rate = 0.1, kind = b, depth = 2, tau = 5",
    ]
    assert text["3"][:5] == ["pruned", "sampler", NOTHING, NOTHING, NOTHING]
    assert text["2"][5] == "rate = 0.0123, kind = b, depth = 3, tau = 2"
    assert table(folder, "search_trials").title.endswith("selection by validation data")


def test_csv_has_a_column_a_hyperparameter(folder: Path) -> None:
    text = (folder / "report" / "search_trials.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["trial"] for row in rows] == ["4", "0", "5", "2", "3", "6", "1"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "", "", ""]
    last = {"rate": "0.0123456", "kind": "b", "depth": "3", "tau": "2.0"}
    assert rows[3] == {
        **{"rank": "4", "trial": "2", "state": "complete", "origin": "sampler", "best": "False"},
        **{"val_accuracy": "79.5", "val_accuracy_1": "79.0", "val_accuracy_2": "80.0", "prune_percent": "60.0"},
        **last,
    }
    assert (rows[1]["tau"], rows[4]["val_accuracy_1"]) == ("", "")


def test_latex_wraps_the_hyperparameters(folder: Path) -> None:
    text = (folder / "report" / "search_trials.tex").read_text(encoding="utf-8")
    assert r"\begin{tabular}{lrrrrp{0.45\linewidth}}" in text


def test_screen_has_the_conclusion_and_the_best_five(folder: Path) -> None:
    summary = analysis.markdown_summary(folder)
    assert all(f"- {sentence}\n" in summary for sentence in sentences(folder))
    trials_part = summary.partition("## Trials")[2].partition("## Final")[0]
    assert list(columns(trials_part))[2:] == ["4 (best)", f"0 ({OWN})", "5", "2", "3"]
    assert "- 2 more in the report and in search_trials.csv." in trials_part


def test_history_has_every_trial_and_the_best_so_far(folder: Path) -> None:
    plot = plots(folder)["search_history"]
    assert best_so_far(trials(analysis.load(folder))) == {0: 81.0, 2: 81.0, 4: 84.0, 5: 84.0}
    assert line(plot, "highest so far") == ([0, 2, 4, 5, 6], [81, 81, 84, 84, 84])
    assert line(plot, "complete trial") == ([0, 2, 4, 5], [81.0, 79.5, 84.0, 81.0])
    assert line(plot, "pruned")[0] == [3, 6]
    assert line(plot, "failed")[0] == [1]
    assert line(plot, OWN) == ([0], [81.0])
    assert line(plot, "best trial") == ([4], [84.0])
    axes = plot.figure.axes[0]
    foot = max(line(plot, state)[1][0] for state in ("pruned", "failed"))
    low, high = axes.get_ylim()
    # The lowest seed, 79, is above the crosses.
    assert low + foot * (high - low) < 79
    assert plot.data["best_so_far"].tolist() == [81, 81, 81, 81, 84, 84, 84]
    assert plot.data["val_accuracy"].isna().tolist() == [False, True, False, True, False, False, True]


def test_importance_is_the_mean_over_seeds(folder: Path) -> None:
    plot = plots(folder)["search_importance"]
    assert plot.data["hyperparameter"].tolist() == ["rate", "depth", "kind"]
    assert plot.data["mean"].tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert plot.data["seed_1"].tolist() == [0.7, 0.3, 0.0]
    assert "from 7 complete trials" in plot.caption
    assert "mean over 2 seeds of the search" in plot.caption


def test_no_importance_no_figure(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.search(PLAIN, {OWN: 80.0, "trial 4": 84.0}))
    importance = analysis.load(folder).importance
    assert importance is not None
    assert importance.empty
    assert list(plots(folder)) == ["search_history", "search_slices"]
    assert "search_importance" not in analysis.report(folder).read_text(encoding="utf-8")


def test_slices_show_complete_trials_only(folder: Path) -> None:
    plot = plots(folder)["search_slices"]
    panels = [axes for axes in plot.figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["rate", "kind", "depth", "tau"]
    # 0.1 / 0.0123456 is just over 8; the pruned trial's 0.5 does not count.
    assert [axes.get_xscale() for axes in panels] == ["log", "linear", "linear", "linear"]
    assert [label.get_text() for label in panels[1].get_xticklabels()] == ["a", "b"]
    assert line(plot, "complete trial", 1) == ([0, 1, 1, 0], [81.0, 79.5, 84.0, 81.0])
    assert line(plot, "complete trial", 3) == ([2.0, 5.0], [79.5, 84.0])
    assert line(plot, OWN, 2) == ([2.0], [81.0])
    assert legend(plot) == ["complete trial", "best trial", OWN]
    assert plot.data["hyperparameter"].value_counts().to_dict() == {"rate": 4, "kind": 4, "depth": 4, "tau": 2}


def test_single_value_is_the_only_tick(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.search({0: PLAIN[0]}, {OWN: 80.0}))
    ticks = [
        [label.get_text() for label in axes.get_xticklabels()] for axes in plots(folder)["search_slices"].figure.axes
    ]
    assert ticks == [["0.02"], ["a"], ["2"]]


def test_front_is_joined_from_the_least_pruned_on(write: Callable[..., Path]) -> None:
    made = of(SMALL, write)
    assert against(made) is SHARE
    assert [trial.number for trial in front(made, SHARE)] == [3, 1, 4]
    plot = plots(write(both))["search_front"]
    assert line(plot, "front of the trials") == ([50.0, 20.0, 5.0], [84.0, 82.0, 80.5])
    assert line(plot, OWN) == ([10.0], [80.0])
    assert line(plot, "finalist") == ([20.0, 5.0], [82.0, 80.5])
    assert plot.figure.axes[0].get_xscale() == "log"
    data = plot.data.set_index("trial")
    assert data.index.tolist() == [3, 2, 1, 0, 5, 4]
    assert data["front"].tolist() == [True, False, True, False, False, True]


def test_equal_trials_are_both_on_the_front(write: Callable[..., Path]) -> None:
    made = of(small(0, 80.0, 90.0) | small(1, 80.0, 90.0), write)
    assert [trial.number for trial in front(made, SHARE)] == [0, 1]


def test_front_against_latency_ends_with_the_fastest(write: Callable[..., Path]) -> None:
    made = of(FAST, write)
    assert against(made) is LATENCY
    assert [trial.number for trial in front(made, LATENCY)] == [0, 3, 1]
    plot = plots(write(latency))["search_front"]
    assert line(plot, "front of the trials") == ([100.0, 93.5, 86.25], [84.0, 82.0, 80.0])
    assert line(plot, OWN) == ([100.0], [84.0])
    assert line(plot, "finalist") == ([100.0, 86.25, 93.5], [84.0, 80.0, 82.0])
    axes = plot.figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("linear", "latency, % of the unpruned net's")
    data = plot.data.set_index("trial")
    assert data["latency_percent"].to_dict() == {1: 86.25, 2: 91.0, 3: 93.5, 4: 93.5, 0: 100.0}
    assert data.index[data["front"]].tolist() == [1, 3, 0]
    assert "only removed neurons save some" in plot.caption


def test_front_is_what_no_trial_beats(write: Callable[..., Path]) -> None:
    # Few values, so that many trials are equal in one of the two or in both.
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (40, 2)).tolist()
    rows = {number: fast(number, 80.0 + a, 90.0 + t)[number] for number, (a, t) in enumerate(values)}
    made = of(rows, write)
    beaten = {
        number for number, (a, t) in enumerate(values) for b, s in values if (b >= a and s < t) or (b > a and s <= t)
    }
    assert {trial.number for trial in front(made, LATENCY)} == set(range(40)) - beaten


def test_latency_is_told_with_its_unit(write: Callable[..., Path]) -> None:
    folder = write(latency)
    text = shown(folder, "search_trials")
    assert text[f"0 ({OWN}, front)"][5:7] == ["100.0", "0.5"]
    assert text["1 (front)"][4:7] == ["60.0", "86.2", "0.431"]
    assert text["5"][4:7] == [NOTHING, NOTHING, NOTHING]
    assert any(note.startswith("Latency: median time") for note in table(folder, "search_trials").notes)
    lines = sentences(folder)
    assert lines[1] == (
        "3 trials are on the front of validation accuracy and latency; 3 went to the final test; "
        f"{OWN} (trial 0) have 84.0 %, latency 100.0 % of the unpruned net's."
    )
    assert "trial 1 (validation 80.0 %, latency 86.2 % of the unpruned net's)" in lines[-1]
    analysis.report(folder)
    rows = list(csv.DictReader((folder / "report" / "search_trials.csv").open(encoding="utf-8")))
    assert (rows[0]["latency_percent"], rows[0]["latency_ms"]) == ("100.0", "0.5")


def test_nets_that_are_equally_sparse_have_no_front(folder: Path) -> None:
    assert list(plots(folder)) == ["search_history", "search_importance", "search_slices"]


def test_gain_is_told_with_its_interval(folder: Path) -> None:
    # Seeds of trial 4: 84 + (-0.4, -0.1, 0.7); of the own settings: 81.6, 81.9, 82.7. All differences are 2.
    assert sentences(folder) == [
        "7 trials: 4 complete, 2 pruned, 1 failed.",
        "By validation accuracy (mean over 2 seeds of the search) trial 4 is best with 84.0 %; "
        f"{OWN} (trial 0) have 81.0 %.",
        f"On the test set, trial 4 against {OWN}: a gain, +2.00 percentage points (95 % interval +2.00 to +2.00, "
        "3 final seeds).",
    ]


def test_no_difference_is_called_one_where_the_interval_has_zero(write: Callable[..., Path]) -> None:
    def fill(study: Study) -> None:
        study.search(PLAIN, {OWN: 80.0, "trial 4": 82.2})
        # 82.0, 81.8, 83.2 next to 81.6, 81.9, 82.7: differences 0.4, -0.1, 0.5; mean 0.2667, s = 0.32146, half 0.7985.
        for stage, accuracy in zip((0, 1, 2), (82.0, 81.8, 83.2), strict=True):
            row = next(row for row in study.rows["stages"] if row["stage"].endswith(f"trial 4-{stage}"))
            row["test_accuracy"] = accuracy

    assert sentences(write(fill))[-1] == (
        f"On the test set, trial 4 against {OWN}: no difference shown, +0.27 percentage points "
        "(95 % interval \N{MINUS SIGN}0.53 to +1.07, 3 final seeds)."
    )


def test_one_final_seed_shows_nothing(write: Callable[..., Path]) -> None:
    assert sentences(write(plain, seeds=(0,)))[-1] == (
        f"On the test set, trial 4 against {OWN}: +2.00 percentage points with one final seed, which has no interval, "
        "so no difference shown."
    )


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (None, "no result, as no final seed has both nets"),
        (
            Interval(-1.0, 0.5, 3),
            "a loss, \N{MINUS SIGN}1.00 percentage points (95 % interval \N{MINUS SIGN}1.50 to \N{MINUS SIGN}0.50, "
            "3 final seeds)",
        ),
        (
            Interval(0.5, 0.5, 2),
            "no difference shown, +0.50 percentage points (95 % interval +0.00 to +1.00, 2 of 3 final seeds)",
        ),
        (
            Interval(0.5, None, 1),
            "+0.50 percentage points with 1 of 3 final seeds, which has no interval, so no difference shown",
        ),
    ],
)
def test_gain_in_words(difference: Interval | None, text: str) -> None:
    assert gain(difference, 3) == text


def test_every_finalist_of_the_front_has_its_gain(write: Callable[..., Path]) -> None:
    lines = sentences(write(both))
    assert lines[:2] == [
        "6 trials: 6 complete.",
        "3 trials are on the front of validation accuracy and share of connections pruned; 2 went to the final test; "
        f"{OWN} (trial 0) have 80.0 %, 90.0 % pruned.",
    ]
    assert [text.partition(" percentage")[0] for text in lines[2:]] == [
        f"On the test set, trial 4 (validation 80.5 %, 95.0 % pruned) against {OWN}: a loss, \N{MINUS SIGN}1.00",
        # 84 + 2 * wiggle: differences 2.1, 1.8, 2.3.
        f"On the test set, trial 1 (validation 82.0 %, 80.0 % pruned) against {OWN}: a gain, +2.07",
    ]


def test_own_settings_that_win_leave_nothing_to_compare(write: Callable[..., Path]) -> None:
    def own_wins(study: Study) -> None:
        rows = {number: row | {"best": number == 0} for number, row in PLAIN.items() if number != 4}
        study.search(rows, {OWN: 80.0, "trial 0": 80.0})
        for row in study.rows["cells"]:
            row["stage"] = row["path"][-1] = f"Hybrid-TransferNet-{row['seed']}"

    assert sentences(write(own_wins))[1:] == [
        f"By validation accuracy (mean over 2 seeds of the search) no trial is better than {OWN} (trial 0): 81.0 %.",
        f"On the test set there is nothing to compare: trial 0 produces the same nets as {OWN}.",
    ]


def test_search_without_a_complete_trial(write: Callable[..., Path]) -> None:
    rows = {0: PLAIN[0] | {"state": "failed", "val_accuracies": [], "prune_percent": None}, 1: PLAIN[3]}
    folder = write(lambda study: study.search(rows, {OWN: 80.0}))
    assert sentences(folder) == ["2 trials: 1 pruned, 1 failed.", "No trial is complete."]
    assert plots(folder) == {}
    assert [trial.number for trial in ranked(trials(analysis.load(folder)))] == [1, 0]
    analysis.report(folder)


def test_own_settings_that_were_stopped_are_told(write: Callable[..., Path]) -> None:
    own = PLAIN[0] | {"state": "pruned", "val_accuracies": []}
    folder = write(lambda study: study.search(PLAIN | {0: own}, {OWN: 80.0, "trial 4": 84.0}))
    text = f"{OWN} (trial 0) have no validation accuracy to compare with: pruned."
    assert sentences(folder)[1].endswith(text)
    assert OWN not in legend(plots(folder)["search_history"])


def test_another_net_is_compared_with_the_own_settings(write: Callable[..., Path]) -> None:
    def other(study: Study) -> None:
        plain(study)
        for row in study.rows["cells"]:
            if row["point"] == "trial 4":
                row["net"] = "Standard-TransferNet"

    text = columns(files_of(write(other))["axis_search.md"])
    assert list(text)[2:] == ["Hybrid-TransferNet", "Standard-TransferNet"]
    assert text["Standard-TransferNet"][-1] == "+2.0 ± 0.0"
    assert "a gain, +2.00" in sentences(write(other))[-1]


def test_page_has_the_search_before_the_ablations_and_loads_nothing(write: Callable[..., Path]) -> None:
    def more(study: Study) -> None:
        plain(study)
        study.axis("tau", {"tau = 1": 1.0, "tau = 4": 4.0}, "tau = 4", {"tau = 1": 80.0, "tau = 4": 81.0})

    folder = write(more)
    page = analysis.report(folder).read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>([^<]*)", page) == [
        "How to read",
        "Search",
        "Ablations",
        "Checklists",
        "Cost",
        "Provenance",
    ]
    assert re.findall(r"<h3>([^<]*)", page) == ["tau"]
    assert "trial 4 is best with 84.0 %" in page
    assert "Final test of the search: Hybrid-TransferNet on Digits" in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {"axis_search", "axis_search-figure", "search_trials", "search_history", "search_slices"} <= set(ids)
    assert {a or b for a, b in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)} <= set(ids)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.replace("http-equiv", ""))
    assert re.findall(r"<(?:script [^>]*src|link|img|iframe|object|embed)\b", page) == []


def test_reports_are_the_same_twice(folder: Path, tmp_path: Path) -> None:
    again = analysis.report(folder, tmp_path / "again").parent
    names = [path.name for path in again.iterdir()]
    assert [name for name in names if (again / name).read_bytes() != (folder / "report" / name).read_bytes()] == []


def test_stale_files_of_a_search_are_removed(write: Callable[..., Path]) -> None:
    folder = write(both)
    report = analysis.report(folder).parent
    (report / "search_mine.txt").write_text("mine", encoding="utf-8")
    assert len(list(report.glob("search_front.*"))) == 3
    for name in schema.SEARCH_TABLES:
        (folder / f"{name}.parquet").unlink(missing_ok=name == "ablation_path")
    analysis.report(folder)
    assert {path.name for path in report.glob("search_*")} == {"search_mine.txt"}

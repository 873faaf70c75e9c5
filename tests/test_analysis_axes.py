"""The tables and figures of ablation axes, next to a report that they must not disturb."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import analysis
from analysis.axes import axes
from analysis.figures.axes import VALIDATION as HOLLOW
from analysis.figures.axes import axis_figure, is_log
from analysis.figures.paper import Plot
from analysis.nets import outcomes
from analysis.tables.axes import OWN
from analysis.tables.table import NOTHING
from tests.analysis_study import SEEDS, Study, files_of, page_of, records, shown, table, writer

TAUS = {f"tau = {tau}": float(tau) for tau in (1, 2, 4, 8)}
TAU_ACCURACY = {"tau = 1": 78.0, "tau = 2": 81.0, "tau = 4": 82.0, "tau = 8": 83.0}
WAYS = {"this study's schedule": None, "one-shot": None, "2 steps": None}
CROSSING = {f"tau = {tau}, lambda = {weight:g}": None for tau in (1, 2, 4, 8, 16) for weight in (0, 0.5, 1, 2)}


def tau(study: Study) -> None:
    study.axis("tau", TAUS, "tau = 4", TAU_ACCURACY)


def n_m(study: Study) -> None:
    points = {f"N_m = {n}": float(n) for n in (1, 2, 3)}
    accuracy = {"N_m = 1": 70.0, "N_m = 2": 71.0, "N_m = 3": 72.0}
    study.axis("n_m", points, "N_m = 2", accuracy)
    study.axis("n_m", points, "N_m = 2", accuracy, net="Standard-TransferNet", sparsity="none", knowledge="none")


def ways(study: Study) -> None:
    accuracy = {"this study's schedule": 77.0, "one-shot": 70.0, "2 steps": 71.0}
    study.axis("target-schedule", WAYS, "this study's schedule", accuracy, net="Sparse-TargetNet_C97.5")


def crossing(study: Study) -> None:
    study.axis("tau-x-lambda", CROSSING, "tau = 4, lambda = 1", dict.fromkeys(CROSSING, 80.0))


def everything(study: Study) -> None:
    for add in (tau, n_m, ways, crossing):
        add(study)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with axes of every sort and its report, for tests that only read."""
    folder = writer(tmp_path_factory.mktemp("axes") / "study")(everything)
    analysis.report(folder)
    return folder


def plot(folder: Path, ablation: str) -> Plot:
    results = analysis.load(folder)
    axis = next(axis for axis in axes(outcomes(results)) if axis.ablation == ablation)
    made = axis_figure(results, axis)
    assert made is not None
    return made


def test_points_stand_in_order_with_their_differences(folder: Path) -> None:
    text = shown(folder, "axis_tau")
    assert text["point"] == [
        "seeds",
        "validation ACC %",
        "ACC %",
        "ACC %, each seed (0, 1, 2)",
        "Prune %",
        f"ACC % minus {OWN}",
        "ACC % minus Standard-TransferNet",
    ]
    assert list(text)[2:] == ["tau = 1", "tau = 2", f"tau = 4 ({OWN})", "tau = 8"]
    # 81.6, 81.9, 82.7, as in Table 1: it is the paper's stage.
    own = ["3", "81.1 ± 1.4", "82.1 ± 1.4", "81.6 · 81.9 · 82.7", "63.8", NOTHING, "+2.1 ± 0.6"]
    assert text[f"tau = 4 ({OWN})"] == own
    # 77.5, 78.1, 78.4 next to it: differences -4.1, -3.8, -4.3, so mean -4.0667, s = 0.251661, half-width 0.6252.
    assert text["tau = 1"][-2:] == ["\N{MINUS SIGN}4.1 ± 0.6", "\N{MINUS SIGN}2.0 ± 0.0"]
    row = records(folder, "axis_tau")["tau = 1"]
    assert float(row["diff_own_mean"]) == pytest.approx(-4.06667, abs=1e-4)
    assert float(row["diff_own_ci_low"]) == pytest.approx(-4.69183, abs=1e-4)
    assert float(row["diff_own_ci_high"]) == pytest.approx(-3.44151, abs=1e-4)
    assert (row["diff_own_pairs"], row["diff_pairs"]) == ("3", "3")
    assert float(row["diff_mean"]) == pytest.approx(-2.0)


def test_csv_holds_every_point_and_seed(folder: Path) -> None:
    rows = records(folder, "axis_tau")
    assert [row["point_index"] for row in rows.values()] == ["0", "1", "2", "3"]
    assert [row["point_value"] for row in rows.values()] == ["1.0", "2.0", "4.0", "8.0"]
    assert [row["own_point"] for row in rows.values()] == ["False", "False", "True", "False"]
    row = rows["tau = 1"]
    assert [float(row[f"seed_{seed}"]) for seed in SEEDS] == pytest.approx([77.5, 78.1, 78.4])
    assert [float(row[f"val_seed_{seed}"]) for seed in SEEDS] == pytest.approx([76.5, 77.1, 77.4])
    assert float(row["val_mean"]) == pytest.approx(77.0)
    assert float(row["standard_mean"]) == pytest.approx(80.0)
    assert rows["tau = 4"]["diff_own_mean"] == ""
    assert (folder / "report" / "axis_tau.csv").read_text(encoding="utf-8").count("\n") == 5
    text = (folder / "report" / "axis_tau.tex").read_text(encoding="utf-8")
    assert "tau = 4 (this study's setting) &" in text and "In every row, seeds: 3." in text


def test_order_is_the_index_and_not_the_row(write: Callable[..., Path]) -> None:
    def mix(study: Study) -> None:
        tau(study)
        study.rows["cells"].reverse()

    assert list(records(write(mix), "axis_tau")) == list(TAUS)


def test_each_net_of_an_axis_is_compared_with_itself(folder: Path) -> None:
    made = table(folder, "axis_n_m")
    assert [row[:2] for row in made.rows] == [
        [net, f"N_m = {n}" + f" ({OWN})" * (n == 2)]
        for net in ("Standard-TransferNet", "Hybrid-TransferNet")
        for n in (1, 2, 3)
    ]
    minus_own = [row[-2] for row in made.rows]
    assert minus_own[1] == minus_own[4] == NOTHING
    # Standard 80, Hybrid 82.0667 at the study's own setting.
    assert [text.split(" ")[0] for text in (minus_own[0], minus_own[3])] == ["\N{MINUS SIGN}10.0", "\N{MINUS SIGN}12.1"]
    assert [row[-1] == NOTHING for row in made.rows] == [False, True, False, False, False, False]
    labels = [text.get_text() for text in plot(folder, "n_m").figure.legends[0].get_texts()]
    assert labels == [f"Standard-TransferNet at {OWN}", OWN, HOLLOW, "Standard-TransferNet", "Hybrid-TransferNet"]


def test_points_that_are_one_net_are_told(write: Callable[..., Path]) -> None:
    def fill(study: Study) -> None:
        values = {"N_m = 0": 70.0, "N_m = 1": 0.0, "N_m = 2": 80.0}
        study.axis("n_m", {name: float(n) for n, name in enumerate(values)}, "N_m = 2", values)
        for row in study.rows["cells"]:
            if row.get("point") == "N_m = 1":
                row["stage"] = row["stage"].replace("N_m = 1", "N_m = 0")

    assert "The same net: N_m = 0 and N_m = 1." in table(write(fill), "axis_n_m").notes


def test_other_tables_and_figures_do_not_see_the_axes(folder: Path, write: Callable[..., Path]) -> None:
    without, report = analysis.report(write()).parent, folder / "report"
    # What the axes cost is for the costs to say.
    of_all = {"index.html", "report.json", *(f"costs.{ending}" for ending in ("md", "csv", "tex"))}
    names = {file.name for file in without.iterdir()} - of_all
    assert {file.name for file in report.iterdir() if not file.name.startswith("axis_")} - of_all == names
    assert [name for name in names if (without / name).read_bytes() != (report / name).read_bytes()] == []


@pytest.mark.parametrize(
    ("values", "log"),
    [((1, 2, 4, 8), True), ((1, 2, 4), False), ((0, 1, 8), False), ((-1, 1, 8), False), ((0.25, 0.5, 2), True)],
)
def test_wide_positive_numbers_are_drawn_by_their_logarithm(
    values: tuple[float, ...], log: bool, write: Callable[..., Path]
) -> None:
    def add(study: Study) -> None:
        points = {f"x = {value:g}": float(value) for value in values}
        study.axis("x", points, f"x = {values[1]:g}", dict.fromkeys(points, 80.0))

    folder = write(add)
    assert is_log(axes(outcomes(analysis.load(folder)))[0]) == log
    drawn = plot(folder, "x").figure.axes[0]
    assert drawn.get_xlabel() == "x" + " (log scale)" * log
    assert [label.get_text() for label in drawn.get_xticklabels()] == [f"{value:g}" for value in values]
    gaps = [right - left for left, right in pairwise(drawn.get_xticks())]
    assert (gaps[0] == pytest.approx(gaps[1])) == (values in [(1, 2, 4, 8)])


def test_own_point_and_standard_are_marked(folder: Path) -> None:
    made = plot(folder, "tau")
    labels = [text.get_text() for text in made.figure.legends[0].get_texts()]
    assert labels == ["Standard-TransferNet", OWN, HOLLOW, "Hybrid-TransferNet"]
    assert made.caption == (
        "Ablation tau: test accuracy of Hybrid-TransferNet on Digits. Mean over seeds with 95 % interval; faint: each "
        f"seed; {HOLLOW}, by which to choose; yellow: {OWN}; level line with band: Standard-TransferNet. The axis is "
        "logarithmic."
    )


def test_crowded_numbers_leave_the_own_ones_label(write: Callable[..., Path]) -> None:
    def add(study: Study) -> None:
        points = {f"x = {value:g}": value for value in (0.03125, 0.0325, 0.033, 0.5, 1.0)}
        study.axis("x", points, "x = 0.0325", dict.fromkeys(points, 80.0))

    made = plot(write(add), "x")
    made.png()
    labels = made.figure.axes[0].get_xticklabels()
    assert [label.get_text() for label in labels] == ["0.0325", "0.5", "1"]
    assert all(left.get_window_extent().x1 < right.get_window_extent().x0 for left, right in pairwise(labels))


def test_names_stand_below_each_other_in_order(folder: Path) -> None:
    for ablation, points in (("target-schedule", WAYS), ("tau-x-lambda", CROSSING)):
        made = plot(folder, ablation)
        made.png()
        labels = made.figure.axes[0].get_yticklabels()
        assert [label.get_text() for label in labels] == list(points)
        boxes = [label.get_window_extent() for label in labels]
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
        assert "logarithmic" not in made.caption
    assert {row["point_value"] for row in records(folder, "axis_target-schedule").values()} == {""}


def test_failed_point_stands_in_table_figure_and_failures(write: Callable[..., Path]) -> None:
    def fail(study: Study) -> None:
        tau(study)
        study.fail("tau-Hybrid-TransferNet-tau = 2-1", "no memory")
        for seed in SEEDS:
            study.fail(f"tau-Hybrid-TransferNet-tau = 8-{seed}", "diverged")

    folder = write(fail)
    text = shown(folder, "axis_tau")
    assert text["tau = 2"][0] == "2 of 3"
    assert text["tau = 2"][3].split(" · ")[1] == "failed"
    # Seeds 0 and 2 have 80.6 and 81.7, each 1.0 less than at tau = 4; t with one degree of freedom is at 12.7062.
    assert text["tau = 2"][2] == "81.2 ± 7.0"
    assert text["tau = 2"][5] == "\N{MINUS SIGN}1.0 ± 0.0"
    assert text["tau = 8"] == ["0 of 3", *["no result"] * 2, "failed · failed · failed", "no result", *["no pair"] * 2]
    note = "tau = 2, seed 1: failed: transfer stage tau-Hybrid-TransferNet-tau = 2-1 (no memory)."
    assert note in table(folder, "axis_tau").notes
    assert "seed 2: failed" in records(folder, "axis_tau")["tau = 8"]["problems"]
    assert plot(folder, "tau").caption.endswith("Without a result: tau = 8.")
    assert "Hybrid-TransferNet, tau = 2, seed 1." in page_of(folder)


def test_axis_without_any_result_has_a_table_and_no_figure(write: Callable[..., Path]) -> None:
    def fail(study: Study) -> None:
        ways(study)
        for row in study.rows["stages"]:
            if row["stage"].startswith(("target-schedule", "Sparse-TargetNet_C97.5")):
                study.fail(row["stage"], "stopped")

    report = analysis.report(write(fail)).parent
    assert (report / "axis_target-schedule.csv").exists()
    assert not (report / "axis_target-schedule.png").exists()


def test_seed_without_a_cell_is_told(write: Callable[..., Path]) -> None:
    def lose(study: Study) -> None:
        tau(study)
        cells = study.rows["cells"]
        study.rows["cells"] = [row for row in cells if (row.get("point"), row["seed"]) != ("tau = 8", 2)]

    assert "tau = 8: no cell for seed 2." in table(write(lose), "axis_tau").notes


def test_one_seed_has_no_interval(write: Callable[..., Path]) -> None:
    folder = write(everything, seeds=(0,))
    assert shown(folder, "axis_tau")["tau = 1"] == [
        "1",
        "76.5 (1 seed: no interval)",
        "77.5 (1 seed: no interval)",
        "77.5",
        "63.8",
        "\N{MINUS SIGN}4.1 (1 pair: no interval)",
        "\N{MINUS SIGN}2.0 (1 pair: no interval)",
    ]
    for file in analysis.report(folder).parent.glob("axis_*.[mct]*"):
        assert not re.search(r"\bnan\b", file.read_text(encoding="utf-8"), re.IGNORECASE), file.name


def test_study_of_axes_alone(write: Callable[..., Path]) -> None:
    def alone(study: Study) -> None:
        tau(study)
        ways(study)
        study.only("tau", "target-schedule")

    folder = write(alone)
    page = analysis.report(folder).read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>([^<]*)", page) == ["How to read", "Ablations", "Checklists", "Cost", "Provenance"]
    assert {file.stem for file in (folder / "report").iterdir()} == {
        "axis_tau",
        "axis_target-schedule",
        "costs",
        "index",
        "report",
    }
    summary = analysis.markdown_summary(folder)
    assert "## Ablation tau: Hybrid-TransferNet on Digits" in summary
    assert "Standard-TransferNet" not in summary + page.partition("Provenance")[0].partition("Ablations")[2]
    assert "diff_mean" not in records(folder, "axis_tau")["tau = 1"]


def test_axis_without_the_own_setting_has_no_difference_to_it(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.axis("tau", TAUS, "tau = 3", TAU_ACCURACY))
    assert shown(folder, "axis_tau")["point"][-1] == "ACC % minus Standard-TransferNet"
    assert OWN not in files_of(folder)["axis_tau.md"]


def test_two_results_for_one_point_are_refused(write: Callable[..., Path]) -> None:
    def clash(study: Study) -> None:
        tau(study)
        cell = next(row for row in study.rows["cells"] if row.get("point") == "tau = 2")
        study.rows["cells"].append(cell | {"stage": "Standard-TransferNet-0"})

    with pytest.raises(analysis.StudyError, match="two results for Hybrid-TransferNet, tau = 2, seed 0"):
        analysis.markdown_summary(write(clash))


def test_stale_axes_are_removed(write: Callable[..., Path]) -> None:
    report = analysis.report(write(everything)).parent
    (report / "axis_mine.txt").write_text("mine", encoding="utf-8")
    assert len(list(report.glob("axis_tau.*"))) == 5
    analysis.report(write(ways))
    assert {file.stem for file in report.glob("axis_*")} == {"axis_target-schedule", "axis_mine"}


def test_axis_of_any_name_gets_a_file(write: Callable[..., Path]) -> None:
    report = analysis.report(write(lambda study: study.axis("rate/2 $x", TAUS, "tau = 4", TAU_ACCURACY))).parent
    assert len(list(report.glob("axis_rate-2-x.*"))) == 5
    assert "<h3>rate/2 $x</h3>" in (report / "index.html").read_text(encoding="utf-8")


def test_page_holds_table_and_figure_of_each_axis_and_loads_nothing(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<h3>([^<]*)", page) == ["tau", "n_m", "target-schedule", "tau-x-lambda"]
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert headings.index("Ablations") == headings.index("Figures") + 1
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {"axis_tau", "axis_tau-figure"} <= set(ids)
    assert {a or b for a, b in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)} <= set(ids)
    bare = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.replace("http-equiv", ""))
    assert "http" not in bare
    assert re.findall(r"<(?:script [^>]*src|link|img|iframe|object|embed)\b", bare) == []
    assert page.count("<svg") == 5 + 4

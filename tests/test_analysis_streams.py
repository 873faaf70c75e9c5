"""Table 4 of a study with two streams, and the classes and their confusion of any study."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.figures.classes import confusion_figure
from analysis.figures.paper import figure2, figure3, learning_curves
from analysis.nets import outcomes
from analysis.published import PUBLISHED
from analysis.reporting import tables
from analysis.tables import writing
from analysis.tables.table import NOTHING
from tests.analysis_study import (
    SEEDS,
    STREAM_ACCURACY,
    STREAM_PRUNE,
    STREAMS,
    Study,
    columns,
    draw,
    page_of,
    shown,
    stream_accuracy,
    table,
    writer,
)

NAMES = ["zero", "one", "two"]
STANDARD = "two-stream-Standard-TransferNet"
BEST = "two-stream-Sparse-TargetNet_C85"
# Of 10 images a class: those that are right in each seed; the rest are taken for the next class.
RIGHT = {STANDARD: [(5, 8, 9), (4, 8, 7), (6, 8, 8)], BEST: [(9, 8, 6), (8, 8, 6), (9, 8, 6)]}


def planted(study: Study) -> None:
    study.two_stream()
    for net, right in RIGHT.items():
        for seed, numbers in enumerate(right):
            study.confuse(f"{net}-{seed}", _confusion(numbers))


def _confusion(right: tuple[int, ...]) -> dict[str, dict[str, int]]:
    following = NAMES[1:] + NAMES[:1]
    return {
        name: {name: number, wrong: 10 - number} for name, wrong, number in zip(NAMES, following, right, strict=True)
    }


def failed(study: Study) -> None:
    planted(study)
    hybrid = "Hybrid-TransferNet-1"
    study.fail(f"temporal-{hybrid}", "no memory", skipped=(f"two-stream-{hybrid}",))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-stream study with its report, for tests that only read."""
    folder = writer(tmp_path_factory.mktemp("streams") / "study")(planted)
    analysis.report(folder)
    return folder


def interval(values: list[float]) -> list[float]:
    """Mean and 95 % interval as SciPy has them."""
    mean = float(np.mean(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return [mean, float(low), float(high)]


def keyed(data: pd.DataFrame, *names: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows by the values of these columns."""
    rows = [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]
    return {tuple(row[name] for name in names): row for row in rows}


def values_of(row: dict[str, Any], *names: str) -> list[Any]:
    return [row[name] for name in names]


def by_net_and_stream(folder: Path, name: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return keyed(pd.read_csv(folder / "report" / f"{name}.csv"), "net", "stream")


def test_published_table4_is_the_papers() -> None:
    values = PUBLISHED["HMDB51"].table4
    assert {stream: list(nets.values()) for stream, nets in values.items()} == {
        "spatial": [(43.4, 0.0), (44.0, 78.2), (44.1, 85.0)],
        "temporal": [(58.9, 0.0), (59.0, 78.5), (59.7, 85.0)],
        "two-stream": [(61.4, 0.0), (61.4, 78.3), (62.6, 85.0)],
    }


@pytest.mark.parametrize("net", STREAM_ACCURACY)
def test_table4_gives_mean_interval_and_difference_of_every_stream(folder: Path, net: str) -> None:
    rows = by_net_and_stream(folder, "table4")
    assert len(rows) == len(STREAMS) * len(STREAM_ACCURACY)
    for place, stream in enumerate(STREAMS):
        row = rows[net, stream]
        values = [stream_accuracy(net, stream, seed) for seed in SEEDS]
        standard = [stream_accuracy("Standard-TransferNet", stream, seed) for seed in SEEDS]
        assert values_of(row, "mean", "ci_low", "ci_high") == pytest.approx(interval(values))
        assert row["top5_mean"] == pytest.approx(np.mean(values) + 20)
        assert row["prune_mean"] == pytest.approx(STREAM_PRUNE[net][place])
        assert values_of(row, *(f"seed_{seed}" for seed in SEEDS)) == pytest.approx(values)
        if net != "Standard-TransferNet":
            difference = interval([a - b for a, b in zip(values, standard, strict=True)])
            assert values_of(row, "diff_mean", "diff_ci_low", "diff_ci_high") == pytest.approx(difference)
            assert row["diff_pairs"] == 3


def test_table4_stands_beside_the_papers(folder: Path) -> None:
    text = shown(folder, "table4")
    assert text["net"][1:9:2] == ["spatial: ACC %", "temporal: ACC %", "two-stream: ACC %", text["net"][7]]
    assert text["net"][7] == "paper, HMDB51 (another data set), ACC % / Prune %: spatial"
    assert text["Sparse-TargetNet_C85"][7:10] == ["44.1 / 85.0", "59.7 / 85.0", "62.6 / 85.0"]
    assert text["Hybrid-TransferNet"][2] == "78.2"
    assert text["Standard-TransferNet"][0] == "3"
    row = by_net_and_stream(folder, "table4")["Sparse-TargetNet_C85", "temporal"]
    assert values_of(row, "published_net", "published", "published_prune") == ["Sparse-TargetNet", 59.7, 85.0]
    notes = table(folder, "table4").notes
    assert "two-stream: scores fused spatial : temporal = 1 : 4." in notes
    assert notes[0].endswith("top-1 on the test images (ten crops).")


def test_table4_without_the_papers_values(write: Callable[..., Path]) -> None:
    def other(study: Study) -> None:
        study.two_stream()
        study.description["published"] = "Indoor67"

    assert "paper" not in writing.markdown(table(write(other), "table4"))


def test_fusion_is_compared_with_the_stream_that_is_better_by_validation(write: Callable[..., Path]) -> None:
    def validation(study: Study) -> None:
        study.two_stream()
        for row in study.rows["stages"]:
            if row["stage"].startswith("temporal-Hybrid"):
                row["val_accuracy"] = 1.0

    folder = write(validation)
    text = shown(folder, "table4_differences")
    assert [text[net][-2] for net in STREAM_ACCURACY] == ["temporal", "spatial", "temporal"]
    data = keyed(table(folder, "table4_differences").data, "net", "stream", "minus_net", "minus_stream")
    for net, better in (("Hybrid-TransferNet", "spatial"), ("Sparse-TargetNet_C85", "temporal")):
        differences = [stream_accuracy(net, "two-stream", seed) - stream_accuracy(net, better, seed) for seed in SEEDS]
        row = data[net, "two-stream", net, better]
        assert values_of(row, "mean", "ci_low", "ci_high") == pytest.approx(interval(differences))
        assert row["pairs"] == 3


def test_seed_that_failed_stands_in_the_table_and_leaves_pairs(write: Callable[..., Path]) -> None:
    folder = write(failed)
    text = shown(folder, "table4")
    assert text["Hybrid-TransferNet"][0] == "3 / 2 of 3 / 2 of 3"
    for stream, place, word in (("temporal", -2, "failed"), ("two-stream", -1, "skipped")):
        first, last = (stream_accuracy("Hybrid-TransferNet", stream, seed) for seed in (0, 2))
        assert text["Hybrid-TransferNet"][place] == f"{first:.1f} · {word} · {last:.1f}"
    assert text["Standard-TransferNet"][0] == "3"
    line = "two-stream, seed 1: skipped: transfer stage temporal-Hybrid-TransferNet-1 failed (no memory)."
    assert f"Hybrid-TransferNet, {line}" in table(folder, "table4").notes
    # A stream that lacks a seed is still the better one: the choice goes by the seeds that both have.
    assert shown(folder, "table4_differences")["Hybrid-TransferNet"][-2] == "temporal"
    page = page_of(folder)
    assert "Hybrid-TransferNet, temporal, seed 1; Hybrid-TransferNet, two-stream, seed 1." in page


def test_stream_without_a_cell_keeps_its_place(write: Callable[..., Path]) -> None:
    def lose(study: Study) -> None:
        study.two_stream()
        study.rows["cells"] = [
            row for row in study.rows["cells"] if (row["net"], row["stream"]) != ("Hybrid-TransferNet", "two-stream")
        ]

    folder = write(lose)
    assert shown(folder, "table4")["Hybrid-TransferNet"][:7][-2:] == [NOTHING, NOTHING]
    assert shown(folder, "table4_differences")["Hybrid-TransferNet"][-3:] == [NOTHING, "temporal", NOTHING]


def test_top5_stands_where_there_are_many_classes(write: Callable[..., Path]) -> None:
    assert not any("top-5" in name for name in shown(write(planted), "table4")["net"])
    folder = write(planted, target={"name": "hmdb", "title": "HMDB51", "classes": 51})
    text = shown(folder, "table4")
    mean = np.mean([stream_accuracy("Hybrid-TransferNet", "spatial", seed) for seed in SEEDS]) + 20
    assert text["Hybrid-TransferNet"][text["net"].index("spatial: top-5 ACC %")].startswith(f"{mean:.1f} ± ")


def test_latex_has_the_streams_as_groups(folder: Path) -> None:
    text = (folder / "report" / "table4.tex").read_text(encoding="utf-8")
    for stream in STREAMS:
        assert rf"\multicolumn{{2}}{{c}}{{{stream}}}" in text
    for part, between in zip(text.split(r"\midrule")[1:], (6, 3), strict=True):
        assert {line.count("&") for line in part[: part.index(r"\bottomrule")].splitlines()[1:]} == {between}


def test_streams_are_told_apart_everywhere(folder: Path) -> None:
    names = {table.name for table in tables(analysis.load(folder))}
    of_nets = {"comparisons", "table4", "table4_differences", "classes", "ratios", "operating_points"}
    assert names == of_nets | {"source_nets", "costs"}
    assert set(table(folder, "ratios").data["net"]) == {"Hybrid-TransferNet, spatial", "Hybrid-TransferNet, temporal"}
    titles = [axes.get_title(loc="left") for axes in draw(figure2, folder).figure.axes]
    assert titles == [f"{stream}, target class: {name}" for stream in STREAMS[:2] for name in ("zero", "eight")]
    assert set(draw(figure2, folder).data["stream"]) == set(STREAMS[:2])
    trained = draw(learning_curves, folder).data["net"]
    nets = ("Standard-TransferNet", "Hybrid-TransferNet")
    assert list(dict.fromkeys(trained)) == [f"{net}, {stream}" for net in nets for stream in STREAMS[:2]]
    results = analysis.load(folder)
    assert figure3(results, outcomes(results)) is None


def test_axis_has_a_table_for_each_stream(write: Callable[..., Path]) -> None:
    def axis(study: Study) -> None:
        study.two_stream()
        for stream, value in (("spatial", 40.0), ("temporal", 50.0)):
            points = {f"tau = {tau}": float(tau) for tau in (2, 8)}
            cells, study.rows["cells"] = study.rows["cells"], []
            study.axis(f"tau-{stream}", points, "none", dict.fromkeys(points, value), stream=stream)
            study.rows["cells"] = cells + [row | {"ablation": "tau"} for row in study.rows["cells"]]

    folder = write(axis)
    for stream, value in (("spatial", 40.0), ("temporal", 50.0)):
        data = table(folder, f"axis_tau_{stream}").data
        assert data["mean"].iloc[0] == pytest.approx(value)
        standard = np.mean([stream_accuracy("Standard-TransferNet", stream, seed) for seed in SEEDS])
        assert data["standard_mean"].iloc[0] == pytest.approx(standard)
    assert "<h3>tau, temporal</h3>" in page_of(folder)


def test_classes_are_paired_by_seed(folder: Path) -> None:
    rows = keyed(table(folder, "classes").data, "net", "class")
    for place, name in enumerate(NAMES):
        ours, theirs = ([10.0 * right[place] for right in RIGHT[net]] for net in (BEST, STANDARD))
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        row = rows["Sparse-TargetNet_C85", name]
        assert row["mean"] == pytest.approx(np.mean(ours))
        assert row["standard_mean"] == pytest.approx(np.mean(theirs))
        assert row["diff_mean"] == pytest.approx(np.mean(differences))
        if len(set(differences)) > 1:
            assert values_of(row, "diff_ci_low", "diff_ci_high") == pytest.approx(interval(differences)[1:])
        assert values_of(row, "test_images", "diff_pairs") == [10, 3]
    text = shown(folder, "classes")
    assert list(text)[2:] == ["zero", "one", "two"]  # +37, 0 and -20
    assert text["zero"][0] == "10"
    # 1 + 2 + 1 of 30 images.
    assert text["zero"][-1] == "one (13.3 %)"
    assert text["two"][-2].startswith("\N{MINUS SIGN}20.0 ± ")


def test_only_the_ends_of_many_classes_are_shown(write: Callable[..., Path]) -> None:
    def many(study: Study) -> None:
        study.two_stream()
        for seed in SEEDS:
            for net, gain in ((STANDARD, 0), (BEST, 1)):
                right = {f"c{i:02}": 50 + gain * (i - 20) for i in range(40)}
                study.confuse(
                    f"{net}-{seed}", {name: {name: number, "c00x": 100 - number} for name, number in right.items()}
                )

    folder = write(many)
    names = [f"c{i:02}" for i in range(40)][::-1]
    assert list(columns(writing.markdown(table(folder, "classes"))))[2:] == names[:5] + names[-5:]
    assert len(table(folder, "classes").data) == 40
    plot = draw(confusion_figure, folder)
    assert plot.figure.axes[0].get_xticklabels() == []
    assert "names are in confusion.csv" in plot.caption


def test_confusion_is_of_the_best_net_by_validation_over_all_seeds(write: Callable[..., Path]) -> None:
    def flattered(study: Study) -> None:
        planted(study)
        for seed in SEEDS:
            study.confuse(f"two-stream-Hybrid-TransferNet-{seed}", _confusion((10, 10, 10)))
            row = next(row for row in study.rows["stages"] if row["stage"] == f"two-stream-Hybrid-TransferNet-{seed}")
            row["test_accuracy"] = 100.0  # which must not matter

    plot = draw(confusion_figure, write(flattered))
    assert [axes.get_title(loc="left") for axes in plot.figure.axes[:2]] == [
        "Standard-TransferNet, two-stream",
        "Sparse-TargetNet_C85, two-stream",
    ]
    shares = np.asarray(plot.figure.axes[1].images[0].get_array())
    right = np.array(RIGHT[BEST]).sum(axis=0) / 30 * 100
    expected = np.diag(right) + np.roll(np.diag(100 - right), 1, axis=1)
    np.testing.assert_allclose(shares, expected)
    data = keyed(plot.data, "net", "target_class", "predicted_class")
    assert data["Standard-TransferNet, two-stream", "zero", "one"]["images"] == 15
    assert [label.get_text() for label in plot.figure.axes[0].get_xticklabels()] == NAMES


def test_ordinary_study_has_classes_too(write: Callable[..., Path]) -> None:
    def ordinary(study: Study) -> None:
        for seed in SEEDS:
            study.confuse(f"Standard-TransferNet-{seed}", _confusion((5, 6, 7)))
            study.confuse(f"Hybrid-TransferNet-{seed}", _confusion((6, 6, 6)))

    folder = write(ordinary)
    assert set(table(folder, "classes").data["net"]) == {"Hybrid-TransferNet"}
    assert list(shown(folder, "classes"))[2:] == NAMES
    page = analysis.report(folder).read_text(encoding="utf-8")
    assert '<figure class="picture" id="confusion"' in page
    assert "table4" not in page


def test_standard_alone_has_a_figure_and_no_table(write: Callable[..., Path]) -> None:
    def alone(study: Study) -> None:
        for seed in SEEDS:
            study.confuse(f"Standard-TransferNet-{seed}", _confusion((5, 6, 7)))

    folder = write(alone)
    assert len(draw(confusion_figure, folder).figure.axes) == 2  # with the colour bar
    assert "classes" not in {table.name for table in tables(analysis.load(folder))}


def test_page_names_protocol_and_fusion_and_loads_nothing(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "spatial, temporal; two-stream: scores fused spatial : temporal = 1 : 4<" in page
    assert "<dt>test images</dt><dd>ten crops</dd>" in page
    for part in ("table4", "table4_differences", "confusion", "classes"):
        assert f'id="{part}"' in page
    assert "images of Digits (ten crops), in %" in page
    page = re.sub(r'<a href="[\w.-]+">', "", page)  # links to the files next to it
    outside = [ref for ref in re.findall(r'(?:src|href)="([^"]*)"', page) if not ref.startswith(("#", "data:"))]
    assert outside == []


def test_two_reports_are_the_same_to_the_byte(folder: Path, tmp_path: Path) -> None:
    analysis.report(folder, tmp_path / "again")
    for file in (folder / "report").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name

"""The report of a small synthetic study: every number in it is one that a test can work out by hand."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from matplotlib.patches import Rectangle

import analysis
from analysis.__main__ import main
from analysis.figures.paper import figure2, figure3
from analysis.tables import writing
from analysis.tables.latex import escape_latex
from analysis.tables.table import NOTHING
from tests.analysis_study import ACCURACY, CURVE, SEEDS, WIGGLE, Study, draw, page_of, records, shown, table, writer


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain study with its report, for tests that only read."""
    folder = Study().write(tmp_path_factory.mktemp("plain") / "study")
    analysis.report(folder)
    return folder


def test_table1_gives_mean_interval_and_paired_difference(folder: Path) -> None:
    rows = records(folder, "table1")
    assert list(rows) == list(ACCURACY)
    # 81.6, 81.9, 82.7: mean 82.0667, s = 0.56862; 95 % of t with 2 degrees of freedom is at 4.302653.
    hybrid = {key: float(value) for key, value in rows["Hybrid-TransferNet"].items() if key.startswith(("mean", "ci"))}
    assert hybrid == pytest.approx({"mean": 82.06667, "ci_low": 80.65414, "ci_high": 83.47919}, abs=1e-4)
    # Differences 2.1, 1.8, 2.3: mean 2.0667, s = 0.251661.
    assert float(rows["Hybrid-TransferNet"]["diff_mean"]) == pytest.approx(2.06667, abs=1e-4)
    assert float(rows["Hybrid-TransferNet"]["diff_ci_low"]) == pytest.approx(1.44151, abs=1e-4)
    assert float(rows["Hybrid-TransferNet"]["diff_ci_high"]) == pytest.approx(2.69183, abs=1e-4)
    assert [float(rows["Hybrid-TransferNet"][f"seed_{seed}"]) for seed in SEEDS] == pytest.approx([81.6, 81.9, 82.7])
    assert rows["Standard-TransferNet"]["diff_mean"] == ""
    text = shown(folder, "table1")
    assert text["net"][-1] == "paper, Flower102 (another data set)"
    assert text["Hybrid-TransferNet"] == ["3", "82.1 ± 1.4", "81.6 · 81.9 · 82.7", "+2.1 ± 0.6", "83.4"]


def test_table2_counts_inner_product_layers_and_their_total(folder: Path) -> None:
    rows = records(folder, "table2")
    assert list(rows) == ["FC6", "FC7", "Output", "Total"]
    total = rows["Total"]
    assert (float(total["neurons_before_mean"]), float(total["neurons_mean"])) == (387, 227)
    assert (float(total["weights_before_mean"]), float(total["weights_mean"])) == (6300, 3300)
    assert [float(total[f"weights_seed_{seed}"]) for seed in SEEDS] == [3200, 3300, 3400]
    assert float(total["pruned_neurons_mean"]) == pytest.approx(100 * 160 / 387)
    assert float(rows["FC6"]["pruned_weights_mean"]) == pytest.approx(100 * 1900 / 4000)
    text = shown(folder, "table2")
    assert text["FC6"][1:5] == ["256 → 128", "4,000 → 2,100", "50.0", "47.5"]
    assert text["Total"][-5:] == ["Total", "8,294 → 4,198", "264K → 140K", "49.4", "46.8"]


def test_table2_is_of_all_steps_where_each_is_a_stage(write: Callable[..., Path]) -> None:
    def earlier(study: Study) -> None:
        for row in [row for row in study.rows["stages"] if row["kind"] == "neuron_prune"]:
            study.rows["stages"].append({**row, "stage": f"first-{row['stage']}"})
        for cell in study.rows["cells"]:
            if cell["net"] == "Sparse-TargetNet_N":
                cell["path"].insert(-1, f"first-{cell['stage']}")
        for row in [*study.rows["layers"]]:
            before = {"neurons_before": 2 * row["neurons_before"], "connections_before": 3 * row["connections_before"]}
            between = {"neurons": row["neurons_before"], "connections": row["connections_before"]}
            study.rows["layers"].append({**row, **before, **between, "stage": f"first-{row['stage']}"})

    rows = records(write(earlier), "table2")
    # FC6: 512 to 256 to 128 neurons, 12,000 to 4,000 to 2,000, 2,100 and 2,200 weights.
    assert float(rows["FC6"]["pruned_neurons_mean"]) == pytest.approx(75)
    assert float(rows["FC6"]["pruned_weights_mean"]) == pytest.approx(100 * (1 - 2_100 / 12_000))


def test_table2_matches_the_papers_layers_from_the_output(write: Callable[..., Path]) -> None:
    def small(study: Study) -> None:
        study.rows["layers"] = [row for row in study.rows["layers"] if row["layer"] != "fc7"]

    published = {layer: row["published_layer"] for layer, row in records(write(small), "table2").items()}
    assert published == {"FC6": "FC7", "Output": "Output", "Total": "Total"}


def test_table3_pairs_c_nets_with_the_papers_by_order(folder: Path) -> None:
    rows = records(folder, "table3")
    assert {net: row["published_net"] for net, row in rows.items()} == {
        "Standard-TransferNet": "Standard-TransferNet",
        "Hybrid-TransferNet": "Hybrid-TransferNet",
        "Sparse-TargetNet_C90": "Sparse-TargetNet_C90",
        "Sparse-TargetNet_C98.75": "Sparse-TargetNet_C98.5",
        "Sparse-TargetNet_N": "Sparse-TargetNet_N",
    }
    assert [float(row["published_prune"]) for row in rows.values()] == [0.0, 63.6, 90.0, 98.5, 98.7]
    assert float(rows["Sparse-TargetNet_N"]["prune_mean"]) == pytest.approx(98.91)
    text = shown(folder, "table3")
    assert text["Sparse-TargetNet_C98.75"][3:5] == ["98.75", "all 98.75"]
    assert text["Sparse-TargetNet_N"][3] == "98.91 ± 0.02"


def test_controls_stand_under_the_nets_they_are_controls_of(folder: Path) -> None:
    rows = records(folder, "controls")
    assert list(rows) == [
        "Standard-TransferNet",
        "Hybrid-TransferNet",
        "Hybrid-TransferNet, random masks",
        "Hybrid-TransferNet, shuffled knowledge",
        "Hybrid-TransferNet, random masks, shuffled knowledge",
    ]
    control = rows["Hybrid-TransferNet, random masks"]
    assert float(control["diff_mean"]) == pytest.approx(-1.0)
    assert float(control["diff_hybrid_mean"]) == pytest.approx(79.0 - (82.0 + sum(WIGGLE.values()) / 3))
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Hybrid-TransferNet, random masks, shuffled knowledge" in page


def test_control_that_names_itself_is_not_named_twice(write: Callable[..., Path]) -> None:
    def rename(study: Study) -> None:
        for row in study.rows["cells"]:
            if row["sparsity"] == "random" and row["knowledge"] == "reference":
                row["net"] = "Hybrid-TransferNet(S random, K+)"

    assert "Hybrid-TransferNet(S random, K+)" in shown(write(rename), "controls")


def test_same_data_is_not_called_another_data_set(write: Callable[..., Path]) -> None:
    folder = write(same_data=True, published="Indoor67")
    summary = analysis.markdown_summary(folder)
    assert "paper, Indoor67" in summary
    assert "another data set" not in summary
    assert shown(folder, "table1")["Hybrid-TransferNet"][-1] == "71.0"


def test_no_published_values_no_such_columns(write: Callable[..., Path]) -> None:
    folder = write(published=None)
    for name in ("table1", "table2", "table3"):
        assert "published" not in writing.csv(table(folder, name))
        assert "paper" not in writing.markdown(table(folder, name))


def test_one_seed_has_no_interval_and_says_so(write: Callable[..., Path]) -> None:
    folder = write(seeds=(0,))
    text = shown(folder, "table1")
    assert text["Hybrid-TransferNet"][1] == "81.6 (1 seed: no interval)"
    assert text["Hybrid-TransferNet"][3] == "+2.1 (1 pair: no interval)"
    row = records(folder, "table1")["Hybrid-TransferNet"]
    assert (row["ci_low"], row["ci_high"], row["diff_ci_low"]) == ("", "", "")
    for file in analysis.report(folder).parent.iterdir():
        if file.suffix in (".md", ".csv", ".tex", ".html"):
            assert not re.search(r"\bnan\b", file.read_text(encoding="utf-8"), re.IGNORECASE), file.name


def fail_source_prune(study: Study) -> None:
    below = [f"{net}-1" for net in ("Hybrid-TransferNet", "Hybrid-TransferNet(S+K-)", "neurons")]
    study.fail(
        "sparse-1", "Traceback (most recent call last):\n  File\nRuntimeError: <b>no</b> memory", skipped=(*below,)
    )


def test_failed_stage_and_every_cell_it_hit_stand_in_the_report(write: Callable[..., Path]) -> None:
    folder = write(fail_source_prune)
    text = shown(folder, "table1")
    # 81.6 and 82.7: mean 82.15, half-width 12.7062 * 0.55.
    assert text["Hybrid-TransferNet"][:3] == ["2 of 3", "82.2 ± 7.0", "81.6 · skipped · 82.7"]
    line = "Hybrid-TransferNet, seed 1: skipped: source_prune stage sparse-1 failed (RuntimeError: <b>no</b> memory)."
    assert line in table(folder, "table3").notes
    page = page_of(folder)
    failures = page[page.index('<h2 id="failures">') :]
    assert "source_prune stage sparse-1: failed" in failures
    assert "Hybrid-TransferNet(S+K-), seed 1; Hybrid-TransferNet, seed 1; Sparse-TargetNet_N, seed 1." in failures
    assert "&lt;b&gt;no&lt;/b&gt; memory" in failures
    assert "<b>no</b>" not in page


def test_net_without_any_result_keeps_its_row(write: Callable[..., Path]) -> None:
    def fail(study: Study) -> None:
        for seed in SEEDS:
            study.fail(f"neurons-{seed}", "no neuron left")

    folder = write(fail)
    assert shown(folder, "table3")["Sparse-TargetNet_N"][:3] == [
        "0 of 3",
        "no result",
        "failed · failed · failed",
    ]
    notes = table(folder, "table2").notes
    assert "Sparse-TargetNet_N, seed 2: failed: neuron_prune stage neurons-2 (no neuron left)." in notes
    assert shown(folder, "table2")["no result"][-8:-5] == [NOTHING] + ["all failed"] * 2


def test_stage_that_never_ran_is_told(write: Callable[..., Path]) -> None:
    def lose(study: Study) -> None:
        study.rows["stages"] = [row for row in study.rows["stages"] if row["stage"] != "Hybrid-TransferNet-2"]

    report = analysis.report(write(lose)).parent
    assert "Hybrid-TransferNet, seed 2: missing: stage Hybrid-TransferNet-2 has not run." in (
        report / "table1.md"
    ).read_text(encoding="utf-8")
    assert "Hybrid-TransferNet-2: missing" in (report / "index.html").read_text(encoding="utf-8")


def test_unfinished_baseline_leaves_fewer_pairs(write: Callable[..., Path]) -> None:
    folder = write(lambda study: study.fail("Standard-TransferNet-0", "stopped"))
    assert shown(folder, "table1")["Hybrid-TransferNet"][3].endswith("(2 pairs)")
    assert records(folder, "table1")["Hybrid-TransferNet"]["diff_pairs"] == "2"


def test_study_where_all_failed_still_reports(write: Callable[..., Path]) -> None:
    def fail_all(study: Study) -> None:
        for row in study.rows["stages"]:
            study.fail(row["stage"], "disk full")
        for name in ("epochs", "layers", "knowledge"):
            study.rows[name] = []

    page = analysis.report(write(fail_all)).read_text(encoding="utf-8")
    assert "disk full" in page
    assert "no result" in page
    assert "<svg" not in page


def test_sweep_is_told_apart_by_what_differs(write: Callable[..., Path]) -> None:
    def sweep(study: Study) -> None:
        for seed in SEEDS:
            study._stage("transfer", f"sweep-{seed}", seed, 70.0, 63.8)
            study._cell("lambda", "Hybrid-TransferNet", ["table1"], seed, f"sweep-{seed}")
            study.rows["cells"][-1]["lambda_"] = 0.5

    rows = records(write(sweep), "table1")
    assert float(rows["Hybrid-TransferNet, lambda = 1"]["mean"]) == pytest.approx(82.06667, abs=1e-4)
    assert float(rows["Hybrid-TransferNet, lambda = 0.5"]["mean"]) == 70.0


def test_cell_of_two_ablations_counts_once(write: Callable[..., Path]) -> None:
    def twice(study: Study) -> None:
        study.rows["cells"] += [row | {"ablation": "again"} for row in study.rows["cells"] if "table1" in row["tables"]]

    rows = records(write(twice), "table1")
    assert [row["seeds"] for row in rows.values()] == ["3", "3", "3", "3"]


def test_two_results_for_one_cell_are_refused(write: Callable[..., Path]) -> None:
    def clash(study: Study) -> None:
        cell = next(row for row in study.rows["cells"] if row["net"] == "Hybrid-TransferNet")
        study.rows["cells"].append(cell | {"stage": "Standard-TransferNet-0"})

    with pytest.raises(analysis.StudyError, match="two results for Hybrid-TransferNet, seed 0"):
        analysis.markdown_summary(write(clash))


def test_figure2_shows_the_most_and_the_least_certain_class(folder: Path) -> None:
    data = pd.read_csv(folder / "report" / "figure2.csv")
    assert set(data["target_class"]) == {"zero", "one", "eight"}
    top = data[(data["target_class"] == "zero") & (data["class_rank"] == 1)].iloc[0]
    assert (top["source_class"], top["seeds"]) == ("O", 3)
    assert top[["mean", "seed_0", "seed_1", "seed_2"]].tolist() == pytest.approx([0.5, 0.499, 0.5, 0.501])
    plot = draw(figure2, folder)
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["target class: zero", "target class: eight"]
    widths = [bar.get_width() for bar in plot.figure.axes[1].patches if isinstance(bar, Rectangle)]
    assert widths == pytest.approx([0.2, 0.18, 0.16, 0.14, 0.12])


def test_figure2_ranks_classes_that_every_seed_lists_first(write: Callable[..., Path]) -> None:
    def truncate(study: Study) -> None:
        study.rows["knowledge"] = [
            row
            for row in study.rows["knowledge"]
            if row["source_class"] != "I" or row["stage"] == "Hybrid-TransferNet-0"
        ]

    plot = draw(figure2, write(truncate))
    data = plot.data
    zero = data[data["target_class"] == "zero"].set_index("source_class")
    assert zero["class_rank"].to_dict() == {"O": 1, "B": 2, "S": 3, "Q": 4, "Z": 5, "I": 6}


def test_figure3_curves_start_at_hybrid(folder: Path) -> None:
    data = pd.read_csv(folder / "report" / "figure3.csv")
    for curve in ("Sparse-TargetNet", "Sparse-TargetNet(K-)"):
        points = data[data["curve"] == curve]
        assert points["net"].iloc[0] == "Hybrid-TransferNet"
        assert points["prune_percent"].tolist() == pytest.approx([63.8, 80, 90, 95, 97.5, 98.75])
    without = data[data["curve"] == "Sparse-TargetNet(K-)"]["mean"].tolist()
    assert without[1:] == pytest.approx([accuracy - 0.7 for accuracy in CURVE.values()])
    assert data[data["curve"] == "Standard-TransferNet"]["mean"].tolist() == pytest.approx([80.0])
    gain = data[data["curve"] == "K+ minus K-"]
    assert gain["prune_percent"].tolist() == pytest.approx([80, 90, 95, 97.5, 98.75])
    assert gain["mean"].tolist() == pytest.approx([0.7] * 5)


def test_figure3_tick_labels_do_not_crowd(write: Callable[..., Path]) -> None:
    def crowd(study: Study) -> None:
        for row in study.rows["stages"]:
            if row["kind"] == "target_prune":
                row["prune_percent"] = 99 + row["prune_percent"] / 1000

    plot = draw(figure3, write(crowd))
    plot.png()
    boxes = sorted(
        (label.get_window_extent() for label in plot.figure.axes[-1].get_xticklabels()), key=lambda box: box.x0
    )
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_ratios_are_of_the_first_and_last_epoch(folder: Path) -> None:
    rows = records(folder, "ratios")
    assert set(rows) == {"Hybrid-TransferNet(S-K+)", "Hybrid-TransferNet"}
    row = {key: float(value) for key, value in rows["Hybrid-TransferNet"].items() if "ratio" in key}
    expected = {"loss_ratio_first": 2.0, "loss_ratio_last": 0.5, "kl_ratio_first": 0.2, "kl_ratio_last": 0.05}
    assert row == pytest.approx(expected | {"gradient_ratio_first": 0.4, "gradient_ratio_last": 0.1})


def test_results_without_the_divergence_have_ratios_all_the_same(write: Callable[..., Path]) -> None:
    folder = write()
    for name in ("epochs", "stages"):
        path = folder / f"{name}.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.drop_columns([key for key in ("loss_kl", "kl_ratio") if key in rows.column_names]), path)
    assert "kl_ratio" not in pq.read_schema(folder / "epochs.parquet").names
    assert shown(folder, "ratios")["Hybrid-TransferNet"] == ["3", "2", "0.5", NOTHING, NOTHING, "0.4", "0.1"]


def test_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    # Another process, so that neither hash seeds nor what was drawn before can hide in the files.
    command = [sys.executable, "-m", "analysis", str(folder), "--out", str(tmp_path / "again")]
    subprocess.run(command, check=True, env=environment() | {"PYTHONHASHSEED": "7"}, capture_output=True)
    first = {file.name: file.read_bytes() for file in (folder / "report").iterdir()}
    second = {file.name: file.read_bytes() for file in (tmp_path / "again").iterdir()}
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_page_loads_nothing_from_anywhere(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    bare = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert "http://" not in bare
    assert "https://" not in bare
    assert re.findall(r"<(?:script [^>]*src|link|img|iframe|object|embed)\b", bare) == []
    # Links to the files next to it load nothing until somebody follows them.
    bare = re.sub(r'<a href="[\w.-]+">', "", bare)
    assert [ref for ref in re.findall(r'(?:src|href)="([^"]*)"', bare) if not ref.startswith("#")] == []
    assert [url for url in re.findall(r"url\(([^)]*)\)", bare) if not url.startswith("#")] == []
    assert page.count("<svg") == 5


def test_every_reference_within_the_page_has_its_target(folder: Path) -> None:
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    ids = set(re.findall(r'\bid="([^"]*)"', page))
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page))
    assert {a or b for a, b in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page)} <= ids


def test_report_leaves_no_stale_table(write: Callable[..., Path]) -> None:
    report = analysis.report(write()).parent
    assert (report / "controls.md").exists()
    (report / "notes.txt").write_text("mine", encoding="utf-8")

    def without_controls(study: Study) -> None:
        study.rows["cells"] = [row for row in study.rows["cells"] if row["ablation"] == "paper"]

    analysis.report(write(without_controls))
    assert not (report / "controls.md").exists()
    assert (report / "notes.txt").exists()


def test_latex_escapes_what_latex_would_read(folder: Path) -> None:
    assert escape_latex(r"50 % of a_b & c#1 $x$ {y} ± \z ~ ^") == (
        r"50 \% of a\_b \& c\#1 \$x\$ \{y\} $\pm$ \textbackslash{}z \textasciitilde{} \textasciicircum{}"
    )
    text = (folder / "report" / "table3.tex").read_text(encoding="utf-8")
    assert r"Sparse-TargetNet$_{\mathrm{C90}}$ & 83.0 $\pm$ 1.1 & 90.00 &" in text
    assert r"\caption{Pruning in the target domain on Digits}" in text and "In every row, seeds: 3." in text
    assert text.count("tabular") == 4 and r"\label{tab:table3-paper}" in text, "the paper's values stand alone"
    for part, columns in zip(text.split(r"\midrule")[1:], (4, 3), strict=True):
        body = part[: part.index(r"\bottomrule")]
        assert {line.count("&") for line in body.splitlines()[1:]} == {columns - 1}
    assert text.isascii()


def test_command_prints_the_tables_and_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for title in ("## Table 1.", "## Table 2.", "## Table 3.", "## Controls"):
        assert title in printed
    assert str(tmp_path / "out" / "index.html") in printed
    assert (tmp_path / "out" / "index.html").is_file()


def nothing_done(folder: Path) -> None:
    study = Study()
    for row in study.rows["stages"]:
        row |= {"status": "missing", "test_accuracy": None, "prune_percent": None}
    study.write(folder)


def lacking_column(folder: Path) -> None:
    table = pq.read_table(folder / "cells.parquet")
    pq.write_table(table.drop_columns(["net"]), folder / "cells.parquet")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no study.json": (lambda folder: (folder / "study.json").unlink(), "no study.json"),
    "bad study.json": (lambda folder: (folder / "study.json").write_text("{"), "study.json can't be read"),
    "lacking key": (lambda folder: (folder / "study.json").write_text('{"name": "x"}'), "title: Field required"),
    "list": (lambda folder: (folder / "study.json").write_text("[]"), "should be an object"),
    "no stages": (lambda folder: (folder / "stages.parquet").unlink(), "stages.parquet is not there"),
    "cut off": (lambda folder: (folder / "cells.parquet").write_bytes(b"PAR1"), "cells.parquet can't be read"),
    "lacking column": (lacking_column, "lacks the columns net"),
    "nothing done": (nothing_done, "has nothing done yet"),
}


def test_columns_that_an_earlier_version_did_not_write_are_null(write: Callable[..., Path]) -> None:
    folder = write()
    before = analysis.load(folder)
    table = pq.read_table(folder / "stages.parquet")
    pq.write_table(table.drop_columns(["processor", "val_loss"]), folder / "stages.parquet")
    after = analysis.load(folder)
    assert after.stages.isna()[["processor", "val_loss"]].all(axis=None)
    pd.testing.assert_frame_equal(after.stages, before.stages)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_study_gives_one_clear_line(
    case: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    breakage, message = BROKEN[case]
    folder = write()
    breakage(folder)
    assert main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(folder) in error
    assert "run the study" in error or "give the folder" in error
    assert "Traceback" not in error
    assert not (folder / "report").exists()


def test_unknown_folder_and_unwritable_report_exit_with_2(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert f"{tmp_path / 'nowhere'} does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([str(write()), "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err


def test_unknown_published_column_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(analysis.StudyError, match="published: Input should be 'Indoor67', 'Flower102' or 'HMDB51'"):
        analysis.load(write(published="Cars"))


def test_import_needs_neither_torch_nor_ray_nor_matplotlib(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, analysis; heavy = {'torch', 'ray', 'matplotlib'}; early = heavy & set(sys.modules);"
        "analysis.report(*sys.argv[1:]); print(sorted(early), sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "out")]
    done = subprocess.run(command, check=True, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[] ['matplotlib']"


def environment() -> dict[str, str]:
    """The environment with the packages under test on the path."""
    return dict(os.environ) | {"PYTHONPATH": str(Path(analysis.__file__).parents[1])}

"""The commands that ask where a number comes from, and whether it comes again: on a study that was trained for real."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from study import ablation, reproduce, schema, show
from study.storage import Storage
from tests.commands import study, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def published(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the study of one seed."""
    storage = tmp_path_factory.mktemp("published")
    study(preset, storage, "--slots", "2")
    return storage


def net(storage: Path, name: str) -> dict[str, Any]:
    """The cell of a net."""
    rows: list[dict[str, Any]] = table(storage, "cells").to_dict("records")  # type: ignore[assignment]
    return next(row for row in rows if row["net"] == name)


def test_every_stage_says_what_it_was_made_with(published: Path) -> None:
    stages = table(published, "stages")
    for name in ("data_fingerprint", "tensors_sha256", "host", "processor", "device", "code_version"):
        assert stages[name].str.len().gt(0).all(), name
    assert (stages["threads"] == 1).all()
    assert {"python", "torch", "torchvision", "ray", "numpy"} <= json.loads(stages["package_versions"][0]).keys()
    assert stages.set_index("stage").loc[stages["stage"], "tensors_sha256"].is_unique


def test_show_prints_the_whole_ancestry(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = net(published, "Sparse-TargetNet_N")
    (row,) = (row for row in table(published, "stages").to_dict("records") if row["stage"] == cell["stage"])
    assert show.main([cell["stage"][:20], "--storage", str(published)]) == 0
    printed = capsys.readouterr().out
    for stage in cell["path"]:
        described = [line for line in printed.splitlines() if line.endswith(stage)]
        assert len(described) == 1, "each stage is described once"
    for words in (
        f"test accuracy {row['test_accuracy']:.2f} %",
        f"({100 - row['prune_percent']:.4g} %)",
        "is Sparse-TargetNet_N of study tiny",
        "knowledge.tau 4.0",
        "retrain.learning_rate 0.01",
        row["processor"],
        row["tensors_sha256"][:12],
    ):
        assert words in printed
    assert "momentum" not in printed, "at its default"


def test_show_says_what_is_wrong(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        ("transfer-", str(published)): "'transfer-' may be any of transfer-",
        ("transfer-zzz", str(published)): "no stage 'transfer-zzz' in",
        ("transfer-1", str(tmp_path / "nothing")): "no stage is stored in",
    }
    for (key, storage), message in wrong.items():
        assert show.main([key, "--storage", storage]) == 2
        assert message in capsys.readouterr().err


def test_a_report_is_reproduced_and_a_false_one_is_not(
    published: Path, preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, again = published / "studies" / "tiny" / "report", tmp_path / "again"
    command = [str(report), "--storage", str(again), "--slots", "2"]
    assert reproduce.main(command) == 0
    printed = capsys.readouterr().out
    assert f"{len(table(published, 'stages'))}  same to the last bit" in printed and "\nreproduced" in printed
    verdicts = pd.read_csv(again / "studies" / "tiny" / "reproduction.csv")["verdict"]
    assert set(verdicts) == {"same"} and len(verdicts) == len(table(published, "stages"))

    false = tmp_path / "false" / "studies" / "tiny"
    shutil.copytree(report.parent, false)
    rows, key = pq.read_table(false / "stages.parquet"), net(published, "Hybrid-TransferNet")["stage"]
    better = [row | {"test_accuracy": 99.0} if row["stage"] == key else row for row in rows.to_pylist()]
    pq.write_table(schema.table("stages", better), false / "stages.parquet")
    assert reproduce.main([str(false), *command[1:]]) == 1
    printed = capsys.readouterr().out
    assert "nothing to train" in printed and "NOT reproduced" in printed
    assert f"the difference begins at:\n  {key}" in printed


def test_reproduce_says_what_is_wrong(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = str(published / "studies" / "tiny")
    wrong = {
        (str(tmp_path / "nothing"),): "does not exist, or is no folder",
        (str(tmp_path),): "is no study, it has no study.json",
        (report, "--storage", str(published)): "holds the report's own stages",
        (report, "--set", "transfer.tau=2"): "that would be another study",
        (report, "--seeds", "2"): "the report has 1",
    }
    for arguments, message in wrong.items():
        assert reproduce.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_seeds_are_added_until_the_budget_is_spent(
    published: Path, preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--preset", str(preset), "--storage", str(published), "--name", "settled", "--slots", "2"]
    command += ["--until-settled", "--most-seeds", "2"]
    assert ablation.main([*command, "--dry-run"]) == 0
    assert "should all 2 seeds be needed:\n18 cells" in capsys.readouterr().out
    assert ablation.main(command) == 0
    printed = capsys.readouterr().out
    steps = ["after 1 seeds (at most 2):", "one more: seed 1", "after 2 seeds", "no more seeds are allowed"]
    assert sorted(steps, key=printed.index) == steps
    assert "Seeds were added while looking" in printed
    one, two = table(published, "stages"), table(published, "stages", "settled")
    assert set(one["stage"]) < set(two["stage"])
    assert f"{len(two) - len(one)} stages in " in printed, "the first seed is not trained again"
    about = json.loads((published / "studies" / "settled" / "study.json").read_text())
    assert about["seeds"] == [0, 1] and about["sequential"] == {"negligible": 0.5, "most_seeds": 2}
    # Where nothing smaller than 100 points matters, two seeds of different accuracies are still too few to say so.
    assert ablation.main([*command, "--negligible", "100"]) == 0
    printed = capsys.readouterr().out
    assert "nothing to train" in printed and "open, too early for an interval" in printed


def test_what_cannot_be_settled_is_said_before_anything_runs(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--preset", str(preset), "--storage", str(tmp_path)]
    wrong = {
        ("--most-seeds", "5"): "--most-seeds goes with --until-settled alone",
        ("--until-settled", "--seeds", "4", "--most-seeds", "3"): "the study has 4 seeds already",
        ("--until-settled", "--set", "ablations=[controls]"): "add paper to its ablations",
    }
    for options, message in wrong.items():
        assert ablation.main([*command, *options]) == 2
        assert message in capsys.readouterr().err
    assert Storage(str(tmp_path)).stages() == []

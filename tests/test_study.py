"""The whole system as its user runs it: the command, and real trainings on Ray."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from study import ablation, reproduce, schema, show
from study.config import load_config
from study.files import Folder
from study.generations import write_generation
from study.graph import plan
from study.storage import Storage
from tests.commands import assert_same_results, study, study_process, table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that ran undisturbed on two slots, and what it printed."""
    storage = tmp_path_factory.mktemp("finished")
    return storage, study_process(preset, storage, "--slots", "2")


def test_the_command_ends_in_the_papers_tables(finished: tuple[Path, str]) -> None:
    storage, printed = finished
    for words in ("Table 1", "Table 2", "Table 3", "Standard-TransferNet", "sharing saved", "busy", "report:"):
        assert words in printed
    page = Path(re.search(r"report: (.+)", printed)[1])  # type: ignore[index]
    assert "Figure 3" in page.read_text()
    assert not any(line.startswith(("(", "20")) for line in printed.splitlines()), "Ray's own chatter"
    stages = table(storage, "stages")
    assert stages["stage"].is_unique and (stages["status"] == "done").all()
    assert not list((storage / "checkpoints").glob("*")) if (storage / "checkpoints").exists() else True


def test_prune_percent_is_a_recount_of_the_stored_zeros(finished: tuple[Path, str]) -> None:
    storage, _ = finished
    stored, stages = Storage(str(storage)), table(storage, "stages")
    nets = stages[stages["kind"] != "knowledge"]
    assert len(nets) > 8
    for row in nets.itertuples():
        tensors = stored.artifact(str(row.stage)).tensors
        weights = [t for name, t in tensors.items() if name.startswith("main.") and name.endswith(".weight")]
        left = sum(int(torch.count_nonzero(weight)) for weight in weights)
        assert row.connections == left
        assert row.prune_percent == 100 * (1 - left / row.connections_dense)  # type: ignore[operator]


def net(storage: Path, name: str) -> dict[str, Any]:
    """The cell of a net."""
    rows: list[dict[str, Any]] = table(storage, "cells").to_dict("records")  # type: ignore[assignment]
    return next(row for row in rows if row["net"] == name)


def test_every_stage_says_what_it_was_made_with(finished: tuple[Path, str]) -> None:
    stages = table(finished[0], "stages")
    for name in ("data_fingerprint", "tensors_sha256", "host", "processor", "device", "code_version"):
        assert stages[name].str.len().gt(0).all(), name
    assert (stages["threads"] == 1).all()
    assert {"python", "torch", "torchvision", "ray", "numpy"} <= json.loads(stages["package_versions"][0]).keys()
    assert stages["tensors_sha256"].is_unique


def test_another_evaluation_of_a_study_trains_nothing(finished: tuple[Path, str], tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    shutil.copytree(finished[0], storage)
    preset, ten = storage / "studies" / "tiny" / "config.yaml", ["--set", "target.data.evaluation=ten"]
    less = ["--set", "transfer.train.validate_every=2"]
    planned = study(preset, storage, *ten, *less, "--dry-run")
    assert "to train: 0 stages, about 0 training images" in planned
    study(preset, storage, *ten, *less, "--name", "ten")
    before, after = table(storage, "stages"), table(storage, "stages", "ten")
    new = after[~after["stage"].isin(before["stage"])]
    assert set(new["kind"]) == {"evaluation"} and (new["status"] == "done").all()
    cells = table(storage, "cells", "ten")
    assert set(cells["measured"]) == set(new["stage"]) and set(cells["stage"]) <= set(before["stage"])
    accuracy = after.set_index("stage")["test_accuracy"]
    shown = pd.read_csv(storage / "studies" / "ten" / "report" / "table1.csv").set_index("net")
    standard = cells[cells["net"] == "Standard-TransferNet"].iloc[0]
    assert shown.loc["Standard-TransferNet", "mean"] == pytest.approx(accuracy[standard["measured"]])
    assert accuracy[standard["measured"]] != accuracy[standard["stage"]]


def test_show_prints_the_whole_ancestry(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    cell = net(finished[0], "Sparse-TargetNet_N")
    (row,) = (row for row in table(finished[0], "stages").to_dict("records") if row["stage"] == cell["stage"])
    assert show.main([cell["stage"][:20], "--storage", str(finished[0])]) == 0
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


def test_show_says_what_is_wrong(
    finished: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        ("transfer-", str(finished[0])): "'transfer-' may be any of transfer-",
        ("transfer-zzz", str(finished[0])): "no stage 'transfer-zzz' in",
        ("transfer-1", str(tmp_path / "nothing")): "no stage is stored in",
    }
    for (key, storage), message in wrong.items():
        assert show.main([key, "--storage", storage]) == 2
        assert message in capsys.readouterr().err


def test_a_report_is_reproduced_without_ray_and_a_false_one_is_not(
    finished: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, again = finished[0], tmp_path / "again"
    report, options = storage / "studies" / "tiny" / "report", ("--storage", str(again), "--slots", "0")
    assert reproduce.main([str(report), *options]) == 0
    assert_same_results(again, storage)
    printed = capsys.readouterr().out
    assert f"{len(table(storage, 'stages'))}  same to the last bit" in printed and "\nreproduced" in printed
    verdicts = pd.read_csv(again / "studies" / "tiny" / "reproduction.csv")["verdict"]
    assert set(verdicts) == {"same"} and len(verdicts) == len(table(storage, "stages"))

    false = tmp_path / "false" / "studies" / "tiny"
    shutil.copytree(report.parent, false)
    rows, key = pq.read_table(false / "stages.parquet"), net(storage, "Hybrid-TransferNet")["stage"]
    better = [row | {"test_accuracy": 99.0} if row["stage"] == key else row for row in rows.to_pylist()]
    pq.write_table(schema.table("stages", better), false / "stages.parquet")
    assert reproduce.main([str(false), *options]) == 2
    assert "stages.parquet is not what the study wrote" in capsys.readouterr().err
    # Who puts its checksum right, too, is found out by training.
    record = json.loads((false / "study.json").read_text())
    files = {name: (false / name).read_bytes() for name in record["files"]}
    facts = {name: value for name, value in record.items() if name not in ("files", "sha256")}
    write_generation(Folder(str(false)), files, facts)
    assert reproduce.main([str(false), *options]) == 1
    printed = capsys.readouterr().out
    assert "nothing to train" in printed and "NOT reproduced" in printed
    assert f"the difference begins at:\n  {key}" in printed


def test_reproduce_says_what_is_wrong(
    finished: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = str(finished[0] / "studies" / "tiny")
    wrong = {
        (str(tmp_path / "nothing"),): "does not exist, or is no folder",
        (str(tmp_path),): "is no study, it has no study.json",
        (report, "--storage", str(finished[0])): "holds the report's own stages",
        (report, "--set", "transfer.tau=2"): "that would be another study",
        (report, "--seeds", "2"): "the report has 1",
    }
    for arguments, message in wrong.items():
        assert reproduce.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_second_run_trains_nothing_and_seeds_that_are_added_only_their_own(
    finished: tuple[Path, str], preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage, _ = finished

    def published() -> dict[str, float]:
        return {path.parent.name: path.stat().st_mtime for path in storage.glob("stages/*/manifest.json")}

    before = published()
    again = study(preset, storage)
    assert "nothing to train" in again and published() == before
    planned = study(preset, storage, "--set", "seeds=[0,1,2,9]", "--dry-run")
    assert re.search(r"Standard-TransferNet +seeds 0\*, 1 to 2, 9\n", planned)
    planned = study(preset, storage, "--seeds", "2", "--dry-run")
    config = load_config(str(preset))
    new = set(plan(config.model_copy(update={"seeds": 2})).stages) - set(plan(config).stages)
    assert f"to train: {len(new)} stages" in planned and published() == before
    printed = study(preset, storage, "--until-settled", "--most-seeds", "2", "--name", "settled")
    after = published()
    assert set(after) - set(before) == new and f"\n{len(new)} stages in " in printed
    assert {key: after[key] for key in before} == before
    steps = ["after 1 seeds (at most 2):", "one more: seed 1", "after 2 seeds", "no more seeds are allowed"]
    assert sorted(steps, key=printed.index) == steps
    assert "Seeds were added while looking" in printed
    about = json.loads((storage / "studies" / "settled" / "study.json").read_text())
    assert about["seeds"] == [0, 1] and about["sequential"] == {"negligible": 0.5, "most_seeds": 2}


def test_what_cannot_be_settled_is_said_before_anything_runs(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--preset", str(preset), "--storage", str(tmp_path)]
    wrong = {
        ("--most-seeds", "5"): "--most-seeds goes only with --until-settled",
        ("--until-settled", "--seeds", "4", "--most-seeds", "3"): "the study has 4 seeds already",
        ("--until-settled", "--set", "ablations=[controls]"): "add paper to its ablations",
    }
    for options, message in wrong.items():
        assert ablation.main([*command, *options]) == 2
        assert message in capsys.readouterr().err
    assert ablation.main([*command, "--until-settled", "--most-seeds", "2", "--dry-run"]) == 0
    assert "should all 2 seeds be needed:\n18 cells" in capsys.readouterr().out
    assert Storage(str(tmp_path)).stages() == []


def test_a_failed_stage_stands_in_the_report_and_the_others_finish(
    finished: tuple[Path, str], preset: Path, tmp_path: Path
) -> None:
    # The source's stages are taken over; pruning in the target diverges at once.
    (tmp_path / "stages").symlink_to(finished[0] / "stages")
    printed = study(preset, tmp_path, "--set", "target_prune.retrain.learning_rate=1.0e+9", status=1)
    assert "2 stages failed, 3 that need them were skipped" in printed
    assert "DivergedError" in printed and "try a learning_rate below" in printed
    stages = table(tmp_path, "stages").set_index("stage")
    assert stages["status"].value_counts().to_dict() == {"done": 8, "skipped": 3, "failed": 2}
    assert stages.loc[stages["status"] == "skipped", "error"].str.contains("which failed").all()
    page = (tmp_path / "studies" / "tiny" / "report" / "index.html").read_text()
    assert "Failures" in page and "DivergedError" in page
    assert len(list((tmp_path / "studies" / "tiny" / "errors").glob("target_prune-*.txt"))) == 2

"""Stages in the command's own process, without Ray: what differs from slots, and what may not."""

import json
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

import analysis
from study import SearchSettings, load_config, run_search, run_study
from study.config import StudyConfig
from study.tune.cluster import ClusterError
from tests.commands import assert_same_results, study, table
from trainables.sessions import Session


def test_neither_ray_nor_its_logs_are_there(trained: Path) -> None:
    assert not ray.is_initialized() and not (trained / "studies/tiny/ray").exists()
    assert (table(trained, "stages")["status"] == "done").all()


def test_ctrl_c_in_a_stage_ends_the_study_and_the_next_run_resumes(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, reports = Session.checkpoint, []

    def press(session: Session, state: object) -> None:
        report(session, state)  # type: ignore[arg-type]
        reports.append(state)
        # The second epoch of the third stage: the first two are complete.
        if len(reports) == 6:
            signal.raise_signal(signal.SIGINT)

    often = ("--set", "resources.checkpoint_seconds=0", "--set", "transfer.train.epochs=3")
    with monkeypatch.context() as patch:
        patch.setattr(Session, "checkpoint", press)
        printed = study(preset, tmp_path, *often, status=130)
    assert "run the same command again" in printed
    before = set(table(tmp_path, "stages").query("status == 'done'")["stage"])
    assert before
    study(preset, tmp_path, *often)
    stages = table(tmp_path, "stages").set_index("stage")
    assert (stages["status"] == "done").all() and stages["resumed_from_epoch"].sum() > 0
    study(preset, tmp_path / "undisturbed", *often)
    assert_same_results(tmp_path, tmp_path / "undisturbed")


def test_threads_are_given_back(tiny_config: StudyConfig, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    outcome = run_study(tiny_config, "threads", storage=tmp_path, slots=0, progress=False)
    assert "the slot was busy" in outcome.summary
    assert torch.get_num_threads() == 2


def test_worker_groups_are_refused(preset: Path, tmp_path: Path) -> None:
    config = load_config(str(preset), ["resources.workers=2"])
    with pytest.raises(ClusterError, match=r"resources.workers=2 asks for a group .*: set it to 0, or give 1 slot"):
        run_study(config, "group", storage=tmp_path, slots=0, progress=False)
    assert not (tmp_path / "stages").exists()


def test_a_search_stops_trials_early_and_continues(preset: Path, tmp_path: Path) -> None:
    changes = {"search.final_seeds": [9], "transfer.train.epochs": 6}
    config = load_config(str(preset), changes)
    for trials in (3, 6):
        run_search(config, "early", SearchSettings(trials=trials), storage=tmp_path, slots=0, progress=False)
    made = pd.read_parquet(tmp_path / "studies" / "early" / "trials.parquet")
    assert len(made) == 6 and {"complete", "pruned"} == set(made["state"])
    stopped = made[made["state"] == "pruned"]["stages"]
    assert not any((tmp_path / "stages" / stage).exists() for stages in stopped for stage in stages[:1])
    assert_trials_are_in_the_tables(analysis.load(tmp_path / "studies" / "early"))


def assert_trials_are_in_the_tables(results: analysis.Results) -> None:
    """With all that they were made from, learning curves too, and nothing of the test images."""
    assert results.trials is not None
    nets = {stage for stages in results.trials.query("state == 'complete'")["stages"] for stage in stages}
    stages = results.stages.set_index("stage")
    assert nets <= set(stages.index) and nets <= set(results.epochs["stage"]) and nets <= set(results.layers["stage"])
    assert stages.loc[sorted(nets), "val_accuracy"].notna().all()
    parents = {parent for text in stages["parents"] for parent in json.loads(text).values()}
    assert parents <= set(stages.index)
    tested = {stage for path in results.cells["path"] for stage in path}
    assert stages.loc[stages.index.isin(tested) & (stages["kind"] == "transfer"), "test_accuracy"].notna().all()
    assert stages.loc[~stages.index.isin(tested), ["test_accuracy", "test_top5_accuracy"]].isna().all(axis=None)
    assert nets - tested and set(results.confusion["stage"]) <= tested


def test_a_warm_start_from_wider_bounds_keeps_what_fits(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = {"search.final_seeds": [9], "search.tau": [1, 64], "search.learning_rate": [0.001, 0.2]}
    narrow = wide | {"search.tau": [3.9, 4.1], "search.learning_rate": [0.0099, 0.0101]}
    settings = SearchSettings(trials=3, sampler="random", early_stopping=False)
    run_search(load_config(str(preset), wide), "wide", settings, storage=tmp_path, slots=0, progress=False)
    config, again = load_config(str(preset), narrow), SearchSettings(trials=4, sampler="random", warm_start="wide")
    run_search(config, "narrow", again, storage=tmp_path, slots=0)
    said = capsys.readouterr().out
    assert re.search(r"warm start: .*learning_rate 0\.\d+.* of trial \d of wide is outside this search's bounds", said)
    made = pd.read_parquet(tmp_path / "studies" / "narrow" / "trials.parquet")
    assert made["origin"].tolist().count("warm start") >= 2
    for text in made["hyperparameters"]:
        params = json.loads(text)
        assert 0.0099 <= params["learning_rate"] <= 0.0101 and 3.9 <= params.get("tau", 4) <= 4.1


def test_a_failed_stage_is_reported_and_the_rest_runs(preset: Path, tmp_path: Path) -> None:
    printed = study(preset, tmp_path, "--set", "target_prune.retrain.learning_rate=1.0e+9", status=1)
    assert "DivergedError" in printed
    stages = table(tmp_path, "stages")
    assert stages["status"].value_counts().to_dict() == {"done": 8, "skipped": 3, "failed": 2}

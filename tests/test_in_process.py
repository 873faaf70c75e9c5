"""Stages in the command's own process, without Ray: what differs from slots, and what may not."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch

import analysis
from study import SearchSettings, load_config, run_search, run_study
from study.config import ConfigError, StudyConfig
from study.tune.cluster import ClusterError
from tests.commands import SECONDS, assert_same_results, study, table
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
    # In a folder that was renamed it is still this search.
    (tmp_path / "studies" / "early").rename(tmp_path / "studies" / "renamed")
    outcome = run_search(config, "renamed", SearchSettings(trials=6), storage=tmp_path, slots=0, progress=False)
    again = pd.read_parquet(tmp_path / "studies" / "renamed" / "trials.parquet")
    pd.testing.assert_frame_equal(again, made)
    assert "trained" not in outcome.summary


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


def test_the_path_to_the_best_settings_is_explained(preset: Path, tmp_path: Path) -> None:
    config = load_config(str(preset), {"search.final_seeds": [8, 9]})
    settings = SearchSettings(trials=4, sampler="random", early_stopping=False)
    folder = tmp_path / "studies" / "explained"
    outcome = run_search(config, "explained", settings, storage=tmp_path, slots=0, progress=False)
    assert outcome.results.ablation_path is None
    best = outcome.results.trials.query("best").iloc[0] if outcome.results.trials is not None else None
    assert best is not None and best["origin"] != "own", "another seed of the sampler finds something better"
    explain = replace(settings, explain=True)
    results = run_search(config, "explained", explain, storage=tmp_path, slots=0, progress=False).results
    tried = results.ablation_path
    assert tried is not None
    differ = tried.loc[tried["step"] == 1, "hyperparameter"]
    assert tried.groupby("step").size().tolist() == list(range(len(differ), 0, -1))
    assert sorted(tried.loc[tried["chosen"], "hyperparameter"]) == sorted(differ)
    for _, step in tried.groupby("step"):
        assert step.loc[step["chosen"], "val_accuracy"].item() == step["val_accuracy"].max()
    # It ends in the best trial's net, and every stop was tested; what was only tried was not.
    assert tried.iloc[-1]["stages"].tolist() == best["stages"].tolist()
    path = results.cells[results.cells["ablation"] == "ablation path"].sort_values("point_index")
    assert path.groupby("seed").size().tolist() == [len(differ) + 1] * 2
    tested = results.cells[results.cells["ablation"] == "search"].set_index(["seed", "own_point"])["measured"]
    for seed, stops in path.groupby("seed"):
        assert [stops["measured"].iloc[end] for end in (0, -1)] == [tested[seed, True], tested[seed, False]]
    stages = results.stages.set_index("stage")
    assert stages.loc[path["measured"], "test_accuracy"].notna().all()
    assert stages.loc[sorted({key for own in tried["stages"] for key in own}), "test_accuracy"].isna().all()
    assert_gains_add_up(pd.read_csv(folder / "report" / "search_path.csv"), path, stages["test_accuracy"])
    page = (folder / "report" / "index.html").read_text()
    assert "Ablation path, gains on the test set" in page and "with the steps between them," in page


def assert_gains_add_up(table: pd.DataFrame, path: pd.DataFrame, accuracy: "pd.Series[float]") -> None:
    by_stop = path.assign(accuracy=accuracy[path["measured"]].to_numpy()).pivot_table(
        index="point_index", columns="seed", values="accuracy"
    )
    assert table["gain_mean"][1:].tolist() == pytest.approx(by_stop.diff().mean(axis=1)[1:].tolist())
    assert table["total_mean"].iloc[-1] == pytest.approx(table["gain_mean"].sum())


@pytest.mark.parametrize("slots", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_neither_the_environment_nor_uv_changes_how_ray_runs(preset: Path, tmp_path: Path, slots: str) -> None:
    """Ray Train's version is the project's, and workers are not started by ``uv run``, which Ray sees by a parent."""
    uv, run = tmp_path / "uv", tmp_path / "run"
    uv.symlink_to(shutil.which("bash") or "")
    run.write_text('"$@"\nexit $?\n')
    command = [sys.executable, "-m", "study.ablation", "--preset", str(preset), "--storage", str(tmp_path)]
    command += ["--slots", slots, "--seeds", "1", "--set", "ablations=[transfer]"]
    environment = os.environ | {"RAY_TRAIN_V2_ENABLED": "0"}
    done = subprocess.run(
        [uv, "run", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_no_path_leads_to_a_front(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--explain follows the path to the best settings: a front .* has several"):
        run_search(load_config(str(preset)), "front", SearchSettings(against="share", explain=True), storage=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_stage_is_reported_and_the_rest_runs(preset: Path, tmp_path: Path) -> None:
    printed = study(preset, tmp_path, "--set", "target_prune.retrain.learning_rate=1.0e+9", status=1)
    assert "DivergedError" in printed
    stages = table(tmp_path, "stages")
    assert stages["status"].value_counts().to_dict() == {"done": 8, "skipped": 3, "failed": 2}

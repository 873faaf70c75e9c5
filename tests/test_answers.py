"""What programs get: every command's answer as JSON, trackers, a model card, and a study shown while it runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from study import ablation, answers, data, export, load_config, networks, pages, reproduce, run_study, show
from study.command import BAD_INPUT, OK
from study.files import Folder
from study.graph import plan
from study.run.lease import is_running, only_driver
from study.run.standing import PLAN, study_state
from study.run.tables import planned_cells
from study.storage import Storage
from study.stored_nets import example_images, find_stage, open_net
from study.tune import progress
from tests.commands import SECONDS
from tests.conftest import TINY, TRAIN
from tests.trees import make_folder
from trainables.data import Places, split
from trainables.data import load as load_data

DOCS = Path(__file__).parents[1] / "docs"
Ask = Callable[..., dict[str, Any]]


def run(*command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    own = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=own, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that was run by a program, and the trackers that it told."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "loggers": ["mlflow", "trackio", "wandb"]}))
    uri = f"sqlite:///{folder}/mlflow.db"
    command = ("study.ablation", "--preset", "tiny.yaml", "--slots", "0", "--json")
    places = {"MLFLOW_TRACKING_URI": uri, "TRACKIO_DIR": str(folder / "trackio"), "WANDB_DIR": str(folder)}
    done = run(*command, folder=folder, WANDB_MODE="offline", **places)
    assert done.returncode == OK, done.stderr
    assert "[1/" in done.stderr  # progress
    assert "left out" not in done.stderr
    (folder / "answer.json").write_text(done.stdout)
    return folder


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """A command's answer."""
    monkeypatch.chdir(folder)

    def ask(main: Callable[[list[str]], int], *arguments: str, status: int = OK) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == status
        answer = json.loads(capsys.readouterr().out)
        assert isinstance(answer, dict) and answer["version"] == answers.VERSION
        return answer

    return ask


def test_a_study_answers_with_its_nets_and_comparisons(folder: Path) -> None:
    answer = answers.StudyOutcome.model_validate_json((folder / "answer.json").read_text())
    stages = {one.net: one for one in answer.nets}
    assert stages["Standard-TransferNet"].seeds == [0] and stages["Standard-TransferNet"].half_width is None
    assert stages["Sparse-TargetNet_C80"].prune_percent == pytest.approx(80, abs=0.1)
    assert {one.verdict for one in answer.comparisons} == {"open"}  # of one seed
    assert answer.stages == answer.stages_done and not answer.failed and Path(folder, answer.report).is_file()


def test_a_program_extends_a_study_by_two_seeds(folder: Path, ask: Ask) -> None:
    """With nothing but --help and --json: the options and the fields that it uses are the documented ones."""
    plan_ = ask(ablation.main, "--preset", "tiny.yaml", "--dry-run")
    assert all(stage["stored"] for stage in plan_["stages"]) and plan_["device_hours"] == 0
    more = str(len(plan_["seeds"]) + 2)
    wanted = ask(ablation.main, "--preset", "tiny.yaml", "--seeds", more, "--dry-run")
    missing = [stage for stage in wanted["stages"] if not stage["stored"]]
    assert {stage["seed"] for stage in missing} == {1, 2} and wanted["device_hours"] > 0
    keys = {stage["stage"] for stage in wanted["stages"]}
    assert all(parent in keys for stage in wanted["stages"] for parent in stage["parents"].values())
    quietly = ("--set", "loggers=[]", "--slots", "0")
    nets = ask(ablation.main, "--preset", "tiny.yaml", "--seeds", more, *quietly)["nets"]
    assert all(net["seeds"] == [0, 1, 2] and net["half_width"] for net in nets)


def test_trackers_have_a_run_per_stage_and_the_tables(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    answer = json.loads((folder / "answer.json").read_text())
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {
        run.data.tags["stage"]: run
        for run in client.search_runs([experiment.experiment_id])
        if "stage" in run.data.tags
    }
    assert len(runs) == answer["stages"] and {run.info.status for run in runs.values()} == {"FINISHED"}
    storage = Storage(str(folder / "results"))
    (transfer,) = [
        key for key in runs if key.startswith("transfer-") and runs[key].info.run_name == "transfer S-K- seed 0"
    ]
    rows = storage.rows("epochs", [transfer]).to_pylist()
    logged = client.get_metric_history(runs[transfer].info.run_id, "val_accuracy")
    assert [one.value for one in logged] == [row["val_accuracy"] for row in rows]
    assert runs[transfer].data.params["train.learning_rate"] == "0.01"
    (report,) = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "report"]
    standard = next(net for net in answer["nets"] if net["net"] == "Standard-TransferNet")
    assert report.data.metrics["Standard-TransferNet"] == standard["test_accuracy"]
    assert {"table1.csv", "summary.md"} <= {one.path for one in client.list_artifacts(report.info.run_id)}
    assert len(list((folder / "wandb").glob("offline-run-*"))) == answer["stages"] + 1


def test_trackio_has_a_run_per_stage_and_the_tables(folder: Path, tmp_path: Path) -> None:
    answer = json.loads((folder / "answer.json").read_text())
    told = shutil.copytree(folder / "trackio", tmp_path / "trackio")

    def ask(*arguments: str) -> Any:
        done = run("trackio.cli", *arguments, "--project", "tiny", "--json", folder=tmp_path, TRACKIO_DIR=str(told))
        assert done.returncode == OK, done.stderr
        return json.loads(done.stdout)

    assert len(ask("list", "runs")["runs"]) == answer["stages"] + 1
    transfer = ("--run", "transfer S-K- seed 0")
    settings = ask("get", "run", *transfer)["config"]
    assert settings["train.learning_rate"] == 0.01
    rows = Storage(str(folder / "results")).rows("epochs", [settings["stage"]]).to_pylist()
    logged = ask("get", "metric", *transfer, "--metric", "val_accuracy")["values"]
    assert [one["value"] for one in logged] == [row["val_accuracy"] for row in rows]
    standard = next(net for net in answer["nets"] if net["net"] == "Standard-TransferNet")
    (number,) = ask("get", "metric", "--run", "report", "--metric", "Standard-TransferNet")["values"]
    assert number["value"] == standard["test_accuracy"]
    assert {"table1", "summary"} <= set(ask("get", "run", "--run", "report")["metrics"])
    (failed,) = ask("get", "metric", *transfer, "--metric", "failed")["values"]
    assert failed["value"] == 0


def test_a_tracker_that_fails_ends_nothing() -> None:
    from study.tune.loggers import Loggers

    console = Console(file=(said := StringIO()))
    loggers = Loggers(["mlflow"], "tiny", console)
    loggers._trackers = {"mlflow": object()}  # type: ignore[dict-item]
    loggers.conclude({}, {}, "")
    assert "mlflow failed and is left out" in said.getvalue() and not loggers.in_use


def test_a_trackio_that_cannot_write_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from study.tune.loggers import Loggers

    (tmp_path / "file").touch()
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "file")
    console = Console(file=(said := StringIO()))
    assert not Loggers(["trackio"], "tiny", console).in_use
    assert "trackio failed and is left out" in said.getvalue() and str(tmp_path / "file") in said.getvalue()


def test_show_lists_studies_nets_and_origins(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["study"] for one in ask(show.main)["studies"]] == ["tiny"]
    state = ask(show.main, "tiny")
    assert not state["running"] and state["stages_done"] == state["stages"]
    assert show.main(["tiny"]) == OK
    table = capsys.readouterr().out
    assert "Sparse-TargetNet_C80" in table and "pruned %" in table
    ancestry = ask(show.main, "tiny:Sparse-TargetNet_N:0")
    kinds = [one["row"]["kind"] for one in ancestry["stages"]]
    assert kinds[0] == "neuron_prune" and {"reference", "knowledge", "source_prune", "transfer"} <= set(kinds)
    assert all(Path(one["files"]).is_dir() for one in ancestry["stages"])
    assert show.main(["tiny", "table1", "1"]) == OK
    assert "test ACC" in capsys.readouterr().out
    assert "did you mean 'tiny'" in ask(show.main, "tinny", "--watch", status=BAD_INPUT)["error"]


def test_a_study_is_shown_while_it_runs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is planned and what is stored is known before there are tables."""
    config = load_config(str(folder / "tiny.yaml"), {"seeds": [0, 7]})
    storage = Storage(str(folder / "results"))
    assert not is_running(storage.folder, "early")
    with only_driver(storage.folder, "early"):
        storage.write_study("early", f"{PLAN}.parquet", planned_cells(plan(config)))
        state = study_state(storage, "early")
    assert state.running and 0 < state.stages_done < state.stages
    assert all(net.seeds == [0] and list(net.missing) == ["7"] for net in state.nets)
    assert not study_state(storage, "early").running
    Folder(str(folder / "results")).delete(f"studies/early/{PLAN}.parquet")
    assert show.main(["early", "--storage", str(folder / "results")]) == BAD_INPUT
    assert "run the study first" in capsys.readouterr().err


def test_every_other_answer(folder: Path, ask: Ask) -> None:
    assert ask(ablation.main, "--list-presets")["choices"]["solar"].startswith("From ImageNet")
    assert "tau = 4" in ask(ablation.main, "--preset", "tiny.yaml", "--list-axes")["choices"]["tau"]
    assert ask(ablation.main, "--explain", "transfer.tau")["presets"]["digits"] == "4"
    layers = ask(networks.main, "small_alexnet")["layers"]
    assert [layer["from_the_top"] for layer in layers] == list(range(8, 0, -1))
    checked = ask(data.main, "check", "digits")
    assert [one["title"] for one in checked["data_sets"]] and all(one["complete"] for one in checked["data_sets"])
    assert ask(data.main, "check", "indoor67", "--data-root", str(folder), status=1)["data_sets"][0]["problems"]
    assert "did you mean 'digits'" in ask(ablation.main, "--preset", "digit", status=BAD_INPUT)["error"]
    again = ask(reproduce.main, "results/studies/tiny", "--seeds", "1", "--set", "data.root=.", "--slots", "0")
    assert again["agrees"] and {one["verdict"] for one in again["stages"]} == {"same"}


def test_the_schema_is_documented() -> None:
    assert (DOCS / "json.md").read_text(encoding="utf-8") == pages.json_answers(), "run `make docs`"
    fields = [field for model in answers.COMMANDS for field in model.model_fields.values()]
    assert all(field.description for field in fields)


def test_a_long_stage_is_reported_in_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.2)
    path = tmp_path / "long.yaml"
    long = {**TINY, "ablations": ["transfer"]}
    long["source"] = {**TINY["source"], "train": {**TINY["source"]["train"], "epochs": 30}}  # type: ignore[index, dict-item]
    path.write_text(yaml.safe_dump(long))
    run_study(load_config(str(path)), "long", storage=str(tmp_path), slots=0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("under way: reference")]
    assert any(re.search(r"epoch \d+/30, validation [\d.]+ %, after \d+ s, about \d+ s left", line) for line in lines)


def test_an_exported_net_carries_what_a_program_needs(folder: Path, ask: Ask) -> None:
    import onnxruntime

    made = ask(export.main, "tiny:Sparse-TargetNet_C80:0", "--format", "onnx", "--license", "mit")
    about = onnxruntime.InferenceSession(made["file"]).get_modelmeta().custom_metadata_map
    facts = {key: json.loads(text) for key, text in about.items()}
    assert facts["class_names"] == [str(digit) for digit in range(10)] and facts["crop"] == [24, 24]
    assert facts["nets"] == ["tiny:Sparse-TargetNet_C80"] and facts["license"] == "mit"
    assert facts["test_accuracy_low"] < facts["test_accuracy"] < facts["test_accuracy_high"]
    card = Path(made["card"]).read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit"
    metric = head["model-index"][0]["results"][0]["metrics"][0]
    assert metric["value"] == pytest.approx(facts["test_accuracy"], abs=1e-3)
    assert re.search(r"Over the 3 seeds of the study tiny: [\d.]+ ± [\d.]+ %", card)


def test_an_onnx_file_answers_for_a_photograph_as_the_study_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program on the model card, which is that of docs/export.md, run as it stands."""
    monkeypatch.chdir(tmp_path)
    photos = make_folder(tmp_path / "photos", per_class=16)
    images = {"name": "folder", "path": str(photos), "size": 28, "test_share": 0.25, "mean": [0.4, 0.5, 0.3]}
    images |= {"std": [0.2, 0.3, 0.25], "val_per_class": 2}
    preset = {**TINY, "network": "tests.own:rgb", "ablations": ["transfer"], "neuron_prune": None}
    source = {"data": images, "train": TRAIN, "prune": {"keep": 0.5, "steps": 1, "retrain": TRAIN}}
    config = {**preset, "source": source, "target": {"data": images}}
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(config))
    run_study(load_config("photos.yaml"), "photos", slots=0, progress=False)
    stage = "photos:Hybrid-TransferNet:0"
    assert export.main([stage, "--format", "onnx", "--out", "model.onnx"]) == OK
    storage = Storage("results")
    stored = open_net(storage, find_stage(storage, stage))
    pixels = example_images(storage, stored, 4)
    assert pixels is not None
    content = load_data(load_config("photos.yaml").target.data, Places())
    assert content.decoding is not None
    own = load_config("photos.yaml").target.data
    first = content.decoding.files[split(content, own, 0).test[0]]
    shutil.copy(photos / first, "photo.jpg")
    program = re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    assert program is not None and program[1] in (DOCS / "export.md").read_text(encoding="utf-8")
    capsys.readouterr()
    exec(compile(program[1], "card", "exec"), {})
    name, share = capsys.readouterr().out.split()
    with torch.no_grad():
        shares = torch.softmax(stored.net(pixels[:1]), 1)[0]
    assert name == content.class_names[int(shares.argmax())]
    assert float(share) == pytest.approx(float(shares.max()), abs=1e-4)


def test_a_users_readme_stays(folder: Path, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    made = ask(export.main, "tiny:Sparse-TargetNet_C80:0", "--out", str(tmp_path / "net.safetensors"))
    assert (tmp_path / "README.md").read_text() == "mine" and Path(made["card"]).name == "net-README.md"


def test_the_interval_of_an_accuracy_is_wilsons(folder: Path) -> None:
    from statsmodels.stats.proportion import proportion_confint

    from study.card import card_of

    storage = Storage(str(folder / "results"))
    card = card_of(storage, open_net(storage, find_stage(storage, "tiny:Standard-TransferNet:0")), "mit", "")
    assert card.test_accuracy is not None and card.interval is not None
    right = round(card.test_accuracy / 100 * card.test_images)
    expected = proportion_confint(right, card.test_images, method="wilson")
    np.testing.assert_allclose(card.interval, 100 * np.array(expected), atol=1e-4)

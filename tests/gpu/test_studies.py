"""Whole studies on a GPU: alone on it, four stages sharing it, in worker groups; and a GPU without room."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from study.config import load_config
from study.graph import StageGraph, plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from tests.commands import assert_same_results, study_process, table
from tests.gpu import needs_gpu
from tests.test_memory import error_of

pytestmark = [needs_gpu, pytest.mark.slow]


@pytest.fixture(scope="module")
def alone(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose stages have a GPU for themselves."""
    storage = tmp_path_factory.mktemp("alone")
    study_process(preset, storage, "--set", "resources.gpus=1")
    return storage


def test_stages_run_on_the_gpu(alone: Path) -> None:
    stages = table(alone, "stages")
    assert set(stages["status"]) == {"done"}
    assert set(stages["device"]) == {torch.cuda.get_device_name()}


def test_four_stages_share_the_gpu(preset: Path, alone: Path, tmp_path: Path) -> None:
    printed = study_process(preset, tmp_path, "--set", "resources.gpus=0.25")
    assert "the 4 slots were busy" in printed
    assert_same_results(alone, tmp_path)


def test_a_worker_group_with_one_gpu(preset: Path, alone: Path, tmp_path: Path) -> None:
    """The same nets: one worker's share is the whole batch."""
    config = load_config(str(preset), ["resources.gpus=1", "resources.workers=1"])
    stages = dict(list(plan(config).stages.items())[:2])
    storage = Storage(str(tmp_path))
    experiment = Experiment(StageGraph(stages), storage, "tiny", config.resources, config.data, Cluster(slots=1))
    experiment.run(Console(quiet=True))
    assert experiment.ran == list(stages), experiment.failed
    for rows in ("epochs", "layers", "confusion"):
        assert storage.rows(rows, stages).equals(Storage(str(alone)).rows(rows, stages)), rows
    assert storage.rows("stages", stages)["device"].to_pylist() == 2 * [torch.cuda.get_device_name()]


def test_a_gpu_without_room_is_said(preset: Path, tmp_path: Path) -> None:
    more = ("--set", "network=tests.test_memory:hungry", "--set", "resources.gpus=1")
    error = error_of(tmp_path, study_process(preset, tmp_path, *more, status=1))
    assert error.startswith("the GPU's memory ran out (now resources.images_a_pass=the whole batch, resources.gpus=1")

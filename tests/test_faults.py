"""Real signals and killed processes: nothing is lost, and the results are those of an undisturbed run."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from rich.console import Console

from study.config import load_config
from study.graph import StageGraph, plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from tests.commands import SECONDS, assert_same_results, command, study, table
from tests.kills import named, wait_until

pytestmark = pytest.mark.slow

QUIETLY = (
    *("--set", "source.train.epochs=60", "--set", "resources.checkpoint_seconds=0"),
    *("--set", "source.data.test_share=0.8", "--set", "source.data.val_per_class=null"),
)
LONG = (*QUIETLY, "--slots", "2")
"""The reference trains for some seconds, so that it can be disturbed after its first checkpoint."""


def start(preset: Path, storage: Path, stdout: int | IO[str] = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(preset, storage, *LONG),
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def has_checkpoint(storage: Path) -> Callable[[], bool]:
    return lambda: any((storage / "checkpoints").glob("*.pt"))


@pytest.fixture(scope="module")
def undisturbed(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed")
    study(preset, storage, *QUIETLY)
    return storage


def resumed_epochs(storage: Path) -> int:
    stages = table(storage, "stages").set_index("kind")
    return int(stages.loc["reference", "resumed_from_epoch"])  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_and_the_next_run_goes_on(
    number: signal.Signals, undisturbed: Path, preset: Path, tmp_path: Path
) -> None:
    """Ctrl-C goes to all processes of the terminal, SIGTERM to the command alone, and Ray would take it for itself."""
    log = tmp_path / "log.txt"
    with log.open("w") as stdout:
        process = start(preset, tmp_path, stdout)
    wait_until(has_checkpoint(tmp_path))
    pressed = time.monotonic()
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    # The command's own end: a process of Ray's takes up to a minute more, and would keep a pipe open.
    status = process.wait(timeout=60)
    assert status == 128 + number and time.monotonic() - pressed < 20
    printed = log.read_text()
    assert "run the same command again" in printed and "Traceback" not in printed
    assert (table(tmp_path, "stages")["status"] == "missing").all()
    study(preset, tmp_path, *QUIETLY)
    assert resumed_epochs(tmp_path) > 0
    assert_same_results(tmp_path, undisturbed)


def trials(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes in which stages are trained, by the name that Ray gives them."""
    return named("ray::ImplicitFunc", psutil.Process(process.pid).children(recursive=True))


def test_a_killed_driver_loses_nothing(undisturbed: Path, preset: Path, tmp_path: Path) -> None:
    process = start(preset, tmp_path)
    wait_until(has_checkpoint(tmp_path))
    orphans = trials(process)
    assert orphans
    process.kill()
    process.wait()
    assert not psutil.wait_procs(orphans, timeout=30)[1]
    study(preset, tmp_path, *QUIETLY)
    assert resumed_epochs(tmp_path) > 0
    assert_same_results(tmp_path, undisturbed)


def test_a_killed_trial_is_resumed_within_the_run(undisturbed: Path, preset: Path, tmp_path: Path) -> None:
    process = start(preset, tmp_path)
    wait_until(has_checkpoint(tmp_path))
    victims = trials(process)
    assert victims
    for victim in victims:
        victim.kill()
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, printed
    assert resumed_epochs(tmp_path) > 0
    assert_same_results(tmp_path, undisturbed)


VIT = "timm:vit_tiny_patch16_224?input=1x24x24&img_size=24&in_chans=1&patch_size=6&embed_dim=32&depth=2&num_heads=2"


@pytest.mark.parametrize("network", ["small_alexnet", f"{VIT}&drop_rate=0.1&drop_path_rate=0.1"])
def test_a_worker_group_gives_what_one_process_gives(network: str, preset: Path, tmp_path: Path) -> None:
    # At a rate that does not amplify rounding, so that the bound can be tight.
    changes: dict[str, Any] = {
        "source.train.epochs": 5,
        "source.train.learning_rate": 0.003,
        "source.train.dropout": 0.5,
    }
    if network != "small_alexnet":
        changes |= {"network": network, "neuron_prune": None, "source.prune.keep": 0.5}
    config = load_config(str(preset), changes)
    graph = plan(config)
    key = next(iter(graph.stages))
    graph = StageGraph({key: graph.stages[key]})
    losses = []
    for workers in (0, 2):
        storage = Storage(str(tmp_path / str(workers)))
        resources = config.resources.model_copy(update={"workers": workers})
        experiment = Experiment(graph, storage, "tiny", resources, config.data, Cluster(slots=min(1, workers)))
        experiment.run(Console(quiet=True))
        assert experiment.ran == [key], experiment.failed
        assert storage.rows("stages", [key])["workers"].to_pylist() == [workers]
        losses.append(storage.rows("epochs", [key])["loss"].to_pylist())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_an_address_where_no_cluster_is(preset: Path, tmp_path: Path) -> None:
    printed = study(preset, tmp_path, "--address", "127.0.0.1:1", status=2)
    assert "no Ray cluster at --address 127.0.0.1:1" in printed
    assert "ray start --head" in printed

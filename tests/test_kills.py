"""Processes and nodes of a real Ray cluster that are killed: nothing is lost, little is repeated."""

import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as Nodes
from rich.console import Console

from study.config import load_config
from study.graph import StageGraph, plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from tests.commands import SECONDS, assert_same_results, command, study, table
from tests.kills import COUNTER, Killer, named, nodes, started_by, wait_until
from trainables.sessions import Session
from trainables.stages import run_stage

pytestmark = pytest.mark.slow

COUNTED = ("--set", "network=tests.kills:small_alexnet")
LONG = (
    *COUNTED,
    *("--set", "source.data.test_share=0.8", "--set", "source.data.val_per_class=null"),
    *("--set", "source.train.epochs=80", "--set", "transfer.train.epochs=15"),
    *("--set", "target_prune.retrain.epochs=10", "--set", "resources.checkpoint_seconds=0"),
)
"""A study of many short epochs: a kill costs an epoch, so that six may cost no more than 15 % of them."""


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file in which networks count the epochs that they begin; processes find it through their environment."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("counter") / "epochs"
        patch.setenv(COUNTER, str(path))
        yield path


@pytest.fixture
def begun(counter: Path) -> Callable[[], int]:
    """Epochs begun since the test started."""
    counter.write_bytes(b"")
    return lambda: counter.stat().st_size


@pytest.fixture(scope="module")
def undisturbed(preset: Path, counter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed")
    counter.write_bytes(b"")
    study(preset, storage, *LONG)
    assert counter.stat().st_size == table(storage, "stages")["epochs"].sum()
    return storage


@pytest.fixture(scope="module")
def three(counter: Path) -> Iterator[Nodes]:
    with nodes(1, 1, 1) as cluster:
        yield cluster


@pytest.fixture
def cluster(three: Nodes) -> Nodes:
    """Three nodes with a CPU each, whatever an earlier test did to them."""
    while len(three.worker_nodes) < 3:
        three.add_node(num_cpus=1)
    return three


def start(arguments: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT)


def nodes_with(process: str, cluster: Nodes) -> list[Any]:
    return [node for node in cluster.worker_nodes if named(process, started_by(node))]


def resumed_epochs(storage: Path) -> int:
    return int(table(storage, "stages")["resumed_from_epoch"].sum())


def kill_at_random(
    preset: Path | str, name: str, kills: int, undisturbed: Path, arguments: Sequence[str], cluster: Nodes, folder: Path
) -> None:
    """Kill a study so often; it must give what it gives undisturbed, with at most 1.15 times the epochs."""
    counter = Path(os.environ[COUNTER])
    epochs = int(table(undisturbed, "stages", name)["epochs"].sum())
    log = folder / "log.txt"
    killer = Killer([*command(preset, folder, *arguments), "--slots", "2"], cluster, log, seed=0)
    assert killer.run(epochs, kills, lambda: counter.stat().st_size) == 0, log.read_text()
    assert len(killer.killed) == kills, killer.killed
    assert_same_results(folder, undisturbed, name, name)
    assert counter.stat().st_size <= 1.15 * epochs, killer.killed


def test_a_study_killed_at_random_moments(
    undisturbed: Path, preset: Path, cluster: Nodes, begun: Callable[[], int], tmp_path: Path
) -> None:
    kill_at_random(preset, "tiny", 6, undisturbed, LONG, cluster, tmp_path)


@pytest.mark.full
def test_the_default_study_killed_twenty_times(
    cluster: Nodes, counter: Path, begun: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.kills.SECONDS", 3600)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run([*command("digits", undisturbed, *COUNTED), "--slots", "2"], check=True)
    assert begun() == table(undisturbed, "stages", "digits")["epochs"].sum()
    counter.write_bytes(b"")
    killed.mkdir()
    kill_at_random("digits", "digits", 20, undisturbed, COUNTED, cluster, killed)


def test_one_of_three_nodes_is_lost(
    undisturbed: Path, preset: Path, cluster: Nodes, begun: Callable[[], int], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    driver = start([*command(preset, tmp_path, *LONG, "--slots", "3"), "--address", str(cluster.address)], log)
    # The reference runs alone and has epochs to go: whose process is gone is certain then. Others go on with two nodes.
    wait_until(lambda: begun() >= 20 or driver.poll() is not None)
    cluster.remove_node(nodes_with("ray::ImplicitFunc", cluster)[0], allow_graceful=False)
    assert driver.wait(SECONDS) == 0, log.read_text()
    assert "its process is gone; it resumes from its last checkpoint" in log.read_text()
    assert_same_results(tmp_path, undisturbed)


def grouped(preset: Path, folder: Path, cluster: Nodes, workers: int, epochs: int, last: int) -> Experiment:
    """The reference and as many source_prune stages, in worker groups on the cluster."""
    overrides = [*LONG[1::2], f"source.train.epochs={epochs}"]
    config = load_config(str(preset), overrides)
    stages = plan(config).stages
    kept = [key for key in stages if stages[key].spec.kind in ("reference", "source_prune")][: last + 1]
    resources = config.resources.model_copy(update={"workers": workers})
    storage, graph = Storage(str(folder)), StageGraph({key: stages[key] for key in kept})
    return Experiment(graph, storage, "tiny", resources, config.data, Cluster(str(cluster.address), slots=1))


def test_a_worker_group_loses_a_worker_its_driver_and_a_node(
    preset: Path, cluster: Nodes, begun: Callable[[], int], tmp_path: Path
) -> None:
    experiment = grouped(preset, tmp_path, cluster, workers=2, epochs=16, last=0)
    ((key, stage),) = experiment.graph.stages.items()
    alone = run_stage(stage.spec, {}, Session())
    lost: list[str] = []

    def kill() -> None:
        # Both workers count.
        so_far = begun()
        wait_until(lambda: begun() > so_far + 8)
        named("ray::RayTrainWorker", started_by(nodes_with("ray::RayTrainWorker", cluster)[0]))[0].kill()
        lost.append("worker")
        so_far = begun()
        wait_until(lambda: begun() > so_far + 8)
        # What the group holds is freed all the same, though no dashboard runs here: the third node alone is no room.
        everywhere = [process for node in (cluster.head_node, *cluster.worker_nodes) for process in started_by(node)]
        named("ray::ImplicitFunc", everywhere)[0].kill()
        lost.append("driver")
        so_far = begun()
        wait_until(lambda: begun() > so_far + 8)
        cluster.remove_node(nodes_with("ray::RayTrainWorker", cluster)[0], allow_graceful=False)
        lost.append("node")

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    experiment.run(Console(quiet=True))
    killing.join(1)
    assert lost == ["worker", "driver", "node"]
    assert experiment.ran == [key], experiment.failed
    assert experiment.storage.rows("stages", [key])["resumed_from_epoch"].to_pylist()[0] >= 6
    losses = experiment.storage.rows("epochs", [key])["loss"].to_pylist()
    assert losses == pytest.approx([row["loss"] for row in alone.epochs], rel=1e-2)


@pytest.mark.full
def test_a_worker_group_finds_a_damaged_stage(
    undisturbed: Path, preset: Path, cluster: Nodes, begun: Callable[[], int], tmp_path: Path
) -> None:
    experiment = grouped(preset, tmp_path, cluster, workers=1, epochs=80, last=2)
    reference, damaged, last = experiment.graph.stages
    for key in (reference, damaged):
        shutil.copytree(undisturbed / "stages" / key, tmp_path / "stages" / key)
    (tensors,) = (tmp_path / "stages" / damaged).glob("*/tensors.safetensors")
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    console = Console(record=True, file=io.StringIO(), width=1000)
    experiment.run(console)
    assert not experiment.failed and set(experiment.ran) == {damaged, last}
    assert f"{tensors} was damaged: the stage is withdrawn" in console.export_text()
    assert experiment.storage.artifact(damaged).tensors


def test_a_node_gets_notice(
    undisturbed: Path, preset: Path, begun: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kubernetes gives it: SIGTERM to the node's process, which has half a minute to end."""
    seldom = (*LONG, "--set", "resources.checkpoint_seconds=600")
    with nodes() as cluster:
        joined = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={cluster.address}", "--block"]
        node = start([*joined, "--num-cpus=1", "--object-store-memory=100000000"], tmp_path / "node.txt")
        wait_until(lambda: "Ray runtime started" in (tmp_path / "node.txt").read_text())
        arguments = [*command(preset, tmp_path, *seldom, "--slots", "1"), "--address", str(cluster.address)]
        driver = start(arguments, tmp_path / "log.txt")
        wait_until(lambda: begun() >= 20 or driver.poll() is not None)
        cluster.add_node(num_cpus=1)
        before = begun()
        node.send_signal(signal.SIGTERM)
        wait_until(lambda: bool(list(tmp_path.glob("checkpoints/*.pt"))) or driver.poll() is not None)
        assert begun() - before < 60
        assert driver.wait(SECONDS) == 0, (tmp_path / "log.txt").read_text()
        node.wait(60)
    assert_same_results(tmp_path, undisturbed)
    assert resumed_epochs(tmp_path) >= 20
    # Not an epoch was trained twice.
    assert begun() == table(tmp_path, "stages")["epochs"].sum()


def test_the_head_is_lost_and_another_cluster_goes_on(
    undisturbed: Path, preset: Path, begun: Callable[[], int], tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    with nodes(1) as cluster:
        address = str(cluster.address)
        driver = start([*command(preset, tmp_path, *LONG), "--slots", "1", "--address", address], log)
        wait_until(lambda: begun() >= 20 or driver.poll() is not None)
        for processes in cluster.head_node.all_processes.values():
            for started in processes:
                started.process.kill()
        # Ray itself would end it with status 1.
        assert driver.wait(SECONDS) == 2, log.read_text()
    assert f"the head of the Ray cluster at {address} is gone" in log.read_text()
    assert "run the same command" in log.read_text() and "Traceback" not in log.read_text()
    study(preset, tmp_path, *LONG)
    assert resumed_epochs(tmp_path) > 0
    assert_same_results(tmp_path, undisturbed)

"""What a stage asks for against what there is: arithmetic, the commands, and a cluster that grows."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console

from study.config import ResourceConfig, load_config
from study.graph import plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from study.tune.resources import Ask, Capacity, Nodes, ResourceError, ask_of, autoscaler_config, require, this_machine
from tests.clusters import HEAD as HEAD_KIND
from tests.clusters import growing_cluster, ours
from tests.commands import SECONDS, command, study, study_process, table
from tests.kills import nodes
from trainables.devices import gpu_problem

HEAD = Nodes({"CPU": 0, "node:__internal_head__": 1})


@pytest.mark.parametrize(
    ("ask", "node", "count"),
    [
        (Ask(1, 0), {"CPU": 4}, 4),
        (Ask(0.3, 0), {"CPU": 3}, 10),
        (Ask(1, 1), {"CPU": 4, "GPU": 1}, 1),
        (Ask(1, 0.25), {"CPU": 16, "GPU": 2}, 8),
        (Ask(1, 0.4), {"CPU": 16, "GPU": 2}, 4),  # five would need a share of two GPUs
        (Ask(4, 0.25), {"CPU": 8, "GPU": 2}, 2),
        (Ask(1, 2), {"CPU": 4, "GPU": 3}, 1),
        (Ask(1, 1), {"CPU": 4}, 0),
    ],
)
def test_how_many_processes_a_node_holds(ask: Ask, node: dict[str, float], count: int) -> None:
    assert ask.fitting(node) == count


def test_workers_of_a_stage_may_lie_on_several_nodes() -> None:
    capacity = Capacity("the cluster", (Nodes({"CPU": 2}, 3),))
    assert capacity.stages(Ask(1, 0, 2)) == 3
    assert capacity.stages(Ask(1, 0, 4)) == 1
    assert capacity.stages(Ask(3, 0, 1)) == 0


def test_an_autoscaler_counts_with_all_that_it_may_start() -> None:
    workers = (Nodes({"CPU": 8}, 5), Nodes({"CPU": 4, "GPU": 1}, 5))
    capacity = Capacity("the cluster", (HEAD,), workers, most_started=6)
    assert capacity.stages(Ask(1, 1)) == 5
    assert capacity.stages(Ask(1, 0)) == 5 * 8 + 4
    # A worker that is up already is one of those.
    grown = Capacity("the cluster", (HEAD, workers[1]), workers, most_started=6)
    assert grown.stages(Ask(1, 1)) == 5


def test_what_can_never_run_is_refused_and_what_nobody_knows_is_a_warning() -> None:
    ask = Ask(1, 1, 2)
    with pytest.raises(
        ResourceError, match=r"2 workers with 1 CPU and 1 GPU each .*resources.gpus=1.*resources.workers=2"
    ):
        require(ask, Capacity("the cluster", (HEAD,)))
    assert "ray status" in str(require(ask, Capacity("the cluster", (HEAD,), None)))
    assert require(ask, Capacity("the cluster", (HEAD,), (Nodes({"CPU": 4, "GPU": 1}, 2),), 2)) is None


def test_this_machine_always_has_the_cpus_of_one_stage() -> None:
    ask = ask_of(ResourceConfig(cpus=1000))
    assert this_machine(ask).stages(ask) == 1


def test_an_autoscaler_of_another_cluster_is_not_ours() -> None:
    assert autoscaler_config("192.0.2.1:1") is None


GPUS = int(this_machine(Ask(1, 0)).present[0].resources["GPU"])
TOO_MANY = ("--set", "resources.gpus=1", "--set", f"resources.workers={GPUS + 1}")


@pytest.mark.slow
def test_a_study_without_its_gpus_ends_at_once(preset: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    printed = study_process(preset, tmp_path, *TOO_MANY, status=2)
    assert time.monotonic() - started < 60
    assert "resources.gpus=1" in printed and "--set resources.gpus=0" in printed
    search = [sys.executable, "-m", "study.search", *command(preset, tmp_path, *TOO_MANY)[3:]]
    done = subprocess.run(search, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2 and "could never start" in done.stderr


@pytest.mark.slow
def test_a_dry_run_shows_packing_and_cost(preset: Path, tmp_path: Path) -> None:
    printed = study(preset, tmp_path, "--dry-run", "--set", "resources.workers=2")
    assert "holds 2 workers with 1 CPU and 0 GPUs each" in printed and "side by side" in printed
    assert "CPU-hours: unknown, as no stage of small_alexnet" in printed
    study(preset, tmp_path)
    assert "CPU-hours: none" in study(preset, tmp_path, "--dry-run")
    assert "CPU-hours: about 0.0" in study(preset, tmp_path, "--dry-run", "--seeds", "3")
    printed = study(preset, tmp_path, "--dry-run", "--seeds", "3", *TOO_MANY)
    assert "could not start" in printed and "GPU-hours: unknown" in printed


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A Ray head without CPUs whose autoscaler starts up to two one-CPU workers: its address, and its folder."""
    kinds = {
        HEAD_KIND: {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    }
    with growing_cluster(monkeypatch, kinds, most=2) as found:
        yield found


@pytest.mark.slow
def test_a_study_starts_the_workers_that_it_needs(growing: tuple[str, Path], preset: Path, tmp_path: Path) -> None:
    address, folder = growing

    def raylets() -> int:
        return sum(process.info["name"] == "raylet" for process in ours(folder))

    assert raylets() == 1
    refused = study_process(preset, tmp_path, "--address", address, *TOO_MANY, status=2)
    assert "its autoscaler starts up to 2 of: 2 x (1 CPU and 0 GPUs)" in refused
    assert raylets() == 1
    # Two references, long enough that one worker would not do.
    long = ("--seeds", "2", "--set", "source.seed=null", "--set", "source.train.epochs=20")
    printed = study_process(preset, tmp_path, "--address", address, *long)
    assert "the 2 slots were busy" in printed
    assert (table(tmp_path, "stages")["status"] == "done").all()
    assert raylets() == 3


def test_gpus_that_no_stage_could_use_well_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"the others would stand idle.*gpus=1 and workers=2"):
        ResourceConfig(gpus=2)
    with pytest.raises(ValidationError, match="which NCCL refuses: give gpus=1 for each worker"):
        ResourceConfig(gpus=0.5, workers=2)
    for cpus, gpus, workers in ((1, 0.25, 0), (1, 0.5, 1), (1, 1, 2), (2, 0, 3)):
        ResourceConfig(cpus=cpus, gpus=gpus, workers=workers)


@pytest.mark.slow
@pytest.mark.skipif(GPUS > 0, reason="PyTorch can use this machine's GPUs")
def test_a_gpu_that_pytorch_cannot_use_is_said_once_and_nothing_is_trained(preset: Path, tmp_path: Path) -> None:
    problem = gpu_problem()
    assert problem is not None and f"PyTorch {torch.__version__}, built" in problem
    with nodes(2, gpus=1) as cluster:
        asks = ("--address", cluster.address, "--set", "resources.gpus=1")
        printed = study_process(preset, tmp_path, *asks, status=2)
        assert printed.count(problem) == 1 and "--set resources.gpus=0" in printed
        assert not (tmp_path / "stages").exists()
        # Where the nodes cannot be asked beforehand, as they are not up yet, each stage looks for itself.
        config = load_config(str(preset))
        for workers in (0, 1):
            resources = ResourceConfig(gpus=1, workers=workers)
            storage = Storage(str(tmp_path / str(workers)))
            graph = plan(config)
            experiment = Experiment(graph, storage, "tiny", resources, config.data, Cluster(cluster.address, slots=1))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("study.tune.experiment.require_usable_gpus", lambda: None)
                experiment.run(Console(quiet=True))
            (reference,) = experiment.failed
            assert reference.startswith("reference-"), experiment.failed
            assert storage.stages() == [] and len(experiment.skipped) == len(graph.stages) - 1
            assert ("PyTorch can use no GPU" if workers else problem) in experiment.failed[reference]

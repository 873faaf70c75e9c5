"""``python -m benchmarks.naive``: the default study next to the same cells written with Ray Tune alone.

The naive script is what one writes first: one Tune trial a cell, which trains all that its net needs, each stage by a
``TorchTrainer`` with one worker, as Ray's documentation shows it. Training itself is the same code with the same
numbers. Both run the cells of one seed with the same slots, so that their wall times can be compared. How busy the
slots are is taken from the whole default study.
"""

import argparse
import logging
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks.goals import Goal, show
from benchmarks.studies import run_stages
from study.config import StudyConfig, load_config
from study.graph import StageGraph, plan
from study.tune.cluster import QUIET
from trainables.artifacts import Artifact
from trainables.data import Places
from trainables.hyperparameters import StageSpec
from trainables.sessions import Session
from trainables.stages import run_stage

SLOTS, BUSY, FASTER = 2, 0.92, 3.0
Step = tuple[str, str, dict[str, str]]
"""A stage that a cell needs: its key, the JSON of its spec, and its parents."""


def cells(graph: StageGraph) -> dict[str, list[Step]]:
    """For each cell's net the stages that it needs, parents first."""
    return {
        key: [
            (stage, graph.stages[stage].spec.model_dump_json(by_alias=True), graph.stages[stage].parents)
            for stage in graph.path(key)
        ]
        for _, key in graph.cells
    }


def train_cell(config: dict[str, Any]) -> None:
    """A worker's loop: all the stages of a cell, one after the other."""
    from ray import train

    torch.set_num_threads(1)
    session = Session(places=Places.model_validate_json(config["places"]))
    artifacts: dict[str, Artifact] = {}
    for key, spec, parents in config["steps"]:
        given = {role: artifacts[parent] for role, parent in parents.items()}
        result = run_stage(StageSpec.model_validate_json(spec), given, session)
        artifacts[key] = Artifact(result.tensors, result.metrics, result.class_names)
    train.report({"test_accuracy": result.metrics["test_accuracy"]})


def run_cell(config: dict[str, Any]) -> None:
    """A Tune trial: a TorchTrainer with one worker."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    run_config = RunConfig(storage_path=tempfile.mkdtemp(), callbacks=[TuneReportCallback()])
    TorchTrainer(
        train_cell,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=run_config,
    ).fit()


def naive(config: StudyConfig, graph: StageGraph, folder: str) -> tuple[float, dict[str, float]]:
    """Wall time without the start of Ray, and the test accuracy of each net."""
    import ray
    from ray import tune

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=SLOTS, include_dashboard=False, **QUIET)
    by_net = cells(graph)
    places = config.data.model_dump_json()
    started = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(run_cell, {"memory": 1_000_000}),
        param_space={
            "net": tune.grid_search(list(by_net)),
            "steps": tune.sample_from(lambda c: by_net[c["net"]]),
            "places": places,
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=SLOTS),
        run_config=tune.RunConfig("naive", folder, verbose=0),
    ).fit()
    seconds = time.perf_counter() - started
    ray.shutdown()
    assert not results.errors, results.errors
    return seconds, {result.config["net"]: result.metrics["test_accuracy"] for result in results}


def ours(config: StudyConfig, graph: StageGraph, folder: str) -> tuple[float, float, dict[str, float]]:
    """Wall time without the start of Ray, the share of it that the slots trained, and the test accuracies."""
    experiment = run_stages(config, graph, folder, SLOTS)
    rows = experiment.storage.rows("stages", list(graph.stages)).to_pylist()
    first = min(row["started_at"].timestamp() for row in rows)
    end = max(row["started_at"].timestamp() + row["seconds"] for row in rows)
    busy = sum(row["seconds"] for row in rows) / (SLOTS * (end - first))
    return experiment.seconds, busy, {row["stage"]: row["test_accuracy"] for row in rows}


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.naive", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the preset")
    options = parser.parse_args()
    whole, config = (load_config("digits", [*options.set, *seeds]) for seeds in ([], ["seeds=1"]))
    graph = plan(config)
    with tempfile.TemporaryDirectory() as folder:
        _, busy, _ = ours(whole, plan(whole), f"{folder}/whole")
        seconds, _, accuracies = ours(config, graph, f"{folder}/storage")
        theirs, naively = naive(config, graph, folder)
    assert naively == {key: accuracies[key] for key in naively}, "the nets are not the same"
    print(f"{len(naively)} nets of the default study at one seed, {SLOTS} slots; both gave the same accuracies")
    print(f"  stage graph  {seconds:8.1f} s, {len(graph.stages)} stages")
    print(f"  naive        {theirs:8.1f} s, {graph.unshared} stages")
    return show(
        [
            Goal("share of slot time in stages, from the first one's start", busy, ">=", BUSY),
            Goal("time of the naive script over the stage graph's", theirs / seconds, ">=", FASTER),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

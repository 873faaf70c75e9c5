"""``python -m benchmarks.tables``: from the results of many stages to the paper's tables.

The stages are those of the default study with more seeds and axes, the numbers in them random. Next to it are the same
files read one by one with pandas, and what users of Ray Tune have: ``ResultGrid.get_dataframe``, for trials that report
as many epochs, of which it returns the last. It reads what Tune has written while its trials ran; so it is compared
with loading what a study has collected at its end. All in time a stage, as the latter two are too slow for this many.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

import analysis
from analysis.reporting import tables
from benchmarks.goals import Goal, show
from study.config import StudyConfig, load_config
from study.graph import Stage, StageGraph, plan
from study.run.tables import write_tables
from study.storage import STAGE_TABLES, Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from study.tune.trial import describe
from trainables.data import digits
from trainables.networks import connection_counts
from trainables.results import StageResult

EPOCHS, CLASSES, CONFUSED, RANKS = 60, digits.DIGITS, 30, 10
AXES = ("paper", "controls", "tau", "lambda")
STAGES_A_SEED = 37
SAMPLE = 200
"""So many stages, or trials, are enough for a time a stage."""
FASTER, SECONDS = 3.0, 60.0
TRIED = "opening files is what takes the time, several at once or in one thread; with 1,000 stages it is 3.3"

Result = TypeVar("Result")


def timed(what: Callable[[], Result]) -> tuple[float, Result]:
    """Wall time in seconds, and what came of it."""
    started = time.perf_counter()
    result = what()
    return time.perf_counter() - started, result


def result_of(stage: Stage, number: int) -> tuple[StageResult, Mapping[str, Any]]:
    """A stage's result with as many rows as a real one has, and its row."""
    rng, counts = np.random.default_rng(number), connection_counts(stage.spec.network, len(CLASSES))
    epochs = [
        {
            **{"round": 0, "epoch": epoch, "learning_rate": 0.01, "loss": rng.random(), "loss_main": rng.random()},
            **{"train_accuracy": 100 * rng.random(), "val_accuracy": 100 * rng.random()},
        }
        for epoch in range(1, EPOCHS + 1)
    ]
    layers = [
        {
            **{"layer_index": index, "layer": layer, "type": "inner_product", "connections_dense": count},
            **{"connections_before": count, "connections": count // 2, "neurons_before": 256, "neurons": 256},
        }
        for index, (layer, count) in enumerate(counts.items(), start=1)
    ]
    knowledge = [
        {
            "tau": 4.0,
            "target_class": a,
            "images": 10,
            "class_rank": rank,
            "source_class": CLASSES[rank],
            "probability": 0.1,
        }
        for a in CLASSES
        for rank in range(1, RANKS)
    ]
    pairs = islice(((a, b) for a in CLASSES for b in CLASSES), CONFUSED)
    confusion = [{"target_class": a, "predicted_class": b, "images": 7} for a, b in pairs]
    dense = sum(counts.values())
    metrics = {"val_accuracy": 90 + rng.normal(), "test_accuracy": 90 + rng.normal(), "connections_dense": dense}
    metrics |= {"connections": dense // 2, "prune_percent": 50.0, "rounds": 1, "epochs": EPOCHS, "images": 100}
    guided = stage.spec.kind == "transfer" and "knowledge" in stage.parents
    result = StageResult({"net": torch.zeros(1)}, metrics, CLASSES, epochs, layers, knowledge * guided, confusion)
    row = {"stage": stage.key, "status": "done", **describe(stage.spec, stage.parents), **metrics, "seconds": 1.0}
    return result, {**row, "device": "cpu", "workers": 0}


def one_by_one(storage: Storage, keys: list[str]) -> dict[str, pd.DataFrame]:
    """The same rows as a user would read them: one file after the other with pandas."""
    root = Path(storage.root) / "stages"
    rows = [json.loads(path.read_text()) for key in keys for path in (root / key).glob("*/rows.json")]
    return {name: pd.concat([pd.DataFrame(own[name]) for own in rows]) for name in STAGE_TABLES}


def tune_seconds(folder: str) -> float:
    """Time a trial of restoring a Tune experiment and of its ``get_dataframe``."""
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        for epoch in range(EPOCHS):
            tune.report({"epoch": epoch, "loss": 0.5, "loss_main": 0.5, "val_accuracy": 90.0})

    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = tune.TuneConfig(num_samples=SAMPLE, reuse_actors=True)
    tune.Tuner(trainable, tune_config=config, run_config=tune.RunConfig("many", folder, verbose=0)).fit()

    def load() -> pd.DataFrame:
        frame: pd.DataFrame = tune.Tuner.restore(f"{folder}/many", trainable).get_results().get_dataframe()
        return frame

    seconds, frame = timed(load)
    ray.shutdown()
    assert len(frame) == SAMPLE
    return seconds / SAMPLE


def measure(config: StudyConfig, folder: str, tune: bool) -> list[Goal]:
    """Publish random results for all stages of a study, and read them in each way."""
    planning, graph = timed(lambda: plan(config))
    storage, keys = Storage(f"{folder}/storage"), list(graph.stages)
    publishing, _ = timed(lambda: publish(storage, graph))
    experiment = Experiment(graph, storage, "many", config.resources, config.data, Cluster())
    collecting, _ = timed(lambda: write_tables(experiment, config))
    by_pandas, _ = timed(lambda: one_by_one(storage, keys[:SAMPLE]))
    loading, results = timed(lambda: analysis.load(storage.study_path("many")))
    tabling, _ = timed(lambda: tables(results))
    count = len(keys)
    print(f"{len(graph.cells):,} cells, {count:,} stages, {len(results.epochs):,} rows of epochs")
    for what, seconds in {
        "plan": planning,
        "store (three files a stage)": publishing,
        "collect into one file a table": collecting,
        "load the study": loading,
        "all tables": tabling,
    }.items():
        print(f"  {what:32} {seconds:8.2f} s   {1000 * seconds / count:8.3f} ms a stage")
    ours, theirs = (collecting + loading) / count, by_pandas / SAMPLE
    print(f"  {'pandas, file by file':32} {'':10}   {1000 * theirs:8.3f} ms a stage")
    goals = [
        Goal("pandas file by file over ours, from files to DataFrames", theirs / ours, ">=", FASTER, TRIED),
        Goal(f"from the files of {count:,} stages to all tables, s", collecting + loading + tabling, "<=", SECONDS),
    ]
    if tune:
        trial = tune_seconds(folder)
        print(f"  {'Tune, last epochs only':32} {'':10}   {1000 * trial:8.3f} ms a trial")
        ratio = trial / (loading / count)
        goals.append(Goal("Tune's get_dataframe over loading the study, time a stage", ratio, ">=", 1.0))
    return goals


def publish(storage: Storage, graph: StageGraph) -> None:
    """Store a random result for every stage."""
    for number, stage in enumerate(graph.stages.values()):
        storage.store(stage.key, *result_of(stage, number))


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--stages", type=int, default=10_000, help="about N stages (default: %(default)s)")
    parser.add_argument("--no-tune", action="store_true", help="leave Ray Tune out")
    options = parser.parse_args()
    seeds = max(2, round(options.stages / STAGES_A_SEED))
    config = load_config("digits", [f"seeds={seeds}", f"ablations=[{', '.join(AXES)}]"])
    with tempfile.TemporaryDirectory() as folder:
        return show(measure(config, folder, not options.no_tune))


if __name__ == "__main__":
    sys.exit(main())

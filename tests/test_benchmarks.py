"""The benchmarks run; how fast anything is, no test says."""

from pathlib import Path

import pytest

from benchmarks import naive, scheduling, tables
from study.config import StudyConfig, load_config
from study.graph import plan


@pytest.fixture
def config() -> StudyConfig:
    """The default study at one seed, in a hurry."""
    trains = ("source.train", "source.prune.retrain", "transfer.train", "target_prune.retrain", "neuron_prune.retrain")
    quick = [f"{train}.epochs=1" for train in trains]
    return load_config("digits", [*quick, "source.prune.steps=1", "seeds=1", "ablations=[controls]"])


def test_tables_of_many_stages(tmp_path: Path) -> None:
    goals = tables.measure(load_config("digits", ["seeds=3"]), str(tmp_path), tune=False)
    assert [goal.measured > 0 for goal in goals] == [True, True]


@pytest.mark.full
def test_stages_that_sleep_and_stages_that_do_not() -> None:
    slept, awake = scheduling.run(2, "one_second"), scheduling.run(2, "no_time")
    assert slept.seconds > 1 and len(slept.starts) == len(awake.starts) == 2


@pytest.mark.full
def test_a_naive_script_trains_the_same_nets(config: StudyConfig, tmp_path: Path) -> None:
    graph = plan(config)
    _, busy, accuracies = naive.ours(config, graph, str(tmp_path / "ours"))
    _, naively = naive.naive(config, graph, str(tmp_path / "naive"))
    assert 0 < busy <= 1 and len(naively) == len({key for _, key in graph.cells})
    assert naively == {key: accuracies[key] for key in naively}

"""The benchmarks run; how fast anything is, no test says."""

from pathlib import Path

import pytest

from benchmarks import naive, peers, scheduling, startup, tables
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


def test_a_store_is_damaged_and_killed_and_what_becomes_of_it_is_told(tmp_path: Path) -> None:
    ends = peers.measure(["ours", "optuna-sqlite"], 1, tmp_path)
    assert [*ends] == [(store, fault) for store in ("ours", "optuna-sqlite") for fault in peers.FAULTS]
    assert all(found.total() == 1 and {*found} <= {*peers.ENDS} for found in ends.values())
    for fault in peers.FAULTS:
        assert {*ends["ours", fault]} <= {"right", "reported, recorded again"}


def test_how_a_schedule_ended() -> None:
    whole = {run: peers.values_of(run) for run in range(peers.RUNS)}
    some = {run: values for run, values in whole.items() if run}
    wrong = whole | {3: (0.5,) * peers.EPOCHS}
    ends = [
        (peers.Reading(whole), peers.Reading(whole), "right"),
        (peers.Reading(some, said=True), peers.Reading(whole), "reported, recorded again"),
        (peers.Reading(some), peers.Reading(whole), "missing in silence, recorded again"),
        (peers.Reading(some), peers.Reading(some), "refused"),
        (peers.Reading({}, "no such table"), peers.Reading(whole), "refused"),
        (peers.Reading(wrong), peers.Reading(whole), "wrong in silence"),
        (peers.Reading(whole), peers.Reading(wrong), "wrong in silence"),
    ]
    for found, again, end in ends:
        assert peers.end_of(found, again, range(peers.RUNS)) == end
    # A run that was not acknowledged may be gone.
    assert peers.end_of(peers.Reading(some), peers.Reading(whole), [1, 2]) == "right"


def test_listing_many_stages(tmp_path: Path) -> None:
    assert startup.listing(20, str(tmp_path)) > 0


@pytest.mark.full
def test_what_is_waited_for(tmp_path: Path) -> None:
    seconds, gigabytes = startup.planning(28)
    assert seconds > 0 and 0.1 < gigabytes < 4
    assert startup.processor_seconds(startup.command("study.ablation", "--help")) > 0


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

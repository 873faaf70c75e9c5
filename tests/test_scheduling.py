"""How stages are dealt to processes, and how often a training reports."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scheduling import references
from benchmarks.studies import run_stages
from study.config import load_config
from study.graph import StageGraph
from trainables.sessions import REPORT_SECONDS, TuneSession


@pytest.mark.slow
def test_a_second_slot_works_though_stages_take_less_time_than_a_process_to_start(tmp_path: Path) -> None:
    """All stages need the first, so that one process is there when the second is asked for. It alone shows this."""
    config = load_config("digits")
    graph = references(config, 16, "one_second")
    first, *others = graph.stages.values()
    for stage in others:
        graph.stages[stage.key] = replace(stage, parents={"first": first.key})
    experiment = run_stages(config, graph, str(tmp_path), slots=2)
    (state,) = tmp_path.glob("studies/timed/ray/*/experiment_state-*.json")
    # Tune pickles into it, as hexadecimal text, what a trial holds: it would grow with the square of the stages.
    assert StageGraph.__name__.encode().hex() not in state.read_text()
    rows = experiment.storage.rows("stages", graph.stages).to_pylist()
    spans = sorted((row["started_at"].timestamp(), row["seconds"]) for row in rows)
    overlaps = [start + seconds > after + 0.5 for (start, seconds), (after, _) in itertools.pairwise(spans)]
    assert any(overlaps)


def test_a_training_reports_validated_epochs_and_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[dict[str, Any]] = []
    clock = iter([100.0, 100.1, 100.2, 100.3, 100.3 + REPORT_SECONDS, 100.4 + REPORT_SECONDS])
    monkeypatch.setattr("ray.tune.report", reported.append)
    monkeypatch.setattr("trainables.sessions.time.monotonic", lambda: next(clock))
    session = TuneSession.__new__(TuneSession)
    for epoch, validated in [(1, False), (2, False), (3, True), (4, False), (5, False), (6, True)]:
        session.report({"epoch": epoch, "loss": 0.5} | ({"val_accuracy": 90.0} if validated else {}))
    # The first is reported at once, the third and the sixth are validated, and the fifth comes a second later.
    assert [metrics["epoch"] for metrics in reported] == [1, 3, 5, 6]

"""How a study stands, also while it runs: its nets with accuracy and sparsity, as the tables name them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table

from analysis.comparisons import Comparison, comparisons
from analysis.findings import findings
from analysis.loading import Results
from analysis.nets import Net, joined, nets, off_axis, outcomes
from analysis.overview import findings as findings_over_targets
from analysis.reporting import tables_as_csv
from analysis.statistics.intervals import mean_interval, over_seeds
from analysis.tables import targets as target_tables
from analysis.tables import writing
from analysis.tables.table import NOTHING
from analysis.tuned import best_comparisons, tuned_cells
from study.answers import ComparisonResult, NetResult, OverTargetsResult, StudyOutcome, StudyState, TargetsResult
from study.names import TUNED
from study.run.lease import is_running
from study.run.outcome import Outcome, TargetsOutcome
from study.storage import Storage

if TYPE_CHECKING:
    from study.tune.loggers import Loggers

BEST = "each at its best"
PLAN = "plan"
"""The table of the cells that a study is to have, in the columns of ``cells``: written before anything is trained."""


def study_state(storage: Storage, study: str) -> StudyState:
    """The nets of a study, from its plan and from what is stored by now.

    Raises:
        StorageError: there is no such study, or the storage cannot be read.
    """
    # One driver runs a study on all its targets.
    running = is_running(storage.folder, study.partition("/")[0])
    planned = storage.find_table(study, PLAN)
    cells = (storage.read_study(study, "cells") if planned is None else planned).to_pandas()
    if not running and (ended := storage.find_table(study, "cells")) is not None:
        # Which settings are a net's best was not planned.
        rows = ended.to_pandas()
        cells = pd.concat([cells, rows[rows["ablation"] == TUNED]])
    # Every stage of a study is on the path of a cell.
    keys = list(dict.fromkeys(key for path in cells["path"] for key in path))
    stages = storage.rows("stages", done := storage.stored(keys)).to_pandas()
    written = None if running else storage.find_table(study, "stages")
    if written is not None:
        rest = written.to_pandas()
        others = rest[~rest["stage"].isin(done) & rest["stage"].isin(keys) & (rest["status"] != "done")]
        stages = pd.concat([stages, others]) if len(others) else stages
    folder = storage.study_path(study)
    shown = net_results(joined(cells, stages))
    return StudyState(study=study, folder=folder, running=running, stages_done=len(done), stages=len(keys), nets=shown)


def study_outcome(outcome: Outcome) -> StudyOutcome:
    """A study that was run to its end."""
    results = outcome.results
    return _outcome(results, outcome.report, comparisons(results), outcome.failed, outcome.best)


def _outcome(
    results: Results, report: str, compared: list[Comparison], failed: dict[str, str], best: str | None = None
) -> StudyOutcome:
    stages = results.stages
    return StudyOutcome(
        study=results.facts.name,
        folder=results.folder.at(),
        running=False,
        stages_done=int((stages["status"] == "done").sum()),
        stages=len(stages),
        nets=net_results(outcomes(results)),
        report=report,
        comparisons=[_comparison(one) for one in compared],
        tuned=[_comparison(one) for one in best_comparisons(results)],
        findings=findings(results),
        failed=failed,
        best=best,
    )


def targets_result(outcome: TargetsOutcome) -> TargetsResult:
    """A study on several targets that was run to its end."""
    study = outcome.results
    return TargetsResult(
        study=study.facts.name,
        folder=outcome.folder,
        report=outcome.report,
        targets={
            target: _outcome(
                results,
                results.folder.at("report/index.html"),
                study.comparisons[target],
                {key: error for key, error in outcome.failed.items() if results.stages["stage"].eq(key).any()},
            )
            for target, results in study.by_target.items()
        },
        over_targets=[
            OverTargetsResult(
                comparison=one.name,
                targets=one.difference.n,
                difference=one.difference.mean,
                low=one.difference.low,
                high=one.difference.high,
                error_change=one.error_change.mean if one.error_change else None,
                p=one.p,
                p_holm=one.p_holm,
                verdict=one.verdict,
            )
            for one in study.over_targets
        ],
        findings=findings_over_targets(study),
        failed=outcome.failed,
    )


def tell(loggers: "Loggers", outcome: Outcome) -> None:
    """Log a study's end: the mean test accuracy of each net that has one, in percent, and the report's tables."""
    if not loggers.in_use:
        return
    loggers.conclude(_accuracies(outcome.results), tables_as_csv(outcome.results), outcome.findings)


def tell_targets(loggers: "Loggers", outcome: TargetsOutcome) -> None:
    """Log the end of a study on several targets: the accuracies on each, and the tables over all of them."""
    if not loggers.in_use:
        return
    found = {
        f"{target}, {name}": accuracy
        for target, results in outcome.results.by_target.items()
        for name, accuracy in _accuracies(results).items()
    }
    tables = {table.name: writing.csv(table) for table in target_tables.tables(outcome.results)}
    loggers.conclude(found, tables, outcome.findings)


def _accuracies(results: Results) -> dict[str, float]:
    """Mean test accuracy, in percent, of each net that has one."""
    return {
        ", ".join(filter(None, (one.net, one.stream, one.point))): one.test_accuracy
        for one in net_results(outcomes(results))
        if one.test_accuracy is not None
    }


def net_results(cells: pd.DataFrame) -> list[NetResult]:
    """The nets of cells with their outcomes: those at the study's own setting, then those of each point of an axis."""
    found = [_net(one, None) for one in nets(own)] if len(own := off_axis(cells)) else []
    if len(best := tuned_cells(cells)):
        found += [_net(one, BEST) for one in nets(best)]
    points = cells[cells["point"].notna() & (cells["ablation"] != TUNED)]
    for (axis, _, point), group in points.groupby(["ablation", "point_index", "point"], sort=False):
        found += [_net(one, f"{axis}: {point}") for one in nets(group)]
    return found


def _net(net: Net, point: str | None) -> NetResult:
    accuracy = over_seeds(net.accuracy)
    return NetResult(
        net=net.variant if point is None else net.name,
        point=point,
        stream=net.stream or None,
        seeds=sorted(net.accuracy),
        missing={str(seed): problem for seed, problem in net.problems.items()},
        test_accuracy=accuracy.mean if accuracy else None,
        half_width=accuracy.half if accuracy else None,
        val_accuracy=_mean(net.val_accuracy),
        prune_percent=_mean(net.prune_percent),
    )


def _mean(values: dict[int, float]) -> float | None:
    found = mean_interval(list(values.values()))
    return found.mean if found else None


def _comparison(one: Comparison) -> ComparisonResult:
    mean = one.mean
    return ComparisonResult(
        comparison=one.question.name,
        net=one.question.net.label,
        baseline=one.question.baseline.label,
        pairs=one.pairs,
        difference=mean.mean if mean else None,
        low=mean.low if mean else None,
        high=mean.high if mean else None,
        p=one.p,
        p_holm=one.p_holm,
        verdict=one.verdict,
    )


def as_table(state: StudyState) -> Table:
    """The nets as a table for the terminal."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    many = any(one.stream for one in state.nets), any(one.point for one in state.nets)
    table.add_column("net", overflow="fold")
    for title, shown in zip(("stream", "point"), many, strict=True):
        if shown:
            table.add_column(title)
    for title in ("seeds", "test ACC %", "validation ACC %", "pruned %"):
        table.add_column(title, justify="right")
    for one in state.nets:
        table.add_row(*_row(one, many))
    return table


def _row(one: NetResult, many: tuple[bool, bool]) -> Iterator[str]:
    yield one.net
    yield from (text or "" for text, shown in zip((one.stream, one.point), many, strict=True) if shown)
    yield f"{len(one.seeds)} of {len(one.seeds) + len(one.missing)}"
    half = "" if one.half_width is None else f" ± {one.half_width:.2f}"
    yield NOTHING if one.test_accuracy is None else f"{one.test_accuracy:.2f}{half}"
    yield NOTHING if one.val_accuracy is None else f"{one.val_accuracy:.2f}"
    yield NOTHING if one.prune_percent is None else f"{one.prune_percent:.1f}"


def in_one_line(state: StudyState) -> str:
    """A study's progress on one line."""
    running = "running" if state.running else "not running"
    return f"{state.study}: {state.stages_done} of {state.stages} stages stored, {running}"

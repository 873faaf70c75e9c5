"""The table of a search's trials, the best first."""

from dataclasses import replace

import pandas as pd

from analysis.loading import Results
from analysis.search import LATENCY, Objective, Trial, against, ranked, trials
from analysis.tables.table import NOTHING, Header, Table, percent, rate
from study.names import OWN_SETTINGS

ON_SCREEN = 5
MEASURED = (
    "Latency: median time of a forward pass on the CPU; in percent of the unpruned net's. Measured once for each shape "
    "of net: masked connections take their time like any other, and only removed neurons save some."
)


def search_trials(results: Results) -> Table | None:
    """A row a trial, ranked by mean validation accuracy; None if the study is no search."""
    made = ranked(trials(results))
    if not made:
        return None
    second = against(made)
    mark = "front" if second else "best"
    headers = [Header("trial"), Header("state"), Header("origin"), Header("validation ACC %")]
    headers += [Header("validation ACC %, each seed of the search", detail=True), Header("Prune %")]
    headers += [Header("Latency %"), Header("Latency ms")] * (second is LATENCY)
    headers += [Header("hyperparameters", prose=True)]
    notes = ["Validation ACC %: mean over the search's seeds, top-1 on the validation images; pruned: stopped early."]
    notes += ["The highest of many is flattered by its choice: judge it by the final test, which has other seeds."]
    if second:
        notes += [f"Front: no trial has both more accuracy and {second.better}; marked are those tested."]
    if second is LATENCY:
        notes += [MEASURED]
    title = f"Trials of the search on {results.facts.target.title}: selection by validation data"
    return Table("search_trials", title, headers, [_row(trial, mark, second) for trial in made], notes, _data(made))


def shortened(table: Table) -> Table:
    """The table's best rows, for a screen."""
    if (more := len(table.rows) - ON_SCREEN) <= 0:
        return table
    note = f"{more} more in the report and in {table.name}.csv."
    return replace(table, rows=table.rows[:ON_SCREEN], notes=[*table.notes, note])


def value_text(value: object) -> str:
    """A hyperparameter's value: numbers with three significant digits."""
    return f"{value:.3g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _row(trial: Trial, mark: str, second: Objective | None) -> list[str]:
    times = [
        NOTHING if trial.latency_percent is None else percent(trial.latency_percent),
        NOTHING if trial.latency_ms is None else f"{trial.latency_ms:.3g}",
    ]
    marks = [OWN_SETTINGS] * trial.own + [mark] * trial.best
    return [
        f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number),
        trial.state,
        trial.origin,
        NOTHING if trial.accuracy is None else percent(trial.accuracy),
        " · ".join(map(percent, trial.accuracies)) or NOTHING,
        NOTHING if trial.prune_percent is None else rate(trial.prune_percent),
        *times * (second is LATENCY),
        ", ".join(f"{name} = {value_text(value)}" for name, value in trial.hyperparameters.items()),
    ]


def _data(made: list[Trial]) -> pd.DataFrame:
    seeds = max(len(trial.accuracies) for trial in made)
    names, timed = hyperparameters(made), against(made) is LATENCY
    rows = []
    for rank, trial in enumerate(made, start=1):
        row: dict[str, object] = {"rank": rank if trial.accuracy is not None else None, "trial": trial.number}
        row |= {"state": trial.state, "origin": trial.origin, "best": trial.best, "val_accuracy": trial.accuracy}
        values = dict(enumerate(trial.accuracies, start=1))
        row |= {f"val_accuracy_{place}": values.get(place) for place in range(1, seeds + 1)}
        row |= {"prune_percent": trial.prune_percent}
        row |= {"latency_percent": trial.latency_percent, "latency_ms": trial.latency_ms} if timed else {}
        rows.append(row | {name: trial.hyperparameters.get(name) for name in names})
    # As objects, so that whole numbers stay whole next to empty fields.
    return pd.DataFrame(rows, dtype=object)


def hyperparameters(made: list[Trial]) -> list[str]:
    """The names of all hyperparameters that some trial has, in the order of the trials."""
    in_order = sorted(made, key=lambda trial: trial.number)
    return list(dict.fromkeys(name for trial in in_order for name in trial.hyperparameters))

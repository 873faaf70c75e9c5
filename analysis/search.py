"""The trials of a hyperparameter search, and what is concluded from them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import pandas as pd

from analysis.axes import SEARCH, Axis, Point, axes
from analysis.loading import Results
from analysis.nets import Net
from analysis.path import sentence
from analysis.statistics.intervals import Interval, paired_difference
from analysis.tables.table import percent, rate
from study.names import OWN_SETTINGS

STATES = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial; without accuracies unless it is complete."""

    number: int
    state: str
    origin: str
    hyperparameters: dict[str, Any]
    accuracy: float | None
    accuracies: list[float]
    prune_percent: float | None
    latency_percent: float | None
    latency_ms: float | None
    best: bool

    @property
    def own(self) -> bool:
        """Whether it is at the study's own settings."""
        return self.origin == "own"


def trials(results: Results) -> list[Trial]:
    """The search's trials in their order; none if the study is no search."""
    if results.trials is None:
        return []
    return [_trial(row) for row in results.trials.sort_values("trial").to_dict("records")]


def complete(made: list[Trial]) -> list[tuple[Trial, float]]:
    """The complete trials, each with its mean validation accuracy."""
    return [(trial, trial.accuracy) for trial in made if trial.state == "complete" and trial.accuracy is not None]


def ranked(made: list[Trial]) -> list[Trial]:
    """The best by validation accuracy first, ties by number as the search breaks them; then pruned, then failed."""
    best = sorted(complete(made), key=lambda pair: (-pair[1], pair[0].number))
    order = [trial for trial, _ in best]
    rest = [trial for trial in made if trial not in order]
    return order + sorted(rest, key=lambda trial: (STATES.index(trial.state), trial.number))


def best_so_far(made: list[Trial]) -> dict[int, float]:
    """Highest validation accuracy up to each complete trial, by its number."""
    known = complete(made)
    highest = accumulate((accuracy for _, accuracy in known), max)
    return {trial.number: value for (trial, _), value in zip(known, highest, strict=True)}


@dataclass(frozen=True)
class Objective:
    """What a search weighs validation accuracy against: one of a trial's numbers."""

    column: Literal["prune_percent", "latency_percent"]
    hyperparameter: str
    """What only a search against this has."""
    name: str
    better: str
    """What a trial has that is better in this."""
    words: Callable[[float], str]
    """A trial's number as text."""
    sign: int
    """1 if more is better, -1 if less is."""

    def of(self, trial: Trial) -> float | None:
        """The trial's number; None unless it is complete."""
        value: float | None = getattr(trial, self.column)
        return value

    def text(self, trial: Trial) -> str | None:
        """The trial's number as text."""
        value = self.of(trial)
        return None if value is None else self.words(value)


SHARE = Objective(
    "prune_percent",
    "target_keep",
    "share of connections pruned",
    "more connections pruned",
    lambda value: f"{rate(value)} % pruned",
    sign=1,
)
LATENCY = Objective(
    "latency_percent",
    "neuron_steps",
    "latency",
    "less latency",
    lambda value: f"latency {percent(value)} % of the unpruned net's",
    sign=-1,
)


def against(made: list[Trial]) -> Objective | None:
    """The search's second objective, if it had one."""
    had = {name for trial in made for name in trial.hyperparameters}
    return next((objective for objective in (SHARE, LATENCY) if objective.hyperparameter in had), None)


def front(made: list[Trial], second: Objective) -> list[Trial]:
    """The complete trials that no other beats in accuracy and the second objective together, the worst there first."""
    known = [
        (trial, accuracy, second.sign * value)
        for trial, accuracy in complete(made)
        if (value := second.of(trial)) is not None
    ]
    free = [
        (merit, trial.number, trial)
        for trial, accuracy, merit in known
        if not any(a >= accuracy and m >= merit and (a, m) != (accuracy, merit) for _, a, m in known)
    ]
    return [trial for *_, trial in sorted(free, key=lambda entry: entry[:2])]


def final_test(results: Results, cells: pd.DataFrame) -> Axis | None:
    """What the search found, trained with the final seeds; None if the study is no search."""
    return next((axis for axis in axes(cells) if axis.ablation == SEARCH), None) if trials(results) else None


def conclusion(results: Results, cells: pd.DataFrame) -> list[str]:
    """What the search shows, in sentences made from its numbers; none if the study is no search."""
    made = trials(results)
    if not made:
        return []
    counts = {state: sum(trial.state == state for trial in made) for state in STATES}
    known = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    lines = [f"{_several(len(made), 'trial')}: {known}."]
    second = against(made)
    lines += _by_validation(made) if second is None else _front_by_validation(made, second)
    axis = final_test(results, cells)
    own = next((point.net for point in axis.points if point.own), None) if axis else None
    if axis is None or own is None:
        return lines
    finalists = sorted((point for point in axis.points if not point.own), key=lambda point: point.index)
    by_name = {f"trial {trial.number}": trial for trial in made}
    lines += [_by_test(point, own, by_name, second, results.seeds) for point in finalists]
    return lines + sentence(results)


def _trial(row: dict[Any, Any]) -> Trial:
    def number(column: str) -> float | None:
        return None if pd.isna(row[column]) else float(row[column])

    return Trial(
        int(row["trial"]),
        str(row["state"]),
        str(row["origin"]),
        json.loads(row["hyperparameters"]),
        number("val_accuracy"),
        [float(value) for value in row["val_accuracies"]],
        number("prune_percent"),
        number("latency_percent"),
        number("latency_ms"),
        bool(row["best"]),
    )


def _by_validation(made: list[Trial]) -> list[str]:
    best = next((trial for trial in made if trial.best), None)
    if best is None or best.accuracy is None:
        return ["No trial is complete."]
    measure = f"By validation accuracy (mean over {_several(len(best.accuracies), 'seed')} of the search)"
    if best.own:
        return [f"{measure} no trial is better than {OWN_SETTINGS} (trial {best.number}): {percent(best.accuracy)} %."]
    own = next((trial for trial in made if trial.own), None)
    beside = f"; {_own(own, None)}" if own else ""
    return [f"{measure} trial {best.number} is best with {percent(best.accuracy)} %{beside}."]


def _front_by_validation(made: list[Trial], second: Objective) -> list[str]:
    found = front(made, second)
    if not found:
        return ["No trial is complete."]
    tested = sum(trial.best for trial in made)
    verb = "is" if len(found) == 1 else "are"
    line = f"{_several(len(found), 'trial')} {verb} on the front of validation accuracy and {second.name}"
    own = next((trial for trial in made if trial.own), None)
    return [f"{line}; {tested} went to the final test{f'; {_own(own, second)}' if own else ''}."]


def _own(trial: Trial, second: Objective | None) -> str:
    name = f"{OWN_SETTINGS} (trial {trial.number})"
    if trial.accuracy is None:
        return f"{name} have no validation accuracy to compare with: {trial.state}"
    text = second.text(trial) if second else None
    return f"{name} have {percent(trial.accuracy)} %" + (f", {text}" if text else "")


def _by_test(point: Point, own: Net, known: dict[str, Trial], second: Objective | None, seeds: list[int]) -> str:
    """The test-set difference of one finalist to the own settings, no more claimed than its interval allows."""
    name = point.name
    trial = known.get(name)
    if second and trial and trial.accuracy is not None and (text := second.text(trial)):
        name += f" (validation {percent(trial.accuracy)} %, {text})"
    if point.net.stages == own.stages:
        return f"On the test set there is nothing to compare: {name} produces the same nets as {OWN_SETTINGS}."
    difference = paired_difference(point.net.accuracy, own.accuracy)
    return f"On the test set, {name} against {OWN_SETTINGS}: {gain(difference, len(seeds))}."


def gain(difference: Interval | None, seeds: int) -> str:
    """A paired difference as text: a gain or a loss only where its interval leaves zero out."""
    if difference is None:
        return "no result, as no final seed has both nets"
    points = f"{_signed(difference.mean)} percentage points"
    of = f"{difference.n} of {_several(seeds, 'final seed')}" if difference.n < seeds else ""
    if difference.low is None or difference.high is None:
        return f"{points} with {of or 'one final seed'}, which has no interval, so no difference shown"
    interval = f"95 % interval {_signed(difference.low)} to {_signed(difference.high)}"
    interval += f", {of or _several(seeds, 'final seed')}"
    if difference.low <= 0 <= difference.high:
        return f"no difference shown, {points} ({interval})"
    return f"a {'gain' if difference.mean > 0 else 'loss'}, {points} ({interval})"


def _signed(value: float) -> str:
    # Two decimals: with one, an interval that ends near zero would seem to end at it.
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"

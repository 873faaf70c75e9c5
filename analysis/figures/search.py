"""The figures of a search: its history, what mattered, each hyperparameter's slice and the front."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from analysis.figures.axes import spans_wide
from analysis.figures.paper import BLUE, GREY, GRID, ORANGE, Plot, canvas, rate_axis
from analysis.loading import Results
from analysis.path import path_data, steps
from analysis.search import SHARE, Trial, against, best_so_far, complete, front, trials
from analysis.statistics.intervals import Interval
from analysis.tables.search import MEASURED, hyperparameters, value_text
from study.names import OWN_SETTINGS

TRIAL: dict[str, Any] = {"marker": "o", "color": BLUE, "markersize": 5, "alpha": 0.6, "markeredgewidth": 0}
BEST: dict[str, Any] = {"marker": "D", "color": ORANGE, "markersize": 6, "markeredgewidth": 0, "zorder": 3}
OWN: dict[str, Any] = {"marker": "o", "color": "none", "markersize": 11, "markeredgewidth": 1.6, "zorder": 4}
OWN |= {"markeredgecolor": "#1a1a1a"}
# Trials without an accuracy, at the foot of the axes: their marks, and how high as a share of the axes.
WITHOUT: dict[str, tuple[dict[str, Any], float]] = {
    "pruned": ({"marker": "x", "color": GREY, "markersize": 5, "markeredgewidth": 1.3}, 0.035),
    "failed": ({"marker": "+", "color": "#b23c00", "markersize": 7, "markeredgewidth": 1.6}, 0.085),
}
VALIDATION = "validation accuracy, %"


def search_figures(results: Results) -> list[Plot]:
    """Those that have something to show; none if the study is no search."""
    made = trials(results)
    draws: list[Callable[[], Plot | None]] = [
        lambda: search_history(made),
        lambda: search_importance(results),
        lambda: search_slices(made),
        lambda: search_front(made),
        lambda: search_path(results),
    ]
    return [plot for draw in draws if (plot := draw()) is not None]


def search_path(results: Results) -> Plot | None:
    """Gain over the study's own settings at each stop of the ablation path, and what the step itself gains."""
    made = steps(results)
    if not any(step.total for step in made):
        return None
    with canvas(7.4, 1.2 + 0.45 * len(made)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color="grey", linewidth=0.8)
        kinds: tuple[tuple[str, str, str, float, dict[int, Interval]], ...] = (
            ("gain so far", BLUE, "o", -0.1, {step.number: step.total for step in made if step.total}),
            ("gain of the step", ORANGE, "s", 0.1, {step.number: step.gain for step in made if step.gain}),
        )
        for label, colour, marker, shift, known in kinds:
            for number, interval in known.items():
                if interval.low is not None and interval.high is not None:
                    axes.plot([interval.low, interval.high], [number + shift] * 2, color=colour, linewidth=1.6)
            means, places = [one.mean for one in known.values()], [number + shift for number in known]
            axes.plot(means, places, marker, color=colour, markersize=5, label=label)
        axes.set_yticks([step.number for step in made], [step.change for step in made])
        axes.invert_yaxis()
        axes.set_xlabel("difference in test accuracy, percentage points")
        axes.grid(axis="x", **GRID)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    caption = (
        "From this study's settings (top) to the best trial's, one change a step: gain on the test images over this "
        "study's settings, and over the step before, paired by seed, with 95 % intervals."
    )
    return Plot("search_path", caption, figure, path_data(made))


def search_history(made: list[Trial]) -> Plot | None:
    """Validation accuracy of each trial in order, with the highest so far."""
    highest = best_so_far(made)
    if not highest:
        return None
    with canvas(7.4, 4.2) as figure:
        axes = figure.subplots()
        # Up to the last trial, whether that is complete or not.
        steps = [*highest, made[-1].number]
        best = [*highest.values(), max(highest.values())]
        axes.step(steps, best, where="post", color=BLUE, linewidth=1.8, label="highest so far")
        for trial, _ in complete(made):
            places = [trial.number] * len(trial.accuracies)
            axes.plot(places, trial.accuracies, "_", color=BLUE, markersize=6, alpha=0.45)
        _mark(axes, made, lambda trial: trial.number, _chosen(made))
        low, high = axes.get_ylim()
        if any(trial.state in WITHOUT for trial in made):
            axes.set_ylim(low - 0.12 * (high - low), high)
        for state, (look, height) in WITHOUT.items():
            if numbers := [trial.number for trial in made if trial.state == state]:
                heights, foot = [height] * len(numbers), axes.get_xaxis_transform()
                axes.plot(numbers, heights, linestyle="none", label=state, transform=foot, **look)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(VALIDATION)
        axes.grid(axis="y", **GRID)
        _legend(figure, axes)
    caption = (
        "History of the search: validation accuracy of each trial, mean over the search's seeds; dashes: each seed; "
        "line: the highest mean so far. At the foot, without a value: stopped early (pruned) or failed."
    )
    columns = ("number", "state", "origin", "best", "accuracy")
    data = pd.DataFrame([{column: getattr(trial, column) for column in columns} for trial in made])
    data = data.rename(columns={"number": "trial", "accuracy": "val_accuracy"})
    return Plot("search_history", caption, figure, data.assign(best_so_far=data["trial"].map(highest).ffill()))


def search_importance(results: Results) -> Plot | None:
    """How much each hyperparameter mattered: a bar for the mean over the search's seeds, a point per seed."""
    if results.importance is None or (shares := results.importance.dropna(subset=["importance"])).empty:
        return None
    data = _mean_importance(shares)
    positions = np.arange(len(data))
    with canvas(7.0, 1.1 + 0.3 * len(data)) as figure:
        axes = figure.subplots()
        axes.barh(positions, data["mean"], color=BLUE, alpha=0.55, height=0.62)
        for column in [name for name in data if str(name).startswith("seed_")]:
            axes.plot(data[column], positions, "o", color="#1a1a1a", markersize=3.5, alpha=0.75)
        axes.set_yticks(positions, data["hyperparameter"].tolist(), parse_math=False)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("importance (share of variance)")
        axes.grid(axis="x", **GRID)
        axes.set_axisbelow(True)
    seeds, count = shares["seed"].nunique(), int(shares["trials"].max())
    caption = (
        "Importance: share of the variance of validation accuracy that each hyperparameter explains by itself (fANOVA; "
        f"shares sum to 1), from {count} complete trials. Where one did not apply to a trial, values drawn at random "
        "are used instead, as none would have changed it. "
        f"Bars: mean over {seeds} seed{'s' * (seeds != 1)} of the search; points: each seed. "
    )
    caption += "Their spread is only the uncertainty from seeds" if seeds > 1 else "One seed shows no uncertainty"
    caption += "; that few trials were seen, and more where the sampler looked, comes on top."
    return Plot("search_importance", caption, figure, data)


def search_slices(made: list[Trial]) -> Plot | None:
    """Validation accuracy against each hyperparameter's value, a panel each."""
    known = [trial for trial, _ in complete(made)]
    names = hyperparameters(known)
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    chosen = _chosen(made)
    with canvas(max(5.0, 2.9 * columns), 2.1 * lines + 0.5) as figure:
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, name in zip(panels.ravel(), names, strict=False):
            _slice(axes, name, [trial for trial in known if name in trial.hyperparameters], chosen)
        for axes in panels.ravel()[len(names) :]:
            axes.set_visible(False)
        for axes in panels[:, 0]:
            axes.set_ylabel("validation, %")
        _legend(figure, *panels.ravel()[: len(names)])
    caption = (
        "Slices: validation accuracy (mean over the search's seeds) of the complete trials against the value of each "
        "hyperparameter that applied to them. All others vary too, so a panel shows where the search looked and what "
        "it found there, not only the hyperparameter's effect."
    )
    rows = [
        {"hyperparameter": name, "value": trial.hyperparameters[name], "trial": trial.number}
        | {"val_accuracy": trial.accuracy, "own": trial.own, "best": trial.best}
        for name in names
        for trial in known
        if name in trial.hyperparameters
    ]
    return Plot("search_slices", caption, figure, pd.DataFrame(rows))


def search_front(made: list[Trial]) -> Plot | None:
    """Validation accuracy against the second objective, or the share of connections pruned if there is none."""
    second = against(made) or SHARE
    known = [(trial, value) for trial, _ in complete(made) if (value := second.of(trial)) is not None]
    if len({value for _, value in known}) < 2:
        return None
    joined = front(made, second)
    place = {trial.number: 100 - value if second is SHARE else value for trial, value in known}
    shown = [trial for trial, _ in known]
    with canvas(7.4, 4.4) as figure:
        axes = figure.subplots()
        axes.plot(
            [place[trial.number] for trial in joined],
            [accuracy for _, accuracy in complete(joined)],
            color=ORANGE,
            linewidth=1.6,
            label="front of the trials",
        )
        _mark(axes, shown, lambda trial: place[trial.number], _chosen(made))
        if second is SHARE:
            rate_axis(axes, np.array(list(place.values())))
        else:
            axes.set_xlabel("latency, % of the unpruned net's")
        axes.set_ylabel(VALIDATION)
        axes.grid(axis="y", **GRID)
        _legend(figure, axes)
    axis = "connection-pruning rate" if second is SHARE else "latency"
    caption = (
        f"Front of the search: validation accuracy against {axis}, means over the search's seeds, of all complete "
        "trials. Joined: those that no other beats in both. Selection by validation data; the test accuracy of the "
        "finalists is in the final test. "
    )
    caption += "The axis is logarithmic in the share of connections kept." if second is SHARE else MEASURED
    rows = [
        {"trial": trial.number, "origin": trial.origin, second.column: value, "val_accuracy": trial.accuracy}
        | {"front": trial in joined, "finalist": trial.best}
        for trial, value in sorted(known, key=lambda pair: (pair[1], pair[0].number))
    ]
    return Plot("search_front", caption, figure, pd.DataFrame(rows))


def _mean_importance(shares: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and each seed's share, a row a hyperparameter, the most important first."""
    wide = shares.pivot_table(index="hyperparameter", columns="seed", values="importance")
    data = wide.add_prefix("seed_").reset_index().rename_axis(columns=None)
    data.insert(1, "mean", wide.mean(axis=1).to_numpy())
    return data.sort_values(["mean", "hyperparameter"], ascending=[False, True], ignore_index=True)


def _chosen(made: list[Trial]) -> str:
    return "finalist" if against(made) else "best trial"


def _mark(axes: Axes, made: list[Trial], place: Callable[[Trial], float], chosen: str) -> None:
    """The complete trials as points, the ``chosen`` (best or finalists) and the study's own marked."""
    groups: list[tuple[str, dict[str, Any], Callable[[Trial], bool]]] = [
        ("complete trial", TRIAL, lambda trial: True),
        (chosen, BEST, lambda trial: trial.best),
        (OWN_SETTINGS, OWN, lambda trial: trial.own),
    ]
    for label, look, belongs in groups:
        points = [(place(trial), accuracy) for trial, accuracy in complete(made) if belongs(trial)]
        if points:
            axes.plot(*zip(*points, strict=True), linestyle="none", label=label, **look)


def _slice(axes: Axes, name: str, known: list[Trial], chosen: str) -> None:
    values = [trial.hyperparameters[name] for trial in known]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        _mark(axes, known, lambda trial: float(trial.hyperparameters[name]), chosen)
        if len(set(values)) == 1:
            axes.set_xticks([values[0]], [value_text(values[0])])
        elif spans_wide(values):
            _log_axis(axes)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=all(isinstance(value, int) for value in values)))
    else:
        categories = sorted({str(value) for value in values})
        _mark(axes, known, lambda trial: float(categories.index(str(trial.hyperparameters[name]))), chosen)
        axes.set_xticks(range(len(categories)), categories, parse_math=False)
        axes.set_xlim(-0.6, len(categories) - 0.4)
    axes.set_title(name, loc="left", parse_math=False)
    axes.grid(axis="y", **GRID)


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    bases = (1, 2, 5) if high / low < 100 else (1, 3)
    ticks = [base * 10.0**power for power in range(-12, 13) for base in bases]
    shown = [tick for tick in ticks if low <= tick <= high]
    # Over many decades, a tick a decade or less is enough for so small a panel.
    axes.set_xticks(shown[:: max(1, -(-len(shown) // 4))])
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def _legend(figure: Figure, *panels: Axes) -> None:
    """One legend for all panels: a mark that any of them has."""
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside upper left", ncols=3, frameon=False)

"""The figure of an ablation's axis: test accuracy against the point, numbers across the page, names down it."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analysis.axes import Axis, Point
from analysis.figures.paper import BLUE, GRID, ORANGE, TICK_GAP, Plot, apart, canvas, level
from analysis.loading import Results
from analysis.published import STANDARD
from analysis.statistics.intervals import over_seeds
from analysis.tables.axes import OWN, axis_data

# Four of Okabe and Ito's colours; a fifth net begins again.
LOOKS: list[dict[str, Any]] = [
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": "#009E73", "marker": "^", "linestyle": "-."},
    {"color": "#CC79A7", "marker": "D", "linestyle": ":"},
]
# Pale yellow, so that it is not taken for the level's grey band.
OWN_LOOK: dict[str, Any] = {"facecolor": "#F0E442", "alpha": 0.5, "linewidth": 0, "zorder": 0.5}
# From this ratio on, points that double would crowd at one end of a linear axis.
LOG_SPAN = 8
# Room that a tick's label needs, as a share of the axis a character.
CHARACTER = 0.018
LABEL_WIDTH = 36
VALIDATION = "hollow: validation accuracy"


def axis_figure(results: Results, axis: Axis) -> Plot | None:
    """Mean with interval and every seed, the own point marked, Standard-TransferNet as a level."""
    if not any(point.net.accuracy for point in axis.points):
        return None
    numeric = all(point.value is not None for point in axis.points)
    with canvas(7.4, 4.4 if numeric else _height(axis)) as figure:
        axes = figure.subplots()
        if axis.standard is not None and axis.standard.accuracy:
            label = f"{STANDARD} at {OWN}" if STANDARD in axis.nets else STANDARD
            level(axes, axis.standard, label, vertical=not numeric)
        if numeric:
            _number_axis(axes, axis)
        else:
            _name_axis(axes, axis)
        _points(axes, axis, numeric, chosen_by_validation=not results.facts.retrained_on_validation)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=3 if len(labels) <= 3 else 2, frameon=False)
    return Plot(axis.name, _caption(results, axis, numeric), figure, axis_data(axis, results.seeds))


def is_log(axis: Axis) -> bool:
    """Whether the numbers of the axis are drawn by their logarithm."""
    return spans_wide([_value(point) for point in axis.points])


def spans_wide(values: list[float]) -> bool:
    """Whether numbers are to be drawn by their logarithm: all positive, over a wide span."""
    return min(values) > 0 and max(values) / min(values) >= LOG_SPAN


def _value(point: Point) -> float:
    assert point.value is not None
    return point.value


def _positions(axis: Axis, numeric: bool) -> dict[str, float]:
    """Where each point stands: its number or the number's logarithm, or else its place in the order."""
    if numeric:
        log = is_log(axis)
        return {point.name: float(np.log(_value(point))) if log else _value(point) for point in axis.points}
    names = dict.fromkeys(point.name for point in sorted(axis.points, key=lambda point: point.index))
    return {name: float(place) for place, name in enumerate(names)}


def _number_axis(axes: Axes, axis: Axis) -> None:
    """Ticks at the points, the own one first, as far as their labels have room."""
    positions = _positions(axis, True)
    texts = {positions[point.name]: f"{point.value:g}" for point in axis.points}
    own = _own(axis, positions)
    gap = max(TICK_GAP, CHARACTER * max(map(len, texts.values()))) * (max(texts) - min(texts))
    ticks = apart([*own, *sorted(texts)], gap)
    axes.set_xticks(ticks, [texts[tick] for tick in ticks])
    axes.set_xlabel(axis.ablation + " (log scale)" * is_log(axis), parse_math=False)
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", **GRID)
    half = 0.012 * (max(texts) - min(texts) or 1.0)
    for number, position in enumerate(own):
        axes.axvspan(position - half, position + half, label=OWN if number == 0 else None, **OWN_LOOK)


def _name_axis(axes: Axes, axis: Axis) -> None:
    """A line a point, the first at the top: names of any length have room there."""
    positions = _positions(axis, False)
    axes.set_yticks(list(positions.values()), [_wrapped(name) for name in positions], parse_math=False)
    axes.set_ylim(len(positions) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("accuracy, %")
    axes.grid(axis="x", **GRID)
    for number, position in enumerate(_own(axis, positions)):
        axes.axhspan(position - 0.44, position + 0.44, label=OWN if number == 0 else None, **OWN_LOOK)


def _own(axis: Axis, positions: dict[str, float]) -> list[float]:
    return sorted({positions[point.name] for point in axis.points if point.own})


def _points(axes: Axes, axis: Axis, numeric: bool, chosen_by_validation: bool) -> None:
    """Every net's means, intervals and seeds; nets are shifted by a hair, so that none hides another."""
    positions = _positions(axis, numeric)
    span = (max(positions.values()) - min(positions.values())) if numeric else 0.0
    step = 0.012 * span if numeric else 0.7 / len(axis.nets)
    below = 0.0 if numeric else 0.3 * step  # on its bar a seed's point could not be seen
    for number, net in enumerate(axis.nets):
        look = LOOKS[number % len(LOOKS)]
        if not numeric:
            look = look | {"linestyle": "none"}  # there is nothing between two names
        points = [point for point in axis.points_of(net) if point.net.accuracy]
        shift = (number - (len(axis.nets) - 1) / 2) * step
        at = [positions[point.name] + shift for point in points]
        for seed in sorted({seed for point in points for seed in point.net.accuracy}):
            values = [point.net.accuracy.get(seed, np.nan) for point in points]
            faint = look | {"markersize": 3.5, "markeredgewidth": 0, "linewidth": 0.9, "alpha": 0.35}
            places = [place + below for place in at]
            axes.plot(*((places, values) if numeric else (values, places)), **faint)
        intervals = [interval for point in points if (interval := over_seeds(point.net.accuracy)) is not None]
        means, halves = [interval.mean for interval in intervals], [interval.half or 0.0 for interval in intervals]
        where: dict[str, Any] = {"x": at, "y": means, "yerr": halves} if numeric else {"x": means, "y": at}
        where |= {} if numeric else {"xerr": halves}
        axes.errorbar(**where, label=net, linewidth=2, markersize=5.5, capsize=3, elinewidth=1.3, **look)
        if not chosen_by_validation:
            continue
        judged = [interval.mean if (interval := over_seeds(point.net.val_accuracy)) else np.nan for point in points]
        hollow = look | {"markerfacecolor": "white", "markersize": 5, "linewidth": 1, "alpha": 0.8}
        label = VALIDATION if number == 0 else None
        axes.plot(*((at, judged) if numeric else (judged, at)), label=label, **hollow)


def _wrapped(name: str) -> str:
    return textwrap.fill(name, LABEL_WIDTH, max_lines=3, placeholder=" …")


def _height(axis: Axis) -> float:
    """Height in inches: room for the lines of every name, and for every net of a point."""
    names = {point.name for point in axis.points}
    lines = max(_wrapped(name).count("\n") + 1 for name in names)
    return 1.4 + len(names) * max(0.16 + 0.17 * lines, 0.1 + 0.26 * len(axis.nets))


def _caption(results: Results, axis: Axis, numeric: bool) -> str:
    caption = (
        f"{axis.title}: test accuracy of {' and '.join(axis.nets)} on "
        f"{results.facts.target.title}. Mean over seeds with 95 % interval; faint: each seed"
    )
    caption += "" if results.facts.retrained_on_validation else f"; {VALIDATION}, by which to choose"
    caption += f"; yellow: {OWN}" if any(point.own for point in axis.points) else ""
    caption += f"; level line with band: {STANDARD}." if axis.standard and axis.standard.accuracy else "."
    caption += " The axis is logarithmic." if numeric and is_log(axis) else ""
    if lacking := [point.net.label for point in axis.points if not point.net.accuracy]:
        caption += f" Without a result: {'; '.join(lacking)}."
    return caption

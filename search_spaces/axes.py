"""The axes of the ablations: each turns a configuration into the points to compare, the study's own among them."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from study.settings.facts import target_classes
from study.settings.models import StudyConfig
from study.settings.overrides import ConfigError, value_at
from trainables import networks

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One point of an axis: what it changes of the configuration, by dotted key."""

    label: str
    changes: Changes = field(default_factory=dict)
    value: float | None = None
    """The number at the point, if the axis is a single numeric hyperparameter."""


def point_of_axis(axis: str, point: Point) -> str:
    """What an error calls a point."""
    return f"point {point.label!r} of axis {axis}"


Axis = Callable[[StudyConfig], list[Point]]
AXES: dict[str, Axis] = {}


def axis(name: str) -> Callable[[Axis], Axis]:
    """Register a function ``config -> points`` under a name."""

    def register(points: Axis) -> Axis:
        AXES[name] = points
        return points

    return register


def axis_names(config: StudyConfig) -> list[str]:
    """All axes and crossings that the configuration can name: those here, and the user's own."""
    return sorted({*AXES, *config.axes, *config.crossings})


def points_of(config: StudyConfig, name: str) -> list[Point]:
    """The points of an axis or a crossing; an axis of the configuration comes before one of the same name here."""
    if name in config.crossings:
        return _crossing(config, name)
    if name in config.axes:
        return [described(changes) for changes in config.axes[name]]
    return AXES[name](config)


@axis("tau")
def tau(config: StudyConfig) -> list[Point]:
    """Softmax temperature of the knowledge."""
    return _numbers("tau", "transfer.tau", (1, 2, 4, 8, 16), config.transfer.tau)


@axis("lambda")
def lambda_(config: StudyConfig) -> list[Point]:
    """Weight of the extra loss."""
    return _numbers("lambda", "transfer.lambda", (0, 0.25, 0.5, 1, 2, 4), config.transfer.lambda_)


@axis("n_m")
def n_m(config: StudyConfig) -> list[Point]:
    """Top layers of the main branch that start dense and random, in Standard-TransferNet as in the other nets."""
    depth = len(networks.layer_names(config.network))
    points = _numbers("N_m", "transfer.n_m", (*range(1, min(5, depth) + 1), depth), max(1, config.transfer.n_m))
    # A point means its N_m for every net that it shows.
    return [replace(point, changes={**point.changes, "transfer.standard_n_m": None}) for point in points]


@axis("n_e")
def n_e(config: StudyConfig) -> list[Point]:
    """Layers of the extra branch."""
    top = len(networks.layer_names(config.network)) - 1
    return _numbers("N_e", "transfer.n_e", (*range(1, min(5, top) + 1), top), config.transfer.n_e)


@axis("source-schedule")
def source_schedule(config: StudyConfig) -> list[Point]:
    """How the source is pruned: steps, spacing, where the same number of connections goes, and how many go."""
    prune = config.source.prune
    key = "source.prune"
    if prune.is_given:
        return [Point("the masks of the weights")]
    shares = prune.final_shares
    dense = networks.connection_counts(config.network, target_classes(config))
    by_layer = shares if isinstance(shares, dict) else dict.fromkeys(dense, shares)
    overall = round(sum(by_layer[name] * count for name, count in dense.items()) / sum(dense.values()), 4)
    points = [Point("this study's schedule")]
    points += [
        Point("one-shot" if steps == 1 else f"{steps} steps", {f"{key}.steps": steps})
        for steps in (1, 2, 4, 8)
        if steps != prune.steps
    ]
    other = "linear" if prune.spacing == "geometric" else "geometric"
    points.append(Point(f"{other} spacing", {f"{key}.spacing": other}))
    if isinstance(shares, dict):
        points.append(Point("uniform share", {f"{key}.keep": overall}))
    if prune.scope == "layer":
        points.append(Point("one global threshold", {f"{key}.keep": overall, f"{key}.scope": "global"}))
        points += [
            Point(f"{factor:g} times the share", {f"{key}.keep": scaled(shares, factor)}) for factor in (0.5, 1.5)
        ]
    return points


@axis("target-schedule")
def target_schedule(config: StudyConfig) -> list[Point]:
    """The way to the sparsest named net in the target: steps, and where the connections go."""
    prune = config.target_prune
    key, last = "target_prune", prune.named[-1]

    def way(keep: list[float]) -> Changes:
        return {f"{key}.keep": keep, f"{key}.named": [last]}

    own = [keep for keep in prune.keep if keep >= last]
    first = own[0]
    points = [Point(f"this study's {len(own)} steps"), Point("one-shot", way([last]))]
    for steps in (2, 4, 8):
        # From the study's own first point, so that every way starts below what Hybrid-TransferNet keeps.
        ratio = last / first
        points.append(
            Point(f"{steps} geometric steps", way([round(first * ratio ** (i / (steps - 1)), 6) for i in range(steps)]))
        )
    scope = "layer" if prune.scope == "global" else "global"
    words = "equal proportion of each layer" if scope == "layer" else "one global threshold"
    return [*points, Point(words, {f"{key}.scope": scope})]


def _numbers(symbol: str, key: str, values: Iterable[float], own: float) -> list[Point]:
    return [Point(f"{symbol} = {value:g}", {key: value}, float(value)) for value in sorted({*values, own})]


def described(changes: Changes) -> Point:
    """The point that changes some keys, called by them and their values."""
    label = ", ".join(f"{key} = {_brief(value)}" for key, value in changes.items())
    single = next(iter(changes.values())) if len(changes) == 1 else None
    number = float(single) if isinstance(single, int | float) and not isinstance(single, bool) else None
    return Point(label, changes, number)


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _crossing(config: StudyConfig, name: str) -> list[Point]:
    """The combinations that a crossing's design has.

    Raises:
        ConfigError: an axis has other points than the design wants.
    """
    crossing = config.crossings[name]
    points = []
    for combination in _combinations(config, name):
        changes = {key: value for point in combination for key, value in point.changes.items()}
        if not any(all(changes.get(key) == value for key, value in skip.items()) for skip in crossing.skip):
            label = ", ".join(point.label for point in combination) or "this study's settings"
            points.append(Point(label, changes))
    return points


def _combinations(config: StudyConfig, name: str) -> list[tuple[Point, ...]]:
    """Points that a crossing has together: of the axes that are not named, the study's own."""
    crossing = config.crossings[name]
    axes = {axis: points_of(config, axis) for axis in crossing.axes}
    if crossing.design == "factorial":
        return list(itertools.product(*axes.values()))
    others = {axis: [point for point in points if not _is_own(config, point)] for axis, points in axes.items()}
    if crossing.design == "one-factor":
        return [(), *((point,) for points in others.values() for point in points)]
    for axis, points in others.items():
        if len(points) != 1:
            raise ConfigError(
                f"crossings.{name}: design {crossing.design} wants one point of each axis that is not the study's own, "
                f"and {axis} has {len(points)}"
            )
    every = [points[0] for points in others.values()]
    if crossing.design == "ladder":
        return [tuple(every[:count]) for count in range(len(every) + 1)]
    all_but_one = [tuple(point for point in every if point is not left_out) for left_out in every]
    return [(), tuple(every), *all_but_one]


def _is_own(config: StudyConfig, point: Point) -> bool:
    return all(value_at(config, key) == value for key, value in point.changes.items())


def scaled(shares: dict[str, float] | float, factor: float) -> dict[str, float] | float:
    """Shares of connections kept, all of them times a factor, at most 0.99."""

    def scale(share: float) -> float:
        return round(min(share * factor, 0.99), 4)

    return {name: scale(share) for name, share in shares.items()} if isinstance(shares, dict) else scale(shares)

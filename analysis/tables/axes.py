"""The table of an ablation's axis: how each point does, next to the study's own setting and Standard-TransferNet."""

import pandas as pd

from analysis.axes import SEARCH, Axis, Point
from analysis.loading import Results
from analysis.statistics.intervals import over_seeds
from analysis.tables.accuracy import PAIRED, difference_columns, minus, over_seeds_note
from analysis.tables.table import (
    RETRAINED,
    Header,
    Table,
    each_seed,
    interval_columns,
    interval_text,
    problem_notes,
    problem_text,
    rate_text,
    seed_count,
    seeds_text,
)

OWN = "this study's setting"
CHOICE = "Choose a point by its validation ACC %, from the validation images: the test set only reports."
CHOSEN = "The trials were chosen by validation ACC % at the search's seeds; these seeds are others."
SETTINGS = ["tau", "lambda_", "n_m", "n_e", "keep"]


def axis_table(results: Results, axis: Axis) -> Table:
    """A row a point; its CSV (:func:`axis_data`) is what the figure draws, too."""
    several, seeds = len(axis.nets) > 1, results.seeds
    has_own = any(point.own for point in axis.points)
    headers = [Header("net")] if several else []
    headers += [Header("point"), Header("seeds"), Header("validation ACC %"), Header("ACC %")]
    headers += [each_seed(seeds, "ACC %"), Header("Prune %")]
    headers += [Header(f"ACC % minus {OWN}")] if has_own else []
    headers += [Header(f"ACC % minus {axis.standard.name}")] if axis.standard else []
    rows = []
    for point in axis.points:
        net = point.net
        row = [net.name] if several else []
        row += [point.name + f" ({OWN})" * (point.own and not point.name.startswith(OWN)), seed_count(net, seeds)]
        row += [interval_text(over_seeds(net.val_accuracy)), interval_text(over_seeds(net.accuracy))]
        row += [seeds_text(net.accuracy, net, seeds), rate_text(over_seeds(net.prune_percent))]
        row += [minus(net, axis.own(net.name))] if has_own else []
        row += [minus(net, axis.standard)] if axis.standard else []
        rows.append(row)
    notes = [over_seeds_note(results), *[PAIRED] * (has_own or axis.standard is not None)]
    notes += [CHOSEN if axis.ablation == SEARCH else RETRAINED if results.facts.retrained_on_validation else CHOICE]
    notes += [note for net in axis.nets for note in _same_nets(axis.points_of(net))]
    notes += problem_notes([point.net for point in axis.points], seeds)
    title = f"{axis.title}: {', '.join(axis.nets)} on {results.facts.target.title}"
    return Table(axis.name, title, headers, rows, notes, axis_data(axis, seeds), [[point.net] for point in axis.points])


def axis_data(axis: Axis, seeds: list[int]) -> pd.DataFrame:
    """Everything that is known of each point, a row a point."""
    return pd.DataFrame([_record(axis, point, seeds) for point in axis.points])


def _record(axis: Axis, point: Point, seeds: list[int]) -> dict[str, object]:
    net, first = point.net, point.net.cells.iloc[0]
    record: dict[str, object] = {"ablation": axis.ablation, "net": net.name, "point": point.name}
    record |= {"point_index": point.index, "point_value": point.value, "own_point": point.own}
    record |= {setting: first[setting] for setting in SETTINGS}
    record |= {"seeds": len(net.accuracy), **interval_columns("", over_seeds(net.accuracy))}
    record |= interval_columns("val_", over_seeds(net.val_accuracy))
    record |= interval_columns("prune_", over_seeds(net.prune_percent))
    record |= difference_columns("diff_own_", net, axis.own(net.name))
    record |= difference_columns("diff_", net, axis.standard)
    record |= interval_columns("standard_", over_seeds(axis.standard.accuracy)) if axis.standard else {}
    quantities = {"": net.accuracy, "val_": net.val_accuracy, "prune_": net.prune_percent}
    record |= {f"{name}seed_{seed}": values.get(seed) for name, values in quantities.items() for seed in seeds}
    return record | {"problems": problem_text(net)}


def _same_nets(points: list[Point]) -> list[str]:
    """A line for points of a net that are one net, as what they vary has no part in it (tau without knowledge)."""
    labels: dict[frozenset[str], list[str]] = {}
    for point in points:
        labels.setdefault(point.net.stages, []).append(point.net.label)
    if len(labels) == 1 and len(points) > 1:
        return [f"{points[0].net.name} is the same net at every point."]
    return [f"The same net: {' and '.join(same)}." for same in labels.values() if len(same) > 1]

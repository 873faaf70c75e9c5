"""Where a number comes from: the cells, stages and stored nets behind a row of a table."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.loading import Results, StudyError
from analysis.nets import Net, brief
from analysis.reporting import tables
from analysis.tables.table import NOTHING, Table, percent


def trace(results: Results, table: str, row: str) -> str:
    """The nets behind one row of a table: each seed's path of stages, with their results and where they are stored.

    Args:
        results: the study.
        table: the table's name, as its files have it, e.g. ``table1``.
        row: what stands first in the row, or its number from 1.

    Raises:
        StudyError: there is no such table or row, or its rows are not made of nets.
    """
    made = {one.name: one for one in tables(results) if one.sources}
    if table not in made:
        raise StudyError(f"{results.folder} has no table {table!r} to trace: choose {', '.join(made)}")
    found = made[table]
    place = _place(found, row)
    pairs = zip(found.headers, found.rows[place], strict=True)
    lines = [found.title, *(f"  {f'{head.group}: ' if head.group else ''}{head.name}: {text}" for head, text in pairs)]
    stages = {row["stage"]: row for row in results.stages.to_dict("records")}
    for net in found.sources[place]:
        lines += ["", net.label, *_cells(net, stages, results)]
    return "\n".join(lines)


def _place(table: Table, row: str) -> int:
    names = [texts[0] for texts in table.rows]
    matches = [place for place, name in enumerate(names) if name.casefold() == row.casefold()]
    if not matches and row.isascii() and row.isdecimal() and 1 <= int(row) <= len(names):
        matches = [int(row) - 1]
    if len(matches) != 1:
        what = "several rows" if matches else "no row"
        known = "; ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
        raise StudyError(f"table {table.name} has {what} {row!r}: give the number or the name of one of: {known}")
    return matches[0]


def _cells(net: Net, stages: dict[str, Any], results: Results) -> Iterator[str]:
    for cell in net.cells.sort_values("seed").to_dict("records"):
        gave = cell["problem"] or f"test ACC {percent(cell['test_accuracy'])} %"
        yield f"  seed {cell['seed']} (ablation {cell['ablation']}): {gave}"
        yield from (f"    {_stage(stage, stages, results)}" for stage in cell["path"])


def _stage(key: str, stages: dict[str, Any], results: Results) -> str:
    """Kind, seed, status, accuracy and folder (whose name is the key) of a stage on one line."""
    if key not in stages:
        return f"{key}: not in stages.parquet, so it has not run"
    stage = stages[key]
    seed = NOTHING if pd.isna(stage["seed"]) else f"{stage['seed']:g}"
    accuracies = ", ".join(
        f"{name} {percent(stage[f'{name}_accuracy'])} %"
        for name in ("val", "test")
        if pd.notna(stage[f"{name}_accuracy"])
    )
    # All studies of a storage share its stages: studies/<name> and stages/<key> lie side by side.
    storage = results.folder.above(2)
    there = storage.has(f"stages/{key}/manifest.json")
    where = storage.at(f"stages/{key}") + ("" if there else " (not there)")
    error = f" ({brief(stage['error'])})" if pd.notna(stage["error"]) else ""
    return f"{stage['kind']:<12}  seed {seed:<3}  {stage['status']}{error}  {accuracies or NOTHING}  {where}"

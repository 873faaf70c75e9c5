"""Nets as the tables show them: the cells of one variant over its seeds, joined with the results of their stages."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import pandas as pd

from analysis.loading import Results, StudyError, once
from analysis.published import CONNECTIONS, NEURONS, TRANSFER_NETS

VARIANT = ["stream", "net", "sparsity", "knowledge", "target_knowledge", "keep", "tau", "lambda_", "n_m", "n_e"]
MEASURED = ["status", "val_accuracy", "test_accuracy", "test_top5_accuracy", "prune_percent"]
IDENTITY = "identity"
"""A column of numbers, of which cells that are alike in all of ``VARIANT`` have the same: ten columns as one."""
ACCURACY_TABLES = ("table1", "table3", "table4", "controls", "probes")
CONTROLS = ["stream", "net", "sparsity", "knowledge"]
ORDER = (*TRANSFER_NETS, CONNECTIONS, "Sparse-TargetNet(K-)_C", NEURONS)


@dataclass(frozen=True)
class Net:
    """One variant, in one stream if the study has several, with a cell per seed.

    ``variant`` is the name with what tells the net from others of this name: what a row of a table is called.
    """

    name: str
    variant: str
    cells: pd.DataFrame

    @property
    def stream(self) -> str:
        """The stream, empty in an ordinary study."""
        return str(self.cells["stream"].iloc[0])

    @property
    def label(self) -> str:
        """The variant and the stream: no other net of the study has this label."""
        return f"{self.variant}, {self.stream}" if self.stream else self.variant

    @cached_property
    def stages(self) -> frozenset[str]:
        """The stages that measure the net: nets of the same stages are one net, whatever table asks for it."""
        return frozenset(self.cells["measured"])

    @cached_property
    def accuracy(self) -> dict[int, float]:
        """Test accuracy in % of each seed that has one."""
        return self._by_seed("test_accuracy")

    @cached_property
    def val_accuracy(self) -> dict[int, float]:
        """Validation accuracy in % of each seed that has one: what a choice between nets goes by."""
        return self._by_seed("val_accuracy")

    @cached_property
    def top5_accuracy(self) -> dict[int, float]:
        """Top-5 test accuracy in % of each seed that has one."""
        return self._by_seed("test_top5_accuracy")

    @cached_property
    def prune_percent(self) -> dict[int, float]:
        """Share of connections pruned, in %, of each seed that is done."""
        return self._by_seed("prune_percent")

    @cached_property
    def problems(self) -> dict[int, str]:
        """Why a seed has no accuracy."""
        hit = self.cells[self.cells["problem"] != ""]
        return dict(zip(hit["seed"].tolist(), hit["problem"].tolist(), strict=True))

    def _by_seed(self, column: str) -> dict[int, float]:
        rows = zip(*(self.cells[name].tolist() for name in ("seed", "problem", column)), strict=True)
        return {seed: value for seed, problem, value in rows if problem == "" and pd.notna(value)}


def by_seed(column: "pd.Series[float]") -> dict[int, float]:
    """A column that is indexed by seed, as a dictionary."""
    return dict(zip(column.index.tolist(), column.tolist(), strict=True))


@once
def outcomes(results: Results) -> pd.DataFrame:
    """Cells with their stage's results: the columns of ``MEASURED``, and ``problem``, empty if there is a result.

    ``stream`` is empty, not null, in an ordinary study: null would not equal itself.
    """
    return joined(results.cells, results.stages)


def joined(cells: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """:func:`outcomes` of a table of cells and one of stages; a stage without a row has not run."""
    measured = rows[["stage", *MEASURED]].rename(columns={"stage": "measured"})
    cells = cells.merge(measured, on="measured", how="left", validate="many_to_one")
    cells["status"] = cells["status"].fillna("missing")
    cells["stream"] = cells["stream"].fillna("")
    cells = identified(cells)
    stages = rows.set_index("stage")
    cells["problem"] = [
        _problem(status, accuracy, list(path), stages)
        for status, accuracy, path in zip(cells["status"], cells["test_accuracy"], cells["path"], strict=True)
    ]
    return cells


def identified(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with their :data:`IDENTITY`."""
    return cells.assign(**{IDENTITY: cells.groupby(VARIANT, sort=False, dropna=False).ngroup()})


def nets(cells: pd.DataFrame) -> list[Net]:
    """The variants among the cells, in the order of the paper's tables.

    Raises:
        StudyError: two different results stand for the same net and seed, so that a mean would mix them.
    """
    # A net that several ablations asked for is one net: the paper's cells first, the others are the same stage.
    cells = cells.sort_values("ablation", key=lambda names: names != "paper", kind="stable")
    cells = cells.drop_duplicates([IDENTITY, "seed", "measured"])
    several = cells.duplicated([IDENTITY, "seed"]).any()
    keys, names = ([IDENTITY, "ablation"], [*VARIANT, "ablation"]) if several else ([IDENTITY], VARIANT)
    if (twice := cells[cells.duplicated([*keys, "seed"])]).shape[0]:
        first = twice.iloc[0]
        raise StudyError(
            f"two results for {first['net']}, seed {first['seed']}, of ablation {first['ablation']}, that no column of "
            "cells.parquet tells apart: give their nets different names"
        )
    told_apart = {
        controls: [name for name in names if name not in CONTROLS and rivals[name].nunique(dropna=False) > 1]
        for controls, rivals in cells.drop_duplicates(keys).groupby(CONTROLS, sort=False)
        if rivals.shape[0] > 1
    }
    found = [
        Net(str(first["net"]), _variant(first, told_apart.get(tuple(first[CONTROLS]), [])), group)
        for _, group in cells.groupby(keys, sort=False, dropna=False)
        for first in [group.iloc[0]]
    ]
    return sorted(found, key=place)


def place(net: Net) -> tuple[int, float]:
    """Sorts nets in the order of the paper's tables."""
    kind = next((i for i, name in enumerate(ORDER) if net.name == name or _is_point(net.name, name)), len(ORDER))
    keep = net.cells["keep"].iloc[0]
    return kind, 0.0 if pd.isna(keep) or kind < len(TRANSFER_NETS) else -float(keep)


def in_table(cells: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The cells that are listed in one of the named tables."""
    return cells[cells["tables"].map(lambda tables: not set(names).isdisjoint(tables)).astype(bool)]


@once
def table_nets(results: Results) -> list[Net]:
    """The nets that the study's tables of accuracies have, at its own setting, in the order of the paper's tables."""
    return nets(in_table(off_axis(outcomes(results)), *ACCURACY_TABLES))


def off_axis(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells at the study's own setting: those that are not a point of an ablation's axis."""
    return cells[cells["point"].isna()]


def plain(cells: pd.DataFrame, name: str, stream: str = "") -> Net | None:
    """The named net without controls, as the paper's ablation has it: what others of its stream are compared with."""
    cells = cells[cells["stream"] == stream]
    same = cells[(cells["net"] == name) & (cells["sparsity"] != "random") & (cells["knowledge"] != "shuffled")]
    if (paper := same[same["ablation"] == "paper"]).shape[0]:
        same = paper
    found = nets(same)
    return found[0] if found else None


def culprits(path: Iterable[str], stages: pd.DataFrame) -> list[str]:
    """The stages of a path that stopped it: those that failed, or else the first that is not done."""
    status = {stage: stages["status"].get(stage, "missing") for stage in path}
    failed = [stage for stage, state in status.items() if state == "failed"]
    return failed or [stage for stage, state in status.items() if state != "done"][:1]


def brief(error: object, width: int = 160) -> str:
    """An error on one line: a traceback's last line, or else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= width else line[: width - 1] + "…"


def _problem(status: str, accuracy: float, path: list[str], stages: pd.DataFrame) -> str:
    if status == "done":
        return "done: without a test accuracy" if pd.isna(accuracy) else ""
    stage = next(iter(culprits(path, stages)), path[-1] if path else "")
    if stage not in stages.index:
        return f"{status}: stage {stage} has not run"
    row = stages.loc[stage]
    error = brief(row["error"]) if pd.notna(row["error"]) else ""
    state = f" {row['status']}" if row["status"] != status else ""
    return f"{status}: {row['kind']} stage {stage}{state}" + (f" ({error})" if error else "")


def _variant(first: "pd.Series[Any]", told_apart: list[str]) -> str:
    """The net's name, the controls that it does not name, and what tells it from other nets of this name."""
    name = str(first["net"])
    parts = [name]
    parts += ["random masks"] if first["sparsity"] == "random" and "random" not in name else []
    parts += ["shuffled knowledge"] if first["knowledge"] == "shuffled" and "shuffled" not in name else []
    parts += [f"{key.rstrip('_')} = {_value(first[key])}" for key in told_apart]
    return ", ".join(parts)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, Real) else str(value)


def _is_point(net: str, prefix: str) -> bool:
    return prefix.endswith("_C") and net.startswith(prefix)

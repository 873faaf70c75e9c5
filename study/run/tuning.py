"""Tuning each net alone: what is to be tried, what was chosen by validation accuracy, and the table of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pyarrow as pa

from search_spaces.cells import Cell
from search_spaces.tuning import candidates, tried, tuned_cells
from study import schema
from study.config import StudyConfig
from study.graph import StageGraph, plan_cells
from study.storage import Storage


@dataclass
class Tuning:
    """The tuning of a study's nets."""

    config: StudyConfig
    graph: StageGraph = field(init=False)
    """All that is tried."""
    _tried: list[tuple[str, int, str]] = field(init=False)
    """Net, candidate and the stage that measures it, seed by seed."""
    _rows: list[dict[str, Any]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        """Plan it.

        Raises:
            ConfigError: a candidate cannot be used.
        """
        found = [*tried(self.config)]
        self.graph = plan_cells([cell for _, _, cell in found], checked=self.config)
        keys = [key for _, key in self.graph.cells]
        self._tried = [(net, number, key) for (net, number, _), key in zip(found, keys, strict=True)]

    @property
    def nets(self) -> int:
        """Nets that are tuned."""
        return len({net for net, _, _ in self._tried})

    def choose(self, storage: Storage, failed: Mapping[str, str]) -> list[Cell]:
        """The cells of each net at its best; a net of which no candidate is complete has none."""
        keys = [key for _, _, key in self._tried]
        stored = storage.stored(dict.fromkeys(keys))
        rows = storage.rows("stages", stored)
        known = dict(zip(rows["stage"].to_pylist(), rows["val_accuracy"].to_pylist(), strict=True))
        stages: dict[str, dict[int, list[str]]] = {}
        for net, number, key in self._tried:
            stages.setdefault(net, {}).setdefault(number, []).append(key)
        scores = {
            net: {number: [known.get(key) for key in own] for number, own in by_number.items()}
            for net, by_number in stages.items()
        }
        chosen = {net: best for net, own in scores.items() if (best := best_candidate(own)) is not None}
        points = candidates(self.config)
        self._rows = [
            {
                "net": net,
                "candidate": number,
                "settings": points[number].label,
                "changes": json.dumps(points[number].changes),
                "val_accuracy": _mean(scores[net][number]),
                "val_accuracies": scores[net][number],
                "chosen": chosen.get(net) == number,
                "error": next((failed[one] for key in own for one in self.graph.path(key) if one in failed), None),
                "stages": own,
            }
            for net, by_number in stages.items()
            for number, own in by_number.items()
        ]
        return tuned_cells(self.config, chosen)

    def table(self) -> pa.Table:
        """What was tried."""
        return schema.table("tuning", self._rows)


def tuning_text(config: StudyConfig, tuning: Tuning) -> str:
    """What is tried, in a line."""
    assert config.tuned is not None
    number, seeds = len(candidates(config)), len(config.tuned.seeds)
    return (
        f"tuning: {tuning.nets} nets, each with {number} settings at {seeds} seed{'s' if seeds > 1 else ''} "
        f"({len(tuning.graph.stages)} stages), then each at its best at {len(config.seed_list)} seeds"
    )


def best_candidate(scores: Mapping[int, Sequence[float | None]]) -> int | None:
    """The candidate of the highest mean validation accuracy; of equals the first. None if none has all its seeds."""
    means = {number: mean for number, own in scores.items() if (mean := _mean(own)) is not None}
    return min(means, key=lambda number: (-means[number], number), default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None

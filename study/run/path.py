"""The ablation path of a search: from the study's own settings to the best that were found, one at a time.

Fawcett and Hoos 2016: of all settings in which the two differ, the one that gains most is changed first, then of those
that are left, and so on. Here a gain is of validation accuracy at the search's seeds; what the steps gain on test
images is measured afterwards, with other seeds.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import mean
from typing import Any

import pyarrow as pa
from rich.console import Console

from search_spaces.axes import Point
from search_spaces.cells import Cell
from search_spaces.space import cell_of
from study import schema
from study.config import StudyConfig
from study.graph import StageGraph, plan_cells
from study.names import OWN_SETTINGS, PATH
from study.storage import Storage
from study.tune.experiment import Experiment

Params = Mapping[str, Any]


class AblationPath:
    """The path, as far as it was followed."""

    def __init__(self, config: StudyConfig, own: Params, best: Params) -> None:
        """Begin at ``own``, the study's settings in the search space; it leads to those of the best trial."""
        self.config, self.best = config, best
        self.stops: list[tuple[Point, Params]] = [(Point(OWN_SETTINGS), own)]
        self.tried: list[str] = []
        """The stages that measure what was tried."""
        self._rows: list[dict[str, Any]] = []

    def follow(self, experiment: Callable[[StageGraph], Experiment], storage: Storage, console: Console) -> None:
        """Try what is left to change, and change what gains most, until the best settings are reached.

        It ends before them if nothing that was tried could be trained.

        Args:
            experiment: makes what runs a graph's stages.
            storage: where they are stored.
            console: prints what it tries.
        """
        while names := self._left():
            step, (_, params) = len(self.stops), self.stops[-1]
            console.print(
                f"ablation path, step {step}: {len(names)} setting{'s' * (len(names) > 1)} to try", markup=False
            )
            changed = {name: {**params, name: self.best[name]} for name in names}
            cells = {name: self._cells(self._point(name), changed[name]) for name in names}
            graph = plan_cells([cell for own in cells.values() for cell in own], checked=self.config)
            experiment(graph).run(console)
            keys = iter([key for _, key in graph.cells])
            stages = {name: [next(keys) for _ in own] for name, own in cells.items()}
            self.tried += [key for own in stages.values() for key in own]
            gain_most = self._note(storage, step, params, stages)
            if gain_most is None:
                return
            self.stops.append((self._point(gain_most), changed[gain_most]))

    def _point(self, name: str) -> Point:
        """The change of one setting to what it is in the end."""
        return Point(f"{name} = {_text(self.best[name])}")

    def final_cells(self, seed: int) -> list[Cell]:
        """The nets at each stop of the path, the study's own settings first."""
        return [
            replace(
                cell_of(self.config, params, seed, point.label),
                ablation=PATH,
                point=point,
                point_index=index,
                own_point=index == 0,
            )
            for index, (point, params) in enumerate(self.stops)
        ]

    def table(self) -> pa.Table:
        """All that was tried at each step."""
        return schema.table("ablation_path", self._rows)

    def _left(self) -> list[str]:
        """The settings that are still to be changed; those that the best trial has no use for stay."""
        params = self.stops[-1][1]
        return [name for name, value in params.items() if name in self.best and self.best[name] != value]

    def _cells(self, point: Point, params: Params) -> list[Cell]:
        return [
            replace(cell_of(self.config, params, seed, point.label), ablation=PATH, point=point)
            for seed in self.config.search.seeds
        ]

    def _note(self, storage: Storage, step: int, params: Params, stages: Mapping[str, list[str]]) -> str | None:
        """Note what was tried. Return the setting that gains most, of equals the first; None if none has a result."""
        known = storage.val_accuracies(key for own in stages.values() for key in own)
        scores = {name: [known[key] for key in own] for name, own in stages.items() if all(key in known for key in own)}
        chosen = max(scores, key=lambda name: mean(scores[name]), default=None)
        self._rows += [
            {
                "step": step,
                "hyperparameter": name,
                "before": _text(params[name]),
                "after": _text(self.best[name]),
                "val_accuracy": mean(scores[name]) if name in scores else None,
                "val_accuracies": scores.get(name, []),
                "chosen": name == chosen,
                "stages": own,
            }
            for name, own in stages.items()
        ]
        return chosen


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

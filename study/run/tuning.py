"""Tuning each net separately: what is tried, what was chosen by validation accuracy, and the table of it.

Each seed chooses for itself. A choice is a part of the procedure that a net is trained by, and varies as its training
does: chosen once for all seeds, its luck would be in every seed's result alike, and pass for the net's.
"""

import json
from collections.abc import Mapping

import pyarrow as pa

from search_spaces.cells import Cell
from search_spaces.tuning import candidates, tried
from study import schema
from study.config import StudyConfig
from study.graph import plan_cells
from study.storage import Storage


class Tuning:
    """The tuning of a study's nets."""

    def __init__(self, config: StudyConfig) -> None:
        """Plan it.

        Raises:
            ConfigError: a candidate cannot be used.
        """
        self.config = config
        self.graph = plan_cells(tried(config), checked=config)
        """All that is tried."""

    def __str__(self) -> str:
        """What is tried, in a line."""
        nets = len({cell.net for cell, _ in self.graph.cells})
        number, seeds = len(candidates(self.config)), len(self.config.seed_list)
        return (
            f"tuning: {nets} nets, each with {number} settings at {seeds} seed{'s' if seeds > 1 else ''}: "
            f"{len(self.graph.stages)} stages"
        )

    def concluded(self, storage: Storage, failed: Mapping[str, str]) -> tuple[list[Cell], pa.Table]:
        """The cells of each net at its best, at each seed, and the table of what was tried.

        Args:
            storage: where it is stored.
            failed: the error of each failed stage.
        """
        accuracy = storage.val_accuracies(key for _, key in self.graph.cells)
        scores: dict[tuple[str, int], dict[int, float | None]] = {}
        for cell, key in self.graph.cells:
            assert cell.point_index is not None
            scores.setdefault((cell.net, cell.seed), {})[cell.point_index] = accuracy.get(key)
        best = {arm: best_candidate(own) for arm, own in scores.items()}
        chosen, rows = [], []
        for cell, key in self.graph.cells:
            assert cell.point is not None
            if is_chosen := best[cell.net, cell.seed] == cell.point_index:
                chosen.append(cell)
            rows.append(
                {
                    "net": cell.net,
                    "seed": cell.seed,
                    "candidate": cell.point_index,
                    "settings": cell.point.label,
                    "changes": json.dumps(cell.point.changes),
                    "val_accuracy": accuracy.get(key),
                    "chosen": is_chosen,
                    "error": next((failed[one] for one in self.graph.path(key) if one in failed), None),
                    "stage": key,
                }
            )
        return chosen, schema.table("tuning", rows)


def best_candidate(scores: Mapping[int, float | None]) -> int:
    """The candidate of the highest validation accuracy, of equals the first; if none is complete, the study's own."""
    known = {number: score for number, score in scores.items() if score is not None}
    return min(known, key=lambda number: (-known[number], number), default=0)

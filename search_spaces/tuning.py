"""Each net at its best: the settings that it tries, and the cells that try them."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from search_spaces.ablations import ABLATIONS
from search_spaces.axes import Point, described
from search_spaces.cells import Cell
from study.names import TUNED
from study.settings.models import StudyConfig
from study.settings.overrides import value_at, with_changes


def candidates(config: StudyConfig) -> list[Point]:
    """The settings that each net tries: the study's own first, then others of the grid, drawn if there are too many."""
    tuned = config.tuned
    assert tuned is not None
    own = {key: value_at(config, key) for key in tuned.settings}
    grid = [dict(zip(tuned.settings, values, strict=True)) for values in itertools.product(*tuned.settings.values())]
    others = [changes for changes in grid if changes != own]
    if len(others) > tuned.budget - 1:
        draw = np.random.default_rng(tuned.draw)
        chosen = draw.choice(len(others), tuned.budget - 1, replace=False)
        others = [others[place] for place in sorted(chosen.tolist())]
    return [replace(described(own), changes={}), *map(described, others)]


def arms(config: StudyConfig, seed: int) -> list[Cell]:
    """The nets that are tuned, each once: those of the tables, at the study's own setting."""
    found: dict[str, Cell] = {}
    for name in config.ablations:
        for cell in ABLATIONS[name](config, seed) if name in ABLATIONS else []:
            if cell.tables:
                before = found.setdefault(cell.net, cell)
                found[cell.net] = replace(before, tables=tuple(dict.fromkeys((*before.tables, *cell.tables))))
    return list(found.values())


def tried(config: StudyConfig) -> Iterator[Cell]:
    """The cells that try the candidates, each net's together; the number of the candidate is their ``point_index``.

    Raises:
        ConfigError: a candidate has a wrong value.
    """
    points = candidates(config)
    configs = [with_changes(config, point.changes, f"tuned: {point.label}") for point in points[1:]]
    for seed in config.seed_list:
        for arm in arms(config, seed):
            for number, (point, own) in enumerate(zip(points, [config, *configs], strict=True)):
                yield replace(arm, ablation=TUNED, point=point, point_index=number, own_point=number == 0, config=own)

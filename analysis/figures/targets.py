"""What a study on several targets shows, at a glance: comparisons by targets."""

from textwrap import fill

import numpy as np
import pandas as pd

from analysis.figures.heat_map import heat_map, points_in_cell
from analysis.figures.paper import Plot
from analysis.tables.table import points_of
from analysis.targets import Targets

MEAN = "mean"
NAME = 38
"""Letters on a line of a comparison's name."""


def targets_figure(study: Targets) -> Plot | None:
    """The difference of each comparison on each target, and its mean over targets; what is open is in brackets."""
    found, columns = study.over_targets, [*study.by_target, MEAN]
    if not found:
        return None
    grid = np.full((len(found), len(columns)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    data: list[tuple[str, str, float, str]] = []
    for row, one in enumerate(found):
        for target, own in one.by_target.items():
            assert own.mean is not None
            column = columns.index(target)
            grid[row, column] = own.mean.mean
            texts[row, column] = points_in_cell(own.mean.mean, shown=own.shown, less=own.within_margin)
            data.append((one.name, target, own.mean.mean, own.verdict))
        if one.difference.n < 2:
            continue
        grid[row, -1] = one.difference.mean
        texts[row, len(columns) - 1] = points_in_cell(one.difference.mean, shown=one.verdict != "open", less=False)
        data.append((one.name, MEAN, one.difference.mean, one.verdict))
    figure = heat_map(grid, texts, [fill(one.name, NAME) for one in found], columns, left=3.6, height=0.42)
    caption = (
        "Differences in test accuracy, percentage points, mean over seeds. Bold: shown (Holm over the claims of all "
        f"targets; the mean: Wilcoxon's test over targets); \N{ALMOST EQUAL TO}: shown to cost less than "
        f"{points_of(study.margin)}; in brackets: open."
    )
    return Plot(
        "targets_map", caption, figure, pd.DataFrame(data, columns=["comparison", "target", "difference", "verdict"])
    )

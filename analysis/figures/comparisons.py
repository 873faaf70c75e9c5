"""What a study shows, at a glance: its comparisons with their intervals."""

import pandas as pd

from analysis.comparisons import Comparison, comparisons
from analysis.figures.paper import BLUE, GREY, GRID, ORANGE, Plot, canvas
from analysis.loading import Results
from analysis.tables.comparisons import verdict
from analysis.tables.table import points_of, points_text

ROW = 0.36
"""Inches of a comparison."""
GREEN = "#009E73"
COLOURS = {"better": BLUE, "worse": ORANGE, "costs": GREEN, "negligible": GREEN}
"""Of a verdict, by its first word; what is open is grey."""


def comparisons_figure(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Each comparison's mean difference with its interval, coloured by what it shows, on a band of the margin."""
    found = [one for one in comparisons(results) if one.mean is not None and one.mean.half is not None]
    if not found:
        return None
    margin = results.facts.margin
    with canvas(9.4, ROW * len(found) + 1.1) as figure:
        axes = figure.subplots()
        axes.axvspan(-margin, margin, color="#eef3ee", linewidth=0, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
        for place, one in enumerate(found):
            colour = COLOURS.get(verdict(one).split()[0], GREY)
            assert one.mean is not None and one.mean.low is not None and one.mean.high is not None
            axes.plot([one.mean.low, one.mean.high], [place, place], color=colour, linewidth=2.2, zorder=3)
            axes.plot(one.values, [place] * one.pairs, "o", color=colour, alpha=0.35, markersize=3.5, zorder=2)
            axes.plot(one.mean.mean, place, "D", color=colour, markersize=5.5, zorder=4)
            axes.annotate(
                points_text(one.mean),
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                color=colour,
            )
        axes.set_yticks(range(len(found)), [one.question.name for one in found], fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xlabel("difference in test accuracy, percentage points")
        axes.grid(axis="x", **GRID)
    design = found[0].design
    caption = (
        f"Differences paired by seed, with their 95 % intervals; faint: each seed. Blue: shown to be better, orange: "
        f"worse, green: shown to cost less than {points_of(margin if design is None else design.negligible)}; grey: "
        f"open. Band: {points_of(margin)} either way."
    )
    return Plot("forest", caption, figure, pd.DataFrame([_record(one) for one in found]))


def _record(one: Comparison) -> dict[str, object]:
    assert one.mean is not None
    ends = {"mean": one.mean.mean, "low": one.mean.low, "high": one.mean.high}
    return {"comparison": one.question.name, "verdict": verdict(one), "pairs": one.pairs, **ends}

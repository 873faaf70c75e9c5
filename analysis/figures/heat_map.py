"""Differences as a map: what is compared by data sets."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from analysis.figures.paper import canvas
from analysis.nets import brief

WIDTH, ROW = 0.62, 0.3
"""Inches of a data set and of a net."""
STRONG = 0.28
"""Share of the range of colours, from its middle, beyond which numbers are written in white."""
SOFT = 1.0
"""Points up to which colours grow in proportion to the difference."""


def heat_map(
    values: npt.NDArray[np.float64],
    texts: Mapping[tuple[int, int], str],
    rows: Sequence[str],
    columns: Sequence[str],
    left: float,
    height: float = ROW,
) -> Figure:
    """Differences as coloured cells, blue above zero and red below it, each with its text.

    Args:
        values: percentage points, ``(rows, columns)``; NaN if there is none.
        texts: what is written in a cell; one that begins with a sign is bold.
        rows: names of the rows.
        columns: names of the columns.
        left: inches for the names of the rows.
        height: inches of a row.
    """
    finite = np.abs(values[np.isfinite(values)])
    most = max(SOFT, float(finite.max(initial=0.0)))
    norm = SymLogNorm(SOFT, vmin=-most, vmax=most)
    with canvas(WIDTH * len(columns) + left, height * len(rows) + 1.5) as figure:
        axes = figure.subplots()
        axes.imshow(values, cmap="RdBu", norm=norm, aspect="auto", interpolation="none")
        for (row, column), text in texts.items():
            strong = abs(float(norm(values[row, column])) - 0.5) > STRONG
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if strong else "black",
                fontweight="bold" if text[0] in "+\N{MINUS SIGN}" else "normal",
            )
        axes.set_xticks(range(len(columns)), [brief(name, 14) for name in columns], rotation=45, ha="right")
        axes.set_yticks(range(len(rows)), rows, fontsize=8.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def points_in_cell(difference: float, *, shown: bool, less: bool) -> str:
    """A difference in points, bold if it is shown, marked if it costs less than the margin, else in brackets."""
    # Rounded first, so that a hair below zero is no minus zero.
    number = f"{round(difference, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
    return number if shown else f"\N{ALMOST EQUAL TO} {number}" if less else f"({number})"

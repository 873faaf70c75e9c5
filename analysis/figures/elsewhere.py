"""What results from elsewhere decide, as one picture: nets by data sets."""

import numpy as np
from matplotlib.colors import SymLogNorm

from analysis.elsewhere import Elsewhere, sparsity_text
from analysis.figures.paper import Plot, canvas
from analysis.nets import brief

WIDTH, ROW = 0.62, 0.3
"""Inches of a data set and of a net."""
STRONG = 0.28
"""Share of the range of colours, from its middle, beyond which numbers are written in white."""
SOFT = 1.0
"""Points up to which colours grow in proportion to the difference."""


def verdicts_figure(results: Elsewhere) -> Plot:
    """The difference to the baseline of each net on each data set; what is open is in brackets."""
    rows = results.comparisons
    arms = [*dict.fromkeys(zip(rows["sparsity"], rows["net"], strict=True))]
    arms.sort(key=lambda arm: (arm[0], arm[1]))
    places = sorted({*rows["data_set"]})
    grid = np.full((len(arms), len(places)), np.nan)
    texts = {}
    for row in rows.to_dict("records"):
        cell = arms.index((row["sparsity"], row["net"])), places.index(row["data_set"])
        grid[cell] = row["difference"]
        # Rounded first, so that a hair below zero is no minus zero.
        number = f"{round(row['difference'], 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")
        texts[cell] = {"open": f"({number})", "costs less": f"\N{ALMOST EQUAL TO} {number}"}.get(row["verdict"], number)
    most = max(SOFT, float(np.nanmax(np.abs(grid))))
    norm = SymLogNorm(SOFT, vmin=-most, vmax=most)
    with canvas(WIDTH * len(places) + 3.2, ROW * len(arms) + 1.5) as figure:
        axes = figure.subplots()
        axes.imshow(grid, cmap="RdBu", norm=norm, aspect="auto", interpolation="none")
        for (row_, column), text in texts.items():
            strong = abs(float(norm(grid[row_, column])) - 0.5) > STRONG
            axes.text(
                column,
                row_,
                text,
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if strong else "black",
                fontweight="bold" if text[0] in "+\N{MINUS SIGN}" else "normal",
            )
        axes.set_xticks(range(len(places)), [brief(name, 14) for name in places], rotation=45, ha="right")
        axes.set_yticks(range(len(arms)), [f"{brief(net, 24)}, {sparsity_text(sparsity)}" for sparsity, net in arms])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    caption = (
        f"Points of accuracy against {results.baseline}, mean over runs. Bold: the difference is shown (Holm over all "
        f"{len(rows)} comparisons); in brackets: open."
    )
    if results.margin is not None:
        caption += f" \N{ALMOST EQUAL TO}: shown to cost less than {results.points}, while no difference is shown."
    return Plot("verdicts", caption, figure, rows)

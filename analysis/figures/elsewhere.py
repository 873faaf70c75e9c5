"""What results from elsewhere decide, as one picture: nets by data sets."""

import numpy as np

from analysis.elsewhere import Elsewhere, sparsity_text
from analysis.figures.heat_map import heat_map, points_in_cell
from analysis.figures.paper import Plot
from analysis.nets import brief


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
        verdict = row["verdict"]
        texts[cell] = points_in_cell(
            row["difference"], shown=verdict not in ("open", "costs less"), less=verdict == "costs less"
        )
    rows_ = [f"{brief(net, 24)}, {sparsity_text(sparsity)}" for sparsity, net in arms]
    figure = heat_map(grid, texts, rows_, places, left=3.2)
    caption = (
        f"Points of accuracy against {results.baseline}, mean over runs. Bold: the difference is shown (Holm over all "
        f"{len(rows)} comparisons); in brackets: open."
    )
    if results.margin is not None:
        caption += f" \N{ALMOST EQUAL TO}: shown to cost less than {results.points}, while no difference is shown."
    return Plot("verdicts", caption, figure, rows)

"""What tuning does for each net, trial by trial."""

import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.figures.axes import LOOKS
from analysis.figures.paper import GRID, Plot, canvas
from analysis.loading import Results
from analysis.published import TRANSFER_NETS
from analysis.tuned import tried


def expected_best_figure(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Expected best validation accuracy of the transfer nets by the number of settings tried."""
    shown = [one for one in tried(results) if one.net in TRANSFER_NETS and one.curve]
    if not shown:
        return None
    data = []
    with canvas(7.4, 4.2) as figure:
        axes = figure.subplots()
        for number, one in enumerate(shown):
            values = one.curve
            axes.plot(range(1, len(values) + 1), values, label=one.net, markersize=5, **LOOKS[number % len(LOOKS)])
            data += [(one.net, trials, value) for trials, value in enumerate(values, start=1)]
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("settings tried")
        axes.set_ylabel("expected best validation accuracy, %")
        axes.grid(axis="y", **GRID)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    caption = (
        "Expected best validation accuracy after N of the settings, in random order (Dodge et al. 2019), mean "
        "over seeds: where curves cross, which net is better depends on the budget."
    )
    return Plot("expected_best", caption, figure, pd.DataFrame(data, columns=["net", "trials", "expected_best"]))

"""What each layer of the nets keeps: connections, and neurons where any are pruned."""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter

from analysis.figures.paper import BLUE, GREY, GRID, ORANGE, Plot, canvas
from analysis.loading import Results
from analysis.nets import Net, in_table, nets
from analysis.statistics.intervals import mean_interval
from analysis.tables.table import interval_columns

KEPT = {"connections": "connections kept, %", "neurons": "neurons (channels) kept, %"}
# More of Okabe and Ito's palette.
COLOURS = (GREY, BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^v<>"
FEW = 10
"""So many layers have room for their names side by side."""


def layers_figure(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Share that each layer keeps, of the nets of Table 3 (of each stream those of Table 4)."""
    frames = [_kept(net, results) for net in nets(in_table(cells, "table3", "table4"))]
    frames = [frame for frame in frames if not frame.empty]
    if not frames:
        return None
    kept = pd.concat(frames, ignore_index=True)
    dense = kept.groupby(["stream", "layer"])["neurons_before"].transform("max")
    kept = kept.assign(
        connections=100 * kept["connections"] / kept["connections_dense"], neurons=100 * kept["neurons"] / dense
    )
    shown = [name for name in KEPT if name == "connections" or (kept[name] < 100).any()]
    streams = list(dict.fromkeys(kept["stream"]))
    names = kept["layer"].unique()
    many = len(names) > FEW
    width = max(4.6, 0.24 * len(names)) * len(shown) + 0.4
    height = (3.4 + many * 0.07 * max(map(len, names))) * len(streams) + 0.5
    with canvas(width, height) as figure:
        panels = figure.subplots(len(streams), len(shown), squeeze=False)
        for line, stream in zip(panels, streams, strict=True):
            for axes, name in zip(line, shown, strict=True):
                _panel(axes, kept[kept["stream"] == stream], name)
                axes.set_title(stream, loc="left", fontweight="bold", parse_math=False)
        figure.legend(
            *panels[0][0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=min(3, int(width / 2.4)),
            frameon=False,
        )
    caption = (
        "Share of its connections (weights, no biases) that each layer keeps, in percent of the unpruned "
        "architecture's, logarithmic: a layer without any connection has no point. "
        + ("Right: the same of its neurons or channels. " if "neurons" in shown else "")
        + "Lines: mean over seeds; faint points: each seed."
    )
    return Plot("layers", caption, figure, _summary(kept, shown))


def _kept(net: Net, results: Results) -> pd.DataFrame:
    done = net.cells.loc[net.cells["problem"] == "", ["seed", "stage"]]
    return results.layers.merge(done, on="stage").assign(net=net.variant, stream=net.stream)


def _panel(axes: Axes, kept: pd.DataFrame, name: str) -> None:
    # A layer with several weights has a row for each, in their order.
    names = kept.drop_duplicates("layer").sort_values("layer_index", kind="stable")["layer"]
    place = {name: position for position, name in enumerate(names)}
    looks = zip(cycle(COLOURS), cycle(MARKERS), strict=False)
    for (net, rows), (colour, marker) in zip(kept.groupby("net", sort=False), looks, strict=False):
        axes.plot(rows["layer"].map(place), rows[name], marker, color=colour, alpha=0.25, markersize=3.5, linewidth=0)
        mean = rows.groupby("layer", sort=False)[name].mean()
        axes.plot([place[layer] for layer in mean.index], mean, f"{marker}-", color=colour, markersize=5, label=net)
    axes.set_yscale("log" if name == "connections" else "linear")
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.set_ylim(bottom=None if name == "connections" else 0)
    axes.set_xticks(list(place.values()), list(place), rotation=90 if len(place) > FEW else 0)
    axes.set_ylabel(KEPT[name])
    axes.grid(axis="y", **GRID)


def _summary(kept: pd.DataFrame, shown: list[str]) -> pd.DataFrame:
    """A row for each net and layer; columns of the share kept as the tables' CSVs have them."""
    groups = kept.groupby(["stream", "net", "layer_index", "layer", "type"], sort=False)
    return pd.DataFrame(
        [
            dict(zip(["stream", "net", "layer_index", "layer", "type"], key, strict=True))
            | {"seeds": len(rows)}
            | {
                k: v
                for name in shown
                for k, v in interval_columns(f"{name}_", mean_interval(rows[name].tolist())).items()
            }
            for key, rows in groups
        ]
    )

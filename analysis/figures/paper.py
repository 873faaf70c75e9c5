"""Figures 2 and 3 of the paper and the learning curves, as Matplotlib figures without global state."""

import io
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.loading import Results
from analysis.nets import Net, brief, in_table, nets, plain
from analysis.published import HYBRID, STANDARD
from analysis.statistics.intervals import over_seeds, paired_difference
from analysis.tables.table import interval_columns, rate

# Okabe and Ito's palette, told apart by the colour-blind; curves differ in marker and dash too.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#4d4d4d"
CURVES: dict[str, dict[str, Any]] = {
    "Sparse-TargetNet": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "Sparse-TargetNet(K-)": {"color": ORANGE, "marker": "s", "linestyle": "--"},
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 10.5,
    "svg.hashsalt": "analysis",
    "svg.fonttype": "path",
    # Journals refuse the default, Type 3.
    "pdf.fonttype": 42,
}
GRID: dict[str, Any] = {"color": "#e3e3e3", "linewidth": 0.7}
TOP = 5
# Least distance between tick labels, as a share of the axis.
TICK_GAP = 0.06
MOST_CURVES = 10
"""With more seeds than this, a curve of each hides the mean."""
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plot:
    """A figure, what it shows in words, and the numbers behind it."""

    name: str
    caption: str
    figure: Figure
    data: pd.DataFrame

    def png(self) -> bytes:
        """The figure as PNG, the same bytes for the same data."""
        with matplotlib.rc_context(STYLE):
            return _saved(self.figure, "png", {"Software": None}, dpi=300)

    def pdf(self) -> bytes:
        """The figure as PDF for a paper, with real letters; the same bytes for the same data."""
        with matplotlib.rc_context(STYLE):
            return _saved(self.figure, "pdf", dict.fromkeys(["CreationDate", "Creator", "Producer"]))

    def svg(self) -> str:
        """The figure as SVG, the same text for the same data, without metadata."""
        with matplotlib.rc_context(STYLE):
            nothing = dict.fromkeys(["Date", "Creator", "Format", "Type"])
            return _saved(self.figure, "svg", nothing).decode()


def figure2(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Implicit knowledge: the top source classes of the mean softened output for two target classes.

    The two are the target classes that the reference is most and least certain of (highest and lowest probability of
    the top source class, mean over seeds; ties by name), so that they show the range of what is transferred.
    """
    streams = {stream: _knowledge(results, cells, stream) for stream in ["", *results.streams]}
    streams = {stream: knowledge for stream, knowledge in streams.items() if not knowledge.empty}
    if not streams:
        return None
    means = {stream: _mean_knowledge(knowledge) for stream, knowledge in streams.items()}
    chosen = {stream: _extremes(data) for stream, data in means.items()}
    columns = max(map(len, chosen.values()))
    with canvas(3.6 * columns + 0.6, 3.0 * len(streams)) as figure:
        panels = figure.subplots(len(streams), columns, sharex=True, squeeze=False)
        for line, (stream, data) in zip(panels, means.items(), strict=True):
            for axes in line[len(chosen[stream]) :]:
                axes.set_visible(False)
            for axes, target_class in zip(line, chosen[stream], strict=False):
                top = data[(data["target_class"] == target_class) & (data["class_rank"] <= TOP)]
                points = streams[stream][streams[stream]["target_class"] == target_class]
                _bars(axes, f"{f'{stream}, ' if stream else ''}target class: {target_class}", top, points)
            line[0].set_ylabel("source class")
    data = pd.concat([data.assign(stream=stream) if stream else data for stream, data in means.items()])
    knowledge = pd.concat(streams.values())
    seeds = knowledge["seed"].nunique()
    caption = (
        f"Figure 2. Implicit knowledge from {results.facts.source.title}: the {TOP} most probable source "
        f"classes of the Reference-SourceNet's softened output (τ = {knowledge['tau'].iloc[0]:g}) on the training "
        "images of the target class that it is most certain of (left) and least certain of (right). Bars: mean over "
        f"{seeds} seed{'s' * (seeds != 1)}; points: each seed. All target classes are in figure2.csv."
    )
    return Plot("figure2", caption, figure, data)


def figure3(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Accuracy against connection-pruning rate, from Hybrid-TransferNet on, with Standard-TransferNet as a level.

    It is drawn for an ordinary study: one with streams has Table 4, at the rates that it names.
    """
    cells = cells[cells["stream"] == ""]
    hybrid, standard = plain(cells, HYBRID), plain(cells, STANDARD)
    start = [hybrid] if hybrid is not None and hybrid.accuracy else []
    curves = {
        curve: start + [net for net in nets(cells[cells["curve"] == curve]) if net.accuracy]
        for curve in CURVES
        if (cells["curve"] == curve).any()
    }
    if not any(len(points) > len(start) for points in curves.values()):
        return None
    frames = [_curve_points(curve, points) for curve, points in curves.items()]
    data = pd.concat(frames, ignore_index=True)
    gain = _gain_by_knowledge([points[len(start) :] for points in curves.values()])
    with canvas(7.4, 4.6 if gain.empty else 6.2) as figure:
        if gain.empty:
            axes = figure.subplots()
        else:
            axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
            _gain_panel(below, gain)
        if standard is not None and standard.accuracy:
            level(axes, standard, STANDARD)
            data = pd.concat([data, _curve_points(STANDARD, [standard])], ignore_index=True)
        for shift, (curve, frame) in zip((0.99, 1.01), zip(curves, frames, strict=True), strict=False):
            _curve(axes, curve, frame, shift)
        rate_axis(axes if gain.empty else below, 100 - pd.concat(frames)["prune_percent"].to_numpy(dtype=float))
        axes.set_ylabel("test accuracy, %")
        axes.grid(axis="y", **GRID)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    faint = "" if len(_seed_columns(data)) > MOST_CURVES else "; faint: each seed"
    caption = (
        f"Figure 3. Accuracy{results.evaluation} against connection-pruning rate on "
        f"{results.facts.target.title}. Curves start "
        f"at Hybrid-TransferNet. Thick: mean over seeds with 95 % interval{faint}; level line with band: "
        "Standard-TransferNet. The axis is logarithmic in the share of connections kept."
    )
    if not gain.empty:
        caption += " Below: what knowledge gains while pruning, in points, paired by seed."
        data = pd.concat([data, gain], ignore_index=True)
    return Plot("figure3", caption, figure, data)


def learning_curves(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Training and validation accuracy over the epochs of the transfer nets, to judge whether they converged."""
    trained = []
    streams = in_table(cells, "table4")
    for net in nets(pd.concat([in_table(cells, "table1"), streams[streams["keep"].isna()]])):
        epochs = net.cells[["seed", "stage"]].merge(results.epochs, on="stage").sort_values(["seed", "round", "epoch"])
        if not epochs.empty:
            trained.append(epochs.assign(net=net.label, epoch=epochs.groupby("seed").cumcount() + 1))
    if not trained:
        return None
    columns = min(2, len(trained))
    lines = -(-len(trained) // columns)
    with canvas(3.7 * columns, 2.5 * lines + 0.4) as figure:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, epochs in zip(panels, trained, strict=False):
            _learning_curve(axes, epochs)
        for axes in panels[len(trained) :]:
            axes.set_visible(False)
        for axes in panels[::columns]:
            axes.set_ylabel("accuracy, %")
        for axes in panels[-columns:]:
            axes.set_xlabel("epoch")
        panels[0].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    caption = (
        "Learning curves of the transfer nets: accuracy on training images (while training, with dropout) and on "
        "validation images. Thick: mean over seeds; faint: each seed. A curve that still rises at the end has not "
        "converged, and differences to it may be differences in training time."
    )
    data = pd.concat(trained)[["net", "seed", "epoch", "train_accuracy", "val_accuracy"]]
    return Plot("learning_curves", caption, figure, data)


@contextmanager
def canvas(width: float, height: float) -> Iterator[Figure]:
    """A new figure of this size in inches, drawn in our style."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Once for both formats: each would be laid out again when it is saved.
        figure.draw_without_rendering()
        figure.set_layout_engine(None)


def _saved(figure: Figure, kind: str, metadata: dict[str, None], **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata, **options)
    return buffer.getvalue()


def _knowledge(results: Results, cells: pd.DataFrame, stream: str) -> pd.DataFrame:
    """The knowledge that Hybrid-TransferNet of the stream received, seed by seed; empty if there is none."""
    hybrid = plain(cells, HYBRID, stream)
    if hybrid is None:
        return results.knowledge.iloc[:0]
    return results.knowledge.merge(hybrid.cells.loc[hybrid.cells["problem"] == "", ["seed", "stage"]], on="stage")


def _extremes(data: pd.DataFrame) -> list[str]:
    """The target classes with the highest and the lowest probability of their top source class."""
    tops = data[data["class_rank"] == 1].sort_values(["mean", "target_class"], ascending=[False, True])
    return list(dict.fromkeys([tops["target_class"].iloc[0], tops["target_class"].iloc[-1]]))


def _mean_knowledge(knowledge: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of each source class's probability for each target class, ranked.

    A seed may list its most probable classes only. Classes that every seed lists come first: the mean of the others
    would be of the seeds where they were probable.
    """
    groups = knowledge.groupby(["target_class", "source_class"])["probability"]
    frame = groups.agg(mean="mean", seeds="size").reset_index()
    wide = knowledge.pivot_table(index=["target_class", "source_class"], columns="seed", values="probability")
    frame = frame.merge(wide.add_prefix("seed_").reset_index(), on=["target_class", "source_class"])
    order = ["target_class", "seeds", "mean", "source_class"]
    frame = frame.sort_values(order, ascending=[True, False, False, True], ignore_index=True)
    frame.insert(1, "class_rank", frame.groupby("target_class").cumcount() + 1)
    return frame


def _bars(axes: Axes, title: str, top: pd.DataFrame, points: pd.DataFrame) -> None:
    positions = np.arange(len(top))
    axes.barh(positions, top["mean"], color=BLUE, alpha=0.55, height=0.62)
    for position, source_class in zip(positions, top["source_class"], strict=True):
        values = points.loc[points["source_class"] == source_class, "probability"]
        axes.plot(values, np.full(len(values), position), "o", color="#1a1a1a", markersize=3.5, alpha=0.75)
    axes.set_yticks(positions, [_wrapped(name) for name in top["source_class"]], parse_math=False)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("mean probability")
    axes.set_title(brief(title, 40), loc="left", fontweight="bold", parse_math=False)


def _wrapped(name: object) -> str:
    return textwrap.fill(str(name), 22, max_lines=2, placeholder=" …")


def _curve_points(curve: str, points: list[Net]) -> pd.DataFrame:
    rows = []
    for net in points:
        interval = over_seeds(net.accuracy)
        assert interval is not None
        rows.append(
            {"curve": curve, "net": net.label, "prune_percent": float(np.mean(list(net.prune_percent.values())))}
            | {"mean": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "seeds": interval.n}
            | {f"seed_{seed}": value for seed, value in sorted(net.accuracy.items())}
        )
    return pd.DataFrame(rows).sort_values("prune_percent", kind="stable", ignore_index=True)


def _gain_by_knowledge(curves: list[list[Net]]) -> pd.DataFrame:
    """K+ minus K- at each rate that both curves have, paired by seed; empty if there is one curve."""
    if len(curves) < 2:
        return pd.DataFrame()
    plain_nets = {float(net.cells["keep"].iloc[0]): net for net in curves[1]}
    rows = []
    for net in curves[0]:
        other = plain_nets.get(float(net.cells["keep"].iloc[0]))
        interval = paired_difference(net.accuracy, other.accuracy) if other is not None else None
        if interval is not None:
            rate = float(np.mean(list(net.prune_percent.values())))
            row: dict[str, object] = {"curve": "K+ minus K-", "net": net.label, "prune_percent": rate}
            rows.append(row | interval_columns("", interval) | {"seeds": interval.n})
    return pd.DataFrame(rows)


def _gain_panel(axes: Axes, gain: pd.DataFrame) -> None:
    kept = 100 - gain["prune_percent"]
    half = (gain["ci_high"].astype(float) - gain["mean"]).fillna(0.0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.errorbar(kept, gain["mean"], yerr=half, color=BLUE, marker="o", markersize=5, linewidth=1.6, capsize=3)
    axes.set_ylabel("K+ minus K\N{MINUS SIGN}")
    axes.grid(axis="y", **GRID)


def _seed_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame if str(name).startswith("seed_")]


def _curve(axes: Axes, curve: str, frame: pd.DataFrame, shift: float) -> None:
    """One curve; shifted by a hair, so that the error bars of two curves do not hide each other."""
    look = CURVES[curve]
    kept = (100 - frame["prune_percent"]) * shift
    seeds = _seed_columns(frame)
    for column in seeds if len(seeds) <= MOST_CURVES else []:
        axes.plot(kept, frame[column], color=look["color"], alpha=0.22, linewidth=0.9, linestyle=look["linestyle"])
    half = (frame["ci_high"].astype(float) - frame["mean"]).fillna(0.0)
    axes.errorbar(
        kept, frame["mean"], yerr=half, label=curve, linewidth=2, markersize=5.5, capsize=3, elinewidth=1.1, **look
    )


def level(axes: Axes, net: Net, label: str, *, vertical: bool = False) -> None:
    """A net's mean accuracy as a line across the axes, with its interval as a band."""
    interval = over_seeds(net.accuracy)
    assert interval is not None
    line, band = (axes.axvline, axes.axvspan) if vertical else (axes.axhline, axes.axhspan)
    line(interval.mean, color=GREY, linestyle=":", linewidth=1.8, label=label)
    if interval.low is not None and interval.high is not None:
        band(interval.low, interval.high, color=GREY, alpha=0.13, linewidth=0)


def apart(positions: Iterable[float], gap: float) -> list[float]:
    """Those of the positions that are further than ``gap`` from all that were taken before them, in order."""
    taken: list[float] = []
    for position in positions:
        if all(abs(position - other) > gap for other in taken):
            taken.append(position)
    return sorted(taken)


def rate_axis(axes: Axes, kept: FloatArray) -> None:
    """Pruning rate on a logarithm of the share kept, as rates crowd near 100 %; ticks at the rates that were run."""
    low, high = float(kept.min()) / 1.15, float(kept.max()) * 1.15
    axes.set_xscale("log")
    axes.set_xlim(high, low)
    ticks = np.exp(apart(np.log(np.sort(kept)), TICK_GAP * np.log(high / low)))
    axes.set_xticks(ticks, [rate(100 - share).removesuffix(".0") for share in ticks])
    axes.minorticks_off()
    axes.set_xlabel("connections pruned, %")


def _learning_curve(axes: Axes, epochs: pd.DataFrame) -> None:
    parts = {"train_accuracy": ("training", ORANGE, "--"), "val_accuracy": ("validation", BLUE, "-")}
    for column, (label, color, dash) in parts.items():
        known = epochs.dropna(subset=[column])
        for _, seed in known.groupby("seed"):
            axes.plot(
                seed["epoch"],
                seed[column],
                marker=_marker(seed),
                color=color,
                alpha=0.25,
                linewidth=0.9,
                linestyle=dash,
            )
        mean = known.groupby("epoch")[column].mean()
        axes.plot(mean.index, mean, marker=_marker(mean), color=color, linewidth=2, linestyle=dash, label=label)
    axes.set_title(str(epochs["net"].iloc[0]), loc="left", parse_math=False)
    axes.grid(axis="y", **GRID)


def _marker(points: "pd.DataFrame | pd.Series[float]") -> str:
    """A line through one point cannot be seen."""
    return "o" if len(points) == 1 else ""

"""The confusion of classes on the test images, as heat maps."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.image import AxesImage

from analysis.figures.paper import Plot, canvas
from analysis.loading import Results
from analysis.nets import brief
from analysis.tables.classes import compared, confusion_of

NAMED = 30  # classes whose names have room at the axes
NUMBERED = 12  # classes whose shares have room in their fields
DARK = 45.0  # %, from which a share is written in white
NORM = PowerNorm(0.5, 0, 100)


def confusion_figure(results: Results, cells: pd.DataFrame) -> Plot | None:
    """Standard-TransferNet next to the best net by validation accuracy: what images of each class are taken for."""
    shown = compared(results, cells)
    if not shown.both:
        return None
    counts = {net.label: confusion_of(results, net) for net in shown.both}
    classes = len(next(iter(counts.values())))
    side = 3.4 if classes <= NUMBERED else 4.4
    with canvas(side * len(counts) + 1.3, side + 0.5) as figure:
        panels = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
        images = [_heat_map(axes, label, frame) for axes, (label, frame) in zip(panels, counts.items(), strict=True)]
        panels[0].set_ylabel("class of the test image")
        bar = figure.colorbar(images[0], ax=list(panels), shrink=0.8, ticks=[0, 1, 5, 10, 25, 50, 100])
        bar.set_label("share of the class's images, %")
        bar.outline.set_visible(False)
    data = pd.concat([_long(label, frame) for label, frame in counts.items()], ignore_index=True)
    return Plot("confusion", _caption(results, shown.best is not None, classes), figure, data)


def _heat_map(axes: Axes, title: str, counts: pd.DataFrame) -> AxesImage:
    shares = _shares(counts)
    # Without interpolation each pair of classes is one pixel, however many there are.
    image = axes.imshow(shares, cmap="Blues", norm=NORM, interpolation="none", aspect="equal")
    axes.set_title(title, loc="left", parse_math=False, fontsize=9.5)
    axes.set_xlabel("predicted class")
    if len(shares) <= NAMED:
        names = [brief(name, 18) for name in counts.index]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    if len(shares) <= NUMBERED:
        _numbers(axes, shares)
    return image


def _numbers(axes: Axes, shares: pd.DataFrame) -> None:
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        if share > 0:
            color = "white" if share > DARK else "#1a1a1a"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=color)


def _shares(counts: pd.DataFrame) -> pd.DataFrame:
    """Each row in % of its class's images; a class without any has none."""
    return (100 * counts.div(counts.sum(axis=1), axis=0)).fillna(0.0)


def _long(label: str, counts: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of classes that has images."""
    images, shares = counts.stack(), _shares(counts).stack()
    frame = pd.DataFrame({"images": images.astype(int), "percent": shares}).reset_index()
    frame.insert(0, "net", label)
    return frame[frame["images"] > 0]


def _caption(results: Results, chosen: bool, classes: int) -> str:
    caption = (
        f"Confusion of the classes on the test images of {results.facts.target.title}{results.evaluation}, in % "
        "of each class's images, summed over seeds. The colour grows with the root of the share, so that rare "
        "mistakes can be seen."
    )
    if chosen:
        caption += " The net other than Standard-TransferNet is the one with the best validation accuracy."
    return caption if classes <= NAMED else f"{caption} The {classes} classes' names are in confusion.csv, in order."

"""Ablation axes: one setting varied (or two crossed) over points, one of them the study's own."""

import re
from dataclasses import dataclass

import pandas as pd

from analysis.loading import StudyError
from analysis.nets import Net, off_axis, place, plain
from analysis.published import STANDARD
from study.names import PATH, TUNED

SEARCH = "search"
"""The ablation of a hyperparameter search: what it found, next to the study's own settings."""


@dataclass(frozen=True)
class Point:
    """One net at one point of an axis, with a cell per seed."""

    name: str
    index: int
    value: float | None
    own: bool
    net: Net


@dataclass(frozen=True)
class Axis:
    """The points of one ablation in one stream, net by net and in the axis's order, and what they are compared with."""

    ablation: str
    points: list[Point]
    standard: Net | None
    stream: str = ""

    @property
    def name(self) -> str:
        """What the files of its table and figure are called; users may name an axis as they like."""
        return "_".join(["axis", *(re.sub(r"[^\w.-]+", "-", part) for part in self._parts)])

    @property
    def heading(self) -> str:
        """The ablation and its stream."""
        return ", ".join(self._parts)

    @property
    def title(self) -> str:
        """How a table or caption begins."""
        return "Final test of the search" if self.ablation == SEARCH else f"Ablation {self.heading}"

    @property
    def nets(self) -> list[str]:
        """The names of the nets that the axis holds."""
        return list(dict.fromkeys(point.net.name for point in self.points))

    @property
    def _parts(self) -> list[str]:
        return [self.ablation, self.stream] if self.stream else [self.ablation]

    def points_of(self, net: str) -> list[Point]:
        """The points of one net, in the axis's order."""
        return [point for point in self.points if point.net.name == net]

    def own(self, net: str) -> Net | None:
        """A net at the study's own setting, which its other points are compared with.

        A search may find that another net is better: its points have one own setting together.
        """
        own = [point.net for point in self.points if point.own]
        return next((candidate for candidate in own if candidate.name == net or len(own) == 1), None)


def axes(cells: pd.DataFrame) -> list[Axis]:
    """The study's axes, in its own order.

    Raises:
        StudyError: two different results stand for the same net, point and seed, so that a mean would mix them.
    """
    settings = off_axis(cells)
    # Nets each at its best, and those of an ablation path, are at settings of their own, and no points of one axis.
    of_axes = cells["point"].notna() & ~cells["ablation"].isin([TUNED, PATH])
    groups = cells[of_axes].groupby(["ablation", "stream"], sort=False)
    return [_axis(group, settings) for _, group in groups]


def _axis(cells: pd.DataFrame, settings: pd.DataFrame) -> Axis:
    ablation, stream = str(cells["ablation"].iloc[0]), str(cells["stream"].iloc[0])
    return Axis(ablation, _points(cells), plain(settings, STANDARD, stream), stream)


def _points(cells: pd.DataFrame) -> list[Point]:
    cells = cells.drop_duplicates(["net", "point", "seed", "measured"])
    if (twice := cells[cells.duplicated(["net", "point", "seed"])]).shape[0]:
        first = twice.iloc[0]
        raise StudyError(
            f"two results for {first['net']}, {first['point']}, seed {first['seed']}, of ablation "
            f"{first['ablation']}: give their nets or points different names"
        )
    several = cells["net"].nunique() > 1
    points = [_point(group, several) for _, group in cells.groupby(["net", "point"], sort=False)]
    if cells["ablation"].iloc[0] == SEARCH:
        return sorted(points, key=lambda point: point.index)
    return sorted(points, key=lambda point: (place(point.net), point.net.name, point.index))


def _point(cells: pd.DataFrame, several: bool) -> Point:
    first = cells.iloc[0]
    net, name = str(first["net"]), str(first["point"])
    label = f"{net}, {name}" if several else name
    value = None if pd.isna(first["point_value"]) else float(first["point_value"])
    own = bool(cells["own_point"].eq(True).all())
    return Point(name, int(first["point_index"]), value, own, Net(net, label, cells))

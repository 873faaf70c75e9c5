"""Accuracy class by class: which classes a net gains or loses against Standard-TransferNet."""

from typing import NamedTuple

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, by_seed, in_table, nets, plain
from analysis.published import STANDARD
from analysis.statistics.intervals import Interval, over_seeds, paired_difference
from analysis.tables.accuracy import PAIRED
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    difference_text,
    interval_columns,
    percent,
    problem_notes,
)

SHOWN = ("table1", "table3", "table4")
# Of the classes gained most, and as many of those lost most.
EACH_END = 5


class Compared(NamedTuple):
    """The nets whose classes are looked at: Standard-TransferNet, and the best other net by validation."""

    standard: Net | None
    best: Net | None

    @property
    def both(self) -> list[Net]:
        """Those that there are."""
        return [net for net in self if net is not None]


class ClassResult(NamedTuple):
    """One class in one net, next to Standard-TransferNet of the same stream."""

    name: str
    images: float
    standard: Interval | None
    accuracy: Interval | None
    difference: Interval | None
    mistake: tuple[str, float] | None


def compared(results: Results, cells: pd.DataFrame) -> Compared:
    """The best net of Tables 1, 3 and 4 by validation accuracy, and Standard-TransferNet in its stream.

    Neither if validation images were trained on: no net can be called the best then.
    """
    if results.facts.retrained_on_validation:
        return Compared(None, None)
    known = [net for net in _nets(results, cells) if net.val_accuracy]
    best = max((net for net in known if net.name != STANDARD), key=_by_validation, default=None)
    if best is None:
        return Compared(max(known, key=_by_validation, default=None), None)
    standard = plain(cells, STANDARD, best.stream)
    return Compared(standard if standard and len(_confusion(results, standard)) else None, best)


def classes_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """The classes with the largest gains and losses; all of them, for every net, in the CSV."""
    standard, best = compared(results, cells)
    if standard is None or best is None:
        return None
    found = _by_gain(class_results(results, best, standard))
    if not found:
        return None
    shown = found if len(found) <= 2 * EACH_END else found[:EACH_END] + found[-EACH_END:]
    headers = [Header(name) for name in ("class", "test images", f"{standard.label}, ACC %", f"{best.label}, ACC %")]
    headers += [Header("difference"), Header("most often taken for", prose=True)]
    rows = [_row(result, len(best.accuracy)) for result in shown]
    if len(shown) < len(found):
        title = f"The {EACH_END} classes gained most and the {EACH_END} lost most, of {len(found)}"
    else:
        title = "Classes"
    title += f": {best.label} against {standard.label} on {results.facts.target.title}"
    notes = [
        f"{best.label} is the best net by validation ACC %. ACC %: share of the class's test images"
        f"{results.evaluation}, of all seeds together. {PAIRED}",
        "A class has few test images, so intervals are wide, and each is for its class only: of "
        f"{len(found)} classes about {max(1, round(len(found) / 20))} would leave out zero by chance.",
        "Every class of every net is in classes.csv.",
        *problem_notes([standard, best], results.seeds),
    ]
    return Table("classes", title, headers, rows, notes, _data(results, cells))


def class_results(results: Results, net: Net, standard: Net) -> list[ClassResult]:
    """Each class of the test images, in the data's order."""
    ours, theirs = _confusion(results, net), _confusion(results, standard)
    accuracy, baseline = _by_class(ours), _by_class(theirs)
    both = pd.concat([theirs, ours])
    images = both.groupby(["stage", "target_class"])["images"].sum().groupby("target_class").mean()
    mistakes = _most_frequent_mistakes(ours)
    return [
        ClassResult(
            name,
            float(images[name]),
            over_seeds(baseline.get(name, {})),
            over_seeds(accuracy.get(name, {})),
            paired_difference(accuracy.get(name, {}), baseline.get(name, {})),
            mistakes.get(name),
        )
        for name in dict.fromkeys(both["target_class"])
    ]


def confusion_of(results: Results, net: Net) -> pd.DataFrame:
    """Test images by target and predicted class, summed over seeds, square and in the data's order of classes."""
    confusion = _confusion(results, net)
    order = list(dict.fromkeys([*confusion["target_class"], *confusion["predicted_class"]]))
    counts = confusion.pivot_table(index="target_class", columns="predicted_class", values="images", aggfunc="sum")
    return counts.reindex(index=order, columns=order).fillna(0.0)


def _confusion(results: Results, net: Net) -> pd.DataFrame:
    """The confusion of each seed that is done."""
    done = net.cells.loc[net.cells["problem"] == "", ["seed", "measured"]]
    return done.merge(results.confusion, left_on="measured", right_on="stage")


def _nets(results: Results, cells: pd.DataFrame) -> list[Net]:
    return [net for net in nets(in_table(cells, *SHOWN)) if len(_confusion(results, net))]


def _by_validation(net: Net) -> tuple[int, float]:
    """Sorts nets by mean validation accuracy; one that lacks seeds is not known well enough to beat the others."""
    interval = over_seeds(net.val_accuracy)
    return (interval.n, interval.mean) if interval else (0, 0.0)


def _by_class(confusion: pd.DataFrame) -> dict[str, dict[int, float]]:
    """Accuracy in % of each class in each seed that has images of it."""
    right = confusion["images"].where(confusion["predicted_class"] == confusion["target_class"], 0)
    sums = confusion.assign(right=right).groupby(["target_class", "seed"])[["right", "images"]].sum()
    shares = (100 * sums["right"] / sums["images"]).unstack("seed")
    return {str(name): by_seed(row.dropna()) for name, row in shares.iterrows()}


def _most_frequent_mistakes(confusion: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """The class that images of each class are most often taken for, and their share in %; ties by the data's order."""
    totals = confusion.groupby("target_class")["images"].sum()
    mistakes = confusion[confusion["predicted_class"] != confusion["target_class"]]
    sums = mistakes.groupby(["target_class", "predicted_class"], sort=False)["images"].sum()
    most = sums.groupby("target_class", sort=False).idxmax()
    return {str(name): (str(taken), float(100 * sums[name, taken] / totals[name])) for name, taken in most}


def _by_gain(found: list[ClassResult]) -> list[ClassResult]:
    """The largest gain first; without seeds that both nets have, there is neither gain nor loss."""
    pairs = [(result.difference.mean, result) for result in found if result.difference]
    return [result for _, result in sorted(pairs, key=lambda pair: -pair[0])]


def _row(result: ClassResult, seeds: int) -> list[str]:
    mistake = f"{result.mistake[0]} ({percent(result.mistake[1])} %)" if result.mistake else NOTHING
    shares = [percent(one.mean) if one else NOTHING for one in (result.standard, result.accuracy)]
    return [result.name, f"{result.images:g}", *shares, difference_text(result.difference, seeds), mistake]


def _data(results: Results, cells: pd.DataFrame) -> pd.DataFrame:
    """Every class of every net, next to Standard-TransferNet of its stream."""
    rows: list[dict[str, object]] = []
    for net in _nets(results, cells):
        standard = plain(cells, STANDARD, net.stream)
        if standard is None or standard.stages == net.stages:
            continue
        for result in class_results(results, net, standard):
            row: dict[str, object] = {"net": net.variant}
            row |= {"stream": net.stream} if net.stream else {}
            row |= {"class": result.name, "test_images": result.images}
            means = {"standard_mean": result.standard, "mean": result.accuracy}
            row |= {name: one.mean if one else None for name, one in means.items()}
            row |= interval_columns("diff_", result.difference)
            row |= {"diff_pairs": result.difference.n if result.difference else 0}
            name, share = result.mistake or (None, None)
            rows.append(row | {"most_often_taken_for": name, "taken_for_percent": share})
    return pd.DataFrame(rows)

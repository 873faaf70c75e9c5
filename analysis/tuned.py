"""Nets each at its best: tuned alone with one budget on validation images, and compared as at common settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import pandas as pd

from analysis.comparisons import Comparison, comparisons, family, questions
from analysis.loading import Results, once
from analysis.nets import in_table, nets, off_axis, outcomes
from analysis.tables.table import points_of, points_text
from study.names import TUNED


@dataclass(frozen=True)
class Compared:
    """A comparison at common settings and with each net at its best."""

    name: str
    common: Comparison
    best: Comparison
    net_settings: str
    baseline_settings: str

    @property
    def changes(self) -> bool:
        """Whether the verdict is another one with each net at its best."""
        return self.common.verdict != self.best.verdict


@dataclass(frozen=True)
class Tried:
    """What a net was tuned with."""

    net: str
    number: int
    """Settings that it tried."""
    different: int
    """Of these, how many made a difference to it: some settings concern other nets only."""
    failed: int
    settings: str | None
    """Those chosen; None if no settings were complete."""
    own_accuracy: float | None
    """Validation accuracy at the study's own settings, %, mean over the tuning's seeds."""
    best_accuracy: float | None
    """The same at those chosen."""
    accuracies: list[float]
    """The same of all different settings that were complete."""


def tuned_cells(results: Results) -> pd.DataFrame:
    """The cells of the nets that are each at their best, with their outcomes."""
    cells = outcomes(results)
    # At their best, they are no points of an axis.
    return cells[cells["ablation"] == TUNED].assign(point=None)


@once
def tried(results: Results) -> list[Tried]:
    """What each net was tuned with, in the order of the tables; none if nets are not tuned."""
    if results.tuning is None:
        return []
    return [_tried(str(net), rows) for net, rows in results.tuning.groupby("net", sort=False)]


def _tried(net: str, rows: pd.DataFrame) -> Tried:
    rows = rows.assign(trained=rows["stages"].map(tuple))
    apart = rows.drop_duplicates("trained")
    complete = apart["val_accuracy"].dropna()
    chosen = rows[rows["chosen"]]
    own = rows.loc[rows["candidate"] == 0, "val_accuracy"].dropna()
    return Tried(
        net=net,
        number=len(rows),
        different=len(apart),
        failed=len(apart) - len(complete),
        settings=str(chosen["settings"].iloc[0]) if len(chosen) else None,
        own_accuracy=float(own.iloc[0]) if len(own) else None,
        best_accuracy=float(chosen["val_accuracy"].iloc[0]) if len(chosen) else None,
        accuracies=complete.tolist(),
    )


def expected_best(accuracies: Sequence[float]) -> list[float]:
    """Expected best validation accuracy after 1, 2, ... trials, taken in random order from those that there are.

    Dodge et al. 2019, "Show Your Work"; without putting back what was drawn, which is unbiased (Tang et al. 2020): of n
    trials out of N, the i-th smallest is the best in C(i-1, n-1) of C(N, n) draws.
    """
    ordered, total = sorted(accuracies), len(accuracies)
    return [
        sum(comb(place, n - 1) * value for place, value in enumerate(ordered)) / comb(total, n)
        for n in range(1, total + 1)
    ]


@once
def best_comparisons(results: Results) -> list[Comparison]:
    """The study's questions with each net at its best, a family of their own; none if nets are not tuned."""
    cells = tuned_cells(results)
    return family(questions(results, cells), margin=results.facts.margin) if len(cells) else []


@once
def compared(results: Results) -> list[Compared]:
    """The comparisons that are known at common settings and with each net at its best."""
    at_best = {one.question.name: one for one in best_comparisons(results)}
    settings = {one.net: one.settings or "" for one in tried(results)}
    return [
        Compared(
            one.question.name,
            one,
            best,
            settings.get(best.question.net.name, ""),
            settings.get(best.question.baseline.name, ""),
        )
        for one in comparisons(results)
        if (best := at_best.get(one.question.name)) is not None
    ]


def accuracies(results: Results) -> dict[str, tuple[dict[int, float], dict[int, float]]]:
    """Test accuracy by seed of each net that is tuned, at common settings and at its best."""
    common = {
        net.name: net for net in nets(in_table(off_axis(outcomes(results)), "table1", "table3", "controls", "probes"))
    }
    best = {net.name: net for net in nets(tuned_cells(results))}
    return {name: (common[name].accuracy, net.accuracy) for name, net in best.items() if name in common}


def conclusion(results: Results) -> list[str]:
    """Which verdicts hold with each net at its best, in sentences; none if nets are not tuned."""
    made, found = tried(results), compared(results)
    if not made:
        return []
    lines = []
    if found:
        same = sum(not one.changes for one in found)
        lines.append(
            f"With each net at its best ({_budget(made)}, chosen by validation accuracy), {same} of {len(found)} verdicts "
            "are the same as at common settings."
        )
    lines += [_change(one) for one in found if one.changes]
    lines += [
        f"{one.net} has no best settings: none of those tried was completed." for one in made if one.settings is None
    ]
    return lines


def _budget(made: list[Tried]) -> str:
    return f"each tried {max(one.number for one in made)} settings"


def _change(one: Compared) -> str:
    ends = " then ".join(
        f"{verdict_text(at)} ({points_text(at.mean) if at.mean else 'no pair'})" for at in (one.common, one.best)
    )
    return f"{one.name}: {ends.replace(' then ', ' at common settings, ')} with each net at its best."


def verdict_text(one: Comparison) -> str:
    """A verdict in a word or two."""
    if one.verdict == "within margin":
        assert one.margin is not None
        return f"costs less than {points_of(one.margin)}"
    return one.verdict

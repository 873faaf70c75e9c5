"""Nets each at its best: tuned separately with one budget on validation images, and compared as at common settings."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison, comparisons, in_families
from analysis.loading import Results, once
from analysis.nets import identified, nets, outcomes, table_nets
from analysis.questions import questions
from analysis.statistics.intervals import Interval, mean_interval
from analysis.tables.table import points_of, points_text
from study.names import TUNED


@dataclass(frozen=True)
class Compared:
    """A comparison at common settings and with each net at its best."""

    common: Comparison
    best: Comparison

    @property
    def name(self) -> str:
        """The question."""
        return self.common.question.name

    @property
    def changes(self) -> bool:
        """Whether the verdict is another one with each net at its best."""
        return self.common.verdict != self.best.verdict


@dataclass(frozen=True)
class Tried:
    """What a net was tuned with."""

    net: str
    number: int
    """Settings that it tried, at each seed."""
    different: int
    """Of these, how many make a difference to it: some settings concern other nets only."""
    failed: int
    """Trials that were not completed, of all seeds."""
    chosen: dict[str, dict[str, int]]
    """Number of seeds that chose each value of each key that makes a difference to the net, the most frequent first."""
    own_accuracy: Interval | None
    """Validation accuracy at the study's own settings, %, over seeds."""
    best_accuracy: Interval | None
    """The same at those chosen."""
    curve: list[float]
    """Expected best validation accuracy after 1, 2, ... different settings, %, mean over seeds; as long as all go."""

    @property
    def settings(self) -> str:
        """What was chosen: ``learning_rate 0.03 (4), 0.06 (1)``, with the number of seeds unless it is all of them."""
        words = [key.rpartition(".")[2] for key in self.chosen]
        texts = []
        for key, word, values in zip(self.chosen, words, self.chosen.values(), strict=True):
            counted = ", ".join(value if len(values) == 1 else f"{value} ({count})" for value, count in values.items())
            texts.append(f"{word if words.count(word) == 1 else key} {counted}")
        return "; ".join(texts)


def tuned_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Of cells with their outcomes those of the nets that are each at their best; a net is one, whatever was chosen."""
    best = cells[cells["ablation"] == TUNED]
    return identified(best.assign(point=None, tau=None, n_e=None, n_m=0, lambda_=None))


@once
def tried(results: Results) -> list[Tried]:
    """What each net was tuned with, in the order of the tables; none if nets are not tuned."""
    if results.tuning is None:
        return []
    return [_tried(str(net), rows) for net, rows in results.tuning.groupby("net", sort=False)]


def _tried(net: str, rows: pd.DataFrame) -> Tried:
    apart = rows.drop_duplicates("stage")
    complete = apart.dropna(subset="val_accuracy")
    chosen = rows[rows["chosen"] & rows["val_accuracy"].notna()]
    curves = [expected_best(own.tolist()) for _, own in complete.groupby("seed")["val_accuracy"]]
    return Tried(
        net=net,
        number=int(rows["candidate"].nunique()),
        different=int(apart.groupby("seed").size().max()),
        failed=len(apart) - len(complete),
        chosen=_chosen(rows, chosen),
        own_accuracy=mean_interval(rows.loc[rows["candidate"] == 0, "val_accuracy"].dropna().tolist()),
        best_accuracy=mean_interval(chosen["val_accuracy"].tolist()),
        curve=np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0).tolist() if curves else [],
    )


def _chosen(rows: pd.DataFrame, chosen: pd.DataFrame) -> dict[str, dict[str, int]]:
    """What the seeds chose, by key and value."""
    keys = [*_values(str(rows["settings"].iloc[0]))]
    counts = {key: Counter(_values(str(text))[key] for text in chosen["settings"]) for key in keys}
    return {key: dict(counts[key].most_common()) for key in keys if _matters(key, rows)}


def _matters(key: str, rows: pd.DataFrame) -> bool:
    """Whether settings that differ only in this key are different to the net; yes, if there are no such settings."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for seed, text, stage in zip(rows["seed"], rows["settings"], rows["stage"], strict=True):
        others = tuple(value for other, value in _values(str(text)).items() if other != key)
        alike.setdefault((seed, *others), []).append(str(stage))
    several = [stages for stages in alike.values() if len(stages) > 1]
    return not several or any(len({*stages}) > 1 for stages in several)


def _values(settings: str) -> dict[str, str]:
    """The values of settings that are written as ``key = value, key = value``."""
    parts = re.split(r"(?:^|, )([\w.]+) = ", settings)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


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
    cells = tuned_cells(outcomes(results))
    return in_families(questions(results, cells), results.facts.margin) if len(cells) else []


@once
def compared(results: Results) -> list[Compared]:
    """The comparisons that are known at common settings and with each net at its best."""
    at_best = {one.question.name: one for one in best_comparisons(results)}
    return [Compared(one, best) for one in comparisons(results) if (best := at_best.get(one.question.name)) is not None]


def accuracies(results: Results) -> dict[str, tuple[dict[int, float], dict[int, float]]]:
    """Test accuracy by seed of each net that is tuned, at common settings and at its best."""
    common = {net.name: net for net in table_nets(results)}
    best = {net.name: net for net in nets(tuned_cells(outcomes(results)))}
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
            f"With each net at its best (of {max(one.number for one in made)} settings, by validation accuracy), "
            f"{same} of {len(found)} verdicts are the same as at common settings."
        )
    lines += [_change(one) for one in found if one.changes]
    if lacking := sum(one.failed for one in made):
        lines.append(f"{lacking} trials of the tuning have no result, and took no part in the choice (tuning.parquet).")
    return lines


def _change(one: Compared) -> str:
    common, best = (
        f"{verdict_text(at)} ({points_text(at.mean) if at.mean else 'no pair'})" for at in (one.common, one.best)
    )
    return f"{one.name}: {common} at common settings, {best} with each net at its best."


def verdict_text(one: Comparison) -> str:
    """A verdict in a word or two."""
    if one.verdict == "within margin":
        assert one.margin is not None
        return f"costs less than {points_of(one.margin)}"
    return one.verdict

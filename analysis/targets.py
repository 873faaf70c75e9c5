"""A study on several targets: its results on each, and what follows from all of them together.

On each target, nets are compared by seed, and all these comparisons are corrected together. Over targets, a comparison
has one value per target, and the targets are the sample: what is shown is about targets like these.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.comparisons import Comparison, comparisons, corrected
from analysis.loading import Results, StudyError, facts_of, load_folder, readable
from analysis.nets import Net, place, table_nets
from analysis.statistics.intervals import Interval, mean_interval, over_seeds
from analysis.statistics.significance import ALPHA, holm_of_known
from study.facts import TargetsFacts
from study.files import Folder
from study.generations import RECORD, read_generation

MOST_EXACT = 12
"""Targets up to which Wilcoxon's test is made by enumerating all signs, ties and zeros included."""


class OverTargets(NamedTuple):
    """A comparison over the targets that have both nets."""

    name: str
    by_target: dict[str, Comparison]
    difference: Interval
    """Mean over targets of the mean difference on each, percentage points, with its t interval over targets."""
    error_change: Interval | None
    """Mean over targets of the relative change of test error, %; None if a baseline makes no error."""
    p: float | None
    """Of Wilcoxon's signed-rank test over targets; None with one target, or if all differences are zero."""
    p_holm: float | None
    """The same, corrected (Holm) for all comparisons over targets."""

    @property
    def verdict(self) -> Literal["better", "worse", "open"]:
        """What is shown over targets: ``better``, ``worse``, or ``open``."""
        if self.p_holm is None or self.p_holm >= ALPHA:
            return "open"
        return "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True)
class Targets:
    """A study on several targets."""

    folder: Folder
    facts: TargetsFacts
    by_target: dict[str, Results]

    @property
    def margin(self) -> float:
        """Percentage points that a pruned net may cost: the same for all targets."""
        return next(iter(self.by_target.values())).facts.margin

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """The comparisons on each target, with the claims of all targets corrected together."""
        found = {target: comparisons(results) for target, results in self.by_target.items()}
        together = iter(corrected([one for own in found.values() for one in own]))
        return {target: [next(together) for _ in own] for target, own in found.items()}

    @cached_property
    def over_targets(self) -> list[OverTargets]:
        """Each comparison over the targets that have it, in the order of the targets' own reports."""
        named: dict[str, dict[str, Comparison]] = {}
        for target, own in self.comparisons.items():
            for one in own:
                if one.mean is not None:
                    named.setdefault(one.question.name, {})[target] = one
        found = [_over_targets(name, by_target) for name, by_target in named.items()]
        adjusted = holm_of_known([one.p for one in found])
        return [one._replace(p_holm=p) for one, p in zip(found, adjusted, strict=True)]

    @cached_property
    def nets(self) -> dict[str, dict[str, Net]]:
        """The nets of the tables, by label and then target, in the order of the paper's tables."""
        found: dict[str, dict[str, Net]] = {}
        for target, results in self.by_target.items():
            for net in table_nets(results):
                found.setdefault(net.label, {})[target] = net
        first = {label: place(next(iter(own.values()))) for label, own in found.items()}
        return {label: found[label] for label in sorted(found, key=lambda label: first[label])}

    @cached_property
    def accuracies(self) -> pd.DataFrame:
        """Mean test accuracy in %: a row per net, a column per target; NaN if there is none."""
        rows = {
            label: {target: interval.mean for target, net in own.items() if (interval := over_seeds(net.accuracy))}
            for label, own in self.nets.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index", columns=[*self.by_target], dtype=float)

    @cached_property
    def ranks(self) -> dict[str, float]:
        """Mean rank over targets, 1 the best, ties shared, of the nets that every target has."""
        ranks = self.accuracies.dropna().rank(axis=0, ascending=False).mean(axis=1)
        return dict(zip(ranks.index.tolist(), ranks.tolist(), strict=True))

    @cached_property
    def p_friedman(self) -> float | None:
        """P of Friedman's test that these nets are alike (Demsar 2006); None with fewer than three nets."""
        known = self.accuracies.dropna()
        if len(known) < 3 or known.shape[1] < 2:
            return None
        p = float(stats.friedmanchisquare(*known.to_numpy()).pvalue)
        return p if np.isfinite(p) else None

    @property
    def targets_needed(self) -> int:
        """The fewest targets on which Wilcoxon's test, corrected for all comparisons, can show anything."""
        return ceil(log2(2 * max(1, len(self.over_targets)) / ALPHA) + 1e-9)


def _over_targets(name: str, by_target: dict[str, Comparison]) -> OverTargets:
    differences, changes = [], []
    for one in by_target.values():
        assert one.mean is not None
        differences.append(one.mean.mean)
        error = 100 - float(np.mean([one.question.baseline.accuracy[seed] for seed in one.differences]))
        changes.append(-100 * one.mean.mean / error if error else np.nan)
    interval = mean_interval(differences)
    assert interval is not None
    change = None if np.isnan(changes).any() else mean_interval(changes)
    return OverTargets(name, by_target, interval, change, wilcoxon_p(differences), None)


def wilcoxon_p(differences: list[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test that differences are symmetric about zero (Wilcoxon 1945).

    Exact up to :data:`MOST_EXACT` differences. None with one, or if all are zero.
    """
    if len(differences) < 2 or not any(differences):
        return None
    if len(differences) <= MOST_EXACT:
        every_sign = stats.PermutationMethod(n_resamples=2**MOST_EXACT)
        return float(stats.wilcoxon(differences, method=every_sign).pvalue)
    return float(stats.wilcoxon(differences).pvalue)


def is_on_targets(path: str | Path) -> bool:
    """Whether the folder is that of a study on several targets."""
    with readable():
        record = Folder(str(path)).read(RECORD)
    try:
        return "targets" in json.loads(record or b"{}")
    except (ValueError, TypeError):
        return False


def load_targets(path: str | Path) -> Targets:
    """Read the folder of a study on several targets, by its path or URI.

    Raises:
        StudyError: something is not there or not readable, or the tables of its targets are not of one run.
    """
    with readable():
        folder = Folder(str(path))
        facts = facts_of(folder, read_generation(folder, []), TargetsFacts)
        by_target = {}
        for target, checksum in facts.targets.items():
            own = folder.within(target)
            by_target[target] = load_folder(own)
            if hashlib.sha256(own.read(RECORD) or b"").hexdigest() != checksum:
                raise StudyError(
                    f"{own.at()} was written by another run than {folder.at(RECORD)}: run the study's command again"
                )
    return Targets(folder, facts, by_target)

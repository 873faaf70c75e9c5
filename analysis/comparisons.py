"""The paper's questions as comparisons of two nets, paired by seed, and what is known of each."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.loading import Results, once
from analysis.nets import off_axis, outcomes
from analysis.questions import CONTROL, MAIN, Question, questions
from analysis.statistics.effects import cohens_dz, probability_of_improvement, standard_deviation
from analysis.statistics.intervals import (
    LEVEL,
    Bounds,
    Interval,
    differences,
    mean_interval,
)
from analysis.statistics.moderation import moderated_differences
from analysis.statistics.power import detectable, deviation_range, seeds_needed
from analysis.statistics.sequential import sequential_interval, sequential_p
from analysis.statistics.significance import ALPHA, holm_of_known, p_value, sign_flip
from study.facts import SequentialDesign

Verdict = Literal["better", "worse", "within margin", "negligible", "open"]


class Seeds(NamedTuple):
    """A number of seeds and the ends of its range; None stands for more than anybody trains."""

    number: int | None
    least: int | None
    most: int | None


@dataclass(frozen=True)
class Comparison:
    """A study's answer to a question, in percentage points of test accuracy; all differences are paired by seed."""

    question: Question
    differences: dict[int, float]
    p_holm: float | None = None
    """p after Holm's correction over the family."""
    family: int = 0
    """Claims that the correction is over: of differences, and of pruned nets that cost no more than the margin."""
    variance: float | None = None
    """Of the differences, own or moderated; None with one pair, and if seeds were added while looking."""
    freedom: float = 0.0
    """Degrees of freedom of the variance."""
    moderated: bool = False
    """Whether the study's other comparisons take part in the variance."""
    reason: str = ""
    """Which variances the comparisons have, and why, in a sentence."""
    margin: float | None = None
    """Percentage points that the net may lose; None if that is not asked."""
    p_margin_holm: float | None = None
    """p, corrected in the same family, of the claim that it loses less than the margin."""
    level: float = LEVEL
    """Of the interval of the mean."""
    design: SequentialDesign | None = None
    """How seeds were added while looking; None if their number was fixed."""

    @cached_property
    def values(self) -> list[float]:
        """The differences in the order of their seeds."""
        return list(self.differences.values())

    @property
    def pairs(self) -> int:
        """Seeds that both nets have."""
        return len(self.values)

    @cached_property
    def mean(self) -> Interval | None:
        """Mean difference with its t interval or, if seeds were added, the sequential one; None without a pair."""
        if self.design is not None:
            return sequential_interval(self.values, self.level)
        if self.variance is None or not self.moderated:
            return mean_interval(self.values, self.level)
        half = stdtrit(self.freedom, (1 + self.level) / 2) * self._error
        return Interval(float(np.mean(self.values)), float(half), self.pairs)

    @property
    def _error(self) -> float:
        """Standard error of the mean difference."""
        assert self.variance is not None
        return sqrt(self.variance / self.pairs)

    @cached_property
    def p(self) -> float | None:
        """The p of this comparison, not corrected."""
        if self.design is not None:
            return sequential_p(self.values)
        if not self.moderated or not self.variance:
            return self.p_own
        return float(2 * stdtr(self.freedom, -abs(np.mean(self.values)) / self._error))

    @cached_property
    def p_own(self) -> float | None:
        """The p of the paired t test by this comparison's own variance; None if seeds were added while looking."""
        return p_value(self.values) if self.design is None else None

    @cached_property
    def p_margin(self) -> float | None:
        """The p, uncorrected, of the claim that the net loses less than the margin (Schuirmann 1987)."""
        if self.margin is None or not self.variance:
            return None
        return float(stdtr(self.freedom, -(np.mean(self.values) + self.margin) / self._error))

    @cached_property
    def p_sign_flip(self) -> float | None:
        """The p of the sign-flip test, which decides nothing."""
        return sign_flip(self.values)

    @property
    def effect(self) -> float | None:
        """Cohen's d_z."""
        return cohens_dz(self.values)

    @property
    def improvement(self) -> Bounds | None:
        """Probability of improvement, 0 to 1."""
        return probability_of_improvement(self.values)

    @property
    def strict_alpha(self) -> float:
        """The strictest level that Holm's correction can ask of a comparison: what its power is honest at."""
        return ALPHA / max(1, self.family)

    def detectable(self, alpha: float) -> float | None:
        """The smallest difference that these pairs show four times of five, in percentage points.

        None if there is no spread to go by, or if seeds were added while looking: then more could have been.
        """
        if not self.variance:
            return None
        return detectable(sqrt(self.variance), self.pairs, alpha, others=self.freedom - (self.pairs - 1))

    def seeds_needed(self, points: float, alpha: float) -> Seeds | None:
        """Seeds that would show a difference of ``points`` in four of five studies; None if that is unknown.

        The spread is that of this study, with the range that follows from its own uncertainty.
        """
        if not self.variance:
            return None
        deviation = sqrt(self.variance)
        ends = deviation_range(deviation, self.freedom)
        return Seeds(*(seeds_needed(points / one, alpha) for one in (deviation, *ends)))

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: p after Holm below 0.05, and the interval leaves out zero."""
        return self.p_holm is not None and self.p_holm < ALPHA and self.mean is not None and self.mean.excludes_zero

    @property
    def within_margin(self) -> bool:
        """Whether it is shown that the net loses less than the margin."""
        return self.p_margin_holm is not None and self.p_margin_holm < ALPHA

    @property
    def negligible(self) -> bool:
        """Whether seeds were added until the difference was known to be none that matters."""
        if self.design is None or self.mean is None or self.mean.low is None or self.mean.high is None:
            return False
        return -self.design.negligible < self.mean.low and self.mean.high < self.design.negligible

    @property
    def verdict(self) -> Verdict:
        """What is shown, in a word."""
        if self.shown:
            assert self.mean is not None
            return "better" if self.mean.mean > 0 else "worse"
        return "within margin" if self.within_margin else "negligible" if self.negligible else "open"

    @property
    def settled(self) -> bool:
        """Whether more seeds are not needed."""
        return self.shown or self.negligible


@once
def comparisons(results: Results) -> list[Comparison]:
    """The study's questions answered; claims about the nets are one family, controls, which say why, another.

    Where seeds were added until the main comparisons were settled, these are a family of their own, too, and their
    intervals hold jointly (Bonferroni): claims of difference and of no difference are read from the same intervals.
    """
    asked = questions(results, off_axis(outcomes(results)))
    design = results.facts.sequential
    if design is None:
        return in_families(asked, results.facts.margin)
    main = [question for question in asked if question.kind == MAIN]
    level = 1 - ALPHA / max(1, len(main))
    others = [one for one in asked if one.kind not in (MAIN, CONTROL)]
    controls = [one for one in asked if one.kind == CONTROL]
    return _ordered(family(main, design, level) + family(others, design) + family(controls, design), asked)


def in_families(asked: list[Question], margin: float) -> list[Comparison]:
    """Comparisons whose variances are estimated together, and corrected by family: claims about nets, and controls."""
    found = _with_variances(_uncorrected(asked, margin=margin))
    controls = [one for one in found if one.question.kind == CONTROL]
    claims = [one for one in found if one.question.kind != CONTROL]
    return _ordered(corrected(claims) + corrected(controls), asked)


def _ordered(found: list[Comparison], asked: list[Question]) -> list[Comparison]:
    by_name = {one.question.name: one for one in found}
    return [by_name[question.name] for question in asked]


def family(
    asked: list[Question], design: SequentialDesign | None = None, level: float = LEVEL, margin: float | None = None
) -> list[Comparison]:
    """The comparisons, their claims corrected together; pruned nets are asked, too, whether they cost no more."""
    return judged(_uncorrected(asked, design, level, margin), design)


def _uncorrected(
    asked: list[Question], design: SequentialDesign | None = None, level: float = LEVEL, margin: float | None = None
) -> list[Comparison]:
    return [
        Comparison(
            question,
            differences(question.net.accuracy, question.baseline.accuracy),
            margin=margin if question.kind == "pruning" else None,
            level=level,
            design=design,
        )
        for question in asked
    ]


def judged(found: list[Comparison], design: SequentialDesign | None) -> list[Comparison]:
    """Comparisons with the variances that decide them, as one family; or by the design that seeds were added by."""
    if design is not None:
        return corrected([replace(one, design=design) for one in found])
    return corrected(_with_variances(found))


def corrected(found: list[Comparison]) -> list[Comparison]:
    """The comparisons, their claims corrected together (Holm): of difference, and of a cost below the margin."""
    adjusted = holm_of_known([p for one in found for p in (one.p, one.p_margin)])
    family = sum(p is not None for p in adjusted)
    return [
        replace(one, p_holm=p_holm, p_margin_holm=p_margin_holm, family=family)
        for one, p_holm, p_margin_holm in zip(found, adjusted[::2], adjusted[1::2], strict=True)
    ]


def _with_variances(found: list[Comparison]) -> list[Comparison]:
    """The same comparisons with the variances that decide them."""
    several = [one for one in found if one.pairs > 1]
    if not several:
        return found
    own = [(standard_deviation(one.values) or 0.0) ** 2 for one in several]
    variances = moderated_differences(own, [one.pairs for one in several])
    known = zip(variances.values.tolist(), variances.freedom.tolist(), variances.moderated.tolist(), strict=True)
    return [_with_variance(one, *next(known), variances.reason) if one.pairs > 1 else one for one in found]


def _with_variance(one: Comparison, variance: float, freedom: float, moderated: bool, reason: str) -> Comparison:
    return replace(one, variance=variance, freedom=freedom, moderated=moderated, reason=reason)


def families(found: list[Comparison]) -> str:
    """How many claims are corrected together, as text."""
    claims = next((one.family for one in found if one.question.kind != CONTROL), 0)
    controls = next((one.family for one in found if one.question.kind == CONTROL), 0)
    if not controls or not claims:
        return f"{claims or controls} claims"
    return f"{claims} claims about nets and, apart from them, the {controls} of controls"


def main_comparisons(results: Results) -> list[Comparison]:
    """Those of the comparisons that seeds are added for: S and K, alone and together."""
    return [one for one in comparisons(results) if one.question.kind == MAIN]


def pairs(results: Results) -> pd.DataFrame:
    """A tidy table of the comparisons: a row for each comparison and seed that both nets have.

    Columns: ``comparison``, ``kind``, ``net``, ``minus``, ``stream``, ``seed``; ``accuracy`` and ``minus_accuracy``
    (test accuracy, %) and ``difference`` (percentage points).
    """
    names = ["comparison", "kind", "net", "minus", "stream", "seed", "accuracy", "minus_accuracy", "difference"]
    rows = [
        (
            *(one.question.name, one.question.kind, one.question.net.label, one.question.baseline.label),
            *(one.question.net.stream, seed),
            *(one.question.net.accuracy[seed], one.question.baseline.accuracy[seed], difference),
        )
        for one in comparisons(results)
        for seed, difference in one.differences.items()
    ]
    return pd.DataFrame(rows, columns=names)

"""The paper's questions as comparisons of two nets, paired by seed, and what is known of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from analysis.loading import Results, once
from analysis.nets import Net, in_table, nets, off_axis, outcomes, plain
from analysis.published import CONNECTIONS, FUSED, HYBRID, KNOWLEDGE_ONLY, NEURONS, PROBE, SPARSE_ONLY, STANDARD
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
from analysis.streams import better_stream, stream_rows
from study.facts import SequentialDesign

Kind = Literal["part", "pruning", "control", "probe", "fusion", "further", "between"]
Verdict = Literal["better", "worse", "within margin", "negligible", "open"]
MAIN: Kind = "part"
"""The paper's claim, S and K, alone and together: what seeds are added for until it is settled."""
KNOWLEDGE = "Knowledge (K)"


@dataclass(frozen=True)
class Question:
    """One question of the paper: does ``net`` do better than ``baseline``?

    ``subject`` is what the question is about, as a sentence begins with it; ``than`` is what it is compared with where
    that is not understood.
    """

    kind: Kind
    subject: str
    net: Net
    baseline: Net
    than: str = ""

    @property
    def name(self) -> str:
        """The question on one line; no other question of the study has this name."""
        subject = f"{self.subject} against {self.than}" if self.than else self.subject
        return f"{subject}, {self.net.stream}" if self.net.stream and self.kind != "fusion" else subject


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
    """Of the differences, own or moderated; None with one pair, and where seeds were added while looking."""
    freedom: float = 0.0
    """Degrees of freedom of the variance."""
    moderated: bool = False
    """Whether the study's other comparisons take part in the variance."""
    reason: str = ""
    """Which variances the comparisons have, and why, in a sentence."""
    margin: float | None = None
    """Percentage points that the net may lose; None where that is not asked."""
    p_margin_holm: float | None = None
    """p, corrected in the same family, of the claim that it loses less than the margin."""
    level: float = LEVEL
    """Of the interval of the mean."""
    design: SequentialDesign | None = None
    """How seeds were added while looking; None where their number was fixed."""

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
        """Mean difference with its t interval or, where seeds were added, the sequential one; None without a pair."""
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
        """The p of the paired t test by this comparison's own variance; None where seeds were added while looking."""
        return p_value(self.values) if self.design is None else None

    @cached_property
    def p_margin(self) -> float | None:
        """The p, alone, of the claim that the net loses less than the margin (Schuirmann 1987)."""
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
        """The least difference that these pairs show four times of five, in percentage points.

        None where there is no spread to go by, and where seeds were added while looking: then more could have been.
        """
        if not self.variance:
            return None
        return detectable(sqrt(self.variance), self.pairs, alpha, others=self.freedom - (self.pairs - 1))

    def seeds_needed(self, points: float, alpha: float) -> Seeds | None:
        """Seeds that would show a difference of ``points`` in four of five studies; None if that is unknown.

        The spread is that of this study, with the range that its own uncertainty gives.
        """
        if not self.variance:
            return None
        deviation = sqrt(self.variance)
        ends = deviation_range(deviation, self.freedom)
        return Seeds(*(seeds_needed(points / one, alpha) for one in (deviation, *ends)))

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: p after Holm below 0.05, and the interval leaves out zero."""
        if self.p_holm is None or self.mean is None or self.mean.low is None or self.mean.high is None:
            return False
        return self.p_holm < ALPHA and not self.mean.low <= 0 <= self.mean.high

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
    """The study's questions answered; their family is all of them that have two pairs or more.

    Where seeds were added until the main comparisons were settled, these are a family of their own, and their intervals
    hold jointly (Bonferroni): claims of difference and of no difference are read from the same intervals.
    """
    asked = questions(results, off_axis(outcomes(results)))
    design = results.facts.sequential
    if design is None:
        return family(asked, margin=results.facts.margin)
    main = [question for question in asked if question.kind == MAIN]
    level = 1 - ALPHA / max(1, len(main))
    judged = family(main, design, level) + family([one for one in asked if one.kind != MAIN], design)
    by_name = {one.question.name: one for one in judged}
    return [by_name[question.name] for question in asked]


def family(
    asked: list[Question], design: SequentialDesign | None = None, level: float = LEVEL, margin: float | None = None
) -> list[Comparison]:
    """The comparisons, their claims corrected together; pruned nets are asked, too, whether they cost no more."""
    found = [
        Comparison(
            question,
            differences(question.net.accuracy, question.baseline.accuracy),
            margin=margin if question.kind == "pruning" else None,
            level=level,
            design=design,
        )
        for question in asked
    ]
    return judged(found, design)


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


def questions(results: Results, cells: pd.DataFrame) -> list[Question]:
    """The paper's questions that the study has both nets for: the parts, pruning, the controls, then fusion."""
    found: list[Question] = []
    for stream in ["", *results.streams]:
        found += [*_parts(cells, stream), *_pruning(cells, stream)]
    found += [*_probes(cells)]
    found += [*_controls(results, cells), *_fusion(results, cells)]
    return [question for question in found if question.net.stages != question.baseline.stages]


def _parts(cells: pd.DataFrame, stream: str) -> Iterator[Question]:
    standard = plain(cells, STANDARD, stream)
    parts = {"Sparsity (S)": SPARSE_ONLY, KNOWLEDGE: KNOWLEDGE_ONLY, "Sparsity with knowledge (S and K)": HYBRID}
    for subject, name in parts.items():
        net = plain(cells, name, stream)
        if net and standard:
            yield Question("part", subject, net, standard)


def _pruning(cells: pd.DataFrame, stream: str) -> Iterator[Question]:
    """The named nets of Tables 3 and 4; the other points of Figure 3 would only dilute the family."""
    standard = plain(cells, STANDARD, stream)
    named = in_table(cells[cells["stream"] == stream], "table3", "table4")
    for net in nets(named) if standard else []:
        if standard and net.name.startswith((CONNECTIONS, NEURONS)):
            yield Question("pruning", net.variant, net, standard, STANDARD)


def _controls(results: Results, cells: pd.DataFrame) -> Iterator[Question]:
    """What a part is compared with that has all of it but the point: knowledge of another image, random masks."""
    shuffled, random = {"knowledge": "shuffled"}, {"sparsity": "random"}
    own, other = "The image's own knowledge", "that of another image"
    chosen, masks = "Pruning by magnitude", "random masks"
    asked = (
        (own, f"{other} (without S)", KNOWLEDGE_ONLY, shuffled),
        (own, f"{other} (with S)", HYBRID, shuffled),
        (chosen, f"{masks} (without K)", SPARSE_ONLY, random),
        (chosen, f"{masks} (with K)", HYBRID, random),
    )
    for subject, than, name, change in asked:
        net = plain(cells, name)
        if net and (control := _control(cells, net, change)):
            yield Question("control", subject, net, control, than)
    # Elsewhere these would only dilute the family: what K owes to its images is asked above.
    plain_nets = (("none (without S)", STANDARD), ("none (with S)", SPARSE_ONLY))
    for than, name in plain_nets if results.facts.control_study else ():
        net = plain(cells, name)
        if net and (control := _control(cells, net, shuffled)):
            yield Question("control", "Knowledge of another image", control, net, than)


def _probes(cells: pd.DataFrame) -> Iterator[Question]:
    """What fine-tuning adds to the features, and what pruning takes from them."""
    probe, standard = plain(cells, PROBE), plain(cells, STANDARD)
    if probe and standard:
        yield Question("probe", "Fine-tuning", standard, probe, "a linear probe")
    sparse = plain(cells, f"{PROBE}(S+)")
    random = next(iter(nets(cells[cells["net"] == f"{PROBE}(S random)"])), None)
    if probe and sparse:
        yield Question("probe", "Features of the Sparse-SourceNet", sparse, probe, "the reference's (linear probes)")
    if sparse and random:
        yield Question("probe", "Features of the Sparse-SourceNet", sparse, random, "random masks' (linear probes)")


def _control(cells: pd.DataFrame, net: Net, change: dict[str, str]) -> Net | None:
    """The control that differs from a transfer net in only one of its parts."""
    wanted = {key: str(net.cells[key].iloc[0]) for key in ("sparsity", "knowledge")} | change
    same = in_table(cells[cells["stream"] == net.stream], "controls")
    for key, value in wanted.items():
        same = same[same[key] == value]
    found = nets(same)
    return found[0] if found else None


def _fusion(results: Results, cells: pd.DataFrame) -> Iterator[Question]:
    for name, row in stream_rows(results, cells).items():
        better, fused = better_stream(row, results), row.get(FUSED)
        if better and fused:
            yield Question(
                "fusion", f"Fusing the streams of {name}", fused, better, f"its {better.stream} stream alone"
            )

"""Variances of few runs, moderated by those of the other arms; unpaired and paired comparisons with them.

With three runs, an arm's own variance has two degrees of freedom, and after a correction for many comparisons Welch's t
test can show next to nothing. The other arms of the data set were trained alike and tell what spread to expect: each
variance is drawn towards theirs, and counts as more degrees of freedom (empirical Bayes: Smyth 2004, "Linear models and
empirical Bayes methods for assessing differential expression").

Where arms truly differ in spread, that claims falsely: with standard deviations of 3 to 1 in a fifth to a third of all
studies. So it is bounded here in three ways, which hold the share of studies with a false claim below 5 % in all cases
that were simulated (``python -m benchmarks.moderation``):

- the others never weigh more than the arm's own runs, whatever the fit;
- how much they differ is taken at the upper end of its interval, so that the fit errs towards weighing them less;
- where a test finds that they differ (Bartlett 1937, at 0.001), in a data set or in all together, nothing is moderated.

A study's own comparisons are paired by seed, few, and share nets. Their variances, those of the differences, are drawn
towards their mean, not their geometric mean: it is the larger one where they differ, which errs towards claiming less.
All others together never weigh more than two more seeds, nor more than the own ones.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from analysis.statistics.intervals import FloatArray

DIFFER = 0.001
"""Level at which arms count as different in spread."""
UPPER = 1.645
"""Standard errors above the estimate of how much variances differ: the end of a one-sided 95 % interval."""
LEAST_ARMS = 6
"""With fewer arms in a data set, theirs tell too little."""


FEW = 5
"""Seeds up to which paired comparisons are moderated: with more, each tells enough by itself."""
MOST_SEEDS_OF_OTHERS = 2.0
"""Degrees of freedom that the other comparisons are worth at most."""


@dataclass(frozen=True)
class Variances:
    """An estimate for each arm."""

    values: FloatArray
    runs: FloatArray
    freedom: FloatArray
    """Degrees of freedom that each counts as."""
    most: FloatArray
    """Degrees of freedom of all arms of its data set together, which no comparison can exceed."""
    moderated: npt.NDArray[np.bool_]
    """Whether the other arms of its data set take part in it."""
    reason: str
    """Which variances these are, and why, in a sentence."""

    def unpaired(
        self, means: FloatArray, arms: npt.NDArray[np.int64], baselines: npt.NDArray[np.int64]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Two-sided p, standard error and degrees of freedom of differences of two arms' means (Welch 1947).

        Args:
            means: of all arms.
            arms: numbers of those that are compared.
            baselines: what each is compared with, of the same data set.
        """
        parts = [self.values[side] / self.runs[side] for side in (arms, baselines)]
        spread = parts[0] + parts[1]
        counted = [part**2 / self.freedom[side] for part, side in zip(parts, (arms, baselines), strict=True)]
        freedom = np.minimum(spread**2 / (counted[0] + counted[1]), self.most[arms])
        error = np.sqrt(spread)
        p = 2 * stats.t.sf(np.abs(means[arms] - means[baselines]) / error, freedom)
        return np.asarray(p, dtype=float), error, freedom


def own_variances(values: npt.ArrayLike, runs: npt.ArrayLike) -> Variances:
    """Each arm's own sample variance, as Welch's t test takes it."""
    variance, count = np.asarray(values, dtype=float), np.asarray(runs, dtype=float)
    none, unbounded = np.zeros(len(variance), dtype=bool), np.full(len(variance), np.inf)
    return Variances(variance, count, count - 1, unbounded, none, "Each arm has its own variance.")


def moderated_variances(values: npt.ArrayLike, runs: npt.ArrayLike, data_sets: npt.ArrayLike) -> Variances:
    """The variance of each arm, moderated by the arms of its data set as far as that is safe.

    Args:
        values: sample variance of each arm.
        runs: number of runs of each arm, at least 2.
        data_sets: what each arm was measured on.
    """
    own = own_variances(values, runs)
    variance, freedom, place = own.values, own.freedom, np.asarray(data_sets)
    usable = (variance > 0) & (freedom >= 1)
    groups = [usable & (place == name) for name in np.unique(place)]
    groups = [group for group in groups if group.sum() >= LEAST_ARMS]
    if not groups:
        why = f"no data set has {LEAST_ARMS} arms or more whose runs differ"
        return replace(own, reason=f"Each arm has its own variance, for {why}.")
    alike = [_bartlett(variance[group], freedom[group]) for group in groups]
    together = float(stats.combine_pvalues(np.maximum(alike, 1e-300)).pvalue)
    if together < DIFFER:
        why = f"the arms differ in spread (Bartlett's test, p = {together:.1g})"
        return replace(own, reason=f"Each arm has its own variance, for {why}.")
    prior = _prior_freedom(variance, freedom, groups)
    new, counted, most = variance.copy(), freedom.copy(), own.most.copy()
    moderated = np.zeros(len(variance), dtype=bool)
    for group, p in zip(groups, alike, strict=True):
        if p < DIFFER:
            continue
        members = (place == place[group][0]) & (freedom >= 1)
        # Never more weight than the arm's own runs.
        weight = np.minimum(prior, freedom[members])
        centre = _centre(variance[group], freedom[group], float(weight.max()))
        new[members] = (weight * centre + freedom[members] * variance[members]) / (weight + freedom[members])
        counted[members] += weight
        most[members] = freedom[members].sum()
        moderated |= members
    kept = sum(p < DIFFER for p in alike)
    but = f", but for {kept} data sets whose arms differ in spread" if kept else ""
    reason = (
        "Variances are moderated: each arm's own is drawn halfway, at most, towards that of the other arms of its data "
        f"set, as these do not differ in spread (Bartlett's test, p = {together:.2g}){but}."
    )
    return Variances(new, own.runs, counted, most, moderated, reason)


def moderated_differences(values: npt.ArrayLike, pairs: npt.ArrayLike) -> Variances:
    """The variance of each paired comparison's differences, moderated by a study's other comparisons.

    Args:
        values: sample variance of each comparison's differences.
        pairs: number of its pairs, at least 2.
    """
    own = own_variances(values, pairs)
    variance, freedom = own.values, own.freedom
    few = freedom < FEW
    usable = few & (variance > 0)
    if usable.sum() < LEAST_ARMS:
        why = "there are seeds enough" if not few.any() else f"fewer than {LEAST_ARMS} comparisons have some spread"
        return replace(own, reason=f"Each comparison has its own variance: {why}.")
    p = _bartlett(variance[usable], freedom[usable])
    if p < DIFFER:
        why = f"they differ in spread (Bartlett's test, p = {p:.1g})"
        return replace(own, reason=f"Each comparison has its own variance: {why}.")
    pooled = (freedom * variance)[usable].sum() / freedom[usable].sum()
    prior = _prior_freedom(variance, freedom, [usable])
    weight = np.where(few, np.minimum(np.minimum(prior, MOST_SEEDS_OF_OTHERS), freedom), 0.0)
    reason = (
        "Variances are moderated (Smyth 2004): that of each comparison's differences is drawn halfway, at most, "
        f"towards the mean of all, as they do not differ in spread (Bartlett's test, p = {p:.2g})."
    )
    moderated = (weight * pooled + freedom * variance) / (weight + freedom)
    return replace(own, values=moderated, freedom=freedom + weight, moderated=few, reason=reason)


def _bartlett(variance: FloatArray, freedom: FloatArray) -> float:
    """P of Bartlett's test that all arms have one variance, from sample variances."""
    total, arms = freedom.sum(), len(variance)
    pooled = (freedom * variance).sum() / total
    statistic = total * np.log(pooled) - (freedom * np.log(variance)).sum()
    correction = 1 + ((1 / freedom).sum() - 1 / total) / (3 * (arms - 1))
    return float(stats.chi2.sf(statistic / correction, arms - 1))


def _log_variances(variance: FloatArray, freedom: FloatArray) -> FloatArray:
    """Logarithms of the variances, freed of the bias that comes from few runs (Smyth 2004, section 6.2)."""
    return np.asarray(np.log(variance) - digamma(freedom / 2) + np.log(freedom / 2), dtype=float)


def _prior_freedom(variance: FloatArray, freedom: FloatArray, groups: list[npt.NDArray[np.bool_]]) -> float:
    """Degrees of freedom that the other arms are worth: few where variances differ by more than their runs explain."""
    logs = [_log_variances(variance[group], freedom[group]) for group in groups]
    squares = np.concatenate([(own - own.mean()) ** 2 * len(own) / (len(own) - 1) for own in logs])
    by_chance = np.concatenate([polygamma(1, freedom[group] / 2) for group in groups])
    excess = float((squares - by_chance).mean())
    upper = excess + UPPER * float(squares.std(ddof=1)) / np.sqrt(len(squares))
    if upper <= polygamma(1, 1e6):
        return np.inf
    return 2 * float(brentq(lambda half: polygamma(1, half) - upper, 1e-6, 1e6))


def _centre(variance: FloatArray, freedom: FloatArray, prior: float) -> float:
    """The variance that is expected of an arm of a data set."""
    centre = _log_variances(variance, freedom).mean()
    return float(np.exp(centre + digamma(prior / 2) - np.log(prior / 2)))

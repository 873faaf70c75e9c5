"""Means over seeds with their intervals. Pairs of one seed, so paired differences.

What is made of paired differences is in its neighbours: ``effects`` (how large), ``significance`` (whether shown) and
``power`` (what could have been shown).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` seeds and the half-width of its interval; one seed has none."""

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end, or None with one seed."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end, or None with one seed."""
        return None if self.half is None else self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval leaves out zero; one seed has none that could."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Bounds:
    """An estimate and the ends of its interval, which need not lie at the same distance; one seed has none."""

    value: float
    low: float | None
    high: float | None


def wilson(share: float, n: int, level: float = LEVEL) -> Bounds:
    """A share of ``n`` and its score interval, 0 to 1, which also holds if all agree.

    Wilson, JASA 22 (1927); Brown, Cai and DasGupta, "Interval estimation for a binomial proportion", Statistical
    Science 16 (2001).
    """
    z2 = float(ndtri((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Bounds(share, max(0.0, centre - half), min(1.0, centre + half))


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Mean and Student-t interval of a normal sample with unknown variance; None for no values.

    ``mean ± t(1 - alpha / 2, n - 1) * s / sqrt(n)``, s the sample standard deviation with n - 1: Student, "The
    probable error of a mean", Biometrika 6 (1908); NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.2.
    """
    sample = np.asarray(values, dtype=float)
    n = len(sample)
    if n == 0:
        return None
    if n == 1:
        return Interval(float(sample[0]), None, 1)
    quantile = float(stdtrit(n - 1, (1 + level) / 2))
    return Interval(float(sample.mean()), quantile * float(sample.std(ddof=1)) / sqrt(n), n)


def over_seeds(values: Mapping[int, float]) -> Interval | None:
    """:func:`mean_interval` of values by seed."""
    return mean_interval([values[seed] for seed in sorted(values)])


def differences(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    """``values[seed] - baseline[seed]`` of the seeds that both have, in their order."""
    return {seed: values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())}


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Interval | None:
    """Mean of ``values[seed] - baseline[seed]`` over the seeds that both have, with its t interval; None for no pair.

    The interval of the one-sample t test on the differences: NIST/SEMATECH e-Handbook, 7.3.1.1 (analysis of paired
    observations). What a seed does to both nets cancels, so it is narrower than the two nets' own intervals suggest.
    """
    return over_seeds(differences(values, baseline))

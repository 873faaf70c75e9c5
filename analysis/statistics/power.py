"""What a study of N seeds could have shown, and how many seeds would show it: the power of the paired t test.

The power is that of Cohen, "Statistical power analysis for the behavioral sciences" (1988), chapter 2: with d_z
standard deviations between the nets of a pair, the t of n pairs has the noncentral t distribution with n - 1 degrees
of freedom and noncentrality ``d_z * sqrt(n)`` (Johnson, Kotz and Balakrishnan, "Continuous univariate distributions" 2
(1995), chapter 31). The standard deviation is the one observed: with few seeds it is itself known badly (3 seeds:
within a factor of 0.5 to 6), and with it all that follows.
"""

from math import sqrt

from scipy import stats
from scipy.optimize import brentq

from analysis.statistics.intervals import LEVEL
from analysis.statistics.significance import ALPHA

POWER = 0.8
"""Cohen's convention: four of five such studies would show the effect."""
MOST_SEEDS = 10_000


def power(effect: float, n: int, alpha: float = ALPHA, others: float = 0.0) -> float:
    """Chance that a two-sided paired t test of ``n`` pairs shows an effect of ``effect`` standard deviations (d_z).

    ``others`` are the degrees of freedom that other comparisons add, if variances are moderated by theirs.
    """
    freedom = n - 1 + others
    critical, shift = stats.t.isf(alpha / 2, freedom), effect * sqrt(n)
    # The lower tail by symmetry: the distribution function of the noncentral t loses its digits there.
    return float(stats.nct.sf(critical, freedom, shift) + stats.nct.sf(critical, freedom, -shift))


def detectable(deviation: float, n: int, alpha: float = ALPHA, wanted: float = POWER, others: float = 0.0) -> float:
    """The smallest difference that ``n`` pairs show with the power wanted, in the unit of ``deviation``.

    Args:
        deviation: standard deviation of the paired differences, in percentage points.
        n: pairs, two or more.
        alpha: level of the test.
        wanted: power, between alpha and 1.
        others: degrees of freedom that other comparisons add.
    """
    critical = stats.t.isf(alpha / 2, n - 1 + others)
    shift = brentq(lambda shift: power(shift / sqrt(n), n, alpha, others) - wanted, 0.0, 20 + 20 * critical)
    return deviation * float(shift) / sqrt(n)


def seeds_needed(effect: float, alpha: float = ALPHA, wanted: float = POWER) -> int | None:
    """The smallest number of pairs that shows an effect of d_z with the power wanted; None above :data:`MOST_SEEDS`.

    It takes the standard deviation at its word, which with few seeds is a guess: see :func:`deviation_range`.
    """
    effect = abs(effect)
    if power(effect, MOST_SEEDS, alpha) < wanted:
        return None
    low, high = 1, 2
    while power(effect, high, alpha) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, middle, alpha) < wanted else (low, middle)
    return high


def deviation_range(deviation: float, freedom: float, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a normal sample's standard deviation (chi-squared), in its own unit."""
    ends = [stats.chi2.ppf((1 + side * level) / 2, freedom) for side in (1, -1)]
    return deviation * sqrt(freedom / ends[0]), deviation * sqrt(freedom / ends[1])

"""Seeds added until a comparison is settled: a t test and an interval that hold however often one looks.

Who adds seeds until an ordinary 95 % interval leaves out zero is wrong far more often than in 5 % of the studies:
every look is another chance. Here the evidence against "no difference" is the Bayes factor of the t test with a normal
prior of the effect size, ``d_z ~ N(0, g)`` (Gönen, Johnson, Lu and Westfall, "The Bayesian two-sample t test", The
American Statistician 59 (2005))::

    B(n) = (1 + n g)^(-1/2) * ((1 + t^2 / (n - 1)) / (1 + t^2 / ((n - 1) (1 + n g))))^(n / 2)

Without a difference B(1) = 1, B(2), ... is a nonnegative martingale, whatever the standard deviation, as it depends on
the differences only through t (Lai, "On confidence sequences", Annals of Statistics 4 (1976); Pérez-Ortiz, Lardy, de
Heide and Grünwald, "E-statistics, group invariance and anytime-valid testing", Annals of Statistics 52 (2024)). So, by
Ville's inequality, it ever reaches ``1 / alpha`` in at most a share alpha of studies: however many seeds are added, for
whatever reason one stops, and even if one continues. The means that it does not speak against form an interval that
is right at all numbers of seeds at once (Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for Gaussian
means with unknown variance", Sequential Analysis 44 (2025); Lindon et al., "Anytime-valid linear models and regression
adjusted causal inference in randomized experiments", 2022).

Group sequential designs (O'Brien-Fleming, Lan-DeMets) need fewer seeds where the largest number of them is fixed
beforehand. It is not, here: who runs the command again with a larger budget resumes. Like the t test, this assumes
that the seeds' differences are independent and normal. The error rate and the effects found are simulated in the tests.
"""

from collections.abc import Sequence
from math import exp, expm1, inf, log, log1p, sqrt

import numpy as np

from analysis.statistics.effects import cohens_dz
from analysis.statistics.intervals import LEVEL, Interval

EFFECT_VARIANCE = 2.0
"""g: right whatever it is; of 0.5 to 10, this finds effects of 0.8 to 3 standard deviations with the fewest seeds."""


def log_bayes_factor(differences: Sequence[float]) -> float:
    """Logarithm of B for paired differences; 0 (no evidence) with one, and if there is no spread to go by."""
    n, effect = len(differences), cohens_dz(differences)
    if effect is None:
        return 0.0
    ratio, squared = 1 + n * EFFECT_VARIANCE, n * effect**2 / (n - 1)
    return (n * (log1p(squared) - log1p(squared / ratio)) - log(ratio)) / 2


def sequential_p(differences: Sequence[float]) -> float | None:
    """``1 / B``, at most 1: a p that may be looked at after every seed; None with one difference."""
    return None if len(differences) < 2 else min(1.0, exp(-log_bayes_factor(differences)))


def sequential_interval(differences: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Mean and the interval of the means that B does not speak against; None for no values.

    With probability ``level`` the intervals of all numbers of seeds hold the true mean at once. With few seeds (up to 3
    at 95 %) no mean can be excluded: there is no interval then.
    """
    n = len(differences)
    if n == 0:
        return None
    mean, effect = float(np.mean(differences)), cohens_dz(differences)
    reach = _largest_t(n, 1 - level)
    if effect is None or reach == inf:
        return Interval(mean, None, n)
    return Interval(mean, reach * float(np.std(differences, ddof=1)) / sqrt(n), n)


def _largest_t(n: int, alpha: float) -> float:
    """The t of ``n`` differences at which B is ``1 / alpha``; infinite if it cannot get so far."""
    ratio = 1 + n * EFFECT_VARIANCE
    exponent = (log(ratio) - 2 * log(alpha)) / n
    if exponent >= log(ratio):
        return inf
    return sqrt((n - 1) * expm1(exponent) / -expm1(exponent - log(ratio)))

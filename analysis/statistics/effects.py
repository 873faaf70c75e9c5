"""How large a paired difference is: in standard deviations, and how often it is one for the better."""

from collections.abc import Sequence

import numpy as np

from analysis.statistics.intervals import LEVEL, Bounds, wilson

NO_SPREAD = 1e-9
"""Percentage points below which the spread of accuracies is rounding error."""


def standard_deviation(differences: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1) of paired differences; None with one, and if all are alike."""
    if len(differences) < 2:
        return None
    deviation = float(np.std(differences, ddof=1))
    return deviation if deviation > NO_SPREAD else None


def cohens_dz(differences: Sequence[float]) -> float | None:
    """Cohen's d_z: mean of the paired differences over their standard deviation; None if there is no spread.

    Cohen, "Statistical power analysis for the behavioral sciences" (1988), section 2.3.5; Lakens, "Calculating and
    reporting effect sizes", Frontiers in Psychology 4 (2013), equation 6. It is what the power of a paired t test
    depends on, and it is inflated with few seeds.
    """
    deviation = standard_deviation(differences)
    return None if deviation is None else float(np.mean(differences)) / deviation


def probability_of_improvement(differences: Sequence[float], level: float = LEVEL) -> Bounds | None:
    """Share of seeds in which the first net of the pair is better, ties half, 0 to 1; None for no pair.

    The paired form of Agarwal et al. 2021 (rliable), section 4.3, who compare every run with every other; here both
    nets of a pair share their seed. The interval is Wilson's (:func:`wilson`), which holds with few seeds and if all
    agree: a bootstrap would then have no width.
    """
    n = len(differences)
    if n == 0:
        return None
    share = float(np.mean([0.5 if abs(d) <= NO_SPREAD else float(d > 0) for d in differences]))
    if n == 1:
        return Bounds(share, None, None)
    return wilson(share, n, level)

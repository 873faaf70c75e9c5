"""Whether a paired difference is shown: the paired t test after Holm's correction, a sign-flip test next to it.

Which test decides? A sign-flip test assumes least, but of n pairs there are 2^n ways to flip signs, so its p is never
below ``2^(1 - n)``: 0.25 with 3 seeds, 0.06 with 5. With fewer than 6 seeds it could show nothing whatever the effect,
and after a correction for ten comparisons it needs 9. The t test can show a large effect with 3 seeds. It pays with an
assumption, that differences are normally distributed, which is plausible for the accuracies of one design over seeds:
each is a mean over many test images. So the t test decides, at the level that Holm's correction leaves to it, and the
sign-flip p is shown next to it for those who doubt the assumption; with many seeds both agree.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.statistics.effects import standard_deviation
from analysis.statistics.intervals import FloatArray

ALPHA = 0.05
EXACT_UP_TO = 14
"""Pairs up to which all ways to flip signs are tried (16,384); with more, a sample of :data:`FLIPS`."""
FLIPS = 10_000


def paired_t(differences: npt.ArrayLike) -> FloatArray:
    """Two-sided p of the paired t test, the last axis over pairs; needs two pairs and some spread.

    Student 1908; NIST/SEMATECH e-Handbook of Statistical Methods, 7.3.1.1. It assumes that pairs are independent (seeds
    are) and differences normal.
    """
    return np.asarray(stats.ttest_1samp(np.asarray(differences, dtype=float), 0.0, axis=-1).pvalue, dtype=float)


def sign_flip(differences: Sequence[float], seed: int = 0) -> float | None:
    """Two-sided p of the sign-flip permutation test of the mean; None with one pair.

    Were there no effect, each difference could as well have had the other sign: Fisher, "The design of experiments"
    (1935), section 21; Good, "Permutation, parametric and bootstrap tests of hypotheses" (2005), 3.2. Exact up to
    :data:`EXACT_UP_TO` pairs, else from random flips, the observed signs counted among them (Phipson and Smyth 2010).
    """
    n = len(differences)
    if n < 2:
        return None
    found = stats.permutation_test(
        (np.asarray(differences, dtype=float),),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if n <= EXACT_UP_TO else FLIPS,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def p_value(differences: Sequence[float]) -> float | None:
    """The p that decides: of the paired t test; None with one pair.

    Where all differences are alike the t test has no spread to go by and would be certain at once. Accuracies are
    counts, so that does happen with few seeds and test images: then the sign-flip test decides.
    """
    if len(differences) < 2:
        return None
    return sign_flip(differences) if standard_deviation(differences) is None else float(paired_t(differences))


def holm(p: npt.ArrayLike) -> FloatArray:
    """Each p adjusted for its family of comparisons, the last axis over the family.

    The chance of one or more false claims in the whole family stays at most alpha, whatever depends on what:
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1, kind="stable")
    factors = np.arange(values.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(factors * np.take_along_axis(values, order, axis=-1), axis=-1)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=-1)
    return adjusted


def holm_of_known(p: Sequence[float | None]) -> list[float | None]:
    """:func:`holm` of those that are known, which are the family; the others stay None."""
    adjusted = iter(holm([one for one in p if one is not None]).tolist())
    return [None if one is None else next(adjusted) for one in p]

"""``python -m benchmarks.moderation``: how often a study claims what is not there, with moderated variances.

Studies are simulated in which no arm differs from its baseline: 12 data sets with 20 arms each, so 228 comparisons,
three runs an arm, Holm's correction, level 0.05. A study counts where it claims anything at all. Arms do not differ in
spread, differ as fitted to published results, or differ much more than that.

Then studies as this project runs them: ten comparisons, paired by seed, that share nets as those of the paper and of
the controls do, so that six have one baseline.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from analysis.statistics.moderation import Variances, moderated_differences, moderated_variances, own_variances
from analysis.statistics.significance import ALPHA, holm
from benchmarks.goals import Goal, show

DATA_SETS, ARMS = 12, 20
FITTED = (2.4, np.inf, np.inf, np.inf, 14.9, 4.5, np.inf, np.inf, 3.2, np.inf, np.inf, 5.8)
"""Prior degrees of freedom of 12 data sets: Smyth's fit to the full fine-tuning of Iofinova et al. (CVPR 2022)."""

Array = npt.NDArray[np.float64]
Spread = Callable[[np.random.Generator], Array]
"""True standard deviations ``(data sets, arms)`` of a study."""


def alike(rng: np.random.Generator) -> Array:
    """All arms alike."""
    return np.ones((DATA_SETS, ARMS))


def fitted(rng: np.random.Generator) -> Array:
    """As the arms of a published study."""
    freedom = np.array(FITTED)[:, None]
    finite = np.where(np.isinf(freedom), 1e6, freedom)
    return np.asarray(np.sqrt(finite / rng.chisquare(finite, (DATA_SETS, ARMS))), dtype=float)


def drawn(freedom: float) -> Spread:
    """From an inverse chi-squared distribution: the fewer degrees of freedom, the more arms differ."""
    return lambda rng: np.asarray(np.sqrt(freedom / rng.chisquare(freedom, (DATA_SETS, ARMS))), dtype=float)


def threefold(share: float) -> Spread:
    """Three times as large in some of the arms."""
    return lambda rng: np.where(rng.random((DATA_SETS, ARMS)) < share, 3.0, 1.0)


SCENARIOS: dict[str, tuple[Spread, int, float]] = {
    "all arms alike": (alike, 3, 0.0),
    "as fitted to published results": (fitted, 3, 0.0),
    "deviations 3 : 1, half of the arms": (threefold(0.5), 3, 0.0),
    "deviations 3 : 1, a fifth": (threefold(0.2), 3, 0.0),
    "deviations 3 : 1, a twentieth": (threefold(0.05), 3, 0.0),
    "prior with 5 degrees of freedom": (drawn(5), 3, 0.0),
    "prior with 10 degrees of freedom": (drawn(10), 3, 0.0),
    "as fitted, runs of a seed correlated (0.5)": (fitted, 3, 0.5),
    "prior with 3.7, five runs": (drawn(3.7), 5, 0.0),
    "deviations 3 : 1, a twentieth, five runs": (threefold(0.05), 5, 0.0),
}
"""True deviations, runs an arm, and the correlation of runs with one seed."""


STANDARD_ARMS = (1.0,) * 11
"""Standard deviations of a study's nets: Standard, S, K, both, three pruned ones, and four controls."""
PAIRS = np.array([(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (2, 7), (3, 8), (1, 9), (3, 10)])
"""Which net is compared with which."""


def of_nets(**deviations: float) -> Spread:
    """All nets alike, but for some: ``pruned``, ``controls``, ``random`` masks, the ``baseline``."""
    places = {"pruned": slice(4, 7), "controls": slice(7, 11), "random": slice(9, 11), "baseline": slice(0, 1)}
    spread = np.array(STANDARD_ARMS)
    for name, deviation in deviations.items():
        spread[places[name]] = deviation
    return lambda rng: spread


def some_threefold(share: float) -> Spread:
    """Three times as large in some of the nets."""
    return lambda rng: np.where(rng.random(len(STANDARD_ARMS)) < share, 3.0, 1.0)


PAIRED: dict[str, tuple[Spread, int]] = {
    f"{name}, {seeds} seeds": (spread, seeds)
    for seeds in (3, 4, 5)
    for name, spread in {
        "all nets alike": of_nets(),
        "pruned nets 3 : 1": of_nets(pruned=3),
        "controls 3 : 1": of_nets(controls=3),
        "random masks 3 : 1": of_nets(random=3),
        "the baseline 3 : 1": of_nets(baseline=3),
        "half of the nets 3 : 1": some_threefold(0.5),
        "a fifth of the nets 3 : 1": some_threefold(0.2),
    }.items()
}
"""True deviations of a study's nets, and its seeds."""


def paired_p(accuracies: Array) -> tuple[Array, Array]:
    """P of the comparisons, by moderated variances and by each one's own; ``accuracies`` are ``(nets, seeds)``."""
    differences = accuracies[PAIRS[:, 0]] - accuracies[PAIRS[:, 1]]
    seeds, mean = differences.shape[1], np.abs(differences.mean(1))
    own = differences.var(1, ddof=1)
    found = moderated_differences(own, np.full(len(own), seeds))
    plain = 2 * stats.t.sf(mean / np.sqrt(own / seeds), seeds - 1)
    return 2 * stats.t.sf(mean / np.sqrt(found.values / seeds), found.freedom), plain


def false_paired_claims(spread: Spread, seeds: int, studies: int, seed: int) -> tuple[float, float]:
    """Share of studies with a false claim: by moderated variances, and by each comparison's own."""
    rng, claims = np.random.default_rng(seed), np.zeros(2)
    for _ in range(studies):
        accuracies = spread(rng)[:, None] * rng.standard_normal((len(STANDARD_ARMS), seeds))
        claims += [float(holm(p).min() < ALPHA) for p in paired_p(accuracies)]
    moderated, plain = claims / studies
    return float(moderated), float(plain)


def p_values(runs: Array, variances: Callable[[Array, Array, Array], Variances]) -> Array:
    """P of every arm against the first of its data set; ``runs`` are ``(data sets, arms, runs)``."""
    count = np.full(DATA_SETS * ARMS, float(runs.shape[2]))
    place = np.repeat(np.arange(DATA_SETS, dtype=float), ARMS)
    found = variances(runs.var(2, ddof=1).ravel(), count, place)
    first = np.array([arm for arm in range(DATA_SETS * ARMS) if arm % ARMS])
    base = first - first % ARMS
    return found.unpaired(runs.mean(2).ravel(), first, base)[0]


def own(values: Array, runs: Array, place: Array) -> Variances:
    """Each arm's own variance."""
    return own_variances(values, runs)


def false_claims(spread: Spread, runs: int, correlation: float, studies: int, seed: int) -> tuple[float, float]:
    """Share of studies with a false claim: by moderated variances, and by each arm's own."""
    rng, claims = np.random.default_rng(seed), np.zeros(2)
    for _ in range(studies):
        shape = (DATA_SETS, ARMS, runs)
        common = rng.standard_normal((DATA_SETS, 1, runs))
        noise = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * rng.standard_normal(shape)
        results = spread(rng)[..., None] * noise
        claims += [float(holm(p_values(results, kind)).min() < ALPHA) for kind in (moderated_variances, own)]
    moderated, plain = claims / studies
    return float(moderated), float(plain)


def upper(share: float, studies: int) -> float:
    """Upper end of the 95 % interval of a share (Clopper and Pearson 1934)."""
    claims = round(share * studies)
    return float(stats.beta.ppf(0.975, claims + 1, studies - claims))


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.moderation", description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="studies of each kind (default: %(default)s)")
    options = parser.parse_args()
    goals = []
    print("studies with a false claim, %, moderated and Welch")
    for seed, (name, (spread, runs, correlation)) in enumerate(SCENARIOS.items()):
        moderated, plain = false_claims(spread, runs, correlation, options.studies, seed)
        print(f"  {name:44} {100 * moderated:6.2f} {100 * plain:6.2f}")
        goals.append(Goal(f"false claims at most, %: {name}", 100 * upper(moderated, options.studies), "<=", 5.0))
    print("the same for studies of paired comparisons, moderated and paired t test")
    for seed, (name, (spread, seeds)) in enumerate(PAIRED.items()):
        moderated, plain = false_paired_claims(spread, seeds, options.studies, seed)
        print(f"  {name:44} {100 * moderated:6.2f} {100 * plain:6.2f}")
        goals.append(Goal(f"false claims at most, %: {name}", 100 * upper(moderated, options.studies), "<=", 5.0))
    return show(goals)


if __name__ == "__main__":
    sys.exit(main())

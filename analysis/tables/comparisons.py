"""The table of comparisons: what each of the paper's questions came to, and what the study could have shown."""

import pandas as pd

from analysis.comparisons import Comparison, comparisons, families
from analysis.further import further_comparisons
from analysis.loading import Results
from analysis.statistics.intervals import Bounds
from analysis.statistics.power import MOST_SEEDS
from analysis.statistics.significance import ALPHA
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    decimals_of,
    interval_columns,
    points_of,
    points_text,
    problem_notes,
)
from study.facts import SequentialDesign

POINTS = "{:.1f}".format


def comparisons_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """A row for each question that the study has both nets for."""
    title = f"Comparisons on {results.facts.target.title}: percentage points of test ACC %, paired by seed"
    return _table("comparisons", title, comparisons(results), results)


def further_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """A row for each further claim of the paper that the study has the nets for."""
    title = f"Further claims of the paper on {results.facts.target.title}: percentage points of test ACC %"
    return _table("further", title, further_comparisons(results), results)


def _table(name: str, title: str, found: list[Comparison], results: Results) -> Table | None:
    if not found:
        return None
    points = results.facts.margin
    seen, needed = "80 % power: points", f"80 % power: seeds for {points_of(points)}"
    headers = [
        Header("comparison"),
        Header("seeds"),
        Header("difference"),
        Header("shown"),
        Header("d_z"),
        Header("share better"),
    ]
    headers += [Header("alone", "p"), Header("Holm", "p"), Header(f"costs < {points:g}, Holm", "p")]
    headers += [Header("own variance", "p", detail=True), Header("sign flip", "p", detail=True)]
    headers += [Header("alone", seen, detail=True), Header("Holm", seen)]
    headers += [Header("alone", needed, detail=True), Header("Holm", needed)]
    decimals = max((decimals_of(one.mean) for one in found if one.mean), default=1)
    rows = [_row(one, len(results.seeds), points, decimals) for one in found]
    compared = {net.label: net for one in found for net in (one.question.net, one.question.baseline)}
    notes = [*_notes(found, points), *problem_notes(list(compared.values()), results.seeds)]
    data = pd.DataFrame([_record(one, results) for one in found])
    sources = [[one.question.net, one.question.baseline] for one in found]
    difference = [header.name for header in headers].index("difference")
    bold = frozenset((row, difference) for row, one in enumerate(found) if verdict(one) == "better")
    return Table(name, title, headers, rows, notes, data, sources, bold)


def p_text(p: float | None) -> str:
    """A p with three decimals."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _row(one: Comparison, seeds: int, points: float, decimals: int) -> list[str]:
    alphas = (ALPHA, one.strict_alpha)
    return [
        one.question.name,
        str(one.pairs) if one.pairs == seeds else f"{one.pairs} of {seeds}",
        points_text(one.mean, decimals=decimals) if one.mean else "no pair",
        verdict(one),
        NOTHING if one.effect is None else f"{one.effect:.2f}".replace("-", "\N{MINUS SIGN}"),
        _share(one.improvement),
        *(p_text(p) for p in (one.p, one.p_holm, one.p_margin_holm, one.p_own, one.p_sign_flip)),
        *(NOTHING if (least := one.detectable(alpha)) is None else POINTS(least) for alpha in alphas),
        *(_seeds(one, points, alpha) for alpha in alphas),
    ]


def verdict(one: Comparison) -> str:
    """What a comparison shows, in a word or two."""
    assert one.mean is not None or not one.shown
    if one.shown and one.mean is not None:
        return "better" if one.mean.mean > 0 else "worse"
    if one.within_margin:
        return f"costs < {one.margin:g}"
    return "negligible" if one.negligible else "no"


def _share(share: Bounds | None) -> str:
    if share is None:
        return NOTHING
    if share.low is None or share.high is None:
        return f"{share.value:.2f}"
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _seeds(one: Comparison, points: float, alpha: float) -> str:
    needed = None if one.shown or one.within_margin else one.seeds_needed(points, alpha)
    if needed is None:
        return NOTHING
    about, least, most = (f">{MOST_SEEDS:,}" if count is None else f"{count:,}" for count in needed)
    return f"{about} [{least}, {most}]"


def _notes(found: list[Comparison], points: float) -> list[str]:
    sizes = sorted({one.family for one in found if one.family}, reverse=True)
    asked = " or ".join(f"{ALPHA} / {size}" for size in sizes)
    measures = (
        "d_z: mean difference over the standard deviation of the differences (Cohen). Share better: seeds in which the "
        "first net is better, ties half, with Wilson's 95 % interval."
    )
    if found[0].design is not None:
        return [*_sequential_notes(found[0].design), measures]
    return [
        f"Difference: mean over seeds with its 95 % interval (Student t), for this comparison only. {measures}",
        f"{found[0].reason} The p by each comparison's own variance is shown next to it (details).",
        f"p: of the paired t test, two-sided; costs < {points:g}: one-sided, of the claim that a pruned net loses less "
        f"than {points_of(points)}. Holm: corrected for the {families(found)} of this table. Shown: Holm's "
        f"p below {ALPHA}, and for a difference an interval without zero. The sign-flip p assumes less and decides "
        "nothing: with n seeds it is never below 2 / 2^n.",
        "80 % power: the smallest difference that these seeds would show four times of five, and the seeds that would "
        f"show one of {points_of(points)} so, with the range that follows from the spread's own uncertainty (95 %); "
        f"for the comparison alone (level {ALPHA}) and at the strictest level that Holm's correction asks "
        f"({asked or ALPHA}).",
    ]


def _sequential_notes(design: SequentialDesign) -> list[str]:
    return [
        "Difference: mean over seeds with its interval, which holds however often one looks, as seeds were added until "
        "the main comparisons (S, K) were settled; theirs hold jointly with 95 %, the others each.",
        "p: one over the Bayes factor of the t test, at most 1, which may be looked at after every seed; Holm: "
        "corrected within the main comparisons and within the others. Shown: Holm's p below "
        f"{ALPHA} and an interval without zero; negligible: an interval within {design.negligible:g} points of zero. "
        "The sign-flip p, the share and its interval take no account of the looking, and decide nothing.",
    ]


def _record(one: Comparison, results: Results) -> dict[str, object]:
    question, share = one.question, one.improvement
    row: dict[str, object] = {"comparison": question.name, "kind": question.kind, "net": question.net.variant}
    row |= {"stream": question.net.stream} if question.net.stream else {}
    row |= {"minus": question.baseline.variant}
    row |= {"minus_stream": question.baseline.stream} if question.baseline.stream else {}
    row |= {"pairs": one.pairs, **interval_columns("diff_", one.mean)}
    row |= {"diff_median": pd.Series(one.values, dtype=float).median() if one.values else None}
    row |= {"d_z": one.effect}
    row |= {"p": one.p, "p_holm": one.p_holm, "p_margin_holm": one.p_margin_holm, "p_own": one.p_own}
    row |= {"p_sign_flip": one.p_sign_flip, "family": one.family, "moderated": one.moderated}
    row |= {"shown": one.shown, "within_margin": one.within_margin, "verdict": verdict(one)}
    row |= _bounds("share_better", share)
    for name, alpha in (("", ALPHA), ("_holm", one.strict_alpha)):
        open_ = not one.shown and not one.within_margin
        needed = one.seeds_needed(results.facts.margin, alpha) if open_ else None
        row |= {f"detectable{name}": one.detectable(alpha), f"seeds_needed{name}": needed and needed.number}
        row |= {
            f"seeds_needed{name}_least": needed and needed.least,
            f"seeds_needed{name}_most": needed and needed.most,
        }
    return row | {f"diff_seed_{seed}": one.differences.get(seed) for seed in results.seeds}


def _bounds(name: str, bounds: Bounds | None) -> dict[str, float | None]:
    values = (bounds.value, bounds.low, bounds.high) if bounds else (None, None, None)
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))

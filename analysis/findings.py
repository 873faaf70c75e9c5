"""What a study shows, in sentences made from its numbers: none claims more than its comparison."""

import pandas as pd

from analysis.comparisons import Comparison, comparisons, families
from analysis.controls import controls, verdict
from analysis.further import further_comparisons
from analysis.loading import Results
from analysis.nets import off_axis, outcomes
from analysis.questions import MAIN
from analysis.statistics.intervals import LEVEL
from analysis.statistics.power import MOST_SEEDS
from analysis.statistics.significance import ALPHA
from analysis.tables.table import RETRAINED, points_of, points_text, signed
from analysis.tuned import conclusion
from study.facts import SequentialDesign

VERBS = {"part": ("helps", "hurts")}
BETTER = ("is better than", "is worse than")
CORRECTED = "its own interval leaves out zero, but not after Holm's correction over {} claims"


def findings(results: Results, cells: pd.DataFrame | None = None, *, brief: bool = False) -> list[str]:
    """A sentence for each comparison, after what must be known first; none if the study compares nothing.

    Args:
        results: the study.
        cells: all its cells with their outcomes, if they are made already.
        brief: put all that is open on one line, with the seeds that it would take.
    """
    cells = outcomes(results) if cells is None else cells
    own = off_axis(cells)
    found = comparisons(results)
    asked = controls(results, own)
    if not found:
        return [*results.facts.doubts, *([verdict(asked)] if asked else [])]
    lines = _briefly(found, results) if brief else _fully(found, results)
    if len(results.seeds) == 1:
        lines.insert(0, "One seed shows nothing: no difference below has an interval, and none is claimed.")
    lines += [*_further(results), *conclusion(results)]
    if asked:
        lines.insert(0, verdict(asked))
    if results.facts.retrained_on_validation:
        lines.insert(0, RETRAINED)
    if lacking := int((cells["problem"] != "").sum()):
        lines.insert(0, f"Not all is done: {lacking} of {len(cells)} cells have no result (see the failures).")
    lines = [*results.facts.doubts, *lines]
    if results.facts.sequential is not None:
        lines.append(_sequential(results.facts.sequential, found, len(results.seeds)))
    elif any(one.family for one in found):
        lines.append(
            f"Shown means: p below {ALPHA} in the paired t test, corrected (Holm) for the {families(found)}, and a "
            f"95 % interval without zero. {found[0].reason} No difference shown does not mean there is none."
        )
    return lines


def _further(results: Results) -> list[str]:
    """Which of the paper's further claims are shown, on a line; none if nothing is known of any."""
    found = [one for one in further_comparisons(results) if one.p is not None]
    if not found:
        return []
    shown = "; ".join(f"{one.question.name} {points_text(one.mean)}" for one in found if one.shown and one.mean)
    family = f"Further claims of the paper, a family of their own of {len(found)}"
    return [f"{family}: {f'shown are {shown}' if shown else 'none is shown'} (points; table “Further claims”)."]


def _fully(found: list[Comparison], results: Results) -> list[str]:
    return [f"{sentence(one, results)}." for one in found]


def _briefly(found: list[Comparison], results: Results) -> list[str]:
    points, open_ = results.facts.margin, {}
    for one in found:
        seeds = one.seeds_needed(points, one.strict_alpha)
        if seeds is not None and not (one.shown or one.within_margin or one.negligible):
            open_[one.question.name] = (one, MOST_SEEDS if seeds.number is None else seeds.number)
    if len(open_) < 2:
        return _fully(found, results)
    lines = _fully([one for one in found if one.question.name not in open_], results)
    means = "; ".join(f"{name} {signed(one.mean.mean, 1)}" for name, (one, _) in open_.items() if one.mean is not None)
    numbers = sorted({number for _, number in open_.values()})
    about = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
    return [
        *lines,
        f"Open are {len(open_)} of {len(found)} comparisons, with no difference shown (means in points): {means}. To "
        f"show one of {points_of(points)} would take about {about} seeds.",
    ]


def sentence(one: Comparison, results: Results) -> str:
    """One comparison in words, without a full stop."""
    if one.mean is None:
        return f"{one.question.name}: no result, as no seed has both nets"
    number = points_text(one.mean, " points")
    if one.pairs == 1:
        return f"{one.question.name}: {number} with one seed, which shows nothing"
    seeds = f"{one.pairs} of {len(results.seeds)} seeds" if one.pairs < len(results.seeds) else f"{one.pairs} seeds"
    less = f"less than {points_of(one.margin)}" if one.margin is not None and one.within_margin else ""
    if one.shown:
        little = f", by {less}" if less and one.mean.mean < 0 else ""
        return f"{_claim(one, results)}{little}: {number} ({seeds})"
    if less:
        return f"{one.question.subject} costs {less}: {number} ({seeds})"
    if one.negligible:
        assert one.design is not None
        return f"{one.question.name}: less than {one.design.negligible:g} points either way: {number} ({seeds})"
    return f"{one.question.name}: no difference shown: {number} ({seeds}); {_outlook(one, results)}"


def _claim(one: Comparison, results: Results) -> str:
    question, mean = one.question, one.mean
    assert mean is not None
    stream = f", {question.net.stream}," if question.net.stream and question.kind != "fusion" else ""
    verb = VERBS.get(question.kind, BETTER)[mean.mean < 0]
    than = f" {question.than}" if question.than else ""
    return f"{question.subject}{stream} {verb}{than} on {results.facts.target.title}"


def _sequential(design: SequentialDesign, found: list[Comparison], seeds: int) -> str:
    """How the number of seeds came about, and what may be read from it all the same."""
    main = [one for one in found if one.question.kind == MAIN]
    others = len(found) - len(main)
    ended = "all are" if all(one.settled for one in main) else f"{sum(one.settled for one in main)} of {len(main)} are"
    text = (
        f"Seeds were added while looking, until the {len(main)} main comparisons (S, K) are settled: shown, or less "
        f"than {design.negligible:g} points either way; {ended}, after {seeds} of at most {design.most_seeds} seeds. "
        "The intervals here hold however often one looks (confidence sequences of the t test; see "
        f"analysis/sequential.py), those of the main comparisons jointly with {100 * LEVEL:g} %. Stopping at such a "
        "moment makes the means themselves a little too large."
    )
    if others:
        text += f" The {others} other comparisons are corrected by Holm, controls apart from the rest."
    return text


def _outlook(one: Comparison, results: Results) -> str:
    """Why nothing is shown, what would have been seen, and what would settle it."""
    if one.design is not None:
        return "open" if one.mean is not None and one.mean.half is not None else "open, too early for an interval"
    least = one.detectable(one.strict_alpha)
    if least is None:
        return "all seeds differ alike, which leaves no spread to judge by"
    parts = [f"this study would have seen {least:.1f} points or more (80 % power)"]
    if one.p is not None and one.p < ALPHA:
        parts.insert(0, CORRECTED.format(one.family))
    points = results.facts.margin
    needed = one.seeds_needed(points, one.strict_alpha)
    assert needed is not None
    about, *ends = (f"more than {MOST_SEEDS:,}" if count is None else f"{count:,}" for count in needed)
    parts.append(f"a difference of {points_of(points)} would take about {about} seeds ({' to '.join(ends)})")
    return "; ".join(parts)

"""What a study shows, in sentences made from its numbers: none claims more than its comparison."""

from collections.abc import Callable

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
from analysis.tables.table import RETRAINED, points_of, points_text
from analysis.tuned import conclusion
from study.facts import SequentialDesign

Lines = Callable[[list[Comparison], Results], list[str]]
"""Formats comparisons as lines."""
VERBS = {"part": ("helps", "hurts")}
BETTER = ("is better than", "is worse than")
CORRECTED = "its own interval leaves out zero, but not after Holm's correction over {} claims"


def findings(results: Results, cells: pd.DataFrame | None = None, *, brief: bool = False) -> list[str]:
    """What the study concludes, and what it means that something is shown: see :func:`conclusions`."""
    return [*conclusions(results, cells, brief=brief), *meaning(results)]


def conclusions(results: Results, cells: pd.DataFrame | None = None, *, brief: bool = False) -> list[str]:
    """A sentence for each comparison, after what must be known first; none if the study compares nothing.

    Args:
        results: the study.
        cells: all its cells with their outcomes, if they are made already.
        brief: one line for all that is shown, one for all that costs little, one for all that is open.
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
    return [*results.facts.doubts, *lines]


def meaning(results: Results) -> list[str]:
    """By which tests a difference counts as shown, in a few sentences; nothing if the study compares nothing."""
    found = comparisons(results)
    if not found:
        return []
    if results.facts.sequential is not None:
        return [_sequential(results.facts.sequential, found, len(results.seeds))]
    if not any(one.family for one in found):
        return []
    return [
        f"Shown means: p below {ALPHA} in the paired t test, corrected (Holm) for the {families(found)}, and a "
        f"95 % interval without zero. {found[0].reason} No difference shown does not mean there is none."
    ]


def _further(results: Results) -> list[str]:
    """Which of the paper's further claims are shown, on a line; none if nothing is known of any."""
    found = [one for one in further_comparisons(results) if one.p is not None]
    if not found:
        return []
    shown = "; ".join(f"{one.question.name} {points_text(one.mean)}" for one in found if one.shown and one.mean)
    what = f"shown are {shown}" if shown else "none is shown"
    return [f"Of {len(found)} further claims of the paper, a family of their own, {what}."]


def _fully(found: list[Comparison], results: Results) -> list[str]:
    return [f"{sentence(one, results)}." for one in found]


def _briefly(found: list[Comparison], results: Results) -> list[str]:
    """A line for all that are shown, one for all that cost little, one for all that are open; then whatever is left."""
    groups: dict[Lines, list[Comparison]] = {_all_shown: [], _all_cheap: [], _all_open: [], _fully: []}
    for one in found:
        groups[_lines_for(one, results)].append(one)
    lines = []
    for lines_of, group in groups.items():
        lines += lines_of(group, results) if len(group) > 1 else _fully(group, results)
    return lines


def _lines_for(one: Comparison, results: Results) -> Lines:
    """Return the function that formats the group that a comparison belongs to."""
    if one.mean is None:
        return _fully
    if one.shown:
        return _all_shown
    if one.within_margin:
        return _all_cheap
    has_spread = one.seeds_needed(results.facts.margin, one.strict_alpha) is not None
    return _all_open if has_spread and not one.negligible else _fully


def _all_shown(found: list[Comparison], results: Results) -> list[str]:
    items = "; ".join(f"{_claim(one)}{_little(one)}, {_brief_number(one, results)}" for one in found)
    return [f"Shown on {results.facts.target.title} with {len(results.seeds)} seeds, in points: {items}."]


def _all_cheap(found: list[Comparison], results: Results) -> list[str]:
    items = "; ".join(f"{one.question.subject} {_brief_number(one, results)}" for one in found)
    return [f"Shown to cost less than {points_of(results.facts.margin)}: {items}."]


def _all_open(found: list[Comparison], results: Results) -> list[str]:
    points = results.facts.margin
    needed = [one.seeds_needed(points, one.strict_alpha) for one in found]
    numbers = sorted({MOST_SEEDS if one.number is None else one.number for one in needed if one is not None})
    about = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
    items = "; ".join(f"{one.question.name} {_brief_number(one, results)}" for one in found)
    takes = f"To show one of {points_of(points)} would take about {about} seeds"
    return [f"Open, with no difference shown: {items}. {takes}."]


def _brief_number(one: Comparison, results: Results) -> str:
    assert one.mean is not None
    fewer = f" ({one.pairs} of {len(results.seeds)} seeds)" if one.pairs < len(results.seeds) else ""
    return f"{points_text(one.mean)}{fewer}"


def sentence(one: Comparison, results: Results) -> str:
    """One comparison as text, without a full stop."""
    if one.mean is None:
        return f"{one.question.name}: no result, as no seed has both nets"
    number = points_text(one.mean, " points")
    if one.pairs == 1:
        return f"{one.question.name}: {number} with one seed, which shows nothing"
    seeds = f"{one.pairs} of {len(results.seeds)} seeds" if one.pairs < len(results.seeds) else f"{one.pairs} seeds"
    if one.shown:
        return f"{_claim(one)} on {results.facts.target.title}{_little(one)}: {number} ({seeds})"
    if one.within_margin:
        return f"{one.question.subject} costs less than {points_of(results.facts.margin)}: {number} ({seeds})"
    if one.negligible:
        assert one.design is not None
        return f"{one.question.name}: less than {one.design.negligible:g} points either way: {number} ({seeds})"
    return f"{one.question.name}: no difference shown: {number} ({seeds}); {_outlook(one, results)}"


def _claim(one: Comparison) -> str:
    """What is shown, without number and data set."""
    question, mean = one.question, one.mean
    assert mean is not None
    stream = f", {question.net.stream}," if question.net.stream and question.kind != "fusion" else ""
    verb = VERBS.get(question.kind, BETTER)[mean.mean < 0]
    than = f" {question.than}" if question.than else ""
    return f"{question.subject}{stream} {verb}{than}"


def _little(one: Comparison) -> str:
    """That a loss is small, where that is shown too."""
    if one.mean is None or one.mean.mean >= 0 or one.margin is None or not one.within_margin:
        return ""
    return f", by less than {points_of(one.margin)}"


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

"""What a control study must show, and whether it does: effects that are there, and none where there must be none."""

from dataclasses import dataclass

import pandas as pd

from analysis.comparisons import Comparison, comparisons
from analysis.loading import Results
from analysis.nets import Net
from analysis.questions import KNOWLEDGE
from analysis.tables.comparisons import p_text
from analysis.tables.table import NOTHING, Header, Table, interval_columns, points_text, problem_notes

POSITIVE = (
    KNOWLEDGE,
    "The image's own knowledge against that of another image (without S)",
    "The image's own knowledge against that of another image (with S)",
    "Pruning by magnitude against random masks (without K)",
    "Pruning by magnitude against random masks (with K)",
)
"""Comparisons, by name, in which a control study must show a gain."""
NEGATIVE = (
    "Knowledge of another image against none (without S)",
    "Knowledge of another image against none (with S)",
)
"""Comparisons in which it must show none."""


@dataclass(frozen=True)
class Control:
    """One control, and the comparison that answers it; None if the study lacks a net for it."""

    name: str
    gain: bool
    """Whether a gain must be shown, or must not be."""
    comparison: Comparison | None

    @property
    def passed(self) -> bool:
        """Whether what must be shown is; without an interval nothing passes, not even what must show nothing."""
        one = self.comparison
        if one is None or one.mean is None or one.p is None:
            return False
        return (one.shown and one.mean.mean > 0) == self.gain

    @property
    def must(self) -> str:
        """What is asked of the difference."""
        return "a gain" if self.gain else "no gain"

    @property
    def seen(self) -> str:
        """The difference, or why there is none."""
        if self.comparison is None:
            return "not in this study"
        return points_text(self.comparison.mean) if self.comparison.mean else "no pair"


def controls(results: Results, cells: pd.DataFrame) -> list[Control]:
    """The controls of a control study; none of any other, as it is unknown beforehand what there is to see.

    Args:
        results: the study.
        cells: its cells with their outcomes, off every axis.
    """
    if not results.facts.control_study:
        return []
    found = {one.question.name: one for one in comparisons(results)}
    return [Control(name, name in POSITIVE, found.get(name)) for name in (*POSITIVE, *NEGATIVE)]


def verdict(asked: list[Control]) -> str:
    """One sentence for all controls of a study, loud where one did not pass."""
    failed = [control for control in asked if not control.passed]
    if not failed:
        least = min((one for one in asked if one.gain), key=_gain)
        most = max((one for one in asked if not one.gain), key=_gain)
        return (
            f"All {len(asked)} controls passed: the study sees gains that are there (the smallest is "
            f"{_brief(least)}) and none where there must be none (the largest is {_brief(most)})."
        )
    return (
        f"CONTROLS NOT PASSED, {len(failed)} of {len(asked)}: "
        + "; ".join(f"{_brief(one)}, where {one.must} must be shown" for one in failed)
        + ". Until it is known why, trust no other result of this code on this machine."
    )


def controls_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """A row for each control; None if the study is no control study."""
    asked = controls(results, cells)
    if not asked:
        return None
    headers = [Header(name) for name in ("control", "must show", "seeds", "difference", "Holm's p", "result")]
    title = "Controls: what this study must show, and whether it does, in percentage points of test ACC %"
    nets = [net for control in asked for net in _nets(control)]
    notes = [
        "Difference: paired by seed, with its 95 % interval (Student t). A gain is shown where it is above zero, its "
        "interval leaves out zero and its p after Holm's correction over its family (claims on nets, or controls) is "
        "below 0.05.",
        *problem_notes(list({net.label: net for net in nets}.values()), results.seeds),
    ]
    data = pd.DataFrame([_record(control) for control in asked])
    return Table("verdicts", title, headers, list(map(_row, asked)), notes, data, list(map(_nets, asked)))


def _gain(control: Control) -> float:
    assert control.comparison is not None and control.comparison.mean is not None
    return control.comparison.mean.mean


def _brief(control: Control) -> str:
    return f"{control.name}: {control.seen}"


def _nets(control: Control) -> list[Net]:
    one = control.comparison
    return [] if one is None else [one.question.net, one.question.baseline]


def _row(control: Control) -> list[str]:
    one = control.comparison
    pairs, p = (str(one.pairs), p_text(one.p_holm)) if one else (NOTHING, NOTHING)
    return [control.name, control.must, pairs, control.seen, p, "passed" if control.passed else "NOT PASSED"]


def _record(control: Control) -> dict[str, object]:
    one = control.comparison
    row: dict[str, object] = {"control": control.name, "must_show": control.must, "passed": control.passed}
    row |= {"pairs": one.pairs if one else 0, **interval_columns("diff_", one.mean if one else None)}
    return row | {"p_holm": one.p_holm if one else None}

"""Tables of a study on several targets: nets by targets, comparisons by targets, and comparisons over targets."""

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison
from analysis.statistics.intervals import over_seeds
from analysis.statistics.significance import ALPHA
from analysis.tables.comparisons import p_text
from analysis.tables.comparisons import verdict as verdict_text
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    interval_columns,
    interval_text,
    points_of,
    points_text,
    problem_notes,
)
from analysis.targets import OverTargets, Targets

DIFFERS, COSTS_LESS = "*", "\N{ALMOST EQUAL TO}"
"""Marks of a difference that is shown, and of a cost that is shown to be less than the margin."""


def tables(study: Targets) -> list[Table]:
    """The tables that have something to show."""
    made = [_nets(study)]
    return [*made, _by_target(study), _over_targets(study)] if study.over_targets else made


def _nets(study: Targets) -> Table:
    columns = [*study.by_target]
    rows, data = [], []
    for label, own in study.nets.items():
        rank = study.ranks.get(label)
        intervals = {target: over_seeds(own[target].accuracy) if target in own else None for target in columns}
        texts = [interval_text(intervals[target]) if target in own else NOTHING for target in columns]
        rows.append([label, *texts, NOTHING if rank is None else f"{rank:.1f}"])
        found: dict[str, object] = {"net": label}
        for target, interval in intervals.items():
            found |= interval_columns(f"{target}_", interval) | {f"{target}_seeds": interval.n if interval else 0}
        data.append(found | {"rank": rank})
    notes = [
        "Mean ± half-width of the 95 % interval over seeds (Student t), top-1 on the target's test images.",
        "Rank: mean over targets, 1 is the best; of the nets that every target has.",
    ]
    if study.p_friedman is not None:
        notes.append(f"Friedman's test that these nets are alike: p {p_text(study.p_friedman)}.")
    for target, results in study.by_target.items():
        shown = [own[target] for own in study.nets.values() if target in own]
        notes += [f"{target}: {line}" for line in problem_notes(shown, results.seeds)]
    headers = [Header("net"), *(Header(target, "ACC %") for target in columns), Header("rank")]
    return Table("targets", f"Nets on {len(columns)} targets", headers, rows, notes, pd.DataFrame(data))


def _by_target(study: Targets) -> Table:
    columns = [*study.by_target]
    rows = [
        [one.name, *(marked(one.by_target[target]) if target in one.by_target else NOTHING for target in columns)]
        for one in study.over_targets
    ]
    data = [
        {
            "comparison": one.name,
            "target": target,
            "pairs": own.pairs,
            **interval_columns("difference_", own.mean),
            "p": own.p,
            "p_holm": own.p_holm,
            "p_margin_holm": own.p_margin_holm,
            "verdict": own.verdict,
        }
        for one in study.over_targets
        for target, own in one.by_target.items()
    ]
    claims = next(iter(study.over_targets[0].by_target.values())).family
    notes = [
        "Percentage points of test accuracy, paired by seed, with the 95 % interval of each comparison.",
        f"{DIFFERS}: a difference is shown; {COSTS_LESS}: no difference is shown, and it is shown to cost less than "
        f"{points_of(study.margin)} (p below {ALPHA} after Holm's correction over all {claims} claims on all targets; "
        "each target's own report corrects for that target).",
    ]
    headers = [Header("comparison"), *(Header(target) for target in columns)]
    return Table("target_comparisons", "Comparisons on each target", headers, rows, notes, pd.DataFrame(data))


def marked(one: Comparison) -> str:
    """The difference on a target with its interval, and a mark for what is shown."""
    assert one.mean is not None
    mark = DIFFERS if one.shown else COSTS_LESS if one.within_margin else ""
    return points_text(one.mean) + (f" {mark}" if mark else "")


def _over_targets(study: Targets) -> Table:
    rows = [
        [
            one.name,
            str(one.difference.n),
            points_text(one.difference),
            points_text(one.error_change, " %") if one.error_change else NOTHING,
            *(p_text(p) for p in (one.p, one.p_holm)),
            one.verdict,
        ]
        for one in study.over_targets
    ]
    notes = [
        "Difference: mean over targets of the mean over seeds, percentage points, with its 95 % interval over targets "
        "(Student t).",
        "Test error: its change relative to the baseline's on the same target, mean over targets; less is better.",
        "p: Wilcoxon's signed-rank test with a value per target, corrected (Holm) for all rows.",
        *([] if _can_show(study) else [too_few_targets(study)]),
    ]
    headers = [Header(name) for name in ("comparison", "targets", "difference", "test error")]
    headers += [Header("alone", "p"), Header("Holm", "p"), Header("shown")]
    data = pd.DataFrame([_record(one) for one in study.over_targets])
    return Table("over_targets", "Comparisons over targets", headers, rows, notes, data)


def _can_show(study: Targets) -> bool:
    return any(one.difference.n >= study.targets_needed for one in study.over_targets)


def too_few_targets(study: Targets) -> str:
    """Why nothing can be shown over so few targets."""
    count = len(study.by_target)
    return (
        f"With {count} targets, p is never below {p_text(float(np.exp2(1 - count)))}: this test can show nothing here. "
        f"After the correction for {len(study.over_targets)} comparisons it takes {study.targets_needed} targets."
    )


def _record(one: OverTargets) -> dict[str, object]:
    return {
        "comparison": one.name,
        "targets": one.difference.n,
        **interval_columns("difference_", one.difference),
        **interval_columns("error_change_", one.error_change),
        "wilcoxon_p": one.p,
        "wilcoxon_p_holm": one.p_holm,
        "verdict": one.verdict,
        **{f"{target}_verdict": verdict_text(own) for target, own in one.by_target.items()},
    }

"""Tables of nets each at its best: the comparisons next to those at common settings, and what each net tried."""

import pandas as pd

from analysis.loading import Results
from analysis.statistics.intervals import over_seeds, paired_difference
from analysis.statistics.significance import ALPHA
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    difference_text,
    interval_columns,
    interval_text,
    points_text,
)
from analysis.tuned import Compared, accuracies, best_comparisons, compared, tried, verdict_text

COMMON, BEST = "at common settings", "each at its best"


def tuned_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """The comparisons at common settings and with each net at its best; None if nets are not tuned."""
    found = compared(results)
    if not found:
        return None
    headers = [Header("comparison"), Header("difference", COMMON), Header("shown", COMMON)]
    headers += [Header("difference", BEST), Header("shown", BEST)]
    claims = best_comparisons(results)[0].family
    notes = [
        f"Shown: p below {ALPHA} after Holm's correction over the {claims} claims with each net at its best; those at "
        f"common settings are a family of their own, of {found[0].common.family}.",
        "Each net has, at each seed, the settings of the highest validation accuracy, so that the intervals allow for "
        "the luck of the choice. Differences are paired by seed.",
    ]
    rows = [_row(one) for one in found]
    sources = [[one.best.question.net, one.best.question.baseline] for one in found]
    title = f"Comparisons on {results.facts.target.title}: at common settings, and with each net at its best"
    return Table("tuned", title, headers, rows, notes, pd.DataFrame([_record(one) for one in found]), sources)


def _row(one: Compared) -> list[str]:
    numbers = [
        text
        for at in (one.common, one.best)
        for text in (points_text(at.mean) if at.mean else "no pair", verdict_text(at))
    ]
    return [one.name, *numbers]


def _record(one: Compared) -> dict[str, object]:
    row: dict[str, object] = {"comparison": one.name}
    for prefix, at in (("common_", one.common), ("best_", one.best)):
        row |= interval_columns(prefix, at.mean)
        row |= {f"{prefix}pairs": at.pairs, f"{prefix}p": at.p, f"{prefix}p_holm": at.p_holm}
        row |= {f"{prefix}verdict": at.verdict}
    return row


def tuning_table(results: Results, cells: pd.DataFrame) -> Table | None:
    """What each net tried, and what it gained; None if nets are not tuned."""
    made = tried(results)
    if not made:
        return None
    headers = [Header("net"), Header("tried"), Header("settings at its best", prose=True)]
    headers += [Header("own", "validation ACC %"), Header("best", "validation ACC %")]
    headers += [Header("own", "ACC %"), Header("best", "ACC %"), Header("gain", "ACC %")]
    found = accuracies(results)
    rows, data = [], []
    for one in made:
        own, best = found.get(one.net, ({}, {}))
        gain = paired_difference(best, own)
        validation = [interval_text(value) for value in (one.own_accuracy, one.best_accuracy)]
        test = [interval_text(over_seeds(own)), interval_text(over_seeds(best)), difference_text(gain, len(best))]
        failed = f", {one.failed} failed" if one.failed else ""
        rows.append([one.net, f"{one.different}{failed}", one.settings or NOTHING, *validation, *test])
        record: dict[str, object] = {"net": one.net, "tried": one.number, "different": one.different}
        record |= {"failed": one.failed, "settings": one.settings}
        record |= interval_columns("own_val_", one.own_accuracy) | interval_columns("best_val_", one.best_accuracy)
        data.append(
            record
            | interval_columns("own_", over_seeds(own))
            | interval_columns("best_", over_seeds(best))
            | interval_columns("gain_", gain)
        )
    notes = [
        f"Each net tried the same {max(one.number for one in made)} settings at each seed, the study's own among them; "
        "shown is how many of them make a difference to the net.",
        "Mean ± half-width of the 95 % interval over seeds. The highest validation ACC % of several is flattered by "
        "its choice; ACC %, on test images, is not. Nothing is known of the test images of what was not chosen.",
    ]
    return Table("tuning", f"Tuning each net on {results.facts.target.title}", headers, rows, notes, pd.DataFrame(data))

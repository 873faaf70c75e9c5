"""Two studies next to one another, as a table and as the settings that differ."""

from typing import Any

import pandas as pd

from analysis.between import Between
from analysis.statistics.intervals import over_seeds
from analysis.statistics.significance import ALPHA
from analysis.tables.comparisons import p_text
from analysis.tables.comparisons import verdict as verdict_text
from analysis.tables.table import NOTHING, Header, Table, interval_columns, interval_text, points_text


def between_table(both: Between) -> Table:
    """A row for each net that both studies have."""
    one, other = both.names
    found = {comparison.question.subject: comparison for comparison in both.comparisons}
    headers = [Header("net"), Header(one, "ACC %"), Header(other, "ACC %"), Header(f"{other} minus {one}")]
    headers += [Header("alone", "p"), Header("Holm", "p"), Header("shown")]
    rows, data = [], []
    for label, (ours, theirs) in both.nets.items():
        compared = found.get(label)
        texts = [interval_text(over_seeds(net.accuracy)) for net in (ours, theirs)]
        if compared is None:
            rest = ["the same nets", NOTHING, NOTHING, NOTHING]
        elif compared.mean is None:
            rest = ["no seed in common", NOTHING, NOTHING, NOTHING]
        else:
            p = [p_text(value) for value in (compared.p, compared.p_holm)]
            rest = [points_text(compared.mean), *p, verdict_text(compared)]
        rows.append([label, *texts, *rest])
        row: dict[str, object] = {"net": label, **interval_columns("one_", over_seeds(ours.accuracy))}
        row |= interval_columns("other_", over_seeds(theirs.accuracy))
        row |= interval_columns("difference_", compared.mean if compared else None)
        row |= {"pairs": compared.pairs if compared else 0, "p": compared and compared.p}
        data.append(row | {"p_holm": compared and compared.p_holm, "shown": bool(compared and compared.shown)})
    family = both.comparisons[0].family if both.comparisons else 0
    notes = [
        "Differences are paired by seed, with their own 95 % interval; accuracies are of all seeds that a study has.",
        f"Shown: p below {ALPHA} after Holm's correction over {family} differences, and an interval without zero.",
    ]
    return Table("between", f"{other} next to {one}", headers, rows, notes, pd.DataFrame(data))


def between_settings(both: Between) -> list[str]:
    """In which settings the studies differ, a line each."""
    if not both.settings:
        return ["The studies have the same settings."]
    return [f"{key}: {_text(ours)} → {_text(theirs)}" for key, (ours, theirs) in both.settings.items()]


def _text(value: Any) -> str:
    return "null" if value is None else str(value)

"""Tables of results from elsewhere."""

import numpy as np
import pandas as pd

from analysis.elsewhere import VERDICTS, Elsewhere, sparsity_text
from analysis.statistics.intervals import Interval
from analysis.tables.table import NOTHING, Header, Table, percent, points_text, signed


def tables(results: Elsewhere) -> list[Table]:
    """Nets over data sets, their ranks, and every comparison."""
    made = [_nets(results), _comparisons(results)]
    if len(results.ranks):
        made.insert(1, _ranks(results))
    return made


def _nets(results: Elsewhere) -> Table:
    rows = results.nets
    verdicts = results.comparisons.groupby(["net", "sparsity"])["verdict"].value_counts().unstack(fill_value=0)
    # Without a margin, two of the verdicts cannot be.
    kinds = [name for name in VERDICTS if results.margin is not None or name not in ("costs less", "small loss")]
    text = []
    for row in rows.to_dict("records"):
        numbers = verdicts.loc[(row["net"], row["sparsity"])] if row["net"] != results.baseline else None
        counts = [NOTHING if numbers is None else str(numbers.get(name, 0)) for name in kinds]
        own = row["net"] == results.baseline
        increase = NOTHING if own or np.isnan(row["error_increase"]) else f"{signed(row['error_increase'])} %"
        against = [NOTHING if own else signed(row["difference"]), increase]
        text.append(
            [row["net"], sparsity_text(row["sparsity"]), str(row["data_sets"]), percent(row["mean"]), *against, *counts]
        )
    return Table(
        "nets",
        f"Nets, means over data sets, against {results.baseline}",
        [Header(name) for name in ("net", "sparsity", "data sets", "ACC %", f"minus {results.baseline}")]
        + [Header("test error")]
        + [Header(name, "comparisons") for name in kinds],
        text,
        [
            *_margin_note(results),
            "Test error: its relative increase over the baseline's on the same data set, mean over data sets.",
            *(["Means over other data sets are not comparable."] if rows["data_sets"].nunique() > 1 else []),
        ],
        rows,
    )


def _margin_note(results: Elsewhere) -> list[str]:
    if results.margin is None:
        return []
    return [f"Costs less: shown to cost less than {results.points}. Small loss: that, and shown to cost something."]


def _ranks(results: Elsewhere) -> Table:
    ranks = results.ranks
    grid = ranks.pivot_table(index="net", columns="sparsity", values="rank")
    grid = grid.reindex([results.baseline, *(net for net in grid.index if net != results.baseline)])
    p = ranks.groupby("sparsity")["friedman_p"].first()
    rows = [
        [net, *(NOTHING if np.isnan(v) else f"{v:.2f}" for v in row)]
        for net, row in zip(grid.index, grid.to_numpy(), strict=True)
    ]
    rows.append(["Friedman's test, p", *(NOTHING if np.isnan(p[s]) else f"{p[s]:.1e}" for s in grid.columns)])
    return Table(
        "ranks",
        "Mean rank over data sets, by sparsity (1 is the best)",
        [Header("net"), *(Header(sparsity_text(float(s)), "sparsity") for s in grid.columns)],
        rows,
        [f"{results.baseline} takes part at each sparsity. Only nets that were run on all data sets are ranked."],
        ranks,
    )


def _comparisons(results: Elsewhere) -> Table:
    rows, decided = results.comparisons, ("points [95 %]", "p (Holm)", "verdict")
    variance = "moderated variance" if results.variances.moderated.any() else "own variance"
    return Table(
        "comparisons",
        f"Every net against {results.baseline}, on each data set",
        [Header(name) for name in ("data set", "net", "sparsity", "runs", "ACC %")]
        + [Header(name, variance) for name in decided]
        + [Header(name, "Welch's t test", detail=True) for name in decided],
        [
            [
                *(row["data_set"], row["net"], sparsity_text(row["sparsity"]), str(row["runs"]), percent(row["mean"])),
                *_decided(row["difference"], row["low"], row["p_holm"], row["verdict"]),
                *_decided(row["difference"], row["welch_low"], row["welch_p_holm"], row["welch_verdict"]),
            ]
            for row in rows.to_dict("records")
        ],
        [results.variances.reason, *_margin_note(results), "Arms with a single run have no interval and no p."],
        rows,
    )


def _decided(difference: float, low: float, p: float, verdict: str) -> list[str]:
    half = None if pd.isna(low) else difference - low
    return [points_text(Interval(difference, half, 0)), NOTHING if pd.isna(p) else f"{p:.2g}", verdict]

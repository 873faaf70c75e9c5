"""The nets of a study with several streams: one net in each stream, and with the streams' scores fused."""

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, in_table, nets
from analysis.published import FUSED

Row = dict[str, Net]
"""One net as the streams have it, by stream."""


def stream_rows(results: Results, cells: pd.DataFrame) -> dict[str, Row]:
    """The nets of Table 4 by what their streams have in common, the paper's order down and the study's across."""
    rows: dict[str, Row] = {}
    found = nets(in_table(cells, "table4"))
    for stream in results.streams:
        for net in found:
            if net.stream == stream:
                rows.setdefault(net.variant, {})[stream] = net
    # A net may lack in the first stream and yet stand high in the order.
    order = list(dict.fromkeys(net.variant for net in found))
    return {name: rows[name] for name in order if name in rows}


def better_stream(row: Row, results: Results) -> Net | None:
    """The single stream with the highest mean validation accuracy over the seeds that all of them have.

    None if validation images were trained on: only the test set could tell then, and it never decides.
    """
    if results.facts.retrained_on_validation:
        return None
    single = [net for stream, net in row.items() if stream != FUSED and net.val_accuracy]
    seeds = set.intersection(*(set(net.val_accuracy) for net in single)) if single else set()
    return max(single, key=lambda net: sum(net.val_accuracy[seed] for seed in seeds)) if seeds else None

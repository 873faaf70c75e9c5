"""Table 4: every net in each stream and with the streams' scores fused, and what fusing gains."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, plain
from analysis.published import FUSED, STANDARD
from analysis.statistics.intervals import over_seeds, paired_difference
from analysis.streams import Row, better_stream, stream_rows
from analysis.tables.accuracy import PAIRED, Columns, Published, accuracy, minus, over_seeds_note, record, roles
from analysis.tables.table import (
    NOTHING,
    RETRAINED,
    Header,
    Table,
    interval_columns,
    percent,
    problem_notes,
    published_heading,
    rate,
    rate_text,
    seed_count,
)


def table4(results: Results, cells: pd.DataFrame) -> Table | None:
    """Accuracy and pruning rate of each net in each stream and fused."""
    rows = stream_rows(results, cells)
    if not rows:
        return None
    shown, paper = _nets(rows), _of_paper(results, rows)
    prune: Columns = [(Header("Prune %"), lambda net: rate_text(over_seeds(net.prune_percent)))]
    columns = accuracy(results, shown) + prune
    # Details last: three streams' would push the paper's values out of sight.
    details = [column for column in columns if column[0].detail]
    columns = [column for column in columns if not column[0].detail]
    headers = [Header("net"), Header("seeds"), *_headers(columns, results)]
    headers += [Header(stream, _paper_heading(results)) for stream in results.streams] if paper else []
    headers += _headers(details, results)
    text = []
    for name, row in rows.items():
        line = [name, _seeds(row, results)]
        line += _cells(row, columns, results)
        line += [_text(row, stream, lambda net: _pair(paper.get(net.label))) for stream in results.streams if paper]
        text.append(line + _cells(row, details, results))
    notes = [over_seeds_note(results), *fusion_notes(results), *problem_notes(shown, results.seeds)]
    data = [record(net, [_standard(cells, net)], results.seeds, paper, pruning=True) for net in shown]
    title = f"Table 4. Streams and their fusion on {results.facts.target.title}"
    return Table("table4", title, headers, text, notes, pd.DataFrame(data), _sources(rows))


def table4_differences(results: Results, cells: pd.DataFrame) -> Table | None:
    """What each net gains over Standard-TransferNet in each stream, and fusing over the better stream alone."""
    rows = stream_rows(results, cells)
    if not rows:
        return None
    group = f"{FUSED} minus the better single stream"
    headers = [Header("net")]
    headers += [Header(stream, f"ACC % minus {STANDARD}") for stream in results.streams]
    headers += [Header("stream", group), Header("ACC %", group)]
    text: list[list[str]] = []
    data: list[dict[str, object]] = []
    for name, row in rows.items():
        better, fused = better_stream(row, results), row.get(FUSED)
        line = [
            name,
            *(_text(row, stream, lambda net: minus(net, _standard(cells, net))) for stream in results.streams),
        ]
        line += [better.stream if better else NOTHING, minus(fused, better) if fused else NOTHING]
        text.append(line)
        pairs = [(net, baseline) for net in row.values() if (baseline := _standard(cells, net))]
        pairs += [(fused, better)] if fused and better else []
        data += [_difference(net, baseline) for net, baseline in pairs if net.stages != baseline.stages]
    chosen = "The better single stream has the higher validation ACC %; the test set only reports."
    notes = [PAIRED, RETRAINED if results.facts.retrained_on_validation else chosen]
    notes += fusion_notes(results) + problem_notes(_nets(rows), results.seeds)
    title = f"Table 4, differences. What transfer and fusion gain on {results.facts.target.title}"
    return Table("table4_differences", title, headers, text, notes, pd.DataFrame(data), _sources(rows))


def fusion_notes(results: Results) -> list[str]:
    """How the scores of the streams are fused, with their weights; nothing for a study without."""
    weights = results.facts.fusion
    if not weights:
        return []
    return [
        f"{FUSED}: scores fused {' : '.join(weights)} = {' : '.join(f'{weight:g}' for weight in weights.values())}."
    ]


def _sources(rows: dict[str, Row]) -> list[list[Net]]:
    return [[*row.values()] for row in rows.values()]


def _nets(rows: dict[str, Row]) -> list[Net]:
    return [net for row in rows.values() for net in row.values()]


def _of_paper(results: Results, rows: dict[str, Row]) -> dict[str, Published]:
    """The paper's values by label, stream by stream."""
    paper: dict[str, Published] = {}
    for stream, values in results.published.table4.items():
        paper |= roles([row[stream] for row in rows.values() if stream in row], values)
    return paper


def _paper_heading(results: Results) -> str:
    return f"{published_heading(results)}, ACC % / Prune %"


def _pair(theirs: Published | None) -> str:
    return f"{percent(theirs.accuracy)} / {rate(theirs.prune)}" if theirs else NOTHING


def _headers(columns: Columns, results: Results) -> list[Header]:
    return [replace(header, group=stream) for stream in results.streams for header, _ in columns]


def _cells(row: Row, columns: Columns, results: Results) -> list[str]:
    return [_text(row, stream, cell) for stream in results.streams for _, cell in columns]


def _text(row: Row, stream: str, cell: Callable[[Net], str]) -> str:
    return cell(row[stream]) if stream in row else NOTHING


def _seeds(row: Row, results: Results) -> str:
    """``3``, or each stream's number in the order of the columns if they differ."""
    counts = [_text(row, stream, lambda net: seed_count(net, results.seeds)) for stream in results.streams]
    return counts[0] if len(set(counts)) == 1 else " / ".join(counts)


def _standard(cells: pd.DataFrame, net: Net) -> Net | None:
    return plain(cells, STANDARD, net.stream)


def _difference(net: Net, baseline: Net) -> dict[str, object]:
    difference = paired_difference(net.accuracy, baseline.accuracy)
    row: dict[str, object] = {"net": net.variant, "stream": net.stream}
    row |= {"minus_net": baseline.variant, "minus_stream": baseline.stream}
    return row | interval_columns("", difference) | {"pairs": difference.n if difference else 0}

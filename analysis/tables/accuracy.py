"""Tables 1 and 3 and the controls: accuracy of each net, and its paired difference to a baseline.

Table 4 has its own module and shares the columns of this one.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd

from analysis.comparisons import comparisons
from analysis.loading import Results
from analysis.nets import Net, in_table, nets, plain
from analysis.published import CONNECTIONS, HYBRID, NEURONS, PROBE, STANDARD
from analysis.statistics.intervals import over_seeds, paired_difference
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    difference_text,
    each_seed,
    interval_columns,
    interval_text,
    percent,
    problem_notes,
    problem_text,
    published_heading,
    rate,
    rate_text,
    rates_text,
    seed_count,
    seeds_text,
)

PAIRED = "Differences are paired by seed, with their own 95 % interval."
LOOKED = (
    "Seeds were added while looking, for which intervals here take no account: whether a difference is shown is in "
    "the table of comparisons."
)
# With fewer classes nearly everything is among the five most probable ones.
CLASSES_FOR_TOP5 = 10
Columns = list[tuple[Header, Callable[[Net], str]]]


class Published(NamedTuple):
    """The paper's net that plays the role of ours; Table 1 has no pruning rate."""

    net: str
    accuracy: float
    prune: float = 0.0


def table1(results: Results, cells: pd.DataFrame) -> Table | None:
    """Accuracy of the four transfer nets."""
    rows = nets(in_table(cells, "table1"))
    standard = plain(cells, STANDARD)
    paper = {net: Published(net, accuracy) for net, accuracy in results.published.table1.items()}
    columns = _names(results.seeds) + accuracy(results, rows) + _difference(standard)
    if paper:
        columns += [(Header(published_heading(results)), _of_paper(paper, lambda theirs: percent(theirs.accuracy)))]
    title = f"Table 1. Transfer nets on {results.facts.target.title}"
    data = [record(net, [standard], results.seeds, paper) for net in rows]
    return _table("table1", title, rows, columns, data, results)


def table3(results: Results, cells: pd.DataFrame) -> Table | None:
    """Accuracy and pruning rate of the nets that are named in Table 3."""
    rows = nets(in_table(cells, "table3"))
    standard = plain(cells, STANDARD)
    paper = roles(rows, results.published.table3)
    columns = _names(results.seeds) + accuracy(results, rows) + _prune_rate(results.seeds) + _difference(standard)
    if paper:
        heading = published_heading(results)
        columns += [
            (Header("net", heading), _of_paper(paper, lambda theirs: theirs.net)),
            (Header("ACC %", heading), _of_paper(paper, lambda theirs: percent(theirs.accuracy))),
            (Header("Prune %", heading), _of_paper(paper, lambda theirs: rate(theirs.prune))),
        ]
    title = f"Table 3. Pruning in the target domain on {results.facts.target.title}"
    data = [record(net, [standard], results.seeds, paper, pruning=True) for net in rows]
    return _table("table3", title, rows, columns, data, results)


def controls(results: Results, cells: pd.DataFrame) -> Table | None:
    """The controls (random masks, shuffled knowledge) under the nets that they are controls of."""
    rows = nets(in_table(cells, "controls"))
    if not rows:
        return None
    standard, hybrid = plain(cells, STANDARD), plain(cells, HYBRID)
    shown = {row.stages for row in rows}
    rows = [net for net in (standard, hybrid) if net is not None and net.stages not in shown] + rows
    columns = _names(results.seeds) + accuracy(results, rows) + _difference(standard) + _difference(hybrid)
    title = f"Controls on {results.facts.target.title}"
    data = [record(net, [standard, hybrid], results.seeds, {}) for net in rows]
    return _table("controls", title, rows, columns, data, results)


def probes(results: Results, cells: pd.DataFrame) -> Table | None:
    """Linear probes of the source nets, next to the net that is fine-tuned."""
    rows = nets(in_table(cells, "probes"))
    if not rows:
        return None
    standard, dense = plain(cells, STANDARD), plain(cells, PROBE)
    columns = _names(results.seeds) + accuracy(results, rows) + _prune_rate(results.seeds)
    columns += _difference(standard) + _difference(dense)
    title = f"Linear probes on {results.facts.target.title}: only the output layer is trained"
    data = [record(net, [standard, dense], results.seeds, {}, pruning=True) for net in rows]
    return _table("probes", title, rows, columns, data, results)


def over_seeds_note(results: Results) -> str:
    """What the accuracies of a table are."""
    return (
        f"Mean ± half-width of the 95 % interval over seeds (Student t), top-1 on the test images{results.evaluation}."
    )


def minus(net: Net, baseline: Net | None) -> str:
    """The paired difference as text; a net has none to itself."""
    if baseline is None or net.stages == baseline.stages:
        return NOTHING
    return difference_text(paired_difference(net.accuracy, baseline.accuracy), len(net.accuracy))


def difference_columns(prefix: str, net: Net, baseline: Net | None) -> dict[str, float | None]:
    """CSV columns of the paired difference, none without a baseline."""
    if baseline is None:
        return {}
    difference = None if net.stages == baseline.stages else paired_difference(net.accuracy, baseline.accuracy)
    return interval_columns(prefix, difference) | {f"{prefix}pairs": difference.n if difference else 0}


def _table(
    name: str, title: str, rows: list[Net], columns: Columns, data: list[dict[str, object]], results: Results
) -> Table | None:
    if not rows:
        return None
    text = [[cell(net) for _, cell in columns] for net in rows]
    notes = [
        over_seeds_note(results),
        PAIRED,
        *[LOOKED] * (results.facts.sequential is not None),
        *problem_notes(rows, results.seeds),
    ]
    headers, sources = [header for header, _ in columns], [[net] for net in rows]
    bold = _best_if_shown(rows, headers, results)
    return Table(name, title, headers, text, notes, pd.DataFrame(data), sources, bold)


def _best_if_shown(rows: list[Net], headers: list[Header], results: Results) -> frozenset[tuple[int, int]]:
    """The cell of the highest accuracy, if a comparison shows that its net is better than what it is compared with."""
    better = {one.question.net.stages for one in comparisons(results) if one.shown and one.mean and one.mean.mean > 0}
    means = {row: over.mean for row, net in enumerate(rows) if (over := over_seeds(net.accuracy)) is not None}
    best = max(means, key=lambda row: means[row], default=None)
    if best is None or rows[best].stages not in better:
        return frozenset()
    return frozenset({(best, [header.name for header in headers].index("ACC %"))})


def _names(seeds: list[int]) -> Columns:
    return [(Header("net"), lambda net: net.label), (Header("seeds"), lambda net: seed_count(net, seeds))]


def accuracy(results: Results, rows: list[Net]) -> Columns:
    """Top-1 and each seed's; top-5 too if there are many classes."""
    seeds = results.seeds
    columns: Columns = [
        (Header("ACC %"), lambda net: interval_text(over_seeds(net.accuracy))),
        (each_seed(seeds, "ACC %"), lambda net: seeds_text(net.accuracy, net, seeds)),
    ]
    if results.facts.target.classes > CLASSES_FOR_TOP5 and any(net.top5_accuracy for net in rows):
        top5 = Header("top-5 ACC %", detail=True)
        columns += [(top5, lambda net: interval_text(over_seeds(net.top5_accuracy)))]
    return columns


def _prune_rate(seeds: list[int]) -> Columns:
    return [
        (Header("Prune %"), lambda net: rate_text(over_seeds(net.prune_percent))),
        (each_seed(seeds, "Prune %"), lambda net: rates_text(net.prune_percent, net, seeds)),
    ]


def _difference(baseline: Net | None) -> Columns:
    return [(Header(f"ACC % minus {baseline.name}"), lambda net: minus(net, baseline))] if baseline else []


def _of_paper(paper: dict[str, Published], text: Callable[[Published], str]) -> Callable[[Net], str]:
    return lambda net: text(paper[net.label]) if net.label in paper else NOTHING


def roles(rows: list[Net], published: Mapping[str, tuple[float, float]]) -> dict[str, Published]:
    """The paper's net for each row, by label: its C nets next to ours in order, the least pruned first."""
    paper = {net: Published(net, *values) for net, values in published.items()}
    theirs = [net for net in paper if net not in (STANDARD, HYBRID, NEURONS)]
    ours = [net.label for net in rows if net.name.startswith(CONNECTIONS)]
    same_name = {net.label: paper[net.variant] for net in rows if net.variant in paper and net.label not in ours}
    return same_name | {label: paper[net] for label, net in zip(ours, theirs, strict=False)}


def record(
    net: Net, baselines: list[Net | None], seeds: list[int], paper: Mapping[str, Published], pruning: bool = False
) -> dict[str, object]:
    """Everything that is known of a net: a row of the CSV."""
    variant = net.cells.iloc[0]
    row: dict[str, object] = {"net": net.variant}
    row |= {"stream": net.stream} if net.stream else {}
    row |= {key: variant[key] for key in ("sparsity", "knowledge", "target_knowledge")}
    row |= {"seeds": len(net.accuracy), **interval_columns("", over_seeds(net.accuracy))}
    row |= interval_columns("top5_", over_seeds(net.top5_accuracy))
    for baseline, prefix in zip(baselines, ("diff_", "diff_hybrid_"), strict=False):
        row |= difference_columns(prefix, net, baseline)
    if pruning:
        row |= interval_columns("prune_", over_seeds(net.prune_percent))
    if paper:
        theirs = paper.get(net.label)
        row |= {"published_net": theirs and theirs.net, "published": theirs and theirs.accuracy}
        row |= {"published_prune": theirs and theirs.prune} if pruning else {}
    row |= {f"seed_{seed}": net.accuracy.get(seed) for seed in seeds}
    row |= {f"top5_seed_{seed}": net.top5_accuracy.get(seed) for seed in seeds}
    row |= {f"prune_seed_{seed}": net.prune_percent.get(seed) for seed in seeds} if pruning else {}
    return row | {"problems": problem_text(net)}

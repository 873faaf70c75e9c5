"""The paper's further claims, a family of their own.

S and K over both settings of the other, K while pruning, and nets next to those that they were made from.
In the 2 x 2 design of the four transfer nets, a part's main effect is the mean of two differences by seed, with and
without the other part: it asks the same with less noise than either of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.comparisons import Comparison, judged
from analysis.loading import Results, once
from analysis.nets import Net, in_table, nets, off_axis, outcomes, plain
from analysis.published import CONNECTIONS, HYBRID, KNOWLEDGE_ONLY, NEURONS, SPARSE_ONLY, STANDARD
from analysis.questions import Question
from analysis.statistics.intervals import differences

WITHOUT_KNOWLEDGE = "Sparse-TargetNet(K-)_"
WITH_KNOWLEDGE = "Sparse-TargetNet_"


@once
def further_comparisons(results: Results) -> list[Comparison]:
    """The further claims that the study has the nets for; none of a two-stream study."""
    cells = off_axis(outcomes(results))
    cells = cells[cells["stream"] == ""]
    found = [*_main_effects(cells), *_knowledge_while_pruning(cells), *_pairs(cells)]
    return judged(found, results.facts.sequential)


def _main_effects(cells: pd.DataFrame) -> Iterator[Comparison]:
    four = [plain(cells, name) for name in (STANDARD, SPARSE_ONLY, KNOWLEDGE_ONLY, HYBRID)]
    standard, sparse, knowledge, hybrid = four
    if standard is None or sparse is None or knowledge is None or hybrid is None:
        return
    alone, with_other = (
        differences(sparse.accuracy, standard.accuracy),
        differences(hybrid.accuracy, knowledge.accuracy),
    )
    yield _contrast("Sparsity (S), mean over K- and K+", sparse, standard, [alone, with_other])
    k_alone, k_with = differences(knowledge.accuracy, standard.accuracy), differences(hybrid.accuracy, sparse.accuracy)
    yield _contrast("Knowledge (K), mean over S- and S+", knowledge, standard, [k_alone, k_with])
    # What S adds to K, less what it adds alone: the same number as K's to S.
    less = {seed: -value for seed, value in alone.items()}
    yield _contrast("Interaction of S and K", hybrid, standard, [with_other, less], total=True)


def _contrast(
    subject: str, net: Net, baseline: Net, parts: Sequence[Mapping[int, float]], *, total: bool = False
) -> Comparison:
    """The mean, or the total, of several differences by seed, of the seeds that have all of them."""
    seeds = sorted(set.intersection(*(set(part) for part in parts)))
    combine = np.sum if total else np.mean
    values = {seed: float(combine([part[seed] for part in parts])) for seed in seeds}
    return Comparison(Question("further", subject, net, baseline), values)


def _knowledge_while_pruning(cells: pd.DataFrame) -> Iterator[Comparison]:
    """Figure 3's curves: K+ against K- at each named rate, and over all rates."""
    with_k = {net.name.removeprefix(WITH_KNOWLEDGE): net for net in _points(cells, WITH_KNOWLEDGE)}
    without = {net.name.removeprefix(WITHOUT_KNOWLEDGE): net for net in _points(cells, WITHOUT_KNOWLEDGE)}
    named = {net.name for net in nets(in_table(cells, "table3"))}
    rates = [rate for rate in with_k if rate in without]
    for rate in rates:
        if with_k[rate].name in named:
            yield _between(f"Knowledge while pruning, {rate}", with_k[rate], without[rate])
    if len(rates) > 1:
        both = [differences(with_k[rate].accuracy, without[rate].accuracy) for rate in rates]
        subject = f"Knowledge while pruning, mean over {rates[0]} to {rates[-1]}"
        yield _contrast(subject, with_k[rates[0]], without[rates[0]], both)


def _points(cells: pd.DataFrame, prefix: str) -> list[Net]:
    curve = cells[cells["curve"].notna() & cells["net"].str.startswith(prefix)]
    return nets(curve) if len(curve) else []


def _pairs(cells: pd.DataFrame) -> Iterator[Comparison]:
    """Hybrid-TransferNet against each half of it, and the named pruned nets against Hybrid-TransferNet."""
    hybrid = plain(cells, HYBRID)
    if hybrid is None:
        return
    for name in (SPARSE_ONLY, KNOWLEDGE_ONLY):
        if half := plain(cells, name):
            yield _between(f"{HYBRID} against {name}", hybrid, half)
    for net in nets(in_table(cells, "table3")):
        if net.name.startswith((CONNECTIONS, NEURONS)):
            yield _between(f"{net.variant} against {HYBRID}", net, hybrid)


def _between(subject: str, net: Net, baseline: Net) -> Comparison:
    return Comparison(Question("further", subject, net, baseline), differences(net.accuracy, baseline.accuracy))

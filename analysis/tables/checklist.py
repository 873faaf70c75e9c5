"""The checklist of the pruning literature, answered from the study's own numbers.

Blalock, Gonzalez Ortiz, Frankle and Guttag, "What is the state of neural network pruning?", MLSys 2020, appendix B.
"""

from typing import Literal, NamedTuple

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, in_table, nets, off_axis
from analysis.statistics.intervals import over_seeds
from analysis.tables.table import NOTHING, Header, Table, interval_columns, interval_text, rate_text, seed_count

Answer = Literal["yes", "partly", "no"]
LEAST_POINTS = 5
LEAST_SEEDS = 3


NOTES = {
    f"{size}_alexnet": "AlexNet's order of layers (five convolutions, three inner products), but far narrower and for "
    f"{pixels} images of one channel, without groups and normalisation: not the net of the paper, do not "
    "compare its numbers"
    for size, pixels in (("small", "24 x 24"), ("tiny", "8 x 8"))
} | {
    "bvlc_alexnet": "AlexNet as in the Caffe model zoo, with grouped convolutions and local response normalisation: "
    "the paper's",
    "alexnet": "AlexNet as in torchvision: unlike the paper's, no groups and no local response normalisation, other "
    "widths",
    "vgg16": "VGG-16 as in torchvision, configuration D of Simonyan and Zisserman 2014",
    "vgg16_flow": "VGG-16 with 20 input channels, ten stacked flow fields",
}
"""How the known networks differ from the ones that are cited."""
LIBRARIES = ("torchvision:", "timm:")
NOTES["caffenet"] = NOTES["bvlc_alexnet"]  # its name in earlier versions


class Item(NamedTuple):
    """One item of the checklist."""

    question: str
    answer: Answer
    detail: str


def checklist(results: Results, cells: pd.DataFrame) -> list[Item]:
    """The items; none if the study prunes no net in the target."""
    points = _points(cells)
    if not points:
        return []
    return [
        _architecture(results),
        _operating_points(points),
        _efficiency(results, points),
        _accuracies(points),
        _seeds(results),
        _controls(cells),
        _raw(points, results),
    ]


def operating_points(results: Results, cells: pd.DataFrame) -> Table | None:
    """Compression ratio, theoretical speed-up and raw accuracy at every point of the pruning curves."""
    points = _points(cells)
    if not points:
        return None
    headers = [Header("net"), Header("seeds"), Header("compression ratio"), Header("theoretical speed-up")]
    headers += [Header("ACC %"), Header("top-5 ACC %"), Header("Prune %")]
    text, data = [], []
    for net in points:
        compression, speedup = ratios_of(results, net)
        text.append(
            [
                *(net.label, seed_count(net, results.seeds), _times(compression), _times(speedup)),
                *(interval_text(over_seeds(net.accuracy)), _top5(net), rate_text(over_seeds(net.prune_percent))),
            ]
        )
        row: dict[str, object] = {"net": net.variant, "stream": net.stream, "seeds": len(net.accuracy)}
        row |= {"compression_ratio": compression, "theoretical_speedup": speedup}
        row |= interval_columns("", over_seeds(net.accuracy)) | interval_columns("top5_", over_seeds(net.top5_accuracy))
        data.append(row | interval_columns("prune_", over_seeds(net.prune_percent)))
    notes = [
        "Compression ratio: connections of the unpruned architecture over those left. Theoretical speed-up: the same "
        "of multiply-adds for one image (each connection of a convolution as often as its output has positions). Means "
        "over seeds. Masked connections are multiplied all the same here: only removed neurons save time."
    ]
    title = f"Operating points on {results.facts.target.title}"
    return Table("operating_points", title, headers, text, notes, pd.DataFrame(data), [[net] for net in points])


def ratios_of(results: Results, net: Net) -> tuple[float | None, float | None]:
    """Compression ratio and theoretical speed-up of a net, mean over seeds; None if the tables do not tell."""
    done = net.cells.loc[net.cells["problem"] == "", ["stage"]]
    stages = done.merge(results.stages[["stage", "connections_dense", "connections"]], on="stage")
    compression = (stages["connections_dense"] / stages["connections"]).mean()
    layers = stages[["stage"]].merge(results.layers, on="stage")
    speedups = _speedups(layers)
    speedup = sum(speedups) / len(speedups) if speedups and len(speedups) == len(stages) else None
    return None if pd.isna(compression) else float(compression), speedup


def _speedups(layers: pd.DataFrame) -> list[float]:
    """Multiply-adds of the unpruned net over those left, a stage; none for a stage of before the column."""
    unknown = layers.loc[layers["positions"].isna(), "stage"]
    layers = layers[~layers["stage"].isin(unknown)]
    counts = layers[["connections_dense", "connections"]].mul(layers["positions"], axis=0)
    sums = counts.groupby(layers["stage"]).sum()
    sums = sums[sums["connections"] > 0]
    return [float(ratio) for ratio in sums["connections_dense"] / sums["connections"]]


def _points(cells: pd.DataFrame) -> list[Net]:
    """The pruned nets: points of Figure 3's curves, and those that Tables 3 and 4 name."""
    cells = off_axis(cells)
    named = in_table(cells, "table3", "table4").index
    return nets(cells[cells["keep"].notna() & (cells["curve"].notna() | cells.index.isin(named))])


def _architecture(results: Results) -> Item:
    networks = sorted({results.facts.network, *results.stages["network"].unique()} - {""})
    known = {name: NOTES[name] for name in networks if name in NOTES}
    known |= {name: f"as {name.partition(':')[0]} builds it" for name in networks if name.startswith(LIBRARIES)}
    notes = [f"{name}: {note}" for name, note in known.items()]
    unknown = [name for name in networks if name not in known]
    if unknown:
        notes.append(f"{', '.join(unknown)}: not known here, state yourself how it differs from what you cite")
    answer: Answer = "yes" if not unknown else "partly" if len(unknown) < len(networks) else "no"
    return Item("Is the architecture identified, with its differences from the cited one?", answer, "; ".join(notes))


def _operating_points(points: list[Net]) -> Item:
    # The curve without knowledge has the same rates once more.
    streams = [net.stream for net in points if "(K-)" not in net.name]
    counts = {stream: streams.count(stream) for stream in dict.fromkeys(net.stream for net in points)}
    least = min(counts.values())
    answer: Answer = "yes" if least >= LEAST_POINTS else "partly" if least > 1 else "no"
    known = ", ".join(f"{number} of {stream}" if stream else str(number) for stream, number in counts.items())
    return Item(f"At least {LEAST_POINTS} operating points?", answer, f"pruned nets: {known}")


def _efficiency(results: Results, points: list[Net]) -> Item:
    ratios = [ratios_of(results, net) for net in points]
    have = [sum(ratio[i] is not None for ratio in ratios) for i in (0, 1)]
    answer: Answer = "yes" if min(have) == len(points) else "partly" if max(have) else "no"
    detail = f"compression ratio of {have[0]} of {len(points)} nets, theoretical speed-up (multiply-adds) of {have[1]}"
    if have[1] < len(points):
        detail += "; where it lacks, only connections are known: output sizes of convolutions are in no table"
    return Item("Both compression ratio and theoretical speed-up?", answer, detail)


def _accuracies(points: list[Net]) -> Item:
    top1, top5 = (sum(bool(values) for values in column) for column in _columns(points))
    answer: Answer = "yes" if min(top1, top5) == len(points) else "partly" if max(top1, top5) else "no"
    return Item("Both top-1 and top-5 accuracy?", answer, f"top-1 of {top1} of {len(points)} nets, top-5 of {top5}")


def _columns(points: list[Net]) -> list[list[dict[int, float]]]:
    return [[net.accuracy for net in points], [net.top5_accuracy for net in points]]


def _seeds(results: Results) -> Item:
    n = len(results.seeds)
    answer: Answer = "yes" if n >= LEAST_SEEDS else "partly" if n > 1 else "no"
    bars = "error bars are 95 % intervals of the mean (Student t)" if n > 1 else "one seed has no error bar"
    return Item("Several seeds, with error bars that are defined?", answer, f"{n} seed{'s' * (n != 1)}; {bars}")


def _controls(cells: pd.DataFrame) -> Item:
    done = cells[cells["problem"] == ""]
    random = int((done["sparsity"] == "random").sum())
    magnitude = int(((done["sparsity"] == "magnitude") & (done["knowledge"] != "shuffled")).sum())
    answer: Answer = "yes" if random and magnitude else "partly" if random or magnitude else "no"
    detail = f"in the source domain {magnitude} cells with magnitude pruning, {random} with random masks"
    detail += "; in the target domain only magnitude pruning"
    return Item("Compared with random and with magnitude pruning?", answer, detail)


def _raw(points: list[Net], results: Results) -> Item:
    have, all_ = sum(len(net.accuracy) for net in points), len(points) * len(results.seeds)
    answer: Answer = "yes" if have == all_ else "partly" if have else "no"
    return Item("Raw accuracy at every point?", answer, f"{have} of {all_} (nets times seeds); curves in figure3.csv")


def _top5(net: Net) -> str:
    return interval_text(over_seeds(net.top5_accuracy)) if net.top5_accuracy else NOTHING


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}\N{MULTIPLICATION SIGN}"

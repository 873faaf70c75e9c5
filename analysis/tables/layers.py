"""Table 2 (neurons and weights of the layers that lose neurons) and the ratios of the two losses."""

from collections.abc import Iterator

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, by_seed, in_table, nets
from analysis.published import Layer
from analysis.statistics.intervals import over_seeds
from analysis.tables.table import (
    NOTHING,
    Header,
    Table,
    count,
    each_seed,
    interval_columns,
    percent,
    problem_notes,
    published_heading,
    rates_text,
    seed_count,
)

QUANTITIES = ["neurons", "weights", "pruned neurons %", "pruned weights %"]
COUNTS = {
    "neurons_before": "neurons_before",
    "neurons": "neurons",
    "connections_before": "weights_before",
    "connections": "weights",
}
RATIOS = {
    "loss_ratio": "λ·L_extra / L_main",
    "kl_ratio": "λ·KL / L_main",
    "gradient_ratio": "|∇ λ·L_extra| / |∇ L_main|",
}


def table2(results: Results, cells: pd.DataFrame) -> Table | None:
    """Neurons and weights of inner products before and after neuron pruning; of all layers, if channels are removed."""
    rows = nets(in_table(cells, "table2"))
    if not rows:
        return None
    published = results.published.table2
    seeds = results.seeds
    several = len(rows) > 1
    headers = [Header(name) for name in [*(["net"] if several else []), "layer", "seeds", *QUANTITIES]]
    headers += [each_seed(seeds, name) for name in QUANTITIES[2:]]
    headers += [Header(name, published_heading(results)) for name in ["layer", *QUANTITIES]] if published else []
    text, data, sources = [], [], []
    for net in rows:
        layers = list(_by_layer(net, results)) or [("no result", pd.DataFrame())]
        # Roles are counted from the output, as a net may have fewer inner-product layers than the paper's three.
        paper = dict(zip([name for name, _ in layers][::-1], published[::-1], strict=False))
        for name, frame in layers:
            theirs = _published_text(paper.get(name)) if published else []
            label = [net.label] if several else []
            sources.append([net])
            text.append([*label, name, seed_count(net, seeds), *_text(frame, net, seeds), *theirs])
            record = {"net": net.label, "layer": name, "seeds": len(frame)}
            data.append(record | _record(frame, seeds, paper.get(name)))
    notes = ["Means over seeds. Neurons and weights (connections, no biases): before → after neuron pruning."]
    title = f"Table 2. Neuron pruning on {results.facts.target.title}: {', '.join(net.label for net in rows)}"
    return Table("table2", title, headers, text, notes + problem_notes(rows, seeds), pd.DataFrame(data), sources)


def ratios(results: Results, cells: pd.DataFrame) -> Table | None:
    """Measured weight of the extra loss relative to the main loss, for every net trained with knowledge."""
    headers = [Header("net"), Header("seeds")]
    headers += [Header(epoch, name) for name in RATIOS.values() for epoch in ("first epoch", "last epoch")]
    text, data, sources = [], [], []
    for net in nets(cells[cells["problem"] == ""]):
        epochs = net.cells[["seed", "stage"]].merge(results.epochs, on="stage").dropna(subset=["loss_ratio"])
        if epochs.empty:
            continue
        grouped = epochs.sort_values(["round", "epoch"]).groupby("seed")[list(RATIOS)]
        # first() and last() would skip nulls: nth takes the epoch asked for.
        means = {(column, n): grouped.nth(n)[column].mean() for column in RATIOS for n in (0, -1)}
        sources.append([net])
        text.append([net.label, str(grouped.ngroups), *(_ratio(mean) for mean in means.values())])
        words = {0: "first", -1: "last"}
        data.append(
            {"net": net.label, "seeds": grouped.ngroups}
            | {f"{column}_{words[n]}": mean for (column, n), mean in means.items()}
        )
    if not text:
        return None
    notes = [
        "Means over seeds; gradients at the shared layer's output, first batch of the epoch. KL is L_extra less the "
        "entropy of the reference's softened outputs, below which it cannot fall: it has the same gradient."
    ]
    return Table("ratios", "Weight of the extra loss, as measured", headers, text, notes, pd.DataFrame(data), sources)


def _ratio(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:.3g}"


def _by_layer(net: Net, results: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each layer that neurons are removed from, and the output; then their total, with a row per seed."""
    layers = _over_all_steps(net, results)
    if layers.empty:
        return
    # Layers of most networks have several weights, in the order in which the net has them.
    weights = layers.sort_values("layer_index", kind="stable")["layer"].unique()
    for weight in weights:
        name = "Output" if weight == weights[-1] else _name(str(weight))
        yield name, _pruned(layers[layers["layer"] == weight].set_index("seed"))
    yield "Total", _pruned(layers.groupby("seed")[list(COUNTS)].sum())


def _over_all_steps(net: Net, results: Results) -> pd.DataFrame:
    """The layers of each seed's net, ``before`` being what the first of its steps of neuron pruning saw.

    Mostly that is one stage; with ``neuron_prune.steps`` each step is a stage. Convolutions are left out, unless some
    seed's net has lost channels of one.
    """
    kinds = dict(zip(results.stages["stage"], results.stages["kind"], strict=True))
    done = net.cells.loc[net.cells["problem"] == "", ["seed", "stage", "path"]]
    first = [
        next((step for step in path if kinds.get(step) == "neuron_prune"), stage)
        for stage, path in zip(done["stage"], done["path"], strict=True)
    ]
    # Where every seed failed, an untyped column would be one of numbers.
    done = done.assign(first=pd.Series(first, index=done.index, dtype=done["stage"].dtype))
    layers = results.layers
    before = ["neurons_before", "connections_before"]
    after = done.merge(layers.drop(columns=before), on="stage")
    seen = layers[["stage", "layer", *before]].rename(columns={"stage": "first"})
    counts = after.merge(seen, on=["first", "layer"], how="left")
    products = counts["type"] == "inner_product"
    lost = counts["neurons"] < counts["neurons_before"]
    return counts if (lost & ~products).any() else counts[products]


def _name(weight: str) -> str:
    """A layer as the paper writes it (FC6), if it is one of the paper's."""
    return weight.upper() if weight.isalnum() else weight


def _pruned(counts: pd.DataFrame) -> pd.DataFrame:
    frame = counts[list(COUNTS)].rename(columns=COUNTS).sort_index()
    return frame.assign(
        pruned_neurons=100 * (1 - frame["neurons"] / frame["neurons_before"]),
        pruned_weights=100 * (1 - frame["weights"] / frame["weights_before"]),
    )


def _text(frame: pd.DataFrame, net: Net, seeds: list[int]) -> list[str]:
    if frame.empty:
        return [NOTHING] * len(QUANTITIES) + [rates_text({}, net, seeds)] * 2
    mean = frame.mean()
    pruned = ["pruned_neurons", "pruned_weights"]
    arrows = [f"{count(mean[f'{name}_before'])} → {count(mean[name])}" for name in ("neurons", "weights")]
    every = [rates_text(by_seed(frame[name]), net, seeds, percent) for name in pruned]
    return arrows + [percent(mean[name]) for name in pruned] + every


def _published_text(row: Layer | None) -> list[str]:
    if row is None:
        return [NOTHING] * (len(QUANTITIES) + 1)
    neurons = f"{count(row.neurons_before)} → {count(row.neurons)}"
    weights = f"{row.kiloweights_before}K → {row.kiloweights}K"
    return [row.name, neurons, weights, percent(row.pruned_neurons), percent(row.pruned_weights)]


def _record(frame: pd.DataFrame, seeds: list[int], paper: Layer | None) -> dict[str, object]:
    record: dict[str, object] = {}
    for name in frame.columns:
        values = by_seed(frame[name])
        record |= interval_columns(f"{name}_", over_seeds(values))
        record |= {f"{name}_seed_{seed}": values.get(seed) for seed in seeds}
    if paper is not None:
        record |= {
            "published_layer": paper.name,
            "published_neurons_before": paper.neurons_before,
            "published_neurons": paper.neurons,
            "published_weights_before": 1000 * paper.kiloweights_before,
            "published_weights": 1000 * paper.kiloweights,
            "published_pruned_neurons": paper.pruned_neurons,
            "published_pruned_weights": paper.pruned_weights,
        }
    return record

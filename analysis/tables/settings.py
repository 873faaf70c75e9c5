"""What the nets were trained with: the source nets that all others start from, and the hyperparameters of each kind."""

import json
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import pandas as pd
from scipy.special import ndtri

from analysis.loading import Results
from analysis.published import FUSED
from analysis.statistics.intervals import LEVEL, Interval, over_seeds
from analysis.tables.table import NOTHING, Header, Table, interval_columns, interval_text, percent, rate_text

REFERENCE, SPARSE = "Reference-SourceNet", "Sparse-SourceNet"
SOURCES = {"reference": REFERENCE, "magnitude": SPARSE, "random": f"{SPARSE}, random masks"}
KINDS = ("reference", "source_prune", "transfer", "target_prune", "neuron_prune", "probe")
OFF: dict[str, Any] = {
    "decay_all": True,
    "nesterov": False,
    "gamma": 0.1,
    "warmup_epochs": 0.0,
    "layer_decay": 1.0,
    "label_smoothing": 0.0,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "batch_norm": "train",
    "rescale_dropout": True,
    "precision": "float32",
    "hinton_factor": False,
    "live": False,
    "round_to": 1,
}
"""Values that need no row: with them the setting does nothing, or what everybody expects."""


def source_nets(results: Results, cells: pd.DataFrame) -> Table | None:
    """Accuracy in the source domain, and share pruned, of the nets that the study's transfers start from."""
    stages = results.stages.set_index("stage")
    stages = stages[stages["status"] == "done"]
    names = _names_of_source_nets(stages)
    ends: dict[tuple[str, str], dict[str, None]] = {}
    for stream, path in zip(cells["stream"], cells["path"], strict=True):
        if stream == FUSED:
            continue
        # Of a pruned net its last step.
        for name, stage in {names[stage]: stage for stage in path if stage in names}.items():
            ends.setdefault((stream, name), {})[stage] = None
    if not ends:
        return None
    headers = [Header(name) for name in ("net", "nets trained", "source ACC %", "source top-5 ACC %", "Prune %")]
    rows, data = [], []
    order = [(stream, name) for stream in results.streams or [""] for name in SOURCES.values()]
    for key in [key for key in order if key in ends]:
        found, name = stages.loc[[*ends[key]]], ", ".join(filter(None, reversed(key)))
        columns = ("test_accuracy", "test_top5_accuracy", "prune_percent")
        top1, top5, pruned = (over_seeds(dict(enumerate(found[column].dropna()))) for column in columns)
        shown = [_accuracy(one) for one in (top1, top5)]
        rows.append([name, f"{len(found):,}", *shown, rate_text(pruned) if pruned else NOTHING])
        data.append(
            {"net": name, "nets": len(found)}
            | interval_columns("acc_", top1)
            | interval_columns("top5_", top5)
            | interval_columns("prune_", pruned)
        )
    notes = ["Top-1 and top-5 on the source's own test images."]
    if results.published.table1:
        notes.append("Paper (AlexNet on ImageNet): Sparse-SourceNet 88.0 % pruned, top-1 57.4 %, top-5 80.4 %.")
    if len(results.seeds) > 1 and any(len(found) == 1 for found in ends.values()):
        notes.append(
            "All seeds share a net that was trained once. What the study shows is shown of it: its intervals do not "
            "tell how another source net would do. With source.seed=null each seed trains its own."
        )
    notes += _of_these_test_images(results, cells)
    return Table(
        "source_nets", f"Source nets on {results.facts.source.title}", headers, rows, notes, pd.DataFrame(data)
    )


def _of_these_test_images(results: Results, cells: pd.DataFrame) -> Iterator[str]:
    """How far a net's accuracy hangs on the test images, of which all seeds have the same: as a binomial share does."""
    accuracy = results.stages.set_index("stage")["test_accuracy"].reindex(cells["measured"]).dropna()
    images = results.confusion.groupby("stage")["images"].sum().reindex(accuracy.index).max()
    if accuracy.empty or pd.isna(images):
        return
    share = accuracy.mean() / 100
    half = 100 * float(ndtri((1 + LEVEL) / 2)) * sqrt(share * (1 - share) / images)
    yield (
        f"All seeds are tested on the same {images:,.0f} images of the target. On as many others, an accuracy "
        f"of {percent(accuracy.mean())} % would be within {half:.1f} points either way (95 %, binomial): no number of "
        "seeds makes that smaller. Differences move less, as nets err on the same images."
    )


def _accuracy(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    return interval_text(interval) if interval.half else percent(interval.mean)


def _names_of_source_nets(stages: pd.DataFrame) -> dict[str, str]:
    """The name of each stage that trains or prunes a net in the source domain."""
    source = stages[stages["kind"].isin(["reference", "source_prune"])]
    return {
        stage: REFERENCE if kind == "reference" else SOURCES.get(json.loads(text).get("criterion", "magnitude"), SPARSE)
        for stage, kind, text in zip(source.index, source["kind"], source["hyperparameters"], strict=True)
    }


def settings(results: Results, cells: pd.DataFrame) -> Table | None:
    """Hyperparameters of each kind of stage, of the nets at the study's own settings."""
    stages = results.stages[results.stages["stage"].isin({stage for path in cells["path"] for stage in path})]
    found: dict[str, dict[str, list[str]]] = {}
    for kind in KINDS:
        for text in stages.loc[stages["kind"] == kind, "hyperparameters"].unique():
            for name, value in _flat(json.loads(text)):
                values = found.setdefault(name, {}).setdefault(kind, [])
                if value not in values:
                    values.append(value)
    kinds = [kind for kind in KINDS if any(kind in values for values in found.values())]
    if not kinds:
        return None
    rows = [[name, *(", ".join(found[name].get(kind, [NOTHING])) for kind in kinds)] for name in found]
    headers = [Header("setting"), *(Header(kind, prose=True) for kind in kinds)]
    notes = [
        "Several values: the steps of a pruning, or nets that differ in it. What is turned off has no row; every "
        "setting is in config.yaml and, per stage, in stages.parquet."
    ]
    data = pd.DataFrame(rows, columns=["setting", *kinds])
    return Table("settings", "Hyperparameters by kind of stage", headers, rows, notes, data)


def _flat(hyperparameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts of the settings that are to be shown; those of the data have a place of their own."""
    for name, value in hyperparameters.items():
        if name in ("train", "retrain", "knowledge") and value is not None:
            yield from _flat({"knowledge of" if key == "source" else key: one for key, one in value.items()})
        elif name not in ("data", "validate_every") and value is not None and OFF.get(name) != value:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        numbers = [one for one in value.values() if isinstance(one, int | float)]
        if len(numbers) == len(value) > 0:
            return f"{min(numbers):.3g} to {max(numbers):.3g} by layer"
        return "; ".join(f"{name} {_text(one)}" for name, one in value.items() if one is not None)
    return f"{value:.4g}" if isinstance(value, float) else str(value)

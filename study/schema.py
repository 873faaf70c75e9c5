"""The result tables: every column of every Parquet file, with its meaning and unit, written once.

Trainables return rows as plain dictionaries; :func:`table` turns them into Arrow tables and refuses unknown or
missing columns. ``analysis`` reads the same columns. This module imports neither torch nor ray.

Accuracies and prune rates are in percent (0 to 100), as in the paper's tables. A *connection* is a weight that is
not a bias. Columns marked ``volatile`` (times, hosts, versions) may differ between two runs of the same study; all
others may not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa

STAGE_KINDS = (
    "reference",
    "source_prune",
    "knowledge",
    "features",
    "transfer",
    "probe",
    "target_prune",
    "neuron_prune",
    "evaluation",
    "fusion",
)


Columns = dict[str, list[Any]]
"""Rows of one table, by column; times as datetimes or in ISO 8601."""


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, whether it may be null, and what it means (with the unit)."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False
    volatile: bool = False
    formerly: str | None = None
    """What an earlier version called it."""


def _optional(name: str, type_: pa.DataType, meaning: str) -> Column:
    return Column(name, type_, meaning, nullable=True)


def _volatile(name: str, type_: pa.DataType, meaning: str) -> Column:
    return Column(name, type_, meaning, nullable=True, volatile=True)


STAGES: tuple[Column, ...] = (
    Column("stage", pa.string(), "content key of the stage: hash of kind, hyperparameters, data, seed, parents"),
    Column("kind", pa.string(), f"stage kind, one of {', '.join(STAGE_KINDS)}"),
    Column("status", pa.string(), "done; failed (see error); skipped (a parent failed); missing (not run yet)"),
    _optional("error", pa.string(), "what went wrong, for failed and skipped stages"),
    Column("network", pa.string(), "architecture, e.g. small_alexnet"),
    Column("data", pa.string(), "data set that the stage trains or is evaluated on"),
    _optional("data_fingerprint", pa.string(), "hash of that data set's content; null until the stage is done"),
    _optional(
        "network_digest", pa.string(), "hash of the network's modules and shapes (and source, of one of your own)"
    ),
    _optional("weights_fingerprint", pa.string(), "hash of the pretrained weights' file; null without one"),
    _optional("seed", pa.int64(), "seed of split, image order, initialisation and dropout; null if nothing is random"),
    Column("parents", pa.string(), "JSON object: role -> stage key of each parent"),
    Column("hyperparameters", pa.string(), "JSON object: the stage's hyperparameters, defaults included"),
    _optional(
        "train_accuracy",
        pa.float64(),
        "top-1 accuracy of the final net on the training images, without dropout, %; null if they are too many",
    ),
    _optional(
        "val_accuracy",
        pa.float64(),
        "top-1 accuracy of the final net on the validation images, %; trained on with retrain_on_validation",
    ),
    _optional("val_loss", pa.float64(), "cross entropy of the final net on the validation images, nats"),
    _optional("test_accuracy", pa.float64(), "top-1 accuracy of the final net on the test images, %"),
    _optional("test_top5_accuracy", pa.float64(), "top-5 accuracy of the final net on the test images, %"),
    _optional("connections_dense", pa.int64(), "connections of the unpruned architecture with this number of classes"),
    _optional("connections", pa.int64(), "connections that are left"),
    _optional("prune_percent", pa.float64(), "100 * (1 - connections / connections_dense), %"),
    _optional("neurons", pa.int64(), "neurons of the inner-product layers that are left, output included"),
    _optional("loss_ratio", pa.float64(), "lambda * L_extra / L_main in the last epoch; null without knowledge"),
    _optional("kl_ratio", pa.float64(), "lambda * (L_extra - its floor) / L_main in the last epoch; see loss_kl"),
    _optional(
        "gradient_ratio", pa.float64(), "|grad lambda * L_extra| / |grad L_main| at the shared layer, last epoch"
    ),
    Column("rounds", pa.int64(), "train-retrain rounds in the stage (neuron pruning has several)"),
    Column("epochs", pa.int64(), "epochs trained, over all rounds"),
    Column("images", pa.int64(), "training images seen by each epoch"),
    _optional("tensors_sha256", pa.string(), "hash of the stored net (logits, scores): two nets with one hash are one"),
    _volatile("seconds", pa.float64(), "wall time of the stage, last attempt, s"),
    _volatile("started_at", pa.timestamp("us", tz="UTC"), "start of the last attempt"),
    _volatile("resumed_from_epoch", pa.int64(), "epochs that the last attempt took over from a checkpoint"),
    _volatile("host", pa.string(), "machine of the last attempt"),
    _volatile("processor", pa.string(), "model of the machine's CPU"),
    _volatile("device", pa.string(), "cpu or the accelerator's name; another one rounds otherwise"),
    _volatile("tf32", pa.bool_(), "whether a GPU took the float32 products of training in TF32; evaluation never does"),
    _volatile("threads", pa.int64(), "threads of the arithmetic; another number of them rounds otherwise"),
    _volatile("workers", pa.int64(), "Ray Train workers, 0: the trial's own process; another number rounds otherwise"),
    _volatile(
        "images_a_pass",
        pa.int64(),
        "most images that a device took at once, null: the whole batch; another number rounds otherwise",
    ),
    _volatile("code_version", pa.string(), "package version and git commit, if there is one"),
    _volatile(
        "package_versions", pa.string(), "JSON object: versions of python and of the packages that results depend on"
    ),
)

EPOCHS: tuple[Column, ...] = (
    Column("stage", pa.string(), "stage key"),
    Column("round", pa.int64(), "train-retrain round, from 0"),
    Column("epoch", pa.int64(), "epoch within the round, from 1"),
    Column("learning_rate", pa.float64(), "rate of the epoch's last step"),
    Column("loss", pa.float64(), "L_total, mean over the epoch's images, nats"),
    Column("loss_main", pa.float64(), "L_main (Eq. 4), mean over the epoch's images, nats"),
    _optional(
        "loss_extra", pa.float64(), "L_extra (Eq. 5), mean over the epoch's images, nats; null without knowledge"
    ),
    _optional(
        "loss_kl",
        pa.float64(),
        "L_extra less the entropy of p_R^tau, which is its floor: KL(p_R^tau || p_extra^tau), the same gradient, nats",
    ),
    _optional("loss_ratio", pa.float64(), "lambda * loss_extra / loss_main"),
    _optional("kl_ratio", pa.float64(), "lambda * loss_kl / loss_main"),
    _optional(
        "gradient_ratio",
        pa.float64(),
        "norm of the gradient of lambda * L_extra over that of L_main at the shared layer's output, first batch",
    ),
    Column("train_accuracy", pa.float64(), "top-1 accuracy while training (with dropout), %"),
    _optional("val_accuracy", pa.float64(), "top-1 accuracy on the validation images, %; null between validations"),
)

LAYERS: tuple[Column, ...] = (
    Column("stage", pa.string(), "stage key"),
    Column("layer_index", pa.int64(), "place of the layer, from 1 (N is the output layer)", formerly="index"),
    Column("layer", pa.string(), "name of the connections: the layer's, e.g. fc6; layer1.0.conv1 if it has several"),
    Column("type", pa.string(), "convolution, inner_product or attention (its queries, keys and values)"),
    Column("connections_dense", pa.int64(), "how many there are in the unpruned architecture"),
    Column("connections_before", pa.int64(), "connections before the stage"),
    Column("connections", pa.int64(), "connections after the stage"),
    Column("neurons_before", pa.int64(), "output neurons (channels of a convolution) before the stage"),
    Column("neurons", pa.int64(), "output neurons (channels of a convolution) after the stage"),
    _optional("positions", pa.int64(), "how often a connection is used for one image: height times width of output"),
)

KNOWLEDGE: tuple[Column, ...] = (
    Column("stage", pa.string(), "key of the transfer stage that used the knowledge"),
    Column("tau", pa.float64(), "temperature"),
    Column("target_class", pa.string(), "class of the target images"),
    Column("images", pa.int64(), "training images of the class that the mean is taken over"),
    Column("class_rank", pa.int64(), "1 is the most probable source class", formerly="rank"),
    Column("source_class", pa.string(), "source class"),
    Column("probability", pa.float64(), "mean of p_R^tau (Eq. 1) over the images, 0 to 1"),
)

CONFUSION: tuple[Column, ...] = (
    Column("stage", pa.string(), "stage key; only stages that make a net or scores for the target"),
    Column("target_class", pa.string(), "class of the test images"),
    Column("predicted_class", pa.string(), "class that the net takes them for"),
    Column("images", pa.int64(), "number of test images (videos); pairs of classes without any have no row"),
)

CELLS: tuple[Column, ...] = (
    Column("ablation", pa.string(), "the named ablation that asked for the cell, e.g. paper"),
    Column("net", pa.string(), "the paper's name of the net, e.g. Hybrid-TransferNet(S+K-) or Sparse-TargetNet_C95"),
    _optional("variant", pa.string(), "the net and, off the study's own settings, the point: one net per seed"),
    _optional("curve", pa.string(), "curve of Figure 3 that the net is a point of"),
    Column("tables", pa.list_(pa.string()), "tables that show the net, e.g. [table1, table3]"),
    Column("seed", pa.int64(), "seed of the cell"),
    _optional("stream", pa.string(), "stream of a two-stream study, e.g. spatial; two-stream if scores are fused"),
    _optional("point", pa.string(), "point of the ablation's axis, e.g. tau = 2; null if the ablation has no axis"),
    _optional("point_index", pa.int64(), "place of the point on the axis, from 0, in the order to show"),
    _optional("point_value", pa.float64(), "number at the point, if the axis is a single numeric hyperparameter"),
    _optional("own_point", pa.bool_(), "whether the point is the study's own setting; null without an axis"),
    Column(
        "sparsity", pa.string(), "where the main branch starts: magnitude, random (masks) or none (dense reference)"
    ),
    Column("knowledge", pa.string(), "extra branch of the transfer: reference, shuffled or none"),
    Column("target_knowledge", pa.string(), "extra branch while pruning in the target: reference, shuffled or none"),
    _optional("keep", pa.float64(), "share of connections that target pruning keeps, 0 to 1"),
    _optional("tau", pa.float64(), "temperature; null without knowledge"),
    Column("lambda_", pa.float64(), "weight of the extra loss; null without knowledge", True, formerly="lambda"),
    Column("n_m", pa.int64(), "top layers of the main branch that start dense and random"),
    _optional("n_e", pa.int64(), "layers of the extra branch; null without knowledge"),
    Column("stage", pa.string(), "key of the stage that makes the net"),
    _optional("measured", pa.string(), "key of the stage whose accuracies are the net's: the same, or an evaluation"),
    Column("path", pa.list_(pa.string()), "keys of the stages that the net needs, in order, its own last"),
)

VALIDATED = (
    _optional(
        "val_accuracy", pa.float64(), "validation accuracy, mean over the search's seeds, %; null unless complete"
    ),
    Column("val_accuracies", pa.list_(pa.float64()), "the same for each of the search's seeds, %"),
)
TRIALS: tuple[Column, ...] = (
    Column("trial", pa.int64(), "number of the trial in the Optuna study, from 0"),
    Column("state", pa.string(), "complete; pruned (stopped early); failed"),
    Column("origin", pa.string(), "own (the study's settings), warm start, or sampler"),
    Column("hyperparameters", pa.string(), "JSON object: the trial's hyperparameters, those that apply to it"),
    *VALIDATED,
    _optional("prune_percent", pa.float64(), "share of connections pruned, mean over the search's seeds, %"),
    _volatile(
        "latency_percent", pa.float64(), "time of a forward pass on the CPU, % of the unpruned net's; against latency"
    ),
    _volatile("latency_ms", pa.float64(), "the same in ms, on the machine and at the time of the measurement"),
    Column("best", pa.bool_(), "whether the trial is the best one or, with two objectives, on the Pareto front"),
    Column("stages", pa.list_(pa.string()), "keys of the stages that make the trial's nets, one per seed"),
)

IMPORTANCE: tuple[Column, ...] = (
    Column("hyperparameter", pa.string(), "name in the search space"),
    Column("seed", pa.int64(), "the search's seed whose validation accuracies the importance is of"),
    Column("importance", pa.float64(), "share of the variance of validation accuracy (fANOVA), 0 to 1"),
    Column("trials", pa.int64(), "complete trials that it is computed from"),
)

ABLATION_PATH: tuple[Column, ...] = (
    Column("step", pa.int64(), "step of the path from the study's own settings to the best trial's, from 1"),
    Column("hyperparameter", pa.string(), "what was tried: the setting that is changed at this step"),
    Column("before", pa.string(), "its value in the study's own settings"),
    Column("after", pa.string(), "its value in the best trial's"),
    *VALIDATED,
    Column(
        "chosen", pa.bool_(), "whether it gains most at this step, of equals the first: the path continues from there"
    ),
    Column("stages", pa.list_(pa.string()), "keys of the stages that measure the nets, one per seed"),
)

TUNING: tuple[Column, ...] = (
    Column("net", pa.string(), "the net that is tuned"),
    Column("seed", pa.int64(), "seed of the study; each chooses for itself"),
    Column("candidate", pa.int64(), "number of the settings that the net tries; 0: the study's own"),
    Column("settings", pa.string(), "these settings as text"),
    Column("changes", pa.string(), "JSON object: what they change of the study's configuration, by dotted key"),
    _optional("val_accuracy", pa.float64(), "validation accuracy, %; null unless the stage is complete"),
    Column("chosen", pa.bool_(), "whether the net is at its best with them: the highest accuracy, of equals the first"),
    _optional("error", pa.string(), "why the stage is not complete"),
    Column("stage", pa.string(), "key of the stage that measures the net"),
)

NETS: tuple[Column, ...] = (
    Column("net", pa.string(), "the paper's name of the net; Reference-SourceNet is the source's, with its classes"),
    Column("stage", pa.string(), "key of the stage that makes the net"),
    Column("connections", pa.int64(), "connections that are left, cut-off neurons removed"),
    Column("prune_percent", pa.float64(), "100 * (1 - connections / connections of the unpruned net), %"),
    Column("neurons", pa.int64(), "neurons of the inner-product layers that are left, output included"),
    Column(
        "macs", pa.int64(), "multiply-accumulates of one image, if only the connections that are left were executed"
    ),
    Column("bytes", pa.int64(), "size of the exported safetensors file, weights in float32"),
    Column("bytes_dense", pa.int64(), "size of the unpruned net's weights and biases in float32"),
    Column("runtime", pa.string(), "what executed the net: torch or onnx (ONNX Runtime)"),
    Column("batch", pa.int64(), "images of a forward pass"),
    _volatile("kernels", pa.string(), "JSON object: inner-product layer -> the kernel that was the fastest"),
    _volatile("milliseconds", pa.float64(), "median time of a forward pass, ms"),
    _volatile(
        "percent_of_standard", pa.float64(), "median time in % of Standard-TransferNet's, by turns, same runtime"
    ),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "stages": STAGES,
    "epochs": EPOCHS,
    "layers": LAYERS,
    "knowledge": KNOWLEDGE,
    "confusion": CONFUSION,
    "cells": CELLS,
}

SEARCH_TABLES: dict[str, tuple[Column, ...]] = {
    "trials": TRIALS,
    "importance": IMPORTANCE,
    "ablation_path": ABLATION_PATH,
}
"""Tables that only a search has, the last one only if it was asked to explain what it found."""

TUNED_TABLES: dict[str, tuple[Column, ...]] = {"tuning": TUNING}
"""Tables that only a study with tuned nets has."""

EXPORT_TABLES: dict[str, tuple[Column, ...]] = {"nets": NETS}
"""Tables of ``study.export``."""


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Arrow schema of the table, each column's meaning in its field metadata."""
    columns = _columns_of(name)
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable, metadata={"meaning": c.meaning}) for c in columns])


def completed(name: str, rows: pa.Table) -> pa.Table:
    """Stored rows in the columns of the named schema: what an earlier version did not write yet is null.

    Raises:
        ValueError: a column is lacking that may not be null, or has another type.
    """
    schema = arrow_schema(name)
    if rows.schema.equals(schema):
        return rows
    now = _former_names(name)
    rows = rows.rename_columns([now.get(column, column) for column in rows.column_names])
    if lacking := [field.name for field in schema if not field.nullable and field.name not in rows.column_names]:
        raise ValueError(f"lacks the columns {', '.join(lacking)}")
    there = pa.schema([field for field in schema if field.name in rows.column_names])
    # Other programs write the same columns as other types: long strings, nulls as floats, no time zones.
    known = pa.table([_cast(rows[field.name], field) for field in there], schema=there)
    return pa.concat_tables([schema.empty_table(), known], promote_options="default")


def _cast(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        return values.cast(field.type)
    except pa.ArrowInvalid as error:
        raise ValueError(f"column {field.name}: {error}") from error


@cache
def _former_names(name: str) -> dict[str, str]:
    """The columns that an earlier version called otherwise: what they are called now, by what they were."""
    return {column.formerly: column.name for column in _columns_of(name) if column.formerly is not None}


def _columns_of(name: str) -> tuple[Column, ...]:
    return {**TABLES, **SEARCH_TABLES, **TUNED_TABLES, **EXPORT_TABLES}[name]


def volatile_columns(name: str) -> list[str]:
    """Columns that may differ between two runs of the same study: times, hosts and versions."""
    return [column.name for column in TABLES[name] if column.volatile]


def columns(name: str, rows: Iterable[Mapping[str, Any]]) -> Columns:
    """Rows by column of the named schema, checked. Optional columns may be left out of a row.

    Raises:
        ValueError: a row has an unknown column or lacks one that may not be null.
    """
    known = {column.name: column for column in _columns_of(name)}
    required = [column.name for column in known.values() if not column.nullable]
    found: Columns = {column: [] for column in known}
    for row in rows:
        if unknown := sorted(row.keys() - known.keys()):
            raise ValueError(f"table {name}: unknown column {', '.join(unknown)}")
        if lacking := sorted(column for column in required if row.get(column) is None):
            raise ValueError(f"table {name}: no value for {', '.join(lacking)}")
        for column, values in found.items():
            values.append(row.get(column))
    return found


def merged(name: str, parts: Iterable[Columns]) -> pa.Table:
    """An Arrow table of the named schema from the columns of many; what an earlier version did not write is null.

    Raises:
        ValueError: a column is lacking that may not be null, or has another type.
    """
    schema = arrow_schema(name)
    found: Columns = {column: [] for column in schema.names}
    now = _former_names(name)
    for part in parts:
        part = {now.get(column, column): values for column, values in part.items()}
        size = len(next(iter(part.values())))
        for column, values in found.items():
            values.extend(part[column] if column in part else [None] * size)
    for field in schema:
        if not field.nullable and None in found[field.name]:
            raise ValueError(f"table {name}: lacks the column {field.name}")
    return pa.table([_array(found[field.name], field.type) for field in schema], schema=schema)


def _array(values: list[Any], type_: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(type_):
        return pa.array([datetime.fromisoformat(v) if isinstance(v, str) else v for v in values], type_)
    return pa.array(values, type_)


def table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the named schema.

    Optional columns may be left out of a row.

    Raises:
        ValueError: a row has an unknown column or lacks one that may not be null.
    """
    return merged(name, [columns(name, rows)])

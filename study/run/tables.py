"""A study's results on disk: its tables, with a row for every stage whatever became of it, and ``study.json``."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from search_spaces.cells import Cell
from study import schema
from study.config import StudyConfig, as_yaml, source_classes, stream_config
from study.facts import Domain, SequentialDesign, StudyFacts, TargetsFacts
from study.generations import RECORD
from study.graph import StageGraph
from study.storage import Storage
from study.tune.experiment import Experiment
from study.tune.trial import describe
from trainables import data, networks
from trainables.settings import DataConfig

PARTS = {"train": "training", "val": "validation", "test": "testing"}


def write_tables(
    experiment: Experiment,
    config: StudyConfig,
    sequential: SequentialDesign | None = None,
    doubts: Sequence[str] = (),
    others: Mapping[str, bytes | pa.Table] | None = None,
    untested: Sequence[str] = (),
) -> None:
    """Write the study's result tables, its configuration and its facts, together.

    Args:
        experiment: what was run of the study.
        config: the study.
        sequential: how seeds are added to it, if their number is not fixed.
        doubts: about its pretrained references.
        others: files that belong to them, by name.
        untested: stages that belong to the study and must not be tested: a search's trials.
    """
    study = experiment.study
    files: dict[str, bytes | pa.Table] = {
        f"{name}.parquet": rows for name, rows in _collected(experiment, untested).items()
    }
    files |= {"config.yaml": as_yaml(config).encode(), **(others or {})}
    facts = _facts(study, config, sequential, doubts)
    experiment.storage.write_results(study, files, facts.model_dump(mode="json"))


def write_targets(storage: Storage, study: str, config: StudyConfig) -> None:
    """Write the configuration and facts of a study on several targets, whose own tables are written."""
    records = {target: storage.folder.read(f"studies/{study}/{target}/{RECORD}") or b"" for target in config.targets}
    sums = {target: hashlib.sha256(record).hexdigest() for target, record in records.items()}
    facts = TargetsFacts(name=study, title=config.title, targets=sums)
    storage.write_results(study, {"config.yaml": as_yaml(config).encode()}, facts.model_dump(mode="json"))


def _collected(experiment: Experiment, untested: Sequence[str]) -> dict[str, pa.Table]:
    graph = experiment.graph
    done = experiment.storage.stored(graph.stages)
    complete = set(done)
    others = experiment.storage.stored(key for key in untested if key not in graph.stages)
    unfinished = [_unfinished_row(experiment, key) for key in graph.stages if key not in complete]
    tables = experiment.storage.tables([*done, *others])
    if others:
        tables = {name: _without_test(rows, others) for name, rows in tables.items()}
    tables["stages"] = pa.concat_tables([tables["stages"], schema.table("stages", unfinished)])
    tables["cells"] = planned_cells(graph)
    return tables


def _without_test(rows: pa.Table, stages: Sequence[str]) -> pa.Table:
    """The rows of a table without what is known of some stages from test images."""
    of_them = pc.is_in(rows["stage"], pa.array(stages, pa.string()))
    if "predicted_class" in rows.column_names:
        return rows.filter(pc.invert(of_them))
    for place, name in enumerate(rows.column_names):
        if name.startswith("test_"):
            hidden = pc.if_else(of_them, pa.scalar(None, rows.schema.field(name).type), rows[name])
            rows = rows.set_column(place, rows.schema.field(name), hidden)
    return rows


def planned_cells(graph: StageGraph) -> pa.Table:
    """The cells table: what a study consists of, whatever became of it."""
    variants: dict[tuple[str | None, str], str] = {}
    for cell, key in graph.cells:
        point = None if cell.own_point else cell.point
        variants.setdefault((cell.stream, key), f"{cell.net}, {point.label}" if point else cell.net)
    rows = (cell_row(graph, cell, key) | {"variant": variants[cell.stream, key]} for cell, key in graph.cells)
    return schema.table("cells", rows)


def _unfinished_row(experiment: Experiment, key: str) -> dict[str, Any]:
    stage = experiment.graph.stages[key]
    status, error = "missing", None
    if key in experiment.failed:
        status, error = "failed", experiment.failed[key]
    elif key in experiment.skipped:
        status, error = "skipped", f"needs {experiment.skipped[key]}, which failed"
    counts = {"rounds": 0, "epochs": 0, "images": 0}
    return {"stage": key, "status": status, "error": error, **describe(stage.spec, stage.parents), **counts}


def cell_row(graph: StageGraph, cell: Cell, key: str) -> dict[str, Any]:
    """The cell's row of the cells table."""
    transfer = cell.config.transfer
    guided = cell.knowledge != "none"
    return {
        "ablation": cell.ablation,
        "net": cell.net,
        "curve": cell.curve,
        "tables": list(cell.tables),
        "seed": cell.seed,
        "stream": cell.stream,
        "point": cell.point.label if cell.point else None,
        "point_index": cell.point_index,
        "point_value": cell.point.value if cell.point else None,
        "own_point": cell.own_point,
        "sparsity": cell.sparsity,
        "knowledge": cell.knowledge,
        "target_knowledge": cell.target_knowledge,
        "keep": cell.keep,
        "tau": transfer.tau if guided else None,
        "lambda_": transfer.lambda_ if guided else None,
        "n_m": transfer.n_m_of(is_standard=cell.is_standard),
        "n_e": transfer.n_e if guided else None,
        "stage": graph.net_of(key),
        "measured": key,
        "path": graph.path(key),
    }


def _facts(name: str, config: StudyConfig, sequential: SequentialDesign | None, doubts: Sequence[str]) -> StudyFacts:
    def domain(images: DataConfig) -> Domain:
        content = data.load(images, config.data)
        if content.is_empty and (weights := config.source.weights) is not None:
            title = f"the source of {weights.file}, without images"
            return Domain(name=images.name, title=title, classes=len(source_classes(config)))
        parts = data.split(content, images, config.seed_list[0])
        counts = [f"{len(getattr(parts, part)):,} for {use}" for part, use in PARTS.items()]
        return Domain(name=images.name, title=content.title, classes=len(content.class_names), images=", ".join(counts))

    configs = [stream_config(config, stream) for stream in config.streams] or [config]
    return StudyFacts(
        name=name,
        title=config.title,
        source=domain(config.source.data),
        target=domain(config.target.data),
        network=" + ".join(dict.fromkeys(own.network for own in configs)),
        seeds=config.seed_list,
        published=config.published,
        same_data=config.same_data,
        control_study=config.control_study,
        tau=config.transfer.tau,
        streams=list(config.streams),
        fusion=config.fusion,
        evaluation=_evaluation(config),
        retrained_on_validation=any(own.target.data.retrain_on_validation for own in configs),
        doubts=[*doubts],
        margin=config.margin,
        sequential=sequential,
    )


def _evaluation(config: StudyConfig) -> str:
    """What of a test image (video) is looked at; empty if it is the whole image."""
    content, size = data.load(config.target.data, config.data), networks.input_shape(config.network)
    crops = {"centre": "centre crop", "ten": "ten crops"}[config.target.data.evaluation]
    if content.positions > 1:
        return f"{content.positions} positions, {crops}"
    return "" if content.shape == size else crops

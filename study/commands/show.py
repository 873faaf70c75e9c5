"""``study.show``: the nets of a study, and where a stored stage or a row of a table comes from."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from analysis import load
from analysis.tracing import trace
from study.answers import Ancestry, StageRecord, StudyList, StudyState
from study.command import OK, reply
from study.config import ConfigError
from study.durations import duration
from study.run.standing import as_table, in_one_line, study_state
from study.settings.dotted import dotted
from study.storage import TENSORS, LostStageError, Storage, StorageError
from study.stored_nets import all_cells, find_stage
from trainables.hyperparameters import PARAMS
from trainables.settings import DataConfig
from trainables.suggestions import choices

SHOWN_DIGITS = 12
"""Of a hash: enough to tell two apart."""
INDENT = "    "
WIDTH = 150
"""Columns of a table that is not shown on a terminal."""


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    storage = Storage(options.storage)
    storage.folder.reach()
    if options.table is not None:
        return _show_row(storage, options)
    if options.what is None:
        return _show_studies(storage, options)
    if ":" not in options.what and (options.what in _names(storage) or options.watch is not None):
        return _show_study(storage, options)
    key = find_stage(storage, options.what)
    if not storage.has(key):
        raise StorageError(f"stage {key} is not complete: run its study again, then show it")
    if options.json:
        reply(options, Ancestry(stage=key, stages=records(storage, key)))
    else:
        print("\n".join(ancestry(storage, key)))
    return OK


def _show_row(storage: Storage, options: argparse.Namespace) -> int:
    """Show where a row of a table comes from."""
    if options.json:
        raise ConfigError("--json shows studies and stages; a row of a table is in the table's .csv and cells.parquet")
    _require_study(storage.studies(), options.what, storage)
    print(trace(load(storage.study_path(options.what)), options.table, options.row))
    return OK


def _names(storage: Storage) -> list[str]:
    """Names of studies; of one on several targets its own, and those of it on each."""
    studies = storage.studies()
    return list(dict.fromkeys([*studies, *(study.partition("/")[0] for study in studies)]))


def _require_study(studies: list[str], study: str, storage: Storage) -> None:
    if study not in studies:
        raise ConfigError(f"no study {study!r} in {storage.root}: {choices(study, studies)}")


def _show_studies(storage: Storage, options: argparse.Namespace) -> int:
    """Show how all studies of the storage stand."""
    found = []
    for study in storage.studies():
        # One whose tables cannot be read hides no other.
        with suppress(StorageError):
            found.append(study_state(storage, study))
    if options.json:
        reply(options, StudyList(storage=storage.root, studies=found))
        return OK
    if not found:
        raise ConfigError(f"no study in {storage.root}: run one, or give its place with --storage")
    print("\n".join(in_one_line(state) for state in found))
    return OK


def _show_study(storage: Storage, options: argparse.Namespace) -> int:
    """Show the nets of a study, on each of its targets, again and again while it runs with ``--watch``."""
    _require_study(_names(storage), options.what, storage)
    targets = storage.targets(options.what)
    studies = [f"{options.what}/{target}" for target in targets] or [options.what]

    def states() -> list[StudyState]:
        return [study_state(storage, study) for study in studies]

    if options.json:
        found = states()
        reply(options, StudyList(storage=storage.root, studies=found) if targets else found[0])
        return OK
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    found = states()
    if options.watch is not None and found[0].running:
        with Live(_shown(found), console=console, auto_refresh=False) as live:
            while found[0].running:
                time.sleep(options.watch)
                found = states()
                live.update(_shown(found), refresh=True)
        return OK
    console.print(_shown(found))
    return OK


def _shown(states: list[StudyState]) -> RenderableType:
    return Group(*(part for state in states for part in (as_table(state), Text(in_one_line(state)))))


def records(storage: Storage, key: str) -> list[StageRecord]:
    """A stage and all that it was made from, each once.

    Raises:
        StorageError: the storage cannot be read.
    """
    names, seen = _nets(storage), dict[str, StageRecord]()
    waiting = [key]
    while waiting:
        if (one := waiting.pop(0)) in seen:
            continue
        try:
            (row,) = storage.rows("stages", [one]).to_pylist()
            files = storage.folder.at(_folder(one, storage.manifest(one)))
        except LostStageError as error:
            seen[one] = StageRecord(row={"stage": one, "error": str(error)}, nets=names.get(one, []), files=None)
            continue
        seen[one] = StageRecord(row=row, nets=names.get(one, []), files=files)
        waiting += json.loads(row["parents"]).values()
    return list(seen.values())


def _folder(key: str, manifest: Mapping[str, Any]) -> str:
    return "/".join(part for part in ("stages", key, manifest.get("folder")) if part)


def ancestry(storage: Storage, key: str) -> list[str]:
    """A stage and all that it was made from, as the lines of a tree; each stage is described where it comes first.

    Raises:
        StorageError: the storage cannot be read.
    """
    return list(_Ancestry(storage).lines(key))


class _Ancestry:
    """What is shown already, so that nothing is shown twice."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._nets = _nets(storage)
        self._seen: set[str] = set()
        self._made_with = ""

    def lines(self, key: str, role: str = "", depth: int = 0) -> Iterator[str]:
        head, inner = INDENT * depth + (f"{role}: " if role else ""), INDENT * depth + "  "
        if key in self._seen:
            yield f"{head}{key} (described above)"
            return
        self._seen.add(key)
        try:
            (row,) = self._storage.rows("stages", [key]).to_pylist()
            manifest = self._storage.manifest(key)
        except LostStageError as error:
            yield f"{head}{key}: {error}"
            return
        yield f"{head}{key}"
        yield from (f"{inner}{line}" for line in self._about(row, manifest))
        parents = json.loads(row["parents"])
        # A chain, such as the rates of a schedule, stays where it is: only a fork moves to the right.
        deeper = depth + 1 if depth == 0 or len(parents) > 1 else depth
        for parent_role, parent in parents.items():
            yield from self.lines(parent, parent_role, deeper)

    def _about(self, row: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
        seed = "no seed" if row["seed"] is None else f"seed {row['seed']}"
        yield f"{row['network']} on {row['data']}, {seed}"
        if nets := self._nets.get(row["stage"]):
            yield f"is {'; '.join(nets)}"
        if gave := _gave(row):
            yield gave
        if chosen := settings(row["kind"], row["hyperparameters"]):
            yield "settings other than the defaults: " + ", ".join(f"{name} {value}" for name, value in chosen.items())
        when = f"{row['started_at']:%Y-%m-%d %H:%M} UTC" if row["started_at"] else "at an unknown time"
        yield f"made {when}" + (f" in {duration(row['seconds'])}" if row["seconds"] is not None else "")
        made_with = _made_with(row)
        yield "with the same code, packages and machine" if made_with == self._made_with else made_with
        self._made_with = made_with
        folder = self._storage.folder.at(_folder(row["stage"], manifest))
        digest = manifest["sha256"][TENSORS][:SHOWN_DIGITS]
        data = f"data {row['data_fingerprint'][:SHOWN_DIGITS]}, " if row["data_fingerprint"] else ""
        yield f"{data}{TENSORS} sha256 {digest}"
        yield f"files: {folder}"


def settings(kind: str, hyperparameters: str) -> dict[str, Any]:
    """Those of a stage's hyperparameters (the JSON of its row) that are not at their defaults, by dotted key."""
    values = json.loads(hyperparameters)
    images = values.pop("data")
    try:
        # The file's path is not recorded, as it is another one on another machine.
        pretrained = {"weights": {"file": "", **values["weights"]}} if values.get("weights") else {}
        own = PARAMS[kind].model_validate(values | pretrained).without_paths(exclude_defaults=True)
        images = DataConfig.model_validate(images).without_paths(exclude_defaults=True)
    except ValidationError:
        # Of a version with other hyperparameters: all of them.
        own = values
    images.pop("name")
    return dict(dotted({"data": images, **own}))


def _gave(row: Mapping[str, Any]) -> str:
    parts = [
        f"{name} accuracy {row[f'{part}_accuracy']:.2f} %"
        for part, name in (("test", "test"), ("val", "validation"))
        if row[f"{part}_accuracy"] is not None
    ]
    if row["connections"] is not None:
        parts.append(f"{row['connections']:,} of {row['connections_dense']:,} connections kept")
        parts[-1] += f" ({100 - row['prune_percent']:.4g} %)"
    return ", ".join(parts)


def _made_with(row: Mapping[str, Any]) -> str:
    """Code, packages and machine of a stage on one line; what an earlier version did not record is left out."""
    packages = ", ".join(f"{name} {version}" for name, version in json.loads(row["package_versions"] or "{}").items())
    machine = [row["host"], row["processor"], *([row["device"]] if row["device"] != "cpu" else [])]
    machine += [f"{name} {row[name]}" for name in ("threads", "workers", "images_a_pass") if row[name]]
    machine += ["TF32"] if row["tf32"] else []
    parts = (f"code {row['code_version']}" if row["code_version"] else "", packages, ", ".join(filter(None, machine)))
    return "; ".join(filter(None, parts)) or "code, packages and machine were not recorded"


def _nets(storage: Storage) -> dict[str, list[str]]:
    """The nets that stages make, as the studies of the storage name them."""
    found: dict[str, dict[str, None]] = {}
    for study, cell in all_cells(storage):
        name = ", ".join(filter(None, (cell["net"], cell.get("stream"), cell.get("point"))))
        found.setdefault(cell["stage"], {})[f"{name} of study {study}"] = None
    return {stage: list(nets) for stage, nets in found.items()}

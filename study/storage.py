"""Where artifacts and rows live: one storage, shared by all studies on it, on a disk or in an object store.

::

    stages/<key>/manifest.json     a complete stage: its metrics, and names and checksums of its files
    stages/<key>/<attempt>/        those files: tensors.safetensors and rows.json, its rows of every table
    checkpoints/<key>.pt           the running checkpoint of a stage that is not complete
    studies/<name>/                a study: its configuration, its tables and its report

A stage is complete when its manifest is there, which is written last, each file whole; readers ignore stages without
one. Each attempt to store a stage has a folder of its own: two drivers that trained the same stage at once never
write into each other's files, and whichever manifest stays, its files are there.

Who finds a file that is not what was stored withdraws the stage by renaming its manifest: the stage is then not
complete, and the next that needs it has it trained again.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from study import schema
from study.files import SHORT_PATIENCE_SECONDS, Folder, StorageError, reason
from study.generations import checksum, read_generation, sha256, write_generation
from trainables.artifacts import Artifact
from trainables.results import StageResult

__all__ = ["LostStageError", "StageCheckpoint", "Storage", "StorageError"]

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
ROWS = "rows.json"
TARGETS = "targets.json"
STAGE_TABLES = ("stages", "epochs", "layers", "knowledge", "confusion")
LEAST_FREE_BYTES = 200 * 2**20
REQUESTS_ABREAST = 16
"""An object store answers each request after tens of milliseconds, but many at once."""
MOST_AT_ONCE = 32
"""Stages that a thread reads before it hands them over."""

Result = TypeVar("Result")


class LostStageError(StorageError):
    """A stage is not complete, or was damaged and is not complete any more."""


class Storage:
    """Stages, checkpoints and studies in one folder."""

    def __init__(self, location: str) -> None:
        """Open a storage by its path or URI; nothing is written yet.

        Raises:
            StorageError: the URI cannot be used.
        """
        self.folder = Folder(location)
        self.root = self.folder.location
        """Opens the same storage in another process."""

    def probe(self) -> None:
        """Make sure that the storage can be written, and has room, before anything is trained.

        Raises:
            StorageError: it cannot, or has not.
        """
        name = f".probe-{uuid.uuid4().hex}"
        try:
            self.folder.write(name, b"probe", SHORT_PATIENCE_SECONDS)
            self.folder.delete(name)
        except StorageError as error:
            remedy = "give a folder that you may write to with --storage"
            if not self.folder.is_local:
                remedy = (
                    "check its name and your credentials (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws, "
                    "for a server of your own AWS_ENDPOINT_URL; Google: GOOGLE_APPLICATION_CREDENTIALS), or give "
                    "another with --storage"
                )
            raise StorageError(
                f"cannot write to the storage {self.root}: {reason(error.__cause__ or error)}\n  {remedy}"
            ) from None
        if self.folder.is_local and (free := shutil.disk_usage(self.root).free) < LEAST_FREE_BYTES:
            raise StorageError(
                f"the storage {self.root} has {free / 2**20:.0f} MiB free; "
                f"a study wants at least {LEAST_FREE_BYTES / 2**20:.0f}: free some, or give another with --storage"
            )

    def has(self, key: str) -> bool:
        """Whether the stage is complete."""
        return self.folder.has(f"stages/{key}/{MANIFEST}")

    def stored(self, keys: Iterable[str]) -> list[str]:
        """Those of the stages that are complete."""
        keys = list(keys)
        return [key for key, complete in zip(keys, _abreast(self.has, keys), strict=True) if complete]

    def val_accuracies(self, keys: Iterable[str]) -> dict[str, float]:
        """Validation accuracy in % by stage, of those that are complete."""
        rows = self.rows("stages", self.stored(dict.fromkeys(keys)))
        return dict(zip(rows["stage"].to_pylist(), rows["val_accuracy"].to_pylist(), strict=True))

    def damaged(self, keys: Iterable[str]) -> dict[str, str]:
        """Read the rows of complete stages; those whose rows are damaged are withdrawn.

        Tensors, which are far larger, are checked when a stage reads them.

        Returns:
            What was found, by stage.
        """

        def check(key: str) -> str | None:
            try:
                self._row_files(key)
            except LostStageError as error:
                return str(error)
            return None

        keys = list(keys)
        found = zip(keys, _abreast(check, keys), strict=True)
        return {key: damage for key, damage in found if damage is not None}

    def stages(self) -> list[str]:
        """Keys of all stages, complete or not."""
        return self.folder.folders("stages")

    def studies(self) -> list[str]:
        """Names of all studies; one on several targets is one on each, ``STUDY/TARGET``."""
        names = self.folder.folders("studies")
        own = zip(names, _abreast(self.targets, names), strict=True)
        return [one for name, targets in own for one in ([f"{name}/{target}" for target in targets] or [name])]

    def targets(self, study: str) -> list[str]:
        """Names of the targets of a study on several; none of any other, nor if the list is damaged."""
        content = self.folder.read(f"studies/{study}/{TARGETS}")
        with suppress(ValueError, TypeError):
            return [str(name) for name in json.loads(content or b"[]")]
        return []

    def note_targets(self, study: str, targets: Iterable[str]) -> None:
        """Make the study one on several targets, each of which has a folder in the study's."""
        self.write_study(study, TARGETS, json.dumps([*targets]).encode())

    def forget_targets(self, study: str) -> None:
        """Make the study one on one target."""
        self.folder.delete(f"studies/{study}/{TARGETS}")

    def store(self, key: str, result: StageResult, row: Mapping[str, Any]) -> None:
        """Store a finished stage: tensors, rows, and last the manifest. Its checkpoint goes.

        Where another driver has stored the stage meanwhile, its files stay and these are dropped.
        """
        if not self.has(key):
            self._store(key, result, row)
        self.checkpoint(key).delete()

    def _store(self, key: str, result: StageResult, row: Mapping[str, Any]) -> None:
        tensors = save_tensors(dict(result.tensors))
        hashes = {TENSORS: sha256(tensors)}
        rows: dict[str, Iterable[Mapping[str, Any]]] = {
            "stages": [{**row, "tensors_sha256": hashes[TENSORS]}],
            "epochs": result.epochs,
            "layers": result.layers,
            "knowledge": result.knowledge,
            "confusion": result.confusion,
        }
        columns = {name: schema.columns(name, ({"stage": key, **own} for own in rows[name])) for name in STAGE_TABLES}
        files = {TENSORS: tensors, ROWS: json.dumps(columns, default=datetime.isoformat).encode()}
        hashes[ROWS] = sha256(files[ROWS])
        attempt = uuid.uuid4().hex[:12]
        for name, content in files.items():
            self.folder.write(f"stages/{key}/{attempt}/{name}", content)
        manifest = {
            "stage": key,
            "folder": attempt,
            "metrics": result.metrics,
            "class_names": result.class_names,
            "sha256": hashes,
        }
        manifest["manifest_sha256"] = checksum(manifest)
        self.folder.write(f"stages/{key}/{MANIFEST}", json.dumps(manifest, indent=1).encode())

    def artifact(self, key: str) -> Artifact:
        """Tensors and metrics of a complete stage.

        Raises:
            LostStageError: the stage is not complete, or it was damaged.
        """
        manifest = self.manifest(key)
        tensors = self._file(key, TENSORS, manifest)
        return Artifact(load_tensors(tensors), manifest["metrics"], tuple(manifest["class_names"]))

    def manifest(self, key: str) -> dict[str, Any]:
        """Metrics, class names and checksums of a complete stage.

        Raises:
            LostStageError: the stage is not complete, or its manifest was damaged.
        """
        content = self.folder.read(f"stages/{key}/{MANIFEST}")
        if content is None:
            raise LostStageError(f"stage {key} is not in {self.root}")
        manifest = _manifest(content)
        if manifest is None:
            raise self._withdraw(key, MANIFEST, content)
        return manifest

    def rows(self, table: str, keys: Iterable[str]) -> pa.Table:
        """The rows of complete stages in one table, in the order of the keys.

        Raises:
            LostStageError: a stage is not complete, or it was damaged.
        """
        return self.tables(keys, [table])[table]

    def tables(self, keys: Iterable[str], names: Iterable[str] = STAGE_TABLES) -> dict[str, pa.Table]:
        """The rows of complete stages in several tables, each stage's file read once.

        Raises:
            LostStageError: a stage is not complete, or it was damaged.
        """
        names, files = list(names), _abreast(self._row_files, list(keys))
        # Decoded one after another: threads would hold all stages' rows at once, and Python decodes in one of them.
        read = [_columns(file, names) for file in files]
        return {name: schema.merged(name, (columns[name] for columns in read)) for name in names}

    def checkpoint(self, key: str) -> "StageCheckpoint":
        """The running checkpoint of a stage."""
        return StageCheckpoint(self.folder, key)

    def write_study(self, study: str, name: str, content: bytes | pa.Table) -> None:
        """Write a file of a study: a table as Parquet, or bytes."""
        self.folder.write(f"studies/{study}/{name}", _bytes(content))

    def write_results(self, study: str, files: Mapping[str, bytes | pa.Table], facts: Mapping[str, Any]) -> None:
        """Write the files of a study that belong together, so that none is ever read with those of another run.

        Args:
            study: its name.
            files: tables and other content, by file name.
            facts: what ``study.json`` tells of the study.
        """
        written = {name: _bytes(content) for name, content in files.items()}
        write_generation(self._study_folder(study), written, facts)

    def read_study(self, study: str, name: str) -> pa.Table:
        """A table of a study.

        Raises:
            StorageError: there is none, or it is damaged.
        """
        if (table := self.find_table(study, name)) is None:
            raise StorageError(f"{self.study_path(study, f'{name}.parquet')} is not there: run the study first")
        return table

    def find_table(self, study: str, name: str) -> pa.Table | None:
        """A table of a study, or None if it has no such table.

        Raises:
            StorageError: it is damaged.
        """
        file = f"{name}.parquet"
        if (content := self.study_files(study, [file]).get(file)) is None:
            return None
        try:
            return pq.read_table(pa.BufferReader(content))
        except pa.ArrowException as error:
            place = self.study_path(study, file)
            raise StorageError(f"{place} cannot be read ({error}): run the study again to rewrite it") from None

    def study_files(self, study: str, names: Iterable[str]) -> dict[str, bytes]:
        """Files of a study's last run, by name, as far as they are there.

        Raises:
            StorageError: one is not what was written.
        """
        return read_generation(self._study_folder(study), names)

    def _study_folder(self, study: str) -> Folder:
        return self.folder.within(f"studies/{study}")

    def study_path(self, study: str, *parts: str) -> str:
        """Path or URI of a study's folder or of something in it."""
        return self.folder.at("/".join(("studies", study, *parts)))

    def _file(self, key: str, name: str, manifest: Mapping[str, Any] | None = None) -> bytes:
        """A file of a complete stage, as it was stored."""
        manifest = manifest or self.manifest(key)
        # Stages of earlier versions have their files next to the manifest.
        file = "/".join(part for part in (manifest.get("folder", ""), name) if part)
        content = self.folder.read(f"stages/{key}/{file}")
        if content is None or sha256(content) != manifest["sha256"].get(name):
            raise self._withdraw(key, file, manifest)
        return content

    def _row_files(self, key: str) -> dict[str, bytes]:
        """The files that hold a stage's rows; earlier versions wrote a Parquet file a table."""
        manifest = self.manifest(key)
        names = [ROWS] if ROWS in manifest["sha256"] else [f"{table}.parquet" for table in STAGE_TABLES]
        return {name: self._file(key, name, manifest) for name in names}

    def _withdraw(self, key: str, file: str, found: bytes | Mapping[str, Any]) -> LostStageError:
        """Make a damaged stage an incomplete one, unless it has been stored again since it was ``found``."""
        content = self.folder.read(f"stages/{key}/{MANIFEST}")
        if content is not None and found in (content, _manifest(content)):
            # Kept, for who wants to know what became of it; the damaged files stay where they are.
            self.folder.move(f"stages/{key}/{MANIFEST}", f"stages/{key}/damaged-{uuid.uuid4().hex[:12]}.json")
        return LostStageError(
            f"{self.folder.at(f'stages/{key}/{file}')} was damaged: the stage is withdrawn, "
            "and the study's command trains it again"
        )


class StageCheckpoint:
    """The one running checkpoint of a stage: each write replaces it whole, behind its own checksum."""

    def __init__(self, folder: Folder, key: str) -> None:
        self._folder, self._name = folder, f"checkpoints/{key}.pt"

    def read(self) -> bytes | None:
        """The last checkpoint; None if there is none, or a damaged one: the stage then starts again."""
        stored = self._folder.read(self._name) or b""
        size = hashlib.sha256().digest_size
        digest, content = stored[:size], stored[size:]
        return content if hashlib.sha256(content).digest() == digest else None

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""
        self._folder.write(self._name, hashlib.sha256(content).digest() + content)

    def delete(self) -> None:
        """Forget the checkpoint."""
        self._folder.delete(self._name)


def _manifest(content: bytes) -> dict[str, Any] | None:
    """A manifest as it was written, or None if it is damaged."""
    try:
        manifest = json.loads(content)
        # Manifests of earlier versions have no checksum of their own.
        claimed = manifest.pop("manifest_sha256", None)
        sound = {"metrics", "class_names", "sha256"} <= manifest.keys() and claimed in (None, checksum(manifest))
    except (ValueError, AttributeError, TypeError):
        return None
    return manifest if sound else None


def _abreast(action: Callable[[str], Result], keys: list[str]) -> list[Result]:
    # On a disk, handing over a result takes as long as reading the next small file.
    size = max(1, min(MOST_AT_ONCE, len(keys) // (4 * REQUESTS_ABREAST)))
    parts = [keys[start : start + size] for start in range(0, len(keys), size)]
    with ThreadPoolExecutor(REQUESTS_ABREAST) as pool:
        return [result for results in pool.map(lambda part: [*map(action, part)], parts) for result in results]


def _columns(files: Mapping[str, bytes], names: Iterable[str]) -> dict[str, schema.Columns]:
    """A stage's rows from its files: of each table, its columns."""
    if ROWS in files:
        columns: dict[str, schema.Columns] = json.loads(files[ROWS])
        return columns
    # Not read_table, whose data set machinery takes ten times as long for so small a file.
    buffers = {name: pa.BufferReader(files[f"{name}.parquet"]) for name in names}
    return {name: pq.ParquetFile(buffer).read(use_threads=False).to_pydict() for name, buffer in buffers.items()}


def _bytes(content: bytes | pa.Table) -> bytes:
    return content if isinstance(content, bytes) else _parquet_bytes(content)


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(_pandas_types(table.schema)), sink)
    return bytes(sink.getvalue().to_pybytes())


def _pandas_types(columns: pa.Schema) -> dict[str, str]:
    """What pandas reads, so that whole numbers and truths with nulls are not floats and objects in its frames."""
    known = {pa.int64(): ("int64", "Int64"), pa.bool_(): ("bool", "boolean")}
    described = [
        {"name": field.name, "field_name": field.name, "pandas_type": plain, "numpy_type": own, "metadata": None}
        for field in columns
        if field.nullable and field.type in known
        for plain, own in [known[field.type]]
    ]
    return {"pandas": json.dumps({"index_columns": [], "column_indexes": [], "columns": described})}

"""Where artifacts and rows live: one storage path, shared by all studies on it, through ``pyarrow.fs``.

::

    stages/<key>/           a complete stage: tensors.safetensors, one Parquet file a table, manifest.json
    checkpoints/<key>.pt    the running checkpoint of a stage that is not complete
    studies/<name>/         a study: its configuration, its tables and its report

A stage is complete when its manifest is there. The manifest is written last, each file whole, and it holds the
checksums of the others; nobody looks at a stage without one.
"""

import hashlib
import json
import posixpath
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from study import schema
from trainables.artifacts import Artifact
from trainables.results import StageResult

MANIFEST = "manifest.json"
TENSORS = "tensors.safetensors"
LEAST_FREE_BYTES = 200 * 2**20


class StorageError(Exception):
    """The storage cannot be used, or a stored stage is damaged; the message says where and what to do."""


class Storage:
    """Stages, checkpoints and studies under one folder."""

    def __init__(self, location: str) -> None:
        """Open a storage; nothing is written yet.

        Raises:
            StorageError: the location is a URI.
        """
        if "://" in location:
            raise StorageError(f"the storage {location} is a URI: give a folder, on a local or shared disk")
        # Absolute, for workers have another working directory.
        self.root = str(Path(location).expanduser().resolve())
        self.fs: fs.FileSystem = fs.LocalFileSystem()

    def probe(self) -> None:
        """Make sure that the storage can be written, and has room, before anything is trained.

        Raises:
            StorageError: it cannot, or has not.
        """
        path = self._path(f".probe-{uuid.uuid4().hex}")
        try:
            self._write(path, b"probe")
            self.fs.delete_file(path)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(
                f"cannot write to the storage {self.root}: {error}\n"
                "  give a folder that you may write to with --storage"
            ) from None
        if (free := shutil.disk_usage(self.root).free) < LEAST_FREE_BYTES:
            raise StorageError(
                f"the storage {self.root} has {free / 2**20:.0f} MiB free; "
                f"a study wants at least {LEAST_FREE_BYTES / 2**20:.0f}: free some, or give another with --storage"
            )

    def has(self, key: str) -> bool:
        """Whether the stage is complete."""
        return bool(self.fs.get_file_info(self._stage(key, MANIFEST)).type == fs.FileType.File)

    def stages(self) -> list[str]:
        """Keys of all stages, complete or not."""
        return self._folders("stages")

    def studies(self) -> list[str]:
        """Names of all studies."""
        return self._folders("studies")

    def publish(self, key: str, result: StageResult, row: Mapping[str, Any]) -> None:
        """Store a finished stage: tensors, rows, and last the manifest. Its checkpoint goes."""
        children: dict[str, Iterable[Mapping[str, Any]]] = {
            "epochs": result.epochs,
            "layers": result.layers,
            "knowledge": result.knowledge,
            "confusion": result.confusion,
        }
        files = {TENSORS: save_tensors(dict(result.tensors)), "stages.parquet": _parquet("stages", [row])}
        for name, rows in children.items():
            files[f"{name}.parquet"] = _parquet(name, [{"stage": key, **child} for child in rows])
        for name, content in files.items():
            self._write(self._stage(key, name), content)
        manifest = {
            "stage": key,
            "metrics": result.metrics,
            "class_names": result.class_names,
            "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
        self._write(self._stage(key, MANIFEST), json.dumps(manifest, indent=1).encode())
        self.checkpoint(key).delete()

    def artifact(self, key: str) -> Artifact:
        """Tensors and metrics of a complete stage.

        Raises:
            StorageError: the stage is incomplete, or its tensors are not those that were published.
        """
        manifest = self.manifest(key)
        tensors = self._read(self._stage(key, TENSORS))
        if tensors is None or hashlib.sha256(tensors).hexdigest() != manifest["sha256"][TENSORS]:
            folder = self._stage(key)
            raise StorageError(f"{folder}/{TENSORS} is damaged: delete {folder} and run the study again")
        return Artifact(load_tensors(tensors), manifest["metrics"], tuple(manifest["class_names"]))

    def manifest(self, key: str) -> dict[str, Any]:
        """Metrics, class names and checksums of a complete stage.

        Raises:
            StorageError: the stage is not complete.
        """
        content = self._read(self._stage(key, MANIFEST))
        if content is None:
            raise StorageError(f"stage {key} is not in {self.root}")
        manifest: dict[str, Any] = json.loads(content)
        return manifest

    def rows(self, table: str, keys: Iterable[str]) -> pa.Table:
        """The rows of complete stages in one table, in the order of the keys."""
        parts = [pq.read_table(self._stage(key, f"{table}.parquet"), filesystem=self.fs) for key in keys]
        return pa.concat_tables(parts) if parts else schema.table(table, [])

    def checkpoint(self, key: str) -> "StageCheckpoint":
        """The running checkpoint of a stage."""
        return StageCheckpoint(self, key)

    def write_study(self, study: str, name: str, content: bytes | pa.Table) -> None:
        """Write a file of a study: a table as Parquet, or bytes."""
        if isinstance(content, pa.Table):
            content = _parquet_bytes(content)
        self._write(self.study_path(study, name), content)

    def read_study(self, study: str, name: str) -> pa.Table:
        """A table of a study.

        Raises:
            StorageError: there is none.
        """
        path = self.study_path(study, f"{name}.parquet")
        if (content := self._read(path)) is None:
            raise StorageError(f"{path} is not there: run the study first")
        return pq.read_table(pa.BufferReader(content))

    def study_path(self, study: str, *parts: str) -> str:
        """Path of a study's folder or of something in it."""
        return self._path("studies", study, *parts)

    def _path(self, *parts: str) -> str:
        return posixpath.join(self.root, *parts)

    def _stage(self, key: str, *parts: str) -> str:
        return self._path("stages", key, *parts)

    def _folders(self, parent: str) -> list[str]:
        selector = fs.FileSelector(self._path(parent), allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def _read(self, path: str) -> bytes | None:
        try:
            with self.fs.open_input_stream(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _write(self, path: str, content: bytes) -> None:
        """Write a file whole: aside, then renamed."""
        aside = f"{path}.{uuid.uuid4().hex}.tmp"
        self.fs.create_dir(posixpath.dirname(path), recursive=True)
        with self.fs.open_output_stream(aside) as stream:
            stream.write(content)
        self.fs.move(aside, path)


class StageCheckpoint:
    """The one running checkpoint of a stage: each write replaces it whole."""

    def __init__(self, storage: Storage, key: str) -> None:
        self._storage, self._file = storage, storage._path("checkpoints", f"{key}.pt")

    def read(self) -> bytes | None:
        """The last checkpoint, or None."""
        return self._storage._read(self._file)

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""
        self._storage._write(self._file, content)

    def delete(self) -> None:
        """Forget the checkpoint."""
        if self._storage.fs.get_file_info(self._file).type == fs.FileType.File:
            self._storage.fs.delete_file(self._file)


def _parquet(name: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    return _parquet_bytes(schema.table(name, rows))


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())

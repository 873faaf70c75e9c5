"""A stage is there whole or not at all, on a disk and in an object store."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from study import schema
from study.files import Folder
from study.storage import LostStageError, Storage, StorageError
from tests.object_store import BUCKET, object_store
from trainables.results import StageResult

KEY = "transfer-0123"
ROW = {
    "stage": KEY,
    "kind": "transfer",
    "status": "done",
    "network": "small_alexnet",
    "data": "digits8",
    "seed": 1,
    "parents": "{}",
    "hyperparameters": "{}",
    "rounds": 1,
    "epochs": 1,
    "images": 40,
    "started_at": datetime(2026, 1, 1, tzinfo=UTC),
}
COUNTS = ("connections_dense", "connections_before", "connections", "neurons_before", "neurons")
PROVENANCE = ["data_fingerprint", "tensors_sha256", "processor", "threads"]
"""Columns that earlier versions did not write."""


def result() -> StageResult:
    tensors = {"main.fc8.weight": torch.arange(6.0).view(2, 3), "mask.fc8": torch.tensor([[True, False, True]] * 2)}
    epoch = {"round": 0, "epoch": 1, "learning_rate": 0.1, "loss": 1.0, "loss_main": 1.0, "train_accuracy": 10.0}
    return StageResult(tensors, {"val_accuracy": 50.0}, ("0", "1"), [epoch])


class Crash(Exception):
    pass


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """A storage of each kind; every test with it is part of what any kind must do."""
    if request.param == "disk":
        yield Storage(str(tmp_path))
        return
    with object_store(monkeypatch):
        yield Storage(f"s3://{BUCKET}/results")


def file_of(storage: Storage, name: str) -> str:
    """A file of the stage, by its name in the storage."""
    return f"stages/{KEY}/{storage.manifest(KEY)['folder']}/{name}"


def flip(folder: Folder, name: str) -> None:
    """Turn one bit of a file."""
    content = bytearray(folder.read(name) or b"")
    content[len(content) // 2] ^= 1
    folder.write(name, bytes(content))


def test_published_stages_come_back(storage: Storage) -> None:
    storage.checkpoint(KEY).write(b"half way")
    assert not storage.has(KEY)
    storage.store(KEY, result(), ROW)
    assert storage.has(KEY)
    artifact = storage.artifact(KEY)
    assert artifact.metrics == {"val_accuracy": 50.0} and artifact.class_names == ("0", "1")
    for name, tensor in result().tensors.items():
        assert torch.equal(artifact.tensors[name], tensor)
    assert storage.checkpoint(KEY).read() is None
    assert storage.rows("epochs", [KEY])["stage"].to_pylist() == [KEY]
    stored = storage.folder.read(file_of(storage, "rows.json"))
    assert stored is not None and pd.DataFrame(json.loads(stored)["stages"])["seed"].tolist() == [1]
    tables = storage.tables([KEY])
    assert all(tables[name].equals(storage.rows(name, [KEY])) for name in tables)
    assert tables["epochs"].equals(schema.table("epochs", ({"stage": KEY, **row} for row in result().epochs)))
    assert storage.stored(["other", KEY]) == [KEY]
    assert storage.rows("layers", []).num_rows == 0


@pytest.mark.parametrize("writes", range(3))
def test_a_crash_while_publishing_leaves_no_stage(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    original, left = storage.folder.write, writes

    def write(name: str, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1
        original(name, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage.folder, "write", write)
        with pytest.raises(Crash):
            storage.store(KEY, result(), ROW)
    assert not storage.has(KEY)
    storage.store(KEY, result(), ROW)
    assert storage.artifact(KEY).metrics == {"val_accuracy": 50.0}


@pytest.mark.parametrize("file", ["tensors.safetensors", "rows.json"])
def test_a_damaged_stage_is_withdrawn_and_published_anew(storage: Storage, file: str) -> None:
    storage.store(KEY, result(), ROW)
    damaged = file_of(storage, file)
    flip(storage.folder, damaged)
    with pytest.raises(LostStageError, match=f"{damaged} was damaged: the stage is withdrawn"):
        if file == "tensors.safetensors":
            assert not storage.damaged([KEY])
            storage.artifact(KEY)
        else:
            storage.rows("knowledge", [KEY])
    assert not storage.has(KEY)
    storage.store(KEY, result(), ROW)
    assert storage.artifact(KEY).metrics == {"val_accuracy": 50.0} and not storage.damaged([KEY])
    kept = storage.folder.files(f"stages/{KEY}")
    assert sorted(name.split("-")[0] for name in kept) == ["damaged", "manifest.json"]


def test_each_bit_of_a_manifest_counts(storage: Storage) -> None:
    storage.store(KEY, result(), ROW)
    name = f"stages/{KEY}/manifest.json"
    original = storage.folder.read(name)
    assert original is not None
    for content in (b"", original[:-9], original.replace(b"50.0", b"51.0"), b"[]", b"\xff" + original):
        storage.folder.write(name, content)
        assert KEY in storage.damaged([KEY]) and not storage.has(KEY)
        storage.folder.write(name, original)
    assert not storage.damaged([KEY])


def test_a_missing_file_is_damage_and_a_missing_stage_is_said(storage: Storage) -> None:
    storage.store(KEY, result(), ROW)
    storage.folder.delete(file_of(storage, "tensors.safetensors"))
    with pytest.raises(LostStageError, match="safetensors was damaged"):
        storage.artifact(KEY)
    with pytest.raises(LostStageError, match="stage other is not in"):
        storage.artifact("other")


def test_whoever_publishes_second_harms_no_reader(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.store(KEY, result(), ROW)
    read = storage.manifest(KEY)
    # The second has looked before the first was done.
    monkeypatch.setattr(storage, "has", lambda key: False)
    storage.store(KEY, result(), {**ROW, "seconds": 3.0})
    monkeypatch.undo()
    assert storage.manifest(KEY)["folder"] != read["folder"]
    assert storage._file(KEY, "rows.json", read), "who has read the first manifest finds its files"
    assert storage.rows("stages", [KEY])["seconds"].to_pylist() == [3.0]
    storage.store(KEY, result(), {**ROW, "seconds": 4.0})
    assert storage.rows("stages", [KEY])["seconds"].to_pylist() == [3.0], "what is complete stays"


def test_damage_that_was_seen_before_harms_no_stage_published_since(storage: Storage) -> None:
    storage.store(KEY, result(), ROW)
    old = storage.manifest(KEY)
    flip(storage.folder, file_of(storage, "tensors.safetensors"))
    with pytest.raises(LostStageError):
        storage.artifact(KEY)
    storage.store(KEY, result(), ROW)
    with pytest.raises(LostStageError):
        storage._file(KEY, "tensors.safetensors", old)
    assert storage.has(KEY)


def test_stages_of_earlier_versions_are_read(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.store(KEY, result(), ROW)
    folder = tmp_path / "stages" / KEY
    manifest = storage.manifest(KEY)
    tables = storage.tables([KEY])
    assert tables["stages"]["tensors_sha256"].to_pylist() == [manifest["sha256"]["tensors.safetensors"]]
    attempt, hashes = folder / manifest.pop("folder"), manifest["sha256"]
    (attempt / "tensors.safetensors").rename(folder / "tensors.safetensors")
    # They wrote one Parquet file a table, next to the manifest.
    del hashes["rows.json"]
    for name, rows in (tables | {"stages": tables["stages"].drop_columns(PROVENANCE)}).items():
        pq.write_table(rows, folder / f"{name}.parquet")
        hashes[f"{name}.parquet"] = hashlib.sha256((folder / f"{name}.parquet").read_bytes()).hexdigest()
    shutil.rmtree(attempt)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert storage.artifact(KEY).metrics == {"val_accuracy": 50.0} and not storage.damaged([KEY])
    storage.store("transfer-4567", result(), {**ROW, "stage": "transfer-4567", **dict.fromkeys(PROVENANCE)})
    both = storage.rows("stages", [KEY, "transfer-4567"])
    assert both.schema.equals(schema.arrow_schema("stages")) and both["images"].to_pylist() == [40, 40]
    assert all(both[name].to_pylist()[0] is None for name in PROVENANCE)
    assert both["started_at"].to_pylist()[0] == tables["stages"]["started_at"].to_pylist()[0] == ROW["started_at"]
    assert storage.tables([KEY])["epochs"].equals(tables["epochs"])
    flip(storage.folder, f"stages/{KEY}/epochs.parquet")
    assert KEY in storage.damaged([KEY])


def test_a_checkpoint_is_replaced_whole_and_a_damaged_one_is_none(storage: Storage) -> None:
    checkpoint = storage.checkpoint(KEY)
    assert checkpoint.read() is None
    for content in (b"one", b"two"):
        checkpoint.write(content)
        assert checkpoint.read() == content
    assert list(storage.folder.files("checkpoints")) == [f"{KEY}.pt"]
    flip(storage.folder, f"checkpoints/{KEY}.pt")
    assert checkpoint.read() is None
    storage.folder.write(f"checkpoints/{KEY}.pt", b"")
    assert checkpoint.read() is None


def test_the_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    Storage(str(tmp_path / "new" / "folder")).probe()
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_full_disk_is_seen_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 3 * 2**20

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(StorageError, match="3 MiB free"):
        Storage(str(tmp_path)).probe()


@pytest.mark.parametrize(
    ("change", "message"), [({"colour": "red"}, "unknown column colour"), ({"kind": None}, "no value for kind")]
)
def test_rows_must_fit_the_schema(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schema.table("stages", [{**ROW, **change}])


def test_columns_are_read_by_their_former_names() -> None:
    row = {"stage": KEY, "layer_index": 1, "layer": "fc6", "type": "inner_product"}
    now = schema.table("layers", [row | dict.fromkeys(COUNTS, 5)])
    former = ["index" if column == "layer_index" else column for column in now.column_names]
    assert schema.completed("layers", now.rename_columns(former)).equals(now)
    assert schema.merged("layers", [now.rename_columns(former).to_pydict()]).equals(now)


def test_a_table_that_another_program_wrote_is_read(tmp_path: Path) -> None:
    ours = schema.table("stages", [ROW | {"stage": f"transfer-{seed}", "seed": seed} for seed in (None, 3)])
    storage = Storage(str(tmp_path))
    storage.write_study("mine", "stages.parquet", ours)
    path = tmp_path / "studies/mine/stages.parquet"
    frame = pd.read_parquet(path)
    frame.to_parquet(path)
    assert schema.completed("stages", pq.read_table(path)).equals(ours)
    # Polars' types, and those of a spreadsheet: long strings, whole numbers as floats.
    foreign = [
        pa.field(field.name, {pa.string(): pa.large_string(), pa.int64(): pa.float64()}.get(field.type, field.type))
        for field in ours.schema
    ]
    assert schema.completed("stages", ours.cast(pa.schema(foreign))).equals(ours)
    with pytest.raises(ValueError, match="seed"):
        broken = ours.set_column(ours.column_names.index("seed"), "seed", pa.array(["one", "two"]))
        schema.completed("stages", broken)


def test_whole_numbers_with_nulls_stay_whole_in_pandas(tmp_path: Path) -> None:
    cell = {"ablation": "tau", "net": "A", "tables": [], "seed": 0, "sparsity": "none", "knowledge": "none"}
    cell |= {"target_knowledge": "none", "n_m": 1, "stage": KEY, "path": [KEY]}
    Storage(str(tmp_path)).write_study(
        "mine", "cells.parquet", schema.table("cells", [cell | {"n_e": 2, "own_point": True}, cell])
    )
    read = pd.read_parquet(tmp_path / "studies/mine/cells.parquet")
    assert [str(read[column].dtype) for column in ("n_e", "own_point")] == ["Int64", "boolean"]
    assert read["n_e"].tolist() == [2, pd.NA] and read["own_point"].tolist() == [True, pd.NA]


def test_every_column_says_what_it_means() -> None:
    for name, columns in schema.TABLES.items():
        assert len({column.name for column in columns}) == len(columns)
        for field in schema.arrow_schema(name):
            assert len(field.metadata[b"meaning"]) > 5

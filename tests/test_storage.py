"""A stage is there whole or not at all."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from study import schema
from study.storage import Storage, StorageError
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


def result() -> StageResult:
    tensors = {"main.fc8.weight": torch.arange(6.0).view(2, 3), "mask.fc8": torch.tensor([[True, False, True]] * 2)}
    epoch = {"round": 0, "epoch": 1, "learning_rate": 0.1, "loss": 1.0, "loss_main": 1.0, "train_accuracy": 10.0}
    return StageResult(tensors, {"val_accuracy": 50.0}, ("0", "1"), [epoch])


class Crash(Exception):
    pass


def test_published_stages_come_back(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.checkpoint(KEY).write(b"half way")
    assert not storage.has(KEY)
    storage.publish(KEY, result(), ROW)
    assert storage.has(KEY)
    artifact = storage.artifact(KEY)
    assert artifact.metrics == {"val_accuracy": 50.0} and artifact.class_names == ("0", "1")
    for name, tensor in result().tensors.items():
        assert torch.equal(artifact.tensors[name], tensor)
    assert storage.checkpoint(KEY).read() is None
    assert storage.rows("epochs", [KEY])["stage"].to_pylist() == [KEY]
    assert pd.read_parquet(tmp_path / "stages" / KEY / "stages.parquet")["seed"].tolist() == [1]
    assert storage.rows("layers", []).num_rows == 0


@pytest.mark.parametrize("writes", range(6))
def test_a_crash_while_publishing_leaves_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    storage = Storage(str(tmp_path))
    original, left = storage._write, writes

    def write(path: str, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise Crash
        left -= 1
        original(path, content)

    monkeypatch.setattr(storage, "_write", write)
    with pytest.raises(Crash):
        storage.publish(KEY, result(), ROW)
    assert not storage.has(KEY)
    monkeypatch.undo()
    storage.publish(KEY, result(), ROW)
    assert storage.artifact(KEY).metrics == {"val_accuracy": 50.0}


def test_damage_is_found_and_said(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.publish(KEY, result(), ROW)
    path = tmp_path / "stages" / KEY / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=f"{KEY}/tensors.safetensors is damaged: delete"):
        storage.artifact(KEY)
    with pytest.raises(StorageError, match="stage other is not in"):
        storage.artifact("other")


def test_a_checkpoint_is_replaced_whole(tmp_path: Path) -> None:
    checkpoint = Storage(str(tmp_path)).checkpoint(KEY)
    assert checkpoint.read() is None
    for content in (b"one", b"two"):
        checkpoint.write(content)
        assert checkpoint.read() == content
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{KEY}.pt"]


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


def test_every_column_says_what_it_means() -> None:
    for name, columns in schema.TABLES.items():
        assert len({column.name for column in columns}) == len(columns)
        for field in schema.arrow_schema(name):
            assert len(field.metadata[b"meaning"]) > 5

"""The whole study in an object store: the same results as on a disk, whatever requests fail."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import analysis
from study.files import Folder, StorageError
from study.storage import Storage
from tests.commands import assert_same_results, study
from tests.object_store import BUCKET, Faulty, object_store

LOCATION = f"s3://{BUCKET}/some/results"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    with object_store(monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def on_disk(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("disk")
    study(preset, storage, "--slots", "2")
    return storage


@pytest.mark.slow
def test_one_request_in_twenty_fails_and_nothing_changes(server: Faulty, on_disk: Path, preset: Path) -> None:
    server.every = 20
    printed = study(preset, LOCATION, "--slots", "2")
    assert f"report: {LOCATION}/studies/tiny/report/index.html" in printed
    assert server.refused > 20
    assert_same_results(LOCATION, on_disk)
    folder = Folder(f"{LOCATION}/studies/tiny")
    assert set(folder.files("report")) == {path.name for path in (on_disk / "studies/tiny/report").iterdir()}
    assert not [name for name in folder.files() if name.startswith("driver")]

    again = study(preset, LOCATION)
    assert "nothing to train" in again
    command = [sys.executable, "-m", "analysis", f"{LOCATION}/studies/tiny"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    local = subprocess.run([*command[:-1], str(on_disk / "studies/tiny")], capture_output=True, text=True, check=True)
    assert shown.replace(LOCATION, str(on_disk)) == local.stdout


@pytest.mark.slow
def test_what_cannot_be_used_is_said_in_seconds(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"(?s)s3://other/results: .*check its name and your credentials") as said:
        Storage("s3://other/results").probe()
    assert "bucket does not exist" in str(said.value)
    with pytest.raises(StorageError, match="names no bucket"):
        Storage("s3://")
    server.every = 1
    with pytest.raises(StorageError, match="cannot write to the storage"):
        Storage(LOCATION).probe()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="connect to server"):
        Storage(LOCATION).probe()


def test_a_study_that_is_not_there(server: Faulty) -> None:
    with pytest.raises(analysis.StudyError, match=f"{LOCATION}/studies/none does not exist"):
        analysis.load(f"{LOCATION}/studies/none")


def test_a_search_says_that_it_wants_a_disk(server: Faulty, preset: Path) -> None:
    command = [sys.executable, "-m", "study.search", "--preset", str(preset), "--storage", LOCATION]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Optuna's database wants a local or shared disk" in done.stderr

"""The whole study in an object store: the same results as on a disk, whatever requests fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import analysis
from analysis.__main__ import main as analyse
from study import search
from study.files import Folder, StorageError
from study.storage import Storage
from tests.commands import assert_same_results, study
from tests.object_store import BUCKET, Faulty, object_store

LOCATION = f"s3://{BUCKET}/some/results"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    with object_store(monkeypatch) as server:
        yield server


@pytest.mark.slow
def test_one_request_in_twenty_fails_and_nothing_changes(
    server: Faulty, trained: Path, preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.every = 20
    printed = study(preset, LOCATION, "--slots", "2")
    assert f"report: {LOCATION}/studies/tiny/report/index.html" in printed
    assert server.refused > 20
    assert_same_results(LOCATION, trained)
    folder = Folder(f"{LOCATION}/studies/tiny")
    assert set(folder.files("report")) == {path.name for path in (trained / "studies/tiny/report").iterdir()}
    assert not [name for name in folder.files() if name.startswith("driver")]

    again = study(preset, LOCATION)
    assert "nothing to train" in again
    capsys.readouterr()
    assert analyse([f"{LOCATION}/studies/tiny"]) == 0
    shown = capsys.readouterr().out
    assert analyse([str(trained / "studies/tiny")]) == 0
    assert shown.replace(LOCATION, str(trained)) == capsys.readouterr().out


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


def test_a_search_says_that_it_wants_a_disk(server: Faulty, preset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search.main(["--preset", str(preset), "--storage", LOCATION]) == 2
    assert "Optuna's database wants a local or shared disk" in capsys.readouterr().err

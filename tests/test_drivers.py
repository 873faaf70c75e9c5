"""Two drivers on one storage: on different studies they share their stages, on the same one the second is refused."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.files import Folder
from study.run.lease import DEAD_SECONDS, StudyIsRunningError, only_driver
from tests.commands import SECONDS, assert_same_results, command
from tests.object_store import BUCKET, object_store


def start(preset: Path, storage: Path, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(preset, storage, "--slots", "1", "--name", name),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_two_studies_share_a_storage_at_once(trained: Path, preset: Path, tmp_path: Path) -> None:
    processes = {name: start(preset, tmp_path, name) for name in ("one", "two")}
    for name, process in processes.items():
        printed, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and "failed" not in printed, printed
        assert_same_results(tmp_path, trained, name, "tiny")
    assert not list(tmp_path.glob("stages/*/damaged*")) and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_of_two_drivers_of_one_study_one_is_refused(trained: Path, preset: Path, tmp_path: Path) -> None:
    processes = [start(preset, tmp_path, "tiny") for _ in range(2)]
    printed = {process.communicate(timeout=SECONDS)[0]: process.returncode for process in processes}
    assert sorted(printed.values()) == [0, 2], printed
    (refused,) = [text for text, status in printed.items() if status == 2]
    winner = next(process.pid for process in processes if process.returncode == 0)
    assert f"the study tiny is being run by process {winner} on {socket.gethostname()}, since 20" in refused
    assert "give this one another --name" in refused and "Traceback" not in refused
    assert_same_results(tmp_path, trained)
    assert not list(tmp_path.glob("studies/tiny/driver*"))


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    if request.param == "disk":
        yield Folder(str(tmp_path))
        return
    with object_store(monkeypatch):
        yield Folder(f"s3://{BUCKET}/results")


def leave(folder: Folder, host: str, pid: int) -> str:
    """The sign of life of another driver."""
    name = "studies/digits/driver-other.json"
    folder.write(name, json.dumps({"host": host, "pid": pid, "since": "yesterday"}).encode())
    return name


def test_who_is_alive_keeps_the_study(folder: Folder) -> None:
    for host, pid in (("elsewhere", 7), (socket.gethostname(), os.getppid())):
        name = leave(folder, host, pid)
        words = f"(?s)process {pid} on {host}, since yesterday.*delete {folder.at(name)}"
        with pytest.raises(StudyIsRunningError, match=words), only_driver(folder, "digits"):
            pass
        assert list(folder.files("studies/digits")) == ["driver-other.json"]
    with only_driver(folder, "another"):
        pass


def test_who_died_on_this_machine_is_followed_at_once(folder: Folder) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    leave(folder, socket.gethostname(), dead.pid)
    with only_driver(folder, "digits"):
        assert len(folder.files("studies/digits")) == 1
    assert not folder.files("studies/digits")


def test_who_is_silent_elsewhere_is_followed_after_a_while(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    sign = tmp_path / leave(folder, "elsewhere", 7)
    long_ago = time.time() - DEAD_SECONDS - 5
    os.utime(sign, (long_ago, long_ago))
    with only_driver(folder, "digits"):
        assert not sign.exists()


def test_a_driver_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.run.lease.BEAT_SECONDS", 0.05)
    folder = Folder(str(tmp_path))
    with only_driver(folder, "digits"):
        (sign,) = (tmp_path / "studies/digits").glob("driver-*.json")
        written = sign.stat().st_mtime_ns
        end = time.monotonic() + 10
        while sign.stat().st_mtime_ns == written:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert not sign.exists()


def test_no_sign_of_life_comes_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies of one name, one right after the other from Python: the first must not seem to run."""
    monkeypatch.setattr("study.run.lease.BEAT_SECONDS", 0.01)
    folder, writing = Folder(str(tmp_path)), threading.Event()
    write = folder.write

    def slow_write(name: str, content: bytes, patience: float) -> None:
        writing.set()
        time.sleep(0.3)
        write(name, content, patience)

    with only_driver(folder, "digits"):
        monkeypatch.setattr(folder, "write", slow_write)
        assert writing.wait(10)
    time.sleep(0.5)
    assert not folder.files("studies/digits")

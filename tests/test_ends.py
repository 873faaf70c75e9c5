"""How commands end: signals, pipes, terminals, and what else lies in the folder in which they run."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ray.tune.logger import TBXLoggerCallback

from study.files import Folder, StorageError
from study.stops import StoppedError
from study.storage import Storage
from study.tune import trial
from study.tune.cluster import Stops
from study.tune.scalars import Scalars
from tests.commands import study

COMMAND = [sys.executable, "-m", "study.ablation"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_somebody_swallows_is_not_lost(number: signal.Signals) -> None:
    """As compiled code does that can raise nothing."""
    before = signal.getsignal(number)
    with Stops() as stops:
        stops.on_step_begin(0, [])
        with pytest.raises(StoppedError):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt) as stopped:
            stops.on_step_begin(1, [])
    assert isinstance(stopped.value, StoppedError) and stopped.value.number == number
    assert signal.getsignal(number) == before


def test_a_signal_keeps_its_number_though_tune_raises_another_error() -> None:
    with pytest.raises(StoppedError) as stopped, Stops():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    assert stopped.value.number == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_an_event_is_written(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised while TensorBoard's queue is locked, it left the lock taken, and the process waited for it for ever."""
    written = []

    def write(self: object, *_: object, **__: object) -> None:
        signal.raise_signal(number)
        written.append("whole")

    for name in ("on_trial_start", "on_trial_result", "on_trial_complete", "on_trial_error"):
        monkeypatch.setattr(TBXLoggerCallback, name, write)
        with Stops() as stops, pytest.raises(StoppedError) as stopped:
            getattr(Scalars(stops), name)(iteration=1, trials=[], trial=None, result={})
        assert stopped.value.number == number
    assert written == ["whole"] * 4


def test_a_thread_does_without_signals() -> None:
    ended = []

    def listen() -> None:
        with Stops() as stops:
            stops.on_step_begin(0, [])
        ended.append(True)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert ended


def test_a_report_goes_through_head(trained: Path) -> None:
    command = [sys.executable, "-m", "analysis", str(trained / "studies/tiny"), "--out", str(trained.parent / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_whoever_closes_the_pipe_is_told() -> None:
    with subprocess.Popen([*COMMAND, "--show-config"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read().decode()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "nobody reads the output any more: stopped." in said and "Traceback" not in said


def test_a_terminal_without_utf_8_shows_escapes() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    axes = ["--set", "axes={größe: [{transfer.tau: 2}]}", "--list-axes"]
    done = subprocess.run([*COMMAND, *axes], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe" in done.stdout


def test_a_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("raise SystemExit('mine')")
    done = subprocess.run([*COMMAND, "--list-presets"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "analysis.py hides this project's package analysis: rename it" in done.stderr


@pytest.mark.parametrize(
    ("location", "meant"), [("s3:/bucket/results", "s3://bucket/results"), ("file:/data/x", "file:///data/x")]
)
def test_a_slip_in_a_uri_makes_no_folder(location: str, meant: str) -> None:
    with pytest.raises(StorageError, match=f"did you mean {meant}"):
        Folder(location)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_file_in_the_way_of_the_storage_is_named(more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for storage in (tmp_path / "file", tmp_path / "file" / "within"):
        said = study("digits", storage, *more, status=2)
        assert f"{storage} cannot be a folder: {tmp_path / 'file'} is a file" in said


def test_google_without_an_answer_is_said_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would try for a quarter of an hour."""
    monkeypatch.setattr("study.files.SHORT_PATIENCE_SECONDS", 1.0)
    uri = "gs://anonymous@bucket/results?scheme=http&endpoint_override=127.0.0.1:1"
    with pytest.raises(StorageError, match=r"(?s)cannot write to the storage .*GOOGLE_APPLICATION_CREDENTIALS"):
        Storage(uri).probe()
    printed = study("digits", uri, "--dry-run", "--seeds", "1", status=2)
    assert "cannot reach gs://anonymous@bucket/results" in printed and len(printed.splitlines()) < 5


def test_the_commit_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "+" in trial.code_version.__wrapped__()
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    packages = tmp_path / "venv" / "lib" / "site-packages"
    (packages / "study" / "tune").mkdir(parents=True)
    monkeypatch.setattr(trial, "__file__", str(packages / "study" / "tune" / "trial.py"))
    assert "+" not in trial.code_version.__wrapped__()

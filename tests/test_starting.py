"""A Ray that does not start, or starts no process: said in words, and tried once more."""

import io
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from study.tune import starting
from study.tune.cluster import ClusterError
from study.tune.starting import FirstStage, start_ray

TIMED_OUT = "The current node timed out during startup"


class Starts:
    """In place of ``ray.init``: fails so often."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.settings: list[dict[str, Any]] = [{}]

    def __call__(self, **settings: Any) -> str:
        self.settings.append(settings)
        if len(self.settings) <= self.fails + 1:
            raise RuntimeError(TIMED_OUT)
        return "context"


@pytest.mark.parametrize("fails", [0, 1])
def test_ray_has_a_second_try(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", starts := Starts(fails))
    assert start_ray(num_cpus=2) == "context"
    assert len(starts.settings) == fails + 2
    assert starts.settings[-1]["num_cpus"] == 2 and starts.settings[-1]["address"] == "local"


def test_a_ray_that_does_not_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", Starts(2))
    with pytest.raises(ClusterError, match=rf"Ray does not start on this machine: {TIMED_OUT}\n.*--slots 0 trains"):
        start_ray()


@pytest.mark.parametrize("name", ["größe", "x" * 60])
def test_a_temporary_folder_that_no_socket_can_be_in_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Ray itself."""
    with tempfile.TemporaryDirectory(suffix=name, ignore_cleanup_errors=True) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        with pytest.raises(ClusterError, match=rf"its sockets go below {folder}, whose path .* set TMPDIR=/tmp"):
            start_ray(num_cpus=1)
    assert not ray.is_initialized()


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home := tmp_path / "home").write_text("a file, in which nobody can write, whoever runs the tests")
    monkeypatch.setenv("HOME", str(home))

    def init(**settings: Any) -> None:
        (home / ".ray").mkdir()

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError, match=rf"it keeps files in {home}, .* set HOME to a folder"):
        start_ray()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses with which the process would have ended."""
    statuses: list[int] = []
    monkeypatch.setattr(starting, "SAID_SECONDS", 0.05)
    monkeypatch.setattr(starting, "END_SECONDS", 0.1)
    monkeypatch.setattr("study.tune.starting.os._exit", statuses.append)
    return statuses


def watched(*, is_own: bool, starts: bool) -> str:
    """What is said while a stage begins at once, or none does."""
    said = io.StringIO()
    with FirstStage(Console(file=said), is_own=is_own) as first:
        if starts:
            first.on_trial_start(0, [], None)
        for thread in threading.enumerate():
            if thread.name.endswith("(_watch)"):
                thread.join()
        return said.getvalue()


def test_no_process_is_said_and_ends_the_command(ends: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert "Ray has started no process for" in watched(is_own=True, starts=False)
    assert ends == [2]
    assert "nothing was trained" in capsys.readouterr().err


@pytest.mark.parametrize(("is_own", "starts"), [(True, True), (False, False)])
def test_nothing_is_said_once_a_stage_runs_nor_of_a_cluster(is_own: bool, starts: bool, ends: list[int]) -> None:
    assert watched(is_own=is_own, starts=starts) == ""
    assert ends == []

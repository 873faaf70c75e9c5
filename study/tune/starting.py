"""Start Ray on this machine; report if it does not start, or starts no process."""

import os
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from study.tune.cluster import QUIET, ClusterError
from study.tune.scheduling import Observer

SAID_SECONDS = 60.0
"""Time without a process that trains after which this is reported; most processes start within ten seconds."""
END_SECONDS = 300.0
"""Time after which the command ends."""
LOG_LINES = 5
LONGEST_FOLDER = 40
"""Characters of a path below which Ray's sockets fit: they add up to 65, and the system's limit is 107."""
REMEDY = "--slots 0 trains in the command's own process, without Ray"


def start_ray(**settings: Any) -> Any:
    """Start Ray for this process; on a busy machine it may take a second try. Return its context.

    Raises:
        ClusterError: it does not start.
    """
    import ray

    for tries_left in (1, 0):
        try:
            # "local", or Ray would join any cluster that happens to run on this machine.
            return ray.init(address="local", **settings, **QUIET)
        except Exception as error:  # Ray raises anything here: its own errors, RuntimeError, OSError, AssertionError
            ray.shutdown()
            if not tries_left:
                raise ClusterError(
                    f"Ray does not start on this machine: {error}\n  {_remedy(error)}; {REMEDY}"
                ) from error


def _remedy(error: Exception) -> str:
    # Path.home() raises an error of its own for a user without a home, as in a container.
    folder, home = tempfile.gettempdir(), os.path.expanduser("~")  # noqa: PTH111
    if isinstance(error, OSError) and str(error.filename).startswith(f"{home.rstrip('/')}/.ray"):
        return f"it keeps files in {home}, which is not writable: set HOME to a folder that is"
    if len(folder) > LONGEST_FOLDER or not folder.isascii():
        return f"its sockets go below {folder}, whose path must be short and ASCII: set TMPDIR=/tmp"
    return "if it is busy, or short of memory or processes (ulimit -u), run the command again later"


class FirstStage(Observer):
    """Reports that Ray has started no process for any stage, with the end of its log, and then ends the command.

    Ray itself would wait forever.
    """

    def __init__(self, console: Console, *, is_own: bool) -> None:
        """Watch a Ray of our own; any other cluster may have to start nodes first."""
        super().__init__()
        self._console, self._is_own = console, is_own
        self._begun = threading.Event()

    def __enter__(self) -> "FirstStage":
        """Begin to wait."""
        if self._is_own:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Wait no longer."""
        self._begun.set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take note that there is one."""
        self._begun.set()

    def _watch(self) -> None:
        if self._begun.wait(SAID_SECONDS):
            return
        self._console.print(
            f"Ray has started no process for {SAID_SECONDS:.0f} s{_raylet_says()}", markup=False, soft_wrap=True
        )
        if self._begun.wait(END_SECONDS - SAID_SECONDS):
            return
        self._console.show_cursor()
        print(
            f"Ray has started no process for {END_SECONDS:.0f} s: nothing was trained{_raylet_says()}\n"
            f"  what is complete is stored: run the same command again; {REMEDY}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)


def _raylet_says() -> str:
    """The last lines of the log of the raylet, which starts processes, and its path."""
    with suppress(OSError, AttributeError):
        import ray

        log = Path(ray._private.worker.global_worker.node.get_logs_dir_path()) / "raylet.out"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(["", f"  the end of {log}:", *(f"    {line[:200]}" for line in lines)])
    return ""

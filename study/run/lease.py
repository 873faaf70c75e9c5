"""One driver a study: who runs a study leaves a sign of life in its folder, and a second driver is refused.

Stages are safe with any number of drivers (see ``study.storage``), so that two studies may share a storage at once. The
tables of one study are not: each driver would write its own. No file system here has more in common than to write
a file and to list them. So a driver writes a file of its own first and looks for others then: of two that start at once
at least one sees the other. Age is told by the file system's clock only.
"""

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from study.files import SHORT_PATIENCE_SECONDS, Folder, StorageError

BEAT_SECONDS = 10.0
DEAD_SECONDS = 60.0
"""A driver without a sign of life for so long is dead, wherever it ran."""
TRIES = 3
"""Two drivers that start at once may both give way; the next try finds one of them alone."""


class StudyIsRunningError(Exception):
    """Another driver runs the study; the message states which, and what to do."""


@dataclass(frozen=True)
class _Driver:
    file: str
    host: str
    pid: int
    since: str
    silent_seconds: float

    @property
    def is_alive(self) -> bool:
        if self.silent_seconds > DEAD_SECONDS:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@contextmanager
def only_driver(folder: Folder, study: str) -> Iterator[None]:
    """Be the one driver of a study.

    Args:
        folder: the storage's folder.
        study: the study's name.

    Raises:
        StudyIsRunningError: another driver runs it.
    """
    own = f"studies/{study}/driver-{uuid.uuid4().hex[:12]}.json"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    sign = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": now}).encode()
    try:
        _claim(folder, study, own, sign)
        with _signs_of_life(folder, own, sign):
            yield
    finally:
        with suppress(StorageError):
            folder.delete(own)


def is_running(folder: Folder, study: str) -> bool:
    """Whether a driver runs the study, as far as can be told from here without leaving a sign of life."""
    signs = {name: at for name, at in folder.files(f"studies/{study}").items() if name.startswith("driver-")}
    for name, written in signs.items():
        driver = _driver(folder, f"studies/{study}/{name}", (datetime.now(UTC) - written).total_seconds())
        if driver is not None and driver.is_alive:
            return True
    return False


def _driver(folder: Folder, file: str, silent_seconds: float) -> _Driver | None:
    """The driver that a sign is of; None if it is gone or damaged: whoever is alive soon writes the next."""
    if (content := folder.read(file)) is None:
        return None
    try:
        return _Driver(file, silent_seconds=silent_seconds, **json.loads(content))
    except (ValueError, TypeError):
        return None


def _claim(folder: Folder, study: str, own: str, sign: bytes) -> None:
    others: list[_Driver] = []
    for _ in range(TRIES):
        folder.write(own, sign)
        others = _others(folder, study, own)
        if not others:
            return
        folder.delete(own)
        time.sleep(random.uniform(0.1, 1.0))
    other = others[0]
    raise StudyIsRunningError(
        f"the study {study} is being run by process {other.pid} on {other.host}, since {other.since}: "
        f"{folder.at(f'studies/{study}')}\n"
        "  wait for it, or give this one another --name; both may share the storage\n"
        f"  if that process is dead, run this command again in {DEAD_SECONDS:.0f} s, or delete {folder.at(other.file)}"
    )


def _others(folder: Folder, study: str, own: str) -> list[_Driver]:
    """Other drivers that are alive; what the dead left behind is deleted."""
    files = folder.files(f"studies/{study}")
    signs = {f"studies/{study}/{name}": written for name, written in files.items() if name.startswith("driver-")}
    # The newest is our own, written a moment ago.
    now = max(signs.values(), default=datetime.now(UTC))
    alive = []
    for file in sorted(signs.keys() - {own}):
        driver = _driver(folder, file, (now - signs[file]).total_seconds())
        if driver is None:
            continue
        if driver.is_alive:
            alive.append(driver)
        else:
            folder.delete(file)
    return alive


@contextmanager
def _signs_of_life(folder: Folder, own: str, sign: bytes) -> Iterator[None]:
    """Write a sign of life every few seconds; none is written after the end."""
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(folder, own, sign, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        # A sign that is still being written would come after its deletion: a study that has ended would seem to run.
        beat.join()


def _beat(folder: Folder, own: str, sign: bytes, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(StorageError):
            folder.write(own, sign, SHORT_PATIENCE_SECONDS)

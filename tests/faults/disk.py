"""The local disk as one driver sees it, on which the faults that its schedule has for it come true."""

import errno
import os
import random
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from tests.faults.faults import Fault

HOUR = 3600.0
STANDSTILL_SECONDS = 120.0
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
STALE_CHANGES = 5
"""For so many changes a driver may not see what another one has written meanwhile."""


@dataclass(frozen=True)
class Change:
    """A change of the storage: ``act`` does a share of it, 1 being all; a put has a path and a content."""

    act: Callable[[float], None]
    put: tuple[str, bytes] | None = None


class Disk:
    """What ``study.files`` needs of a pyarrow file system.

    Changes (a file written, renamed, deleted) are counted from the driver's start: a fault comes at one of them. Every
    fault that came true is noted in a journal, and so are the files that a loss of power may hit.
    """

    def __init__(
        self,
        root: Path,
        journal: Path,
        faults: tuple[Fault, ...],
        in_object_store: bool,
        second: Callable[[Fault], None],
    ) -> None:
        self.type_name = "s3" if in_object_store else "local"
        self._root, self._journal, self._faults, self._second = root, journal, faults, second
        self._local = fs.LocalFileSystem()
        self._changes = 0
        self._no_room, self._error = 0, errno.ENOSPC
        self._flaky, self._draw = 0, random.Random(repr(faults))
        self._clock = 0.0
        self._stale = 0
        self._hidden: set[str] = set()
        self._late: list[tuple[int, str, bytes]] = []
        # A sign of life is written by a thread of its own: no fault comes there, or no schedule would repeat.
        self._main = threading.get_ident()

    def get_file_info(self, asked: Any) -> Any:
        self._request()
        found = self._local.get_file_info(asked)
        if isinstance(found, list):
            return [info for info in found if info.path not in self._hidden]
        return fs.FileInfo(found.path, fs.FileType.NotFound) if found.path in self._hidden else found

    @contextmanager
    def open_input_stream(self, path: str) -> Iterator[Any]:
        self._request()
        if path in self._hidden:
            raise FileNotFoundError(errno.ENOENT, "not there yet", path)
        with self._local.open_input_stream(path) as stream:
            yield stream

    def create_dir(self, path: str, *, recursive: bool) -> None:
        self._request()
        if self._no_room and self._error == errno.EROFS:
            raise OSError(self._error, os.strerror(self._error), path)
        self._local.create_dir(path, recursive=recursive)

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator["Content"]:
        content = Content()
        yield content
        self._change(Change(lambda share: self._put(path, content.written, share), (path, content.written)))

    def move(self, path: str, to: str) -> None:
        def move(share: float) -> None:
            if share >= 0.5:
                self._keep(to)
                self._local.move(path, to)

        self._change(Change(move))

    def delete_file(self, path: str) -> None:
        def delete(share: float) -> None:
            if share >= 0.5:
                self._local.delete_file(path)

        self._change(Change(delete))

    def _put(self, path: str, content: bytes, share: float) -> None:
        if self.type_name == "s3":
            # A put shows it whole or not at all.
            if share < 0.5:
                return
            share = 1.0
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content[: round(share * len(content))])
        self._hidden.discard(path)
        if self._clock:
            written = Path(path).stat().st_mtime + self._clock
            os.utime(path, (written, written))

    def _keep(self, path: str) -> None:
        """Note a file that is replaced now, with what it was, for a loss of power."""
        if not any(fault.kind == "power" for fault in self._faults):
            return
        kept = ""
        if Path(path).exists():
            kept = f"{self._journal}.{self._changes}"
            shutil.copyfile(path, kept)
        self._note("replaced", path, kept)

    def _request(self) -> None:
        if self._flaky:
            self._flaky -= 1
            if self._draw.random() < 0.1:
                raise OSError(errno.EIO, "the server is busy")

    def _change(self, change: Change) -> None:
        self._request()
        if threading.get_ident() != self._main:
            change.act(1.0)
            return
        number, self._changes = self._changes, self._changes + 1
        self._stale = max(0, self._stale - 1)
        if not self._stale:
            self._hidden = set()
        for fault in self._faults:
            if fault.at == number and (fault.kind != "late" or change.put):
                self._note("came true", fault.kind)
                self._come_true(fault, change)
        if self._no_room and (change.put or self._error == errno.EROFS):
            self._no_room -= 1
            raise OSError(self._error, os.strerror(self._error))
        change.act(1.0)
        for when, path, content in list(self._late):
            if when <= number:
                self._put(path, content, 1.0)
                self._late.remove((when, path, content))

    def _come_true(self, fault: Fault, change: Change) -> None:
        match fault.kind:
            case "kill" | "power":
                change.act(fault.where)
                os.kill(os.getpid(), signal.SIGKILL)
            case "full":
                self._no_room, self._error = fault.span, NO_ROOM[int(fault.where * len(NO_ROOM))]
            case "flaky":
                self._flaky = 10 * fault.span
            case "clock":
                self._clock = HOUR if fault.where < 0.5 else -HOUR
            case "late" if change.put:
                change.act(1.0)
                self._late.append((fault.at + fault.span, *change.put))
                raise OSError(errno.EIO, "no answer from the server")
            case "second":
                before = _files(self._root)
                self._second(fault)
                if fault.where < OTHER_STUDY:
                    self._hidden, self._stale = _files(self._root) - before, STALE_CHANGES

    def _note(self, *words: str) -> None:
        with self._journal.open("a") as journal:
            journal.write("\t".join(words) + "\n")


OTHER_STUDY = 0.3
"""Below: the second driver runs another study of the same stages, and the first one does not see its files at once."""
TAKES_OVER = 0.6
"""Above: it runs the same study, on another machine, as the first one has stood still for too long."""


class Content:
    """What is written into a file that is open."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, content: bytes) -> None:
        self.written += content


def came_true(journal: Path) -> list[str]:
    """The kinds of the faults that came true, in order."""
    return [words[1] for words in _notes(journal) if words[0] == "came true"]


def stand_still(root: Path) -> None:
    """Make all signs of life of drivers two minutes old."""
    for sign in root.rglob("driver-*.json"):
        old = sign.stat().st_mtime - STANDSTILL_SECONDS
        os.utime(sign, (old, old))


def lose_power(journal: Path, fault: Fault) -> int:
    """Do to the files that were written last what a loss of power may do to them; return how many were hit."""
    draw = random.Random(fault.where)
    hit = 0
    for _, name, kept in [words for words in _notes(journal) if words[0] == "replaced"][-fault.span :]:
        path = Path(name)
        way = draw.choice(("whole", "cut", "zeros", "lost"))
        place = draw.random()
        if way == "whole" or not path.is_file():
            continue
        hit += 1
        size = path.stat().st_size
        if way == "cut":
            os.truncate(path, int(place * size))
        elif way == "zeros":
            path.write_bytes(bytes(size))
        elif kept:
            shutil.copyfile(kept, path)
        else:
            path.unlink()
    return hit


def flip_bit(root: Path, where: float) -> None:
    """Turn one bit of some file."""
    draw = random.Random(where)
    if files := sorted((path for path in root.rglob("*") if path.is_file() and path.stat().st_size), key=_without_ids):
        path = draw.choice(files)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))


def _without_ids(path: Path) -> str:
    """A path without the names that are drawn anew each time, of attempts and of signs of life."""
    return re.sub(r"(?<![0-9a-f])[0-9a-f]{12}(?![0-9a-f])", "", str(path))


def _notes(journal: Path) -> list[list[str]]:
    return [line.split("\t") for line in journal.read_text().splitlines()] if journal.exists() else []


def _files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.is_file()}

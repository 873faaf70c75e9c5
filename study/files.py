"""Whole files under one folder, on a local or shared disk or in an object store, through ``pyarrow.fs``.

Everything that the project stores goes through here, so that the rest of it need not know what the folder is on. A
request that fails for no lasting reason (a server's 5xx, a lost connection, a disk's I/O error) is made again for a
while, whatever the file system.
"""

import errno
import posixpath
import random
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

PATIENCE_SECONDS = 30.0
"""How long a request is made again. A trial that gives up has failed, so this is longer than most troubles last."""
SHORT_PATIENCE_SECONDS = 6.0
"""The same if somebody waits for the answer: a wrong address should be reported soon."""
LONGEST_PAUSE_SECONDS = 5.0
RENAMING = {"local", "hdfs"}
"""File systems with an atomic rename: a file is written aside first. Elsewhere a put shows it whole or not at all."""
LASTING = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
}
"""Errors that the next try would meet again."""
REFUSED = re.compile(r"AWS Error (NO_SUCH_BUCKET|ACCESS_DENIED|INVALID_\w+|SIGNATURE\w*|UNRECOGNIZED\w*|MISSING_\w+)")
"""The same of S3, whose errors have no number."""

Result = TypeVar("Result")


class StorageError(Exception):
    """The storage cannot be used, or a stored stage is damaged; the message states where and what to do."""


class Folder:
    """A folder by its path or URI; names in it are relative, with slashes."""

    def __init__(self, location: str) -> None:
        """Open a folder; it need not exist, and nothing is written yet.

        Args:
            location: a path, or a URI that pyarrow knows: ``s3://bucket/prefix``, with options in its query.

        Raises:
            StorageError: the URI is of no known kind, its file system cannot be used here, or it holds a password.
        """
        if slip := re.match(r"([a-z][a-z0-9+]{1,9}):/(?!/)", location):
            kind, rest = slip[1], location[slip.end() :]
            slashes = ":///" if kind == "file" else "://"
            raise StorageError(f"{location} is neither a path nor a URI: did you mean {kind}{slashes}{rest}?")
        if "://" in location and urlsplit(location).password:
            raise StorageError(
                "the storage's URI holds a password, and would be printed and stored with it: "
                "put credentials into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or ~/.aws"
            )
        local: tuple[fs.FileSystem, str] = (fs.LocalFileSystem(), location)
        self._fs, self._base = _open(location) if "://" in location else local
        self.location = location
        self.is_local = self._fs.type_name == "local"
        if self.is_local:
            # Absolute, for workers have another working directory.
            self.location = self._base = str(Path(self._base).expanduser().resolve())

    def at(self, name: str = "") -> str:
        """Where something in the folder is: a path or URI to show, and for another process to open."""
        if self.is_local:
            return posixpath.join(self._base, name) if name else self._base
        parts = urlsplit(self.location)
        return urlunsplit(parts._replace(path=posixpath.join(parts.path, name) if name else parts.path))

    def above(self, levels: int) -> "Folder":
        """The folder ``levels`` above this one."""
        parts = urlsplit(self.location) if not self.is_local else None
        path = parts.path if parts is not None else self._base
        for _ in range(levels):
            path = posixpath.dirname(path)
        return Folder(path if parts is None else urlunsplit(parts._replace(path=path)))

    def within(self, name: str) -> "Folder":
        """A folder in this one, through the same connection."""
        inner = copy(self)
        inner._base, inner.location = self._path(name), self.at(name)
        return inner

    def read(self, name: str) -> bytes | None:
        """A file's content, or None if there is no such file."""

        def read() -> bytes | None:
            try:
                with self._fs.open_input_stream(self._path(name)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

        return self._patiently("read", name, read)

    def write(self, name: str, content: bytes, patience: float = PATIENCE_SECONDS) -> None:
        """Write a file whole, in place of what was there: readers never see half of it."""
        self._patiently("write", name, lambda: self._write(self._path(name), content), patience)

    def reach(self) -> None:
        """Make sure that the file system answers, and that this can be a folder, before anybody waits for more of it.

        Raises:
            StorageError: it does not answer within seconds, or a file is in the way.
        """
        self._patiently("reach", "", lambda: self._fs.get_file_info(self._path("")), SHORT_PATIENCE_SECONDS)
        if self.is_local:
            path = Path(self._base)
            nearest = next(place for place in (path, *path.parents) if place.exists())
            if not nearest.is_dir():
                raise StorageError(f"{self._base} cannot be a folder: {nearest} is a file")

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._info(name).type == fs.FileType.File)

    def exists(self) -> bool:
        """Whether the folder is there. In an object store it is as soon as something is in it."""
        return bool(self._info("").type == fs.FileType.Directory)

    def files(self, name: str = "") -> dict[str, datetime]:
        """The names of the files right in a folder, and when each was written by the clock of the file system."""
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        found = self._patiently("list", name, lambda: self._fs.get_file_info(selector))
        return {info.base_name: info.mtime for info in found if info.type == fs.FileType.File}

    def folders(self, name: str = "") -> list[str]:
        """The names of the folders right in a folder, sorted."""
        selector = fs.FileSelector(self._path(name), allow_not_found=True)
        found = self._patiently("list", name, lambda: self._fs.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def move(self, name: str, to: str) -> None:
        """Give a file another name; nothing happens if it is gone already."""

        def move() -> None:
            with suppress(FileNotFoundError):
                self._fs.move(self._path(name), self._path(to))

        self._patiently("rename", name, move)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._fs.delete_file(self._path(name))

        self._patiently("delete", name, delete)

    def _path(self, name: str) -> str:
        return posixpath.join(self._base, name) if name else self._base

    def _info(self, name: str) -> fs.FileInfo:
        return self._patiently("look for", name, lambda: self._fs.get_file_info(self._path(name)))

    def _write(self, path: str, content: bytes) -> None:
        if self._fs.type_name not in RENAMING:
            self._put(path, content)
            return
        aside = f"{path}.{uuid.uuid4().hex}.tmp"
        self._fs.create_dir(posixpath.dirname(path), recursive=True)
        try:
            self._put(aside, content)
            self._fs.move(aside, path)
        except BaseException:
            # On a full disk its half would take the room that is made.
            with suppress(OSError):
                self._fs.delete_file(aside)
            raise

    def _put(self, path: str, content: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(content)

    def _patiently(
        self, what: str, name: str, action: Callable[[], Result], patience: float = PATIENCE_SECONDS
    ) -> Result:
        try:
            return patiently(action, patience)
        except (OSError, pa.ArrowException) as error:
            remedy = "; make room, then run the same command again" if _is_full(error) else ""
            raise StorageError(f"cannot {what} {self.at(name)}: {reason(error)}{remedy}") from error


def patiently(action: Callable[[], Result], patience: float = PATIENCE_SECONDS) -> Result:
    """Do something that may fail for a moment; again with growing pauses, unless the failure is one that lasts.

    Raises:
        OSError: it lasts, or the patience is at its end.
    """
    end, pause = time.monotonic() + patience, 0.1
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno in LASTING or REFUSED.search(str(error)) or time.monotonic() + pause > end:
                raise
        # Drawn, so that trials that failed together do not come back together.
        time.sleep(random.uniform(0.5, 1) * pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def reason(error: BaseException) -> str:
    """An error of a file system in one line."""
    if isinstance(error, OSError) and error.strerror:
        # Arrow names the path, which the caller names anyway, and the number and its meaning at the end.
        return error.strerror.rpartition("] ")[2] if "Detail: [errno" in error.strerror else error.strerror
    return re.sub(r" \(Request ID: \w+\)| error_info=.*", "", str(error).splitlines()[0])


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _limited(location: str) -> str:
    """A URI whose requests end: Google's client tries for a quarter of an hour by itself, also without credentials."""
    parts = urlsplit(location)
    if parts.scheme not in ("gs", "gcs") or "retry_limit_seconds" in parts.query:
        return location
    limit = f"retry_limit_seconds={SHORT_PATIENCE_SECONDS:.0f}"
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, limit)))))


def _open(location: str) -> tuple[fs.FileSystem, str]:
    try:
        # S3 without an endpoint asks for the bucket's region here.
        file_system, base = patiently(lambda: fs.FileSystem.from_uri(_limited(location)), SHORT_PATIENCE_SECONDS)
    except (OSError, pa.ArrowException, ImportError) as error:
        raise StorageError(
            f"the storage {location} cannot be opened: {reason(error)}\n"
            "  give a folder, or a URI such as s3://bucket/prefix; for a server of your own set AWS_ENDPOINT_URL"
        ) from error
    if not base.strip("/"):
        raise StorageError(f"the storage {location} names no bucket: give one, such as s3://bucket/prefix")
    return file_system, base.rstrip("/")

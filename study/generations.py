"""A study's files that belong together, of one generation: readers get those of the last run or of this one, all alike.

``study.json`` is the record of a generation: facts about the study, and the checksum of each file. A new generation is
written next to the old one, file by file as ``NAME.next``; then its record replaces the old one, in one write; then
each file takes its place. Whatever moment a writer dies in, every file of the generation on record is in its place or
next to it, and a file that is neither was damaged or changed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from study.files import Folder, StorageError

RECORD = "study.json"
NEXT = ".next"
MOST_READS = 5
"""How often a reader starts over because a writer has replaced the generation meanwhile."""

REMEDY = "run the study's command again to rewrite it"

Checksums = dict[str, str]
"""SHA-256 of each file of a generation, by name."""


class ChangedError(StorageError):
    """A file of a study is not what the study wrote."""

    def __init__(self, place: str) -> None:
        super().__init__(f"{place} is not what the study wrote, it was damaged or changed since: {REMEDY}")


def write_generation(folder: Folder, files: Mapping[str, bytes], facts: Mapping[str, Any]) -> None:
    """Put a new generation in place of the one that is there; only one process may do so at a time.

    Args:
        folder: the study's.
        files: content by name.
        facts: what else the record holds, to be written as JSON.
    """
    old = _finish(folder)
    new = {name: sha256(content) for name, content in files.items()}
    for name, content in files.items():
        if old.get(name) != new[name]:
            folder.write(name + NEXT, content)
    folder.write(RECORD, _record({**facts, "files": new}))
    for name in old.keys() - new.keys():
        folder.delete(name)
    _finish(folder)


def read_generation(folder: Folder, names: Iterable[str]) -> dict[str, bytes]:
    """The record and files of one generation, by name, as far as they are there.

    A file that the record does not have is read as it is; so are all if there is no record, or an earlier version
    wrote it.

    Raises:
        ChangedError: the record or a file is not what was written.
        StorageError: a file cannot be read, or the generation is replaced again and again.
    """
    names = list(names)
    for _ in range(MOST_READS):
        record = folder.read(RECORD)
        try:
            return _read(folder, names, record)
        except ChangedError:
            if folder.read(RECORD) == record:
                raise
    raise StorageError(f"{folder.at()} is written again and again: try once more when the study has ended")


def _read(folder: Folder, names: list[str], record: bytes | None) -> dict[str, bytes]:
    sums = _checksums(folder, record)
    found = {} if record is None else {RECORD: record}
    for name in names:
        content = _file(folder, name, sums[name]) if name in sums else folder.read(name)
        if content is not None:
            found[name] = content
    return found


def _file(folder: Folder, name: str, checksum: str) -> bytes | None:
    """A file of a generation, wherever it is; None if it was deleted.

    Raises:
        ChangedError: it is not what was written.
    """
    contents = []
    # In its place at last: it may be moved there between the first two looks.
    for place in (name, name + NEXT, name):
        contents.append(folder.read(place))
        if is_whole(contents[-1], checksum):
            return contents[-1]
    if contents[-1] is None:
        return None
    raise ChangedError(folder.at(name))


def _finish(folder: Folder) -> Checksums:
    """Put the files of the generation on record in their places; return the checksums of those that are there."""
    try:
        sums = _checksums(folder, folder.read(RECORD))
    except ChangedError:
        return {}  # to be replaced
    there: Checksums = {}
    for name, checksum in sums.items():
        if is_whole(folder.read(name), checksum):
            there[name] = checksum
            folder.delete(name + NEXT)  # of a generation that was never finished
        elif is_whole(folder.read(name + NEXT), checksum):
            there[name] = checksum
            folder.move(name + NEXT, name)
    return there


def _checksums(folder: Folder, record: bytes | None) -> Checksums:
    """Checksums of a record; none if there is none, or an earlier version wrote it.

    Raises:
        ChangedError: the record is not what was written.
    """
    if record is None:
        return {}
    try:
        content = json.loads(record)
        written = content.pop("sha256", None)
        sums: Checksums = dict(content.get("files", {}))
    except (ValueError, AttributeError, TypeError):
        return {}  # whoever reads its facts reports what is wrong with it
    if written is not None and written != checksum(content):
        raise ChangedError(folder.at(RECORD))
    return sums


def _record(content: dict[str, Any]) -> bytes:
    return json.dumps({**content, "sha256": checksum(content)}, indent=1).encode()


def checksum(content: Any) -> str:
    """The SHA-256 of content as JSON has it."""
    return sha256(json.dumps(content, sort_keys=True).encode())


def is_whole(content: bytes | None, checksum: str) -> bool:
    """Whether a file is there, and what was written."""
    return content is not None and sha256(content) == checksum


def sha256(content: bytes) -> str:
    """The checksum of a file."""
    return hashlib.sha256(content).hexdigest()

"""What the files of a data set hold: a digest of each, and which of them are the same image."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem
from trainables.data.places import Places, keep
from trainables.pace import counted
from trainables.processes import cores

LOG = logging.getLogger(__name__)
PIECE = 4096
"""Bytes read at head, middle and tail of a file that is not read whole."""
BLOCK = 2**20
AT_ONCE = 64
"""Files that a thread reads before it takes others."""
JUST_NOW = 2 * 10**9
"""Nanoseconds: a file changed so lately could change again without another time of change."""

Seen = tuple[int, int, int, int]
"""Size, times of modification and of change in nanoseconds, and inode: another content, another one of these."""


def digests(folder: Path, files: Sequence[str], places: Places, *, whole: bool) -> tuple[list[str], list[Problem]]:
    """A digest of each file's content, the same on every node; empty for a file that cannot be read (a problem).

    Files are read once a node: what they held is remembered in the cache, by size and times.

    Args:
        folder: the data set's.
        files: relative to it.
        places: has the cache.
        whole: whether all of a file counts, or its size with its head, middle and tail (ImageNet has 150 GB).
    """
    memory = Path(places.cache).expanduser() / f"digests-{_name(folder, whole)}.json"
    known = _remembered(memory)
    seen: dict[str, Seen] = {}
    problems: list[Problem] = []
    for file in files:
        try:
            seen[file] = _seen(f"{folder}/{file}")
        except OSError as error:
            problems.append(_unreadable(f"{folder}/{file}", error))
    fresh = [file for file in seen if file not in known or known[file][0] != seen[file]]
    if fresh:
        parts = [fresh[start : start + AT_ONCE] for start in range(0, len(fresh), AT_ONCE)]
        with ThreadPoolExecutor(cores()) as threads:
            read = threads.map(lambda part: [_digest(f"{folder}/{file}", seen[file][0], whole) for file in part], parts)
            for part, found in counted(
                zip(parts, read, strict=True),
                lambda done: LOG.info("%s: read %s of %s new files", folder, f"{done * AT_ONCE:,}", f"{len(fresh):,}"),
            ):
                for file, digest in zip(part, found, strict=True):
                    if isinstance(digest, Problem):
                        problems.append(digest)
                        del seen[file]
                    else:
                        known[file] = (seen[file], digest)
        _remember(memory, known)
    return [known[file][1] if file in seen else "" for file in files], problems


def _seen(path: str) -> Seen:
    status = os.stat(path)  # noqa: PTH116 (of very many files, faster)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _unreadable(path: str, error: OSError) -> Problem:
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 (a name, not a path)
        return Problem(path, "it is a link to what is not there")
    return Problem(path, f"the file cannot be read: {error.strerror}")


def _digest(path: str, size: int, whole: bool) -> str | Problem:
    digest = hashlib.sha256(str(size).encode())
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (of very many files, faster)
            if whole or size <= 3 * PIECE:
                while block := file.read(BLOCK):
                    digest.update(block)
            else:
                for start in (0, size // 2, size - PIECE):
                    file.seek(start)
                    digest.update(file.read(PIECE))
    except OSError as error:
        return _unreadable(path, error)
    return digest.hexdigest()[:32]


def _name(folder: Path, whole: bool) -> str:
    return hashlib.sha256(f"{folder.absolute()}\0{whole}".encode(errors="surrogateescape")).hexdigest()[:16]


def _remembered(memory: Path) -> dict[str, tuple[Seen, str]]:
    try:
        return {
            file: ((size, modified, changed, inode), digest)
            for file, (size, modified, changed, inode, digest) in json.loads(memory.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # it saves time and nothing else


def _remember(memory: Path, known: dict[str, tuple[Seen, str]]) -> None:
    settled = time.time_ns() - JUST_NOW
    rows = {file: [*seen, digest] for file, (seen, digest) in known.items() if max(seen[1:3]) < settled}
    keep(memory, lambda part: part.write_text(json.dumps(rows), encoding="utf-8"))


def copies(catalogue: Catalogue, held: Sequence[str]) -> list[tuple[int, int]]:
    """Items with the content of an item that comes first, as (item, first): of the test part, then val, then train.

    So a copy that is left out is never one of the test images, if these are official.
    """
    rank = torch.zeros(len(catalogue.files), dtype=torch.int64)
    for place, part in enumerate(("test", "val", "train")):
        rank[catalogue.parts.get(part, torch.empty(0, dtype=torch.int64))] = place
    first: dict[str, int] = {}
    found = []
    for item in rank.argsort(stable=True).tolist():
        if not held[item]:  # could not be read
            continue
        original = first.setdefault(held[item], item)
        if original != item:
            found.append((item, original))
    return sorted(found)


def same_images(folder: Path, catalogue: Catalogue, held: Sequence[str]) -> list[Problem]:
    """What is wrong with the copies in a data set: an image counts once, and has one class."""
    label = catalogue.labels.tolist()
    part = {item: name for name, items in catalogue.parts.items() for item in items.tolist()}
    problems = []
    for item, original in copies(catalogue, held):
        same = f"the same image as {catalogue.files[original]}"
        if label[item] != label[original]:
            same += f", which is of class {catalogue.class_names[label[original]]}"
        if part.get(item) != part.get(original):
            same += f", which is in the {part[original]} part"
        problems.append(Problem(str(folder / catalogue.files[item]), same))
    return problems


def without_copies(catalogue: Catalogue, held: Sequence[str]) -> tuple[Catalogue, list[str]]:
    """The catalogue without copies, and the digests of what is left. Where two classes claim an image, neither gets it.

    Which of them is right is unknown.
    """
    label = catalogue.labels.tolist()
    dropped = set()
    for item, original in copies(catalogue, held):
        dropped |= {item, original} if label[item] != label[original] else {item}
    kept = torch.tensor([item for item in range(len(catalogue.files)) if item not in dropped], dtype=torch.int64)
    place = torch.full((len(catalogue.files),), -1, dtype=torch.int64)
    place[kept] = torch.arange(len(kept))
    parts = {name: place[items][place[items] >= 0] for name, items in catalogue.parts.items()}
    files = tuple(catalogue.files[item] for item in kept.tolist())
    left = replace(
        catalogue,
        files=files,
        labels=catalogue.labels[kept],
        parts=parts,
        notes=(*catalogue.notes, *([f"left out: {len(dropped):,} copies of images"] if dropped else [])),
    )
    return left, [held[item] for item in kept.tolist()]

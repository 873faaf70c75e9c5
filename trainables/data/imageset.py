"""A data set as the stages see it: labels, classes and official parts at once, pixels when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from trainables.data.decoding import Decoding
from trainables.data.places import Places
from trainables.devices import moved
from trainables.settings import READING, DataConfig


class Pixels(Protocol):
    """The images of a data set, ``uint8 (n * positions, channels, height, width)``, wherever they lie."""

    def fetch(self, rows: Tensor) -> Tensor:
        """The images at ``rows`` (``int64``), on the CPU or where the pixels lie."""

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each batch of rows, in order, read ahead if that helps."""


@dataclass(frozen=True)
class ArrayPixels:
    """Pixels in memory, or in a memory-mapped file."""

    array: Tensor

    def fetch(self, rows: Tensor) -> Tensor:
        """The images at ``rows``. Whole rows are copied, in a twentieth of the time of indexing by a tensor."""
        return self.array.index_select(0, moved(rows, self.array.device))

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
    """Opens the pixels, and decodes them first if that is not done yet."""
    positions: int = 1
    """Images of an item: row ``item * positions + position`` of the pixels. 1, but for videos."""
    official: Mapping[str, Tensor] = field(default_factory=dict)
    """Items of the official parts (``train``, ``val``, ``test``), ``int64``; empty if there are none."""
    notes: tuple[str, ...] = ()
    """What was passed over, as text."""
    decoding: Decoding | None = None
    """How its files are decoded into the array that is kept; None if nothing is kept."""
    reads: frozenset[str] = frozenset(READING)
    """Fields of its configuration that decide its pixels; the others are in no content key."""

    @property
    def is_empty(self) -> bool:
        """Whether there are no images at all: of a source of which only its pretrained net is known."""
        return not self.class_names


Reader = Callable[[DataConfig, Places], ImageSet]
DATA_SETS: dict[str, Reader] = {}


def data_set(name: str) -> Callable[[Reader], Reader]:
    """Register a function that opens a data set under a name."""

    def register(read: Reader) -> Reader:
        DATA_SETS[name] = read
        return read

    return register


def in_memory(title: str, images: Tensor, labels: Tensor, class_names: tuple[str, ...], fingerprint: str) -> ImageSet:
    """A data set whose images ``uint8 (n, channels, height, width)`` are in memory already."""
    _, channels, height, width = images.shape
    assert images.dtype == torch.uint8
    return ImageSet(
        title, labels, class_names, (channels, height, width), fingerprint, pixels=lambda: ArrayPixels(images)
    )

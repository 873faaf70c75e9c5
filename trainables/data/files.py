"""Data sets in files: from an official layout to an :class:`ImageSet`."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainables.data import contents, flow, videos
from trainables.data.decoding import (
    Decoding,
    OnItem,
    attempt,
    decode_image,
    fitted,
    for_each,
    listing,
    remarks,
)
from trainables.data.imageset import ArrayPixels, ImageSet
from trainables.data.layouts.catalogue import Catalogue, DataError, Layout, Pack, Problem
from trainables.data.places import ROOT_VARIABLE, Places, in_package
from trainables.processes import cores, end_with_parent, worker_context
from trainables.settings import DataConfig

DECODER_VERSION = 2
"""Part of each fingerprint: to be raised when the decoding of a file changes."""
OWN_FOLDER = "folder"
"""The layout of a user's own folder, which no data root can hold."""
MOST_WORKERS = 8
"""Processes that read ahead for a stage, if there are as many cores."""
FEW_ROWS = 256
"""So few images are read by the process itself: starting others takes longer."""


@dataclass(frozen=True)
class Reading:
    """How an item's file becomes pixels."""

    decode_item: OnItem[NDArray[np.uint8]]
    """Gives ``uint8 (positions, *shape)``."""
    verify: OnItem[tuple[str, ...]]
    """Raise if the file is broken, as cheaply as possible. Else return what there is to report of it."""
    shape: tuple[int, int, int]
    positions: int
    settings: Mapping[str, Any]
    """What decides the pixels, in addition to the files."""
    processes: bool


def reading(layout: Layout, config: DataConfig, catalogue: Catalogue) -> Reading:
    """How the files of a layout are read."""
    shape = (1 if config.modality == "grey" else 3, config.size, config.size)
    # Arrays of colours were decoded before there was a choice.
    colours = {"modality": "grey"} if config.modality == "grey" else {}
    if catalogue.pack is not None:
        return Reading(_PackedRow(catalogue.pack), _nothing_to_say, shape, 1, {"size": config.size, **colours}, False)
    if layout.medium == "videos":
        flow.opencv()  # reported once, and not for each video
        fields = {"modality", "size", "positions"} | ({"stack", "flow"} if config.modality == "flow" else set())
        settings = config.model_dump(mode="json", include=fields)
        return Reading(videos.decode_item, _verify_video, videos.shape(config), config.positions, settings, True)
    settings = {"size": config.size, "orientation": config.orientation, **colours}
    return Reading(decode_image, remarks, shape, 1, settings, False)


@dataclass(frozen=True)
class _PackedRow:
    """Gives an image of a pack by the name of its item."""

    pack: Pack
    _one_at_a_time: Lock = field(default_factory=Lock, compare=False)

    @cached_property
    def _images(self) -> Mapping[str, NDArray[np.uint8]]:
        return self.pack.images()

    def __call__(self, path: Path, config: DataConfig) -> NDArray[np.uint8]:
        with self._one_at_a_time:  # the first of the threads reads for all
            images = self._images
        return fitted(Image.fromarray(images[path.parent.name][int(path.name)]), config)


def _nothing_to_say(path: Path, config: DataConfig) -> tuple[str, ...]:
    return ()


def _verify_video(path: Path, config: DataConfig) -> tuple[str, ...]:
    frames, claimed = videos.verify(path)
    return ("have a few frames fewer than their header states",) if frames < claimed else ()


def place_of(layout: Layout, config: DataConfig, places: Places) -> Path:
    """Where a data set is to lie: where its configuration puts it, or else in its package or the data root.

    Raises:
        DataError: neither is given.
    """
    if config.path is None and layout.name == OWN_FOLDER:
        raise DataError(
            f"no folder is given: set source.data.path and target.data.path to your folders, each {layout.source}"
        )
    if config.path is None and layout.package is not None and (held := in_package(layout.package)) is not None:
        return held
    if config.path is None and places.root is None:
        raise DataError(
            f"{layout.title} lies in files, but no folder is given: set data.root or the environment variable "
            f"{ROOT_VARIABLE} to {_root_of(layout)}, or source.data.path or target.data.path to its "
            f"own folder. Where to get it: {layout.source}"
        )
    folder = Path(config.path) if config.path is not None else Path(places.root or "") / _inner(layout)
    return folder.expanduser()


def find_folder(layout: Layout, config: DataConfig, places: Places) -> Path:
    """The folder of a data set, as :func:`place_of` finds it.

    Raises:
        DataError: none is given, or it is not there.
    """
    folder = place_of(layout, config, places)
    if not folder.is_dir():
        given = "source.data.path or target.data.path" if config.path is not None else f"data.root or {ROOT_VARIABLE}"
        raise DataError(
            f"{layout.title}: there is no folder {folder} (given by {given}). Where to get it: {layout.source}"
        )
    return folder


def _inner(layout: Layout) -> str:
    """The folder of a data set within the data root."""
    return layout.name if layout.lies_in is None else layout.lies_in


def _root_of(layout: Layout) -> str:
    inner = _inner(layout)
    return f"the folder that holds {inner}/" if inner else "what torchvision calls root"


def open_layout(layout: Layout, config: DataConfig, places: Places) -> ImageSet:
    """Open a data set: its catalogue at once, its pixels when they are asked for.

    Raises:
        DataError: its folder is not there, or something in it is missing.
    """
    folder = find_folder(layout, config, places)
    catalogue, held = examined(layout, folder, config, places)
    if catalogue.problems:
        raise DataError(listing(_heading(layout, folder, len(catalogue.problems)), list(catalogue.problems)))
    if not catalogue.files:
        raise DataError(f"{layout.title}: there is nothing in {folder}; it should hold {layout.source}")
    how = reading(layout, config, catalogue)
    content = ImageSet(
        title=_title(layout, catalogue),
        labels=catalogue.labels,
        class_names=catalogue.class_names,
        shape=how.shape,
        fingerprint=fingerprint(layout, catalogue, held),
        pixels=partial(FilePixels, folder, catalogue.files, config, how.decode_item),
        positions=how.positions,
        official=catalogue.parts,
        notes=catalogue.notes,
        reads=frozenset(how.settings),
    )
    if layout.medium == "stream":
        return content
    decode = decoding(layout, folder, catalogue, config, places, content.fingerprint)
    return replace(content, pixels=lambda: ArrayPixels(decode.open()), decoding=decode)


def examined(layout: Layout, folder: Path, config: DataConfig, places: Places) -> tuple[Catalogue, list[str]]:
    """The catalogue of a folder with the digests of its files, copies of images dealt with as configured.

    What is wrong is among its problems.
    """
    catalogue = layout.read(folder, config)
    if catalogue.pack is not None:
        held = [*catalogue.pack.held]
    else:
        held, unread = contents.digests(folder, catalogue.files, places, whole=layout.medium != "stream")
        catalogue = replace(catalogue, problems=(*catalogue.problems, *unread))
    choice = config.duplicates or ("refuse" if layout.name == OWN_FOLDER else "keep")
    if choice == "drop":
        return contents.without_copies(catalogue, held)
    same = contents.same_images(folder, catalogue, held)
    if choice == "refuse" and same:
        advice = "set duplicates=drop of these data to leave them out, or duplicates=keep"
        first = Problem(str(folder), f"{len(same):,} images are here twice: {advice}")
        return replace(catalogue, problems=(*catalogue.problems, first, *same)), held
    notes = (f"{len(same):,} images are here twice",) if same else ()
    return replace(catalogue, notes=(*catalogue.notes, *notes)), held


def _heading(layout: Layout, folder: Path, count: int) -> str:
    things = "1 thing is" if count == 1 else f"{count} things are"
    return f"{layout.title} in {folder} cannot be used (see `python -m study.data check PRESET`); {things} wrong"


def _title(layout: Layout, catalogue: Catalogue) -> str:
    """The title; if there is more or less than officially, it states that, and so does each report."""
    items, official = len(catalogue.files), sum(count for part, count in layout.totals.items() if part != "classes")
    classes = len(catalogue.class_names)
    if not layout.totals or (items, classes) == (official, layout.totals["classes"]):
        return layout.title
    return f"{layout.title} ({items:,} of {official:,} items, {classes} of {layout.totals['classes']} classes)"


def decoding(
    layout: Layout, folder: Path, catalogue: Catalogue, config: DataConfig, places: Places, content: str
) -> Decoding:
    """How the files of a data set are decoded, and into which file of the cache.

    Args:
        layout: of ``images`` or ``videos``.
        folder: the data set's.
        catalogue: what is in it.
        config: how to read it.
        places: has the cache.
        content: the fingerprint.
    """
    how = reading(layout, config, catalogue)
    decides = {"files": content, "settings": how.settings}
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    return Decoding(
        folder=folder,
        files=catalogue.files,
        config=config,
        decode_item=how.decode_item,
        item_shape=(how.positions, *how.shape),
        array=Path(places.cache).expanduser() / f"{layout.name.replace(':', '-')}-{config.size}px-{digest}.npy",
        processes=how.processes,
    )


def fingerprint(layout: Layout, catalogue: Catalogue, held: Sequence[str]) -> str:
    """SHA-256 over the layout, how it is decoded, the files' names and contents, labels, classes and parts.

    The same on every node.
    """
    digest = hashlib.sha256(
        repr((layout.name, DECODER_VERSION, catalogue.class_names)).encode(errors="surrogateescape")
    )
    for file, content in zip(catalogue.files, held, strict=True):
        digest.update(f"{file}\0{content}\n".encode(errors="surrogateescape"))
    for name, items in (("labels", catalogue.labels), *sorted(catalogue.parts.items())):
        digest.update(f"{name} {len(items)} ".encode())
        digest.update(items.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class FilePixels:
    """Pixels that are decoded from the files whenever they are asked for: for more images than a disk would keep."""

    folder: Path
    files: tuple[str, ...]
    config: DataConfig
    decode_item: OnItem[NDArray[np.uint8]] = decode_image

    def fetch(self, rows: Tensor) -> Tensor:
        """The images at ``rows`` (``int64``), on the CPU.

        Raises:
            DataError: a file cannot be read.
        """
        images = _joined([*for_each(self.folder, self._files_at(rows), self.config, self.decode_item)])
        if isinstance(images, str):
            raise DataError(images)
        return images

    def stream(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The images of each batch of rows, in order, read ahead by other processes.

        Raises:
            DataError: a file cannot be read.
        """
        if sum(map(len, batches)) <= FEW_ROWS:
            yield from map(self.fetch, batches)
            return
        loader: DataLoader[Tensor | str] = DataLoader(
            _Reader(self.folder, self.config, self.decode_item),
            sampler=[self._files_at(rows) for rows in batches],
            batch_size=None,  # what the sampler returns is a batch already
            num_workers=min(MOST_WORKERS, cores(), len(batches)),
            multiprocessing_context=worker_context("trainables.data.decoding"),
            worker_init_fn=end_with_parent,
            generator=torch.Generator(),  # its own, so that it leaves the stage's random numbers alone
        )
        for images in loader:
            if isinstance(images, str):
                raise DataError(images)
            yield images

    def _files_at(self, rows: Tensor) -> list[str]:
        return [self.files[row] for row in rows.tolist()]


@dataclass(frozen=True)
class _Reader(Dataset[Tensor | str]):
    """Reads batches in a process of the loader's. It gets their files' names, not those of all the data set."""

    folder: Path
    config: DataConfig
    decode_item: OnItem[NDArray[np.uint8]]

    def __getitem__(self, files: list[str]) -> Tensor | str:
        return _joined([attempt(self.decode_item, self.folder / file, self.config) for file in files])


def _joined(images: Sequence[NDArray[np.uint8] | Problem]) -> Tensor | str:
    """One batch, or what is wrong in words: an error raised in a loader's process would come with its traceback."""
    arrays = [image for image in images if not isinstance(image, Problem)]
    problems = [image for image in images if isinstance(image, Problem)]
    if problems:
        return listing(f"{len(problems)} of {len(images)} images cannot be read", problems)
    return torch.from_numpy(np.concatenate(arrays))

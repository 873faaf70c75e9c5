"""What there is of a data set in files, against what there should be."""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainables.data.decoding import Progress, for_each
from trainables.data.files import decoding, examined, find_folder, fingerprint, reading
from trainables.data.layouts.catalogue import Catalogue, DataError, Layout, Problem
from trainables.data.places import Places
from trainables.settings import DataConfig

ALL = "all"
"""Stands for the part where there are no official ones."""


@dataclass(frozen=True)
class Count:
    """A number of items or classes that was found, and the official one where there is one."""

    what: str
    found: int
    official: int | None

    @property
    def is_right(self) -> bool:
        """Whether it is the official one, or there is none."""
        return self.official in (None, self.found)


@dataclass(frozen=True)
class Decoded:
    """The array of decoded pixels."""

    array: Path
    bytes: int
    is_done: bool
    free: int
    """Bytes free on the disk of the cache."""

    @property
    def fits(self) -> bool:
        """Whether it is there, or there is room for it."""
        return self.is_done or self.bytes <= self.free


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    layout: Layout
    folder: Path | None
    """None if it is not there; ``problems`` then tells where it was looked for."""
    problems: tuple[Problem, ...]
    totals: tuple[Count, ...] = ()
    by_class: Mapping[str, tuple[Count, ...]] = field(default_factory=dict)
    """For each class one count a part."""
    opened: int = 0
    """Files that were opened."""
    decoded: Decoded | None = None
    """None if nothing is kept decoded."""
    notes: tuple[str, ...] = ()
    """What was passed over, and what is special about the images."""

    @property
    def is_complete(self) -> bool:
        """Whether all is there, readable, in the official numbers, and the disk is large enough."""
        counts = [*self.totals, *(count for counts in self.by_class.values() for count in counts)]
        fits = self.decoded is None or self.decoded.fits
        return not self.problems and all(count.is_right for count in counts) and fits


def inspect(
    layout: Layout, config: DataConfig, places: Places, *, decode: bool = True, progress: Progress | None = None
) -> Inspection:
    """Look through a data set in files. What is missing or broken is in the result, not raised.

    Args:
        layout: its layout.
        config: how to read it.
        places: where it is looked for.
        decode: whether to open every file.
        progress: is told about the opened files.
    """
    try:
        folder = find_folder(layout, config, places)
    except DataError as error:
        return Inspection(layout, None, (Problem(config.path or places.root or "", str(error)),))
    catalogue, held = examined(layout, folder, config, places)
    problems = list(catalogue.problems)
    keeps = layout.medium != "stream" and len(catalogue.files) > 0
    how = reading(layout, config, catalogue)
    said: Counter[str] = Counter()
    files: list[str] = []
    if decode:
        # What is known to be wrong is reported once.
        known = {problem.path for problem in problems}
        files = [file for file in catalogue.files if f"{folder}/{file}" not in known]
        for result in for_each(folder, files, config, how.verify, progress, how.processes):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                said.update(result)
    return Inspection(
        layout,
        folder,
        tuple(problems),
        tuple(_totals(layout, catalogue)),
        _by_class(layout, catalogue),
        opened=len(files),
        decoded=_decoded(layout, folder, catalogue, held, config, places) if keeps else None,
        notes=(*catalogue.notes, *(f"{count:,} {layout.things} {what}" for what, count in sorted(said.items()))),
    )


def _parts(catalogue: Catalogue) -> dict[str, torch.Tensor]:
    """Labels of the items of each part."""
    if not catalogue.parts:
        return {ALL: catalogue.labels}
    return {part: catalogue.labels[items] for part, items in catalogue.parts.items()}


def _totals(layout: Layout, catalogue: Catalogue) -> list[Count]:
    found = {part: len(labels) for part, labels in _parts(catalogue).items()}
    names = [*dict.fromkeys([*found, *(name for name in layout.totals if name != "classes")])]
    parts = [Count(name, found.get(name, 0), layout.totals.get(name)) for name in names]
    return [Count("classes", len(catalogue.class_names), layout.totals.get("classes")), *parts]


def _by_class(layout: Layout, catalogue: Catalogue) -> dict[str, tuple[Count, ...]]:
    """Items of each class by part."""
    classes = len(catalogue.class_names)
    found = {part: labels.bincount(minlength=classes).tolist() for part, labels in _parts(catalogue).items()}
    return {
        name: tuple(Count(part, counts[label], layout.per_class.get(part)) for part, counts in found.items())
        for label, name in enumerate(catalogue.class_names)
    }


def _decoded(
    layout: Layout, folder: Path, catalogue: Catalogue, held: list[str], config: DataConfig, places: Places
) -> Decoded:
    decode = decoding(layout, folder, catalogue, config, places, fingerprint(layout, catalogue, held))
    existing = next(parent for parent in decode.array.absolute().parents if parent.is_dir())
    return Decoded(decode.array, decode.bytes, decode.is_done(), shutil.disk_usage(existing).free)

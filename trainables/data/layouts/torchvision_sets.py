"""Data sets by torchvision's own classes, with their official parts: ``torchvision:CIFAR10`` and its like.

The data root, or the ``path`` of a data set, is what torchvision calls ``root``. Nothing is downloaded unless asked for
(``python -m study.data fetch``).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.layouts.catalogue import LAYOUTS, Catalogue, DataError, Layout, Pack, Problem
from trainables.settings import DataConfig

PREFIX = "torchvision:"

Options = Mapping[str, Any]
"""Arguments of a torchvision class that select a part."""


@dataclass(frozen=True)
class _Set:
    """One of torchvision's classes."""

    parts: Mapping[str, Options]
    """The official parts, or ``all`` if there are none."""
    classes: int
    numbers: Sequence[int]
    """Official numbers of images, part by part."""
    per_class: Mapping[str, int] = field(default_factory=dict)


_TRAIN: Mapping[str, Options] = {"train": {"train": True}, "test": {"train": False}}
_SPLIT: Mapping[str, Options] = {"train": {"split": "train"}, "test": {"split": "test"}}
_VAL: Mapping[str, Options] = {"train": {"split": "train"}, "val": {"split": "val"}, "test": {"split": "test"}}
_ALL: Mapping[str, Options] = {"all": {}}

SETS: Mapping[str, _Set] = {
    "CIFAR10": _Set(_TRAIN, 10, (50_000, 10_000), {"train": 5000, "test": 1000}),
    "CIFAR100": _Set(_TRAIN, 100, (50_000, 10_000), {"train": 500, "test": 100}),
    "Caltech101": _Set(_ALL, 101, (8677,)),
    "Caltech256": _Set(_ALL, 257, (30_607,)),
    "Country211": _Set(
        {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
        211,
        (31_650, 10_550, 21_100),
        {"train": 150, "val": 50, "test": 100},
    ),
    "DTD": _Set(_VAL, 47, (1880, 1880, 1880), {"train": 40, "val": 40, "test": 40}),
    "EuroSAT": _Set(_ALL, 10, (27_000,)),
    "FGVCAircraft": _Set(_VAL, 100, (3334, 3333, 3333)),
    "FashionMNIST": _Set(_TRAIN, 10, (60_000, 10_000), {"train": 6000, "test": 1000}),
    "Flowers102": _Set(_VAL, 102, (1020, 1020, 6149), {"train": 10, "val": 10}),
    "Food101": _Set(_SPLIT, 101, (75_750, 25_250), {"train": 750, "test": 250}),
    "GTSRB": _Set(_SPLIT, 43, (26_640, 12_630)),
    "Imagenette": _Set({"train": {"split": "train"}, "test": {"split": "val"}}, 10, (9469, 3925)),
    "KMNIST": _Set(_TRAIN, 10, (60_000, 10_000), {"train": 6000, "test": 1000}),
    "MNIST": _Set(_TRAIN, 10, (60_000, 10_000)),
    "OxfordIIITPet": _Set({"train": {"split": "trainval"}, "test": {"split": "test"}}, 37, (3680, 3669)),
    "RenderedSST2": _Set(_VAL, 2, (6920, 872, 1821)),
    "STL10": _Set(_SPLIT, 10, (5000, 8000), {"train": 500, "test": 800}),
    "SUN397": _Set(_ALL, 397, (108_754,)),
    "SVHN": _Set(_SPLIT, 10, (73_257, 26_032)),
    "StanfordCars": _Set(_SPLIT, 196, (8144, 8041)),
    "USPS": _Set(_TRAIN, 10, (7291, 2007)),
}


def _open(name: str, folder: Path, options: Options, *, download: bool = False) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)(str(folder), **options, **({"download": True} if download else {}))


def fetch(name: str, folder: Path) -> None:
    """Download a data set that is not there yet, by torchvision, which checks what it gets.

    Raises:
        DataError: it is not available.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for options in SETS[name].parts.values():
            _open(name, folder, options, download=True)
    # What torchvision, the network and the unpacking raise is not documented.
    except Exception as error:
        raise DataError(f"{name} could not be downloaded to {folder}: {error}") from error


def _read(name: str, folder: Path, config: DataConfig) -> Catalogue:
    try:
        parts = {part: _open(name, folder, options) for part, options in SETS[name].parts.items()}
    # What torchvision raises for files that are missing or broken is not documented: RuntimeError for most.
    except Exception as error:
        said = str(error).partition(" You can use download=True")[0]
        problem = Problem(
            str(folder),
            f"{name} is missing or incomplete ({said}); `python -m study.data fetch PRESET` downloads it",
        )
        return Catalogue((), (), torch.empty(0, dtype=torch.int64), problems=(problem,))
    return _packed(name, folder, parts) if hasattr(next(iter(parts.values())), "data") else _filed(folder, parts)


def _filed(folder: Path, parts: Mapping[str, Any]) -> Catalogue:
    """Of a data set with a file for each image."""
    files: list[str] = []
    labels: list[int] = []
    members: dict[str, torch.Tensor] = {}
    problems: list[Problem] = []
    for part, dataset in parts.items():
        start = len(files)
        # Some list a folder in whatever order the disk returns.
        for path, label in sorted(_samples(dataset)):
            if not path.is_file():
                problems.append(Problem(str(path), "the image is listed, but it is not there"))
                continue
            files.append(path.relative_to(folder).as_posix())
            labels.append(label)
        members[part] = torch.arange(start, len(files))
    return _catalogue(parts, files, labels, members, problems=tuple(problems))


def _samples(dataset: Any) -> list[tuple[Path, int]]:
    """Each image's file and label."""
    if hasattr(dataset, "categories"):  # Caltech's
        caltech256 = type(dataset).__name__ == "Caltech256"
        place = Path(dataset.root, "256_ObjectCategories" if caltech256 else "101_ObjectCategories")
        return [
            (
                place
                / dataset.categories[label]
                / (f"{label + 1:03d}_{number:04d}.jpg" if caltech256 else f"image_{number:04d}.jpg"),
                label,
            )
            for label, number in zip(dataset.y, dataset.index, strict=True)
        ]
    found = getattr(dataset, "samples", None) or getattr(dataset, "_samples", None)
    if found is None:
        paths = getattr(dataset, "_image_files", None) or dataset._images
        found = zip(paths, dataset._labels, strict=True)
    return [(Path(path), int(label)) for path, label in found]


def _packed(name: str, folder: Path, parts: Mapping[str, Any]) -> Catalogue:
    """Of a data set whose images lie together in a few files."""
    files: list[str] = []
    labels: list[int] = []
    held: list[str] = []
    members: dict[str, torch.Tensor] = {}
    for part, dataset in parts.items():
        start = len(files)
        pixels = _pixels(dataset)
        files += [f"{part}/{row}" for row in range(len(pixels))]
        labels += [int(label) for label in _labels(dataset)]
        held += [hashlib.sha256(image.tobytes()).hexdigest()[:32] for image in pixels]
        members[part] = torch.arange(start, len(files))
    return _catalogue(parts, files, labels, members, pack=Pack(tuple(held), partial(_images, name, folder)))


def _images(name: str, folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {part: _pixels(_open(name, folder, options)) for part, options in SETS[name].parts.items()}


def _pixels(dataset: Any) -> NDArray[np.uint8]:
    """``uint8 (n, height, width)`` of grey images, else ``(n, height, width, 3)``."""
    data: NDArray[np.uint8] = np.asarray(dataset.data)
    return data.transpose(0, 2, 3, 1) if data.ndim == 4 and data.shape[1] == 3 else data


def _labels(dataset: Any) -> Iterable[int]:
    labels: Iterable[int] = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return labels


def _catalogue(
    parts: Mapping[str, Any],
    files: list[str],
    labels: list[int],
    members: Mapping[str, torch.Tensor],
    *,
    problems: tuple[Problem, ...] = (),
    pack: Pack | None = None,
) -> Catalogue:
    first = next(iter(parts.values()))
    named = getattr(first, "classes", None) or getattr(first, "categories", None)
    # Of several names for a class, the first.
    names = [
        name if isinstance(name, str) else name[0] for name in named or map(str, range(max(labels, default=-1) + 1))
    ]
    return Catalogue(
        tuple(names),
        tuple(files),
        torch.tensor(labels, dtype=torch.int64),
        {} if "all" in members else members,
        problems,
        pack=pack,
    )


for _name, _set in SETS.items():
    LAYOUTS[PREFIX + _name] = Layout(
        PREFIX + _name,
        title=_name,
        medium="images",
        source=f"`python -m study.data fetch PRESET`, or torchvision.datasets.{_name}(root, download=True)",
        totals={**dict(zip(_set.parts, _set.numbers, strict=True)), "classes": _set.classes},
        per_class=_set.per_class,
        read=partial(_read, _name),
        lies_in="",
        fetch=partial(fetch, _name),
    )

"""Layouts whose list files name the images: MIT Indoor67 and Oxford Flower102."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.data.layouts.lists import lines_of, relative_path
from trainables.data.layouts.searching import FolderSearch
from trainables.settings import DataConfig

INDOOR67_LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}
FLOWER102_PARTS = {"train": "trnid", "val": "valid", "test": "tstid"}
"""Part and its variable in setid.mat."""


@layout(
    "indoor67",
    title="MIT Indoor67",
    medium="images",
    source="https://web.mit.edu/torralba/www/indoor.html (indoorCVPR_09.tar, which unpacks to Images/, and the lists "
    "TrainImages.txt and TestImages.txt)",
    totals={"train": 5360, "test": 1340, "classes": 67},
)
def indoor67(folder: Path, config: DataConfig) -> Catalogue:
    """``Images/<class>/*.jpg``, of which ``TrainImages.txt`` and ``TestImages.txt`` list 100 a class.

    The lists divide a class into about 80 and 20 (of inside_bus, 23 are for the test), so only the totals are fixed.
    """
    problems: list[Problem] = []
    parts = {part: _lines(folder / name, problems) for part, name in INDOOR67_LISTS.items()}
    return _listed(folder, "Images", parts, {name: name.partition("/")[0] for name in _names(parts)}, problems)


def _lines(path: Path, problems: list[Problem]) -> list[str]:
    """The ``class/file`` lines of a list. Names hold blanks, so only the ends of a line are trimmed."""
    lines = [(number, relative_path(line)) for number, line in lines_of(path, problems, what="the list of images")]
    odd = [(number, line) for number, line in lines if line.count("/") != 1]
    if odd:
        number, line = odd[0]
        problems.append(Problem(str(path), f"lines should be <class>/<file>, but line {number} is {line!r}"))
    return [line for _, line in lines if line.count("/") == 1]


@layout(
    "flower102",
    title="Oxford Flower102",
    medium="images",
    source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ (102flowers.tgz, which unpacks to jpg/, imagelabels.mat "
    "and setid.mat)",
    totals={"train": 1020, "val": 1020, "test": 6149, "classes": 102},
    per_class={"train": 10, "val": 10},
)
def flower102(folder: Path, config: DataConfig) -> Catalogue:
    """``jpg/image_00001.jpg`` ..., labels in ``imagelabels.mat``, the parts' image numbers in ``setid.mat``."""
    problems: list[Problem] = []
    labels = _variables(folder / "imagelabels.mat", ["labels"], problems).get("labels", [])
    ids = _variables(folder / "setid.mat", FLOWER102_PARTS.values(), problems)
    if 0 in labels:
        message = "its labels count from 0, those of the official file from 1: get it again"
        problems.append(Problem(str(folder / "imagelabels.mat"), message))
    parts: dict[str, list[str]] = {}
    label_of: dict[str, str] = {}
    for part, variable in FLOWER102_PARTS.items():
        known = [number for number in ids.get(variable, []) if 1 <= number <= len(labels)]
        if labels and len(known) < len(ids.get(variable, [])):
            number = next(number for number in ids[variable] if not 1 <= number <= len(labels))
            message = f"{variable} names image {number}, but imagelabels.mat has the images 1 to {len(labels)}"
            problems.append(Problem(str(folder / "setid.mat"), message))
        parts[part] = [f"image_{number:05d}.jpg" for number in known]
        # Three digits: sorted as text as they are as numbers.
        label_of |= {name: f"{labels[number - 1]:03d}" for name, number in zip(parts[part], known, strict=True)}
    catalogue = _listed(folder, "jpg", parts, label_of, problems)
    return Catalogue(
        tuple(_flower_name(int(label)) for label in catalogue.class_names),
        catalogue.files,
        catalogue.labels,
        catalogue.parts,
        catalogue.problems,
    )


def _flower_name(label: int) -> str:
    """The name of an official label, which counts from 1."""
    from torchvision.datasets import Flowers102

    names: list[str] = Flowers102.classes
    return names[label - 1] if 1 <= label <= len(names) else str(label)


def _variables(path: Path, names: Any, problems: list[Problem]) -> dict[str, list[int]]:
    """Lists of whole numbers in a MATLAB file."""
    from scipy.io import loadmat

    try:
        content: Mapping[str, Any] = loadmat(str(path), appendmat=False)
    except FileNotFoundError:
        problems.append(Problem(str(path), "the file is not there"))
        return {}
    except Exception as error:  # what scipy raises for a broken file is not documented
        problems.append(Problem(str(path), f"cannot be read as a MATLAB file, get it again: {error}"))
        return {}
    lacking = [name for name in names if name not in content]
    if lacking:
        problems.append(Problem(str(path), f"has no variable {', '.join(lacking)}"))
    return {name: np.ravel(content[name]).astype(int).tolist() for name in names if name in content}


def _names(parts: Mapping[str, list[str]]) -> list[str]:
    return sorted({name for names in parts.values() for name in names})


def _listed(
    folder: Path, place: str, parts: Mapping[str, list[str]], label_of: Mapping[str, str], problems: list[Problem]
) -> Catalogue:
    """The listed images that are there.

    Args:
        folder: the data set's.
        place: the folder in it with the images.
        parts: names of each part's images, relative to ``place``.
        label_of: the label of each name; the labels in sorted order are the classes.
        problems: what was found before; what is missing joins it.
    """
    listed = _names(parts)
    search = FolderSearch()
    present = set(search.images(folder / place)) if (folder / place).is_dir() else set()
    missing = [*_missing(folder / place, listed, present)]
    # What cannot be read may be what is missing; else it is none of the data set's.
    problems += [*missing, *(search.problems if missing else ())]
    seen: set[str] = set()
    for part, names in parts.items():
        if both := sorted(seen.intersection(names)):
            problems.append(Problem(str(folder / place / both[0]), f"is listed for {part} and for another part too"))
        seen.update(names)
    class_names = sorted(set(label_of.values()))
    label = {name: number for number, name in enumerate(class_names)}
    items = [name for name in listed if name in present]
    item = {name: number for number, name in enumerate(items)}
    return Catalogue(
        tuple(class_names),
        tuple(f"{place}/{name}" for name in items),
        torch.tensor([label[label_of[name]] for name in items], dtype=torch.int64),
        {
            part: torch.tensor(sorted({item[name] for name in names if name in item}), dtype=torch.int64)
            for part, names in parts.items()
        },
        tuple(problems),
    )


def _missing(place: Path, listed: list[str], present: set[str]) -> Iterator[Problem]:
    """Listed images that are not there; a folder that is not there stands for all that is in it."""
    gone: set[Path] = set()
    for name in listed:
        if name in present:
            continue
        path = place / name
        whole = next((parent for parent in (place, path.parent) if not parent.is_dir()), None)
        if whole is None:
            yield Problem(str(path), "the image is listed, but it is not there")
        elif whole not in gone:
            gone.add(whole)
            yield Problem(str(whole), "there is no such folder, but images in it are listed")

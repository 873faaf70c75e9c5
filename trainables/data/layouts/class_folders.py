"""Layouts in which an image's folder is its class: ImageNet, and any image folder of one's own."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.hyperparameters import DataConfig

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
"""What counts as an image in a folder, in lower case; other files are passed over."""
LIKE_VAL = ("valid", "validation")


@layout(
    "imagenet",
    title="ImageNet ILSVRC-2012",
    medium="stream",
    source="https://image-net.org/download-images (ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and the devkit for "
    "tasks 1 and 2), unpacked by torchvision.datasets.ImageNet into train/<synset> and val/<synset>",
    totals={"train": 1_281_167, "test": 50_000, "classes": 1000},
    per_class={"test": 50},
)
def imagenet(folder: Path, config: DataConfig) -> Catalogue:
    """``train/<synset>/*.JPEG`` and ``val/<synset>/*.JPEG``: the official validation images are the test part.

    Classes are in the order of their synsets, which is the order of the outputs of nets trained elsewhere.
    """
    tree = _ClassTree(folder, {"train": "train", "test": "val"})
    return tree.catalogue(_imagenet_names(folder, tree.classes))


def _imagenet_names(folder: Path, synsets: Sequence[str]) -> list[str]:
    """Names for people: of the list of the Kaggle edition, of torchvision for all 1000 classes, or the synsets."""
    listed = folder / "LOC_synset_mapping.txt"
    if listed.is_file():
        lines = listed.read_text(encoding="utf-8").splitlines()
        words = {
            synset: names.partition(",")[0].strip() for synset, _, names in (line.partition(" ") for line in lines)
        }
        twice = Counter(words.get(synset) for synset in synsets)
        return [
            synset
            if synset not in words
            else words[synset]
            if twice[words[synset]] == 1
            else f"{words[synset]} {synset}"
            for synset in synsets
        ]
    if len(synsets) == 1000:
        from torchvision.models._meta import _IMAGENET_CATEGORIES

        return list(_IMAGENET_CATEGORIES)
    return list(synsets)


@layout(
    "folder",
    title="image folder",
    medium="images",
    source="with <class>/<images>, or train/<class>/<images> and test/<class>/<images> (and val/...)",
)
def image_folder(folder: Path, config: DataConfig) -> Catalogue:
    """``<class>/*``, split by the seed, or ``{train,val,test}/<class>/*``, of which ``val`` may be left out."""
    found = set(subfolders(folder))
    if found and found <= {"val", "test", *LIKE_VAL}:
        return Catalogue((), (), torch.empty(0, dtype=torch.int64), problems=(_alone(folder, "train", found),))
    if "train" not in found:
        tree = _ClassTree(folder, {"all": ""})
        return tree.catalogue(tree.classes)
    tree = _ClassTree(folder, {part: part for part in ("train", "val", "test") if part == "train" or part in found})
    if "test" not in found:
        tree.problems.append(_alone(folder, "test", found))
    for name in sorted(found.intersection(LIKE_VAL)):
        tree.problems.append(
            Problem(str(folder / name), "validation images belong into a folder called val: rename it")
        )
    return tree.catalogue(tree.classes)


def _alone(folder: Path, missing: str, found: set[str]) -> Problem:
    there = " and ".join(f"{name}/" for name in sorted(found.intersection({"train", "val", "test", *LIKE_VAL})))
    return Problem(
        str(folder / missing),
        f"there is {there} but no {missing}/: give train/<class> and test/<class> (and val/<class> if you like), or "
        "the folders of the classes without any of these",
    )


@dataclass
class _ClassTree:
    """The images of folders of class folders, one for each part."""

    folder: Path
    parts: Mapping[str, str]
    """The folder of each part; ``{"all": ""}`` where there are no official parts."""
    classes: list[str] = field(init=False)
    problems: list[Problem] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        found = {name for part in self.parts.values() for name in subfolders(self.folder / part)}
        self.classes = sorted(found)

    def catalogue(self, class_names: Sequence[str]) -> Catalogue:
        """The catalogue, with a name for each of ``classes``."""
        files: list[str] = []
        labels: list[int] = []
        sizes: dict[str, int] = {}
        for part, place in self.parts.items():
            before = len(files)
            for label, name in enumerate(self._classes_in(place)):
                images = self._images(place, name)
                files += images
                labels += [label] * len(images)
            sizes[part] = len(files) - before
        ends = torch.tensor([*sizes.values()]).cumsum(0).tolist()
        members = {part: torch.arange(end - sizes[part], end) for part, end in zip(sizes, ends, strict=True)}
        if len(self.classes) == 1:
            self.problems.append(Problem(str(self.folder), f"there is only one class, {self.classes[0]}"))
        return Catalogue(
            tuple(class_names),
            tuple(files),
            torch.tensor(labels, dtype=torch.int64),
            {} if "all" in members else members,
            tuple(self.problems),
        )

    def _classes_in(self, place: str) -> list[str]:
        """All classes; none where the part is not there at all, which is one problem instead of one a class."""
        root = self.folder / place
        if not root.is_dir():
            self.problems.append(Problem(str(root), "there is no such folder"))
            return []
        if not subfolders(root):
            self.problems.append(Problem(str(root), _why_no_classes(root)))
            return []
        return self.classes

    def _images(self, place: str, name: str) -> list[str]:
        root = self.folder / place / name
        if not root.is_dir():
            self.problems.append(Problem(str(root), "there is no folder for this class"))
            return []
        images = [f"{place}/{name}/{image}".lstrip("/") for image in images_in(root)]
        if not images:
            self.problems.append(Problem(str(root), f"there is no image in it ({', '.join(sorted(EXTENSIONS))})"))
        return images


def _why_no_classes(root: Path) -> str:
    if any(path.suffix == ".tar" for path in root.iterdir()):
        return "there are archives only: unpack each class into a folder of its name"
    if next(images_in(root), None):
        return "the images lie flat: sort them into a folder for each class"
    return "it is empty: there should be a folder for each class"


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones; none where it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> Iterator[str]:
    """Paths of the images in a folder and the folders in it, relative to it, with forward slashes, in a fixed order."""
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(root).relative_to(folder).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS:  # noqa: PTH122 (faster)
                yield prefix + name

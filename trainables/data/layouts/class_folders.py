"""Layouts in which an image's folder is its class: ImageNet, and any image folder of your own."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.data.layouts.lists import lines_of
from trainables.data.layouts.searching import EXTENSIONS, FolderSearch, images_in, subfolders
from trainables.settings import DataConfig

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Usual names of the parts, in lower case."""


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
    return tree.catalogue(_imagenet_names(folder, tree.classes, tree.problems))


def _imagenet_names(folder: Path, synsets: Sequence[str], problems: list[Problem]) -> list[str]:
    """Readable names: of the list of the Kaggle edition, of torchvision for all 1000 classes, or the synsets."""
    listed = folder / "LOC_synset_mapping.txt"
    if listed.is_file():
        lines = (line.partition(" ") for _, line in lines_of(listed, problems, what="the list of names"))
        words = {synset: names.partition(",")[0].strip() for synset, _, names in lines}
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
    """``<class>/*``, split by the seed, or ``{train,val,test}/<class>/*``, of which ``val`` may be left out.

    The parts may have the other usual names (:data:`PARTS`), whatever their case. A folder of that name with images
    of its own, next to others that have some, is a class, say of trains.
    """
    tree = _ClassTree(folder, {"all": ""})
    named = [name for name in tree.classes if name.lower() in PARTS]
    others = [name for name in tree.classes if name.lower() not in PARTS]
    if any(_lies_flat(folder / name) for name in others):
        named = [name for name in named if not _lies_flat(folder / name)]
    parts: dict[str, str] = {}
    for name in named:
        part = PARTS[name.lower()]
        if part in parts:
            tree.problems.append(Problem(str(folder / name), f"{parts[part]}/ is the {part} part already"))
        parts[part] = name
    if not parts:
        tree.problems += _ambiguous(folder, tree.classes)
        return tree.catalogue(tree.classes)
    if missing := [part for part in ("train", "test") if part not in parts]:
        problems = (*tree.problems, _alone(folder, missing[0], parts))
        if missing[0] == "train":
            return Catalogue((), (), torch.empty(0, dtype=torch.int64), problems=problems)
        tree.problems = [*problems]
    split = _ClassTree(folder, {part: parts[part] for part in ("train", "val", "test") if part in parts})
    split.problems += tree.problems
    split.search.left_out.update({f"folders {name}/ next to the parts": 1 for name in others})
    return split.catalogue(split.classes)


def _lies_flat(folder: Path) -> bool:
    """Whether there are images in the folder itself."""
    return next(FolderSearch().images(folder, deep=False), None) is not None


def _alone(folder: Path, missing: str, parts: Mapping[str, str]) -> Problem:
    there = " and ".join(f"{name}/" for name in sorted(parts.values()))
    return Problem(
        str(folder / missing),
        f"there is {there} but no {missing}/: give train/<class> and test/<class> (and val/<class> if you like), or "
        "the folders of the classes without any of these",
    )


def _ambiguous(folder: Path, classes: Sequence[str]) -> Iterator[Problem]:
    """Folders that all hold the same folders are parts, or sites, or years: hardly classes."""
    inner = {tuple(FolderSearch().subfolders(folder / name)) for name in classes}
    same = next(iter(inner), ())
    # One folder that each has, ``images`` say, is a matter of taste.
    if len(classes) < 2 or len(inner) != 1 or len(same) < 2:
        return
    if any(_lies_flat(folder / name) for name in classes):
        return
    yield Problem(
        str(folder),
        f"{' and '.join(f'{name}/' for name in classes[:3])} all hold {', '.join(f'{name}/' for name in same[:5])}: if "
        "these are the classes, call the folders above train, val and test, or give a folder with only the classes",
    )


@dataclass
class _ClassTree:
    """The images of folders of class folders, one for each part."""

    folder: Path
    parts: Mapping[str, str]
    """The folder of each part; ``{"all": ""}`` if there are no official parts."""
    classes: list[str] = field(init=False)
    problems: list[Problem] = field(init=False, default_factory=list)
    search: FolderSearch = field(init=False)

    def __post_init__(self) -> None:
        self.search = FolderSearch(self.folder)
        found = {name for part in self.parts.values() for name in self.search.subfolders(self.folder / part)}
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
            (*self.problems, *self.search.found()),
            tuple(self.search.notes()),
        )

    def _classes_in(self, place: str) -> list[str]:
        """All classes; none if the part is not there at all, which is one problem instead of one a class."""
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
        images = [f"{place}/{name}/{image}".lstrip("/") for image in self.search.images(root)]
        if not images:
            self.problems.append(Problem(str(root), f"there is no image in it ({', '.join(sorted(EXTENSIONS))})"))
        return images


def _why_no_classes(root: Path) -> str:
    if any(path.suffix == ".tar" for path in root.iterdir()):
        return "there are archives only: unpack each class into a folder of its name"
    if next(images_in(root), None):
        return "the images lie flat: sort them into a folder for each class"
    return "it is empty: there should be a folder for each class"

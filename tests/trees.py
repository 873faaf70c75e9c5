"""Miniature data sets in the official layouts: a few small images whose colour tells their class."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

INDOOR67_CLASSES = ("airport_inside", "bakery", "children_room", "dining_room", "elevator")
IMAGENET_SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475")
SIDE = 40
COLOUR_SIDE = 24
"""Pixels of the network ``tests.own:rgb``."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels."""


def make_indoor67(root: Path, classes: int = 3, train: int = 8, test: int = 2) -> Path:
    """``Images/<class>/*.jpg`` and the two lists; some names hold blanks, and an image is there that no list names."""
    names = {name: [f"{name} {n:04d}.jpg" for n in range(train + test)] for name in INDOOR67_CLASSES[:classes]}
    for label, (name, images) in enumerate(names.items()):
        for n, image in enumerate([*images, "unlisted.jpg"]):
            picture(root / "Images" / name / image, label, n)
    lists = {"TrainImages.txt": slice(0, train), "TestImages.txt": slice(train, None)}
    for file, part in lists.items():
        lines = [f"{name}/{image}" for name, images in names.items() for image in images[part]]
        (root / file).write_text("\n".join(reversed(lines)))
    return root


def make_flower102(root: Path, classes: int = 3, train: int = 3, val: int = 3, test: int = 4) -> Path:
    """``jpg/image_*.jpg``, ``imagelabels.mat`` and ``setid.mat``; image numbers are not in the order of the classes."""
    each = train + val + test
    labels = np.tile(np.arange(1, classes + 1), each)
    for n, label in enumerate(labels, start=1):
        picture(root / "jpg" / f"image_{n:05d}.jpg", int(label), n)
    _flower_lists(root, labels, (train, val, test))
    return root


def make_imagenet(root: Path, classes: int = 3, train: int = 8, val: int = 3) -> Path:
    """``train/<synset>/*.JPEG`` and ``val/<synset>/*.JPEG``."""
    for part, count in (("train", train), ("val", val)):
        for label, synset in enumerate(IMAGENET_SYNSETS[:classes]):
            for n in range(count):
                name = f"{synset}_{n}.JPEG" if part == "train" else f"ILSVRC2012_val_{label * count + n:08d}.JPEG"
                picture(root / part / synset / name, label, n)
    return root


def make_folder(root: Path, classes: int = 3, per_class: int = 10, parts: tuple[str, ...] = ()) -> Path:
    """``<class>/*``, or ``<part>/<class>/*`` for each part; with several endings, inner folders and hidden files."""
    for number, part in enumerate(parts or ("",)):
        for label in range(classes):
            folder = root / part / f"class{label}"
            for n in range(per_class):
                name = f"{n}.png" if n % 3 == 0 else f"inner/{n}.JPG" if n % 3 == 1 else f"{n}.jpeg"
                picture(folder / name, label, n + 1000 * number)
            (folder / ".hidden.jpg").write_bytes(b"")
            (folder / "notes.txt").write_text("no image")
    return root


def make_colours(folder: Path, names: list[str], per_class: int = 20) -> Path:
    """A class is a colour, of which no two are each other's with red and blue exchanged."""
    draw = np.random.Generator(np.random.PCG64(1))
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        base = np.array([40 + 190 * (label % 3) // 2, 40 + 190 * (label // 3 % 4) // 3, 30 + 15 * label])
        for n in range(per_class):
            pixels = base + draw.normal(0, 6, (COLOUR_SIDE, COLOUR_SIDE, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{n}.png")
    return folder


def picture(path: Path, label: int, n: int) -> None:
    """A small image with a colour and a shape of its class, a little different for each ``n``."""
    draw = np.random.Generator(np.random.PCG64([label, n]))
    width, height = SIDE + int(draw.integers(0, 20)), SIDE + int(draw.integers(0, 20))
    colour = tuple(int(60 + 40 * (label * step % 5)) for step in (1, 2, 3))
    image = Image.new("RGB", (width, height), colour)
    left, top = (int(at) for at in draw.integers(2, 18, size=2))
    shape = ImageDraw.Draw(image)
    (shape.ellipse if label % 2 else shape.rectangle)((left, top, left + 14, top + 14), fill=colour[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.putpixel((width - 2, 1), (n * 67 % 256, n // 4 % 256, 255))  # no two are the same
    image.save(path, quality=90)


def full_indoor67(root: Path) -> Path:
    """A tree with the official totals, all of whose images are links to one; a class has about 80 and 20."""
    lists: dict[str, list[str]] = {"TrainImages.txt": [], "TestImages.txt": []}
    for label in range(67):
        train = 80 + (label % 3 - 1 if label < 66 else 0)
        for n in range(100):
            lists["TrainImages.txt" if n < train else "TestImages.txt"].append(f"class{label:02d}/{n}.jpg")
    _link(root, (root / "Images" / line for lines in lists.values() for line in lines))
    for file, lines in lists.items():
        (root / file).write_text("\n".join(lines))
    return root


def full_flower102(root: Path) -> Path:
    """A tree with the official totals, all of whose images are links to one."""
    extra = 6149 - 102 * 20
    test = np.concatenate([np.repeat(np.arange(1, 103), 20), np.resize(np.arange(1, 103), extra)])
    labels = np.concatenate([np.repeat(np.arange(1, 103), 20), test])
    root.mkdir(parents=True, exist_ok=True)
    _link(root, (root / "jpg" / f"image_{n:05d}.jpg" for n in range(1, len(labels) + 1)))
    _flower_lists(root, labels, (10, 10, None))
    return root


def _flower_lists(root: Path, labels: np.ndarray, sizes: tuple[int, int, int | None]) -> None:
    train, val, _ = sizes
    numbers = [np.flatnonzero(labels == label) + 1 for label in np.unique(labels)]
    savemat(root / "imagelabels.mat", {"labels": labels[np.newaxis].astype(np.uint8)})
    parts = {
        "trnid": np.concatenate([own[:train] for own in numbers]),
        "valid": np.concatenate([own[train : train + val] for own in numbers]),
        "tstid": np.concatenate([own[train + val :] for own in numbers]),
    }
    savemat(root / "setid.mat", {name: ids[np.newaxis].astype(np.uint16) for name, ids in parts.items()})


def _link(root: Path, paths: Iterator[Path]) -> None:
    first = next(paths)
    picture(first, 0, 0)
    for path in paths:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        os.link(first, path)

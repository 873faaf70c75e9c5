"""Data sets by torchvision's classes, over small trees in their official layouts."""

import hashlib
import json
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from study import data as study_data
from tests.trees import picture
from trainables.data import LAYOUTS, DataError, Places, load, reopen
from trainables.data.decoding import fitted
from trainables.data.imageset import ImageSet
from trainables.data.inspection import inspect
from trainables.data.layouts.torchvision_sets import SETS
from trainables.settings import DataConfig

SIZE = 32
PRESET = ["digits", "--set", "target.data.name=torchvision:CIFAR10", "--set", f"target.data.size={SIZE}"]


def _pets(root: Path) -> None:
    """``images`` are labelled by list; two images of each of two breeds in each part."""
    folder = root / "oxford-iiit-pet"
    for part, numbers in (("trainval", (3, 1)), ("test", (2, 4))):
        lines = []
        for label, breed in enumerate(("Abyssinian", "shiba_inu")):
            for number in numbers:
                picture(folder / "images" / f"{breed}_{number}.jpg", label, number)
                lines.append(f"{breed}_{number} {label + 1} 1 1")
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(lines))


def _dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    for number, part in enumerate(("train", "val", "test")):
        lines = []
        for label, name in enumerate(("banded", "woven")):
            for n in (2 * number, 2 * number + 1):
                picture(folder / "images" / name / f"{name}_{n}.jpg", label, n)
                lines.append(f"{name}/{name}_{n}.jpg")
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"{part}1.txt").write_text("\n".join(lines))


def _food(root: Path) -> None:
    folder = root / "food-101"
    for number, part in enumerate(("train", "test")):
        names = {name: [f"{name}/{2 * number + n}" for n in (1, 0)] for name in ("waffles", "apple_pie")}
        for label, images in enumerate(names.values()):
            for n, image in enumerate(images):
                picture(folder / "images" / f"{image}.jpg", label, 2 * number + n)
        (folder / "meta").mkdir(exist_ok=True)
        (folder / "meta" / f"{part}.json").write_text(json.dumps(names))


def _aircraft(root: Path) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    variants = ("707-320", "A300 B4")
    for number, part in enumerate(("train", "val", "test")):
        lines = []
        for label, variant in enumerate(variants):
            for n in (0, 1):
                name = f"{100 * number + 10 * label + n:07d}"
                picture(folder / "images" / f"{name}.jpg", label, 2 * number + n)
                lines.append(f"{name} {variant}")
        (folder / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    (folder / "variants.txt").write_text("\n".join(variants) + "\n")


def _cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General", "Acura RL"], dtype=object)})
    for part, annotations in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.zeros((4,), dtype=[("fname", object), ("class", object)])
        for n in range(4):
            rows[n] = (f"{n:05d}.jpg", n % 2 + 1)
            picture(folder / f"cars_{part}" / f"{n:05d}.jpg", n % 2, n + 10 * (part == "test"))
        savemat(folder / annotations, {"annotations": rows})


def _caltech101(root: Path) -> None:
    for label, name in enumerate(("accordion", "yin_yang", "BACKGROUND_Google")):
        for n in range(1, 11):
            picture(root / "caltech101" / "101_ObjectCategories" / name / f"image_{n:04d}.jpg", label, n)


def _sun(root: Path) -> None:
    for label, name in enumerate(("abbey", "airplane_cabin")):
        for n in range(10):
            picture(root / "SUN397" / "a" / name / f"sun_{name}{n}.jpg", label, n)
    (root / "SUN397" / "ClassName.txt").write_text("/a/abbey\n/a/airplane_cabin\n")


def _eurosat(root: Path) -> None:
    for label, name in enumerate(("AnnualCrop", "River")):
        for n in range(10):
            picture(root / "eurosat" / "2750" / name / f"{name}_{n}.jpg", label, n)


def _random(*shape: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(len(shape))).integers(0, 256, shape, dtype=np.uint8)


def _cifar(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    images = _random(60, 3 * SIZE * SIZE)
    for place, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        rows = {"data": images[10 * place : 10 * place + 10], "labels": [n % 10 for n in range(10)]}
        (folder / name).write_bytes(pickle.dumps(rows))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{n}" for n in range(10)]}))


def _fashion(root: Path) -> None:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, number in (("train", 40), ("t10k", 20)):
        images, labels = _random(number, 28, 28), np.arange(number, dtype=np.uint8) % 10
        (folder / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, number, 28, 28) + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, number) + labels.tobytes())


def _svhn(root: Path) -> None:
    for name, number in (("train", 40), ("test", 20)):
        labels = np.arange(number) % 10 + 1  # ten stands for the digit zero
        savemat(root / f"{name}_32x32.mat", {"X": _random(SIZE, SIZE, 3, number), "y": labels[:, None]})


def _stl(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir()
    for name, number in (("train", 20), ("test", 10)):
        (folder / f"{name}_X.bin").write_bytes(_random(number, 3, 96, 96).tobytes())
        (folder / f"{name}_y.bin").write_bytes((np.arange(number, dtype=np.uint8) % 10 + 1).tobytes())
    (folder / "unlabeled_X.bin").write_bytes(b"")


TREES: dict[str, tuple[Callable[[Path], None], dict[str, int]]] = {
    "OxfordIIITPet": (_pets, {"train": 4, "test": 4}),
    "DTD": (_dtd, {"train": 4, "val": 4, "test": 4}),
    "Food101": (_food, {"train": 4, "test": 4}),
    "FGVCAircraft": (_aircraft, {"train": 4, "val": 4, "test": 4}),
    "StanfordCars": (_cars, {"train": 4, "test": 4}),
    "Caltech101": (_caltech101, {}),
    "SUN397": (_sun, {}),
    "EuroSAT": (_eurosat, {}),
    "CIFAR10": (_cifar, {"train": 50, "test": 10}),
    "FashionMNIST": (_fashion, {"train": 40, "test": 20}),
    "SVHN": (_svhn, {"train": 40, "test": 20}),
    "STL10": (_stl, {"train": 20, "test": 10}),
}


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small trees have other sums than the official files."""
    for module in (datasets.cifar, datasets.svhn, datasets.stl10):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def _opened(name: str, root: Path, **more: object) -> ImageSet:
    config = DataConfig.model_validate({"name": f"torchvision:{name}", "size": SIZE, **more})
    return load(config, Places(root=str(root), cache=str(root.parent / "cache")))


def _official(name: str, root: Path) -> list[tuple[Image.Image, int]]:
    """All images with their labels, as torchvision gives them."""
    return [
        (image, label)
        for options in SETS[name].parts.values()
        for image, label in getattr(datasets, name)(str(root), **options)
    ]


@pytest.mark.parametrize("name", TREES)
def test_images_labels_and_parts_are_those_that_torchvision_gives(name: str, root: Path) -> None:
    make, parts = TREES[name]
    make(root)
    content = _opened(name, root)
    assert {part: len(items) for part, items in content.official.items()} == parts
    pixels = content.pixels().fetch(torch.arange(len(content.labels)))
    ours = sorted(
        (label, image.tobytes()) for label, image in zip(content.labels.tolist(), pixels.numpy(), strict=True)
    )
    config = DataConfig(name="folder", size=SIZE)
    theirs = sorted((label, fitted(image, config).tobytes()) for image, label in _official(name, root))
    assert ours == theirs
    assert len(content.class_names) == int(content.labels.max()) + 1
    assert "BACKGROUND_Google" not in content.class_names


@pytest.mark.parametrize("name", SETS)
def test_what_is_not_there_is_said_with_the_command_that_gets_it(name: str, root: Path) -> None:
    with pytest.raises(DataError, match=rf"{name} is missing or incomplete.*study.data fetch"):
        _opened(name, root)


def test_packed_images_keep_their_pixels_and_are_told_by_their_content(root: Path) -> None:
    _cifar(root)
    first = _opened("CIFAR10", root)
    raw = pickle.loads((root / "cifar-10-batches-py" / "test_batch").read_bytes())["data"]
    test = first.pixels().fetch(first.official["test"])
    assert np.array_equal(test.numpy().reshape(10, -1), raw)  # 32 pixels stay as they are
    copy = root.parent / "copy"
    copy.mkdir()
    _cifar(copy)
    assert _opened("CIFAR10", copy).fingerprint == first.fingerprint
    entry = pickle.loads((copy / "cifar-10-batches-py" / "data_batch_3").read_bytes())
    entry["data"] = entry["data"] ^ 1
    (copy / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(entry))
    reopen()
    assert _opened("CIFAR10", copy).fingerprint != first.fingerprint


@pytest.mark.parametrize(("name", "make"), [("CIFAR10", _cifar), ("FashionMNIST", _fashion)])
def test_packed_images_can_be_seen_in_grey(name: str, make: Callable[[Path], None], root: Path) -> None:
    make(root)
    colours = _opened(name, root).pixels().fetch(torch.tensor([0, 1])).float()
    grey = _opened(name, root, modality="grey")
    assert grey.shape == (1, SIZE, SIZE)
    by_hand = 0.299 * colours[:, 0] + 0.587 * colours[:, 1] + 0.114 * colours[:, 2]  # ITU-R BT.601
    assert (grey.pixels().fetch(torch.tensor([0, 1]))[:, 0].float() - by_hand).abs().max() <= 1


def test_copies_within_a_pack_can_be_left_out(root: Path) -> None:
    _cifar(root)
    path = root / "cifar-10-batches-py" / "data_batch_1"
    entry = pickle.loads(path.read_bytes())
    entry["data"] = np.repeat(entry["data"][:1], 10, axis=0)
    entry["labels"] = [0] * 10
    path.write_bytes(pickle.dumps(entry))
    kept, dropped = _opened("CIFAR10", root), _opened("CIFAR10", root, duplicates="drop")
    assert len(kept.labels) - len(dropped.labels) == 9
    pixels = dropped.pixels().fetch(torch.arange(len(dropped.labels)))
    assert len({image.tobytes() for image in pixels.numpy()}) == len(dropped.labels)


def test_an_unknown_set_names_its_neighbours(root: Path) -> None:
    with pytest.raises(KeyError, match="did you mean 'torchvision:CIFAR10'"):
        _opened("Cifar10", root)


def test_a_listed_image_that_is_gone_is_named(root: Path) -> None:
    _pets(root)
    (root / "oxford-iiit-pet" / "images" / "shiba_inu_4.jpg").unlink()
    with pytest.raises(DataError, match=r"shiba_inu_4.jpg: the image is listed, but it is not there"):
        _opened("OxfordIIITPet", root)


def test_check_counts_against_the_official_numbers(root: Path) -> None:
    _fashion(root)
    config = DataConfig(name="torchvision:FashionMNIST", size=SIZE)
    found = inspect(LAYOUTS[config.name], config, Places(root=str(root), cache=str(root.parent / "cache")))
    assert [(count.what, count.found, count.official) for count in found.totals] == [
        ("classes", 10, 10),
        ("train", 40, 60_000),
        ("test", 20, 10_000),
    ]
    assert not found.is_complete and not found.problems


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a web server with the test's files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def _archive(tmp_path: Path) -> Path:
    """The official archive of a small data set."""
    source = tmp_path / "source"
    source.mkdir()
    _cifar(source)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "cifar-10-batches-py", "cifar-10-batches-py")
    return archive


def test_fetch_downloads_and_nothing_else_does(
    root: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = _archive(tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    arguments = [*PRESET, "--data-root", str(root), "--set", f"data.cache={tmp_path / 'cache'}"]
    assert study_data.main(["check", *arguments]) == 1
    assert not (root / "cifar-10-batches-py").exists()
    assert study_data.main(["fetch", *arguments]) == 0
    assert (root / "cifar-10-batches-py" / "data_batch_5").is_file()
    assert "CIFAR10 is in" in capsys.readouterr().out
    assert study_data.main(["check", *arguments]) == 1  # 60 images are not 60,000
    assert "train 50, officially 50,000" in capsys.readouterr().out


def test_a_download_that_fails_says_why(
    root: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server}/nothing.tar.gz")
    assert study_data.main(["fetch", *PRESET, "--data-root", str(root)]) == 1
    assert "CIFAR10 could not be downloaded" in capsys.readouterr().err

"""Data sets in files: what is in them, what is missing, and their pixels."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import study.config
import study.data
from study.config import read_config
from tests import trees
from trainables.data import LAYOUTS, Catalogue, DataError, ImageSet, Places, decoding, files, load
from trainables.data.decoding import decode_image
from trainables.data.files import FilePixels, open_layout
from trainables.data.inspection import Inspection, inspect
from trainables.settings import DataConfig

SIZE = 16


def config(name: str, path: Path | None = None) -> DataConfig:
    return DataConfig(name=name, path=None if path is None else str(path), size=SIZE)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(root=str(tmp_path / "data"), cache=str(tmp_path / "cache"))


def catalogue(name: str, folder: Path) -> Catalogue:
    return LAYOUTS[name].read(folder, config(name))


def opened(name: str, places: Places) -> ImageSet:
    return open_layout(LAYOUTS[name], config(name, own_path(name, places)), places)


def seen(name: str, places: Places, *, decode: bool = True) -> Inspection:
    return inspect(LAYOUTS[name], config(name, own_path(name, places)), places, decode=decode)


def own_path(name: str, places: Places) -> Path | None:
    return root(places, name) if name == "folder" else None


def root(places: Places, name: str) -> Path:
    assert places.root is not None
    return Path(places.root) / name


def counts(found: Catalogue) -> dict[str, list[int]]:
    classes = len(found.class_names)
    return {part: found.labels[items].bincount(minlength=classes).tolist() for part, items in found.parts.items()}


# What there is.


def test_indoor67(tmp_path: Path) -> None:
    found = catalogue("indoor67", trees.make_indoor67(tmp_path))
    assert found.problems == ()
    assert found.class_names == ("airport_inside", "bakery", "children_room")
    assert counts(found) == {"train": [8, 8, 8], "test": [2, 2, 2]}
    assert found.files[0] == "Images/airport_inside/airport_inside 0000.jpg"
    assert not any("unlisted" in file for file in found.files)
    for file, label in zip(found.files, found.labels, strict=True):
        assert file.split("/")[1] == found.class_names[int(label)]
    test = {found.files[item] for item in found.parts["test"].tolist()}
    assert test == {f"Images/{line}" for line in (tmp_path / "TestImages.txt").read_text().splitlines()}


def test_flower102(tmp_path: Path) -> None:
    found = catalogue("flower102", trees.make_flower102(tmp_path))
    assert found.problems == ()
    assert found.class_names == ("pink primrose", "hard-leaved pocket orchid", "canterbury bells")
    assert counts(found) == {"train": [3, 3, 3], "val": [3, 3, 3], "test": [4, 4, 4]}
    assert found.files[:2] == ("jpg/image_00001.jpg", "jpg/image_00002.jpg")
    assert found.labels[:4].tolist() == [0, 1, 2, 0]
    everything = torch.cat([*found.parts.values()])
    assert sorted(everything.tolist()) == list(range(30))


def test_imagenet(tmp_path: Path) -> None:
    found = catalogue("imagenet", trees.make_imagenet(tmp_path))
    assert found.problems == ()
    assert found.class_names == trees.IMAGENET_SYNSETS[:3]
    assert counts(found) == {"train": [8, 8, 8], "test": [3, 3, 3]}
    assert all(found.files[item].startswith("val/") for item in found.parts["test"].tolist())
    for file, label in zip(found.files, found.labels, strict=True):
        assert file.split("/")[1] == found.class_names[int(label)]


def test_names_of_imagenet(tmp_path: Path) -> None:
    trees.make_imagenet(tmp_path, train=1, val=1)
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn01443537 crane\nn01484850 crane, another\n"
    )
    assert catalogue("imagenet", tmp_path).class_names == ("tench", "crane n01443537", "crane n01484850")
    for n in range(1000):
        for part in ("train", "val"):
            (tmp_path / "all" / part / f"n{n:08d}").mkdir(parents=True)
    assert catalogue("imagenet", tmp_path / "all").class_names[:2] == ("tench", "goldfish")


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    found = catalogue("folder", trees.make_folder(tmp_path / "plain"))
    assert found.problems == () and found.parts == {}
    assert found.labels.bincount().tolist() == [10, 10, 10]
    assert {Path(file).suffix for file in found.files} == {".png", ".JPG", ".jpeg"}
    assert "class0/inner/1.JPG" in found.files and not any("hidden" in file for file in found.files)
    given = catalogue("folder", trees.make_folder(tmp_path / "given", per_class=4, parts=("train", "val", "test")))
    assert counts(given) == {"train": [4, 4, 4], "val": [4, 4, 4], "test": [4, 4, 4]}
    assert counts(catalogue("folder", trees.make_folder(tmp_path / "two", per_class=2, parts=("train", "test")))) == {
        "train": [2, 2, 2],
        "test": [2, 2, 2],
    }


def test_the_order_is_the_same_however_the_files_came_there(tmp_path: Path) -> None:
    first = trees.make_folder(tmp_path / "first")
    second = tmp_path / "second"
    for path in sorted(first.rglob("*"), reverse=True):
        if path.is_file():
            copy = second / path.relative_to(first)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    assert catalogue("folder", first).files == catalogue("folder", second).files


@pytest.mark.parametrize("name", ["indoor67", "flower102"])
def test_a_tree_with_the_official_totals_is_complete(name: str, places: Places) -> None:
    getattr(trees, f"full_{name}")(root(places, name))
    found = seen(name, places, decode=False)
    assert found.problems == ()
    assert found.is_complete
    assert {count.what: count.found for count in found.totals} == dict(LAYOUTS[name].totals)
    assert opened(name, places).title == LAYOUTS[name].title


def test_a_tree_with_other_totals_is_not_complete_but_can_be_used(places: Places) -> None:
    trees.make_imagenet(root(places, "imagenet"))
    found = seen("imagenet", places)
    assert found.problems == () and not found.is_complete
    assert [(count.what, count.found, count.official) for count in found.totals] == [
        ("classes", 3, 1000),
        ("train", 24, 1281167),
        ("test", 9, 50000),
    ]
    assert [(count.found, count.official) for count in found.by_class["n01440764"]] == [(8, None), (3, 50)]
    assert opened("imagenet", places).title == "ImageNet ILSVRC-2012 (33 of 1,331,167 items, 3 of 1000 classes)"


# What is missing or broken.

Case = namedtuple("Case", "layout damage path words")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _drop(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense")


MISSING = [
    Case("indoor67", _drop, "TrainImages.txt", "the list of images is not there"),
    Case("indoor67", _nonsense, "TestImages.txt", "lines should be <class>/<file>"),
    Case("indoor67", _drop, "Images/bakery/bakery 0003.jpg", "listed, but it is not there"),
    Case("indoor67", _drop, "Images/bakery", "no such folder, but images in it are listed"),
    Case("indoor67", _drop, "Images", "no such folder, but images in it are listed"),
    Case("flower102", _drop, "setid.mat", "the file is not there"),
    Case("flower102", _drop, "imagelabels.mat", "the file is not there"),
    Case("flower102", _nonsense, "imagelabels.mat", "cannot be read as a MATLAB file"),
    Case("flower102", _truncate, "setid.mat", "setid.mat"),
    Case("flower102", _drop, "jpg/image_00007.jpg", "listed, but it is not there"),
    Case("flower102", _drop, "jpg", "no such folder, but images in it are listed"),
    Case("imagenet", _drop, "val", "there is no such folder"),
    Case("imagenet", _drop, "val/n01443537", "there is no folder for this class"),
    Case("imagenet", _empty, "train/n01443537", "there is no image in it"),
    Case("imagenet", _empty, "train", "a folder for each class"),
    Case("folder", _empty, "class1", "there is no image in it"),
]
BROKEN = [
    Case("indoor67", _truncate, "Images/bakery/bakery 0003.jpg", "cannot be read"),
    Case("indoor67", _nonsense, "Images/bakery/bakery 0003.jpg", "it is no image"),
    Case("flower102", lambda path: path.write_bytes(b""), "jpg/image_00007.jpg", "the file is empty"),
    Case("imagenet", _truncate, "val/n01443537/ILSVRC2012_val_00000004.JPEG", "cannot be read"),
    Case("folder", lambda path: path.write_bytes(b""), "class1/0.png", "the file is empty"),
]


@pytest.mark.parametrize("case", MISSING, ids=lambda case: f"{case.layout} {case.path} {case.damage.__name__}")
def test_what_is_missing_is_named(case: Case, places: Places) -> None:
    folder = getattr(trees, f"make_{case.layout}")(root(places, case.layout))
    case.damage(folder / case.path)
    found = seen(case.layout, places)
    assert not found.is_complete
    named = [problem for problem in found.problems if problem.path == str(folder / case.path)]
    assert len(named) == 1 and case.words in f"{named[0].path} {named[0].message}"
    with pytest.raises(DataError) as error:
        opened(case.layout, places)
    assert str(folder / case.path) in str(error.value) and case.words in str(error.value)
    assert "study.data check" in str(error.value)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: f"{case.layout} {case.path} {case.words}")
def test_what_is_broken_is_named(case: Case, places: Places) -> None:
    folder = getattr(trees, f"make_{case.layout}")(root(places, case.layout))
    case.damage(folder / case.path)
    assert seen(case.layout, places, decode=False).problems == ()
    (problem,) = seen(case.layout, places).problems
    assert problem.path == str(folder / case.path) and case.words in problem.message
    content = opened(case.layout, places)
    with pytest.raises(DataError) as error:
        content.pixels().fetch(torch.arange(len(content.labels)))
    assert str(folder / case.path) in str(error.value) and case.words in str(error.value)
    assert "Traceback" not in str(error.value)


def test_many_problems_are_counted(places: Places) -> None:
    folder = trees.make_flower102(root(places, "flower102"))
    for path in sorted((folder / "jpg").iterdir())[:14]:
        path.unlink()
    with pytest.raises(DataError, match="14 things are wrong") as error:
        opened("flower102", places)
    assert "and 4 more" in str(error.value)
    assert len(seen("flower102", places).problems) == 14


def test_an_image_in_both_lists(places: Places) -> None:
    folder = trees.make_indoor67(root(places, "indoor67"))
    stolen = (folder / "TestImages.txt").read_text().splitlines()[0]
    (folder / "TrainImages.txt").write_text((folder / "TrainImages.txt").read_text() + "\n" + stolen)
    (problem,) = seen("indoor67", places).problems
    assert problem.path == str(folder / "Images" / stolen) and "another part too" in problem.message


def test_parts_of_a_folder_of_ones_own(tmp_path: Path) -> None:
    no_test = catalogue("folder", trees.make_folder(tmp_path / "a", parts=("train", "val")))
    assert [problem.path for problem in no_test.problems] == [str(tmp_path / "a" / "test")]
    assert "there is train/ and val/ but no test/" in no_test.problems[0].message
    no_train = catalogue("folder", trees.make_folder(tmp_path / "b", parts=("val", "test")))
    assert "there is test/ and val/ but no train/" in no_train.problems[0].message
    single = catalogue("folder", trees.make_folder(tmp_path / "d", classes=1))
    assert "only one class" in single.problems[0].message


def test_validation_images_of_imagenet_that_were_not_sorted(places: Places) -> None:
    folder = trees.make_imagenet(root(places, "imagenet"))
    shutil.rmtree(folder / "val")
    trees.picture(folder / "val" / "ILSVRC2012_val_00000001.JPEG", 0, 0)
    (problem,) = seen("imagenet", places).problems
    assert problem.path == str(folder / "val") and "sort them into a folder for each class" in problem.message


def test_the_folder_is_looked_for(tmp_path: Path) -> None:
    nowhere = Places(root=None, cache=str(tmp_path))
    with pytest.raises(DataError, match=r"STUDY_DATA_ROOT.*indoor67/.*source\.data\.path.*web\.mit\.edu"):
        open_layout(LAYOUTS["indoor67"], config("indoor67"), nowhere)
    with pytest.raises(DataError, match=rf"no folder {tmp_path}/indoor67 \(given by data\.root"):
        open_layout(LAYOUTS["indoor67"], config("indoor67"), Places(root=str(tmp_path), cache=str(tmp_path)))
    found = inspect(LAYOUTS["indoor67"], config("indoor67"), nowhere)
    assert not found.is_complete and "STUDY_DATA_ROOT" in found.problems[0].message
    elsewhere = trees.make_indoor67(tmp_path / "elsewhere")
    assert len(open_layout(LAYOUTS["indoor67"], config("indoor67", elsewhere), nowhere).labels) == 30


def test_load_opens_layouts(places: Places) -> None:
    trees.make_flower102(root(places, "flower102"))
    content = load(config("flower102"), places)
    assert content.shape == (3, SIZE, SIZE) and set(content.official) == {"train", "val", "test"}


# Fingerprints.


def test_the_fingerprint_is_of_the_content(places: Places, tmp_path: Path) -> None:
    folder = trees.make_indoor67(root(places, "indoor67"))
    before = opened("indoor67", places).fingerprint
    shutil.copytree(folder, tmp_path / "copy")
    copy = open_layout(LAYOUTS["indoor67"], config("indoor67", tmp_path / "copy"), places)
    assert copy.fingerprint == before
    image = folder / "Images" / "bakery" / "bakery 0003.jpg"
    Image.new("RGB", (50, 50)).save(image)
    assert opened("indoor67", places).fingerprint != before


def test_the_fingerprint_is_of_the_parts(places: Places) -> None:
    folder = trees.make_indoor67(root(places, "indoor67"))
    before = opened("indoor67", places).fingerprint
    train, test = ((folder / name).read_text().splitlines() for name in ("TrainImages.txt", "TestImages.txt"))
    (folder / "TrainImages.txt").write_text("\n".join([*train[1:], test[0]]))
    (folder / "TestImages.txt").write_text("\n".join([*test[1:], train[0]]))
    assert opened("indoor67", places).fingerprint != before


# Decoding.


def by_hand(path: Path) -> torch.Tensor:
    """The short side resized and the centre cropped, by Pillow and in two steps."""
    image = Image.open(path).convert("RGB")
    scale = SIZE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized.crop((left, top, left + SIZE, top + SIZE)))).permute(2, 0, 1)


def test_pixels_are_those_of_the_files(places: Places) -> None:
    folder = trees.make_flower102(root(places, "flower102"))
    content = opened("flower102", places)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = content.pixels().fetch(torch.arange(30))
    assert images.dtype == torch.uint8 and images.shape == (30, 3, SIZE, SIZE)
    for item, file in enumerate(catalogue("flower102", folder).files):
        assert (images[item].float() - by_hand(folder / file).float()).abs().mean() < 6
        exact = torch.from_numpy(decode_image(folder / file, config("flower102")))
        assert torch.equal(images[item : item + 1], exact)


def test_square_images_of_the_size_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png", config("folder"))[0].transpose(1, 2, 0), pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_image_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.new("RGB", (40, 30), (255, 255, 255)).convert(mode).save(path)
    assert (decode_image(path, config("folder")) > 250).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_grey_is_the_luminance_of_the_same_pixels(mode: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (SIZE, SIZE), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    colours = decode_image(tmp_path / "a.png", config("folder"))[0].astype(float)
    grey = decode_image(tmp_path / "a.png", config("folder").model_copy(update={"modality": "grey"}))
    assert grey.shape == (1, 1, SIZE, SIZE) and grey.dtype == np.uint8
    by_hand = 0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]  # ITU-R BT.601
    assert np.abs(grey[0, 0] - by_hand).max() <= 1


def test_grey_is_another_array_and_has_one_channel(places: Places) -> None:
    trees.make_flower102(root(places, "flower102"))
    colours = opened("flower102", places).pixels().fetch(torch.tensor([0]))
    grey = load(config("flower102").model_copy(update={"modality": "grey"}), places)
    assert grey.shape == (1, SIZE, SIZE) and grey.pixels().fetch(torch.tensor([0])).shape == (1, 1, SIZE, SIZE)
    assert torch.equal(opened("flower102", places).pixels().fetch(torch.tensor([0])), colours)
    assert len([*Path(places.cache).glob("*.npy")]) == 2


def test_what_was_made_in_colour_is_not_taken_for_grey(places: Places) -> None:
    assert load(DataConfig(name="digits8", modality="grey"), places).shape == (1, 24, 24)
    with pytest.raises(DataError, match="made with 3 channels: set modality to rgb"):
        load(DataConfig(name="tests.own:coloured", modality="grey"), places)


def test_a_data_set_is_decoded_once(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.make_flower102(root(places, "flower102"))
    first = opened("flower102", places).pixels().fetch(torch.arange(30))

    def fails(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(files, "decode_image", fails)
    monkeypatch.setattr(decoding, "for_each", fails)
    assert torch.equal(opened("flower102", places).pixels().fetch(torch.arange(30)), first)
    assert seen("flower102", places, decode=False).decoded.is_done  # type: ignore[union-attr]


def test_another_size_is_another_array(places: Places) -> None:
    trees.make_flower102(root(places, "flower102"))
    opened("flower102", places).pixels()
    larger = config("flower102").model_copy(update={"size": 24})
    assert open_layout(LAYOUTS["flower102"], larger, places).pixels().fetch(torch.tensor([0])).shape == (1, 3, 24, 24)
    assert len([*Path(places.cache).glob("*.npy")]) == 2


def test_processes_decode_as_threads_do(tmp_path: Path) -> None:
    folder = trees.make_flower102(tmp_path)
    names = catalogue("flower102", folder).files
    (folder / names[3]).write_bytes(b"")
    threads = [*decoding.for_each(folder, names, config("flower102"), decode_image)]
    processes = [*decoding.for_each(folder, names, config("flower102"), decode_image, processes=True)]
    assert threads[3] == processes[3]
    for one, other in zip(threads[:3] + threads[4:], processes[:3] + processes[4:], strict=True):
        assert np.array_equal(one, other)  # type: ignore[arg-type]


def test_the_disk_must_be_large_enough(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.make_flower102(root(places, "flower102"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 1000, 1000))
    with pytest.raises(DataError, match=r"0\.0 MB free.*data\.cache"):
        opened("flower102", places).pixels()
    assert not seen("flower102", places).is_complete


def test_a_cache_that_cannot_be_written(places: Places) -> None:
    trees.make_flower102(root(places, "flower102"))
    Path(places.cache).write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written to.*data\.cache"):
        opened("flower102", places).pixels()


WORKER = """
import sys, time
from pathlib import Path
import torch
from trainables.data import LAYOUTS, Places, files
from trainables.data.decoding import decode_image
from trainables.settings import DataConfig

root, cache, log, seconds = sys.argv[1:]

def slowly(path, config):
    with open(log, "a") as file:
        file.write(f"{path.name}\\n")
    time.sleep(float(seconds))
    return decode_image(path, config)

files.decode_image = slowly
print("ready", flush=True)
sys.stdin.readline()
places = Places(root=root, cache=cache)
content = files.open_layout(LAYOUTS["flower102"], DataConfig(name="flower102", size=16), places)
print(int(content.pixels().fetch(torch.arange(30)).long().sum()))
"""


def worker(places: Places, log: Path, seconds: float) -> subprocess.Popen[str]:
    assert places.root is not None
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, places.root, places.cache, str(log), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 30 seconds")


def test_two_processes_at_once_decode_once(places: Places, tmp_path: Path) -> None:
    trees.make_flower102(root(places, "flower102"))
    log = tmp_path / "log"
    both = [worker(places, log, 0.05), worker(places, log, 0.05)]
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    sums = [process.communicate(timeout=60)[0].strip() for process in both]
    assert sums[0] == sums[1] == str(int(opened("flower102", places).pixels().fetch(torch.arange(30)).long().sum()))
    assert len(log.read_text().splitlines()) == 30


def test_a_process_that_is_killed_leaves_no_half_array(places: Places, tmp_path: Path) -> None:
    trees.make_flower102(root(places, "flower102"))
    log = tmp_path / "log"
    process = worker(places, log, 0.5)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 4)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = {path.suffix for path in Path(places.cache).iterdir()}
    assert ".part" in left and ".npy" not in left
    images = opened("flower102", places).pixels().fetch(torch.arange(30))
    assert all((image > 0).any() for image in images)
    assert not [*Path(places.cache).glob("*.part")]


# Streaming.


def test_streamed_batches_are_those_asked_for(places: Places) -> None:
    trees.make_imagenet(root(places, "imagenet"))
    pixels = opened("imagenet", places).pixels()
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 33, (40,), generator=draw) for _ in range(9)]
    assert isinstance(pixels, FilePixels) and sum(map(len, batches)) > files.FEW_ROWS
    state = torch.random.get_rng_state()
    streamed = [*pixels.stream(batches)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(streamed) == 9
    for rows, images in zip(batches, streamed, strict=True):
        assert torch.equal(images, pixels.fetch(rows))
    few = [*pixels.stream(batches[:2])]
    assert torch.equal(few[1], streamed[1])


def test_a_stream_names_the_file_that_cannot_be_read(places: Places) -> None:
    folder = trees.make_imagenet(root(places, "imagenet"))
    broken = folder / "train" / "n01443537" / "n01443537_2.JPEG"
    _truncate(broken)
    pixels = opened("imagenet", places).pixels()
    with pytest.raises(DataError) as error:
        for _ in pixels.stream([torch.arange(33)] * 9):
            pass
    assert str(broken) in str(error.value) and "Traceback" not in str(error.value)


# The command.


@pytest.fixture
def command(places: Places, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command on given data sets, with the places of the test."""

    def run(*arguments: str, **names: str) -> int:
        preset = read_config("digits").model_copy(update={"data": places})
        configs = {domain: config(name) for domain, name in names.items()}
        monkeypatch.setattr(study.config, "read_config", lambda *_: preset)
        monkeypatch.setattr(study.config, "data_configs", lambda _: configs)
        return study.data.main([*arguments])

    return run


def test_check_of_what_is_complete(
    command: Callable[..., int], places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.full_flower102(root(places, "flower102"))
    assert command("check", "preset", "--no-decode", source="digits8", target="flower102") == 0
    said = capsys.readouterr().out
    for words in (
        "source: UCI optical digits",
        "target: Oxford Flower102",
        "train 1,020, as officially; 10 a class",
        "test 6,149, as officially",
        "classes 102, as officially",
        "opened: none",
        "decoded: not yet; takes 6.3 MB",
        "  complete",
    ):
        assert words in said
    assert "problems" not in said and "where to get it" not in said


def test_check_of_what_is_not_complete(
    command: Callable[..., int], places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trees.make_imagenet(root(places, "imagenet"))
    _truncate(folder / "train" / "n01443537" / "n01443537_2.JPEG")
    trees.make_flower102(root(places, "flower102"))
    assert command("check", "preset", source="imagenet", target="indoor67", other="flower102") == 1
    said = capsys.readouterr().out
    for words in (
        f"folder: {folder}",
        "train 24, officially 1,281,167: 1,281,143 too few; 8 a class",
        "n01484850: train 8; test 3, officially 50: 47 too few",
        f"{folder}/train/n01443537/n01443537_2.JPEG: cannot be read",
        "where to get it: https://image-net.org",
        "opened: 33 images",
        f"there is no folder {root(places, 'indoor67')}",
        "canterbury bells: train 3, officially 10: 7 too few",
    ):
        assert words in said
    assert said.count("NOT complete") == 3
    assert command("check", "preset", "--quick", "--classes", source="imagenet") == 1
    assert "opened: none" in capsys.readouterr().out


def test_prepare(command: Callable[..., int], places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    trees.make_imagenet(root(places, "imagenet"))
    folder = trees.make_flower102(root(places, "flower102"))
    assert command("prepare", "preset", source="imagenet", target="flower102") == 0
    said = capsys.readouterr().out
    assert "nothing to decode" in said and "target: Oxford Flower102 (30 of" in said
    assert len([*Path(places.cache).glob("flower102-16px-*.npy")]) == 1
    assert command("prepare", "preset", target="flower102") == 0
    assert "decoded already" in capsys.readouterr().out
    (folder / "setid.mat").unlink()
    assert command("prepare", "preset", target="flower102") == 1
    assert str(folder / "setid.mat") in capsys.readouterr().err


def test_bad_input_of_the_command(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "preset", source="nothing") == 2
    assert "no data set 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        command("clean", "preset")
    assert stop.value.code == 2


STREAM = """
import sys, time
import torch
from pathlib import Path
from trainables.data.files import FilePixels
from trainables.settings import DataConfig

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    names = tuple(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))
    for _ in FilePixels(folder, names, DataConfig(name="flower102")).stream([torch.arange(30)] * 100):
        print("read", flush=True)
        time.sleep(60)
"""


def test_nothing_goes_on_reading_for_a_process_that_was_killed(tmp_path: Path) -> None:
    folder = trees.make_flower102(tmp_path / "flowers")
    script = tmp_path / "script.py"
    script.write_text(STREAM)
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "read\n"
    others = psutil.Process(process.pid).children(recursive=True)
    assert others
    process.kill()
    process.wait()
    wait_for(lambda: not any(other.is_running() and other.status() != psutil.STATUS_ZOMBIE for other in others))

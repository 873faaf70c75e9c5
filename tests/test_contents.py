"""A user's own folder: what the files hold decides, each image counts once, and what is passed over is said."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.trees import make_folder, picture
from trainables.data import LAYOUTS, DataError, Places, contents
from trainables.data.decoding import decode_image
from trainables.data.files import open_layout
from trainables.data.imageset import ImageSet
from trainables.data.inspection import Inspection, inspect
from trainables.data.layouts.catalogue import Catalogue
from trainables.settings import DataConfig

FOLDER = LAYOUTS["folder"]
SIZE = 8


def config(folder: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"name": "folder", "path": str(folder), "size": SIZE, **more})


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(cache=str(tmp_path / "cache"))


def opened(folder: Path, places: Places, **more: object) -> ImageSet:
    return open_layout(FOLDER, config(folder, **more), places)


def seen(folder: Path, places: Places, **more: object) -> Inspection:
    return inspect(FOLDER, config(folder, **more), places)


def read(folder: Path) -> Catalogue:
    return FOLDER.read(folder, config(folder))


def tree(folder: Path, *classes: str, number: int = 4, first: int = 0) -> Path:
    """Classes of images, no two alike; ``first`` tells trees from each other."""
    for label, name in enumerate(classes or ("apple", "banana")):
        for n in range(first, first + number):
            picture(folder / name / f"{n}.png", label, n)
    return folder


def one_colour(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), (colour, 0, 0)).save(path)


# Content ------------------------------------------------------------------------------------------------------------


def test_equal_names_and_sizes_are_not_equal_data(places: Places, tmp_path: Path) -> None:
    """Two folders of bitmaps, whose files differ in their pixels alone."""
    for folder, level in (("visible", 10), ("infrared", 100)):
        for n in range(6):
            one_colour(tmp_path / folder / "ab"[n % 2] / f"{n}.bmp", level + n)
    one, other = (opened(tmp_path / name, places) for name in ("visible", "infrared"))
    assert one.fingerprint != other.fingerprint
    assert [int(content.pixels().fetch(torch.arange(6))[0, 0, 0, 0]) for content in (one, other)] == [10, 100]
    shutil.copytree(tmp_path / "visible", tmp_path / "copy")
    assert opened(tmp_path / "copy", places).fingerprint == one.fingerprint


def test_a_file_that_is_corrected_in_place_is_noticed(places: Places, tmp_path: Path) -> None:
    """Also where its name, size and time of modification stay."""
    path = tmp_path / "data" / "a" / "0.bmp"
    for n in range(4):
        one_colour(tmp_path / "data" / "ab"[n % 2] / f"{n}.bmp", n)
    before, times = opened(tmp_path / "data", places), path.stat()
    one_colour(path, 200)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(tmp_path / "data", places)
    assert after.fingerprint != before.fingerprint
    assert int(after.pixels().fetch(torch.tensor([0]))[0, 0, 0, 0]) == 200


def test_a_node_reads_a_file_once(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "JUST_NOW", 0)
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    first, _ = contents.digests(tmp_path, ["a", "b"], places, whole=True)
    (memory,) = Path(places.cache).iterdir()
    known = {file: [*entry[:-1], f"remembered {file}"] for file, entry in json.loads(memory.read_text()).items()}
    memory.write_text(json.dumps(known))
    assert contents.digests(tmp_path, ["a", "b"], places, whole=True) == (["remembered a", "remembered b"], [])
    (tmp_path / "b").write_bytes(b"c")
    (_, other), _ = contents.digests(tmp_path, ["a", "b"], places, whole=True)
    assert other not in (first[1], "remembered b")
    memory.write_text("not JSON")
    assert contents.digests(tmp_path, ["a"], places, whole=True) == (first[:1], [])


def test_reading_many_files_is_not_silent(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainables.pace.REPORT_SECONDS", 0)
    monkeypatch.setattr(contents, "AT_ONCE", 2)
    for name in "abcd":
        (tmp_path / name).write_bytes(name.encode())
    with caplog.at_level("INFO", "trainables"):
        contents.digests(tmp_path, list("abcd"), places, whole=True)
    assert caplog.messages == [f"{tmp_path}: read {count} of 4 new files" for count in (0, 2)]


def test_a_file_that_changed_just_now_is_not_remembered(places: Places, tmp_path: Path) -> None:
    """It could change again within the same tick of the clock."""
    (tmp_path / "a").write_bytes(b"a")
    contents.digests(tmp_path, ["a"], places, whole=True)
    assert [json.loads(memory.read_text()) for memory in Path(places.cache).iterdir()] == [{}]


@pytest.mark.parametrize(
    ("place", "whole", "noticed"), [(0, False, True), (50_000, False, True), (30_000, False, False)]
)
def test_of_very_many_files_head_middle_and_tail_count(
    place: int, whole: bool, noticed: bool, places: Places, tmp_path: Path
) -> None:
    content = bytearray(100_000)
    (tmp_path / "a").write_bytes(content)
    content[place] = 1
    (tmp_path / "b").write_bytes(content)
    (one, other), _ = contents.digests(tmp_path, ["a", "b"], places, whole=whole)
    assert (one != other) == noticed
    (one, other), _ = contents.digests(tmp_path, ["a", "b"], places, whole=True)
    assert one != other


# Pixels -------------------------------------------------------------------------------------------------------------


def decoded(path: Path, **more: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    (image,) = decode_image(path, config(path.parent, **more))
    assert isinstance(image, np.ndarray)
    return image


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("level", [0, 255, 8_000, 20_000, 32_000, 65_535])
def test_sixteen_bits_are_brought_to_eight(level: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.full((10, 10), level, np.uint16)).save(path)
    assert (decoded(path) == level * 255 // 65_535).all()


@pytest.mark.parametrize(("kind", "words"), [(np.float32, "floating-point"), (np.int32, "32-bit whole")])
def test_numbers_without_a_range_are_refused(kind: type, words: str, places: Places, tmp_path: Path) -> None:
    Image.fromarray(np.full((10, 10), 0.5 if kind is np.float32 else 5, kind)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=words):
        decoded(tmp_path / "a.tif")
    tree(tmp_path / "data")
    shutil.copy(tmp_path / "a.tif", tmp_path / "data" / "apple")
    (problem,) = seen(tmp_path / "data", places).problems
    assert problem.path.endswith("apple/a.tif") and words in problem.message
    with pytest.raises(DataError, match=rf"apple/a.tif: it holds {words}"):
        opened(tmp_path / "data", places).pixels()


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    """A drawing whose lines are in the alpha channel alone, half transparent in its lower half."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[4:, :, 3] = 128
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = decoded(tmp_path / "a.png")
    assert (image[:, :4] == 255).all() and (abs(image[:, 4:].astype(int) - 127) <= 1).all()
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "b.png", transparency=1)
    assert (decoded(tmp_path / "b.png") == 255).all()
    opaque = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    Image.fromarray(opaque).save(tmp_path / "c.png")
    assert (decoded(tmp_path / "c.png") == opaque[..., :3].transpose(2, 0, 1)).all()


def test_orientation_is_as_configured_and_counted(places: Places, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 4, 8))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter: what is left comes up
    folder = tree(tmp_path / "data")
    image.save(folder / "apple" / "turned.png", exif=exif)
    stored, turned = (decoded(folder / "apple" / "turned.png", orientation=way) for way in ("stored", "exif"))
    assert stored[0, :, 0].min() == 255 and stored[0, :, -1].max() == 0
    assert turned[0, 0].min() == 255 and turned[0, -1].max() == 0
    assert (
        "1 images have an EXIF orientation and stay as stored (orientation: exif turns them)"
        in seen(folder, places).notes
    )
    arrays = {opened(folder, places, orientation=way).decoding.array for way in ("stored", "exif")}  # type: ignore[union-attr]
    assert len(arrays) == 2


def test_a_very_large_image_is_read(tmp_path: Path) -> None:
    """196 megapixels, which Pillow by itself takes for an attack."""
    Image.new("L", (14_000, 14_000), 77).save(tmp_path / "a.jpg")
    assert (abs(decoded(tmp_path / "a.jpg").astype(int) - 77) <= 1).all()


# Labels and parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("Train", "Test"), ("TRAIN", "Valid", "TEST"), ("train", "validation", "test")]
)
def test_parts_have_their_usual_names(names: tuple[str, ...], tmp_path: Path) -> None:
    for first, name in enumerate(names):
        tree(tmp_path / name, first=10 * first)
    found = read(tmp_path)
    assert found.problems == () and found.class_names == ("apple", "banana")
    parts = ("train", "test") if len(names) == 2 else ("train", "val", "test")
    assert {part: len(items) for part, items in found.parts.items()} == dict.fromkeys(parts, 8)
    for part, name in zip(parts, names, strict=True):
        assert all(found.files[item].startswith(f"{name}/") for item in found.parts[part])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    found = read(tree(tmp_path, "bus", "car", "train"))
    assert found.class_names == ("bus", "car", "train") and not found.parts and not found.problems


def test_images_that_lie_flat_in_parts_are_refused(tmp_path: Path) -> None:
    found = read(tree(tmp_path, "test", "train"))
    assert ["lie flat" in problem.message for problem in found.problems] == [True, True]


def test_one_part_twice_is_refused(tmp_path: Path) -> None:
    for name in ("Train", "test", "training"):
        tree(tmp_path / name)
    assert "Train/ is the train part already" in read(tmp_path).problems[0].message


def test_folders_above_the_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    for first, name in enumerate(("site1", "site2")):
        tree(tmp_path / name, first=10 * first)
    (problem,) = read(tmp_path).problems
    assert "site1/ and site2/ all hold apple/, banana/" in problem.message
    picture(tmp_path / "site1" / "own.png", 0, 99)  # with images of their own, they may well be classes
    assert read(tmp_path).problems == ()


def test_a_folder_within_each_class_is_a_matter_of_taste(tmp_path: Path) -> None:
    for label, name in enumerate(("apple", "banana")):
        for n in range(4):
            picture(tmp_path / name / "images" / f"{n}.png", label, n)
    assert read(tmp_path).class_names == ("apple", "banana") and not read(tmp_path).problems


def test_what_lies_beside_the_parts_is_said(tmp_path: Path) -> None:
    for first, name in enumerate(("train", "test", "more")):
        tree(tmp_path / name, first=10 * first)
    assert read(tmp_path).notes == ("left out: folders more/ next to the parts (1)",)


# Each image once ----------------------------------------------------------------------------------------------------


def to_itself(folder: Path) -> None:
    (folder / "apple" / "apple").symlink_to(folder / "apple")


def to_the_parent(folder: Path) -> None:
    (folder / "apple" / "up").symlink_to("..")


def to_another_class(folder: Path) -> None:
    (folder / "apple" / "more").symlink_to("../banana")


def by_another_name(folder: Path) -> None:
    (folder / "aardvark").symlink_to("banana")


def thumbnails(folder: Path) -> None:
    for helper in ("@eaDir", "__MACOSX"):
        picture(folder / "apple" / helper / "0.png", 0, 50)
        picture(folder / helper / "0.png", 0, 51)


@pytest.mark.parametrize("disturb", [to_itself, to_the_parent, to_another_class, by_another_name, thumbnails])
def test_only_the_images_of_the_data_set_count(disturb: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tree(tmp_path / "data")
    before = read(folder)
    disturb(folder)
    found = read(folder)
    assert found.files == before.files and torch.equal(found.labels, before.labels)
    assert found.class_names == before.class_names and found.notes and not found.problems


def test_links_into_a_hidden_store_are_followed(tmp_path: Path) -> None:
    """As tools for the versions of data make them."""
    folder = tree(tmp_path / "data")
    before = read(folder)
    for name in before.class_names:
        (folder / ".store" / name).parent.mkdir(exist_ok=True)
        (folder / name).rename(folder / ".store" / name)
        (folder / name).symlink_to(f".store/{name}")
    assert read(folder).files == before.files and not read(folder).problems


def test_a_copy_is_an_error_or_left_out(places: Places, tmp_path: Path) -> None:
    for first, part in enumerate(("train", "test")):
        tree(tmp_path / part, first=10 * first)
    shutil.copy(tmp_path / "test" / "apple" / "10.png", tmp_path / "train" / "apple" / "again.png")
    with pytest.raises(DataError, match=r"again\.png: the same image as test/apple/10\.png, which is in the test part"):
        opened(tmp_path, places)
    assert not seen(tmp_path, places).is_complete
    assert len(opened(tmp_path, places, duplicates="keep").labels) == 17
    left = opened(tmp_path, places, duplicates="drop")
    assert {part: len(items) for part, items in left.official.items()} == {"train": 8, "test": 8}
    shutil.copy(tmp_path / "train" / "apple" / "0.png", tmp_path / "train" / "banana" / "apple.png")
    with pytest.raises(
        DataError, match=r"banana/apple\.png: the same image as train/apple/0\.png, which is of class apple"
    ):
        opened(tmp_path, places)
    assert len(opened(tmp_path, places, duplicates="drop").labels) == 15


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(0, 2)), max_size=20))
def test_without_copies_no_content_comes_twice(items: list[tuple[int, int, int]]) -> None:
    """Contents, labels and parts at random: what is left is unique, undisputed, and in the test part where it was."""
    held = [str(content) for content, _, _ in items]
    labels = torch.tensor([label for _, label, _ in items], dtype=torch.int64)
    names = ("train", "val", "test")
    parts = {
        name: torch.tensor([n for n, (_, _, part) in enumerate(items) if part == number], dtype=torch.int64)
        for number, name in enumerate(names)
    }
    before = Catalogue(("a", "b"), tuple(str(n) for n in range(len(items))), labels, parts)
    left, digests = contents.without_copies(before, held)
    assert len(set(digests)) == len(digests) == len(left.files) == len(left.labels)
    claims = {content: {label for own, label, _ in items if str(own) == content} for content in held}
    assert set(digests) == {content for content, labels in claims.items() if len(labels) == 1}
    assert sorted(item for part in left.parts.values() for item in part.tolist()) == list(range(len(digests)))
    for name, part in left.parts.items():
        for item in part.tolist():
            was = int(left.files[item])
            assert was in parts[name] and left.labels[item] == labels[was] and held[was] == digests[item]
            first = max(names.index(own) for own in names for n in parts[own].tolist() if held[n] == held[was])
            assert names[first] == name


# What is left out ---------------------------------------------------------------------------------------------------


def test_ten_faults_at_once_are_listed(places: Places, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    (folder / "durian").symlink_to("/nowhere/durian")
    (folder / "class0" / "gone.txt").symlink_to("/nowhere")
    (folder / "class0" / "gone.png").symlink_to("/nowhere")
    (folder / "empty").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "class1" / "moving.gif")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9")).mkdir()
    Path(os.fsdecode(os.fsencode(folder / "class1") + b"/\xff.png")).write_bytes(b"")
    (folder / "class1" / "broken.png").write_bytes(b"no image")
    (folder / "class1" / "nothing.png").write_bytes(b"")
    Image.fromarray(np.zeros((9, 9), np.float32)).save(folder / "class2" / "float.tif")
    shutil.copy(folder / "class2" / "0.png", folder / "class2" / "copy.png")
    told = {Path(problem.path).name for problem in seen(folder, places).problems}
    assert told >= {"durian", "gone.txt", "empty", "*.gif", r"caf\xe9", r"\xff.png"}
    assert told >= {"gone.png"} or {"broken.png", "nothing.png", "float.tif", "copy.png"} <= told
    (folder / "class0" / "gone.png").unlink()
    told = {Path(problem.path).name for problem in seen(folder, places).problems}
    assert {"broken.png", "nothing.png", "float.tif", "copy.png"} <= told
    with pytest.raises(DataError, match="things are wrong") as error:
        opened(folder, places)
    assert "Traceback" not in str(error.value)


def test_ten_faults_at_once_are_all_listed(places: Places, tmp_path: Path) -> None:
    folder = tree(tmp_path / "data", *"abcdefgh", number=12)
    noise = np.random.default_rng(0).random((8, 8)).astype("float32")
    shutil.copy(folder / "a/1.png", folder / "a/copy.png")
    shutil.copy(folder / "b/1.png", folder / "c/other.png")
    (folder / "b/3.png").write_bytes(b"")
    (folder / "c/4.png").write_bytes((folder / "c/4.png").read_bytes()[:120])
    (folder / "d/gone.png").symlink_to(tmp_path / "nowhere.png")
    Image.fromarray(noise).save(folder / "e/float.tif")
    (folder / "f/phone.heic").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(folder / "g") + b"/caf\xe9.png")).write_bytes(b"x")
    (folder / "h/text.png").write_text("no image")
    (folder / "empty").mkdir()
    found = seen(folder, places)
    listed = "\n".join(f"{Path(problem.path).name}: {problem.message}" for problem in found.problems)
    for words in (
        "copy.png: the same image as a/1.png",
        "other.png: the same image as b/1.png, which is of class b",
        "3.png: the file is empty",
        "4.png: cannot be read",
        "gone.png: it is a link to what is not there",
        "float.tif: it holds floating-point numbers",
        "*.heic: pictures that are not read (1)",
        "caf\\xe9.png: its name is not in UTF-8",
        "text.png: it is no image",
        "empty: there is no image in it",
    ):
        assert words in listed
    assert len(found.problems) == 11  # and one line that counts the copies

"""List files as people's tools save them, and videos that are cut, damaged or end their decoder."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from tests import clips, trees
from trainables.data import LAYOUTS, Catalogue, DataError, Places
from trainables.data.decoding import for_each
from trainables.data.inspection import inspect
from trainables.data.layouts.catalogue import Problem
from trainables.data.layouts.lists import lines_of
from trainables.data.videos import decode_item, verify
from trainables.settings import DataConfig


def _rewritten(change: Callable[[str], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_text()))


SAVED = {
    "byte order mark": _rewritten(lambda text: b"\xef\xbb\xbf" + text.encode()),
    "UTF-16": _rewritten(lambda text: text.encode("utf-16")),
    "Windows": _rewritten(lambda text: text.replace("/", "\\").replace("\n", "\r\n").encode()),
    "old Mac": _rewritten(lambda text: text.replace("\n", "\r").encode()),
    "from the folder": _rewritten(lambda text: "".join(f"./{line}\n" for line in text.splitlines()).encode()),
    "blank lines": _rewritten(lambda text: f"\n\n{text}\n  \n".encode()),
}


def _read(name: str, folder: Path) -> Catalogue:
    return LAYOUTS[name].read(folder, DataConfig(name=name))


def _same(first: Catalogue, second: Catalogue) -> bool:
    return (
        first.files == second.files
        and first.problems == second.problems == ()
        and torch.equal(first.labels, second.labels)
        and all(torch.equal(first.parts[part], second.parts[part]) for part in {*first.parts, *second.parts})
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lists")
    clips.make_ucf101(root / "ucf101", classes=2, groups=(1, 8), clips=1)
    clips.make_hmdb51(root / "hmdb51", classes=2)
    return {
        "indoor67": trees.make_indoor67(root / "indoor67"),
        "ucf101": root / "ucf101",
        "hmdb51": root / "hmdb51",
    }


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", ["indoor67", "ucf101", "hmdb51"])
def test_a_list_is_read_however_it_was_saved(name: str, saved: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(folders[name], folder)
    lists = [path for path in folder.rglob("*.txt") if path.name != "classInd.txt" or saved != "from the folder"]
    assert lists
    for path in lists:
        SAVED[saved](path)
    assert _same(_read(name, folder), _read(name, folders[name]))


def test_a_latin_1_line_is_read_as_such(tmp_path: Path) -> None:
    trees.make_indoor67(tmp_path)
    image = next(line for line in (tmp_path / "TrainImages.txt").read_text().splitlines() if "bakery" in line)
    (tmp_path / "Images" / image).rename(tmp_path / "Images" / "bakery" / "pâtisserie 1.jpg")
    path = tmp_path / "TrainImages.txt"
    path.write_bytes(path.read_bytes().replace(image.encode(), "bakery/pâtisserie 1.jpg".encode("latin-1")))
    catalogue = _read("indoor67", tmp_path)
    assert catalogue.problems == () and "Images/bakery/pâtisserie 1.jpg" in catalogue.files


def test_a_listed_image_whose_name_is_not_in_utf8_is_named(tmp_path: Path) -> None:
    trees.make_indoor67(tmp_path)
    image = next(line for line in (tmp_path / "TrainImages.txt").read_text().splitlines() if "bakery" in line)
    (tmp_path / "Images" / image).rename(os.fsdecode(os.fsencode(tmp_path / "Images" / "bakery") + b"/p\xe2t 1.jpg"))
    path = tmp_path / "TrainImages.txt"
    path.write_bytes(path.read_bytes().replace(image.encode(), b"bakery/p\xe2t 1.jpg"))
    said = [problem.message for problem in _read("indoor67", tmp_path).problems]
    assert said == ["the image is listed, but it is not there", "its name is not in UTF-8: rename it"]


def test_what_is_odd_is_named_with_its_line(tmp_path: Path) -> None:
    trees.make_indoor67(tmp_path)
    with (tmp_path / "TestImages.txt").open("a") as file:
        file.write("\nbakery\n")
    (problem,) = _read("indoor67", tmp_path).problems
    assert "line 7 is 'bakery'" in problem.message


def test_a_list_that_may_not_be_read_is_a_problem(tmp_path: Path) -> None:
    problems: list[Problem] = []
    assert lines_of(tmp_path, problems) == []  # a folder
    assert "the list cannot be read: Is a directory" in problems[0].message


def test_flower_labels_that_count_from_zero_are_refused(tmp_path: Path) -> None:
    trees.make_flower102(tmp_path)
    labels = loadmat(tmp_path / "imagelabels.mat")["labels"]
    savemat(tmp_path / "imagelabels.mat", {"labels": labels - 1})
    (problem,) = _read("flower102", tmp_path).problems
    assert problem.path.endswith("imagelabels.mat") and "count from 0" in problem.message


def test_flower_numbers_that_count_from_zero_are_refused(tmp_path: Path) -> None:
    trees.make_flower102(tmp_path)
    ids = loadmat(tmp_path / "setid.mat")
    savemat(tmp_path / "setid.mat", {name: ids[name] - 1 for name in ("trnid", "valid", "tstid")})
    problems = _read("flower102", tmp_path).problems
    assert any("names image 0, but imagelabels.mat has the images 1 to 30" in problem.message for problem in problems)


@pytest.mark.parametrize("place", ["{label}/{label}", "hmdb51_org/{label}", "videos/hmdb51_org/{label}/{label}"])
def test_videos_are_found_in_folders_of_their_class(place: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "hmdb51"
    shutil.copytree(folders["hmdb51"], folder)
    usual = _read("hmdb51", folder)
    for label in usual.class_names:
        (folder / label).rename(folder / "moved")
        (folder / place.format(label=label)).parent.mkdir(parents=True, exist_ok=True)
        (folder / "moved").rename(folder / place.format(label=label))
    catalogue = _read("hmdb51", folder)
    assert catalogue.problems == () and catalogue.class_names == usual.class_names
    assert torch.equal(catalogue.labels, usual.labels)
    assert [Path(file).name for file in catalogue.files] == [Path(file).name for file in usual.files]
    gone = folder / catalogue.files[0]
    gone.unlink()
    (problem,) = _read("hmdb51", folder).problems
    assert problem.path == str(gone)  # where the others lie


def _clip(path: Path, frames: int = 60) -> bytes:
    rng = np.random.default_rng(0)
    clips.write(path, [clips.texture(rng, 48, 64) for _ in range(frames)])
    return path.read_bytes()


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _hole(content: bytes) -> bytes:
    start, end = len(content) // 3, 2 * len(content) // 3
    return content[:start] + bytes(end - start) + content[end:]


@pytest.mark.parametrize("damage", [_cut, _hole])
def test_a_video_with_fewer_frames_than_its_header_says_is_damaged(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "clip.avi"
    content = _clip(path)
    assert verify(path) == (60, 60)
    path.write_bytes(damage(content))
    for look in (verify, lambda path: decode_item(path, DataConfig(name="ucf101", positions=3))):
        with pytest.raises(DataError, match=r"only \d+ of its 60 frames could be read: it is cut or damaged"):
            look(path)


def test_a_few_frames_fewer_are_said_and_no_more(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "ucf101"
    shutil.copytree(folders["ucf101"], folder)
    path = folder / _read("ucf101", folder).files[0]
    content = _clip(path)
    end = content.rindex(b"idx1")
    last = content.rindex(b"00dc", 0, end)  # the last frame's chunk
    path.write_bytes(content[:last] + bytes(end - last) + content[end:])
    frames, claimed = verify(path)
    assert claimed - 3 < frames < claimed == 60
    found = inspect(
        LAYOUTS["ucf101"], DataConfig(name="ucf101", path=str(folder)), Places(cache=str(tmp_path / "cache"))
    )
    assert found.problems == () and "1 videos have a few frames fewer than their header states" in found.notes


def test_check_lists_every_damaged_video(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "ucf101"
    shutil.copytree(folders["ucf101"], folder)
    usual = _read("ucf101", folder)
    damaged = [folder / file for file in usual.files[1:3]]
    for path in damaged:
        path.write_bytes(_cut(path.read_bytes()))
    config = DataConfig(name="ucf101", path=str(folder))
    found = inspect(LAYOUTS["ucf101"], config, Places(cache=str(tmp_path / "cache")))
    assert [problem.path for problem in found.problems] == [*map(str, damaged)]


def ends_its_process(path: Path, config: DataConfig) -> str:
    """Stands in for a decoder with a fault of its own."""
    if path.suffix == ".bad":
        os.kill(os.getpid(), signal.SIGSEGV)
    return path.name


def test_a_decoder_that_crashes_names_its_file_and_the_others_go_on(tmp_path: Path) -> None:
    names = [f"{number:02d}{'.bad' if number in (3, 4, 20) else '.avi'}" for number in range(24)]
    for name in names:
        (tmp_path / name).touch()
    results = [*for_each(tmp_path, names, DataConfig(name="ucf101"), ends_its_process, processes=True)]
    crashed = [result for result in results if isinstance(result, Problem)]
    assert [Path(problem.path).name for problem in crashed] == ["03.bad", "04.bad", "20.bad"]
    assert all("ended with SIGSEGV" in problem.message for problem in crashed)
    assert [result for result in results if isinstance(result, str)] == [
        name for name in names if not name.endswith("bad")
    ]

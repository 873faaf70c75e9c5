"""The layouts of UCF101 and HMDB51: videos in folders of classes, and lists of the official parts."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from trainables.data.layouts.catalogue import Catalogue, Problem, layout
from trainables.data.layouts.lists import lines_of, relative_path
from trainables.data.layouts.searching import FolderSearch
from trainables.settings import DataConfig

UCF101_LISTS = "ucfTrainTestlist"
HMDB51_LISTS = "testTrainMulti_7030_splits"
HMDB51_LIST = "_test_split1.txt"
ENDINGS = frozenset({".avi"})
HMDB51_PARTS = {"1": "train", "2": "test"}


@dataclass(frozen=True)
class _Listed:
    """A video that a split names."""

    label: str
    name: str
    part: str
    source: Path
    """The list that names it."""


@layout(
    "ucf101",
    title="UCF101, split 1",
    medium="videos",
    source="https://www.crcv.ucf.edu/data/UCF101.php: UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip, "
    "both unpacked into the folder",
    totals={"train": 9537, "test": 3783, "classes": 101},
)
def ucf101(root: Path, config: DataConfig) -> Catalogue:
    """UCF101 (Soomro et al. 2012): videos in ``<class>``, wherever that lies, or in the folder itself; lists."""
    problems: list[Problem] = []
    lists = root / UCF101_LISTS
    if not lists.is_dir():
        return _nothing(root, lists, "the folder of the split is not there: unpack the archive of the splits")
    classes = _lines(lists / "classInd.txt", r"(\d+)\s+(\S+)", "1 ApplyEyeMakeup", problems)
    listed = [
        _Listed(label, name, part, path)
        for part, path in (("train", lists / "trainlist01.txt"), ("test", lists / "testlist01.txt"))
        for label, name in _lines(path, r"([^/\s]+)/(\S+)(?:\s+\d+)?", "Archery/v_Archery_g08_c01.avi 3", problems)
    ]
    names = [name for _, name in sorted(classes, key=lambda entry: int(entry[0]))]
    present = _present(root, problems)
    return _catalogue(root, names or _labels(listed), _placed(listed, present), {*present}, problems)


@layout(
    "hmdb51",
    title="HMDB51, split 1",
    medium="videos",
    source="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database: hmdb51_org.rar (one "
    "archive a class inside) and test_train_splits.rar, both unpacked into the folder",
    totals={"train": 3570, "test": 1530, "classes": 51},
)
def hmdb51(root: Path, config: DataConfig) -> Catalogue:
    """HMDB51 (Kuehne et al. 2011): videos in ``<class>``, wherever that lies, and a list of each class.

    Its unused videos are no items.
    """
    problems: list[Problem] = []
    lists = root / HMDB51_LISTS
    if not lists.is_dir():
        return _nothing(root, lists, "the folder of the split is not there: unpack the archive of the splits")
    present = _present(root, problems)
    named = {path.name.removesuffix(HMDB51_LIST) for path in lists.glob(f"*{HMDB51_LIST}")}
    # A class is one that has a list or videos: so a list that is missing shows.
    names = sorted(named | {_folder(file) for file in present if "/" in file})
    listed = [
        _Listed(label, name, HMDB51_PARTS[part], path)
        for label in names
        for path in [lists / f"{label}{HMDB51_LIST}"]
        for name, part in _lines(path, r"(.+\.avi)\s+([012])", "some_video.avi 1", problems)
        if part in HMDB51_PARTS
    ]
    return _catalogue(root, names, _placed(listed, present), {*present}, problems)


def _nothing(root: Path, missing: Path, message: str) -> Catalogue:
    problem = Problem(str(missing), message) if root.is_dir() else Problem(str(root), "there is no such folder")
    return Catalogue((), (), torch.empty(0, dtype=torch.int64), problems=(problem,))


def _present(root: Path, problems: list[Problem]) -> list[str]:
    """The videos in the folder and the folders in it."""
    search = FolderSearch(endings=ENDINGS)
    found = [*search.images(root)]
    problems += search.problems
    return found


def _folder(file: str) -> str:
    """Name of the folder that a file lies in."""
    return file.rpartition("/")[0].rpartition("/")[2]


def _placed(listed: Iterable[_Listed], present: Iterable[str]) -> dict[_Listed, str]:
    """The file of each video: in a folder of its class, however deep, or else in none.

    What is not there is expected where most of the others lie.
    """
    in_class: dict[tuple[str, str], str] = {}
    for file in present:
        in_class.setdefault((_folder(file), file.rpartition("/")[2]), file)
    found = {video: in_class.get((video.label, video.name)) or in_class.get(("", video.name)) for video in listed}
    ways = Counter(
        re.sub(rf"(?<![^/]){re.escape(video.label)}/", "{}/", file.removesuffix(video.name))
        for video, file in found.items()
        if file is not None
    )
    ((usual, _),) = ways.most_common(1) or [("{}/", 0)]
    return {video: file or usual.replace("{}", video.label) + video.name for video, file in found.items()}


def _labels(listed: Iterable[_Listed]) -> list[str]:
    return sorted({video.label for video in listed})


def _lines(path: Path, pattern: str, example: str, problems: list[Problem]) -> list[tuple[str, ...]]:
    """The fields of each line of a list; a list that is not there, or a line unlike ``example``, is a problem."""
    lines = {number: relative_path(line) for number, line in lines_of(path, problems)}
    matches = {number: re.fullmatch(pattern, line) for number, line in lines.items()}
    odd = [number for number, match in matches.items() if match is None]
    if odd:
        more = f" (and {len(odd) - 1} more lines)" if len(odd) > 1 else ""
        problems.append(Problem(str(path), f"line {odd[0]}{more} should look like {example!r}: {lines[odd[0]]!r}"))
    return [match.groups() for match in matches.values() if match]


def _catalogue(
    root: Path, names: list[str], files: dict[_Listed, str], present: set[str], problems: list[Problem]
) -> Catalogue:
    """The listed videos that are there, by class and name; what is wrong with the others joins ``problems``."""
    problems += _unlisted(root, names, files)
    problems += _repeated(files)
    problems += _missing(root, files, present)
    number = {name: label for label, name in enumerate(names)}
    # Later entries of a video that is listed twice give way to the first.
    first = {file: video for video, file in reversed(files.items()) if file in present and video.label in number}
    items = sorted(first.items(), key=lambda item: (number[item[1].label], item[0]))
    members = {
        part: [item for item, (_, video) in enumerate(items) if video.part == part] for part in ("train", "test")
    }
    return Catalogue(
        tuple(names),
        tuple(file for file, _ in items),
        torch.tensor([number[video.label] for _, video in items], dtype=torch.int64),
        {part: torch.tensor(part_items, dtype=torch.int64) for part, part_items in members.items() if part_items},
        tuple(problems),
    )


def _unlisted(root: Path, names: list[str], files: Iterable[_Listed]) -> Iterator[Problem]:
    """Classes without a video in a part, and videos of a class that is none."""
    counts = Counter((video.label, video.part) for video in files)
    for part in sorted({video.part for video in files}):  # a part without any video is a list with a problem of its own
        for name in names:
            if not counts[name, part]:
                yield Problem(str(root), f"class {name} has no {part} video in the split")
    for label in _labels(files):
        if label not in names:
            yield Problem(str(root), f"the split names videos of class {label}, which is not in the list of classes")


def _repeated(files: dict[_Listed, str]) -> Iterator[Problem]:
    counts = Counter(files.values())
    for video, file in files.items():
        if counts.pop(file, 1) > 1:
            yield Problem(str(video.source), f"{file} is in the split more than once; the first time counts")


def _missing(root: Path, files: dict[_Listed, str], present: Collection[str]) -> Iterator[Problem]:
    """Listed videos that are not there: one problem for all, or one a class."""
    if files and not present:
        yield Problem(str(root), "there is no .avi file: unpack the archive of the videos here")
        return
    for label in _labels(files):
        missing = [(video, file) for video, file in files.items() if video.label == label and file not in present]
        if missing:
            video, file = missing[0]
            more = f" (and {len(missing) - 1} more of class {label})" if len(missing) > 1 else ""
            yield Problem(str(root / file), f"{video.source.name} names this video{more}, but it is not there")

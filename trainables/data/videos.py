"""Videos: the layouts of UCF101 and HMDB51, and a video's frames or stacks of flow fields at uniform positions.

Decoding needs OpenCV (the extra ``video``); catalogues do not.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainables.data.flow import STILL, estimator, opencv, quantise
from trainables.data.layouts.catalogue import Catalogue, DataError, Problem, layout
from trainables.hyperparameters import DataConfig

UCF101_LISTS = "ucfTrainTestlist"
HMDB51_LISTS = "testTrainMulti_7030_splits"
HMDB51_LIST = "_test_split1.txt"
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
    """UCF101 (Soomro et al. 2012): videos in ``UCF-101/<class>``, ``<class>`` or the folder itself, and the lists."""
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
    present = _present(root, "*.avi", "*/*.avi", "UCF-101/*/*.avi")
    forms: tuple[Callable[[_Listed], str], ...] = (
        lambda video: f"UCF-101/{video.label}/{video.name}",
        lambda video: f"{video.label}/{video.name}",
        lambda video: video.name,
    )
    form = max(forms, key=lambda form: sum(form(video) in present for video in listed))
    return _catalogue(root, names or _labels(listed), {video: form(video) for video in listed}, present, problems)


@layout(
    "hmdb51",
    title="HMDB51, split 1",
    medium="videos",
    source="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database: hmdb51_org.rar (one "
    "archive a class inside) and test_train_splits.rar, both unpacked into the folder",
    totals={"train": 3570, "test": 1530, "classes": 51},
)
def hmdb51(root: Path, config: DataConfig) -> Catalogue:
    """HMDB51 (Kuehne et al. 2011): videos in ``<class>``, and a list of each class; its unused videos are no items."""
    problems: list[Problem] = []
    lists = root / HMDB51_LISTS
    if not lists.is_dir():
        return _nothing(root, lists, "the folder of the split is not there: unpack the archive of the splits")
    present = _present(root, "*/*.avi")
    named = {path.name.removesuffix(HMDB51_LIST) for path in lists.glob(f"*{HMDB51_LIST}")}
    # A class is one that has a list or videos: so a list that is missing shows.
    names = sorted(named | {file.partition("/")[0] for file in present})
    listed = [
        _Listed(label, name, HMDB51_PARTS[part], path)
        for label in names
        for path in [lists / f"{label}{HMDB51_LIST}"]
        for name, part in _lines(path, r"(.+\.avi)\s+([012])", "some_video.avi 1", problems)
        if part in HMDB51_PARTS
    ]
    return _catalogue(root, names, {video: f"{video.label}/{video.name}" for video in listed}, present, problems)


def _nothing(root: Path, missing: Path, message: str) -> Catalogue:
    problem = Problem(str(missing), message) if root.is_dir() else Problem(str(root), "there is no such folder")
    return Catalogue((), (), torch.empty(0, dtype=torch.int64), problems=(problem,))


def _present(root: Path, *patterns: str) -> set[str]:
    return {path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)}


def _labels(listed: Iterable[_Listed]) -> list[str]:
    return sorted({video.label for video in listed})


def _lines(path: Path, pattern: str, example: str, problems: list[Problem]) -> list[tuple[str, ...]]:
    """The fields of each line of a list; a list that is not there, or a line unlike ``example``, is a problem."""
    try:
        # As Python decodes file names, so that a name with odd bytes is found all the same.
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        problems.append(Problem(str(path), f"the list cannot be read: {error.strerror}"))
        return []
    matches = {number: re.fullmatch(pattern, line.strip()) for number, line in enumerate(lines, 1) if line.strip()}
    odd = [number for number, match in matches.items() if match is None]
    if odd:
        more = f" (and {len(odd) - 1} more lines)" if len(odd) > 1 else ""
        problems.append(Problem(str(path), f"line {odd[0]}{more} should look like {example!r}: {lines[odd[0] - 1]!r}"))
    if not matches:
        problems.append(Problem(str(path), "the list is empty"))
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


def shape(config: DataConfig) -> tuple[int, int, int]:
    """Channels, height and width of one position: a frame, or a stack of flow fields (x and y of each)."""
    return 3 if config.modality == "rgb" else 2 * config.stack, config.size, config.size


def starts(frames: int, config: DataConfig) -> list[int]:
    """The frame at which each position starts, in a video of ``frames`` frames.

    A position needs 1 frame, or ``stack + 1`` for a stack of flow fields. The frames at which it can start are divided
    into ``positions`` equal spans, and each position starts at the middle of its span::

        starts[p] = floor((p + 0.5) * max(1, frames - needed + 1) / positions)
    """
    needed = 1 if config.modality == "rgb" else config.stack + 1
    choices = max(1, frames - needed + 1)
    return [(2 * position + 1) * choices // (2 * config.positions) for position in range(config.positions)]


def decode_item(path: Path, config: DataConfig) -> NDArray[np.uint8]:
    """What is seen of a video, ``uint8 (positions, channels, size, size)``: the short side resized, the centre cropped.

    - ``rgb``: a frame at each of the :func:`starts`.
    - ``flow``: at each of them a stack of the ``stack`` flow fields between consecutive frames, as x, y, x, y, ...
      (Simonyan and Zisserman 2014), computed on the resized frames and kept as :func:`~trainables.data.flow.quantise`
      says. A video with fewer than ``stack + 1`` frames repeats its last field; one with a single frame stands still.

    Raises:
        DataError: no frame could be read, or OpenCV is not installed.
    """
    with _one_thread():
        frames = _count(path)
        return _frames(path, frames, config) if config.modality == "rgb" else _stacks(path, frames, config)


def verify(path: Path) -> int:
    """Open a video and read its first frame; the number of frames that the file claims to have.

    Raises:
        DataError: no frame could be read, or OpenCV is not installed.
    """
    with _one_thread():
        for _ in _read(path, {0}):
            pass
        with _opened(path) as video:
            return max(1, int(video.get(opencv().CAP_PROP_FRAME_COUNT)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV in one thread: the caller runs as many processes as there are cores."""
    cv2 = opencv()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no frame could be read: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: no frame could be read: the file is empty")
    cv2 = opencv()
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not video.isOpened():
            raise DataError(f"{path}: no frame could be read: it is not a video, or broken")
        yield video
    finally:
        video.release()


def _count(path: Path) -> int:
    """Frames that can be read; the number in the file's header is often another."""
    with _opened(path) as video:
        frames = 0
        while video.grab():
            frames += 1
    if not frames:
        raise DataError(f"{path}: no frame could be read: it is not a video, or broken")
    return frames


def _read(path: Path, wanted: Collection[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The wanted frames with their numbers, ``uint8 (h, w, 3)`` in OpenCV's order of blue, green, red.

    Read from the first on, for seeking in an avi file is unreliable.
    """
    with _opened(path) as video:
        for number in range(max(wanted) + 1):
            if not video.grab():
                raise DataError(f"{path}: no frame could be read at frame {number}")
            if number in wanted:
                there, frame = video.retrieve()
                if not there:
                    raise DataError(f"{path}: frame {number} could not be decoded")
                yield number, frame


def _frames(path: Path, frames: int, config: DataConfig) -> NDArray[np.uint8]:
    cv2 = opencv()
    chosen = starts(frames, config)
    result = np.empty((config.positions, *shape(config)), np.uint8)
    for number, frame in _read(path, set(chosen)):
        image = _centre(_resized(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), config.size), config.size)
        result[np.equal(chosen, number)] = image.transpose(2, 0, 1)
    return result


def _stacks(path: Path, frames: int, config: DataConfig) -> NDArray[np.uint8]:
    """Every field, from frame k to frame k + 1, is computed once and written to all stacks that hold it."""
    result = np.full((config.positions, *shape(config)), STILL, np.uint8)
    if frames == 1:
        return result
    cv2 = opencv()
    compute = estimator(config.flow)
    held = np.minimum(np.add.outer(starts(frames, config), range(config.stack)), frames - 2)  # (positions, stack)
    wanted = {int(number) for number in (*held.flat, *(held + 1).flat)}
    before = np.empty(0, np.uint8)
    for number, frame in _read(path, wanted):
        grey = _resized(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), config.size)
        slots = np.argwhere(held == number - 1)
        if len(slots):
            field = quantise(_centre(compute(before, grey), config.size)).transpose(2, 0, 1)
            for position, place in slots:
                result[position, 2 * place : 2 * place + 2] = field
        before = grey
    return result


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The image with its short side resized to ``size`` pixels."""
    cv2 = opencv()
    height, width = image.shape[:2]
    scale = size / min(height, width)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized: NDArray[np.uint8] = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=how)
    return resized


def _centre(image: NDArray[Any], size: int) -> NDArray[Any]:
    top, left = ((side - size) // 2 for side in image.shape[:2])
    return image[top : top + size, left : left + size]

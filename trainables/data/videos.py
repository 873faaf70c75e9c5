"""Videos: frames, or stacks of flow fields, at uniform positions. Needs OpenCV (the extra ``video``)."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.flow import STILL, estimator, opencv, quantise
from trainables.data.layouts.catalogue import DataError
from trainables.settings import DataConfig

FEW, FEW_FRAMES = 0.05, 2
"""Share and number of frames that a sound file may lack of what its header states."""


def shape(config: DataConfig) -> tuple[int, int, int]:
    """Channels, height and width of one position: a frame, or a stack of flow fields (x and y of each)."""
    return {"rgb": 3, "grey": 1, "flow": 2 * config.stack}[config.modality], config.size, config.size


def starts(frames: int, config: DataConfig) -> list[int]:
    """The frame at which each position starts, in a video of ``frames`` frames.

    A position needs 1 frame, or ``stack + 1`` for a stack of flow fields. The frames at which it can start are divided
    into ``positions`` equal spans, and each position starts at the middle of its span::

        starts[p] = floor((p + 0.5) * max(1, frames - needed + 1) / positions)
    """
    needed = config.stack + 1 if config.modality == "flow" else 1
    choices = max(1, frames - needed + 1)
    return [(2 * position + 1) * choices // (2 * config.positions) for position in range(config.positions)]


def decode_item(path: Path, config: DataConfig) -> NDArray[np.uint8]:
    """What is seen of a video, ``uint8 (positions, channels, size, size)``: the short side resized, the centre cropped.

    - ``rgb`` and ``grey``: a frame at each of the :func:`starts`.
    - ``flow``: at each of them a stack of the ``stack`` flow fields between consecutive frames, as x, y, x, y, ...
      (Simonyan and Zisserman 2014), computed on the resized frames and kept as :func:`~trainables.data.flow.quantise`
      says. A video with fewer than ``stack + 1`` frames repeats its last field; one with a single frame stands still.

    Raises:
        DataError: no frame could be read, or OpenCV is not installed.
    """
    with _one_thread():
        frames = _count(path)
        return _stacks(path, frames, config) if config.modality == "flow" else _frames(path, frames, config)


def verify(path: Path) -> tuple[int, int]:
    """Read a video to its end; the number of its frames, and the one that its header states.

    Raises:
        DataError: no frame could be read, or far fewer than its header states, or OpenCV is not installed.
    """
    with _one_thread():
        return _counted(path)


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
    """Frames that can be read."""
    return _counted(path)[0]


def _counted(path: Path) -> tuple[int, int]:
    """Frames that can be read, and those that the file's header states, which may be a little off.

    Raises:
        DataError: there is none, or far fewer: the file must be cut or damaged.
    """
    with _opened(path) as video:
        claimed = int(video.get(opencv().CAP_PROP_FRAME_COUNT))
        frames = 0
        while video.grab():
            frames += 1
    if not frames:
        raise DataError(f"{path}: no frame could be read: it is not a video, or broken")
    if frames < min(claimed - FEW_FRAMES, claimed * (1 - FEW)):
        raise DataError(f"{path}: only {frames:,} of its {claimed:,} frames could be read: it is cut or damaged")
    return frames, claimed


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
    colours = cv2.COLOR_BGR2GRAY if config.modality == "grey" else cv2.COLOR_BGR2RGB
    result = np.empty((config.positions, *shape(config)), np.uint8)
    for number, frame in _read(path, set(chosen)):
        image = _centre(_resized(cv2.cvtColor(frame, colours), config.size), config.size)
        result[np.equal(chosen, number)] = np.atleast_3d(image).transpose(2, 0, 1)
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

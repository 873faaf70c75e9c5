"""Files decoded once a node into a memory-mapped array, which all trials of the node share through the page cache."""

import os
import shutil
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from trainables.data.layouts.catalogue import DataError, Problem
from trainables.processes import cores, end_with_parent, worker_context
from trainables.settings import DataConfig

Progress = Callable[[int, int], None]
"""Is called with the number of items done and of all items."""
Result = TypeVar("Result")
OnItem = Callable[[Path, DataConfig], Result]
"""What is done with an item's file; a function of a module, as it may be sent to another process."""
ORIENTATION = 0x0112
"""EXIF's tag for the way in which a camera was held."""
# These are the user's own files. Pillow refuses what has more than twice this number of pixels, as an attack.
Image.MAX_IMAGE_PIXELS = 2**29
AHEAD = 4
"""Files for each core that are under way before their results are asked for."""
AT_ONCE = 16
"""Files that a thread opens before it hands over their results."""
SHOWN = 10
"""Problems that an error lists; ``python -m study.data check`` lists all."""


def decode_image(path: Path, config: DataConfig) -> NDArray[np.uint8]:
    """An image as RGB ``uint8 (1, 3, size, size)``: the largest centred square, resized with antialiasing (bilinear).

    That is the short side resized and the centre cropped, in one step. 16-bit grey is brought from its whole range to 8
    bits, and what is transparent lies on white. With ``modality`` ``grey``, its luminance ``uint8 (1, 1, size, size)``
    (ITU-R BT.601).

    Raises:
        OSError: the file is no image, or is truncated.
        DataError: it holds numbers of unknown range.
    """
    with Image.open(path) as image:
        image.draft("RGB", (config.size, config.size))  # a far larger JPEG is decoded at 1/2, 1/4 or 1/8
        return fitted(_upright(image, config), config)


def _upright(image: Image.Image, config: DataConfig) -> Image.Image:
    return ImageOps.exif_transpose(image) if config.orientation == "exif" else image


def fitted(image: Image.Image, config: DataConfig) -> NDArray[np.uint8]:
    """An opened image, as :func:`decode_image` returns it.

    Raises:
        OSError: its file is truncated.
        DataError: it holds numbers of unknown range.
    """
    square = ImageOps.fit(_rgb(image), (config.size, config.size), method=Image.Resampling.BILINEAR)
    if config.modality == "grey":
        return np.asarray(square.convert("L"))[np.newaxis, np.newaxis]
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1)[np.newaxis])


def remarks(path: Path, config: DataConfig) -> tuple[str, ...]:
    """What there is to report of an image that can be read; :func:`decode_image` tells whether it can.

    Raises:
        OSError: the file is no image, or is truncated.
        DataError: it holds numbers of unknown range.
    """
    with Image.open(path) as image:
        found = []
        if image.getexif().get(ORIENTATION, 1) != 1:
            done = (
                "and are turned"
                if config.orientation == "exif"
                else "and stay as stored (orientation: exif turns them)"
            )
            found.append(f"have an EXIF orientation {done}")
        if image.mode.startswith("I;16"):
            found.append("hold 16-bit grey, brought to 8 bits from its whole range")
        if image.has_transparency_data:
            found.append("have transparency, and are laid on white")
        if min(image.size) < config.size:
            found.append(f"are smaller than {config.size} pixels (size), and are enlarged")
        image.draft("RGB", (config.size, config.size))
        image.load()
        # What follows cannot fail for the others.
        if image.mode not in ("RGB", "L") or config.orientation == "exif":
            fitted(_upright(image, config), config)
    return tuple(found)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) * 255 // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "32-bit whole numbers" if image.mode == "I" else "floating-point numbers"
        raise DataError(f"it holds {kind}, whose black and white are unknown: store it with 8 or 16 bits")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


@dataclass(frozen=True)
class Decoding:
    """What to decode, and where to."""

    folder: Path
    files: tuple[str, ...]
    config: DataConfig
    decode_item: OnItem[NDArray[np.uint8]]
    """Gives ``uint8 (positions, channels, size, size)`` for each file."""
    item_shape: tuple[int, int, int, int]
    array: Path
    """The file of the array, ``uint8 (n * positions, channels, size, size)``; its name holds all that decides it."""
    processes: bool = False
    """Decode in processes instead of threads: for what holds Python's lock for long."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the whole array."""
        positions, *rest = self.item_shape
        return (len(self.files) * positions, *rest)  # type: ignore[return-value]

    @property
    def bytes(self) -> int:
        """Size of the pixels."""
        return int(np.prod(self.shape))

    def is_done(self) -> bool:
        """Whether the array is there: it appears whole or not at all."""
        return self.array.is_file()

    def open(self, progress: Progress | None = None) -> Tensor:
        """The array, mapped into memory and not to be written to; decoded first if that is not done yet.

        Whoever comes while another process decodes waits for it.

        Raises:
            DataError: files cannot be read (all are tried, so that one error names them), or the disk is too small.
        """
        if not self.is_done():
            with _writing_to(self.array.parent), FileLock(f"{self.array}.lock"):
                if not self.is_done():
                    self._decode(progress)
        return _mapped(self.array)

    def _decode(self, progress: Progress | None) -> None:
        part = self.array.with_name(self.array.name + ".part")
        part.unlink(missing_ok=True)  # left by a process that was killed: it had the lock, which is ours now
        self._check_space()
        problems: list[Problem] = []
        try:
            with part.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": self.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for item in for_each(self.folder, self.files, self.config, self.decode_item, progress, self.processes):
                    if isinstance(item, Problem):
                        problems.append(item)
                    elif not problems:
                        assert item.shape == self.item_shape and item.dtype == np.uint8
                        file.write(item.data)
                file.flush()
                os.fsync(file.fileno())
            if problems:
                raise DataError(listing(f"{len(problems)} of {len(self.files)} files cannot be read", problems))
            part.replace(self.array)
        finally:
            part.unlink(missing_ok=True)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.array.parent).free
        if free < self.bytes:
            raise DataError(
                f"decoding {self.folder} takes {gigabytes(self.bytes)}, but {self.array.parent} has {gigabytes(free)} "
                "free: make room, or set data.cache to a folder on a larger disk"
            )


def _mapped(path: Path) -> Tensor:
    with warnings.catch_warnings():
        # Nobody writes to it. Mapped for writing in private, it would count as memory, and a large one be refused.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Make the folder; report what goes wrong with writing as text."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            f"decoded pixels cannot be written to {folder}: {error.strerror or error}; set data.cache to another folder"
        ) from error


def for_each(
    folder: Path,
    files: Iterable[str],
    config: DataConfig,
    on_item: OnItem[Result],
    progress: Progress | None = None,
    processes: bool = False,
) -> Iterator[Result | Problem]:
    """What ``on_item`` returns for each file, in order, in parallel; a :class:`Problem` if it fails.

    Pillow lets go of Python's lock while it decodes, so that for images threads are no slower than
    processes (470 and 280 images/s of 500 x 375 pixels on two cores, start included).
    """
    paths = [folder / file for file in files]
    results = _each_survived if processes else _each
    for done, result in enumerate(results(paths, config, on_item), start=1):
        yield result
        if progress:
            progress(done, len(paths))


def _each(paths: Sequence[Path], config: DataConfig, on_item: OnItem[Result]) -> Iterator[Result | Problem]:
    # Of small images, handing over a result takes as long as opening the next one.
    size = max(1, min(AT_ONCE, len(paths) // (AHEAD * cores())))
    parts = [paths[start : start + size] for start in range(0, len(paths), size)]

    def all_of(part: Sequence[Path]) -> list[Result | Problem]:
        return [attempt(on_item, path, config) for path in part]

    with ThreadPoolExecutor(cores()) as executor:
        for results in _in_order((executor.submit(all_of, part) for part in parts), AHEAD * cores()):
            yield from results


def _each_survived(paths: Sequence[Path], config: DataConfig, on_item: OnItem[Result]) -> Iterator[Result | Problem]:
    """In processes. A file that brings its process down is a problem of its own, and the others continue."""
    context, done = worker_context(__name__), 0
    while done < len(paths):
        try:
            with ProcessPoolExecutor(cores(), context, initializer=end_with_parent) as executor:
                calls = (executor.submit(attempt, on_item, path, config) for path in paths[done:])
                for result in _in_order(calls, AHEAD * cores()):
                    yield result
                    done += 1
        except BrokenProcessPool:
            # It was one of those under way, and takes none of the others with it if each is tried alone.
            for path in paths[done : done + AHEAD * cores()]:
                yield _alone(context, on_item, path, config)
                done += 1


def _alone(context: ForkServerContext, on_item: OnItem[Result], path: Path, config: DataConfig) -> Result | Problem:
    """What ``on_item`` returns for a file in a process of its own."""
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, on_item, path, config), daemon=True)
    process.start()
    theirs.close()
    try:
        result: Result | Problem = ours.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Problem(str(path), f"the process that decoded it ended with {how}: the file is damaged, or too large")
    process.join()
    return result


def _answer(connection: Connection, on_item: OnItem[Result], path: Path, config: DataConfig) -> None:
    connection.send(attempt(on_item, path, config))


def _in_order(calls: Iterator[Future[Result]], ahead: int) -> Iterator[Result]:
    """The results of the calls; only ``ahead`` of them are started before they are asked for."""
    waiting = deque(islice(calls, ahead))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(islice(calls, 1))
            yield result
    finally:
        for call in waiting:
            call.cancel()


def attempt(on_item: OnItem[Result], path: Path, config: DataConfig) -> Result | Problem:
    """What ``on_item`` returns for a file, or what is wrong with the file."""
    try:
        return on_item(path, config)
    except DataError as error:
        return Problem(str(path), str(error).removeprefix(f"{path}: "))
    except Exception as error:  # a decoder may raise anything for a broken file, and the other files are to be tried
        return Problem(str(path), _why_unreadable(path, error))


def _why_unreadable(path: Path, error: Exception) -> str:
    if not path.is_file():
        return "the file is not there"
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is no image, or broken"
    if isinstance(error, OSError):
        return f"cannot be read: {str(error).replace(repr(str(path)), 'the file')}"
    return f"cannot be read: {type(error).__name__}: {error}"


def listing(heading: str, problems: list[Problem]) -> str:
    """A heading and the first problems, one a line."""
    lines = [f"{heading}:", *(f"  {problem.path}: {problem.message}" for problem in problems[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more; `python -m study.data check PRESET` lists all")
    return "\n".join(lines)


def gigabytes(size: int) -> str:
    """A size as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"

"""Miniature UCF101 and HMDB51: short real videos of a moving shape, whose class is the direction in which it moves.

Only the motion tells the class. A textured disc moves at a steady speed before a textured background that stands still,
and both textures, the disc's size, its speed and its start are drawn for each clip. Starts are uniform and what leaves
the frame comes in again at the other side, so the disc's position is uniform in every frame of every class, and a
single frame says nothing. Mirroring exchanges left and right: train on these clips without mirrored views.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up_left": (-1, -1),
    "up_right": (1, -1),
    "down_left": (-1, 1),
    "down_right": (1, 1),
}
"""Pixels to the right and down; the first so many are the classes."""


def make_ucf101(
    root: Path,
    *,
    classes: int = 4,
    groups: Sequence[int] = (1, 2, 8, 9, 10, 11),
    clips: int = 2,
    seed: int = 0,
    side: int = 64,
    videos: str = "UCF-101/{label}",
) -> list[str]:
    """Write a UCF101 whose groups 1 to 7 are the test part, as in the official split 1; the names of its classes.

    ``clips`` is the number of clips a class and group, ``videos`` the folder of a class: ``UCF-101/{label}``,
    ``{label}`` or ``.``.
    """
    labels = ["Move" + name.title().replace("_", "") for name in list(DIRECTIONS)[:classes]]
    train: list[str] = []
    test: list[str] = []
    for number, (label, direction) in enumerate(zip(labels, DIRECTIONS.values(), strict=False), 1):
        for group in groups:
            for clip in range(1, clips + 1):
                name = f"v_{label}_g{group:02d}_c{clip:02d}.avi"
                rng = np.random.default_rng([seed, 101, number, group, clip])
                write(root / videos.format(label=label) / name, draw(rng, direction, side))
                (test if group <= 7 else train).append(f"{label}/{name}" + (f" {number}" if group > 7 else ""))
    lists = {
        "classInd.txt": [f"{number} {label}" for number, label in enumerate(labels, 1)],
        "trainlist01.txt": train,
        "testlist01.txt": test,
    }
    for name, lines in lists.items():
        _write_list(root / "ucfTrainTestlist" / name, lines)
    return labels


def make_hmdb51(
    root: Path,
    *,
    classes: int = 4,
    train: int = 8,
    test: int = 4,
    unused: int = 1,
    seed: int = 0,
    side: int = 64,
) -> list[str]:
    """Write an HMDB51 with so many training, test and unused clips a class; the names of its classes."""
    labels = [f"move_{name}" for name in list(DIRECTIONS)[:classes]]
    parts = [1] * train + [2] * test + [0] * unused
    for number, (label, direction) in enumerate(zip(labels, DIRECTIONS.values(), strict=False), 1):
        lines = []
        for clip, part in enumerate(parts):
            name = f"Shapes_{label}_f_nm_np1_fr_med_{clip}.avi"
            rng = np.random.default_rng([seed, 51, number, clip])
            write(root / label / name, draw(rng, direction, side))
            lines.append(f"{name} {part} ")
        _write_list(root / "testTrainMulti_7030_splits" / f"{label}_test_split1.txt", lines)
    return sorted(labels)


def draw(rng: np.random.Generator, direction: tuple[int, int], side: int = 64) -> list[NDArray[np.uint8]]:
    """14 to 20 frames ``uint8 (side, side, 3)`` of a disc that moves 2 or 3 pixels a frame in the direction.

    Square, so that the central square of a video holds the disc's whole way.
    """
    background, surface = texture(rng, side, side), texture(rng, side, side)
    rows, columns = np.mgrid[:side, :side] - side // 2
    disc = np.hypot(rows, columns)[..., None] < rng.uniform(0.2, 0.3) * side
    start, speed = rng.integers(side, size=2), rng.integers(2, 4)
    frames = []
    for time in range(rng.integers(14, 21)):
        right, down = start + time * speed * np.asarray(direction)
        moved = [np.roll(layer, (down, right), axis=(0, 1)) for layer in (disc, surface)]
        frames.append(np.where(moved[0], moved[1], background))
    return frames


def texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Random colours ``uint8 (height, width, 3)`` in spots of about four pixels."""
    noise = rng.integers(0, 256, ((height + 3) // 4, (width + 3) // 4, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def write(path: Path, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Write frames ``uint8 (height, width, 3)``, in OpenCV's order of colours, as an avi file of JPEG images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (width, height))
    for frame in frames:
        video.write(frame)
    video.release()


def _write_list(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

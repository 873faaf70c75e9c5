"""Optical flow: how it is computed, how it is kept in bytes, and what mirroring does to it."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainables.data.layouts.catalogue import DataError
from trainables.settings import FlowMethod, Modality

LIMIT = 20.0
"""Displacements are clipped to this many pixels a frame either way, as in the flow of Wang et al. 2016 (TSN)."""
STILL = 128
"""Byte of no displacement: 127.5 rounded up, so that 128 and its mirror image 127 both mean still."""

Estimator = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]


def opencv() -> ModuleType:
    """OpenCV, imported only if a video is read.

    Raises:
        DataError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            "videos are read with OpenCV, which is not installed: pip install -c constraints.txt -e '.[video]'"
        ) from error
    return cv2


def estimator(method: FlowMethod) -> Estimator:
    """A function of two grey images ``uint8 (h, w)`` that returns the flow from the first to the second.

    The flow is ``float32 (h, w, 2)``, displacements in pixels to the right and down: what lies at ``(x, y)`` in the
    first image lies at ``(x, y) + flow[y, x]`` in the second. OpenCV's parameters are left as they are.
    """
    cv2 = opencv()
    if method == "tvl1":
        algorithm = cv2.optflow.DualTVL1OpticalFlow_create()
    else:
        algorithm = cv2.DISOpticalFlow_create(cv2.DISOpticalFlow_PRESET_MEDIUM)

    def compute(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        flow: NDArray[np.float32] = algorithm.calc(first, second, None)
        return flow

    return compute


def quantise(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Displacements in pixels as bytes: ``round((clip(d, -20, 20) + 20) * 255 / 40)``, so a step is 0.157 pixels."""
    levels: NDArray[np.float32] = np.rint((np.clip(flow, -LIMIT, LIMIT) + LIMIT) * (255 / (2 * LIMIT)))
    return levels.astype(np.uint8)


def displacement(quantised: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The displacements in pixels that bytes stand for: ``v * 40 / 255 - 20``."""
    return quantised.astype(np.float32) * np.float32(2 * LIMIT / 255) - np.float32(LIMIT)


def mirror(images: Tensor, modality: Modality) -> Tensor:
    """Images ``uint8 (..., channels, h, w)`` as seen in a mirror: left and right exchanged.

    What moved to the right moves to the left in a mirror, so the x-displacements of flow (channels 0, 2, 4, ...) change
    their sign as well: ``v`` becomes ``255 - v``. To undo it, mirror again.
    """
    mirrored = images.flip(-1)
    if modality == "flow":
        mirrored[..., 0::2, :, :] = 255 - mirrored[..., 0::2, :, :]
    return mirrored

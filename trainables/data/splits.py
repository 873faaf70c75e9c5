"""Training, validation and test images: the official parts if a data set has them, else drawn by the seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainables.data.imageset import ImageSet
from trainables.seeds import derive
from trainables.settings import DataConfig


@dataclass(frozen=True)
class Split:
    """Items of training, validation and test, ``int64``, each ascending."""

    train: Tensor
    val: Tensor
    test: Tensor


def split(content: ImageSet, config: DataConfig, seed: int) -> Split:
    """Split each class: a test part that is the same for every seed, then training and validation by the seed.

    Where the data set has an official test part, that is the test part; an official validation part is taken whole, and
    if there is none, validation is drawn from the official training part. With ``retrain_on_validation``,
    validation images are training images as well.

    Raises:
        ValueError: a class has too few images for the split.
    """
    if content.is_empty:
        nothing = torch.empty(0, dtype=torch.int64)
        return Split(nothing, nothing, nothing)
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    classes, labels = len(content.class_names), content.labels.numpy()
    members_of = _by_class(np.arange(len(labels)), labels, classes)
    official = {name: _by_class(items.numpy(), labels, classes) for name, items in content.official.items()}
    for label, members in enumerate(members_of):
        own = {name: by_class[label] for name, by_class in official.items()}
        if "test" not in own:
            fixed = np.random.Generator(np.random.PCG64(derive(0, "test split", label))).permutation(members)
            test = round(len(members) * config.test_share)
            own = {"test": fixed[:test], "train": fixed[test:]}
        drawn = np.random.Generator(np.random.PCG64(derive(seed, "split", label))).permutation(own["train"])
        train, val = _sizes(len(drawn), config, content.class_names[label], has_val="val" in own)
        parts["test"].append(own["test"])
        parts["train"].append(drawn[:train])
        parts["val"].append(own["val"] if "val" in own else drawn[train : train + val])
    if config.retrain_on_validation:
        parts["train"] += parts["val"]
    joined = {name: torch.from_numpy(np.sort(np.concatenate(arrays))) for name, arrays in parts.items()}
    return Split(**joined)


def _by_class(items: np.ndarray, labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """The items of each class, in their order."""
    own = labels[items]
    order = np.argsort(own, kind="stable")
    return np.split(items[order], np.searchsorted(own[order], np.arange(1, classes)))


def _sizes(available: int, config: DataConfig, label: str, *, has_val: bool) -> tuple[int, int]:
    if has_val:
        val = 0
        train = available if config.train_per_class is None else config.train_per_class
        enough = 1 <= train <= available
    else:
        if config.train_per_class is None and config.val_per_class is None:
            raise ValueError("give train_per_class or val_per_class: the other part takes what is left")
        val = config.val_per_class if config.val_per_class is not None else available - (config.train_per_class or 0)
        train = config.train_per_class if config.train_per_class is not None else available - val
        enough = train >= 1 and val >= 1 and train + val <= available
    if not enough:
        raise ValueError(
            f"class {label} of {config.name} has {available} images outside the test set: "
            f"too few for {config.train_per_class or 'some'} training and {config.val_per_class or 'some'} validation"
        )
    return train, val

"""Augmentations of training images, by torchvision, each drawn from a seed of its own.

Torchvision draws from PyTorch's generator on the CPU, which is lent to it and given back. An image's augmentation is a
function of the stage's seed, the epoch and the image, a batch's mixture one of the seed, the epoch and the batch: so
comparisons are paired, and a resumed training sees what an undisturbed one sees.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainables.hyperparameters import TrainConfig
from trainables.seeds import derive, drawing
from trainables.settings import DataConfig

if TYPE_CHECKING:
    from torchvision.transforms import v2

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images and labels ``int64 (n,)`` to mixtures of each image with another one, and of labels ``(n, classes)``."""


def of_images(config: DataConfig, input_size: tuple[int, int]) -> "v2.Transform":
    """What is done to each image ``uint8 (channels, height, width)``; with ``views=resized`` the whole one is seen."""
    # Imported here, as it takes a second, which most studies need not wait for.
    from torchvision.transforms import v2

    steps: list[v2.Transform] = []
    if config.views == "resized":
        steps.append(v2.RandomResizedCrop(input_size, scale=config.scale, antialias=True))
        steps.append(v2.RandomHorizontalFlip(config.hflip))
    if config.auto_augment == "trivial":
        steps.append(v2.TrivialAugmentWide())
    elif config.auto_augment == "rand":
        steps.append(v2.RandAugment())
    return v2.Compose(steps)


def augmented(transform: "v2.Transform", images: Tensor, seeds: Tensor) -> Tensor:
    """The images ``uint8 (n, channels, height, width)`` augmented one by one, each by its seed."""
    results = []
    with drawing(0):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            results.append(transform(image))
    return torch.stack(results)


class Mixing:
    """Mixup (Zhang et al. 2018), CutMix (Yun et al. 2019) or, drawn a batch, one of them."""

    def __init__(self, config: TrainConfig, classes: int) -> None:
        from torchvision.transforms import v2

        mixtures = ((v2.MixUp, config.mixup_alpha), (v2.CutMix, config.cutmix_alpha))
        self.transform = v2.RandomChoice([kind(alpha=alpha, num_classes=classes) for kind, alpha in mixtures if alpha])

    def of_batch(self, seed: int, epoch: int, batch: int) -> Mix:
        """How a batch is mixed: the same for its images, and for those whose knowledge guides them."""

        def mix(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            with drawing(derive(seed, "mix", epoch, batch)):
                mixed: tuple[Tensor, Tensor] = self.transform(images, labels)
            return mixed

        return mix

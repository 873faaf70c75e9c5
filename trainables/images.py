"""The images of a stage: which view of each is seen when, cropped, mirrored and normalised on the stage's device.

What is seen is decided on the CPU, so that nothing has to be asked of a GPU, which would have to finish its work first.
A *view* of an item is one of its positions (a video's frames or stacks; still images have one) and a crop of the
network's input size. The centre crop and the classic ten crops can be enumerated, so the reference's knowledge of them
can be computed once; free random crops can't.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trainables.augmentation import augmented, of_images
from trainables.data import ArrayPixels, ImageSet, Pixels, Split
from trainables.data.flow import mirror
from trainables.devices import fetched_ahead, moved
from trainables.seeds import generator
from trainables.settings import DataConfig

CROPS = {"centre": 1, "ten": 10}
RESIDENT_BYTES = 2 * 2**30
"""Pixels up to this size are kept on the accelerator, larger ones travel batch by batch."""
EVALUATION_BATCH = 500
EVALUATION_PIXELS = 4_000_000
"""Most pixels of an evaluation batch, a channel: bounds the memory that activations take."""


@dataclass(frozen=True)
class Views:
    """The view in which each item is seen during an epoch."""

    placement: Tensor
    """``int64 (n, 5)``: position, top, left, mirrored (0 or 1), and the seed of its augmentation (0: none)."""
    index: Tensor | None
    """Number of the view among those that can be enumerated, ``int64 (n,)``; None for free crops."""


@dataclass(frozen=True)
class Images:
    """A data set split and ready for a network."""

    content: ImageSet
    pixels: Pixels
    labels: Tensor
    """``int64 (n,)``; on the CPU, like all items."""
    train: Tensor
    val: Tensor
    test: Tensor
    config: DataConfig
    input_size: tuple[int, int]
    """Height and width of the network's input."""
    device: torch.device

    @classmethod
    def open(
        cls, content: ImageSet, split: Split, config: DataConfig, input_size: tuple[int, int], device: torch.device
    ) -> "Images":
        """Open the pixels, and bring them to the device if they are small."""
        pixels = content.pixels()
        if device.type != "cpu" and isinstance(pixels, ArrayPixels) and pixels.array.nbytes <= RESIDENT_BYTES:
            pixels = ArrayPixels(pixels.array.to(device))
        return cls(content, pixels, content.labels, split.train, split.val, split.test, config, input_size, device)

    @property
    def resident(self) -> bool:
        """Whether the pixels are on the device."""
        return isinstance(self.pixels, ArrayPixels) and self.pixels.array.device.type == self.device.type

    def targets(self, items: Tensor) -> Tensor:
        """Labels of the items, on the device."""
        return moved(self.labels[items], self.device)

    def placements(self, crops: str) -> Tensor:
        """All views that can be enumerated, ``int64 (positions * crops, 5)``; view = position * crops + crop.

        ``ten``: the four corners and the centre, then the same mirrored (Krizhevsky et al. 2012).
        """
        (height, width), (_, rows, columns) = self.input_size, self.content.shape
        bottom, right = rows - height, columns - width
        centre = (bottom // 2, right // 2)
        places = [centre]
        if crops == "ten":
            places = [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]
        mirrorings = (0, 1) if crops == "ten" else (0,)
        views = [
            (position, top, left, mirrored, 0)
            for position in range(self.content.positions)
            for mirrored in mirrorings
            for top, left in places
        ]
        return torch.tensor(views)

    def views(self, seed: int, epoch: int) -> Views:
        """The training views of an epoch, a function of seed and epoch; the same item, the same view in every net."""
        draw = generator(seed, "views", epoch)
        items = len(self.labels)
        if self.config.views in CROPS:
            table = self.placements(self.config.views)
            index = torch.randint(len(table), (items,), generator=draw)
            placement = table[index]
        else:
            (height, width), (_, rows, columns) = self.input_size, self.content.shape
            free = (rows - height + 1, columns - width + 1, 2) if self.config.views == "random" else (1, 1, 1)
            limits = (self.content.positions, *free, 1)
            placement = torch.stack([torch.randint(limit, (items,), generator=draw) for limit in limits], dim=1)
        if self.config.views == "resized" or self.config.auto_augment is not None:
            placement[:, 4] = torch.randint(1, 2**62, (items,), generator=generator(seed, "augment", epoch))
        return Views(placement, None if self.config.is_free else index)

    def stream(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Normalised images, ``float32 (len(items), channels, height, width)`` on the device, for each piece in order.

        Args:
            pieces: items ``(k,)`` and the placements ``(k, 5)`` in which they are seen, or one placement ``(5,)``.
        """
        wanted = [(items, placement.expand(len(items), 5)) for items, placement in pieces]
        rows = [items * self.content.positions + placement[:, 0] for items, placement in wanted if len(items)]
        pixels = iter(self.pixels.stream(rows))
        if not self.resident:
            pixels = fetched_ahead(pixels, self.device)
        none = torch.empty(0, *self.content.shape, dtype=torch.uint8, device=self.device)
        for items, placement in wanted:
            # A worker without a share of a batch takes part with no image.
            yield self._normalised(self._seen(next(pixels) if len(items) else none, placement))

    def evaluation_batches(self, items: Tensor) -> Iterator[Tensor]:
        """The items in parts that an evaluation takes at once."""
        height, width = self.input_size
        yield from items.split(max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width))))

    def centred(self, items: Tensor) -> Iterator[Tensor]:
        """Normalised centre crops of the items, at all their positions, in evaluation batches."""
        views = self.placements("centre")
        yield from self.stream((part, view) for part in self.evaluation_batches(items) for view in views)

    def _seen(self, images: Tensor, placement: Tensor) -> Tensor:
        seeds = placement[:, 4]
        if not seeds.any():
            return self._cropped(images, placement)
        views = images if self.config.views == "resized" else self._cropped(images, placement)
        return augmented(self._augmentation, views, seeds)

    @cached_property
    def _augmentation(self) -> Any:
        return of_images(self.config, self.input_size)

    def _cropped(self, images: Tensor, placement: Tensor) -> Tensor:
        height, width = self.input_size
        placement = placement[:, :4]
        first = placement[0] if len(placement) else placement.new_zeros(4)
        if bool((placement == first).all()):
            _, top, left, mirrored = first.tolist()
            cropped = images[:, :, top : top + height, left : left + width]
            return mirror(cropped, self.config.modality) if mirrored else cropped
        if images.device.type != "cpu":
            cropped = self._gathered(images, placement)
            mirrored = moved(placement[:, 3].bool(), images.device)[:, None, None, None]
            return torch.where(mirrored, mirror(cropped, self.config.modality), cropped)
        # Copying image by image takes a fortieth of the time of a gather by indices, and mirroring so a twelfth.
        cropped = images.new_empty((len(images), images.shape[1], height, width))
        for out, image, (_, top, left, mirrored) in zip(cropped, images, placement.tolist(), strict=True):
            view = image[:, top : top + height, left : left + width]
            out.copy_(mirror(view, self.config.modality) if mirrored else view)
        return cropped

    def _gathered(self, images: Tensor, placement: Tensor) -> Tensor:
        height, width = self.input_size
        places = moved(placement, images.device)
        rows = places[:, 1, None] + torch.arange(height, device=images.device)
        columns = places[:, 2, None] + torch.arange(width, device=images.device)
        batch = torch.arange(len(images), device=images.device)[:, None, None, None]
        channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        return images[batch, channels, rows[:, None, :, None], columns[:, None, None, :]]

    def _normalised(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self._mean).div_(self._std)

    @cached_property
    def _mean(self) -> Tensor | float:
        return self._channels(self.config.mean)

    @cached_property
    def _std(self) -> Tensor | float:
        return self._channels(self.config.std)

    def _channels(self, value: float | tuple[float, ...]) -> Tensor | float:
        return moved(torch.tensor(value), self.device)[:, None, None] if isinstance(value, tuple) else value

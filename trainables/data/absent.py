"""The data of a source of which only its pretrained net is known: none."""

import torch

from trainables.data.imageset import ArrayPixels, ImageSet, data_set
from trainables.data.places import Places
from trainables.settings import DataConfig

NONE = "none"


@data_set(NONE)
def none(config: DataConfig, places: Places) -> ImageSet:
    """No images and no classes."""
    pixels = ArrayPixels(torch.empty(0, 0, 0, 0, dtype=torch.uint8))
    labels = torch.empty(0, dtype=torch.int64)
    return ImageSet("no images", labels, (), (0, 0, 0), "none", pixels=lambda: pixels, reads=frozenset())

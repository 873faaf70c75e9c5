"""Features: what a frozen net passes to its output layer, computed once for all linear probes of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from torch import Tensor

from trainables.devices import moved
from trainables.images import Images


@dataclass(frozen=True)
class Features(Images):
    """Images as a net's output layer sees them."""

    features: Tensor
    """Outputs of layer N - 1 for all training views of all images, ``float32 (n, views, ...)``."""

    @classmethod
    def of(cls, images: Images, features: Tensor) -> "Features":
        """The features of a stage's images."""
        return cls(**{field.name: getattr(images, field.name) for field in fields(Images)}, features=features)

    def stream(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Features ``(len(items), ...)`` on the device, for each piece in order; of views that can be enumerated."""
        views = self.placements(self.config.views)
        for items, placement in pieces:
            seen = placement.expand(len(items), views.shape[1])
            view = (seen[:, None] == views).all(2).int().argmax(1)
            yield moved(self.features[items, view], self.device)

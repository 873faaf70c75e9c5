"""Where the tensors of a stage live while it runs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from trainables.data import ArrayPixels
from trainables.images import Images
from trainables.networks import Dropout
from trainables.training import Training

Places = dict[str, set[str]]
"""Types of the devices that tensors were on, by what they were."""


@contextmanager
def watched() -> Iterator[Places]:
    """Note where tensors are until the context ends."""
    seen: defaultdict[str, set[str]] = defaultdict(set)

    def saw(what: str, tensors: Iterable[Any]) -> None:
        seen[what].update(tensor.device.type for tensor in tensors if isinstance(tensor, Tensor))

    def after_forward(module: nn.Module, inputs: Any, output: Any) -> None:
        saw("weights", module.parameters(recurse=False))
        saw("activations", [output])

    train, stream, noise = Training.train, Images.stream, Dropout.noise

    def watched_train(self: Training, epoch: int) -> None:
        train(self, epoch)
        saw("masks", (mask for _, mask in self.masked))
        saw("gradients", (parameter.grad for parameter in self.net.parameters()))
        saw("momentum", (value for state in self.optimizer.state.values() for value in state.values()))

    def watched_stream(self: Images, pieces: Any) -> Iterator[Tensor]:
        assert isinstance(self.pixels, ArrayPixels)
        saw("pixels", [self.pixels.array])
        return stream(self, pieces)

    def watched_noise(self: Dropout, x: Tensor, images: int) -> Tensor:
        drawn = noise(self, x, images)
        saw("noise", [drawn])
        return drawn

    hook = register_module_forward_hook(after_forward)
    try:
        with (
            patch.object(Training, "train", watched_train),
            patch.object(Images, "stream", watched_stream),
            patch.object(Dropout, "noise", watched_noise),
        ):
            yield seen
    finally:
        hook.remove()

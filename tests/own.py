"""Networks of a user's own, named ``tests.own:rgb`` and so on in presets: small ones for 24 x 24 frames and flow."""

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from trainables import architectures
from trainables.data import ImageSet, Places
from trainables.data.imageset import in_memory
from trainables.networks import Dropout, LayeredNet, WeightedLayer
from trainables.settings import DataConfig

STACK = 5
REFUSED = "NCCL error: invalid usage: Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1e000"
"""What NCCL says where two workers are on one GPU: the worker's own error, not a lost connection."""


class FailsInSecondWorker(nn.Identity):
    """Raises an error in the second worker of a group, while the first one waits for its gradients."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            raise RuntimeError(REFUSED)
        return images


def refused_in_second_worker(classes: int) -> LayeredNet:
    """The project's, which no group can train."""
    net = architectures.small_alexnet(classes)
    net.weighted("conv1").before.append(FailsInSecondWorker())
    return net


def rgb(classes: int) -> LayeredNet:
    """For frames."""
    return _small(3, classes)


def flow(classes: int) -> LayeredNet:
    """For stacks of five flow fields."""
    return _small(2 * STACK, classes)


class Block(nn.Module):
    """A residual block with normalisation and stochastic depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.depth = StochasticDepth(0.2, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depth(self.second(torch.relu(self.first(x))))
        return torch.relu(x + y)


class Residual(nn.Module):
    """A small ResNet for the digits, an ordinary module: seven connections in four layers."""

    input_shape = (1, 24, 24)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x)).mean((2, 3))
        scores: torch.Tensor = self.head(self.drop(x))
        return scores


def residual(classes: int) -> nn.Module:
    """The small ResNet."""
    return Residual(classes)


def _small(channels: int, classes: int) -> LayeredNet:
    def pooled() -> list[nn.Module]:
        return [nn.ReLU(), nn.MaxPool2d(2)]

    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(channels, 16, 5, padding=2), after=pooled())),
            ("conv2", WeightedLayer(nn.Conv2d(16, 32, 3, padding=1), after=pooled())),
            ("fc3", WeightedLayer(nn.Linear(32 * 36, 64), before=[nn.Flatten()], after=[nn.ReLU(), Dropout()])),
            ("fc4", WeightedLayer(nn.Linear(64, 64), after=[nn.ReLU(), Dropout()])),
            ("fc5", WeightedLayer(nn.Linear(64, classes))),
        ],
        input_shape=(channels, 24, 24),
    )


def coloured(config: DataConfig, places: Places) -> ImageSet:
    """Eight images made in colour."""
    images = torch.arange(8 * 3 * 24 * 24).remainder(256).to(torch.uint8).reshape(8, 3, 24, 24)
    return in_memory("coloured", images, torch.arange(8).remainder(2), ("a", "b"), "coloured")


def no_data(config: DataConfig, places: Places) -> list[int]:
    """No data set."""
    return []

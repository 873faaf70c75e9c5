"""The networks of the paper, and a small one of their shape.

To add one, write a function that lists its layers and register it with :func:`network`.
"""

from collections.abc import Callable

from torch import nn

from trainables.layers import Dropout, LayeredNet, WeightedLayer

NETWORKS: dict[str, Callable[[int], LayeredNet]] = {}
ALIASES = {"caffenet": "bvlc_alexnet"}
"""Names of earlier versions, which presets and stored results may have."""


def network(name: str) -> Callable[[Callable[[int], LayeredNet]], Callable[[int], LayeredNet]]:
    """Register a function ``classes -> LayeredNet`` under a name."""

    def register(build: Callable[[int], LayeredNet]) -> Callable[[int], LayeredNet]:
        NETWORKS[name] = build
        return build

    return register


def _relu(*more: nn.Module) -> list[nn.Module]:
    return [nn.ReLU(), *more]


@network("small_alexnet")
def small_alexnet(classes: int) -> LayeredNet:
    """AlexNet's shape for 1 x 24 x 24 images: five convolutions and three inner products that hold most weights."""
    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(1, 16, 5, padding=2), after=_relu(nn.MaxPool2d(2)))),
            ("conv2", WeightedLayer(nn.Conv2d(16, 32, 3, padding=1), after=_relu(nn.MaxPool2d(2)))),
            ("conv3", WeightedLayer(nn.Conv2d(32, 48, 3, padding=1), after=_relu())),
            ("conv4", WeightedLayer(nn.Conv2d(48, 48, 3, padding=1), after=_relu())),
            ("conv5", WeightedLayer(nn.Conv2d(48, 64, 3, padding=1), after=_relu(nn.MaxPool2d(2)))),
            ("fc6", WeightedLayer(nn.Linear(64 * 3 * 3, 256), before=[nn.Flatten()], after=_relu(Dropout()))),
            ("fc7", WeightedLayer(nn.Linear(256, 256), after=_relu(Dropout()))),
            ("fc8", WeightedLayer(nn.Linear(256, classes))),
        ],
        input_shape=(1, 24, 24),
    )


@network("tiny_alexnet")
def tiny_alexnet(classes: int) -> LayeredNet:
    """AlexNet's shape for 1 x 8 x 8 images; three inner products hold most of its weights."""
    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(1, 16, 3, padding=1), after=_relu(nn.MaxPool2d(2)))),
            ("conv2", WeightedLayer(nn.Conv2d(16, 32, 3, padding=1), after=_relu(nn.MaxPool2d(2)))),
            ("conv3", WeightedLayer(nn.Conv2d(32, 32, 3, padding=1), after=_relu())),
            ("conv4", WeightedLayer(nn.Conv2d(32, 32, 3, padding=1), after=_relu())),
            ("conv5", WeightedLayer(nn.Conv2d(32, 64, 3, padding=1), after=_relu())),
            ("fc6", WeightedLayer(nn.Linear(64 * 2 * 2, 192), before=[nn.Flatten()], after=_relu(Dropout()))),
            ("fc7", WeightedLayer(nn.Linear(192, 192), after=_relu(Dropout()))),
            ("fc8", WeightedLayer(nn.Linear(192, classes))),
        ],
        input_shape=(1, 8, 8),
    )


@network("bvlc_alexnet")
def bvlc_alexnet(classes: int) -> LayeredNet:
    """AlexNet as in the Caffe model zoo: grouped convolutions, and local response normalisation before pooling.

    (The zoo's CaffeNet, bvlc_reference_caffenet, is another net: it normalises after pooling.)
    """

    def normalise() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(3, 96, 11, stride=4), after=_relu(normalise(), pool()))),
            ("conv2", WeightedLayer(nn.Conv2d(96, 256, 5, padding=2, groups=2), after=_relu(normalise(), pool()))),
            ("conv3", WeightedLayer(nn.Conv2d(256, 384, 3, padding=1), after=_relu())),
            ("conv4", WeightedLayer(nn.Conv2d(384, 384, 3, padding=1, groups=2), after=_relu())),
            ("conv5", WeightedLayer(nn.Conv2d(384, 256, 3, padding=1, groups=2), after=_relu(pool()))),
            ("fc6", WeightedLayer(nn.Linear(256 * 6 * 6, 4096), before=[nn.Flatten()], after=_relu(Dropout()))),
            ("fc7", WeightedLayer(nn.Linear(4096, 4096), after=_relu(Dropout()))),
            ("fc8", WeightedLayer(nn.Linear(4096, classes))),
        ],
        input_shape=(3, 227, 227),
    )


@network("alexnet")
def alexnet(classes: int) -> LayeredNet:
    """AlexNet as in torchvision: no groups, no normalisation, dropout before fc6 and fc7."""
    pool = [nn.MaxPool2d(3, stride=2), nn.AdaptiveAvgPool2d((6, 6))]
    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(3, 64, 11, stride=4, padding=2), after=_relu(nn.MaxPool2d(3, stride=2)))),
            ("conv2", WeightedLayer(nn.Conv2d(64, 192, 5, padding=2), after=_relu(nn.MaxPool2d(3, stride=2)))),
            ("conv3", WeightedLayer(nn.Conv2d(192, 384, 3, padding=1), after=_relu())),
            ("conv4", WeightedLayer(nn.Conv2d(384, 256, 3, padding=1), after=_relu())),
            ("conv5", WeightedLayer(nn.Conv2d(256, 256, 3, padding=1), after=_relu(*pool))),
            ("fc6", WeightedLayer(nn.Linear(256 * 6 * 6, 4096), before=[nn.Flatten(), Dropout()], after=_relu())),
            ("fc7", WeightedLayer(nn.Linear(4096, 4096), before=[Dropout()], after=_relu())),
            ("fc8", WeightedLayer(nn.Linear(4096, classes))),
        ],
        input_shape=(3, 224, 224),
    )


@network("vgg16")
def vgg16(classes: int) -> LayeredNet:
    """VGG-16 as in torchvision (configuration D of Simonyan and Zisserman 2014)."""
    return _vgg16(classes, channels=3)


@network("vgg16_flow")
def vgg16_flow(classes: int) -> LayeredNet:
    """VGG-16 for stacks of ten flow fields, 20 channels: the temporal stream of Simonyan and Zisserman 2014."""
    return _vgg16(classes, channels=20)


def _vgg16(classes: int, channels: int) -> LayeredNet:
    layers: list[tuple[str, WeightedLayer]] = []
    input_shape = (channels, 224, 224)
    for block, (width, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], start=1):
        for position in range(1, depth + 1):
            after = _relu(nn.MaxPool2d(2)) if position == depth else _relu()
            layers.append(
                (f"conv{block}_{position}", WeightedLayer(nn.Conv2d(channels, width, 3, padding=1), after=after))
            )
            channels = width
    return LayeredNet(
        [
            *layers,
            ("fc6", WeightedLayer(nn.Linear(512 * 7 * 7, 4096), before=[nn.Flatten()], after=_relu(Dropout()))),
            ("fc7", WeightedLayer(nn.Linear(4096, 4096), after=_relu(Dropout()))),
            ("fc8", WeightedLayer(nn.Linear(4096, classes))),
        ],
        input_shape=input_shape,
    )


def efficientnet_lite0(classes: int) -> nn.Module:
    """EfficientNet-Lite0 as the package efficientnet-lite-pytorch has it, with the names of its ImageNet weights.

    Without its stochastic depth, which could not be seeded. It takes images of any size from 32 x 32.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        remedy = "pip install -c constraints.txt -e '.[solar]'"
        raise KeyError(f"efficientnet_lite0 needs the package efficientnet-lite-pytorch: {remedy}") from error
    name = "efficientnet-lite0"
    net: nn.Module = EfficientNet.from_name(name, num_classes=classes, drop_connect_rate=0.0)
    return net

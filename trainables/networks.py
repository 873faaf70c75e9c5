"""Networks as ordered lists of weighted layers, so that N_m, N_e, masks and neuron removal need no per-net code.

A weighted layer is a convolution or inner product with what comes before it (flatten, dropout) and after it (ReLU,
pooling, normalisation). Layer k of the paper is the k-th weighted layer; N is the output layer. To add a network,
write one function that lists its layers and register it with :func:`network`; or leave it in a module of one's own,
importable on every worker, and name it ``module:function`` (see :func:`find`).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from trainables.importing import imported, source_digest
from trainables.seeds import derive, generator

NETWORKS: dict[str, Callable[[int], "LayeredNet"]] = {}
ALIASES = {"caffenet": "bvlc_alexnet"}
"""Names of earlier versions, which presets and stored results may have."""


class Dropout(nn.Module):
    """Inverted dropout with a generator of its own.

    The noise of one layer depends on its seed alone. So nets that differ elsewhere (an extra branch, say) see the
    same noise, which pairs their comparison, and no global generator is touched. Where a batch is seen in parts, by one
    worker or several, noise is drawn for the whole of it and each part takes its rows: so the parts change nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0
        self.generator: torch.Generator | None = None
        self.images: int | None = None
        self.rows: Tensor | None = None
        self._noise: Tensor | None = None

    def start_batch(self, images: int) -> None:
        """A batch of so many images begins, of which ``select`` will name parts."""
        self.images, self.rows, self._noise = images, None, None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, zeroed with probability ``rate`` and scaled by ``1 / (1 - rate)`` while training."""
        if not self.training or self.rate == 0.0:
            return x
        if self.rows is None:
            noise = self.noise(x, len(x))
        else:
            if self._noise is None:
                assert self.images is not None
                self._noise = self.noise(x, self.images)
            noise = self._noise[self.rows.to(x.device)]
        return (x * noise).to(x.dtype)

    def noise(self, x: Tensor, images: int) -> Tensor:
        """Fresh factors ``float32 (images, ...)`` for rows like those of ``x``: in bfloat16, 1 / 0.7 would be 1.43."""
        if self.generator is None:
            raise RuntimeError("dropout was not seeded: call LayeredNet.seed_dropout first")
        keep = 1.0 - self.rate
        factors = torch.empty((images, *x.shape[1:]), device=x.device)
        return factors.bernoulli_(keep, generator=self.generator).div_(keep)


class WeightedLayer(nn.Module):
    """One weighted layer: what comes before its weights, the weights, and what follows."""

    def __init__(
        self, op: nn.Conv2d | nn.Linear, *, before: Iterable[nn.Module] = (), after: Iterable[nn.Module] = ()
    ) -> None:
        super().__init__()
        self.before = nn.Sequential(*before)
        self.op = op
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the layer, activation and pooling included."""
        result: Tensor = self.after(self.op(self.before(x)))
        return result


class LayeredNet(nn.Module):
    """A chain of named weighted layers: a whole net, or its top part as an extra branch."""

    def __init__(self, layers: Sequence[tuple[str, WeightedLayer]], input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(dict(layers))
        self.input_shape = input_shape

    @property
    def names(self) -> list[str]:
        """Names of the weighted layers, bottom first."""
        return list(self.layers)

    @property
    def classes(self) -> int:
        """Width of the output layer."""
        return int(self.op(self.names[-1]).weight.shape[0])

    def layer(self, name: str) -> WeightedLayer:
        """The named layer."""
        layer = self.layers[name]
        assert isinstance(layer, WeightedLayer)
        return layer

    def op(self, name: str) -> nn.Conv2d | nn.Linear:
        """The convolution or inner product of the named layer."""
        return self.layer(name).op

    def inner_products(self) -> list[str]:
        """Names of the inner-product layers, the output layer last."""
        return [name for name in self.names if isinstance(self.op(name), nn.Linear)]

    def weights(self) -> dict[str, Tensor]:
        """Connection weights by layer, without biases."""
        return {name: self.op(name).weight for name in self.names}

    def forward(self, x: Tensor) -> Tensor:
        """Pre-softmax activations ``(images, classes)``."""
        return self.run(x, 0, len(self.layers))

    def run(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Output of layer ``stop`` for ``x``, the output of layer ``start`` (0 is the input image)."""
        for name in self.names[start:stop]:
            x = self.layers[name](x)
        return x

    def initialise(self, names: Iterable[str], seed: int) -> None:
        """Draw the named layers anew: Kaiming normal weights (He et al. 2015), zero biases, one seed a layer."""
        for name in names:
            op = self.op(name)
            gain: Literal["linear", "relu"] = "linear" if name == self.names[-1] else "relu"
            # Drawn on the CPU: another device refuses its generator, and would draw other weights from its own.
            drawn = torch.empty(op.weight.shape, dtype=op.weight.dtype, device="cpu")
            nn.init.kaiming_normal_(drawn, nonlinearity=gain, generator=generator(seed, "initialise", name))
            with torch.no_grad():
                op.weight.copy_(drawn)
            if op.bias is not None:
                nn.init.zeros_(op.bias)

    def replace_output(self, classes: int) -> None:
        """Give the net an output layer of another width, with weights left undefined."""
        old = self.op(self.names[-1])
        assert isinstance(old, nn.Linear)
        self.layer(self.names[-1]).op = nn.Linear(old.in_features, classes, device=old.weight.device)

    def dropouts(self) -> dict[str, list[Dropout]]:
        """Dropout modules by the layer that they belong to."""
        return {
            name: [module for module in self.layer(name).modules() if isinstance(module, Dropout)]
            for name in self.names
        }

    def set_dropout(self, rate: float, kept: dict[str, float] | None = None) -> None:
        """Set every dropout rate; where a layer keeps only a share of its connections, scale after Han et al. 2015.

        ``D_r = D_o * sqrt(C_ir / C_io)``, with ``kept[layer] = C_ir / C_io``; layers not named keep everything.
        """
        for name, modules in self.dropouts().items():
            for module in modules:
                module.rate = rate * sqrt((kept or {}).get(name, 1.0))

    def seed_dropout(self, seed: int, *path: str | int) -> None:
        """Give each dropout module a fresh generator for the epoch (or other purpose) named by ``path``."""
        device = next(self.parameters()).device
        for name, modules in self.dropouts().items():
            for position, module in enumerate(modules):
                module.generator = torch.Generator(device=device)
                module.generator.manual_seed(derive(seed, "dropout", name, position, *path))


def network(name: str) -> Callable[[Callable[[int], LayeredNet]], Callable[[int], LayeredNet]]:
    """Register a function ``classes -> LayeredNet`` under a name."""

    def register(build: Callable[[int], LayeredNet]) -> Callable[[int], LayeredNet]:
        NETWORKS[name] = build
        return build

    return register


def canonical(name: str) -> str:
    """The name that a network has now."""
    return ALIASES.get(name, name)


def find(name: str) -> Callable[[int], LayeredNet]:
    """The function ``classes -> LayeredNet`` of a registered name or of ``module:function``.

    Raises:
        KeyError: no such network; the first argument says what is wrong, for people.
    """
    name = canonical(name)
    if ":" in name:
        return imported(name)
    if name not in NETWORKS:
        raise KeyError(f"no network {name!r}: give {', '.join(NETWORKS)}, or module:function for one of your own")
    return NETWORKS[name]


def build(name: str, classes: int) -> LayeredNet:
    """The named network with ``classes`` outputs, its weights undefined until initialised or loaded.

    Raises:
        KeyError: no such network.
        TypeError, ValueError: a network of the user's own is not what the project can train; the message says why.
    """
    return _outline(name, classes).to_empty(device="cpu")


def connection_counts(name: str, classes: int) -> dict[str, int]:
    """Connections (weights, no biases) of each layer of the unpruned network; allocates nothing."""
    return {layer: weight.numel() for layer, weight in _known_outline(name, classes).weights().items()}


def inner_product_widths(name: str) -> dict[str, int]:
    """Neurons of each inner-product layer but the output layer; allocates nothing."""
    net = _known_outline(name, 1)
    return {layer: int(net.op(layer).weight.shape[0]) for layer in net.inner_products()[:-1]}


def input_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that the network takes; allocates nothing."""
    return _known_outline(name, 1).input_shape


def output_positions(net: LayeredNet) -> dict[str, int]:
    """How often each connection of a layer is used for one image: height times width of its output; 1 without these."""
    positions: dict[str, int] = {}

    def seen(layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda op, _, output: positions.update({layer: output[0, 0].numel()})

    hooks = [net.op(layer).register_forward_hook(seen(layer)) for layer in net.names]
    was_training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, *net.input_shape, device=next(net.parameters()).device))
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    return positions


def _outline(name: str, classes: int) -> LayeredNet:
    """The named network on the meta device: shapes without memory."""
    with torch.device("meta"):
        net = find(name)(classes)
    _check(name, net, classes)
    return net


@cache
def digest(name: str) -> str:
    """SHA-256 of what a network is: its modules, their types, the shapes of its weights and of its input.

    Of a network of the user's own (``module:function``), its source text too. Weights do not count.

    Raises:
        KeyError: no such network.
        TypeError, ValueError: the project cannot train it.
    """
    net = _known_outline(name, 1)
    outline = {
        "input": net.input_shape,
        "modules": [(path, f"{type(m).__module__}.{type(m).__qualname__}") for path, m in net.named_modules()],
        "shapes": [(path, list(tensor.shape)) for path, tensor in net.state_dict().items()],
        "source": source_digest(name) if ":" in name else None,
    }
    return hashlib.sha256(json.dumps(outline).encode()).hexdigest()


@cache
def _known_outline(name: str, classes: int) -> LayeredNet:
    """The same, made once: not to be changed."""
    return _outline(name, classes)


def _check(name: str, net: object, classes: int) -> None:
    """Refuse a network that would be trained, stored or pruned wrongly."""
    if not isinstance(net, LayeredNet):
        raise TypeError(f"{name} gives a {type(net).__name__}: it must give a trainables.networks.LayeredNet")
    last = net.names[-1]
    if not isinstance(net.op(last), nn.Linear) or net.classes != classes:
        raise ValueError(f"{name}({classes}) must end in an nn.Linear with {classes} outputs: its {last} does not")
    known = {id(parameter) for layer in net.names for parameter in net.op(layer).parameters()}
    strange = [key for key, tensor in net.state_dict(keep_vars=True).items() if id(tensor) not in known]
    if strange:
        where = "outside its layers' convolutions and inner products, where nothing initialises or stores them"
        raise ValueError(f"{name} holds {', '.join(strange)} {where}")


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

"""What networks are made of: named layers in a chain, so that N_m, N_e, masks and removal need no code of their own.

Layer k of the paper is the k-th layer of the chain; N is the output layer. A layer of the paper's nets is one
convolution or inner product with what comes before it (flatten, dropout) and after it (ReLU, pooling, normalisation);
one of any other network is what lies between two moments at which a single tensor carries everything
(:mod:`trainables.tracing`), a residual block, say. *Connections* are the weights of convolutions, inner products and
attention, without biases; masks go by their names.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainables.seeds import derive, generator


class Home(NamedTuple):
    """Where a tensor of a net is."""

    module: nn.Module
    attribute: str

    @property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        tensor = getattr(self.module, self.attribute)
        assert isinstance(tensor, Tensor)
        return tensor


class Dropout(nn.Module):
    """Inverted dropout with a generator of its own.

    The noise of one layer depends only on its seed. So nets that differ elsewhere (an extra branch, say) see the
    same noise, which pairs their comparison, and no global generator is touched. Where a batch is seen in parts, by one
    worker or several, noise is drawn for the whole of it and each part takes its rows: so the parts change nothing.
    """

    def __init__(self, p: float = 0.5) -> None:
        """A dropout that is off until its rate is set; ``p`` is the rate that the network's authors chose."""
        super().__init__()
        self.p = p
        self.rate = 0.0
        self.generator: torch.Generator | None = None
        self.images: int | None = None
        self.rows: Tensor | None = None
        self._noise: Tensor | None = None

    def set_rate(self, rate: float | None, factor: float) -> None:
        """Set the rate, times a factor; None is the network's own. What its authors have turned off stays off."""
        self.rate = factor * (self.p if rate is None or self.p == 0 else rate)

    def start_batch(self, images: int) -> None:
        """A batch begins, of this many images, of which ``select`` will name parts."""
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
        factors = torch.empty((images, *self.drawn_for(x)), device=x.device)
        return factors.bernoulli_(keep, generator=self.generator).div_(keep)

    def drawn_for(self, x: Tensor) -> tuple[int, ...]:
        """Shape of one image's noise: a factor for each of its values."""
        return tuple(x.shape[1:])


class ChannelDropout(Dropout):
    """The same for whole channels (Tompson et al. 2015), as ``nn.Dropout2d``."""

    def drawn_for(self, x: Tensor) -> tuple[int, ...]:
        """One factor per channel."""
        return (x.shape[1], *[1] * (x.ndim - 2))


class StochasticDepth(Dropout):
    """The same for a whole branch of a residual block (Huang et al. 2016), always at the network's own rate."""

    def set_rate(self, rate: float | None, factor: float) -> None:
        """Keep the network's own rate: the rate asked for is that of dropout."""
        self.rate = self.p

    def drawn_for(self, x: Tensor) -> tuple[int, ...]:
        """One factor per image."""
        return (1,) * (x.ndim - 1)


class Layer(nn.Module):
    """One layer of a chain: it takes a tensor and returns one, and has connections."""

    @abstractmethod
    def connections(self, name: str) -> dict[str, Home]:
        """Where its connection weights are, by their names in the net; ``name`` is the layer's."""

    @abstractmethod
    def tensors(self, name: str) -> dict[str, Home]:
        """Where all its parameters and buffers are, by the names under which they are stored."""

    @property
    @abstractmethod
    def is_inner_product(self) -> bool:
        """Whether it is one inner product, with nothing around it that mixes neurons."""


class WeightedLayer(Layer):
    """One convolution or inner product: what comes before its weights, the weights, and what follows."""

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

    def connections(self, name: str) -> dict[str, Home]:
        """Its one weight, by the layer's own name."""
        return {name: Home(self.op, "weight")}

    def tensors(self, name: str) -> dict[str, Home]:
        """Weight and bias."""
        return {f"{name}.{kind}": Home(self.op, kind) for kind, _ in self.op.named_parameters()}

    @property
    def is_inner_product(self) -> bool:
        """Whether the layer is an inner product."""
        return isinstance(self.op, nn.Linear)


class LayeredNet(nn.Module):
    """A chain of named layers: a whole net, or its top part as an extra branch."""

    def __init__(self, layers: Sequence[tuple[str, Layer]], input_shape: tuple[int, int, int]) -> None:
        super().__init__()
        # Names of torch's modules have no dots.
        self.layers = nn.ModuleDict({name.replace(".", "/"): layer for name, layer in layers})
        self.input_shape = input_shape

    @property
    def names(self) -> list[str]:
        """Names of the layers, bottom first."""
        return [key.replace("/", ".") for key in self.layers]

    @property
    def is_traced(self) -> bool:
        """Whether its layers were found by tracing, and not written down."""
        return not all(isinstance(layer, WeightedLayer) for layer in self.layers.values())

    @property
    def classes(self) -> int:
        """Width of the output layer."""
        return len(list(self.weights().values())[-1])

    def layer(self, name: str) -> Layer:
        """The named layer."""
        layer = self.layers[name.replace(".", "/")]
        assert isinstance(layer, Layer)
        return layer

    def weighted(self, name: str) -> WeightedLayer:
        """The named layer of one of the paper's nets, whose layers are written down."""
        layer = self.layer(name)
        assert isinstance(layer, WeightedLayer)
        return layer

    def connections(self) -> dict[str, Home]:
        """Where each connection weight is, by its name: the layer's if the layer has only one."""
        return {key: home for name in self.names for key, home in self.layer(name).connections(name).items()}

    def weights(self) -> dict[str, Tensor]:
        """Connection weights by their names, bottom first, without biases."""
        return {name: home.tensor for name, home in self.connections().items()}

    def tensors(self) -> dict[str, Home]:
        """Where each parameter and buffer is, by the name under which it is stored."""
        return {key: home for name in self.names for key, home in self.layer(name).tensors(name).items()}

    def op(self, name: str) -> nn.Conv2d | nn.Linear:
        """The convolution or inner product that has the named connections."""
        op = self.connections()[name].module
        assert isinstance(op, nn.Conv2d | nn.Linear)
        return op

    def inner_products(self) -> list[str]:
        """Names of the connections that are inner products'."""
        return [name for name, home in self.connections().items() if isinstance(home.module, nn.Linear)]

    def hidden_inner_products(self) -> list[str]:
        """Names of the layers that are inner products and feed one: their neurons can be removed."""
        inner = {name: self.layer(name).is_inner_product for name in self.names}
        return [lower for lower, upper in pairwise(self.names) if inner[lower] and inner[upper]]

    def part(self, start: int, stop: int) -> "LayeredNet":
        """The layers above layer ``start``, up to layer ``stop``, shared with this net."""
        return LayeredNet([(name, self.layer(name)) for name in self.names[start:stop]], self.input_shape)

    def top(self, layers: int) -> "LayeredNet":
        """So many of the top layers, shared with this net."""
        return self.part(len(self.names) - layers, len(self.names))

    def under(self, top: "LayeredNet") -> "LayeredNet":
        """The layers of this part of a net, and those of its top above them; shared with both."""
        layers = [(name, part.layer(name)) for part in (self, top) for name in part.names]
        return LayeredNet(layers, self.input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Pre-softmax activations ``(images, classes)``."""
        return self.run(x, 0, len(self.layers))

    def run(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Output of layer ``stop`` for ``x``, the output of layer ``start`` (0 is the input image)."""
        for name in self.names[start:stop]:
            x = self.layer(name)(x)
        return x

    def initialise(self, names: Iterable[str], seed: int) -> None:
        """Initialise the named layers again: Kaiming normal weights (He et al. 2015), zero biases, one seed a layer."""
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

    def dropouts(self) -> dict[str, list[Dropout]]:
        """Dropout modules by the layer that they belong to."""
        return {
            name: [module for module in self.layer(name).modules() if isinstance(module, Dropout)]
            for name in self.names
        }

    def set_dropout(self, rate: float | None, kept: dict[str, float] | None = None) -> None:
        """Set every dropout rate, None to the network's own; scaled after Han et al. 2015 in pruned layers.

        There it is ``D_r = D_o * sqrt(C_ir / C_io)``, with ``kept[layer] = C_ir / C_io``; layers not named keep all.
        """
        for name, modules in self.dropouts().items():
            for module in modules:
                module.set_rate(rate, sqrt((kept or {}).get(name, 1.0)))

    def seed_dropout(self, seed: int, *path: str | int) -> None:
        """Give each dropout module a fresh generator for the epoch (or other purpose) named by ``path``."""
        device = next(self.parameters()).device
        for name, modules in self.dropouts().items():
            for position, module in enumerate(modules):
                module.generator = torch.Generator(device=device)
                module.generator.manual_seed(derive(seed, "dropout", name, position, *path))


def output_positions(net: LayeredNet) -> dict[str, int]:
    """How often each connection is used for one image: positions (or tokens) that its operation computes."""
    positions: dict[str, int] = {}

    def seen(name: str, width: int) -> Callable[[nn.Module, object, Any], None]:
        def count(_: nn.Module, __: object, output: Any) -> None:
            values = output[0] if isinstance(output, tuple) else output
            positions[name] = positions.get(name, 0) + values.numel() // width

        return count

    # Attention uses the weights of its last inner product without calling it.
    callers: dict[nn.Module, nn.Module] = {m.out_proj: m for m in net.modules() if isinstance(m, nn.MultiheadAttention)}
    hooks = []
    for name, home in net.connections().items():
        caller = callers.get(home.module, home.module)
        width = caller.embed_dim if isinstance(caller, nn.MultiheadAttention) else len(home.tensor)
        hooks.append(caller.register_forward_hook(seen(name, width)))
    was_training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, *net.input_shape, device=next(net.parameters()).device))
    net.train(was_training)
    for hook in hooks:
        hook.remove()
    return positions

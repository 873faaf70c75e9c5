"""Networks by their names: the paper's, those of torchvision and timm, and a user's own.

A name is one of :data:`trainables.architectures.NETWORKS`, ``torchvision:resnet18``, ``timm:convnext_atto`` or
``package.module:function``, a function of yours that takes the number of classes and returns an ``nn.Module``. After
a question mark come settings: ``input``, the shape of the images, and arguments of the function, as in
``timm:vit_tiny_patch16_224?input=1x24x24&img_size=24&in_chans=1``.
"""

import hashlib
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import torch
from torch import nn

from trainables import objects
from trainables.architectures import ALIASES, NETWORKS
from trainables.layers import Dropout, LayeredNet, WeightedLayer, output_positions
from trainables.seeds import derive, drawing
from trainables.suggestions import did_you_mean
from trainables.yaml_text import YamlError, read_yaml

__all__ = ["NETWORKS", "Dropout", "LayeredNet", "WeightedLayer", "output_positions"]

LIBRARIES = ("torchvision", "timm")


class _Name(NamedTuple):
    """A network's name in its parts."""

    library: str | None
    function: str
    settings: dict[str, Any]
    input_shape: tuple[int, int, int] | None


def canonical(name: str) -> str:
    """The name that a network has now."""
    return ALIASES.get(name, name)


def find(name: str) -> Callable[[int], nn.Module]:
    """The function ``classes -> nn.Module`` of a network's name.

    Raises:
        KeyError: no such network; the first argument states what is wrong.
    """
    parts = _parsed(name)
    if parts.library is not None:
        return _of_library(parts)
    if ":" in parts.function:
        function = objects.find(parts.function)
        return partial(function, **parts.settings) if parts.settings else function
    if parts.function not in NETWORKS:
        ways = "torchvision:NAME, timm:NAME, or module:function for one of your own"
        raise KeyError(f"no network {name!r}: give {', '.join(NETWORKS)}, {ways}")
    return NETWORKS[parts.function]


def is_own(name: str) -> bool:
    """Whether a network comes from code of the user's own."""
    return ":" in name and _parsed(name).library is None


def build(name: str, classes: int) -> LayeredNet:
    """The named network with ``classes`` outputs, its weights to be initialised or loaded.

    Raises:
        KeyError: no such network.
        TypeError, ValueError: a network is not what the project can train; the message states why.
    """
    if _is_written_down(name):
        return _outline(name, classes).to_empty(device="cpu")
    return _made(name, classes, seed=0)


def fresh(name: str, classes: int, seed: int, top: int | None = None) -> LayeredNet:
    """The named network as it starts, the seed deciding how; ``top`` asks for this many of its top layers only.

    The paper's nets get Kaiming normal weights (He et al. 2015), one seed a layer; others start as their own
    constructors have it.
    """
    if _is_written_down(name):
        net = _outline(name, classes)
        net = (net if top is None else net.top(top)).to_empty(device="cpu")
        net.initialise(net.names, seed)
        return net
    net = _made(name, classes, seed)
    return net if top is None else net.top(top)


@cache
def outline(name: str, classes: int) -> LayeredNet:
    """The named network on the meta device, shapes without memory; made once, and not to be changed.

    Raises:
        KeyError: no such network.
        TypeError, ValueError: a network is not what the project can train; the message states why.
    """
    return _outline(name, classes)


def layer_names(name: str) -> list[str]:
    """Names of the network's layers, bottom first; N is their number."""
    return outline(name, 2).names


def connection_counts(name: str, classes: int) -> dict[str, int]:
    """Connections (weights, no biases) of each layer of the unpruned network."""
    net, counts = outline(name, classes), weight_counts(name, classes)
    return {layer: sum(counts[weight] for weight in net.layer(layer).connections(layer)) for layer in net.names}


def weight_counts(name: str, classes: int) -> dict[str, int]:
    """Connections of each weight of the unpruned network; most networks have several weights in a layer."""
    return {weight: tensor.numel() for weight, tensor in outline(name, classes).weights().items()}


def dense_bytes(name: str, classes: int) -> int:
    """Size of the unpruned network's parameters in float32."""
    return 4 * sum(parameter.numel() for parameter in outline(name, classes).parameters())


def inner_product_widths(name: str) -> dict[str, int]:
    """Neurons of each inner product whose neurons can be removed; none if there is no hidden one."""
    net = outline(name, 2)
    return {layer: len(net.op(layer).weight) for layer in net.hidden_inner_products()}


def input_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that the network takes."""
    return outline(name, 2).input_shape


def normalises_batches(name: str) -> bool:
    """Whether an image's output in training depends on the other images of its batch, as with BatchNorm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in outline(name, 2).modules())


def problem(name: str) -> str | None:
    """Why the network cannot be used, as text; None if it can."""
    try:
        examine(name)
    except (KeyError, TypeError, ValueError) as error:
        return f"{error.args[0]}{did_you_mean(name, NETWORKS, before='; ')}"
    return None


@cache
def examine(name: str) -> None:
    """Make sure that the network can be used: that in layers it computes what it does whole, and that it can be seeded.

    Raises:
        KeyError: no such network; the first argument states what is wrong.
        TypeError, ValueError: it is not what the project can train; the message states why.
    """
    if outline(name, 2) and _is_written_down(name):
        return
    whole = _constructed(name, 2, seed=0)
    net = _cut(name, whole)
    x = torch.rand(2, *net.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.allclose(net.eval()(x), whole.eval()(x), rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"{name}: its layers return another output than the module as a whole: it cannot be traced"
            )
    net.train()
    net.set_dropout(None)
    net.seed_dropout(0)
    for layer in net.names:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            x = net.layer(layer)(x)
            drawn = not torch.equal(before, torch.get_rng_state())
        if drawn:
            remedy = "give dropout modules of its own, or a rate of 0"
            raise ValueError(f"{name}: its {layer} draws random numbers that cannot be seeded: {remedy}")


@cache
def digest(name: str) -> str:
    """SHA-256 of what a network is: its modules, their types, the shapes of its weights and of its input.

    Of a network of the user's own (``module:function``), its source text too. Weights do not count.

    Raises:
        KeyError: no such network.
        TypeError, ValueError: the project cannot train it.
    """
    net = outline(name, 1 if _is_written_down(name) else 2)
    content: dict[str, object] = {
        "input": net.input_shape,
        "modules": [(path, _class_path(module)) for path, module in net.named_modules()],
        "shapes": [(path, list(tensor.shape)) for path, tensor in net.state_dict().items()],
        "source": objects.source_digest(_parsed(name).function) if is_own(name) else None,
    }
    if programs := [layer.code for layer in net.modules() if isinstance(layer, torch.fx.GraphModule)]:
        content["programs"] = programs
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _class_path(module: nn.Module) -> str:
    # Where these classes were when keys of today's version were first made.
    home = type(module).__module__.replace("trainables.layers", "trainables.networks")
    return f"{home}.{type(module).__qualname__}"


def _parsed(name: str) -> _Name:
    head, _, query = canonical(name).partition("?")
    library, colon, function = head.partition(":")
    settings = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        try:
            settings[key] = read_yaml(value)
        except YamlError as error:
            said = " ".join(str(error).split())
            raise KeyError(
                f"the network's {key} is not valid YAML ({said}): give a number, a word or [a, list]"
            ) from None
    shape = settings.pop("input", None)
    try:
        sizes = tuple(int(size) for size in str(shape).split("x")) if shape is not None else None
    except ValueError:
        sizes = ()
    if sizes is not None and len(sizes) != 3:
        raise KeyError(f"{name!r}: input is {shape}: give channels, height and width, such as input=3x224x224")
    if colon and library in LIBRARIES:
        return _Name(library, function, settings, sizes)
    return _Name(None, head, settings, sizes)


def _of_library(name: _Name) -> Callable[[int], nn.Module]:
    if name.library == "torchvision":
        # Imported here, as it takes more than a second, which the paper's nets need not wait for.
        from torchvision import models

        known = models.list_models(models)
        if name.function not in known:
            raise KeyError(
                f"torchvision has no classifier {name.function!r}{did_you_mean(name.function, known, 3, ': ')}"
            )
        return lambda classes: models.get_model(name.function, num_classes=classes, **name.settings)
    try:
        import timm
    except ImportError as error:
        raise KeyError(
            f"timm:{name.function} needs the package timm: pip install -c constraints.txt -e '.[timm]'"
        ) from error
    if not timm.is_model(name.function):
        question = did_you_mean(name.function, timm.list_models(), 3, before=": ")
        raise KeyError(f"timm has no model {name.function!r}{question}")
    return lambda classes: timm.create_model(name.function, num_classes=classes, **name.settings)


def _input_shape(name: str, net: nn.Module) -> tuple[int, int, int]:
    """What the name states, else what the network states of itself."""
    parts = _parsed(name)
    if parts.input_shape is not None:
        return parts.input_shape
    if parts.library == "torchvision":
        from torchvision import models

        crop = models.get_model_weights(parts.function).DEFAULT.transforms().crop_size
        return (3, crop[0], crop[0])
    if parts.library == "timm":
        said = getattr(net, "pretrained_cfg", {}).get("input_size")
    else:
        said = getattr(net, "input_shape", getattr(objects.find(parts.function), "input_shape", None))
    if said is None:
        remedy = "give it an attribute input_shape, or append, for example, ?input=3x224x224"
        raise ValueError(f"{name} does not state what images it takes: {remedy}")
    channels, height, width = said
    return (channels, height, width)


def _made(name: str, classes: int, seed: int) -> LayeredNet:
    """A network as its constructor initialises it, in layers."""
    net = _constructed(name, classes, seed)
    return net if isinstance(net, LayeredNet) else _cut(name, net)


def _constructed(name: str, classes: int, seed: int) -> nn.Module:
    # Constructors draw from PyTorch's own generator.
    with drawing(derive(seed, "initialise")):
        net: object = find(name)(classes)
    if not isinstance(net, nn.Module):
        raise TypeError(f"{name} returns a {type(net).__name__}: it must return an nn.Module")
    return net


def _cut(name: str, net: nn.Module) -> LayeredNet:
    from trainables import tracing

    return tracing.cut(name, net, _input_shape(name, net))


def _outline(name: str, classes: int) -> LayeredNet:
    """A new outline, which may be changed."""
    find(name)
    try:
        with torch.device("meta"):
            net = _made(name, classes, seed=0)
    except (NotImplementedError, RuntimeError):
        # Some constructors compute with what they make.
        net = _made(name, classes, seed=0).to("meta")
    _check(name, net, classes)
    return net


@cache
def _is_written_down(name: str) -> bool:
    """Whether the network is written as a :class:`LayeredNet`: one of the paper's, or the user's own."""
    if not is_own(name):
        return canonical(name) in NETWORKS
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return isinstance(find(name)(2), LayeredNet)


def _check(name: str, net: LayeredNet, classes: int) -> None:
    """Refuse a network that would be trained, stored or pruned wrongly."""
    last = net.names[-1]
    if net.classes != classes:
        raise ValueError(f"{name}({classes}) must end in a layer with {classes} outputs: its {last} has {net.classes}")
    known = {id(home.tensor) for home in net.tensors().values()}
    strange = [key for key, tensor in net.state_dict(keep_vars=True).items() if id(tensor) not in known]
    if strange:
        where = "outside its layers' convolutions and inner products, where nothing initialises or stores them"
        raise ValueError(f"{name} holds {', '.join(strange)} {where}")

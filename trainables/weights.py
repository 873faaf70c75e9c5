"""Pretrained weights for a :class:`LayeredNet`, from torchvision or from a file of one of the usual kinds.

A file's layers are matched by name where it has a layer of one of our names (``conv1_w_0``, ``main.fc6.weight``),
else by order, which is how torchvision's names (``features.0.weight``) are read. Either way, all of the file has to go
somewhere: a layer or a normalisation left over means that the file holds another net, whatever its shapes.

A traced net (:mod:`trainables.tracing`) takes its own state dict alone, by its names.

Inner products need no reordering: Caffe, ONNX and torch all flatten images, channels, height, width in this order, the
last the fastest. So the columns of ``fc6`` mean the same in each. (A net exported from TensorFlow flattens otherwise.)
"""

import hashlib
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.hyperparameters import WeightsConfig
from trainables.layers import LayeredNet
from trainables.suggestions import did_you_mean

TORCHVISION = "torchvision:"
MOST_PROBLEMS = 12

Layers = dict[str, dict[str, str]]
"""A file's layers in its order: of each, the names of its tensors, by kind (weight, bias, or other)."""

_PARAMETER = re.compile(r"(?P<layer>.+?)[._/](?:(?P<weight>weight|w)|bias|b)(?:_0)?")  # Caffe2 appends the _0
_TORCHVISION_LAYER = re.compile(r"(features|classifier)\.(\d+)\.")


class WeightsError(ValueError):
    """Weights that cannot be had, read or used; the message says why, for people."""


def fingerprint(file: str) -> str:
    """What stands for the content of ``file`` in a key: SHA-256 of its bytes, or torchvision's name.

    The name fixes the content: the address behind it has a hash in it, which is checked after the download.

    Raises:
        WeightsError: no such file.
    """
    if file.startswith(TORCHVISION):
        return file
    path = _existing(file)
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:
    """Size and time of change are there to read a changed file anew."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_into(net: LayeredNet, config: WeightsConfig, *, output: bool) -> None:
    """Copy the file's weights and biases into ``net``; with a mismatch anywhere, nothing is copied.

    Args:
        net: The network, on any device; it keeps its own precision.
        config: The file, and what to do with its first layer.
        output: False leaves the output layer alone, for a net with other classes than the file's.

    Raises:
        WeightsError: the file cannot be read, or does not fit; the message names every mismatch.
    """
    tensors = read(config.file)
    if net.is_traced:
        _load_by_name(net, config, tensors, output)
        return
    placed, problems = _place(net, config.file, tensors, output)
    problems += _order_problem(net, config.file)
    copies: list[tuple[nn.Parameter, Tensor]] = []
    for name, parts in placed.items():
        missing = [kind for kind, _ in net.op(name).named_parameters() if kind not in parts]
        problems += [f"{name} has a {kind} in the network, and none in the file" for kind in missing]
        for kind, source in parts.items():
            parameter, tensor = getattr(net.op(name), kind, None), tensors[source]
            first = name == net.names[0] and kind == "weight"
            problem = _misfit(f"{name}'s {kind}", parameter, source, tensor, config if first else None)
            if problem is not None:
                problems.append(problem)
            elif isinstance(parameter, nn.Parameter):
                copies.append((parameter, _adapted(tensor, parameter, config) if first else tensor))
    if problems:
        raise WeightsError(f"{config.file} does not fit the network:\n" + "\n".join(f"- {line}" for line in problems))
    with torch.no_grad():
        for parameter, tensor in copies:
            parameter.copy_(tensor)


def _load_by_name(net: LayeredNet, config: WeightsConfig, tensors: Mapping[str, Tensor], output: bool) -> None:
    """Copy into a traced net what has the same name in its own state dict: all of it, statistics too."""
    ours, top = net.tensors(), net.part(len(net.names) - 1, len(net.names)).tensors()
    theirs = {name.removeprefix("main."): tensor for name, tensor in tensors.items()}
    wanted = {name: home.tensor for name, home in ours.items() if output or name not in top}
    first = next(iter(net.connections().values())).tensor
    problems = [f"the network has no place for the file's {name}" for name in theirs if name not in ours]
    copies: list[tuple[Tensor, Tensor]] = []
    for name, place in wanted.items():
        # Counts of batches decide nothing, and files of some tools lack them.
        if not place.is_floating_point():
            continue
        if name not in theirs:
            problems.append(f"{name} is not in the file")
        elif problem := _misfit(name, place, name, theirs[name], config if place is first else None):
            problems.append(problem)
        else:
            fitting = _adapted(theirs[name], place, config) if place is first else theirs[name]
            copies.append((place, fitting))
    if problems:
        listed = "\n".join(f"- {line}" for line in problems[:MOST_PROBLEMS])
        more = f"\n- and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise WeightsError(f"{config.file} does not fit the network:\n{listed}{more}")
    with torch.no_grad():
        for place, tensor in copies:
            place.copy_(tensor)


def _order_problem(net: LayeredNet, file: str) -> list[str]:
    """Whether the file's net pools where this one normalises first, or the other way round; ONNX files alone tell.

    The model zoo's CaffeNet differs from its AlexNet by nothing else: all shapes fit.
    """
    if file.startswith(TORCHVISION) or (path := _existing(file)).suffix != ".onnx":
        return []
    kinds = {nn.LocalResponseNorm: "LRN", nn.MaxPool2d: "MaxPool"}
    ours = [kinds[type(module)] for module in net.modules() if type(module) in kinds]
    theirs = [node.op_type for node in _graph(path).node if node.op_type in kinds.values()]
    if "LRN" not in ours or "LRN" not in theirs or ours[0] == theirs[0]:
        return []
    words = {"LRN": "normalises before it pools", "MaxPool": "pools before it normalises"}
    nets = {"LRN": "as bvlc_alexnet does", "MaxPool": "as CaffeNet, bvlc_reference_caffenet, does"}
    return [f"the file's net {words[theirs[0]]}, {nets[theirs[0]]}; the network {words[ours[0]]}"]


def _layers(tensors: Mapping[str, Tensor]) -> Layers:
    layers: Layers = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 0:  # counters and rates, no weights
            continue
        match = _PARAMETER.fullmatch(name)
        layer, kind = (match["layer"], "weight" if match["weight"] else "bias") if match else (name, "other")
        layers.setdefault(layer, {})[kind] = name
    return layers


def _place(net: LayeredNet, file: str, tensors: Mapping[str, Tensor], output: bool) -> tuple[Layers, list[str]]:
    """The file's tensors for each layer to be loaded, and what stands in the way of matching them."""
    layers = _layers(tensors)
    found = {name: [layer for layer in layers if re.split("[./]", layer)[-1] == name] for name in net.names}
    if not any(found.values()):
        found = _by_order(net, file, layers, tensors)
    wanted = net.names if output else net.names[:-1]
    problems = [f"{name} is not in the file" for name in wanted if not found[name]]
    problems += [f"{name} could be any of the file's {_listed(found[name])}" for name in wanted if len(found[name]) > 1]
    spare = [layer for layer in layers if not any(layer in claimed for claimed in found.values())]
    if not output and not found[net.names[-1]] and len(spare) == 1 and _is_output(net, layers[spare[0]], tensors):
        spare = []  # the file's output layer, by another name
    if spare:
        listed = _listed([name for layer in spare for name in layers[layer].values()])
        problems.append(f"the network has no place for the file's {listed}")
    return {name: layers[found[name][0]] for name in wanted if len(found[name]) == 1}, problems


def _by_order(net: LayeredNet, file: str, layers: Layers, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    names = [layer for layer, parts in layers.items() if "weight" in parts and tensors[parts["weight"]].ndim > 1]
    if file.endswith(".safetensors") and not all(_TORCHVISION_LAYER.match(name) for name in tensors):
        ways = f"name them as the network does ({_listed(net.names)}), or as torchvision does (features.0, ...)"
        raise WeightsError(f"{file} has {_listed(list(layers))}, and such a file keeps no order of layers: {ways}")
    if len(names) not in (len(net.names), len(net.names) - 1):  # the file may lack its output layer
        counts = f"has {len(names)} layers ({_listed(names)}), the network {len(net.names)} ({_listed(net.names)})"
        raise WeightsError(f"{file} does not fit the network: it {counts}")
    return {name: [layer] if layer else [] for name, layer in zip_longest(net.names, names)}


def _is_output(net: LayeredNet, parts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer of the file takes what the net's output layer takes."""
    return "weight" in parts and tensors[parts["weight"]].shape[1:] == net.op(net.names[-1]).weight.shape[1:]


def _misfit(
    place: str, parameter: Tensor | None, source: str, tensor: Tensor, config: WeightsConfig | None
) -> str | None:
    """Why a tensor of the file cannot be the net's; ``config`` is given for the first layer's weights alone."""
    if parameter is None:
        return f"the network has no place for the file's {source}"
    if not tensor.is_floating_point():
        return f"{place}: the file's {source} holds {tensor.dtype}, not floating-point numbers"
    ours, theirs = tuple(parameter.shape), tuple(tensor.shape)
    if config is not None and len(ours) == len(theirs) == 4:
        if config.bgr and theirs[1] != 3:
            return f"{place}: bgr is for 3 input channels, and the file's {source} has {theirs[1]}"
        if config.cross_modality:
            theirs = (theirs[0], ours[1], *theirs[2:])
        elif ours[1] != theirs[1] and (ours[0], *ours[2:]) == (theirs[0], *theirs[2:]):
            hint = "; cross_modality: true would average and repeat them" if theirs[1] == 3 else ""
            return f"{place} takes {ours[1]} input channels, the file's {source} has {theirs[1]}{hint}"
    elif config is not None and (config.bgr or config.cross_modality):
        return f"{place}: bgr and cross_modality are for convolutions, and the file's {source} is {_shape(theirs)}"
    return None if ours == theirs else f"{place} is {_shape(ours)}, the file's {source} is {_shape(theirs)}"


def _adapted(weight: Tensor, parameter: Tensor, config: WeightsConfig) -> Tensor:
    """First-layer weights ``(out, channels, height, width)`` for the net's channels."""
    if config.bgr:
        weight = weight.flip(1)
    if config.cross_modality:
        weight = weight.to(parameter.dtype).mean(1, keepdim=True).expand_as(parameter)
    return weight


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read(file: str) -> dict[str, Tensor]:
    """Tensors by their names in the file, in the order of its layers where the file has one; on the CPU.

    Of a net that this project stored, only the main branch, without its masks. Of ONNX, the weights of inner products
    as torch has them: (outputs, inputs).

    Raises:
        WeightsError: no such file or name, or not one that can be read.
    """
    if file.startswith(TORCHVISION):
        return _fetched(file.removeprefix(TORCHVISION))
    path = _existing(file)
    if path.suffix not in _READERS:
        kinds = f"{', '.join(_READERS)}, or {TORCHVISION}AlexNet_Weights.IMAGENET1K_V1 and its like"
        raise WeightsError(f"{file} is of no kind that can be read: give {kinds}")
    return _READERS[path.suffix](path)


def _existing(file: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no file {file}")
    return path


def _fetched(name: str) -> dict[str, Tensor]:
    """State dict of torchvision's name, downloaded on first use into torch's own cache."""
    weights = torchvision_weights(name)
    try:
        # Only tensors are unpickled, as in our own reading.
        state = weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"{TORCHVISION}{name} could not be fetched from {weights.url} ({error}). Without a connection, fetch that "
            f"file elsewhere and put it into {cache} on each node, or give its path instead of the name"
        ) from error
    return _state_dict(f"{TORCHVISION}{name}", state)


def torchvision_weights(name: str) -> Any:
    """Torchvision's entry of that name.

    Raises:
        WeightsError: it has none.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise WeightsError(f"{TORCHVISION}{name} needs the package torchvision: pip install torchvision") from error
    # Without the aliases named DEFAULT, which mean other weights in other versions.
    known = {str(w): w for model in models.list_models(module=models) for w in models.get_model_weights(model)}
    if name not in known:
        question = did_you_mean(name, known, 3) or "did you mean 'AlexNet_Weights.IMAGENET1K_V1'?"
        raise WeightsError(f"torchvision has no weights {name!r}: {question}")
    return known[name]


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{path} was not read: it is damaged, or holds more than tensors, and reading that could run a program "
            "that came with it. Save the weights alone: torch.save(model.state_dict(), ...)"
        ) from error
    return _state_dict(str(path), content)


def _state_dict(file: str, content: object) -> dict[str, Tensor]:
    """The state dict in what a torch file holds: all of it, or under ``state_dict`` or ``model``."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{file} holds a {type(content).__name__}, and no state dict, nor one under state_dict or model"
        )
    strange = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(f"{file} is no state dict: {_listed(strange)} are no tensors")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""  # of DataParallel
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in content.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Such a file keeps no order: torchvision's is restored from its names."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is no whole safetensors file: {error}") from error
    if any(name.startswith("main.") for name in tensors):
        return {name: tensor for name, tensor in tensors.items() if name.startswith("main.")}
    return dict(sorted(tensors.items(), key=lambda item: _torchvision_position(item[0])))


def _torchvision_position(name: str) -> tuple[bool, int, str]:
    match = _TORCHVISION_LAYER.match(name)
    return (match[1] == "classifier", int(match[2]), name) if match else (True, 0, name)


def _graph(path: Path) -> Any:
    """The graph of an ONNX file."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise WeightsError(f"{path} needs the package onnx: pip install -c constraints.txt -e '.[onnx]'") from error
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise WeightsError(f"{path} is no whole ONNX file: {error}") from error


def _read_onnx(path: Path) -> dict[str, Tensor]:
    """Weights in the order in which the graph uses them."""
    graph = _graph(path)
    import onnx
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer}
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored.values()):
        raise WeightsError(f"{path} has its weights in another file: save it as one, onnx.save(onnx.load(...), ...)")
    if any(tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) for tensor in stored.values()):
        raise WeightsError(f"{path} is quantised to integers: give the net with floating-point weights")
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    tensors: dict[str, Tensor] = {}
    for name, turned in _used(graph, onnx.helper):
        if name in stored and stored[name].data_type in kinds:
            tensor = torch.tensor(numpy_helper.to_array(stored[name]).astype("float32", copy=False))
            tensors[name] = tensor.t() if turned and tensor.ndim == 2 else tensor
    return tensors


def _used(graph: Any, helper: Any) -> Iterator[tuple[str, bool]]:
    """Names that the graph's nodes take, in order, and whether torch has that matrix the other way round.

    ``Gemm`` with transB = 1 multiplies as torch does, by (outputs, inputs); with transB = 0, and ``MatMul``, it is by
    (inputs, outputs). The node has to say which: the shape of a square matrix does not.
    """
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        options = {option.name: helper.get_attribute_value(option) for option in node.attribute}
        if node.op_type == "Gemm" and (options.get("alpha", 1), options.get("beta", 1)) != (1, 1):
            raise WeightsError(f"the ONNX node {node.name or node.output[0]} scales its weights: that cannot be read")
        matrix = node.op_type in ("Gemm", "MatMul")
        passed = ("Identity", "Transpose") if matrix else ("Identity",)
        for position, name in enumerate(node.input):
            turned = matrix and position == 1 and not options.get("transB", 0)
            while name in producers and producers[name].op_type in passed:
                turned ^= producers[name].op_type == "Transpose"
                name = producers[name].input[0]
            if node.op_type not in ("Identity", "Transpose"):
                yield name, turned


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".safetensors": _read_safetensors,
    ".onnx": _read_onnx,
}

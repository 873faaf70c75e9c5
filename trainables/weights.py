"""Pretrained weights for a :class:`LayeredNet`, from torchvision or from a file of one of the usual kinds.

A file's layers are matched by name if it has a layer of one of our names (``conv1_w_0``, ``main.fc6.weight``),
else by order, which is how torchvision's names (``features.0.weight``) are read. Either way, all of the file has to go
somewhere: a layer or a normalisation left over means that the file holds another net, whatever its shapes.

A traced net (:mod:`trainables.tracing`) takes only its own state dict, by its names.

Inner products need no reordering: Caffe, ONNX and torch all flatten images, channels, height, width in this order, the
last the fastest. So the columns of ``fc6`` mean the same in each. (A net exported from TensorFlow flattens otherwise.)
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

from trainables.hyperparameters import WeightsConfig
from trainables.layers import LayeredNet
from trainables.onnx_files import onnx_graph
from trainables.pretrained import outputs_of
from trainables.weight_files import (
    TORCHVISION,
    existing,
    listed,
    read,
)
from trainables.weight_names import PARAMETER, TORCHVISION_LAYER, WeightsError, numbers_as_numbers

MOST_PROBLEMS = 12

Layers = dict[str, dict[str, str]]
"""A file's layers in its order: of each, the names of its tensors, by kind (weight, bias, or other)."""


def load_into(net: LayeredNet, config: WeightsConfig, classes: Sequence[str] | None) -> None:
    """Copy the file's weights and biases into ``net``; with a mismatch anywhere, nothing is copied.

    Args:
        net: The network, on any device; it keeps its own precision.
        config: The file, and what to do with its first layer.
        classes: Of the data, in the order that the net's outputs are to have; None leaves the output layer alone, for
            a net with other classes than the file's.

    Raises:
        WeightsError: the file cannot be read, or does not fit; the message names every mismatch.
    """
    tensors = read(config.file)
    outputs = outputs_of(config, classes) if classes is not None else None
    if net.is_traced:
        output_layer = list(net.connections())[-1]
        chosen = {f"{prefix}{output_layer}.{kind}" for prefix in ("", "main.") for kind in ("weight", "bias")}
        tensors = _of_classes(config, tensors, chosen, outputs)
        _load_by_name(net, config, tensors, classes is not None)
        return
    placed, problems = _place(net, config.file, tensors, classes is not None)
    tensors = _of_classes(config, tensors, set(placed.get(net.names[-1], {}).values()), outputs)
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


def _of_classes(
    config: WeightsConfig, tensors: Mapping[str, Tensor], chosen: Collection[str], outputs: list[int] | None
) -> dict[str, Tensor]:
    """The tensors, those of the output layer with only the rows of the data's classes."""
    if outputs is None:
        return {**tensors}
    for name in chosen:
        if config.classes is not None and name in tensors and len(tensors[name]) != len(config.classes):
            has = f"{name} has {len(tensors[name])} outputs"
            raise WeightsError(f"{config.file}: {has}, and source.weights.classes names {len(config.classes)}")
    return {name: tensor[outputs] if name in chosen else tensor for name, tensor in tensors.items()}


def _load_by_name(net: LayeredNet, config: WeightsConfig, tensors: Mapping[str, Tensor], output: bool) -> None:
    """Copy into a traced net what has the same name in its own state dict: all of it, statistics too."""
    ours, top = net.tensors(), net.top(1).tensors()
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
    """Whether the file's net pools where this one normalises first, or the other way round; only ONNX files tell.

    The model zoo's CaffeNet differs from its AlexNet by nothing else: all shapes fit.
    """
    if file.startswith(TORCHVISION) or (path := existing(file)).suffix != ".onnx":
        return []
    kinds = {nn.LocalResponseNorm: "LRN", nn.MaxPool2d: "MaxPool"}
    ours = [kinds[type(module)] for module in net.modules() if type(module) in kinds]
    theirs = [node.op_type for node in onnx_graph(path).node if node.op_type in kinds.values()]
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
        match = PARAMETER.fullmatch(name)
        layer, kind = (match["layer"], "weight" if match["weight"] else "bias") if match else (name, "other")
        layers.setdefault(layer, {})[kind] = name
    return layers


def _place(net: LayeredNet, file: str, tensors: Mapping[str, Tensor], output: bool) -> tuple[Layers, list[str]]:
    """The file's tensors for each layer to be loaded, and what prevents matching them."""
    layers = _layers(tensors)
    found = {name: [layer for layer in layers if re.split("[./]", layer)[-1] == name] for name in net.names}
    if not any(found.values()):
        found = _by_order(net, file, layers, tensors)
    wanted = net.names if output else net.names[:-1]
    problems = [f"{name} is not in the file" for name in wanted if not found[name]]
    problems += [f"{name} could be any of the file's {listed(found[name])}" for name in wanted if len(found[name]) > 1]
    spare = [layer for layer in layers if not any(layer in claimed for claimed in found.values())]
    if not output and not found[net.names[-1]] and len(spare) == 1 and _is_output(net, layers[spare[0]], tensors):
        spare = []  # the file's output layer, by another name
    if spare:
        left_over = listed([name for layer in spare for name in layers[layer].values()])
        problems.append(f"the network has no place for the file's {left_over}")
    return {name: layers[found[name][0]] for name in wanted if len(found[name]) == 1}, problems


def _by_order(net: LayeredNet, file: str, layers: Layers, tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    names = [layer for layer, parts in layers.items() if "weight" in parts and tensors[parts["weight"]].ndim > 1]
    if file.endswith(".safetensors") and not all(TORCHVISION_LAYER.match(name) for name in tensors):
        ways = f"name them as the network does ({listed(net.names)}), or as torchvision does (features.0, ...)"
        raise WeightsError(f"{file} has {listed(list(layers))}, and such a file keeps no order of layers: {ways}")
    if names == sorted(names) != sorted(names, key=numbers_as_numbers):
        raise WeightsError(
            f"{file} has its layers sorted as text ({listed(names)}), so that their order is lost: save it in the "
            "order of the network, or name them as the network does"
        )
    if len(names) not in (len(net.names), len(net.names) - 1):  # the file may lack its output layer
        counts = f"has {len(names)} layers ({listed(names)}), the network {len(net.names)} ({listed(net.names)})"
        raise WeightsError(f"{file} does not fit the network: it {counts}")
    return {name: [layer] if layer else [] for name, layer in zip_longest(net.names, names)}


def _is_output(net: LayeredNet, parts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a layer of the file takes what the net's output layer takes."""
    return "weight" in parts and tensors[parts["weight"]].shape[1:] == net.op(net.names[-1]).weight.shape[1:]


def _misfit(
    place: str, parameter: Tensor | None, source: str, tensor: Tensor, config: WeightsConfig | None
) -> str | None:
    """Why a tensor of the file cannot be the net's; ``config`` is given only for the first layer's weights."""
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

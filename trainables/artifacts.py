"""What a stage leaves for others: named tensors, and the few numbers that children need.

A net is stored as ``main.<layer>.weight`` and ``.bias`` or, if it was traced, under the names of its own state
dict, its masks as ``mask.<connections>``, an extra branch as ``extra....``; knowledge as ``logits``. Shapes are taken
from the tensors, so nets with removed neurons load too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables import networks
from trainables.hybrid import HybridTransferNet
from trainables.layers import Home, LayeredNet
from trainables.pruning import Masks


@dataclass(frozen=True)
class Artifact:
    """Tensors by name, the stage's metrics, and the names of the classes that its data has."""

    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def pack(net: HybridTransferNet, masks: Masks) -> dict[str, Tensor]:
    """Tensors of the main branch, its masks and the extra branch, on the CPU."""
    tensors = {f"mask.{name}": mask for name, mask in masks.items()}
    for branch, part in (("main", net.main), ("extra", net.extra)):
        if part is not None:
            tensors |= {f"{branch}.{name}": home.tensor.detach() for name, home in part.tensors().items()}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def unpack_main(network: str, artifact: Artifact) -> tuple[LayeredNet, Masks]:
    """The main branch and its masks."""
    masks = {name.removeprefix("mask."): t.clone() for name, t in artifact.tensors.items() if name.startswith("mask.")}
    return _branch(network, "main", artifact), masks


def unpack_extra(network: str, artifact: Artifact) -> LayeredNet | None:
    """The extra branch, if the artifact has one."""
    has_extra = any(name.startswith("extra.") for name in artifact.tensors)
    return _branch(network, "extra", artifact) if has_extra else None


def _branch(network: str, branch: str, artifact: Artifact) -> LayeredNet:
    stored = {
        name.removeprefix(f"{branch}."): t for name, t in artifact.tensors.items() if name.startswith(f"{branch}.")
    }
    whole = networks.build(network, classes=2)
    homes = {name: whole.layer(name).tensors(name) for name in whole.names}
    lowest = next(index for index, own in enumerate(homes.values()) if own.keys() & stored.keys())
    return fill(whole.part(lowest, len(whole.names)), stored)


def fill(net: LayeredNet, tensors: Mapping[str, Tensor]) -> LayeredNet:
    """Put copies of the tensors into a net, by the names under which it stores them, whatever shapes it had."""
    for name, home in net.tensors().items():
        _set(home, tensors[name].clone())
    return net


def _set(home: Home, tensor: Tensor) -> None:
    """Put a tensor in its place, whatever shape the place had."""
    module, attribute = home
    is_parameter = isinstance(home.tensor, nn.Parameter)
    setattr(module, attribute, nn.Parameter(tensor, home.tensor.requires_grad) if is_parameter else tensor)
    if attribute == "weight" and isinstance(module, nn.Linear):
        module.out_features, module.in_features = tensor.shape
    elif attribute == "weight" and isinstance(module, nn.Conv2d):
        if module.groups == module.out_channels > 1:
            module.groups = len(tensor)
        module.out_channels, module.in_channels = len(tensor), tensor.shape[1] * module.groups
    elif attribute == "weight" and isinstance(module, _BatchNorm):
        module.num_features = len(tensor)

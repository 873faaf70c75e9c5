"""What a stage leaves for others: named tensors, and the few numbers that children need.

A net is stored as ``main.<layer>.weight`` and ``.bias``, its masks as ``mask.<layer>``, an extra branch as
``extra.<layer>...``; knowledge as ``logits``. Shapes are taken from the tensors, so nets with removed neurons load too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from trainables import networks
from trainables.hybrid import HybridTransferNet
from trainables.networks import LayeredNet
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
            for name in part.names:
                for kind, parameter in part.op(name).named_parameters():
                    tensors[f"{branch}.{name}.{kind}"] = parameter.detach()
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
    parts = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith(f"{branch}.")}
    names = list(dict.fromkeys(name.split(".")[1] for name in parts))
    whole = networks.build(network, classes=1)
    ordered = [name for name in whole.names if name in names]
    net = LayeredNet([(name, whole.layer(name)) for name in ordered], whole.input_shape)
    for name in ordered:
        op = net.op(name)
        for kind in [kind for kind, _ in op.named_parameters()]:
            setattr(op, kind, nn.Parameter(parts[f"{branch}.{name}.{kind}"].clone()))
        if isinstance(op, nn.Linear):
            op.out_features, op.in_features = op.weight.shape
    return net

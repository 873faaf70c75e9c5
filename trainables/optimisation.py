"""How a training descends: the optimizer, which parameters decay, and the learning rate of each step."""

from collections.abc import Iterable, Sequence
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn

from trainables.hyperparameters import TrainConfig
from trainables.layers import LayeredNet

Masked = Sequence[tuple[Tensor, Tensor]]
"""Weights, each with its mask as numbers of its own type and memory layout."""


def optimizer_of(branches: Iterable[LayeredNet], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of the trained branches."""
    groups = _groups(list(branches), config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )


def learning_rate(config: TrainConfig, epochs: float) -> float:
    """Learning rate after a number of epochs, a step being a part of one."""
    if epochs < config.warmup_epochs:
        return config.learning_rate * epochs / config.warmup_epochs
    if config.decay == "constant":
        return config.learning_rate
    if config.decay == "step":
        assert config.step_size is not None
        return config.learning_rate * config.gamma ** int(epochs // config.step_size)
    after = config.epochs - config.warmup_epochs
    return config.learning_rate * 0.5 * (1 + cos(pi * (epochs - config.warmup_epochs) / after))


def descend(optimizer: torch.optim.Optimizer, rate: float, masked: Masked) -> None:
    """Take one step, after which masked weights are zero again."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
    optimizer.step()
    # After the step, so that neither momentum nor weight decay revives a pruned connection.
    with torch.no_grad():
        for weight, mask in masked:
            weight.mul_(mask)


def masked_weights(net: LayeredNet, masks: dict[str, Tensor]) -> Masked:
    """The weights that have masks; a mask lies in memory as its weight does, which makes their product the fastest."""
    weights = net.weights()
    laid_out = {name: torch.empty_like(weights[name], requires_grad=False).copy_(mask) for name, mask in masks.items()}
    return [(weights[name], mask) for name, mask in laid_out.items()]


def _groups(branches: list[LayeredNet], config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by what becomes of them: whether they decay, and their share of the learning rate."""
    if config.decay_all and config.layer_decay == 1:
        return [{"params": [parameter for branch in branches for parameter in branch.parameters()]}]
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for branch in branches:
        for below_output, name in enumerate(reversed(branch.names)):
            scale = config.layer_decay**below_output
            for parameter in branch.layer(name).parameters():
                # As timm has it: whatever is a vector is a bias, or belongs to a normalisation.
                decays = config.decay_all or parameter.ndim > 1
                groups.setdefault((decays, scale), []).append(parameter)
    return [
        {"params": parameters, "scale": scale} | ({} if decays else {"weight_decay": 0.0})
        for (decays, scale), parameters in groups.items()
    ]

"""Pruning neurons of inner-product layers by physical removal: the matrices get smaller.

Removing a neuron removes its row of weights, its bias and the matching columns of the layers that it feeds: the next
layer of the main branch and, if the extra branch sits on the pruned layer, the extra branch's first layer.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from trainables.hybrid import HybridTransferNet
from trainables.layers import LayeredNet
from trainables.pruning import Masks


def turns(widths: Mapping[str, int], neurons_per_step: int) -> list[str]:
    """The layer that each step takes its neurons from, lowest first, until the next one has too few left to lose.

    Layers take turns, as the paper's counts show: 4 x 512 neurons of FC6 and 3 x 512 of FC7 went for Indoor67.

    Args:
        widths: neurons of each inner-product layer but the output layer, lowest first.
        neurons_per_step: neurons that a step removes.
    """
    left, order = dict(widths), []
    for layer in itertools.cycle(widths):
        if left[layer] <= neurons_per_step:
            break
        left[layer] -= neurons_per_step
        order.append(layer)
    return order


@torch.no_grad()
def mean_activations(net: LayeredNet, layer: str, batches: Iterable[Tensor]) -> Tensor:
    """Mean activation after ReLU of each neuron of an inner-product layer over all images, float64 ``(neurons,)``.

    Dropout is off (evaluation mode), as for a prediction.
    """
    depth = net.names.index(layer) + 1
    net.eval()
    total, images = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        total = total + net.run(batch, 0, depth).double().sum(0).cpu()
        images += len(batch)
    return total / images


def least_activated(activations: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` least-activated neurons; ties go to the lower index."""
    return activations.argsort(stable=True)[:count]


def remove(net: HybridTransferNet, masks: Masks, layer: str, neurons: Tensor) -> Masks:
    """Remove neurons of an inner-product layer of the main branch, in place; return the masks of the smaller matrices.

    Raises:
        ValueError: the layer is the output layer or no inner-product layer, or no neuron would be left.
    """
    main = net.main
    names = main.hidden_inner_products()
    if layer not in names:
        raise ValueError(f"cannot remove neurons of {layer}: choose one of {', '.join(names)}")
    width = main.op(layer).weight.shape[0]
    stays = torch.ones(width, dtype=torch.bool)
    stays[neurons] = False
    if not stays.any():
        raise ValueError(f"cannot remove all {width} neurons of {layer}")
    following = main.names[main.names.index(layer) + 1]
    _keep_rows(main.op(layer), stays)
    _keep_columns(main.op(following), stays)
    if net.extra is not None and net.shared_layer == layer:
        _keep_columns(net.extra.op(net.extra.names[0]), stays)
    smaller = dict(masks)
    if layer in masks:
        smaller[layer] = masks[layer][stays]
    if following in masks:
        smaller[following] = masks[following][:, stays]
    return smaller


def _keep_rows(op: nn.Module, stays: Tensor) -> None:
    assert isinstance(op, nn.Linear)
    _slice(op, "weight", lambda weight: weight[stays])
    _slice(op, "bias", lambda bias: bias[stays])
    op.out_features = int(stays.sum())


def _keep_columns(op: nn.Module, stays: Tensor) -> None:
    assert isinstance(op, nn.Linear)
    _slice(op, "weight", lambda weight: weight[:, stays])
    op.in_features = int(stays.sum())


def _slice(op: nn.Linear, name: str, keep: Callable[[Tensor], Tensor]) -> None:
    old = getattr(op, name)
    setattr(op, name, nn.Parameter(keep(old.detach()).clone()))

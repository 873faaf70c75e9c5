"""Removing neurons that pruning has cut off, without changing what the net computes.

A neuron (or channel) that nothing reads can go. One without incoming connections has the same value for every
image, its bias after the activation, which can be added to the next layer's bias (Han et al. 2015 remove the former by
further training; here both go at once and exactly). Retraining is not needed; only the order of float sums changes.
"""

from itertools import pairwise
from math import gcd, lcm

import torch
from torch import Tensor, nn

from trainables.layers import Dropout, LayeredNet

Op = nn.Conv2d | nn.Linear

_CHANNELWISE = (nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout, Dropout)
"""What may stand between two layers: modules that keep channels apart and turn a constant map into a constant one.
Local response normalisation, say, does neither: its neighbours would see another window."""

CHANNELS = 16
"""Convolutions lose channels in multiples of this: ONNX Runtime is slower with other numbers (a net with 50 of 64
channels in its last convolution, and a few less in others, took 1.6 times as long as the whole one)."""


@torch.no_grad()
def remove_unconnected(net: LayeredNet) -> dict[str, int]:
    """Remove cut-off neurons and channels in place; pruned weights must be zeros. Gives how many each layer lost.

    Convolutions lose a multiple of :data:`CHANNELS`, grouped ones the same number from each group, and every group
    keeps one channel, as shapes must stay regular.
    """
    lost = dict.fromkeys(net.names, 0)
    # What was removed may have been the last to read, or to feed, others: so until nothing more goes.
    found = True
    while found:
        found = False
        for lower, upper in pairwise(net.names):
            found |= _remove_between(net, lower, upper, lost)
    return lost


def _remove_between(net: LayeredNet, lower: str, upper: str, lost: dict[str, int]) -> bool:
    """Remove unused outputs of the lower layer. Return whether there were any."""
    between = [*net.weighted(lower).after, *net.weighted(upper).before]
    if not all(isinstance(module, _CHANNELWISE) for module in between):
        return False
    source, reader = net.op(lower), net.op(upper)
    reads = _by_input(reader, len(source.weight))
    unused = (reads == 0).all(3).all(1).flatten()
    value = torch.zeros(len(source.weight)) if source.bias is None else source.bias.detach()
    if any(isinstance(module, nn.ReLU) for module in between):
        value = value.relu()
    constant = (source.weight == 0).flatten(1).all(1)
    if _pads(reader):
        # At the border the reader sees the padding's zeros in place of the constant.
        constant &= value == 0
    multiple = CHANNELS if isinstance(source, nn.Conv2d) else 1
    goes = _regular(unused | constant, lcm(_groups(source), _groups(reader)), multiple)
    if not goes.any():
        return False
    _add_to_bias(reader, torch.einsum("gonk,gn->go", reads, (value * (goes & constant)).view(len(reads), -1)).flatten())
    _keep_outputs(source, ~goes)
    _keep_inputs(reader, reads, ~goes)
    lost[lower] += int(goes.sum())
    return True


def _by_input(op: Op, channels: int) -> Tensor:
    """Weights by input channel, ``(groups, outputs of a group, channels of a group, positions)``."""
    groups = _groups(op)
    return op.weight.detach().reshape(groups, len(op.weight) // groups, channels // groups, -1)


def _regular(goes: Tensor, blocks: int, multiple: int) -> Tensor:
    """As many of each block as can go from all of them, the first ones: in all a multiple, and one at least stays."""
    parts = goes.view(blocks, -1)
    count = min(int(parts.sum(1).min()), parts.shape[1] - 1)
    count -= count % (multiple // gcd(multiple, blocks))
    return (parts & (parts.cumsum(1) <= count)).flatten()


def _keep_outputs(op: Op, stays: Tensor) -> None:
    op.weight = nn.Parameter(op.weight.detach()[stays])
    if op.bias is not None:
        op.bias = nn.Parameter(op.bias.detach()[stays])
    _tell_shape(op)


def _keep_inputs(op: Op, reads: Tensor, stays: Tensor) -> None:
    kept = [part[:, own] for part, own in zip(reads, stays.view(len(reads), -1), strict=True)]
    kernel = op.weight.shape[2:] if isinstance(op, nn.Conv2d) else ()
    op.weight = nn.Parameter(torch.cat(kept).reshape(len(op.weight), -1, *kernel))
    _tell_shape(op)


def _add_to_bias(op: Op, more: Tensor) -> None:
    if op.bias is not None:
        op.bias = nn.Parameter(op.bias.detach() + more)
    elif more.any():
        op.bias = nn.Parameter(more)


def _tell_shape(op: Op) -> None:
    if isinstance(op, nn.Conv2d):
        op.out_channels, op.in_channels = len(op.weight), op.weight.shape[1] * op.groups
    else:
        op.out_features, op.in_features = op.weight.shape


def _pads(op: Op) -> bool:
    return isinstance(op, nn.Conv2d) and op.padding != "valid" and op.padding != (0, 0)


def _groups(op: Op) -> int:
    return op.groups if isinstance(op, nn.Conv2d) else 1

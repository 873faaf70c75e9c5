"""Neuron pruning as a stage takes it, step by step: of inner products as in the paper, or of all layers' channels."""

import torch
from torch import Tensor

from trainables import channels, networks, neurons
from trainables.channels import Widths
from trainables.hybrid import HybridTransferNet
from trainables.hyperparameters import NeuronPruneParams
from trainables.images import Images
from trainables.pruning import Masks
from trainables.seeds import generator


def schedule(params: NeuronPruneParams, network: str) -> list[Widths]:
    """What each step leaves of an unpruned network, until nothing is left to lose."""
    if params.channels_per_step is not None:
        return channels.schedule(channels.widths(network), params.channels_per_step, params.round_to)
    assert params.neurons_per_step is not None
    left, steps = networks.inner_product_widths(network), []
    for layer in neurons.turns(left, params.neurons_per_step):
        left = {**left, layer: left[layer] - params.neurons_per_step}
        steps.append(left)
    return steps


def only_step(params: NeuronPruneParams, network: str, net: HybridTransferNet) -> Widths:
    """What the one step of a stage leaves of a net, whatever becomes of the accuracy."""
    if params.step is not None:
        return schedule(params, network)[params.step - 1]
    assert params.layer is not None and params.neurons_per_step is not None
    return {params.layer: len(net.main.op(params.layer).weight) - params.neurons_per_step}


def take(
    net: HybridTransferNet, masks: Masks, params: NeuronPruneParams, left: Widths, images: Images, seed: int
) -> Masks:
    """Take a step, in place: the least-activated go. Return the masks of the smaller weights."""
    batches = images.centred(_subset(images, params.images_per_class, seed))
    if params.channels_per_step is not None:
        return channels.remove_to(net, masks, left, channels.scores(net, left, params.importance, batches))
    layer = _layer(net, left)
    assert params.neurons_per_step is not None
    activations = neurons.mean_activations(net.main, layer, batches)
    return neurons.remove(net, masks, layer, neurons.least_activated(activations, params.neurons_per_step))


def shorten(net: HybridTransferNet, params: NeuronPruneParams, left: Widths) -> None:
    """Take a step, in place, whichever neurons go: only for the shapes."""
    if params.channels_per_step is not None:
        present = {name: len(weight) for name, weight in net.main.weights().items()}
        channels.remove_to(net, {}, left, {name: torch.zeros(present[name]) for name in left})
        return
    layer = _layer(net, left)
    neurons.remove(net, {}, layer, torch.arange(len(net.main.op(layer).weight) - left[layer]))


def _layer(net: HybridTransferNet, left: Widths) -> str:
    """The one layer that a step makes smaller."""
    return next(name for name, count in left.items() if count < len(net.main.op(name).weight))


def _subset(images: Images, per_class: int, seed: int) -> Tensor:
    """Up to ``per_class`` training images of each class, drawn by the seed."""
    train = images.train
    order = train[torch.randperm(len(train), generator=generator(seed, "activations"))]
    labels = images.labels[order]
    parts = [order[labels == label][:per_class] for label in labels.unique()]
    return torch.cat(parts).sort().values

"""Magnitude pruning of connections: masks and prune schedules.

A mask is a boolean tensor of its weight's shape, true where the connection is kept. A layer without an entry in
:data:`Masks` is dense. Masks only shrink, and exactly the asked number of connections goes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from trainables import patterns
from trainables.layers import LayeredNet
from trainables.patterns import Pattern
from trainables.seeds import generator

Masks = dict[str, Tensor]
Criterion = Literal["magnitude", "random"]
Scope = Literal["layer", "global"]
Importance = Literal["activation", "magnitude"]
Spacing = Literal["geometric", "linear"]


def step_shares(target: float, steps: int, spacing: Spacing) -> list[float]:
    """Cumulative shares kept after each of ``steps`` steps from 1 down to ``target``.

    ``geometric`` removes the same proportion of the survivors in every step, ``linear`` the same number of connections.
    """
    if spacing == "geometric":
        shares = [target ** (step / steps) for step in range(1, steps)]
    else:
        shares = [1.0 - (1.0 - target) * step / steps for step in range(1, steps)]
    return [*shares, target]


def kept_connections(net: LayeredNet, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Connections that are left of each weight, by its name."""
    return {name: int(masks[name].sum()) if name in masks else weight.numel() for name, weight in net.weights().items()}


def nonzero_connections(net: LayeredNet) -> dict[str, int]:
    """Connections of each weight that are not zero, by its name."""
    return {name: int(weight.count_nonzero()) for name, weight in net.weights().items()}


def by_layer(net: LayeredNet, counts: Mapping[str, int]) -> dict[str, int]:
    """What there is of each weight, summed over each layer's."""
    return {name: sum(counts[weight] for weight in net.layer(name).connections(name)) for name in net.names}


def apply(net: LayeredNet, masks: Mapping[str, Tensor]) -> None:
    """Set the pruned weights of the net to zero, in place."""
    weights = net.weights()
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)


def shrink(
    net: LayeredNet,
    masks: Mapping[str, Tensor],
    keep: Mapping[str, int],
    criterion: Criterion,
    seed: int,
    blocks: Pattern | None = None,
) -> Masks:
    """New masks that keep exactly ``keep[layer]`` of the connections that each layer still has.

    ``magnitude`` keeps the largest absolute weights, ``random`` any, by the seed. Ties go to the lower index. Layers
    not named stay as they are. In blocks, less than a block fewer are kept.

    Raises:
        ValueError: a layer has fewer connections left than it should keep.
    """
    result, weights = {name: mask.clone() for name, mask in masks.items()}, net.weights()
    for name, count in keep.items():
        weight = weights[name].detach()
        alive = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        if count > (left := int(alive.sum())):
            raise ValueError(f"layer {name} has {left:,} connections left: it cannot keep {count:,}")
        (result[name],) = _largest([_scores(weight, criterion, seed, name)], [alive], count, blocks)
    return result


def shrink_globally(
    net: LayeredNet,
    masks: Mapping[str, Tensor],
    keep: int,
    criterion: Criterion,
    seed: int,
    blocks: Pattern | None = None,
) -> Masks:
    """New masks that keep exactly ``keep`` connections of the whole net: one threshold for all layers.

    Ties go to the lower layer, then to the lower index. In blocks, less than a block fewer are kept. Raises ValueError
    as :func:`shrink` does.
    """
    weights = {name: weight.detach() for name, weight in net.weights().items()}
    alive = [masks.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()]
    scores = [_scores(weight, criterion, seed, name) for name, weight in weights.items()]
    if keep > (left := sum(int(part.sum()) for part in alive)):
        raise ValueError(f"the net has {left:,} connections left: it cannot keep {keep:,}")
    return dict(zip(weights, _largest(scores, alive, keep, blocks), strict=True))


def shrink_in_groups(
    net: LayeredNet,
    masks: Mapping[str, Tensor],
    stay: Mapping[str, int],
    pattern: Pattern,
    criterion: Criterion,
    seed: int,
) -> Masks:
    """New masks that keep at most ``stay[layer]`` of each M consecutive inputs; what has no multiple of M stays."""
    result, weights = {name: mask.clone() for name, mask in masks.items()}, net.weights()
    for name, count in stay.items():
        weight = weights[name].detach()
        if pattern.fits(weight):
            alive = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
            scores = _scores(weight, criterion, seed, name)
            result[name] = patterns.largest_in_groups(scores, alive, count, pattern.inputs)
    return result


def apportion(left: Mapping[str, int], keep: int) -> dict[str, int]:
    """Split ``keep`` connections over layers in proportion to what is left of each (largest remainder method).

    Every layer loses the same proportion, up to the one connection that rounding moves; ties go to the lower layer.
    """
    total = sum(left.values())
    floors = {name: count * keep // total for name, count in left.items()}
    by_remainder = sorted(left, key=lambda name: -(left[name] * keep % total))
    for name in by_remainder[: keep - sum(floors.values())]:
        floors[name] += 1
    return floors


def _scores(weight: Tensor, criterion: Criterion, seed: int, name: str) -> Tensor:
    if criterion == "magnitude":
        return weight.abs()
    return torch.rand(weight.shape, generator=generator(seed, "random masks", name)).to(weight.device)


def _largest(
    scores: Sequence[Tensor], alive: Sequence[Tensor], count: int, blocks: Pattern | None = None
) -> list[Tensor]:
    """Masks of the highest scores over all of these weights together, among what lives of them; of ties the first."""
    if blocks is not None:
        return patterns.largest_blocks(scores, alive, count, blocks)
    joint = torch.cat([torch.where(own, weight, -1.0).flatten() for own, weight in zip(alive, scores, strict=True)])
    # Of tens of millions of weights, a sixth of the time of sorting them.
    least = joint.topk(count, sorted=False).values.amin() if count else torch.inf
    mask = joint > least
    ties = (joint == least).nonzero().flatten()
    mask[ties[: count - int(mask.sum())]] = True
    parts = mask.split([part.numel() for part in alive])
    return [part.view_as(own).clone() for part, own in zip(parts, alive, strict=True)]

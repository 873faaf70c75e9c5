"""Magnitude pruning of connections: masks and prune schedules.

A mask is a boolean tensor of its weight's shape, true where the connection is kept. A layer without an entry in
:data:`Masks` is dense. Masks only shrink, and exactly the asked number of connections goes.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from trainables.layers import LayeredNet
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
    net: LayeredNet, masks: Mapping[str, Tensor], keep: Mapping[str, int], criterion: Criterion, seed: int
) -> Masks:
    """New masks that keep exactly ``keep[layer]`` of the connections that each layer still has.

    ``magnitude`` keeps the largest absolute weights, ``random`` any, by the seed. Ties go to the lower index. Layers
    not named stay as they are.

    Raises:
        ValueError: a layer has fewer connections left than it should keep.
    """
    result, weights = {name: mask.clone() for name, mask in masks.items()}, net.weights()
    for name, count in keep.items():
        weight = weights[name].detach()
        alive = masks.get(name, torch.ones_like(weight, dtype=torch.bool))
        if count > (left := int(alive.sum())):
            raise ValueError(f"layer {name} has {left:,} connections left: it cannot keep {count:,}")
        result[name] = _largest(_scores(weight, criterion, seed, name), alive, count)
    return result


def shrink_globally(net: LayeredNet, masks: Mapping[str, Tensor], keep: int, criterion: Criterion, seed: int) -> Masks:
    """New masks that keep exactly ``keep`` connections of the whole net: one threshold for all layers.

    Ties go to the lower layer, then to the lower index. Raises ValueError as :func:`shrink` does.
    """
    weights = {name: weight.detach() for name, weight in net.weights().items()}
    alive = [masks.get(name, torch.ones_like(w, dtype=torch.bool)).flatten() for name, w in weights.items()]
    scores = [_scores(weight, criterion, seed, name).flatten() for name, weight in weights.items()]
    joint = torch.cat(alive)
    if keep > (left := int(joint.sum())):
        raise ValueError(f"the net has {left:,} connections left: it cannot keep {keep:,}")
    parts = _largest(torch.cat(scores), joint, keep).split([part.numel() for part in alive])
    return {name: part.view_as(weight).clone() for part, (name, weight) in zip(parts, weights.items(), strict=True)}


def shrink_to_share(
    main: LayeredNet,
    masks: Masks,
    share: float,
    dense: Mapping[str, int],
    scope: Scope,
    criterion: Criterion,
    seed: int,
) -> Masks:
    """Masks that keep ``share`` of the dense net's connections, over all layers together."""
    keep = round(share * sum(dense.values()))
    if scope == "global":
        return shrink_globally(main, masks, keep, criterion, seed)
    counts = apportion(kept_connections(main, masks), keep)
    return shrink(main, masks, counts, criterion, seed)


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


def _largest(scores: Tensor, alive: Tensor, count: int) -> Tensor:
    ranked = torch.where(alive, scores, -1.0).flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(alive.numel(), dtype=torch.bool, device=alive.device)
    mask[ranked[:count]] = True
    return mask.view_as(alive)

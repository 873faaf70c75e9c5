"""Masks: exact counts, never growing, ties by index; as torch.nn.utils.prune where both define the result."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from trainables import pruning
from trainables.networks import LayeredNet, WeightedLayer


def net_of(*shapes: tuple[int, int], seed: int = 0) -> LayeredNet:
    net = LayeredNet([(f"fc{i}", WeightedLayer(nn.Linear(a, b))) for i, (a, b) in enumerate(shapes)], (1, 1, 1))
    net.initialise(net.names, seed)
    return net


def mask_of(module: Any) -> torch.Tensor:
    return module.weight_mask.bool()  # type: ignore[no-any-return]


@pytest.mark.parametrize("amount", [1, 17, 60, 119])
def test_layer_scope_agrees_with_torch(amount: int) -> None:
    net = net_of((12, 10))
    masks = pruning.shrink(net, {}, {"fc0": 120 - amount}, "magnitude", 0)
    prune.l1_unstructured(net.op("fc0"), "weight", amount=amount)
    assert torch.equal(masks["fc0"], mask_of(net.op("fc0")))


def test_two_steps_agree_with_torch() -> None:
    net = net_of((12, 10))
    first = pruning.shrink(net, {}, {"fc0": 80}, "magnitude", 0)
    second = pruning.shrink(net, first, {"fc0": 30}, "magnitude", 0)
    prune.l1_unstructured(net.op("fc0"), "weight", amount=40)
    prune.l1_unstructured(net.op("fc0"), "weight", amount=50)
    assert torch.equal(second["fc0"], mask_of(net.op("fc0")))


def test_global_scope_agrees_with_torch() -> None:
    net = net_of((12, 10), (10, 7), (7, 5))
    total = 120 + 70 + 35
    masks = pruning.shrink_globally(net, {}, total - 100, "magnitude", 0)
    modules = [(net.op(name), "weight") for name in net.names]
    prune.global_unstructured(modules, pruning_method=prune.L1Unstructured, amount=100)
    for name in net.names:
        assert torch.equal(masks[name], mask_of(net.op(name)))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    shares=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4),
    criterion=st.sampled_from(["magnitude", "random"]),
    scope=st.sampled_from(["layer", "global"]),
)
def test_masks_only_shrink_and_keep_exactly_what_was_asked(
    seed: int, shares: list[float], criterion: pruning.Criterion, scope: str
) -> None:
    net = net_of((9, 7), (7, 4), seed=seed)
    masks: pruning.Masks = {}
    for share in sorted(shares, reverse=True):
        keep = round(share * (63 + 28))
        if scope == "global":
            new = pruning.shrink_globally(net, masks, keep, criterion, seed)
        else:
            new = pruning.shrink(
                net, masks, pruning.apportion(pruning.kept_connections(net, masks), keep), criterion, seed
            )
        assert sum(pruning.kept_connections(net, new).values()) == keep
        for name, mask in masks.items():
            assert not (new[name] & ~mask).any()
        masks = new


def test_ties_go_to_the_lower_index() -> None:
    net = net_of((4, 2))
    with torch.no_grad():
        net.op("fc0").weight.fill_(1.0)
    mask = pruning.shrink(net, {}, {"fc0": 3}, "magnitude", 0)["fc0"]
    assert mask.flatten().tolist() == [True] * 3 + [False] * 5


@given(
    values=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    alive=st.lists(st.booleans(), min_size=12, max_size=12),
    data=st.data(),
)
def test_a_threshold_over_all_layers_keeps_what_sorting_keeps(
    values: list[int], alive: list[bool], data: st.DataObject
) -> None:
    net, keep = net_of((4, 2), (2, 2)), data.draw(st.integers(0, sum(alive)))
    parts = torch.tensor(values, dtype=torch.float32).split([8, 4])
    masks = {name: torch.tensor(own).view(2, -1) for name, own in (("fc0", alive[:8]), ("fc1", alive[8:]))}
    with torch.no_grad():
        for name, part in zip(masks, parts, strict=True):
            net.op(name).weight.copy_(part.view(2, -1))
    new = pruning.shrink_globally(net, masks, keep, "magnitude", 0)
    ranked = np.argsort([-value if lives else 1 for value, lives in zip(values, alive, strict=True)], kind="stable")
    kept = torch.cat([new[name].flatten() for name in masks]).nonzero().flatten()
    assert kept.tolist() == sorted(ranked[:keep].tolist())


def test_a_surviving_zero_is_preferred_to_a_removed_connection() -> None:
    net = net_of((4, 1))
    with torch.no_grad():
        net.op("fc0").weight.copy_(torch.tensor([[5.0, 0.0, 0.0, 4.0]]))
    before = {"fc0": torch.tensor([[False, True, True, True]])}
    assert pruning.shrink(net, before, {"fc0": 2}, "magnitude", 0)["fc0"].tolist() == [[False, True, False, True]]


def test_random_masks_depend_on_the_seed_alone() -> None:
    one, other = net_of((9, 7), seed=1), net_of((9, 7), seed=2)
    masks = [pruning.shrink(net, {}, {"fc0": 20}, "random", 5)["fc0"] for net in (one, other)]
    assert torch.equal(*masks)
    assert not torch.equal(masks[0], pruning.shrink(one, {}, {"fc0": 20}, "random", 6)["fc0"])


def test_growing_is_refused() -> None:
    net = net_of((4, 2))
    masks = pruning.shrink(net, {}, {"fc0": 3}, "magnitude", 0)
    with pytest.raises(ValueError, match="3 connections left: it cannot keep 4"):
        pruning.shrink(net, masks, {"fc0": 4}, "magnitude", 0)
    with pytest.raises(ValueError, match="cannot keep 4"):
        pruning.shrink_globally(net, masks, 4, "magnitude", 0)


@given(st.floats(0.01, 0.99), st.integers(1, 9))
def test_schedules_end_at_the_target_and_decrease(target: float, steps: int) -> None:
    geometric = pruning.step_shares(target, steps, "geometric")
    linear = pruning.step_shares(target, steps, "linear")
    for shares in (geometric, linear):
        assert len(shares) == steps
        assert shares[-1] == target
        assert all(later < earlier for earlier, later in zip([1.0, *shares], shares, strict=False))
    ratios = [later / earlier for earlier, later in zip([1.0, *geometric], geometric, strict=False)]
    assert ratios == pytest.approx([ratios[0]] * steps)
    gaps = [earlier - later for earlier, later in zip([1.0, *linear], linear, strict=False)]
    assert gaps == pytest.approx([gaps[0]] * steps)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 500), min_size=1), st.floats(0, 1))
def test_apportion_is_exact_and_proportional(left: dict[str, int], share: float) -> None:
    total = sum(left.values())
    if total == 0:
        return
    keep = round(share * total)
    counts = pruning.apportion(left, keep)
    assert sum(counts.values()) == keep
    for name, count in counts.items():
        assert abs(count - left[name] * keep / total) < 1

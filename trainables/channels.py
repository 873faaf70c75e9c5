"""Pruning channels of any network by physical removal, with all that depends on them.

A channel of a convolution, or a neuron of an inner product, stands at the same place in everything that it is added to,
normalised with or multiplied by: a *group* of weights loses it together. Torch-Pruning finds the groups (Fang et al.
2023, "DepGraph: Towards any structural pruning"). Only those groups are touched whose removal is what pruning means
here: the smaller net computes what the larger one does with these channels' outgoing weights at zero. Of transformers
these are the hidden neurons of each MLP, as LayerNorm mixes all channels of what it normalises.
"""

import copy
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainables import networks
from trainables.hybrid import HybridTransferNet
from trainables.layers import LayeredNet
from trainables.pruning import Importance, Masks

Widths = dict[str, int]
"""Channels or neurons by the weight that makes them; of a group, the lowest one of the main branch, its name."""

MIXING = (nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention, nn.Embedding, nn.Parameter)
"""What changes in all channels when one is removed, or cannot lose one."""
REMEDY = "pip install -c constraints.txt -e '.[channels]'"


class _Group(NamedTuple):
    """A group as Torch-Pruning has it, and the graph that it is of."""

    graph: Any
    module: nn.Module
    items: Any

    @property
    def width(self) -> int:
        return len(self.items[0].idxs)

    def of(self, channels: Sequence[int]) -> Any:
        """The same group, of some channels only."""
        return _items(self.graph, self.module, channels)

    def outgoing(self, items: Any = None) -> list[tuple[nn.Module, list[int], list[int]]]:
        """Modules that take the channels: which of their inputs these are, and which channel each of them is."""
        return [
            (item.dep.target.module, item.idxs, item.root_idxs)
            for item in (self.items if items is None else items)
            if self.graph.is_in_channel_pruning_fn(item.dep.handler) and _weighs(item.dep.target.module)
        ]


def installed() -> bool:
    """Whether Torch-Pruning is there."""
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        return False
    return True


@cache
def widths(network: str) -> Widths:
    """The channels that can be removed from a network, by group; none if no removal is mere pruning."""
    net = networks.fresh(network, 2, seed=0)
    try:
        names = list(_groups(HybridTransferNet(net)))
    except ImportError:
        raise
    except Exception:  # Torch-Pruning cannot follow every network
        return {}
    if not _is_pruning(net, names):
        names = [name for name in names if _is_pruning(net, [name])]
    return {name: group.width for name, group in _groups(HybridTransferNet(net), names).items()}


def schedule(dense: Mapping[str, int], share: float, round_to: int = 1) -> list[Widths]:
    """Channels that are left after each step, until no layer has any to lose.

    Each step takes ``share`` of what is left of every group. What stays is rounded up to a multiple of ``round_to``,
    by which fast kernels want to have it; at least this many stay.

    Args:
        dense: channels of the unpruned network, by group.
        share: above 0 and below 1.
        round_to: channels, at least 1.
    """
    steps: list[Widths] = []
    least = {name: min(width, round_to) for name, width in dense.items()}
    left, proportion = dict(dense), 1.0
    while left != least:
        proportion *= 1 - share
        # Less a trifle, for 10 * 0.9 may come out above 9.
        exact = {name: ceil(width * proportion / round_to - 1e-9) * round_to for name, width in dense.items()}
        after = {name: min(left[name], max(least[name], exact[name])) for name in dense}
        if after != left:
            steps.append(after)
        left = after
    return steps


def scores(
    net: HybridTransferNet, names: Collection[str], importance: Importance, batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """How much each channel counts, float64 ``(channels,)``, by group.

    ``activation``: mean absolute value over all images and positions at the inputs of what takes it, the paper's
    measure if these follow ReLU; ``magnitude``: norm of all weights of its group (Fang et al. 2023).

    ``batches`` are normalised images ``(n, channels, height, width)``; ``magnitude`` has no use for them.
    """
    groups = _groups(net, names)
    if importance == "activation":
        return _activations(net.main, groups, batches)
    import torch_pruning

    norm = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    return {name: norm(group.items).detach().double().cpu() for name, group in groups.items()}


def remove_to(net: HybridTransferNet, masks: Masks, left: Mapping[str, int], scores: Mapping[str, Tensor]) -> Masks:
    """Leave a number of channels of each group, those of the highest scores; in place. Ties: the lower index goes.

    Where the extra branch sits on removed channels, it loses its weights for them. Gives the masks of the smaller
    weights.
    """
    for name, group in _groups(net, left).items():
        gone = scores[name].argsort(stable=True)[: len(scores[name]) - left[name]]
        if len(gone):
            masks = _remove(net, masks, group, gone.sort().values.tolist())
    return masks


def _remove(net: HybridTransferNet, masks: Masks, group: _Group, gone: list[int]) -> Masks:
    weights = {home.module: name for name, home in net.main.connections().items()}
    items, smaller = group.of(gone), dict(masks)
    for item in items:
        name = weights.get(item.dep.target.module)
        if name is None or name not in smaller:
            continue
        dimension = 0 if group.graph.is_out_channel_pruning_fn(item.dep.handler) else 1
        stays = torch.ones(smaller[name].shape[dimension], dtype=torch.bool, device=smaller[name].device)
        stays[item.idxs] = False
        smaller[name] = smaller[name].index_select(dimension, stays.nonzero().flatten())
    items.prune(record_history=False)
    return smaller


def _groups(net: HybridTransferNet, names: Collection[str] | None = None) -> dict[str, _Group]:
    """Groups by the first weight of the main branch in them, bottom first: all that may be removed, or the named."""
    import torch_pruning

    traced = HybridTransferNet(net.main, net.extra)
    graph = torch_pruning.DependencyGraph()
    with warnings.catch_warnings(), torch.enable_grad():
        # Parameters outside of modules: groups that have some are left alone.
        warnings.simplefilter("ignore")
        graph.build_dependency(
            traced,
            [torch.zeros(2, *net.main.input_shape, device=next(net.parameters()).device)],
            output_transform=lambda output: [branch for branch in output if branch is not None],
            verbose=False,
        )
    ends = [module for branch in (net.main, net.extra) if branch for module in _output_modules(branch)]
    seen: set[nn.Module] = set()
    found = {}
    for name, home in net.main.connections().items():
        module = home.module
        if module in seen or not _weighs(module) or module not in graph.module2node:
            continue
        if any(_mixes(one) for one in _reached(graph, module)):
            continue
        items = _items(graph, module, range(len(home.tensor)))
        gives = [item.dep.target.module for item in items if graph.is_out_channel_pruning_fn(item.dep.handler)]
        seen.update(gives)
        if len(items[0].idxs) > 1 and not any(one in ends for one in gives) and (names is None or name in names):
            found[name] = _Group(graph, module, items)
    return found


def _items(graph: Any, module: nn.Module, channels: Sequence[int]) -> Any:
    """What loses something if a module loses these of its outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, list(channels))


def _reached(graph: Any, module: nn.Module) -> set[nn.Module]:
    """All that may be in a module's group, without asking which channels, which may never end (Swin)."""
    start = (graph.module2node[module], graph.get_pruner_of_module(module).prune_out_channels)
    reached, pending = {start}, [start]
    while pending:
        node, removal = pending.pop()
        for dependency in node.dependencies:
            after = (dependency.target, dependency.handler)
            if dependency.is_triggered_by(removal) and after not in reached:
                reached.add(after)
                pending.append(after)
    return {node.module for node, _ in reached}


def _mixes(module: object) -> bool:
    """Whether removing a channel changes other channels too, or its effect is unknown."""
    # "Unbind" is how attention takes queries, keys and values apart.
    return isinstance(module, MIXING) or _is_grouped(module) or type(module).__name__ == "_UnbindOp"


def _output_modules(branch: LayeredNet) -> list[nn.Module]:
    return [home.module for home in branch.layer(branch.names[-1]).connections(branch.names[-1]).values()][-1:]


def _weighs(module: nn.Module) -> bool:
    """Whether it mixes channels by weights of its own."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _is_grouped(module: object) -> bool:
    """Whether it is a convolution in groups of several channels each, which cannot lose one."""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups != module.out_channels


@torch.no_grad()
def _is_pruning(net: LayeredNet, names: Sequence[str]) -> bool:
    """Whether removing channels of the groups has the same result as zeros at their outgoing weights."""
    small, silenced = (HybridTransferNet(copy.deepcopy(net)) for _ in range(2))
    x = torch.rand(2, *net.input_shape, generator=torch.Generator().manual_seed(0))
    try:
        # What is traced prints what it raises.
        with redirect_stderr(StringIO()):
            groups = _groups(small, names)
            for name, group in _groups(silenced, names).items():
                gone = list(range(1, group.width, 3))
                for module, inputs, _ in group.outgoing(group.of(gone)):
                    module.get_parameter("weight")[:, inputs] = 0
                _remove(small, {}, groups[name], gone)
            ours, theirs = small.eval()(x).main, silenced.eval()(x).main
        return torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    except Exception:  # whatever goes wrong in shapes that a forward has written down: these channels have to stay
        return False


@torch.no_grad()
def _activations(main: LayeredNet, groups: Mapping[str, _Group], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    sums: dict[nn.Module, Tensor] = {}

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double().abs()
        positions = [d for d in range(x.ndim) if d not in (0, 1 if isinstance(module, nn.Conv2d) else x.ndim - 1)]
        mean = x.mean(positions) if positions else x
        sums[module] = sums.get(module, torch.zeros((), dtype=torch.float64)) + mean.sum(0).cpu()

    own = set(main.modules())
    takers = {module for group in groups.values() for module, _, _ in group.outgoing() if module in own}
    hooks = [module.register_forward_pre_hook(add) for module in takers]
    images = 0
    main.eval()
    for batch in batches:
        main(batch)
        images += len(batch)
    for hook in hooks:
        hook.remove()
    return {
        name: _by_channel(group, {module: total / images for module, total in sums.items()})
        for name, group in groups.items()
    }


def _by_channel(group: _Group, means: Mapping[nn.Module, Tensor]) -> Tensor:
    """Mean over all inputs that each channel is, of each module that takes it, then over these."""
    found = []
    for module, inputs, channels in group.outgoing():
        if module in means:
            of = torch.tensor(channels)
            total = torch.zeros(group.width, dtype=torch.float64).index_add_(0, of, means[module][inputs])
            found.append(total / torch.bincount(of, minlength=group.width).clamp(min=1))
    return torch.stack(found).mean(0)

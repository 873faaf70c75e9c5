"""What a stage prunes its net to: at once, or gradually while the net trains."""

from collections.abc import Callable
from dataclasses import dataclass

from trainables import pruning
from trainables.hyperparameters import NONZERO, GradualConfig, MeanwhileParams, SourcePruneParams, TargetPruneParams
from trainables.layers import LayeredNet
from trainables.patterns import Pattern, parsed
from trainables.pruning import Masks

PruneParams = SourcePruneParams | TargetPruneParams | MeanwhileParams
"""What decides what is kept."""


class PruneStep:
    """A step from the connections that a net has to those that are asked for."""

    def __init__(
        self,
        main: LayeredNet,
        masks: Masks,
        params: PruneParams,
        dense: dict[str, int],
        seed: int,
    ) -> None:
        """A step of the main branch.

        Args:
            main: the net, which may train on.
            masks: what it has now.
            params: what is asked for.
            dense: connections of each weight of the unpruned net.
            seed: decides random masks.
        """
        self.main, self.params, self.dense, self.seed = main, params, dense, seed
        self.before = pruning.kept_connections(main, masks)
        self.pattern: Pattern | None = parsed(params.pattern) if params.pattern is not None else None

    def masks(self, masks: Masks, progress: float = 1.0) -> Masks:
        """The masks after a share of the way, by the cubic schedule of Zhu and Gupta 2017; 1 is the end of it."""
        keep, left = self.params.keep, (1 - progress) ** 3
        if keep == NONZERO:
            return self._to_counts(masks, pruning.nonzero_connections(self.main))
        assert not isinstance(keep, str)
        if self.pattern is not None and self.pattern.in_groups:
            return self._in_groups(masks, self.pattern, self._by_weight(keep))
        if isinstance(keep, dict):
            ends = {weight: round(share * self.dense[weight]) for weight, share in self._by_weight(keep).items()}
            counts = {weight: round(end + (self.before[weight] - end) * left) for weight, end in ends.items()}
            return self._to_counts(masks, counts)
        end = round(keep * sum(self.dense.values()))
        count = round(end + (sum(self.before.values()) - end) * left)
        if self.params.scope == "global":
            return pruning.shrink_globally(self.main, masks, count, self.params.criterion, self.seed, self.pattern)
        return self._to_counts(masks, pruning.apportion(pruning.kept_connections(self.main, masks), count))

    def _in_groups(self, masks: Masks, pattern: Pattern, shares: dict[str, float]) -> Masks:
        stay = {weight: pattern.stay(share) for weight, share in shares.items()}
        return pruning.shrink_in_groups(self.main, masks, stay, pattern, self.params.criterion, self.seed)

    def _to_counts(self, masks: Masks, counts: dict[str, int]) -> Masks:
        return pruning.shrink(self.main, masks, counts, self.params.criterion, self.seed, self.pattern)

    def _by_weight(self, keep: dict[str, float] | float) -> dict[str, float]:
        """The share of each weight: its layer's, or one for all."""
        if not isinstance(keep, dict):
            return dict.fromkeys(self.dense, keep)
        return {weight: share for layer, share in keep.items() for weight in self.main.layer(layer).connections(layer)}


@dataclass(frozen=True)
class Gradual:
    """Pruning while a net trains."""

    config: GradualConfig
    step: PruneStep
    pruned: Callable[[Masks], None]
    """Called with the masks after each update."""

    def due(self, trained: float) -> int:
        """Updates that are due after a share of the training."""
        through = (trained - self.config.begin) / (self.config.end - self.config.begin)
        # Plus a trifle, for 3 / 10 of a training may come out below 0.3.
        return max(0, min(self.config.updates, int(through * self.config.updates + 1e-9)))

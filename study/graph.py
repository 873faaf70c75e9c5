"""From cells (what to compare) to stages (what to compute, once): the stage graph and its content keys."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec

from search_spaces.ablations import cells_of
from search_spaces.axes import point_of_axis
from search_spaces.cells import Cell, KnowledgeChoice, Sparsity
from study.config import NeuronPruneConfig, StudyConfig, check, located_weights, target_config
from study.keys import Contents, contents, stage_key
from trainables import data, networks, neurons
from trainables.data import Places
from trainables.hyperparameters import (
    EvaluationParams,
    FeaturesParams,
    FusionParams,
    KnowledgeConfig,
    KnowledgeParams,
    NeuronPruneParams,
    ProbeParams,
    ReferenceParams,
    StageParams,
    StageSpec,
    TargetPruneParams,
    TrainConfig,
    TransferParams,
)
from trainables.pace import counted
from trainables.settings import DataConfig

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A unit of training work, with its parents' keys by role."""

    key: str
    spec: StageSpec
    parents: dict[str, str]
    effort: int
    """Training images that the stage is expected to see: what an estimate of its time goes by."""
    contents: Contents
    """What the key was made of: the node compares it with what it reads."""


@dataclass
class StageGraph:
    """All stages of a study, parents before children, and the cells with the stages that each needs."""

    stages: dict[str, Stage] = field(default_factory=dict)
    cells: list[tuple[Cell, str]] = field(default_factory=list)
    """Each cell with the stage whose accuracies are its net's."""
    networks: set[str] = field(default_factory=set, init=False, compare=False)
    """The networks that are trained."""
    targets: set[tuple[str, str | None]] = field(default_factory=set, init=False, compare=False)
    """The data sets that nets are transferred to: names and paths."""
    planned: dict[object, tuple[StudyConfig, str]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What :func:`_once` keeps."""
    _positions: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take note of the stages that are there."""
        stages, self.stages = self.stages, {}
        for stage in stages.values():
            self.add_stage(stage)

    def add_stage(self, stage: Stage) -> None:
        """Add a stage whose parents are there; nothing changes if it is there itself."""
        if stage.key in self.stages:
            return
        self.stages[stage.key] = stage
        self._positions[stage.key] = len(self._positions)
        if stage.spec.kind != "fusion":
            self.networks.add(stage.spec.network)
        if stage.spec.kind == "transfer":
            self.targets.add(stage.spec.data.place)

    def add(self, cell: Cell) -> str:
        """Add a cell and the stages that it needs. Return the key of the one that measures its net."""
        path = _Path(self, cell)
        key = path.final()
        path.evaluate_source()
        self.cells.append((cell, key))
        return key

    def net_of(self, key: str) -> str:
        """The stage that produces the net which a cell's stage measures: most measure their own."""
        stage = self.stages[key]
        return stage.parents["net"] if stage.spec.kind == "evaluation" else key

    def path(self, key: str) -> list[str]:
        """The stage and all that it needs, in the graph's order."""
        needed, pending = set(), [key]
        while pending:
            current = pending.pop()
            if current not in needed:
                needed.add(current)
                pending.extend(self.stages[current].parents.values())
        return sorted(needed, key=self._positions.__getitem__)

    @property
    def unshared(self) -> int:
        """Stages that would be trained if each cell trained all it needs."""
        return sum(len(self.path(key)) for _, key in self.cells)


def plan(config: StudyConfig) -> StageGraph:
    """The stage graph of a study: every cell's path, shared stages once.

    Of several targets, all of them.

    Raises:
        ConfigError: an axis, a stream or a target makes a configuration that cannot be used.
    """
    if config.targets:
        return joined(plan_targets(config).values())
    return plan_cells(cells_of(config), checked=config)


def plan_targets(config: StudyConfig) -> dict[str, StageGraph]:
    """The stage graph of each of a study's several targets, by name.

    Raises:
        ConfigError: as :func:`plan`.
    """
    return {target: plan(target_config(config, target)) for target in config.targets}


def joined(graphs: Iterable[StageGraph]) -> StageGraph:
    """One graph of several, in which what they share is there once."""
    graph = StageGraph()
    for one in graphs:
        for stage in one.stages.values():
            graph.add_stage(stage)
        graph.cells += one.cells
    return graph


def plan_cells(cells: Iterable[Cell], checked: StudyConfig) -> StageGraph:
    """The stage graph of some cells, whose configurations are checked, each once; ``checked`` is one that was.

    Raises:
        ConfigError: one of them cannot be used.
    """
    graph, seen = StageGraph(), {id(checked)}
    for cell in counted(cells, lambda done: LOG.info("planned %s cells so far", f"{done:,}")):
        for part in cell.parts or (cell,):
            if id(part.config) not in seen:
                seen.add(id(part.config))
                check_cell(part)
        graph.add(cell)
    return graph


def check_cell(cell: Cell) -> None:
    """Make sure that a cell's configuration can be used.

    Raises:
        ConfigError: it cannot.
    """
    what = point_of_axis(cell.ablation, cell.point) if cell.point else f"streams.{cell.stream}"
    # A net that is not Hybrid-TransferNet's successor starts from other shares than the schedule's check knows.
    check(cell.config, what, prunes_target=cell.keep is not None and cell.sparsity == "magnitude")


_Given = ParamSpec("_Given")
_Planner = Callable[Concatenate["_Path", _Given], str]


def _once(planner: _Planner[_Given]) -> _Planner[_Given]:
    """Plan a stage and what it needs once for all cells of a configuration that share it: most cells of one seed do."""

    @wraps(planner)
    def plan_once(path: "_Path", /, *args: _Given.args, **kwargs: _Given.kwargs) -> str:
        cell, planned = path.cell, path.graph.planned
        asked = (id(path.config), cell.seed, cell.target_knowledge, planner.__name__, args, *kwargs.items())
        if asked not in planned:
            # With the configuration, as the id of one that is gone may be another's.
            planned[asked] = path.config, planner(path, *args, **kwargs)
        return planned[asked][1]

    return plan_once


class _Path:
    """The stages of one cell, each added to the graph unless it is there."""

    def __init__(self, graph: StageGraph, cell: Cell) -> None:
        self.graph, self.cell, self.config = graph, cell, cell.config

    def final(self) -> str:
        """The stage whose accuracies are the cell's."""
        if self.cell.parts:
            return self.fusion(self.cell.parts)
        return self.evaluation(self.net(), self.config.target.data, self.cell.seed)

    def net(self) -> str:
        """The stage that produces the cell's net."""
        cell = self.cell
        if cell.probe:
            return self.probe(cell.sparsity)
        key = self.transfer(cell.sparsity, cell.knowledge)
        if cell.keep is None:
            return self.neuron_steps(key, cell.neuron_steps) if cell.neuron_steps else key
        for keep in self.config.target_prune.keep:
            if keep >= cell.keep:
                key = self.target_prune(key, keep)
        if not cell.neurons:
            return key
        steps = self.pruning_of_neurons.steps
        return self.neuron_prune(key) if steps is None else self.neuron_steps(key, steps)

    @property
    def pruning_of_neurons(self) -> NeuronPruneConfig:
        assert self.config.neuron_prune is not None
        return self.config.neuron_prune

    @property
    def source_seed(self) -> int:
        return self.config.source.seed if self.config.source.seed is not None else self.cell.seed

    def evaluate_source(self) -> None:
        """Have the source's nets that the cell starts from measured as the source's data asks for."""
        if not self.cell.parts and self.config.source.data.evaluation != "centre":
            for net in (self.reference(), self.sparse_source(self.cell.sparsity)):
                self.evaluation(net, self.config.source.data, self.source_seed)

    def evaluation(self, net: str, images: DataConfig, seed: int) -> str:
        """The stage that measures a net: its own, which sees the centre crop, or one more."""
        if images.evaluation == "centre":
            return net
        spec = StageSpec(
            kind="evaluation", network=self.config.network, data=images, seed=seed, params=EvaluationParams()
        )
        return self._add(spec, {"net": net})

    @_once
    def reference(self) -> str:
        train, weights = self.config.source.train, located_weights(self.config)
        return self._source_stage(ReferenceParams(train=train, weights=weights), {})

    @_once
    def sparse_source(self, sparsity: Sparsity) -> str:
        """The reference, pruned; random masks are of the cell's seed, also if all seeds share the reference."""
        key = self.reference()
        if sparsity != "none" and not self.config.source.prune.in_transfer:
            # With one mask for all seeds, the study would only show how that mask does.
            own = sparsity == "random" and self.cell.seed != self.source_seed
            changes = {"mask_seed": self.cell.seed} if own else {}
            for params in self.config.source.prune.schedule(sparsity):
                key = self._source_stage(params.model_copy(update=changes), {"source": key})
        return key

    @_once
    def knowledge(self) -> str:
        spec = self._spec(self.config.target.data, None, KnowledgeParams())
        return self._add(spec, {"reference": self.reference()})

    @_once
    def probe(self, sparsity: Sparsity) -> str:
        """A linear probe; the features that it is trained on are computed once for all seeds."""
        source = {"source": self.sparse_source(sparsity)}
        features = self._add(self._spec(self.config.target.data, None, FeaturesParams()), source)
        train = self.config.transfer.probe or self.config.transfer.train
        return self._target_stage(ProbeParams(train=train), {**source, "features": features})

    @_once
    def transfer(self, sparsity: Sparsity, choice: KnowledgeChoice) -> str:
        config = self.config.transfer
        n_m = config.fresh_layers(is_standard=sparsity == "none" and choice == "none")
        n_e = config.n_e if choice != "none" else None
        meanwhile = self.config.source.prune.meanwhile(sparsity) if sparsity != "none" else None
        params = TransferParams(
            n_m=n_m, n_e=n_e, knowledge=self._knowledge_config(choice), prune=meanwhile, train=config.train
        )
        parents = {"source": self.sparse_source(sparsity)}
        if choice != "none":
            parents |= {"reference": self.reference(), **self._cached_knowledge()}
        return self._target_stage(params, parents)

    @_once
    def target_prune(self, start: str, keep: float) -> str:
        config, choice = self.config.target_prune, self.cell.target_knowledge
        params = TargetPruneParams(
            keep=keep,
            scope=config.scope,
            criterion=config.criterion,
            pattern=config.pattern,
            gradual=config.gradual,
            knowledge=self._knowledge_config(choice),
            retrain=config.retrain,
        )
        return self._target_stage(params, {"start": start, **self._knowledge_parents(choice)})

    @_once
    def neuron_prune(self, start: str) -> str:
        choice = self.cell.target_knowledge
        params = self.pruning_of_neurons.params(self._knowledge_config(choice))
        parents = {"start": start, "standard": self.transfer("none", "none"), **self._knowledge_parents(choice)}
        return self._target_stage(params, parents)

    def fusion(self, parts: Sequence[Cell]) -> str:
        nets = {str(part.stream): _Path(self.graph, part) for part in parts}
        network = " + ".join(net.config.network for net in nets.values())
        params = FusionParams(weights=self.config.fusion)
        spec = self._spec(parts[0].config.target.data, self.cell.seed, params, network)
        return self._add(spec, {stream: net.final() for stream, net in nets.items()})

    @_once
    def neuron_steps(self, key: str, steps: int) -> str:
        """A chain of single steps: nets with more steps share those of the nets with fewer."""
        config, choice = self.pruning_of_neurons, self.cell.target_knowledge
        one: list[dict[str, Any]]
        if config.channels_per_step is not None:
            one = [{"step": step} for step in range(1, steps + 1)]
        else:
            widths = networks.inner_product_widths(self.config.network)
            one = [{"layer": layer} for layer in neurons.turns(widths, config.neurons_per_step)[:steps]]
        for which in one:
            params = config.params(self._knowledge_config(choice), **which)
            key = self._target_stage(params, {"start": key, **self._knowledge_parents(choice)})
        return key

    def _knowledge_config(self, choice: KnowledgeChoice) -> KnowledgeConfig | None:
        if choice == "none":
            return None
        config = self.config.transfer
        return KnowledgeConfig(
            source=choice, tau=config.tau, lambda_=config.lambda_, hinton_factor=config.hinton_factor, live=config.live
        )

    def _knowledge_parents(self, choice: KnowledgeChoice) -> dict[str, str]:
        if choice == "none":
            return {}
        return {"reference": self.reference()} if self.config.transfer.live else self._cached_knowledge()

    def _cached_knowledge(self) -> dict[str, str]:
        return {} if self.config.transfer.live else {"knowledge": self.knowledge()}

    def _source_stage(self, params: StageParams, parents: dict[str, str]) -> str:
        return self._add(self._spec(self.config.source.data, self.source_seed, params), parents)

    def _target_stage(self, params: StageParams, parents: dict[str, str]) -> str:
        return self._add(self._spec(self.config.target.data, self.cell.seed, params), parents)

    def _spec(self, images: DataConfig, seed: int | None, params: StageParams, network: str | None = None) -> StageSpec:
        # Accuracies of other crops than the centre one are measured by stages of their own.
        images = images.model_copy(update={"evaluation": "centre"})
        return StageSpec(
            kind=params.kind, network=network or self.config.network, data=images, seed=seed, params=params
        )

    def _add(self, spec: StageSpec, parents: dict[str, str]) -> str:
        key = stage_key(spec, parents, self.config.data)
        if key not in self.graph.stages:
            effort, read = _effort(spec, self.config.data), contents(spec, self.config.data)
            self.graph.add_stage(Stage(key, spec, parents, effort, read))
        return key


@cache
def _training_images(config: DataConfig, seed: int, places: Places) -> int:
    return len(data.split(data.load(config, places), config, seed).train)


def _effort(spec: StageSpec, places: Places) -> int:
    train: TrainConfig | None = getattr(spec.params, "train", None) or getattr(spec.params, "retrain", None)
    if train is None:
        return 0
    images = _training_images(spec.data, spec.seed or 0, places)
    if isinstance(spec.params, ProbeParams):
        # Its epochs see features; the images are seen once, to measure the net.
        return images
    # Nobody knows when accuracy falls.
    rounds = 3 if isinstance(spec.params, NeuronPruneParams) and not spec.params.is_one_step else 1
    return images * train.epochs * rounds

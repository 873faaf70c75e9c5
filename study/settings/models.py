"""The models of a study's configuration: each key is checked by itself, and nothing is opened."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from study.facts import PaperData
from study.names import name_fault
from study.settings.choices import LoggerName
from study.settings.resources import ResourceConfig
from study.settings.search_space import CrossingConfig, SearchConfig
from study.settings.tuned import TunedConfig
from trainables import networks, patterns, pruning
from trainables.data import Places
from trainables.data.absent import NONE
from trainables.hyperparameters import (
    NONZERO,
    GradualConfig,
    KnowledgeConfig,
    MaskPattern,
    MeanwhileParams,
    NeuronPruneParams,
    SourcePruneParams,
    TrainConfig,
    WeightsConfig,
)
from trainables.settings import DataConfig, Hyperparameters, Share
from trainables.shares import SHARES
from trainables.suggestions import choices

OF_A_TARGET = ("target", "transfer", "target_prune", "neuron_prune", "published", "same_data")
"""Keys that may differ from target to target."""
OWN_FOLDERS = ("report", "errors", "ray")
"""Folders that a study has itself, in which each of its targets has one."""


def _require_pattern(text: str, shares: Sequence[float], scope: pruning.Scope, gradual: GradualConfig | None) -> None:
    """Refuse shares that a pattern cannot have, and what would need others on the way to them."""
    pattern = patterns.parsed(text)
    if not pattern.in_groups:
        return
    for share in shares:
        pattern.stay(share)
    if scope == "global" or gradual is not None:
        raise ValueError(
            f"pattern {text} is the same in every layer and at once: set scope to layer and gradual to null"
        )


class SourcePruneConfig(Hyperparameters):
    """The iterative prune schedule that leads from the reference to the Sparse-SourceNet."""

    keep: str | Share | dict[str, Share]
    """Share of connections that each layer keeps in the end: a named table, a share by layer, or one share; or
    ``nonzero``, the connections that are not zero in sparse weights from elsewhere, which are then held."""
    steps: Annotated[int, Field(ge=1)] = 4
    """Prune-and-retrain steps on the way to ``keep``."""
    spacing: pruning.Spacing = "geometric"
    """Shares on the way: each step removes the same proportion (``geometric``), or the same number (``linear``)."""
    scope: pruning.Scope = "layer"
    """``layer``: each layer keeps its share; ``global``: one threshold for all layers (``keep`` is one share)."""
    pattern: MaskPattern | None = None
    """Which connections stay together: ``N:4``, N of each 4 consecutive inputs, N being the share of 4 that is kept;
    ``4x1``, blocks of 4 outputs and 1 input; null: each for itself."""
    gradual: GradualConfig | None = None
    """Prune while the net retrains, in place of steps before each retraining; without ``retrain``, during the transfer:
    the layers that are transferred then lose their connections there."""
    retrain: TrainConfig | None
    """Null: nothing is retrained, in the one step that there is then."""

    @field_validator("keep")
    @classmethod
    def _table_exists(cls, keep: Any) -> Any:
        if isinstance(keep, str) and keep not in (known := [*SHARES, NONZERO]):
            raise ValueError(f"no table of shares {keep!r}: {choices(keep, known)}")
        return keep

    @model_validator(mode="after")
    def _global_takes_one_share(self) -> "SourcePruneConfig":
        if self.scope == "global" and not isinstance(self.keep, float):
            raise ValueError("scope global takes one share as keep, not a share by layer")
        return self

    @model_validator(mode="after")
    def _steps_are_for_retraining(self) -> "SourcePruneConfig":
        if self.retrain is None and self.steps > 1:
            raise ValueError(f"steps is {self.steps}, but without retraining they make no difference: set steps to 1")
        return self

    @model_validator(mode="after")
    def _masks_that_are_given_are_made_in_one_step(self) -> "SourcePruneConfig":
        if self.is_given and (self.steps > 1 or self.scope == "global"):
            raise ValueError("with keep=nonzero, the masks are those of the weights: set steps to 1 and scope to layer")
        return self

    @model_validator(mode="after")
    def _fits_gradual(self) -> "SourcePruneConfig":
        if self.gradual is not None and (self.is_given or self.steps > 1):
            raise ValueError("gradual prunes within one training: set steps to 1, and give a share as keep")
        return self

    @model_validator(mode="after")
    def _fits_pattern(self) -> "SourcePruneConfig":
        if self.pattern is not None and self.is_given:
            raise ValueError("with keep=nonzero, the masks are those of the weights: set pattern to null")
        if self.pattern is not None:
            for params in self.schedule("magnitude"):
                keep = params.keep
                shares = list(keep.values()) if isinstance(keep, dict) else [float(keep)]
                _require_pattern(self.pattern, shares, self.scope, self.gradual)
        return self

    @property
    def in_transfer(self) -> bool:
        """Whether connections go during the transfer, and not in the source."""
        return self.gradual is not None and self.retrain is None

    @property
    def is_given(self) -> bool:
        """Whether the masks are those of the weights that are loaded."""
        return self.keep == NONZERO

    @property
    def final_shares(self) -> dict[str, float] | float:
        """The shares kept in the end, a named table looked up; of masks that are not given."""
        return SHARES[self.keep] if isinstance(self.keep, str) else self.keep

    def schedule(self, criterion: pruning.Criterion) -> list[SourcePruneParams]:
        """The hyperparameters of each step."""
        if self.is_given:
            return [SourcePruneParams(keep=NONZERO, criterion=criterion, retrain=self.retrain)]

        # Rounded, so that keys do not hang on the last bit of a platform's power function.
        def shares(target: float) -> list[float]:
            return [round(share, 6) for share in pruning.step_shares(target, self.steps, self.spacing)]

        keep = self.final_shares
        by_step: list[dict[str, float]] | list[float]
        if isinstance(keep, dict):
            by_step = [dict(zip(keep, step, strict=True)) for step in zip(*map(shares, keep.values()), strict=True)]
        else:
            by_step = shares(keep)
        return [
            SourcePruneParams(
                keep=step,
                scope=self.scope,
                criterion=criterion,
                pattern=self.pattern,
                gradual=self.gradual,
                retrain=self.retrain,
            )
            for step in by_step
        ]

    def meanwhile(self, criterion: pruning.Criterion) -> MeanwhileParams | None:
        """How the transferred layers are pruned during the transfer; None if they are pruned in the source."""
        if not self.in_transfer:
            return None
        (step,) = self.schedule(criterion)
        return MeanwhileParams(**{name: getattr(step, name) for name in MeanwhileParams.model_fields})


class SourceConfig(Hyperparameters):
    """The source domain: its data, the Reference-SourceNet and the Sparse-SourceNet."""

    data: DataConfig
    """Images of the source; null (or the data set ``none``): there are none, only a pretrained net."""
    seed: int | None = 0
    """One seed for all cells, as the paper has one reference; null: each cell's seed trains its own."""
    weights: WeightsConfig | None = None
    """Pretrained weights: the whole reference or, with ``train``, what its training starts from."""
    train: TrainConfig | None = None
    """Training of the reference; null: the pretrained weights are the reference."""
    prune: SourcePruneConfig

    @field_validator("data", mode="before")
    @classmethod
    def _null_is_no_images(cls, value: Any) -> Any:
        return {"name": NONE} if value is None else value

    @model_validator(mode="after")
    def _without_images_nothing_is_trained(self) -> "SourceConfig":
        if self.data.name == NONE and (self.weights is None or self.train or self.prune.retrain):
            raise ValueError("without data nothing can be trained: give weights, and null for train and prune.retrain")
        return self

    @model_validator(mode="after")
    def _reference_comes_from_somewhere(self) -> "SourceConfig":
        if self.train is None and self.weights is None:
            raise ValueError("give train, or weights to load, or both")
        if self.prune.is_given and self.train is not None:
            raise ValueError("prune.keep=nonzero takes the masks of sparse weights: give weights, and null for train")
        return self


class TargetConfig(Hyperparameters):
    """The target domain."""

    data: DataConfig


class TransferConfig(Hyperparameters):
    """From source to target: the transfer nets."""

    tau: Annotated[float, Field(gt=0)] = 4.0
    """Temperature that softens the reference's outputs and the extra branch's (Eq. 2)."""
    lambda_: Annotated[float, Field(ge=0, alias="lambda")] = 1.0
    """Weight of L_extra in the loss (Eq. 1); 0: the extra branch has no effect."""
    n_m: Annotated[int, Field(ge=0)] = 2
    """N_m: layers, from the top, that the main branch does not take from the source net: they start dense and random.
    The output layer always does, so 0 and 1 are the same."""
    standard_n_m: Annotated[int, Field(ge=0)] | None = None
    """N_m of Standard-TransferNet, if it differs from that of the other nets: 1 is plain fine-tuning."""
    n_e: Annotated[int, Field(ge=1)] = 2
    """N_e: layers of the extra branch, taken from the reference; it shares the layers below with the main branch."""
    hinton_factor: bool = False
    """Multiply L_extra by tau^2 (Hinton et al. 2015). The paper does not."""
    live: bool = False
    """Run the frozen reference on every batch instead of looking up its stored outputs: needed if training views are
    not from a list (``random`` or ``resized`` views, ``auto_augment``, mixup, CutMix)."""
    train: TrainConfig
    """Training of the transfer nets."""
    probe: TrainConfig | None = None
    """How linear probes are trained (the ablation ``probes``); null: as the transfer nets are."""

    def n_m_of(self, *, is_standard: bool) -> int:
        """N_m of Standard-TransferNet, or of the other nets."""
        return self.standard_n_m if is_standard and self.standard_n_m is not None else self.n_m

    def fresh_layers(self, *, is_standard: bool) -> int:
        """Layers that start dense and random: the output layer is always new, so N_m = 0 and N_m = 1 are the same."""
        return max(self.n_m_of(is_standard=is_standard), 1)


class TargetPruneConfig(Hyperparameters):
    """Pruning connections in the target: each share is a point of Figure 3's curves."""

    keep: Annotated[list[Share], Field(min_length=1)]
    """Shares of the dense net's connections that are left after each prune-and-retrain step, decreasing."""
    named: Annotated[list[Share], Field(min_length=1)]
    """The shares that are listed in Table 3; neuron pruning starts from the last one."""
    scope: pruning.Scope = "layer"
    """``layer``: every layer loses the same proportion; ``global``: one threshold for all layers."""
    criterion: pruning.Criterion = "magnitude"
    """Which connections go: those of smallest magnitude or, as a control, ``random`` ones."""
    pattern: MaskPattern | None = None
    """Which connections stay together: as ``source.prune.pattern``."""
    gradual: GradualConfig | None = None
    """Prune while the net retrains, from each share to the next."""
    retrain: TrainConfig
    """Training after each step."""

    @model_validator(mode="after")
    def _fits_pattern(self) -> "TargetPruneConfig":
        if self.pattern is not None:
            _require_pattern(self.pattern, self.keep, self.scope, self.gradual)
        return self

    @field_validator("keep", "named")
    @classmethod
    def _decreasing(cls, shares: list[float]) -> list[float]:
        for before, after in itertools.pairwise(shares):
            if after >= before:
                raise ValueError(f"shares must decrease, but {after} follows {before}")
        return shares

    @model_validator(mode="after")
    def _named_are_points(self) -> "TargetPruneConfig":
        if strangers := [share for share in self.named if share not in self.keep]:
            raise ValueError(f"named has {strangers[0]}, which is not in keep: {', '.join(map(str, self.keep))}")
        return self


class NeuronPruneConfig(Hyperparameters):
    """Pruning neurons in the target."""

    neurons_per_step: Annotated[int, Field(ge=1)] = 512
    """Neurons of hidden inner products, as the paper has it, layers in turns."""
    channels_per_step: Share | None = None
    """In their place: share of what is left of the channels of every layer, convolutions too, that a step removes with
    all that depends on them."""
    importance: pruning.Importance = "activation"
    """Of channels: the least activated are removed (the paper's), or those whose weights are smallest."""
    round_to: Annotated[int, Field(ge=1)] = 1
    """Of channels: what stays of a layer is a multiple of this."""
    images_per_class: Annotated[int, Field(ge=1)] = 10
    """Training images per class over which activations are averaged."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Percentage points of validation accuracy below Standard-TransferNet that still count as its level."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Number of steps, if an earlier study has shown it; null: until validation accuracy falls below that level."""
    retrain: TrainConfig
    """Training after each step."""

    @model_validator(mode="after")
    def _settings_of_channels_are_for_channels(self) -> "NeuronPruneConfig":
        if self.channels_per_step is None and (self.importance != "activation" or self.round_to > 1):
            raise ValueError("importance and round_to are those of channels: give channels_per_step, too")
        return self

    def params(self, knowledge: KnowledgeConfig | None, **one_step: Any) -> NeuronPruneParams:
        """The hyperparameters of a stage that continues until accuracy falls, or of one step."""
        until = {} if one_step else {"tolerance": self.tolerance}
        channels = {name: getattr(self, name) for name in ("channels_per_step", "importance", "round_to")}
        return NeuronPruneParams(
            neurons_per_step=self.neurons_per_step if self.channels_per_step is None else None,
            images_per_class=self.images_per_class,
            knowledge=knowledge,
            retrain=self.retrain,
            **channels,
            **until,
            **one_step,
        )


class StudyConfig(Hyperparameters):
    """All of a study."""

    title: str
    """Heading of the report."""
    network: Annotated[str, AfterValidator(networks.canonical)]
    """The network: a name of the project, ``torchvision:NAME``, ``timm:NAME`` or ``module:function``."""
    seeds: Annotated[int, Field(ge=1)] | Annotated[list[int], Field(min_length=1)] = 3
    """Replications: their number (seeds 0 to N-1), or the seeds themselves."""
    ablations: Annotated[tuple[str, ...], Field(min_length=1)] = ("paper",)
    """What is compared: named ablations (``paper``, ``transfer``, ``controls``, ``probes``), axes and crossings."""
    published: PaperData | None = None
    """Which of the paper's targets to print next to your results."""
    same_data: bool = False
    """Whether the target is the very data set that ``published`` names."""
    control_study: bool = False
    """Whether knowledge and magnitude pruning are known to help here: the report states whether the study sees it."""
    margin: Annotated[float, Field(gt=0)] = 1.0
    """Percentage points that a pruned net may cost and still be as good as Standard-TransferNet, for what it saves."""
    data: Places = Field(default_factory=Places)
    """Where data sets lie."""
    source: SourceConfig
    target: TargetConfig
    transfer: TransferConfig
    target_prune: TargetPruneConfig
    neuron_prune: NeuronPruneConfig | None
    """Null for a network without hidden inner products, or if no neurons are to be removed: there is no N-net then."""
    resources: ResourceConfig = ResourceConfig()
    loggers: tuple[LoggerName, ...] = ()
    """Trackers that get a run per stage and one with the tables: ``mlflow``, ``trackio``, ``wandb`` (an extra each)."""
    search: SearchConfig = SearchConfig()
    tuned: TunedConfig | None = None
    """Tune each net separately, so that nets are also compared each at its best; null: only at common settings."""
    axes: dict[str, Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]] = Field(default_factory=dict)
    """The user's own axes, by name: points, each a table of dotted keys and values."""
    crossings: dict[str, CrossingConfig] = Field(default_factory=dict)
    """Crossings of axes, by name."""

    targets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Several targets, by name: what each changes of this configuration, as dotted keys and values; or a list of data
    sets, for the names that ``target.data.name`` takes. The stages of the source are trained once for all."""
    streams: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Streams of a two-stream study, by name: what each changes of this configuration, as dotted keys and values."""
    fusion: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Weight of each stream's class scores in their fusion."""

    @field_validator("targets", mode="before")
    @classmethod
    def _data_sets_by_name(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if not isinstance(value, list | tuple):
            raise ValueError("give a table of names, each with what it changes, or a list of data sets")
        named = {str(data_set).rpartition(":")[2]: {"target.data.name": data_set} for data_set in value}
        if len(named) < len(value):
            raise ValueError("two of the data sets have one name: give a table of names, each with what it changes")
        return named

    @field_validator("targets")
    @classmethod
    def _targets_are_targets(cls, targets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, changes in targets.items():
            if fault := name_fault(name):
                raise ValueError(f"{name!r} cannot name a folder: {fault}")
            if ":" in name or name in OWN_FOLDERS:
                raise ValueError(f"{name!r} cannot name a target: no colon, and not {', '.join(OWN_FOLDERS)}")
            for key in changes:
                if key.partition(".")[0] not in OF_A_TARGET:
                    raise ValueError(f"{name} changes {key}, but targets share all except {', '.join(OF_A_TARGET)}")
        if len(targets) == 1:
            raise ValueError("is one target: give two or more, or none, and set target.data")
        return targets

    @property
    def seed_list(self) -> list[int]:
        """The seeds, one a replication."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

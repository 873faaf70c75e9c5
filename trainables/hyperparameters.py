"""Hyperparameters of every stage kind: what a stage is trained with, and what its content key is made of.

A field at its default is left out of the key, so that a new field does not orphan old results; changing a default
does, and so is a change of meaning that must bump :data:`KEY_VERSION`.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables.pruning import Criterion, Scope

Share = Annotated[float, Field(gt=0, lt=1)]
KnowledgeSource = Literal["reference", "shuffled"]


class Hyperparameters(BaseModel):
    """Base: immutable, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)


class DataConfig(Hyperparameters):
    """Which images a stage sees, and how they are split and normalised."""

    name: str
    test_share: Share = 0.2
    """Share of each class in the test set, the same images for every seed."""
    train_per_class: Annotated[int, Field(ge=1)] | None = None
    """Training images a class, drawn by the seed; null: all that validation leaves."""
    val_per_class: Annotated[int, Field(ge=1)] | None = None
    """Validation images a class, drawn by the seed; null: all that training leaves."""
    mean: Annotated[float, Field(ge=0, le=1)] = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    """Pixels in 0..1 are normalised to ``(pixel - mean) / std``."""

    @model_validator(mode="after")
    def _one_side_is_given(self) -> "DataConfig":
        if self.train_per_class is None and self.val_per_class is None:
            raise ValueError("give train_per_class or val_per_class: the other part takes what is left")
        return self


class TrainConfig(Hyperparameters):
    """SGD with momentum, and dropout."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)] = 25
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the training: half a cosine to zero, or constant."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    rescale_dropout: bool = True
    """Scale the dropout of a pruned layer by the root of the share of connections it keeps (Han et al. 2015)."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated."""


class KnowledgeConfig(Hyperparameters):
    """The extra loss of a K+ net (Eq. 1-5)."""

    source: KnowledgeSource = "reference"
    """Whose softened outputs guide an image: its own, or, as a control, those of another training image."""
    tau: Annotated[float, Field(gt=0)]
    lambda_: Annotated[float, Field(ge=0, alias="lambda")]
    hinton_factor: bool = False
    """Multiply L_extra by tau^2 (Hinton et al. 2015). The paper does not."""
    live: bool = False
    """Run the frozen reference on every batch instead of looking its logits up."""


class ReferenceParams(Hyperparameters):
    """Train the Reference-SourceNet on the source."""

    train: TrainConfig


class SourcePruneParams(Hyperparameters):
    """One prune-and-retrain step in the source."""

    keep: dict[str, Share] | Share
    """Share of its dense connections that each layer keeps after the step; one number with scope ``global``."""
    scope: Scope = "layer"
    criterion: Criterion = "magnitude"
    retrain: TrainConfig


class KnowledgeParams(Hyperparameters):
    """Compute the reference's logits on all target images."""


class TransferParams(Hyperparameters):
    """Train one of the transfer nets."""

    n_m: Annotated[int, Field(ge=1)]
    n_e: Annotated[int, Field(ge=1)] | None = None
    knowledge: KnowledgeConfig | None = None
    train: TrainConfig


class TargetPruneParams(Hyperparameters):
    """One prune-and-retrain step of the main branch in the target."""

    keep: Share
    """Share of the dense net's connections that is left after the step."""
    scope: Scope = "layer"
    criterion: Criterion = "magnitude"
    knowledge: KnowledgeConfig | None = None
    retrain: TrainConfig


class NeuronPruneParams(Hyperparameters):
    """Remove least-activated neurons of the inner-product layers and retrain, until validation accuracy falls."""

    neurons_per_step: Annotated[int, Field(ge=1)]
    layer: str | None = None
    """Take one step, from this layer, whatever becomes of the accuracy; None: steps until it falls, layers in turns."""
    images_per_class: Annotated[int, Field(ge=1)]
    """Training images a class over which activations are averaged."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Percentage points below Standard-TransferNet's validation accuracy that are still its level."""
    knowledge: KnowledgeConfig | None = None
    retrain: TrainConfig


Params = ReferenceParams | SourcePruneParams | KnowledgeParams | TransferParams | TargetPruneParams | NeuronPruneParams
PARAMS: dict[str, type[Params]] = {
    "reference": ReferenceParams,
    "source_prune": SourcePruneParams,
    "knowledge": KnowledgeParams,
    "transfer": TransferParams,
    "target_prune": TargetPruneParams,
    "neuron_prune": NeuronPruneParams,
}


class StageSpec(Hyperparameters):
    """Everything that decides a stage's result, but for its parents' artifacts."""

    kind: str
    network: str
    data: DataConfig
    seed: int | None
    params: SerializeAsAny[Hyperparameters]

    @field_validator("params", mode="before")
    @classmethod
    def _params_of_the_kind(cls, value: Any, info: ValidationInfo) -> Any:
        return PARAMS[info.data["kind"]].model_validate(value) if isinstance(value, dict) else value


KEY_VERSION = 1
"""Part of every content key: to be raised when a stage's result changes although its hyperparameters do not."""

"""Hyperparameters of every stage kind: what a stage is trained with, and what its content key is made of.

A field at its default is left out of the key, so that a new field does not orphan old results; changing a default
does, and so is a change of meaning that must bump :data:`KEY_VERSION`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables import patterns
from trainables.pruning import Criterion, Importance, Scope
from trainables.settings import DataConfig, Hyperparameters, Share

NONZERO = "nonzero"
"""In place of a share: what is not zero in the net, as in sparse weights from elsewhere."""
KnowledgeSource = Literal["reference", "shuffled"]
Precision = Literal["float32", "tf32", "bfloat16"]


class TrainConfig(Hyperparameters):
    """How a net is trained. Names are those of torchvision's and timm's training scripts."""

    epochs: Annotated[int, Field(ge=1)]
    """Passes over the training images."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Learning rate at its highest."""
    batch_size: Annotated[int, Field(ge=1)] = 25
    """Images per optimizer step, on any number of devices together."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay: L2 with SGD, decoupled with AdamW."""
    decay_all: bool = True
    """Whether biases and normalisation (every parameter that is a vector) take part in weight decay."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW, which has no use for ``momentum``."""
    nesterov: bool = False
    """Nesterov's momentum, with SGD."""
    decay: Literal["cosine", "constant", "step"] = "cosine"
    """Learning rate: half a cosine to zero, constant, or times ``gamma`` every ``step_size`` epochs."""
    step_size: Annotated[int, Field(ge=1)] | None = None
    """Epochs between two steps of ``decay: step``, which requires it."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor of each step of ``decay: step``."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises in proportion to the steps taken, before it decays."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below it; 1: all layers alike."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that goes to all classes alike, in L_main."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """mixup: each image of a batch, and its label, is mixed with another, in shares drawn from Beta(alpha, alpha); 0:
    off."""
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    """CutMix: a rectangle of each image of a batch comes from another, its area drawn from Beta(alpha, alpha); 0: off.
    With ``mixup_alpha``, one of the two is drawn per batch."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = 0.5
    """Rate of the network's dropout, but for what its authors have turned off; null: the network's own rates."""
    batch_norm: Literal["train", "freeze"] = "train"
    """BatchNorm normalises each batch by its own statistics, or by the stored ones, which then stay as they are."""
    recalibrate: Annotated[int, Field(ge=1)] | None = None
    """Training images over which BatchNorm's statistics are computed again after the training: those of a net that was
    pruned follow slowly if its momentum is small. Null: they stay as the training leaves them."""
    rescale_dropout: bool = True
    """Scale the dropout of a pruned layer by the root of the share of connections it keeps (Han et al. 2015)."""
    precision: Precision = "float32"
    """Arithmetic of training: ``float32``; ``tf32``, float32 whose products GPUs since Ampere round to ten bits (no
    different on others); or ``bfloat16`` by automatic mixed precision. Evaluation is always in float32."""
    validate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between validations; the last epoch is always validated. Not part of any key: it decides no weight."""

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others of their batch."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        if self.decay == "step" and self.step_size is None:
            raise ValueError("decay=step needs step_size, in epochs")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs:g}, and there are {self.epochs} epochs: give fewer")
        if self.recalibrate is not None and self.batch_norm == "freeze":
            raise ValueError("recalibrate recomputes statistics that batch_norm=freeze keeps: give one of the two")
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs optimizer=sgd with momentum")
        return self


class WeightsConfig(Hyperparameters):
    """Pretrained weights for a net, instead of training it (see :mod:`trainables.weights`)."""

    file: str
    """A ``.pth``, ``.pt``, ``.safetensors`` or ``.onnx`` file, ``package:my_package/net.pth`` for one that a package
    holds, or ``torchvision:AlexNet_Weights.IMAGENET1K_V1`` and its like. Not part of any key: the content is, by
    :func:`trainables.weight_files.fingerprint`."""
    bgr: bool = False
    """The file's first layer takes blue, green, red, as Caffe's nets do: turned round on loading, so that the net takes
    red, green, blue. Such nets mostly want pixels of 0..255 less a mean: give ``std`` as 1/255 = 0.00392157."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """The net's classes in the order of its outputs: those of the data are found among them by name. Null:
    torchvision's names where all classes of the data are among them, else the data's own order."""
    cross_modality: bool = False
    """Average the first layer's weights over its input channels and repeat the mean for each channel of the net, as
    flow nets start from RGB nets (Wang et al. 2015, Towards good practices for very deep two-stream ConvNets)."""


class KnowledgeConfig(Hyperparameters):
    """The extra loss of a K+ net (Eq. 1-5)."""

    source: KnowledgeSource = "reference"
    """Whose softened outputs guide an image: its own, or, as a control, those of another training image."""
    tau: Annotated[float, Field(gt=0)]
    """Temperature (Eq. 2)."""
    lambda_: Annotated[float, Field(ge=0, alias="lambda")]
    """Weight of L_extra (Eq. 1)."""
    hinton_factor: bool = False
    """Multiply L_extra by tau^2 (Hinton et al. 2015). The paper does not."""
    live: bool = False
    """Run the frozen reference on every batch instead of looking its logits up."""


class GradualConfig(Hyperparameters):
    """Gradual pruning (Zhu and Gupta 2017): in updates within one training, most of it early (a cubic schedule)."""

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training after which masks begin to shrink."""
    end: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of the training after which masks stay as they are; the rest of it retrains."""
    updates: Annotated[int, Field(ge=1)] = 20
    """Number of times that masks shrink."""

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> "GradualConfig":
        if self.begin >= self.end:
            raise ValueError(f"begin is {self.begin:g}, which is not before end, {self.end:g}")
        return self


def _as_written(value: object) -> object:
    """YAML takes 2:4 for two minutes and four seconds."""
    return "{}:{}".format(*divmod(value, 60)) if isinstance(value, int) else value


def _known_pattern(text: str) -> str:
    patterns.parsed(text)
    return text


MaskPattern = Annotated[str, BeforeValidator(_as_written), AfterValidator(_known_pattern)]


class MaskParams(Hyperparameters):
    """How connections are chosen and when they go, wherever a net is pruned."""

    scope: Scope = "layer"
    criterion: Criterion = "magnitude"
    pattern: MaskPattern | None = None
    gradual: GradualConfig | None = None


class StageParams(Hyperparameters):
    """The settings of one stage kind; a runner for it is registered in :mod:`trainables.stages`."""

    kind: ClassVar[str]


class ReferenceParams(StageParams):
    """The Reference-SourceNet: trained on the source, loaded, or loaded but for its output layer and then trained."""

    kind = "reference"

    PATHS: ClassVar[dict[str, Any]] = {"weights": {"file": True}}

    train: TrainConfig | None = None
    weights: WeightsConfig | None = None


class SourcePruneParams(MaskParams, StageParams):
    """One prune-and-retrain step in the source."""

    kind = "source_prune"

    keep: dict[str, Share] | Share | Literal["nonzero"]
    """Share of its dense connections that each layer keeps after the step; one number with scope ``global``; or those
    that are not zero in the reference."""
    retrain: TrainConfig | None
    """None: the connections go, and nothing is retrained, as the source may have no images."""
    mask_seed: int | None = None
    """Seed of random masks, if it differs from the stage's own."""


class KnowledgeParams(StageParams):
    """Compute the reference's logits on all target images."""

    kind = "knowledge"


class FeaturesParams(StageParams):
    """Compute the inputs of a source net's output layer, for all target images."""

    kind = "features"


class ProbeParams(StageParams):
    """Train only a new output layer, on features that stay as they are: a linear probe of a source net."""

    kind = "probe"

    train: TrainConfig


class MeanwhileParams(MaskParams):
    """Pruning of the transferred layers during the transfer."""

    keep: dict[str, Share] | Share
    gradual: GradualConfig


class TransferParams(StageParams):
    """Train one of the transfer nets."""

    kind = "transfer"

    n_m: Annotated[int, Field(ge=1)]
    n_e: Annotated[int, Field(ge=1)] | None = None
    knowledge: KnowledgeConfig | None = None
    prune: MeanwhileParams | None = None
    """Prune the transferred layers gradually meanwhile, if nothing was retrained in the source."""
    train: TrainConfig


class TargetPruneParams(MaskParams, StageParams):
    """One prune-and-retrain step of the main branch in the target."""

    kind = "target_prune"

    keep: Share
    """Share of the dense net's connections that is left after the step."""
    knowledge: KnowledgeConfig | None = None
    retrain: TrainConfig


class NeuronPruneParams(StageParams):
    """Remove least-activated neurons of the inner-product layers and retrain, until validation accuracy falls.

    With ``channels_per_step``, channels of all layers go instead (:mod:`trainables.channels`).
    """

    kind = "neuron_prune"

    neurons_per_step: Annotated[int, Field(ge=1)] | None = None
    layer: str | None = None
    """Take one step, from this layer, whatever becomes of the accuracy; None: steps until it falls, layers in turns."""
    channels_per_step: Share | None = None
    """Share of what is left of every layer's channels that a step removes."""
    step: Annotated[int, Field(ge=1)] | None = None
    """With ``channels_per_step``: take this one step, whatever becomes of the accuracy."""
    importance: Importance = "activation"
    round_to: Annotated[int, Field(ge=1)] = 1
    images_per_class: Annotated[int, Field(ge=1)]
    """Training images a class over which activations are averaged."""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """Percentage points below Standard-TransferNet's validation accuracy that are still its level."""
    knowledge: KnowledgeConfig | None = None
    retrain: TrainConfig

    @property
    def is_one_step(self) -> bool:
        """Whether one step is taken, whatever becomes of the accuracy."""
        return self.layer is not None or self.step is not None


class EvaluationParams(StageParams):
    """Measure a net by the crops that its data's ``evaluation`` names."""

    kind = "evaluation"


class FusionParams(StageParams):
    """Fuse the class scores of several nets."""

    kind = "fusion"

    weights: dict[str, Annotated[float, Field(gt=0)]]
    """Weight of each stream's scores, by the role of the parent that has them."""


PARAMS = {params.kind: params for params in StageParams.__subclasses__()}
"""The hyperparameters of each stage kind, by its name."""


class StageSpec(Hyperparameters):
    """Everything that decides a stage's result, but for its parents' artifacts and what it reads from files."""

    kind: str
    network: str
    data: DataConfig
    seed: int | None
    params: SerializeAsAny[Hyperparameters]

    @field_validator("params", mode="before")
    @classmethod
    def _params_of_the_kind(cls, value: Any, info: ValidationInfo) -> Any:
        return PARAMS[info.data["kind"]].model_validate(value) if isinstance(value, dict) else value


KEY_VERSION = 3
"""Part of every content key. Raise it when a stage's result changes although its hyperparameters do not: when code
changes what is computed, or when a default changes (``tests/test_keys.py`` lists them)."""

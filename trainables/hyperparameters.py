"""Hyperparameters of every stage kind: what a stage is trained with, and what its content key is made of.

A field at its default is left out of the key, so that a new field does not orphan old results; changing a default
does, and so is a change of meaning that must bump :data:`KEY_VERSION`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trainables import patterns
from trainables.pruning import Criterion, Importance, Scope

NONZERO = "nonzero"
"""In place of a share: what is not zero in the net, as in sparse weights from elsewhere."""
Share = Annotated[float, Field(gt=0, lt=1)]
KnowledgeSource = Literal["reference", "shuffled"]
Views = Literal["centre", "ten", "random", "resized"]
Modality = Literal["rgb", "flow"]
FlowMethod = Literal["tvl1", "dis"]
Precision = Literal["float32", "tf32", "bfloat16"]


def absolute(path: str) -> str:
    """The path as it is from everywhere: workers have another working directory."""
    return str(Path(path).expanduser().resolve())


class Hyperparameters(BaseModel):
    """Base: immutable, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
    PATHS: ClassVar[dict[str, Any]] = {}
    """Fields that hold paths, in the form that pydantic excludes fields by: they differ from machine to machine."""

    def without_paths(self, **options: Any) -> dict[str, Any]:
        """All fields but paths, as JSON types under their aliases; ``options`` are those of ``model_dump``."""
        return self.model_dump(mode="json", by_alias=True, exclude=self.PATHS, **options)


FilePath = Annotated[str, AfterValidator(absolute)]
PerChannel = Annotated[tuple[float, ...], Field(min_length=1)]
Crops = Literal["centre", "ten"]
READING = ("name", "path", "size", "orientation", "duplicates", "modality", "positions", "stack", "flow")
"""Fields of :class:`DataConfig` that can decide which pixels there are."""


def _one_for_all(value: float | tuple[float, ...]) -> float | tuple[float, ...]:
    """Equal values of all channels as one number, so that both spellings have one key."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


Unit = Annotated[float, Field(gt=0, le=1)]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the first share must not be above the second, but {bounds[0]:g} is above {bounds[1]:g}")
    return bounds


class DataConfig(Hyperparameters):
    """Which images a stage sees, how they are read, split, cropped and normalised."""

    PATHS: ClassVar[dict[str, Any]] = {"path": True}

    name: str
    """A data set that the project knows, ``torchvision:CIFAR10`` and its like, ``folder`` for a folder of one's own, or
    ``module:function``."""
    path: FilePath | None = None
    """Folder of the data set (of torchvision's, what it calls ``root``); null: the folder of its name in the data root
    (the data root itself). Not part of any key."""
    test_share: Share = 0.2
    """Share of each class in the test set, the same images for every seed; unused where there is an official one."""
    train_per_class: Annotated[int, Field(ge=1)] | None = None
    """Training images a class, drawn by the seed; null: all that validation leaves."""
    val_per_class: Annotated[int, Field(ge=1)] | None = None
    """Validation images a class, drawn by the seed; null: all that training leaves. Unused where they are official."""
    retrain_on_validation: bool = False
    """Train on the validation images, too, once all settings are chosen: a validation accuracy then decides nothing,
    and is one of images that were trained on."""
    mean: Annotated[Annotated[float, Field(ge=0, le=1)] | PerChannel, AfterValidator(_one_for_all)] = 0.0
    std: Annotated[Annotated[float, Field(gt=0)] | PerChannel, AfterValidator(_one_for_all)] = 1.0
    """Pixels in 0..1 are normalised to ``(pixel - mean) / std``, one value or one a channel."""
    size: Annotated[int, Field(ge=8)] = 256
    """Files are decoded to this many pixels: short side resized, then centre-cropped to a square."""
    orientation: Literal["stored", "exif"] = "stored"
    """Images as they are stored, as torchvision and most pretrained nets have them, or turned as EXIF says."""
    duplicates: Literal["refuse", "drop", "keep"] | None = None
    """Files with the same content: an error, left out (both, where two classes claim one), or taken as they are; null:
    an error in one's own ``folder``, and taken as they are in an official layout."""
    views: Views = "centre"
    """Training views of the network's input size: the centre crop, one of the classic ten crops (corners and centre,
    mirrored or not), a free random crop, mirrored or not, or a random resized crop (Szegedy et al. 2015). Drawn by seed
    and epoch."""
    scale: Annotated[tuple[Unit, Unit], AfterValidator(_ascending)] = (0.08, 1.0)
    """Share of the image's area that a resized view shows, at least and at most."""
    hflip: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the resized views that are mirrored."""
    auto_augment: Literal["trivial", "rand"] | None = None
    """What is done to each training view besides: TrivialAugment (Mueller and Hutter 2021) or RandAugment (Cubuk et al.
    2020), as torchvision has them."""
    evaluation: Crops = "centre"
    """Final accuracies are of the centre crop, or of the mean of the ten crops' class scores. What a training
    validates by, and what stops neuron pruning, is the centre crop, so that no training depends on this."""
    modality: Modality = "rgb"
    """What is seen of a video: its frames, or stacks of optical flow."""
    positions: Annotated[int, Field(ge=1)] = 25
    """Uniform positions in a video: one, drawn by the seed, is seen in each epoch, all are averaged in evaluation."""
    stack: Annotated[int, Field(ge=1)] = 10
    """Flow fields in a stack, each with two channels (x and y)."""
    flow: FlowMethod = "tvl1"
    """How optical flow is computed: TV-L1 (Zach et al. 2007), or DIS (Kroeger et al. 2016), which is much faster."""

    @property
    def is_free(self) -> bool:
        """Whether training views are drawn from more than can be enumerated: no knowledge of them can be stored."""
        return self.views in ("random", "resized") or self.auto_augment is not None

    def content(self) -> "DataConfig":
        """Only what decides which pixels there are: the fields of split, view and normalisation at their defaults."""
        return DataConfig(**{name: getattr(self, name) for name in READING})


class TrainConfig(Hyperparameters):
    """How a net is trained. Names are those of torchvision's and timm's training scripts."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)] = 25
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay_all: bool = True
    """Whether biases and normalisation (every parameter that is a vector) take part in weight decay."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW, which has no use for ``momentum``."""
    nesterov: bool = False
    """Nesterov's momentum, with SGD."""
    decay: Literal["cosine", "constant", "step"] = "cosine"
    """Learning rate: half a cosine to zero, constant, or times ``gamma`` every ``step_size`` epochs."""
    step_size: Annotated[int, Field(ge=1)] | None = None
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs in which the learning rate rises in proportion to the steps taken, before it decays."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the learning rate from each layer to the one below it; 1: all layers alike."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that goes to all classes alike, in L_main."""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    """Each image of a batch is mixed with another one, their shares drawn from Beta(alpha, alpha): all pixels (mixup),
    or a rectangle (CutMix), labels likewise; 0: not at all; with both, one of the two is drawn a batch."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = 0.5
    """Rate of the network's dropout, but for what its authors have turned off; null: the network's own rates."""
    batch_norm: Literal["train", "freeze"] = "train"
    """BatchNorm normalises each batch by its own statistics, or by the stored ones, which then stay as they are."""
    recalibrate: Annotated[int, Field(ge=1)] | None = None
    """Training images over which BatchNorm's statistics are taken anew after the training: those of a net that was
    pruned follow slowly where its momentum is small. Null: they stay as the training leaves them."""
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
            raise ValueError("recalibrate takes statistics anew that batch_norm=freeze keeps: give one of the two")
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
    lambda_: Annotated[float, Field(ge=0, alias="lambda")]
    hinton_factor: bool = False
    """Multiply L_extra by tau^2 (Hinton et al. 2015). The paper does not."""
    live: bool = False
    """Run the frozen reference on every batch instead of looking its logits up."""


class GradualConfig(Hyperparameters):
    """Gradual pruning (Zhu and Gupta 2017): in updates within one training, most of it early (a cubic schedule)."""

    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    end: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Shares of the training between which masks shrink; the rest of it retrains."""
    updates: Annotated[int, Field(ge=1)] = 20

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> "GradualConfig":
        if self.begin >= self.end:
            raise ValueError(f"begin is {self.begin:g}, which is not before end, {self.end:g}")
        return self


def _known_pattern(text: str) -> str:
    patterns.parsed(text)
    return text


MaskPattern = Annotated[str, AfterValidator(_known_pattern)]


class StageParams(Hyperparameters):
    """What one stage kind is given; a runner for it is registered in :mod:`trainables.stages`."""

    kind: ClassVar[str]


class ReferenceParams(StageParams):
    """The Reference-SourceNet: trained on the source, loaded, or loaded but for its output layer and then trained."""

    kind = "reference"

    PATHS: ClassVar[dict[str, Any]] = {"weights": {"file": True}}

    train: TrainConfig | None = None
    weights: WeightsConfig | None = None


class SourcePruneParams(StageParams):
    """One prune-and-retrain step in the source."""

    kind = "source_prune"

    keep: dict[str, Share] | Share | Literal["nonzero"]
    """Share of its dense connections that each layer keeps after the step; one number with scope ``global``; or those
    that are not zero in the reference."""
    scope: Scope = "layer"
    criterion: Criterion = "magnitude"
    pattern: MaskPattern | None = None
    gradual: GradualConfig | None = None
    retrain: TrainConfig | None
    """None: the connections go, and nothing is retrained, as where the source has no images."""


class KnowledgeParams(StageParams):
    """Compute the reference's logits on all target images."""

    kind = "knowledge"


class FeaturesParams(StageParams):
    """Compute what a source net gives to its output layer, for all target images."""

    kind = "features"


class ProbeParams(StageParams):
    """Train a new output layer alone, on features that stay as they are: a linear probe of a source net."""

    kind = "probe"

    train: TrainConfig


class TransferParams(StageParams):
    """Train one of the transfer nets."""

    kind = "transfer"

    n_m: Annotated[int, Field(ge=1)]
    n_e: Annotated[int, Field(ge=1)] | None = None
    knowledge: KnowledgeConfig | None = None
    train: TrainConfig


class TargetPruneParams(StageParams):
    """One prune-and-retrain step of the main branch in the target."""

    kind = "target_prune"

    keep: Share
    """Share of the dense net's connections that is left after the step."""
    scope: Scope = "layer"
    criterion: Criterion = "magnitude"
    pattern: MaskPattern | None = None
    gradual: GradualConfig | None = None
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
    """Weight of each stream's scores, by the role of the parent that gives them."""


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

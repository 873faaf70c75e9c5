"""The base of all settings, and the settings of data: which images are seen, and how."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(gt=0, lt=1)]
Views = Literal["centre", "ten", "random", "resized"]
Modality = Literal["rgb", "grey", "flow"]
FlowMethod = Literal["tvl1", "dis"]


def absolute(path: str) -> str:
    """The path as it is from everywhere: workers have another working directory."""
    return str(Path(path).expanduser().resolve())


class Hyperparameters(BaseModel):
    """Base: immutable, no unknown fields."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    PATHS: ClassVar[dict[str, Any]] = {}
    """Fields that hold paths, in the form that pydantic excludes fields by: they differ from machine to machine."""

    @field_validator("*", mode="before")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        if not isinstance(value, (int, list, tuple)):
            return value
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(number, int) and number.bit_length() > 63 for number in numbers):
            raise ValueError("a whole number may have 64 bits: between -2^63 and 2^63")
        return value

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
    """A data set that the project knows, ``torchvision:CIFAR10`` and its like, ``folder`` for a folder of your own, or
    ``module:function``."""
    path: FilePath | None = None
    """Folder of the data set (of torchvision's, what it calls ``root``); null: the folder of its name in the data root
    (the data root itself). Not part of any key."""
    test_share: Share = 0.2
    """Share of each class in the test set, the same images for every seed; unused if there is an official one."""
    train_per_class: Annotated[int, Field(ge=1)] | None = None
    """Training images a class, drawn by the seed; null: all that validation leaves."""
    val_per_class: Annotated[int, Field(ge=1)] | None = None
    """Validation images a class, drawn by the seed; null: all that training leaves. Unused if they are official."""
    retrain_on_validation: bool = False
    """Train on the validation images, too, once all settings are chosen: a validation accuracy then decides nothing,
    and is one of images that were trained on."""
    mean: Annotated[Annotated[float, Field(ge=0, le=1)] | PerChannel, AfterValidator(_one_for_all)] = 0.0
    """Subtracted from pixels in 0..1: one value, or one per channel."""
    std: Annotated[Annotated[float, Field(gt=0)] | PerChannel, AfterValidator(_one_for_all)] = 1.0
    """Pixels are normalised to ``(pixel - mean) / std``: one value, or one per channel."""
    size: Annotated[int, Field(ge=8)] = 256
    """Files are decoded to this many pixels: short side resized, then centre-cropped to a square."""
    orientation: Literal["stored", "exif"] = "stored"
    """Images as they are stored, as torchvision and most pretrained nets have them, or turned as EXIF states."""
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
    """What is seen of an image, or of a video's frames: their colours, or their luminance, for a network with one input
    channel; or, of a video, stacks of optical flow."""
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

    @property
    def place(self) -> tuple[str, str | None]:
        """Name and path, which tell data sets apart."""
        return self.name, self.path

    def content(self) -> "DataConfig":
        """Only what decides which pixels there are: the fields of split, view and normalisation at their defaults."""
        return DataConfig(**{name: getattr(self, name) for name in READING})

"""What the analysis must know of a study in addition to its tables: ``study.json``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

PaperData = Literal["Indoor67", "Flower102", "HMDB51"]
"""The paper's target data sets, whose values can be shown next to a study's."""


class SequentialDesign(BaseModel):
    """How seeds are added to a study until its main comparisons are settled."""

    model_config = ConfigDict(frozen=True)

    negligible: float
    """A difference is settled, too, if its interval lies within this many percentage points of zero."""
    most_seeds: int


class Domain(BaseModel):
    """A study's source or target: its data set, and the number of its classes."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    classes: int
    images: str = ""
    """How many are for training, validation and testing, as text; empty if there are none."""


class StudyFacts(BaseModel):
    """Facts about a study as a whole. Earlier versions did not write the fields that have a default."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    source: Domain
    target: Domain
    network: str
    """Of a study with several streams, theirs, joined."""
    seeds: list[int]
    published: PaperData | None
    same_data: bool
    """Whether the study's data set is that one."""
    control_study: bool = False
    """Whether the effects are known beforehand, so that the report states whether the study detects them."""
    tau: float | None
    streams: list[str]
    fusion: dict[str, float]
    evaluation: str
    """What of a test image (video) the nets are shown; empty if it is the whole image."""
    retrained_on_validation: bool = False
    """Whether the nets were trained on the validation images too, so that nothing may be chosen by them."""
    doubts: list[str] = []
    """What is doubtful about a pretrained reference, in sentences."""
    margin: float = 1.0
    """Percentage points that a pruned net may cost and still be as good, for what it saves."""
    sequential: SequentialDesign | None = None
    """How seeds were added until the main comparisons were settled; None if their number was fixed."""


class TargetsFacts(BaseModel):
    """Facts about a study on several targets, each of which has facts of its own."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    targets: dict[str, str]
    """SHA-256 of each target's own ``study.json``, by the target's name: all are of one run."""

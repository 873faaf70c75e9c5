"""What the commands print with ``--json``. The fields' docstrings are the schema; docs/json.md is made from them.

Keys that are not known yet may be added to an answer; none is renamed or removed without a new :data:`VERSION`.
"""

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VERSION: Literal[1] = 1


class Answer(BaseModel):
    """Base: immutable, no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def as_json(self) -> str:
        """The answer as one JSON object; what is no number (a rate of nothing) is null."""
        return json.dumps(_finite(self.model_dump(mode="json")), indent=1, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


class Command(Answer):
    """Base of what a command prints."""

    version: Literal[1] = VERSION
    """Of this schema."""


class Failure(Command):
    """Printed by any command that cannot do what it was asked to; the exit status is not 0."""

    error: str
    """What is wrong, where, and what would be right."""


class PlannedCell(Answer):
    """A net of a table at one seed."""

    ablation: str
    """The ablation or axis that asks for it."""
    net: str
    """Its name in the tables."""
    point: str | None
    """The point of an axis; null at the study's own setting."""
    stream: str | None
    """The stream of a two-stream study; null in any other."""
    target: str | None
    """The target of a study on several; null in any other."""
    seed: int
    """The replication."""
    stage: str
    """Key of the stage that measures it."""
    stored: bool
    """Whether this stage is complete."""


class PlannedStage(Answer):
    """A unit of training work."""

    stage: str
    """Its key."""
    kind: str
    """Its stage kind."""
    network: str
    """The network."""
    seed: int | None
    """The seed; null if all seeds share the stage."""
    parents: dict[str, str]
    """Keys of the stages that it needs, by their role."""
    images: int
    """Training images that it is expected to see; 0 if nothing is trained."""
    stored: bool
    """Whether it is complete."""


class Plan(Command):
    """``study.ablation --dry-run --json``: what a study would compute."""

    study: str
    """Its name."""
    storage: str
    """Path or URI of the storage."""
    seeds: list[int]
    """Its seeds; of a study whose seeds are not fixed, all that it may come to."""
    cells: list[PlannedCell]
    """The nets to compare."""
    stages: list[PlannedStage]
    """The stages, each once, parents first."""
    stages_without_sharing: int
    """Stages that would be trained if no two nets shared any."""
    side_by_side: int
    """Stages that run at once on this machine, or on the cluster."""
    device_hours: float | None
    """CPU-hours, or GPU-hours, that the missing stages take; null if no stage of the network is stored to tell by."""


class NetResult(Answer):
    """A net over its seeds."""

    net: str
    """Its name in the tables, with what tells it from others of this name."""
    point: str | None
    """The point of an axis; null at the study's own setting."""
    stream: str | None
    """The stream of a two-stream study; null in any other."""
    seeds: list[int]
    """Seeds that have a result."""
    missing: dict[str, str]
    """Why the other seeds have none, by seed."""
    test_accuracy: float | None
    """Mean test accuracy, in percent."""
    half_width: float | None
    """Half width of its 95 % interval over seeds, in percentage points; null with one seed."""
    val_accuracy: float | None
    """Mean validation accuracy, in percent."""
    prune_percent: float | None
    """Share of connections pruned, in percent, mean over seeds."""


class ComparisonResult(Answer):
    """A comparison of two nets, paired by seed, in percentage points of test accuracy."""

    comparison: str
    """What is asked."""
    net: str
    """The net."""
    baseline: str
    """What it is compared with."""
    pairs: int
    """Seeds that both have."""
    difference: float | None
    """Mean difference."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end of its 95 % interval."""
    p: float | None
    """p of this comparison, not corrected."""
    p_holm: float | None
    """p after Holm's correction over its family: claims about nets, or controls."""
    verdict: Literal["better", "worse", "within margin", "negligible", "open"]
    """What is shown: a difference, a cost of less than the margin, less than the negligible difference, or nothing."""


class StudyState(Command):
    """``study.show STUDY --json``: the nets of a study, also while it runs."""

    study: str
    """Its name."""
    folder: str
    """Path or URI of its folder."""
    running: bool
    """Whether a driver runs it now."""
    stages_done: int
    """Complete stages."""
    stages: int
    """All its stages."""
    nets: list[NetResult]
    """Its nets, in the order of the tables."""


class StudyList(Command):
    """``study.show --json``: the studies of a storage."""

    storage: str
    """Path or URI of the storage."""
    studies: list[StudyState]
    """Its studies."""


class StudyOutcome(StudyState):
    """``study.ablation --json`` and ``study.search --json``: a study or a search, run to its end."""

    report: str
    """Path or URI of its report."""
    comparisons: list[ComparisonResult]
    """The comparisons that it was made for."""
    tuned: list[ComparisonResult]
    """The same with each net at its best; empty if nets are not tuned."""
    findings: list[str]
    """What it shows, in sentences."""
    failed: dict[str, str]
    """Error per failed stage."""
    best: str | None
    """Of a search: path of the best settings, a preset."""


class OverTargetsResult(Answer):
    """A comparison over targets, in percentage points of test accuracy."""

    comparison: str
    """What is asked."""
    targets: int
    """Targets that have both nets."""
    difference: float
    """Mean over targets of the mean difference on each."""
    low: float | None
    """Lower end of its 95 % interval over targets."""
    high: float | None
    """Upper end of its 95 % interval over targets."""
    error_change: float | None
    """Mean over targets of the relative change of test error, in percent."""
    p: float | None
    """p of Wilcoxon's signed-rank test over targets, not corrected."""
    p_holm: float | None
    """p after Holm's correction over all comparisons."""
    verdict: Literal["better", "worse", "open"]
    """What is shown over targets."""


class TargetsResult(Command):
    """``study.ablation --json`` of a study on several targets, run to its end."""

    study: str
    """Its name."""
    folder: str
    """Path or URI of its folder."""
    report: str
    """Path or URI of the report over all targets."""
    targets: dict[str, StudyOutcome]
    """The study on each target, by its name; comparisons are corrected for all claims on all targets."""
    over_targets: list[OverTargetsResult]
    """The comparisons over targets."""
    findings: list[str]
    """What it shows, in sentences."""
    failed: dict[str, str]
    """Error per failed stage."""


class StageRecord(Answer):
    """A stored stage: its row of ``stages.parquet``, and where it lies."""

    row: dict[str, Any]
    """The columns of ``study/schema.py``."""
    nets: list[str]
    """The nets that it produces, as the studies of the storage name them."""
    files: str | None
    """Path or URI of its folder; null if it is damaged or gone."""


class Ancestry(Command):
    """``study.show STAGE --json``: a stored stage and all that it was made from."""

    stage: str
    """Key of the stage that was asked for."""
    stages: list[StageRecord]
    """It, and all its ancestors, each once."""


class DataState(Answer):
    """A data set."""

    used_by: list[str]
    """Domains (and streams) that use it."""
    title: str
    """Its name."""
    folder: str | None
    """Where it lies; null if it comes with a package, or is not there."""
    parts: dict[str, int]
    """Items per part; ``all`` if it has no parts."""
    classes: int
    """Number of classes."""
    problems: list[str]
    """What is missing, broken or ambiguous."""
    notes: list[str]
    """What was passed over, and what is special about the images."""
    complete: bool
    """Whether a study can use it."""


class DataCheck(Command):
    """``study.data check --json``: the data sets of a preset."""

    data_sets: list[DataState]
    """Each once."""
    doubts: list[str]
    """Whether the pretrained reference, if there is one, recognises the source's images."""


class LayerRecord(Answer):
    """A layer of a network."""

    layer: int
    """Its number, from 1."""
    from_the_top: int
    """Its number from the top, as N_m and N_e count."""
    name: str
    """Its name."""
    shapes: dict[str, list[int]]
    """Shape of each weight whose connections can be pruned."""
    connections: int
    """Connections."""
    multiply_adds: int | None
    """Multiply-adds for an image; null if that cannot be told."""


class NetworkLayers(Command):
    """``study.networks NAME --json``: the layers of a network."""

    network: str
    """Its name."""
    input_shape: list[int]
    """Channels, height, width."""
    layers: list[LayerRecord]
    """From the input to the output."""


class Reproduced(Command):
    """``study.reproduce --json``: a report's study, run again."""

    report: str
    """The folder of the study that was run again."""
    storage: str
    """Where it was run again."""
    agrees: bool
    """Whether all is the same, or within the noise of seeds."""
    stages: list[dict[str, Any]]
    """The rows of ``reproduction.csv``."""


class Exported(Command):
    """``study.export STAGE --json``: a net as a file."""

    file: str
    """The file."""
    card: str
    """Its model card."""
    bytes: int
    """Size of the file."""
    dense_bytes: int
    """Size of the unpruned net's weights in float32."""
    connections: int
    """Connections that are left."""
    largest_difference: float
    """Largest difference of an output to the masked net's."""


class ComparedNets(Command):
    """``study.export --compare STUDY --json``: size and speed of a study's nets."""

    nets: list[dict[str, Any]]
    """The rows of ``nets.csv``."""


class KeyRecord(Command):
    """``study.ablation --explain KEY --json``: a key of the configuration."""

    key: str
    """Dotted, as ``--set`` takes it."""
    type: str
    """Its type as text."""
    required: bool
    """Whether it has no default."""
    default: str | None
    """As YAML; null if the key is required or a section."""
    meaning: str
    """What it means."""
    used_by: str
    """Which stages read it."""
    presets: dict[str, str]
    """Its value as YAML, in each preset that sets it."""


class Choices(Command):
    """``study.ablation --list-presets --json`` and ``--list-axes --json``."""

    choices: dict[str, Any]
    """Title per preset, or points per axis."""


COMMANDS: tuple[type[Command], ...] = (
    Failure,
    Plan,
    StudyOutcome,
    TargetsResult,
    StudyState,
    StudyList,
    Ancestry,
    DataCheck,
    NetworkLayers,
    Reproduced,
    Exported,
    ComparedNets,
    KeyRecord,
    Choices,
)
"""Everything that a command may print."""

"""The study's configuration: a preset file, overrides from the command line, and errors for people."""

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator, model_validator

from trainables import data, networks, pruning
from trainables import weights as pretrained
from trainables.data import Places
from trainables.hyperparameters import (
    DataConfig,
    Hyperparameters,
    Share,
    SourcePruneParams,
    TrainConfig,
    WeightsConfig,
)
from trainables.sessions import CHECKPOINT_SECONDS

PRESETS = Path(str(resources.files("study"))) / "presets"
RETIRED: dict[str, Any] = {"resources.fused": 1}
"""Keys of earlier versions, and the value at which they changed nothing: the stored configurations have them."""


class ConfigError(Exception):
    """The configuration cannot be used; the message says where it is wrong and what would be right."""


class SourcePruneConfig(Hyperparameters):
    """The iterative prune schedule that leads from the reference to the Sparse-SourceNet."""

    keep: str | Share | dict[str, Share]
    """Share of connections that each layer keeps in the end: a named table, a share by layer, or one share."""
    steps: Annotated[int, Field(ge=1)] = 4
    spacing: pruning.Spacing = "geometric"
    scope: pruning.Scope = "layer"
    """``layer``: each layer keeps its share; ``global``: one threshold for all layers (``keep`` is one share)."""
    retrain: TrainConfig

    @field_validator("keep")
    @classmethod
    def _table_exists(cls, keep: Any) -> Any:
        if isinstance(keep, str) and keep not in pruning.HAN_SHARES:
            raise ValueError(f"no table of shares {keep!r}: {_choices(keep, pruning.HAN_SHARES)}")
        return keep

    @model_validator(mode="after")
    def _global_takes_one_share(self) -> "SourcePruneConfig":
        if self.scope == "global" and not isinstance(self.keep, float):
            raise ValueError("scope global takes one share as keep, not a share by layer")
        return self

    @property
    def final_shares(self) -> dict[str, float] | float:
        """The shares kept in the end, a named table looked up."""
        return pruning.HAN_SHARES[self.keep] if isinstance(self.keep, str) else self.keep

    def schedule(self, criterion: pruning.Criterion) -> list[SourcePruneParams]:
        """The hyperparameters of each step."""

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
            SourcePruneParams(keep=step, scope=self.scope, criterion=criterion, retrain=self.retrain)
            for step in by_step
        ]


class SourceConfig(Hyperparameters):
    """The source domain: its data, the Reference-SourceNet and the Sparse-SourceNet."""

    data: DataConfig
    seed: int | None = 0
    """One seed for all cells, as the paper has one reference; null: each cell's seed trains its own."""
    weights: WeightsConfig | None = None
    """Pretrained weights: the whole reference or, with ``train``, what its training starts from."""
    train: TrainConfig | None = None
    """Training of the reference; null: the pretrained weights are the reference."""
    prune: SourcePruneConfig

    @model_validator(mode="after")
    def _reference_comes_from_somewhere(self) -> "SourceConfig":
        if self.train is None and self.weights is None:
            raise ValueError("give train, or weights to load, or both")
        return self


class TargetConfig(Hyperparameters):
    """The target domain."""

    data: DataConfig


class TransferConfig(Hyperparameters):
    """From source to target: the transfer nets."""

    tau: Annotated[float, Field(gt=0)] = 4.0
    lambda_: Annotated[float, Field(ge=0, alias="lambda")] = 1.0
    n_m: Annotated[int, Field(ge=0)] = 2
    n_e: Annotated[int, Field(ge=1)] = 2
    hinton_factor: bool = False
    live: bool = False
    train: TrainConfig


class TargetPruneConfig(Hyperparameters):
    """Pruning connections in the target: each share is a point of Figure 3's curves."""

    keep: Annotated[list[Share], Field(min_length=1)]
    named: Annotated[list[Share], Field(min_length=1)]
    """The shares that stand in Table 3; neuron pruning starts from the last one."""
    scope: pruning.Scope = "layer"
    """``layer``: every layer loses the same proportion; ``global``: one threshold for all layers."""
    criterion: pruning.Criterion = "magnitude"
    retrain: TrainConfig

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
    images_per_class: Annotated[int, Field(ge=1)] = 10
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    retrain: TrainConfig


class ResourceConfig(Hyperparameters):
    """What a stage asks of the machine. Not part of any key.

    ``threads``, ``workers`` and ``images_a_pass`` change the order of sums, as another kind of device does, and so the
    rounding, which training may amplify: each stage's row has them. The others change nothing.
    """

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of the arithmetic of one stage; fixed here and not by what else runs."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = CHECKPOINT_SECONDS
    """Least time between two checkpoints of a stage, which take a twentieth of its time at most; 0: one an epoch."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Ray Train workers of a stage, data-parallel; 0: the trial's own process."""
    images_a_pass: Annotated[int, Field(ge=1)] | None = None
    """Most images that a device takes at once: a larger batch goes through in parts whose gradients add up."""

    @model_validator(mode="after")
    def _no_gpu_is_idle_or_taken_twice(self) -> "ResourceConfig":
        if self.gpus > 1:
            raise ValueError(
                f"gpus={self.gpus:g} of a process, which uses one: the others would stand idle; for data-parallel "
                f"training give gpus=1 and workers={int(self.gpus)}"
            )
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError(
                f"workers={self.workers} with gpus={self.gpus:g} each could share a GPU, which NCCL refuses: give "
                "gpus=1 for each worker, or workers=0 for stages that share a GPU"
            )
        return self


class CrossingConfig(Hyperparameters):
    """Every combination of the points of some axes, but for those left out."""

    axes: Annotated[tuple[str, ...], Field(min_length=2)]
    skip: tuple[dict[str, Any], ...] = ()
    """Combinations to leave out: each a table of keys and values that such a combination has."""


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"the lower bound must be below the upper one, but {bounds[0]} is not below {bounds[1]}")
    return bounds


PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)
]
StepRange = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], AfterValidator(_ascending)]
CountRange = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AfterValidator(_ascending)]
RateRange = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], AfterValidator(_ascending)
]


class SearchConfig(Hyperparameters):
    """The space of a search: bounds, both ends included, and choices."""

    tau: PositiveRange = (1.0, 16.0)
    lambda_: Annotated[PositiveRange, Field(alias="lambda")] = (0.1, 10.0)
    n_m: CountRange = (1, 5)
    n_e: CountRange = (1, 5)
    learning_rate: PositiveRange = (0.003, 0.04)
    dropout: RateRange = (0.0, 0.7)
    weight_decay: PositiveRange = (1e-5, 1e-2)
    source_steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4)
    """Steps of the source's prune schedule."""
    source_factor: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.5, 1.0, 1.5)
    """Factors on the shares that the source's prune schedule keeps in the end."""
    target_keep: RateRange = (0.0125, 0.3)
    """Share of connections kept in the target, in a search against share."""
    neuron_steps: StepRange = (0, 12)
    """Steps of neuron pruning after the transfer, in a search against latency."""
    latency_batch: Annotated[int, Field(ge=1)] = 1
    """Images of the forward pass whose latency is measured."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1)
    """Seeds whose mean validation accuracy a trial is judged by."""
    final_seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (100, 101, 102)
    """Other seeds, with which the best settings and the study's own are trained and tested in the end."""

    @model_validator(mode="after")
    def _final_seeds_are_others(self) -> "SearchConfig":
        if both := sorted(set(self.seeds) & set(self.final_seeds)):
            raise ValueError(f"final_seeds has {both[0]}, by which the search selects: the final test needs others")
        return self


class StudyConfig(Hyperparameters):
    """All of a study."""

    title: str
    network: str
    seeds: Annotated[int, Field(ge=1)] | Annotated[list[int], Field(min_length=1)] = 3
    ablations: Annotated[tuple[str, ...], Field(min_length=1)] = ("paper",)
    published: Literal["Indoor67", "Flower102", "HMDB51"] | None = None
    """Which of the paper's targets to print beside one's own results."""
    same_data: bool = False
    """Whether the target is that very data set."""
    control_study: bool = False
    """Whether knowledge and magnitude pruning are known to help here: the report says whether the study sees it."""
    data: Places = Field(default_factory=Places)
    """Where data sets lie."""
    source: SourceConfig
    target: TargetConfig
    transfer: TransferConfig
    target_prune: TargetPruneConfig
    neuron_prune: NeuronPruneConfig
    resources: ResourceConfig = ResourceConfig()
    search: SearchConfig = SearchConfig()
    axes: dict[str, Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]] = Field(default_factory=dict)
    """The user's own axes, by name: points, each a table of dotted keys and values."""
    crossings: dict[str, CrossingConfig] = Field(default_factory=dict)
    """Crossings of axes, by name."""

    streams: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Streams of a two-stream study, by name: what each changes of this configuration, as dotted keys and values."""
    fusion: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Weight of each stream's class scores in their fusion."""

    @property
    def seed_list(self) -> list[int]:
        """The seeds, one a replication."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


def list_presets() -> list[str]:
    """Names of the presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def as_yaml(config: StudyConfig) -> str:
    """The whole configuration as a preset."""
    return str(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))


def preset_title(name: str) -> str:
    """Title of a preset that comes with the project."""
    return str(_read_yaml(PRESETS / f"{name}.yaml")["title"])


def load_config(preset: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a preset (a name, or a path of a YAML file) and apply ``key.sub=value`` overrides.

    Raises:
        ConfigError: the preset is unknown, or anything in it or in the overrides is wrong; all problems are listed.
    """
    return _source(preset, overrides).config()


def read_config(preset: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Like :func:`load_config`, but each key is checked alone: the data need not be there.

    Raises:
        ConfigError: the preset is unknown, or a key or value of it or of the overrides is wrong.
    """
    return _source(preset, overrides).parsed()


def _source(preset: str, overrides: Sequence[str]) -> "_Source":
    path = _preset_path(preset)
    source = _Source(path, _read_yaml(path))
    for override in overrides:
        source.override(override)
    return source


def changed(config: StudyConfig, changes: Mapping[str, Any], what: str, *, prunes_target: bool = True) -> StudyConfig:
    """The configuration with some dotted keys changed; ``what`` says in an error who asked for it.

    Where nothing is to be pruned in the target, ``prunes_target=False`` leaves its schedule unchecked.

    Raises:
        ConfigError: a key is unknown, or the changed configuration cannot be used.
    """
    return _with_changes(config, changes, what).config(prunes_target)


def stream_config(config: StudyConfig, stream: str) -> StudyConfig:
    """The configuration of one stream of a two-stream study.

    Raises:
        ConfigError: what the stream changes cannot be used.
    """
    alone = config.model_copy(update={"streams": {}, "fusion": {}, "ablations": ("paper",)})
    return changed(alone, config.streams[stream], f"streams.{stream}")


def data_configs(config: StudyConfig) -> dict[str, DataConfig]:
    """The data of a study, by domain (and stream); it need not be there.

    Raises:
        ConfigError: a stream changes a key that does not exist, or to a wrong value.
    """
    if not config.streams:
        return {"source": config.source.data, "target": config.target.data}
    found: dict[str, DataConfig] = {}
    for stream, changes in config.streams.items():
        own = _with_changes(config, changes, f"streams.{stream}").parsed()
        found |= {f"{stream} source": own.source.data, f"{stream} target": own.target.data}
    return found


def _with_changes(config: StudyConfig, changes: Mapping[str, Any], what: str) -> "_Source":
    source = _Source(Path(what), config.model_dump(mode="json", by_alias=True))
    for key, value in changes.items():
        source.put(key, value)
    return source


class _Source:
    """Where each value came from, so that an error can say it."""

    def __init__(self, path: Path, tree: dict[str, Any]) -> None:
        self.path, self.tree = path, tree
        self.overridden: dict[str, str] = {}

    def override(self, text: str) -> None:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text}: write it as key.sub=value, for example --set transfer.tau=2")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {text}: the value is not valid YAML; quote it if it is a text") from None
        self.overridden[key] = text
        self.put(key, parsed)

    def put(self, key: str, value: Any) -> None:
        """Set a dotted key in the tree."""
        if not _is_key(key):
            raise self.error([(key, _suggestion(key))])
        *parents, last = key.split(".")
        branch = self.tree
        for depth, name in enumerate(parents, start=1):
            if branch.get(name) is None:
                branch[name] = {}
            branch = branch[name]
            if not isinstance(branch, dict):
                whole = ".".join(parents[:depth])
                raise self.error([(key, f"{whole} is {branch!r} in the preset: override {whole} as a whole")])
        branch[last] = value

    def parsed(self) -> StudyConfig:
        """The configuration that the tree describes, each key checked alone."""
        if unknown := list(_unknown_keys(self.tree, StudyConfig)):
            raise self.error([(key, _suggestion(key)) for key in unknown])
        try:
            return StudyConfig.model_validate(self.tree)
        except ValidationError as error:
            raise self.error(_readable(error)) from None

    def config(self, prunes_target: bool = True) -> StudyConfig:
        """The configuration that the tree describes, checked as a whole."""
        config = self.parsed()
        problems = [*_cross_checks(config)]
        if prunes_target and not problems:
            problems = [*_target_checks(config)]
        if problems:
            raise self.error(problems)
        return config

    def error(self, problems: Sequence[tuple[str, str]]) -> ConfigError:
        lines = [f"  {key}: {message}\n    in {self._place(key)}" for key, message in problems]
        return ConfigError("the configuration cannot be used\n" + "\n".join(lines))

    def _place(self, key: str) -> str:
        for name, text in self.overridden.items():
            if key == name or key.startswith(name + ".") or name.startswith(key + "."):
                return f"--set {text}"
        return str(self.path)


def _preset_path(preset: str) -> Path:
    if preset.endswith((".yaml", ".yml")):
        path = Path(preset)
        if not path.is_file():
            raise ConfigError(
                f"no preset file {path}: give the path of a YAML file or one of {', '.join(list_presets())}"
            )
        return path
    if preset not in list_presets():
        raise ConfigError(f"unknown preset {preset!r}: {_choices(preset, list_presets())}")
    return PRESETS / f"{preset}.yaml"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is no preset: it must hold keys such as network and transfer")
    unshared: dict[str, Any] = _unshared(tree)
    for key, value in RETIRED.items():
        _drop(unshared, key.split("."), value)
    return unshared


def _drop(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Remove the key at ``path`` if it holds ``value``."""
    name, *inner = path
    branch = tree.get(name)
    if inner and isinstance(branch, dict):
        _drop(branch, inner, value)
    elif not inner and branch == value:
        del tree[name]


def _unshared(value: Any) -> Any:
    """A copy in which no branch is shared: an override must not reach the other users of a YAML anchor."""
    if isinstance(value, dict):
        return {name: _unshared(item) for name, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _model(annotation: Any) -> type[BaseModel] | None:
    """The configuration model that a key holds, if it holds one (or nothing)."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, annotation in _fields(model).items():
        yield f"{prefix}{name}"
        if (inner := _model(annotation)) is not None and not _is_table(annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def _is_table(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _is_key(key: str) -> bool:
    """Whether the dotted key is one of the configuration's, or an entry of one that holds a table."""
    model: type[BaseModel] = StudyConfig
    for name in key.split("."):
        if name not in (fields := _fields(model)):
            return False
        inner = _model(fields[name])
        if inner is None or _is_table(fields[name]):
            return key.endswith(name) or "dict" in str(fields[name])
        model = inner
    return True


def _unknown_keys(tree: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    fields = _fields(model)
    for name, value in tree.items():
        if name not in fields:
            yield f"{prefix}{name}"
        elif isinstance(value, dict) and not _is_table(fields[name]) and (inner := _model(fields[name])) is not None:
            yield from _unknown_keys(value, inner, f"{prefix}{name}.")


def _suggestion(key: str) -> str:
    near = difflib.get_close_matches(key, list(_keys(StudyConfig)), n=1, cutoff=0.6)
    return f"unknown key: did you mean `{near[0]}`?" if near else "unknown key; `--show-config` prints all keys"


def _choices(given: str, valid: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(given, list(valid), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}There is {', '.join(sorted(valid))}"


def _readable(error: ValidationError) -> list[tuple[str, str]]:
    """One message a key; where a key takes several types, the messages of a fitting type win over 'wrong type'."""
    known = set(_keys(StudyConfig))
    messages: dict[str, list[tuple[bool, str]]] = {}
    for item in error.errors():
        parts = [str(part) for part in item["loc"]]
        depth = max((n for n in range(len(parts) + 1) if ".".join(parts[:n]) in known), default=len(parts))
        text = item["msg"].removeprefix("Value error, ")
        given = item["input"]
        text = text[0].lower() + text[1:]
        if item["type"] != "missing" and isinstance(given, str | int | float | list | None):
            text += f" (given: {'nothing' if given is None else repr(given)})"
        is_type = item["type"].endswith("_type") or item["type"].endswith("_parsing")
        messages.setdefault(".".join(parts[:depth]), []).append((is_type, text))
    result = []
    for key, found in messages.items():
        fitting = [text for is_type, text in found if not is_type] or [text for _, text in found]
        result.append((key, "; or ".join(dict.fromkeys(fitting))))
    return result


def _cross_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """What no single key can know: pairs of key and message."""
    from search_spaces.ablations import ABLATIONS
    from search_spaces.axes import axis_names

    axes = axis_names(config)
    for name in config.ablations:
        if name not in (known := [*ABLATIONS, *axes]):
            yield "ablations", f"no ablation {name!r}: {_choices(name, known)}"
    for crossing, parts in config.crossings.items():
        for name in parts.axes:
            if name not in axes or name in config.crossings:
                plain = [axis for axis in axes if axis not in config.crossings]
                yield f"crossings.{crossing}.axes", f"no axis {name!r}: {_choices(name, plain)}"
    for name in {*config.axes, *config.crossings} & {*ABLATIONS}:
        yield "axes", f"{name!r} is the name of an ablation already: choose another"
    data_problems = [*_data_checks(config)]
    yield from data_problems
    if len(set(config.seed_list)) < len(config.seed_list):
        yield "seeds", "each seed must be there once"
    try:
        networks.input_shape(config.network)
    except (KeyError, TypeError, ValueError) as error:
        near = difflib.get_close_matches(config.network, networks.NETWORKS, n=1)
        yield "network", f"{error.args[0]}" + (f"; did you mean {near[0]!r}?" if near else "")
        return
    if data_problems:
        return
    problems = [*_network_checks(config), *_weights_checks(config)]
    # Streams have these in common with their study: once said is enough.
    yield from problems or _stream_checks(config)


def _data_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether the data sets are there, whole, and large enough for their splits."""
    known = {**data.DATA_SETS, **data.LAYOUTS}
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        if images.name not in known and ":" not in images.name:
            yield f"{domain}.data.name", f"no data set {images.name!r}: {_choices(images.name, known)}"
            return
        try:
            data.split(data.load(images, config.data), images, seed=0)
        except (KeyError, ValueError) as error:
            yield f"{domain}.data", str(error.args[0])
    if config.target.data.views == "random" and not config.transfer.live:
        yield (
            "target.data.views",
            "random crops have no stored knowledge: set transfer.live=true, which runs the reference on each batch, "
            "or views=ten",
        )


def _stream_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether each stream of a two-stream study can be used, and their fusion."""
    for stream in config.streams:
        try:
            stream_config(config, stream)
        except ConfigError as error:
            yield f"streams.{stream}", str(error)
    if set(config.fusion) != set(config.streams):
        yield "fusion", f"must give a weight for each stream: {', '.join(config.streams) or 'there is none'}"
    if "two-stream" in config.ablations and len(config.streams) < 2:
        yield "ablations", "two-stream needs at least two streams: see the preset hmdb51"


def _network_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """What depends on the layers of the network."""
    name, transfer = config.network, config.transfer
    dense = networks.connection_counts(name, target_classes(config))
    channels, height, width = networks.input_shape(name)
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        shape = data.load(images, config.data).shape
        if shape[0] != channels or shape[1] < height or shape[2] < width:
            yield (
                "network",
                f"{name} takes {channels} x {height} x {width} images (channels, height, width), but those of "
                f"{domain}.data are {' x '.join(map(str, shape))}: larger ones are cropped, nothing else fits",
            )
    depth = len(dense)
    if transfer.n_m > depth:
        yield "transfer.n_m", f"is {transfer.n_m}, but {name} has N = {depth} layers: give 0 to {depth}"
    if transfer.n_e >= depth:
        where = f"the extra branch must sit on a layer of the main branch, and {name} has N = {depth} layers"
        yield "transfer.n_e", f"is {transfer.n_e}, but {where}: give 1 to {depth - 1}"
    table = config.source.prune.final_shares
    if isinstance(table, dict) and set(table) != set(dense):
        yield "source.prune.keep", f"must name each layer of {name}: {', '.join(dense)}"
    widths = networks.inner_product_widths(name)
    if config.neuron_prune.neurons_per_step >= min(widths.values()):
        yield (
            "neuron_prune.neurons_per_step",
            f"is {config.neuron_prune.neurons_per_step}, but the inner-product layers of {name} have "
            f"{', '.join(map(str, widths.values()))} neurons: give less than {min(widths.values())}",
        )


def located_weights(config: StudyConfig) -> WeightsConfig | None:
    """The pretrained weights of the reference, their file's path made whole."""
    weights = config.source.weights
    return weights and weights.model_copy(update={"file": config.data.find(weights.file)})


@cache
def _weights_problem(weights: WeightsConfig, fingerprint: str, network: str, classes: int, output: bool) -> str | None:
    """Why the weights cannot be the network's; the fingerprint is there so that a changed file is looked at again."""
    try:
        pretrained.load_into(networks.build(network, classes), weights, output=output)
    except pretrained.WeightsError as error:
        return str(error)
    return None


def _weights_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether pretrained weights are there and fit."""
    if (weights := located_weights(config)) is None:
        return
    classes = len(data.load(config.source.data, config.data).class_names)
    try:
        fingerprint = pretrained.fingerprint(weights.file)
    except pretrained.WeightsError as error:
        yield "source.weights.file", str(error)
        return
    problem = _weights_problem(weights, fingerprint, config.network, classes, config.source.train is None)
    if problem is not None:
        yield "source.weights", problem


def target_classes(config: StudyConfig) -> int:
    """Number of classes of the target."""
    return len(data.load(config.target.data, config.data).class_names)


def hybrid_share(config: StudyConfig) -> float | None:
    """Share of connections that Hybrid-TransferNet keeps; None where only training tells, with one global threshold."""
    prune, n_m = config.source.prune, max(config.transfer.n_m, 1)
    if prune.scope == "global":
        return None
    dense = networks.connection_counts(config.network, target_classes(config))
    table = prune.final_shares
    shares = table if isinstance(table, dict) else dict.fromkeys(dense, table)
    fresh = list(dense)[len(dense) - n_m :]
    kept = sum(count * (1.0 if layer in fresh else shares[layer]) for layer, count in dense.items())
    return kept / sum(dense.values())


def _target_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether pruning in the target starts below what Hybrid-TransferNet keeps, where that can be known beforehand."""
    share = hybrid_share(config)
    if share is not None and config.target_prune.keep[0] >= share:
        yield (
            "target_prune.keep",
            f"starts at {config.target_prune.keep[0]}, but Hybrid-TransferNet keeps {share:.3f} of the connections "
            "already: start below that",
        )

"""Reading a study's configuration: a preset, dotted keys that override it, and readable errors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from study.settings.models import StudyConfig
from trainables import objects
from trainables.settings import DataConfig
from trainables.suggestions import choices, did_you_mean
from trainables.yaml_text import YamlError, read_yaml

PRESETS = Path(str(resources.files("study"))) / "presets"
RETIRED: dict[str, Any] = {"resources.fused": 1}
"""Keys of earlier versions, and the value at which they changed nothing: the stored configurations have them."""


Overrides = Sequence[str] | Mapping[str, Any]
"""What differs from a preset: ``key.sub=value`` as typed on a command line, or values by their dotted keys."""


class ConfigError(Exception):
    """The configuration cannot be used; the message states where it is wrong and what would be right."""


def list_presets() -> list[str]:
    """Names of the presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def as_yaml(config: StudyConfig) -> str:
    """The whole configuration as a preset."""
    return str(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))


def preset_title(name: str) -> str:
    """Title of a preset that comes with the project."""
    return str(_read_yaml(PRESETS / f"{name}.yaml")["title"])


def read_config(preset: str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Like :func:`load_config`, but each key is checked by itself: the data need not be there.

    Raises:
        ConfigError: the preset is unknown, or a key or value of it or of the overrides is wrong.
    """
    return read_source(preset, overrides).parsed()


def read_source(preset: str, overrides: Overrides) -> "Source":
    """A preset with overrides, not checked yet."""
    path = _preset_path(preset)
    source = Source(path, _read_yaml(path))
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            source.put(key, _with_names(key, _unshared(value)))
    else:
        for override in overrides:
            source.override(override)
    return source


def _with_names(key: str, value: Any) -> Any:
    """The value, with names for the networks and data sets that are passed as functions."""
    if isinstance(value, dict):
        return {name: _with_names(f"{key}.{name}", item) for name, item in value.items()}
    return _given(key, value) if callable(value) else value


def _given(key: str, function: Callable[..., Any]) -> str:
    """The name of a network or data set that is passed as a function."""
    try:
        return objects.named(function)
    except objects.ObjectError as error:
        raise ConfigError(f"{key}: {error}") from error


def value_at(config: StudyConfig, key: str) -> Any:
    """The value of a dotted key, as JSON types; None if a section on the way is null.

    Raises:
        ConfigError: there is no such key.
    """
    if not _is_key(key):
        raise ConfigError(f"{key}: {suggestion(key)}")
    value: Any = config.model_dump(mode="json", by_alias=True)
    for name in key.split("."):
        value = None if value is None else value[name]
    return value


def with_changes(config: StudyConfig, changes: Mapping[str, Any], what: str) -> StudyConfig:
    """The configuration with some dotted keys changed, each checked by itself; ``what`` names the changes in errors.

    Raises:
        ConfigError: a key is unknown, or a value is wrong.
    """
    source = Source(Path(what), config.model_dump(mode="json", by_alias=True))
    for key, value in changes.items():
        source.put(key, value)
    return source.parsed()


def stream_config(config: StudyConfig, stream: str) -> StudyConfig:
    """The configuration of one stream of a two-stream study.

    Raises:
        ConfigError: what the stream changes cannot be used.
    """
    # A stream by itself prunes no neurons, so nothing of that has to fit it.
    alone = config.model_copy(update={"streams": {}, "fusion": {}, "ablations": ("transfer",)})
    return with_changes(alone, config.streams[stream], f"streams.{stream}")


def target_config(config: StudyConfig, target: str) -> StudyConfig:
    """The configuration of one target of a study on several.

    Raises:
        ConfigError: what the target changes cannot be used.
    """
    one = config.model_copy(update={"targets": {}, "title": f"{config.title}: {target}"})
    return with_changes(one, config.targets[target], f"targets.{target}")


def on_each(config: StudyConfig) -> list[StudyConfig]:
    """The configuration of each target of a study on several; of a study on one, its own.

    Raises:
        ConfigError: as :func:`target_config`.
    """
    return [target_config(config, target) for target in config.targets] or [config]


def data_configs(config: StudyConfig) -> dict[str, DataConfig]:
    """The data of a study, by domain (and stream, or target); it need not be there.

    Raises:
        ConfigError: a stream or a target changes a key that does not exist, or to a wrong value.
    """
    if config.targets:
        targets = {f"target {name}": target_config(config, name).target.data for name in config.targets}
        return {"source": config.source.data, **targets}
    if not config.streams:
        return {"source": config.source.data, "target": config.target.data}
    found: dict[str, DataConfig] = {}
    for stream, changes in config.streams.items():
        own = with_changes(config, changes, f"streams.{stream}")
        found |= {f"{stream} source": own.source.data, f"{stream} target": own.target.data}
    return found


class Source:
    """Where each value came from, so that an error can report it."""

    def __init__(self, path: Path, tree: dict[str, Any]) -> None:
        self.path, self.tree = path, tree
        self.overridden: dict[str, str] = {}

    def override(self, text: str) -> None:
        """Take over a ``key.sub=value`` of the command line.

        Raises:
            ConfigError: the key is unknown, or the text is no such override.
        """
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text}: write it as key.sub=value, for example --set transfer.tau=2")
        try:
            parsed = read_yaml(value)
        except YamlError as error:
            said = _short(str(error).replace("\n", " "))
            raise ConfigError(
                f"--set {_short(text)}: the value is not valid YAML ({said}); quote it if it is a text"
            ) from None
        self.overridden[key] = text
        self.put(key, parsed)

    def put(self, key: str, value: Any) -> None:
        """Set a dotted key in the tree."""
        if not _is_key(key):
            raise self.error([(key, suggestion(key))])
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
        """The configuration that the tree describes, each key checked by itself."""
        self._gather_tuned()
        if unknown := list(_unknown_keys(self.tree, StudyConfig)):
            raise self.error([(key, suggestion(key)) for key in unknown])
        try:
            return StudyConfig.model_validate(self.tree)
        except ValidationError as error:
            raise self.error(_readable(error)) from None

    def _gather_tuned(self) -> None:
        """Put the dotted keys of ``tuned`` where the model has them, among its ``settings``."""
        tuned = self.tree.get("tuned")
        if isinstance(tuned, dict) and (dotted_keys := [key for key in tuned if "." in str(key)]):
            settings = {**(tuned.get("settings") or {}), **{key: tuned[key] for key in dotted_keys}}
            kept = {key: value for key, value in tuned.items() if key not in dotted_keys}
            self.tree["tuned"] = {**kept, "settings": settings}

    def error(self, problems: Sequence[tuple[str, str]]) -> ConfigError:
        """The error that lists the problems, pairs of key and message, with where each came from."""
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
        raise ConfigError(f"unknown preset {preset!r}: {choices(preset, list_presets())}")
    return PRESETS / f"{preset}.yaml"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"))
    except (YamlError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is no preset: it must hold keys such as network and transfer")
    unshared: dict[str, Any] = _unshared(tree)
    for key, value in RETIRED.items():
        _drop(unshared, key.split("."), value)
    return unshared


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else f"{text[:width]}…"


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


def model_of(annotation: Any) -> type[BaseModel] | None:
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
        if (inner := model_of(annotation)) is not None and not is_table(annotation):
            yield from _keys(inner, f"{prefix}{name}.")


def is_table(annotation: Any) -> bool:
    """Whether a key holds a table whose names are the user's."""
    return get_origin(annotation) is dict


def _is_key(key: str) -> bool:
    """Whether the dotted key is one of the configuration's, or an entry of one that holds a table."""
    model: type[BaseModel] = StudyConfig
    for name in key.split("."):
        if name not in (fields := _fields(model)):
            return False
        inner = model_of(fields[name])
        if inner is None or is_table(fields[name]):
            return key.endswith(name) or "dict" in str(fields[name])
        model = inner
    return True


def _unknown_keys(tree: Mapping[str, Any], model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    fields = _fields(model)
    for name, value in tree.items():
        if name not in fields:
            yield f"{prefix}{name}"
        elif isinstance(value, dict) and not is_table(fields[name]) and (inner := model_of(fields[name])) is not None:
            yield from _unknown_keys(value, inner, f"{prefix}{name}.")


def suggestion(key: str) -> str:
    """That a dotted key is unknown, and which was meant, if one is near."""
    # One who leaves out the section means the key in it, not one that is spelt alike.
    inside = [known for known in _keys(StudyConfig) if known.endswith(f".{key}")]
    question = f"did you mean {' or '.join(map(repr, inside))}?" if inside else did_you_mean(key, _keys(StudyConfig))
    return f"unknown key: {question}" if question else "unknown key; `--show-config` prints all keys"


def _readable(error: ValidationError) -> list[tuple[str, str]]:
    """One message per key; if a key takes several types, the messages of a fitting type win over 'wrong type'."""
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

"""The meaning of each key of a configuration, made from the models: ``--explain``, comments, docs/configuration.md."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from study.answers import KeyRecord
from study.settings.models import StudyConfig
from study.settings.overrides import ConfigError, Source, is_table, list_presets, model_of, read_source, suggestion

WIDTH = 110
"""Columns of a comment."""
FROM_THE_MACHINE = "depends on the machine"
PART_OF_NO_KEY = "no stage's key: a change trains nothing again"
USED_BY = {
    "": "every stage",
    "title": f"the report; {PART_OF_NO_KEY}",
    "seeds": "the plan: which cells there are",
    "ablations": "the plan: which cells there are",
    "axes": "the plan: which cells there are",
    "crossings": "the plan: which cells there are",
    "streams": "the plan: each stream is a study of its own",
    "fusion": "fusion",
    "published": f"the report; {PART_OF_NO_KEY}",
    "same_data": f"the report; {PART_OF_NO_KEY}",
    "control_study": f"the report; {PART_OF_NO_KEY}",
    "margin": f"the report; {PART_OF_NO_KEY}",
    "data": f"every stage, to find its data; {PART_OF_NO_KEY}",
    "loggers": f"every stage; {PART_OF_NO_KEY}",
    "resources": f"every stage; {PART_OF_NO_KEY}",
    "search": "`study.search`",
    "source.data": "reference, source_prune",
    "source.seed": "reference, source_prune",
    "source.weights": "reference",
    "source.train": "reference",
    "source.prune": "source_prune (transfer, if connections are pruned during the transfer)",
    "target.data": "knowledge, features, probe, transfer, target_prune, neuron_prune, evaluation",
    "transfer.tau": "transfer, target_prune, neuron_prune, of nets with K",
    "transfer.lambda": "transfer, target_prune, neuron_prune, of nets with K",
    "transfer.hinton_factor": "transfer, target_prune, neuron_prune, of nets with K",
    "transfer.live": "transfer, target_prune, neuron_prune, of nets with K",
    "transfer.n_m": "transfer",
    "transfer.standard_n_m": "transfer, of Standard-TransferNet",
    "transfer.n_e": "transfer, of nets with K",
    "transfer.train": "transfer",
    "transfer.probe": "probe",
    "target_prune": "target_prune",
    "target_prune.named": "the report (Table 3), and neuron_prune, which starts from the last of them",
    "neuron_prune": "neuron_prune",
}
"""Which stage kinds read a key, by the longest prefix of it; these stages, and those made from them, have other keys
once it changes."""


Section = type[BaseModel]


@dataclass(frozen=True)
class Key:
    """A key of the configuration."""

    name: str
    """Dotted, as ``--set`` takes it."""
    type: str
    default: str | None
    """As YAML; None: the key is required."""
    meaning: str
    section: Section | None
    """The model whose keys are below this one, if it is a section."""

    @property
    def used_by(self) -> str:
        """Which stages read it."""
        parts = self.name.split(".")
        prefixes = [".".join(parts[:count]) for count in range(len(parts), -1, -1)]
        return next(USED_BY[prefix] for prefix in prefixes if prefix in USED_BY)


@cache
def keys() -> dict[str, Key]:
    """All keys by dotted name, each section followed by what is in it."""
    return {key.name: key for key in keys_of(StudyConfig, "")}


def keys_of(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    """The keys of a model, each section followed by what is in it, ``prefix`` before their names."""
    schema = model.model_json_schema()
    for field, info in model.model_fields.items():
        name = info.alias or field
        section = None if is_table(info.annotation) else model_of(info.annotation)
        meaning = info.description or (section.__doc__ if section else None) or ""
        text = type_text(schema["properties"][name], schema.get("$defs", {}))
        yield Key(prefix + name, text, _default(info, section), one_line(meaning), section)
        if section:
            yield from keys_of(section, f"{prefix}{name}.")
        elif (entry := model_of(get_args(info.annotation)[-1] if get_args(info.annotation) else None)) is not None:
            yield Key(f"{prefix}{name}.NAME", "section", None, one_line(entry.__doc__ or ""), entry)
            yield from keys_of(entry, f"{prefix}{name}.NAME.")


def _default(info: FieldInfo, section: type[BaseModel] | None) -> str | None:
    if info.is_required():
        return None
    if section and info.default is not None:
        return ""  # that of each of its keys
    if info.default_factory is not None:
        return "{}" if info.default_factory is dict else FROM_THE_MACHINE
    return _as_yaml(info.default)


def _as_yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def one_line(text: str) -> str:
    """A docstring on one line, code as in Markdown."""
    return " ".join(text.replace("``", "`").split())


def type_text(schema: Mapping[str, Any], defs: Mapping[str, Any], *, named: bool = False) -> str:
    """A type as text, from a JSON schema; ``named`` calls objects by the names of their models."""

    def inner(one: Mapping[str, Any]) -> str:
        return type_text(one, defs, named=named)

    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return name if named and "properties" in defs[name] else inner(defs[name])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(inner(one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("prefixItems")
        return f"[{', '.join(map(inner, items))}]" if items else f"list of {inner(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"table of {inner(values)}" if isinstance(values, dict) else "table" if values else "section"
    names = {"null": "null", "boolean": "`true` or `false`", "integer": "integer", "number": "number", "string": "text"}
    return names.get(str(kind), "anything") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f" {', '.join(found)}" if found else ""


def explain(name: str) -> str:
    """A key's type, default and meaning, what uses it, and its value in each preset, as text.

    Raises:
        ConfigError: there is no such key.
    """
    key = _known(name)
    lines = [key.name, *textwrap.wrap(key.meaning, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    default = "none: the key is required" if key.default is None else key.default
    lines += [f"  type:     {key.type}", *([f"  default:  {default}"] if default else [])]
    lines.append(f"  used by:  {key.used_by}")
    if key.section:
        below = [own for own in keys() if own.startswith(f"{name}.") and "." not in own.removeprefix(f"{name}.")]
        return "\n".join([*lines, "  keys:     " + "\n            ".join(below)])
    values: dict[str, list[str]] = {}
    for preset, value in _in_presets(name).items():
        values.setdefault(value, []).append(preset)
    if values:
        lines.append(
            "  presets:  " + "\n            ".join(f"{value} ({', '.join(of)})" for value, of in values.items())
        )
    return "\n".join(lines)


def key_record(name: str) -> KeyRecord:
    """What :func:`explain` prints, for programs.

    Raises:
        ConfigError: there is no such key.
    """
    key = _known(name)
    return KeyRecord(
        key=key.name,
        type=key.type,
        required=key.default is None,
        default=key.default or None,
        meaning=key.meaning,
        used_by=key.used_by,
        presets=_in_presets(name),
    )


def _known(name: str) -> Key:
    if name not in keys():
        raise ConfigError(f"--explain {name}: {suggestion(name)}")
    return keys()[name]


def _in_presets(name: str) -> dict[str, str]:
    """The key's value in each preset that sets it."""
    values = {preset: _in_preset(read_source(preset, []), name) for preset in list_presets()}
    return {preset: value for preset, value in values.items() if value is not None}


def _in_preset(source: Source, name: str) -> str | None:
    branch: Any = source.tree
    for part in name.split("."):
        if not isinstance(branch, dict) or part not in branch:
            return None
        branch = branch[part]
    return _as_yaml(branch)


def commented(config: StudyConfig) -> str:
    """The whole configuration as a preset, each key below a comment with its meaning.

    Keys that several sections share are explained in the first of them.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    return "\n".join(_commented(tree, "", set())) + "\n"


def _commented(tree: Mapping[str, Any], prefix: str, explained: set[type[BaseModel]]) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        key = keys()[prefix + name]
        if not _is_explained(prefix, explained):
            about = f"{key.meaning} {key.type[0].upper()}{key.type[1:]}." if not key.section else key.meaning
            yield from textwrap.wrap(about, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, dict) and key.section:
            yield f"{indent}{name}:"
            yield from _commented(value, f"{prefix}{name}.", explained)
            explained.add(key.section)
        else:
            yield f"{indent}{name}: {_as_yaml(value)}"


def _is_explained(prefix: str, explained: set[type[BaseModel]]) -> bool:
    parent = keys().get(prefix.removesuffix("."))
    return parent is not None and parent.section in explained

"""YAML as people write it: numbers as in YAML 1.2, and nothing that a configuration never is."""

import re
from typing import Any

import yaml

MOST_LETTERS = 200_000
"""A longer text is no configuration, and would take minutes to read."""
MOST_VALUES = 100_000
"""More values than this, aliases written out, are no configuration."""
MOST_LEVELS = 50
"""Deeper nesting than this is none, either."""
FLOAT = "tag:yaml.org,2002:float"


class YamlError(Exception):
    """The text is not YAML, or cannot be a configuration; the message states where."""


class _Loader(yaml.SafeLoader):
    """Reads ``4e-1`` as a number: YAML 1.1 wants a point in it."""


_Loader.add_implicit_resolver(FLOAT, re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        YamlError: it has none, or it is too long, too large, too deep or contains itself.
    """
    if len(text) > MOST_LETTERS:
        raise YamlError(f"it is longer than {MOST_LETTERS:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _values(node, {}, 0)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(str(error)) from None
    except RecursionError:
        raise YamlError("it is nested too deeply") from None


def _values(node: yaml.Node, known: dict[int, int], level: int) -> int:
    """Count the values of a node, with those of an alias each time that it is used."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise YamlError(f"an alias contains itself{_place(node)}")
        return known[id(node)]
    if level > MOST_LEVELS:
        raise YamlError(f"it is nested more than {MOST_LEVELS} levels deep{_place(node)}")
    known[id(node)] = 0
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = node.value
    count = 1 + sum(_values(part, known, level + 1) for part in parts)
    if count > MOST_VALUES:
        raise YamlError(f"it holds more than {MOST_VALUES:,} values{_place(node)}")
    known[id(node)] = count
    return count


def _place(node: yaml.Node) -> str:
    return f" (line {node.start_mark.line + 1})"

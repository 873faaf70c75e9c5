"""``python -m study.pages DOCS``: write the pages that are made from code, docs/configuration.md and docs/json.md.

``make docs`` calls it, and the tests want both pages current.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from study import answers
from study.settings.models import StudyConfig
from study.settings.reference import FROM_THE_MACHINE, Key, Section, keys, one_line, type_text

CONFIGURATION = """# Configuration

Every key of a study, its type, default and meaning. This page is generated from the models in `study/settings/` and
`trainables/` by `make docs`.

    python -m study.ablation --explain transfer.tau             # this, in the terminal, with the presets' values
    python -m study.ablation --preset digits --show-config      # a preset with every key and these comments
    python -m study.ablation --set transfer.tau=2 --dry-run     # which stages a change would train again

Keys are written as `--set section.key=value` on the command line, as nested YAML in a preset, or as
`load_config("digits", {"section.key": value})` in Python. An unknown key or a wrong value ends the command before any
training; the error names the key, the place and what would be right.
"""
JSON = """# JSON answers

With `--json` a command prints one JSON object to stdout; progress and messages go to stderr. This page is generated
from `study/answers.py` by `make docs`.

    python -m study.ablation --dry-run --json        # the plan
    python -m study.ablation --json                  # run the study; the outcome
    python -m study.show --json                      # the studies of a storage
    python -m study.show digits --json               # a study's nets, also while it runs

The exit status is the same as without `--json`: 0 all is well, 1 some stages failed (or data are incomplete, or a
report is not reproduced), 2 bad input, 130 interrupted, 143 ended by SIGTERM. A command that cannot do what it was
asked to prints a `Failure`; only options that do not exist, or that lack a value, print the usage to stderr instead.
`version` rises when a field is renamed or removed; fields may be added at any time. Numbers that do not exist are null.
"""


def configuration() -> str:
    """The page of all keys: a table per section; sections that occur several times once."""
    places: dict[Section, list[str]] = {StudyConfig: [""]}
    for key in keys().values():
        if key.section:
            places.setdefault(key.section, []).append(key.name)
    lines = [CONFIGURATION]
    for model, names in places.items():
        title = ", ".join(f"`{name}`" for name in names) if names != [""] else "Top level"
        prefix = f"{names[0]}." if names[0] else ""
        own = [key for key in keys().values() if key.name == prefix + key.name.removeprefix(prefix).split(".")[0]]
        lines += [f"## {title}", "", one_line(model.__doc__ or ""), "", "| key | type | default | meaning |"]
        lines += ["| --- | --- | --- | --- |", *(_key(key, prefix) for key in own), ""]
    return "\n".join(lines)


def _key(key: Key, prefix: str) -> str:
    is_yaml = key.default and key.default != FROM_THE_MACHINE
    default = "**required**" if key.default is None else f"`{key.default}`" if is_yaml else key.default
    return _row(f"`{key.name.removeprefix(prefix)}`", key.type, default, key.meaning)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def json_answers() -> str:
    """The page of what commands print with ``--json``: a table per object."""
    parts = [model for model in answers.Answer.__subclasses__() if model is not answers.Command]
    lines = [JSON]
    for model in [*answers.COMMANDS, *parts]:
        lines += [f"## {model.__name__}", "", one_line(model.__doc__ or ""), "", "| field | type | meaning |"]
        lines += ["| --- | --- | --- |", *_fields(model), ""]
    return "\n".join(lines)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    for name, info in model.model_fields.items():
        kind = type_text(schema["properties"][name], schema.get("$defs", {}), named=True)
        yield _row(f"`{name}`", kind, one_line(info.description or ""))


def main(folder: str) -> None:
    """Write both pages into the folder."""
    Path(folder, "configuration.md").write_text(configuration(), encoding="utf-8")
    Path(folder, "json.md").write_text(json_answers(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

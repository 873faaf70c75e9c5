"""Who may know whom: no circle of files, and what each of the project's folders may import."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import accumulate
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "search_spaces", "study", "trainables")
FORBIDDEN = {
    "analysis": ("torch", "torchvision", "ray", "trainables", "search_spaces"),
    "trainables": ("study", "search_spaces", "analysis"),
}
"""What no file of a folder may import, nor any file of the project that it imports."""
LAZY = ("study",)
"""Packages that import what they offer only when somebody asks for it."""

Sources = Mapping[str, str]
"""Source text of each module, by its name."""


def sources() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path.read_text(encoding="utf-8")
    return found


@cache
def nodes(text: str) -> list[ast.AST]:
    """The imports of a text, parsed once: a test changes one file of many."""
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(text: str, modules: Sources) -> Iterator[str]:
    """Modules that a text imports, wherever in it: of the project each one by its file, of others the whole package."""
    for node in nodes(text):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and not node.level, "imports here are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in inner]
        yield from (name if name in modules else name.partition(".")[0] for name in names)


def executed(importer: str, text: str, modules: Sources) -> Iterator[str]:
    """Modules of the project that an import executes: also the packages around what is imported, from outside them."""
    for name in imported(text, modules):
        if name in modules:
            packages = accumulate(name.split("."), "{}.{}".format)
            outer = (package for package in packages if not f"{importer}.".startswith(f"{package}."))
            yield from (package for package in outer if package == name or package not in LAZY)


def circle(modules: Sources) -> list[str]:
    """A circle of files, if there is one."""
    graph = {name: set(executed(name, text, modules)) for name, text in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def strangers(modules: Sources) -> list[str]:
    """What a folder imports though it may not, with the way that leads there."""
    found = []
    for name in modules:
        forbidden = FORBIDDEN.get(name.partition(".")[0], ())
        ways = [[name]]
        seen = {name}
        while ways:
            way = ways.pop()
            for other in imported(modules[way[-1]], modules):
                if other.partition(".")[0] in forbidden:
                    found.append(" -> ".join([*way, other]))
                elif other in modules and other not in seen:
                    seen.add(other)
                    ways.append([*way, other])
    return found


def test_there_is_no_circle_of_files() -> None:
    assert circle(sources()) == []


def test_no_folder_knows_what_it_may_not() -> None:
    assert strangers(sources()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("study.schema", "def later():\n    from analysis.loading import load\n"),
        ("trainables.seeds", "from trainables import training\n"),
        ("study.schema", "from analysis.statistics.power import power\n"),
    ],
)
def test_a_planted_circle_is_found(module: str, line: str) -> None:
    planted = sources()
    planted[module] += "\n" + line
    assert module in circle(planted)


@pytest.mark.parametrize(
    ("module", "line", "way"),
    [
        ("analysis.statistics.effects", "import torch\n", "analysis.statistics.effects -> torch"),
        ("study.files", "import ray.tune\n", "analysis.loading -> study.files -> ray"),
        ("trainables.seeds", "from study import schema\n", "trainables.seeds -> study.schema"),
    ],
)
def test_a_planted_stranger_is_found(module: str, line: str, way: str) -> None:
    planted = sources()
    planted[module] += "\n" + line
    assert way in strangers(planted)


def test_ray_is_known_to_few() -> None:
    knowing = {name for name, text in sources().items() if "ray" in imported(text, {})}
    assert "study.tune.experiment" in knowing
    assert {name for name in knowing if not name.startswith("study.tune.")} == {"trainables.sessions"}


def test_no_file_is_long() -> None:
    assert {name: lines for name, text in sources().items() if (lines := len(text.splitlines())) > 400} == {}


COMMANDS = ("ablation", "search", "data", "networks", "export", "show", "reproduce")


def test_options_are_parsed_before_anything_large_is_imported() -> None:
    assert {path.stem for path in (ROOT / "study" / "commands").glob("[a-z]*.py")} == {*COMMANDS}
    large = {"torch", "torchvision", "ray", "pandas", "pyarrow", "pydantic", "numpy", "rich", "optuna"}
    program = f"import sys, {', '.join(f'study.{name}' for name in COMMANDS)}; print({large} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"


def test_looking_at_things_needs_no_ray() -> None:
    names = ", ".join(f"study.commands.{name}" for name in ("data", "networks", "export", "show"))
    program = f"import sys, {names}; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"

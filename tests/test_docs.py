"""The documentation: links lead somewhere, commands are those that there are, code runs."""

import linecache
import re
import shlex
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import ray

from analysis.__main__ import main as analyse
from analysis.reporting import TABLES
from search_spaces.ablations import ABLATIONS
from study import load_config, run_study
from study.command import OK
from tests.commands import table
from trainables import stages

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
NOT_RUN = {
    "make ": "sets up an environment; CI runs lint and test, and the install tests `make study`",
    "pip install": "the environment of the tests has the packages",
    "source .venv": "a shell's own",
    "ray ": "a cluster (tests/test_cluster.py goes through Ray's launcher with a simulated AWS)",
    "aws ": "a cloud",
    "kubectl ": "a cloud",
    "tensorboard ": "serves until it is stopped",
    "optuna-dashboard ": "serves until it is stopped",
    "trackio show": "serves until it is stopped",
    "python -m benchmarks.": "minutes; tests/test_benchmarks.py runs small shares of them",
    "python -m study.search": "minutes; its options are parsed here, tests/test_search.py runs searches",
    "python -m study.reproduce": "minutes; tests/test_answers.py runs it",
    "python -m study.export": "minutes; its options are parsed here, tests/test_export.py runs it",
    "python -m study.data": "data that are not available; its options are parsed here, tests/test_images.py runs it",
    "python -m analysis s3:": "a bucket; tests/test_objects.py runs it",
    "python -m analysis import": "a file of the user's; tests/test_elsewhere.py runs it",
    "python -m study.networks timm": "slow to trace; tests/test_any_network.py runs it",
}
"""Commands on the pages that are not run as they stand, by their beginning, with the reason."""
UNAVAILABLE = ("folder", "indoor67", "flower102", "hmdb51", "solar")


def commands(page: Path) -> list[str]:
    """The commands of a page: indented lines and shell blocks, and those within a sentence that are complete."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"```(?!sh|bash|console).*?```", "", text, flags=re.S)
    lines = re.findall(r"^ {4}(\S.*(?:\\\n.*)*)", text, re.M) + re.findall(
        r"`((?:python -m|make|tensorboard|optuna-dashboard|trackio) [^`]+)`", text
    )
    found = []
    for line in lines:
        for part in re.split(r" && ", re.split(r"\s{2,}#|\s#\s", " ".join(line.replace("\\\n", " ").split("\n")))[0]):
            command = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", part.strip().removeprefix(".venv/bin/"))
            if re.match(
                r"(python -m|make|pip|ray|aws|kubectl|tensorboard|optuna-dashboard|trackio|source \.venv)\b", command
            ):
                found.append(command)
    return found


ALL = sorted({command for page in PAGES for command in commands(page)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in (one or other for one, other in LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), f"{target} is not there"
        if anchor:
            titles = re.findall(r"^#+ (.*)", place.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{target}: no such heading"


def test_every_page_is_linked_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [page.name for page in PAGES[3:] if f"docs/{page.name}" not in text]


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 1300


@pytest.fixture(scope="module")
def folder(preset: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: the studies that the pages speak of are small ones here."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(trained, folder / "results")
    for name in ("digits", "tau-2"):
        run_study(load_config(str(preset)), name, storage=folder / "results", slots=0, progress=False)
    return folder


def test_commands_were_found() -> None:
    assert len(ALL) > 40
    unused = [beginning for beginning in NOT_RUN if not any(command.startswith(beginning) for command in ALL)]
    assert set(unused) <= {"kubectl ", "python -m study.networks timm"}


@pytest.mark.parametrize("command", ALL)
def test_commands_are_those_that_there_are(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    if not command.startswith("python -m"):
        assert command.startswith(tuple(NOT_RUN)), "say why it is not run"
        return
    _, _, module, *arguments = shlex.split(command)
    if any(re.fullmatch(r"[A-Z_.]+|\.\.\.|…", argument) for argument in arguments):
        return  # a form, with words to fill in
    if module.startswith("benchmarks"):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        return
    if module == "analysis":
        assert command.startswith(tuple(NOT_RUN)) or analyse(arguments) == OK
        return
    run: Callable[[list[str]], int] = import_module(module).main
    if command.startswith(tuple(NOT_RUN)):
        import_module(module)._parser().parse_args(arguments)
    elif module == "study.ablation":
        _plan(run, arguments)
    elif module in ("study.show", "study.networks"):
        assert run(arguments) == OK
    else:
        assert module == "study.pages"


def _plan(run: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Whatever would train minutes is planned, which checks every key and value, unless its data cannot be had."""
    stops = ("--dry-run", "--show-config", "--explain", "--list-presets", "--list-axes")
    preset = arguments[arguments.index("--preset") + 1] if "--preset" in arguments else "digits"
    if (
        preset in UNAVAILABLE
        or any("elpv" in argument for argument in arguments)
        or "--address" in arguments
        or preset.endswith(".yaml")
    ):
        import_module("study.ablation")._parser().parse_args(arguments)
    else:
        more = [] if any(stop in arguments for stop in stops) else ["--dry-run", "--yes"]
        assert run([*arguments, *more]) == OK


def test_the_parts_of_ones_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/extending.md, block by block, as a reader runs it."""
    monkeypatch.chdir(tmp_path)
    tables, ablations = dict(TABLES), dict(ABLATIONS)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), re.S)
    names: dict[str, object] = {"__name__": "extending"}
    try:
        for number, block in enumerate(blocks):
            # Without Ray, which tests/test_api.py has for the page on Python, and which takes as long as all else.
            block = block.replace('"extended")', '"extended", slots=0)')
            exec(compile(block, _kept(block, number), "exec"), names)
    finally:
        TABLES.clear()
        TABLES.update(tables)
        ABLATIONS.clear()
        ABLATIONS.update(ablations)
        runner = stages._RUNNERS.pop("norm", None)
    cells = table(tmp_path / "results", "cells", "extended")
    assert {"transfer", "rate", "without-decay"} == set(cells["ablation"])
    assert (tmp_path / "results/studies/extended/report/seconds.csv").read_text().count("no decay") == 4
    assert runner is not None and not ray.is_initialized()
    assert not names["outcome"].failed  # type: ignore[attr-defined]


def _kept(block: str, number: int) -> str:
    """A name under which Python finds the source of a block, as it does in a notebook."""
    name = f"<extending {number}>"
    linecache.cache[name] = (len(block), None, block.splitlines(keepends=True), name)
    return name

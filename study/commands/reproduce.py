"""``study.reproduce``: running a report's study again, and comparing the two."""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import analysis
from analysis.loading import Results
from analysis.reproduction import compare, describe
from study.answers import Reproduced
from study.command import OK, SOME_FAILED, conclude, reply
from study.config import ConfigError, load_config, read_config
from study.files import Folder
from study.generations import RECORD, read_generation
from study.run.study import run_study
from study.storage import Storage

"""Exit status: the study ran, and something is beyond the noise of seeds."""
SETTABLE = ("data.", "resources.", "source.data.path", "target.data.path", "source.weights.file")
"""What may be another one on another machine."""


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    for override in options.set:
        if not override.startswith(SETTABLE):
            raise ConfigError(f"--set {override}: that would be another study; {', '.join(SETTABLE)} may be set")
    folder = _study_folder(options.report)
    try:
        published = analysis.load(folder.at())
    except analysis.StudyError as error:
        raise ConfigError(str(error)) from error
    if published.trials is not None:
        raise ConfigError(f"{folder.at()} is a search: give the folder of a study of study.ablation")
    name, _, target = published.facts.name.partition("/")
    storage = Storage(options.storage or f"results/reproduction-{name}")
    if storage.folder.at() == folder.above(3 if target else 2).at():
        raise ConfigError(f"{storage.root} holds the report's own stages, so nothing would run: give another --storage")
    with _preset(folder) as preset:
        config = load_config(preset, [*options.set, *_fewer_seeds(options.seeds, read_config(preset).seed_list)])
        where = {"storage": storage.root, "slots": options.slots, "address": options.address}
        name = f"{name}-{target}" if target else name
        outcome = run_study(config, name, **where)
    if not options.json:
        conclude(outcome, options)
    found = compare(published, _judged_alike(outcome.results, published), options.tolerance)
    columns = found.stages.drop(columns="role")
    storage.write_study(name, "reproduction.csv", columns.to_csv(index=False, lineterminator="\n").encode())
    if options.json:
        rows = json.loads(columns.to_json(orient="records"))
        reply(options, Reproduced(report=folder.at(), storage=storage.root, agrees=found.agrees, stages=rows))
        return OK if found.agrees else SOME_FAILED
    print(f"\n{folder.at()}, run again in {storage.root}\n{describe(found)}")
    return OK if found.agrees else SOME_FAILED


def _study_folder(report: str) -> Folder:
    """The folder of the study that a report is of: the one given, or the one that it lies in."""
    folder = Folder(report)
    return folder if folder.has(RECORD) or not folder.above(1).has(RECORD) else folder.above(1)


@contextmanager
def _preset(folder: Folder) -> Iterator[str]:
    """The path of the report's configuration, on a disk."""
    if (content := read_generation(folder, ["config.yaml"]).get("config.yaml")) is None:
        raise ConfigError(f"{folder.at('config.yaml')} is not there, so it is not known what was run")
    if folder.is_local and folder.read("config.yaml") == content:
        yield folder.at("config.yaml")
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.yaml"
        path.write_bytes(content)
        yield str(path)


def _fewer_seeds(wanted: int | None, seeds: list[int]) -> list[str]:
    """The override that leaves the first seeds of a report."""
    if wanted is None:
        return []
    if wanted > len(seeds):
        raise ConfigError(f"--seeds {wanted}: the report has {len(seeds)}")
    return [f"seeds={seeds[:wanted]}"]


def _judged_alike(here: Results, published: Results) -> Results:
    """With the report's way of judging: its seeds may have been added while looking, those of the new run were not."""
    return replace(here, facts=here.facts.model_copy(update={"sequential": published.facts.sequential}))

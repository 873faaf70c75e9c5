"""``study.ablation``: running an ablation study, or saying what it would be."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.axes import axis_names, points_of
from study.answers import Choices, Command
from study.command import OK, conclude, reply
from study.config import ConfigError, StudyConfig, list_presets, load_config, on_each, preset_title, read_config
from study.facts import SequentialDesign
from study.graph import StageGraph, joined, plan, plan_targets
from study.run.forecast import describe_cost, describe_packing, describe_plan, planned
from study.run.tuning import Tuning
from study.settings.choices import MOST_SEEDS, NEGLIGIBLE
from study.settings.reference import commented, explain, key_record
from study.storage import Storage
from trainables.data import DataError
from trainables.yaml_text import YamlError, read_yaml

if TYPE_CHECKING:
    from study.run.settling import Settling

MANY_STAGES = 1000
"""More missing stages than this are not started without asking."""


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    if options.list_presets:
        titles = {name: preset_title(name) for name in list_presets()}
        return _answer(options, lambda: Choices(choices=titles), lambda: as_lines(titles))
    if options.show_config:
        print(commented(read_config(options.preset, _overrides(options))), end="")
        return OK
    if options.explain is not None:
        key = options.explain
        return _answer(options, lambda: key_record(key), lambda: explain(key))
    if options.list_axes:
        config = read_config(options.preset, _overrides(options))
        axes = {name: _points(config, name) for name in axis_names(config)}
        return _answer(options, lambda: Choices(choices=axes), lambda: as_lines(axes))
    config = load_config(options.preset, _overrides(options))
    settling = _settling(config, options)
    by_target = plan_targets(config)
    if settling and by_target:
        raise ConfigError("--until-settled is for a study on one target: leave out targets, or give --seeds")
    # Of a study whose seeds are not fixed, the most that it may come to.
    own = joined(by_target.values()) if by_target else plan(settling.largest if settling else config)
    tunings = [Tuning(one) for one in (on_each(config) if config.tuned else [])]
    graph = joined([own, *(tuning.graph for tuning in tunings)]) if tunings else own
    storage = Storage(options.storage)
    storage.folder.reach()
    if settling:
        from study.run.settling import require_main_comparisons

        require_main_comparisons(graph)
    name = options.name or Path(options.preset).stem
    cells: dict[str, StageGraph] = by_target or {"": own}
    if options.dry_run and options.json:
        reply(options, planned(graph, storage, config, name, options.address, cells))
        return OK
    if options.dry_run:
        if settling:
            print(f"should all {settling.design.most_seeds} seeds be needed:")
        print(describe_plan(graph, storage, cells))
        for tuning in tunings:
            print(tuning)
        print(describe_packing(config.resources, options.address))
        print(describe_cost(graph, storage, config.resources))
        return OK
    if options.dashboard and importlib.util.find_spec("aiohttp") is None:
        raise ConfigError("--dashboard needs more packages: pip install -c constraints.txt -e '.[dashboard]'")
    _confirm_size(graph, storage, options.yes)
    # Only now, as Ray and SciPy take long to import, and a plan does without them.
    from study.run.study import run_study
    from study.run.targets import run_targets

    if by_target:
        return conclude(run_targets(config, name, graphs=by_target, **_where(options)), options)
    outcome = run_study(
        config,
        name,
        until_settled=settling.design if settling else None,
        hours=options.hours,
        graph=plan(config) if settling else own,
        **_where(options),
    )
    return conclude(outcome, options)


def _where(options: argparse.Namespace) -> dict[str, Any]:
    """Where a study runs, and where its results go."""
    return {name: getattr(options, name) for name in ("storage", "address", "slots", "dashboard")}


def _answer(options: argparse.Namespace, as_answer: Callable[[], Command], as_text: Callable[[], str]) -> int:
    """Print what was asked for, as JSON or as text."""
    if options.json:
        reply(options, as_answer())
    else:
        print(as_text())
    return OK


def _settling(config: StudyConfig, options: argparse.Namespace) -> "Settling | None":
    budget = {"--most-seeds": options.most_seeds, "--negligible": options.negligible, "--hours": options.hours}
    if options.until_settled:
        from study.run.settling import Settling

        negligible = NEGLIGIBLE if options.negligible is None else options.negligible
        return Settling(
            config, SequentialDesign(negligible=negligible, most_seeds=options.most_seeds or MOST_SEEDS), options.hours
        )
    if given := [name for name, value in budget.items() if value is not None]:
        raise ConfigError(f"{given[0]} goes only with --until-settled; a fixed number of seeds is --seeds N")
    return None


def as_lines(choices: Mapping[str, str | Sequence[str]]) -> str:
    """A line per name: its title, or its points."""
    width = max(12, *(len(name) for name in choices))
    texts = {name: value if isinstance(value, str) else "; ".join(value) for name, value in choices.items()}
    return "\n".join(f"{name:{width}} {text}" for name, text in texts.items())


def _confirm_size(graph: StageGraph, storage: Storage, yes: bool) -> None:
    stored = set(storage.stored(graph.stages))
    missing = [stage for key, stage in graph.stages.items() if key not in stored]
    if yes or len(missing) <= MANY_STAGES:
        return
    images = sum(stage.effort for stage in missing)
    size = f"{len(graph.cells):,} cells, {len(missing):,} stages to train, about {images:,} training images"
    if sys.stdin.isatty() and input(f"This is a large study: {size}. Run it? [y/N] ").strip().lower() == "y":
        return
    raise ConfigError(f"this is a large study: {size}. Nothing was started; add --yes to run it")


def _overrides(options: argparse.Namespace) -> list[str]:
    overrides = list(options.set)
    if options.seeds is not None:
        overrides.append(f"seeds={options.seeds}")
    if options.tune:
        budget = {} if options.budget is None else {"budget": options.budget}
        overrides.append(f"tuned={json.dumps({'settings': _values('--tune', options.tune), **budget})}")
    elif options.budget is not None:
        if read_config(options.preset, overrides).tuned is None:
            raise ConfigError("--budget goes with --tune, or with a preset that has tuned")
        overrides.append(f"tuned.budget={options.budget}")
    varied = _varied(options.vary)
    overrides += [f"axes.{name}={json.dumps(points)}" for name, points in varied.items()]
    more = [name.strip() for name in options.ablate.split(",")] if options.ablate else []
    if more or varied:
        base = read_config(options.preset, overrides).ablations
        overrides.append(f"ablations={json.dumps(list(dict.fromkeys([*base, *more, *varied])))}")
    return overrides


def _varied(texts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The axes of ``--vary``, each under the last word of its key, or the whole key where two have that word."""
    values = _values("--vary", texts)
    words = [key.rpartition(".")[2] for key in values]
    names = [word if words.count(word) == 1 else key.replace(".", "-") for key, word in zip(values, words, strict=True)]
    return {name: [{key: value} for value in values[key]] for name, key in zip(names, values, strict=True)}


def _values(option: str, texts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each key that an option received, as ``KEY=VALUE,VALUE``."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, _, listed = text.partition("=")
        key = key.strip()
        try:
            values = read_yaml(f"[{listed}]")
        except YamlError as error:
            raise ConfigError(f"{option} {text}: {error}") from None
        if not key or not values:
            raise ConfigError(
                f"{option} {text}: give a key and its values, as in transfer.train.learning_rate=0.01,0.02"
            )
        if twice := [value for place, value in enumerate(values) if value in values[:place]]:
            raise ConfigError(f"{option} {text}: {twice[0]} is given twice")
        if key in found:
            raise ConfigError(f"{option} {text}: {key} is given twice: give all its values in one {option}")
        found[key] = values
    return found


def _points(config: StudyConfig, axis: str) -> list[str]:
    """The axis's points; some follow from the number of classes, for which the data has to be there."""
    try:
        return [point.label for point in points_of(config, axis)]
    except DataError:
        return ["known once the data is on this machine"]

"""``python -m study.ablation``: run an ablation study and report it.

The data flow of the whole system is here: preset and overrides, cells, stage graph, one Ray Tune experiment, result
tables, report.
"""

import argparse
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

import analysis
from analysis.sequential import SequentialDesign
from search_spaces.axes import axis_names, points_of
from study.command import OK, SOME_FAILED, folder_name, number, positive, run
from study.config import (
    ConfigError,
    ResourceConfig,
    StudyConfig,
    as_yaml,
    list_presets,
    load_config,
    preset_title,
    read_config,
)
from study.data import decode_all
from study.experiment import Cluster, Experiment, connect
from study.graph import StageGraph, plan
from study.lease import only_driver
from study.progress import duration, label
from study.resources import ask_of, connected_cluster, require, this_machine
from study.settling import MOST_SEEDS, NEGLIGIBLE, Settling, require_main_comparisons
from study.storage import Storage

MANY_STAGES = 1000
"""More missing stages than this are not started without asking."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    options = _parser().parse_args(argv)
    return run("study.ablation", lambda: _ablation(options))


def _ablation(options: argparse.Namespace) -> int:
    if options.list_presets:
        for name in list_presets():
            print(f"{name:12} {preset_title(name)}")
        return OK
    if options.show_config:
        print(as_yaml(read_config(options.preset, _overrides(options))), end="")
        return OK
    config = load_config(options.preset, _overrides(options))
    if options.list_axes:
        print(describe_axes(config))
        return OK
    settling = _settling(config, options)
    # Of a study whose seeds are not fixed, the most that it may come to.
    graph = plan(settling.largest if settling else config)
    storage = Storage(options.storage)
    if settling:
        require_main_comparisons(graph)
    if options.dry_run:
        if settling:
            print(f"should all {settling.design.most_seeds} seeds be needed:")
        print(describe_plan(graph, storage))
        print(describe_packing(config.resources, options.address))
        print(describe_cost(graph, storage, config.resources))
        return OK
    if options.dashboard and importlib.util.find_spec("aiohttp") is None:
        raise ConfigError("--dashboard needs more packages: pip install -c constraints.txt -e '.[dashboard]'")
    _confirm_size(graph, storage, options.yes)
    storage.probe()
    name = options.name or Path(options.preset).stem
    with only_driver(storage.folder, name):
        return _Rounds(settling, storage, name, options).run(config, plan(config) if settling else graph)


@dataclass(frozen=True)
class _Rounds:
    """A study's rounds of training: one, unless seeds are added until it is settled."""

    settling: Settling | None
    storage: Storage
    name: str
    options: argparse.Namespace
    console: Console = field(default_factory=lambda: Console(highlight=False))

    def run(self, config: StudyConfig, graph: StageGraph) -> int:
        """Train, report, and give the exit status."""
        rounds = [self._train(config, graph)]
        results = analysis.load(self.storage.study_path(self.name))
        while self.settling:
            standing, goes_on = self.settling.after_round(results)
            self.console.print(standing, markup=False, soft_wrap=True)
            if not goes_on:
                break
            rounds.append(self._train(self.settling.config, plan(self.settling.config)))
            results = analysis.load(self.storage.study_path(self.name))
        report = analysis.write_report(results)
        for text in (analysis.markdown_summary(results), _summary(rounds), f"report: {report}"):
            self.console.print(text, markup=False, soft_wrap=True)
        return SOME_FAILED if rounds[-1].failed else OK

    def _train(self, config: StudyConfig, graph: StageGraph) -> Experiment:
        """Run what is not stored yet, and write the study's tables."""
        stored = len(self.storage.stored(graph.stages))
        counts = f"{len(graph.cells)} cells, {len(graph.stages)} stages, {stored} already stored"
        self.console.print(f"study {self.name}: {counts}")
        cluster = Cluster(self.options.address, self.options.slots, self.options.dashboard)
        if self.options.address is None and stored < len(graph.stages):
            # Before hours of decoding. On a cluster each node decodes for itself, when its first stage asks for it.
            ask = ask_of(config.resources)
            require(ask, this_machine(ask))
            decode_all(config)
        experiment = Experiment(graph, self.storage, self.name, config.resources, config.data, cluster)
        try:
            experiment.run(self.console)
        finally:
            experiment.write_tables(config, self.settling.design if self.settling else None)
        return experiment


def _settling(config: StudyConfig, options: argparse.Namespace) -> Settling | None:
    budget = {"--most-seeds": options.most_seeds, "--negligible": options.negligible, "--hours": options.hours}
    if options.until_settled:
        negligible = NEGLIGIBLE if options.negligible is None else options.negligible
        return Settling(config, SequentialDesign(negligible, options.most_seeds or MOST_SEEDS), options.hours)
    if given := [name for name, value in budget.items() if value is not None]:
        raise ConfigError(f"{given[0]} goes with --until-settled alone; a fixed number of seeds is --seeds N")
    return None


def describe_plan(graph: StageGraph, storage: Storage) -> str:
    """The plan in words: cells, unique stages by kind, and what is stored already."""
    done = set(storage.stored(graph.stages))
    lines = [f"{len(graph.cells)} cells"]
    by_net: dict[str, list[str]] = {}
    for cell, key in graph.cells:
        words = f"{cell.ablation:16} {cell.net}" + (f", {cell.point.label}" if cell.point else "")
        by_net.setdefault(words, []).append(f"{cell.seed}{'*' if key in done else ''}")
    lines += [f"  {net:68} seeds {' '.join(seeds)}" for net, seeds in by_net.items()]
    lines.append(f"{len(graph.stages)} stages (without sharing: {graph.unshared}); {len(done)} stored already (*)")
    kinds = Counter(stage.spec.kind for stage in graph.stages.values())
    stored = Counter(graph.stages[key].spec.kind for key in done)
    lines += [f"  {kind:14} {count:4}, {stored[kind]} stored" for kind, count in kinds.items()]
    missing = [stage.effort for key, stage in graph.stages.items() if key not in done]
    trained = [effort for effort in missing if effort]
    lines.append(f"to train: {len(trained)} stages, about {sum(trained):,} training images")
    if others := len(missing) - len(trained):
        lines.append(f"to compute without training: {others} stages")
    return "\n".join(lines)


def describe_packing(resources: ResourceConfig, address: str | None) -> str:
    """What a stage holds, and how many of them run side by side here or on the cluster at the address."""
    ask = ask_of(resources)
    if address is None:
        capacity = this_machine(ask)
    else:
        connect(address)
        capacity = connected_cluster()
    count = capacity.stages(ask)
    lines = [f"every stage, of whatever kind, holds {ask}; {count} run side by side", f"  {capacity}"]
    if not count:
        lines.append("  as it is, this study could not start")
    return "\n".join(lines)


def describe_cost(graph: StageGraph, storage: Storage, resources: ResourceConfig) -> str:
    """Device hours that the missing stages take, at the pace of those that are stored."""
    done = storage.stored(graph.stages)
    unit = "GPU-hours" if resources.gpus else "CPU-hours"
    ask = ask_of(resources)
    held = (ask.gpus or ask.cpus) * ask.processes
    seconds: dict[str, float] = {}
    images: dict[str, int] = {}
    for row in storage.rows("stages", done).to_pylist():
        # A rate on other devices says nothing.
        if row["images"] and (row["device"] != "cpu") == bool(resources.gpus) and row["workers"] == resources.workers:
            seconds[row["network"]] = seconds.get(row["network"], 0.0) + row["seconds"]
            images[row["network"]] = images.get(row["network"], 0) + row["images"] * row["epochs"]
    hours = 0.0
    complete = set(done)
    for stage in (stage for key, stage in graph.stages.items() if key not in complete and stage.effort):
        if (network := stage.spec.network) not in images:
            return f"{unit}: unknown, as no stage of {network} with these resources is stored yet"
        hours += stage.effort * seconds[network] / images[network] * held / 3600
    return f"{unit}: about {hours:.2g}, at the pace of the stored stages" if hours else f"{unit}: none"


def describe_axes(config: StudyConfig) -> str:
    """The axes with their points."""
    lines = []
    for name in axis_names(config):
        lines.append(f"{name:16} {'; '.join(point.label for point in points_of(config, name))}")
    return "\n".join(lines)


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


def _summary(rounds: list[Experiment]) -> str:
    experiment = rounds[-1]
    graph, folder = experiment.graph, experiment.storage.study_path(experiment.study)
    lines = [f"sharing saved {graph.unshared - len(graph.stages)} of {graph.unshared} stages"]
    trained = [one for one in rounds if one.ran]
    if ran := [key for one in trained for key in one.ran]:
        busy = sum(experiment.storage.rows("stages", ran)["seconds"].to_pylist())
        share = 100 * busy / sum(one.slots * one.seconds for one in trained)
        took = f"{len(ran)} stages in {duration(sum(one.seconds for one in trained))}"
        lines.append(f"{took}; the {trained[-1].slots} slots were busy {share:.0f} % of it")
    elif not experiment.failed:
        lines.append("nothing to train: every stage was stored already")
    if experiment.failed:
        count = f"{len(experiment.failed)} stages failed, {len(experiment.skipped)} that need them were skipped"
        lines.append(f"{count} (tracebacks in {folder}/errors); run the same command to try again:")
        lines += [f"  {label(graph, key)}: {error}" for key, error in experiment.failed.items()]
    return "\n".join(lines)


def _overrides(options: argparse.Namespace) -> list[str]:
    overrides = list(options.set)
    if options.seeds is not None:
        overrides.append(f"seeds={options.seeds}")
    if options.ablate:
        base = read_config(options.preset, overrides).ablations
        more = [name.strip() for name in options.ablate.split(",")]
        overrides.append(f"ablations={json.dumps(list(dict.fromkeys([*base, *more])))}")
    return overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study.ablation",
        description="Run an ablation study of sparse transfer learning; run the same command again to go on.",
    )
    parser.add_argument("--preset", default="digits", help="a preset's name or a YAML file (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. transfer.tau=2")
    parser.add_argument("--ablate", metavar="AXES", help="axes beside the preset's ablations, e.g. tau,lambda")
    parser.add_argument("--list-axes", action="store_true", help="print the axes with their points and stop")
    parser.add_argument("--yes", action="store_true", help="run even a very large study without asking")
    parser.add_argument("--seeds", type=positive, metavar="N", help="number of seeds (0 to N-1)")
    parser.add_argument("--until-settled", action="store_true", help="add seeds until S and K are settled")
    parser.add_argument("--most-seeds", type=positive, metavar="N", help=f"but no more (default: {MOST_SEEDS})")
    parser.add_argument("--hours", type=number, metavar="H", help="and start no round that would end later")
    help_ = f"points of accuracy that count as no difference (default: {NEGLIGIBLE}); 0: none do"
    parser.add_argument("--negligible", type=number, metavar="POINTS", help=help_)
    parser.add_argument("--storage", default="results", help="folder or URI of all results (default: %(default)s)")
    parser.add_argument("--name", type=folder_name, help="name of the study's folder (default: the preset's name)")
    parser.add_argument("--slots", type=positive, metavar="N", help="stages side by side (default: what fits)")
    parser.add_argument("--address", help="address of a running Ray cluster (default: Ray is started here)")
    parser.add_argument("--dashboard", action="store_true", help="start the Ray dashboard too")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what is stored, and train nothing")
    parser.add_argument("--show-config", action="store_true", help="print the whole configuration and stop")
    parser.add_argument("--list-presets", action="store_true", help="print the presets and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())

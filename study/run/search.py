"""Runs a search: Optuna's trials on the stage graph, the final test of what was found, the report.

Trials are judged by validation accuracy. In the end the best settings (or the Pareto front) and the study's own are
trained with other seeds; these nets, and no others, are what the report shows on the test set.
"""

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

import analysis
from search_spaces.axes import Point
from search_spaces.cells import Cell
from search_spaces.space import cell_of, fitting, outside, own_params, space
from study import schema
from study.config import (
    ConfigError,
    StudyConfig,
    as_yaml,
    check,
    target_classes,
    with_changes,
)
from study.durations import duration
from study.graph import StageGraph, plan_cells
from study.names import OWN_SETTINGS
from study.run.database import FILE, keep, name_within, open_database, readable, require_unchanged
from study.run.decoding import prepare_machine
from study.run.identity import claim
from study.run.lease import only_driver
from study.run.outcome import Outcome, require_name
from study.run.path import AblationPath
from study.run.reference import say_doubts
from study.run.standing import tell
from study.run.tables import write_tables
from study.run.trials import best_preset, ranked, trial_row
from study.settings.choices import Against, SamplerName
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.configurations import (
    LATENCY,
    LATENCY_MS,
    LEAST_TRIALS,
    ConfigurationSearcher,
    EarlyStopping,
    TrialBook,
    importance,
)
from study.tune.experiment import Experiment
from study.tune.loggers import Loggers
from trainables import latency
from trainables.suggestions import choices

MOST_FINALISTS = 5


@dataclass(frozen=True)
class SearchSettings:
    """How the space is searched; what it spans is in the configuration's ``search``."""

    trials: int = 40
    """Trials in all, those of earlier runs included."""
    sampler: SamplerName = "tpe"
    against: Against | None = None
    """The second objective, for the Pareto front; None: validation accuracy only."""
    seed: int = 0
    """Of the sampler."""
    minutes: float | None = None
    """No new trial is started after this time."""
    early_stopping: bool = True
    warm_start: str | None = None
    """Name of an earlier search whose best settings are tried first."""
    explain: bool = False
    """Follow the ablation path from the study's own settings to the best, and test every step of it."""


def run_search(
    config: StudyConfig,
    name: str,
    settings: SearchSettings | None = None,
    *,
    storage: str | Path = "results",
    address: str | None = None,
    slots: int | None = None,
    progress: bool = True,
) -> Outcome:
    """Search the hyperparameters of a study, test what was found with other seeds, and report it.

    Called again with the same settings, or with more trials, it resumes.

    Args:
        config: the study.
        name: name of the search's folder in the storage.
        settings: how to search; None: 40 trials by TPE.
        storage: folder of all results; Optuna's database wants a local or shared disk.
        address: a running Ray cluster; None: the Ray of this process or else one of its own, on this machine.
        slots: stages side by side; None: what fits; 0: one after another in this process, without Ray, for a debugger.
        progress: whether to show progress on the terminal or in the notebook.

    Raises:
        ConfigError: the configuration or the settings cannot be used, or the storage is no disk.
        StorageError, ResourceError, ClusterError, StudyIsRunningError, DataError: as :func:`run_study`.
    """
    require_name(name)
    settings = settings or SearchSettings()
    _require_usable(config, settings)
    kept, cluster = Storage(str(storage)), Cluster(address, slots)
    cluster.require_no_group(config.resources.workers)
    if not kept.folder.is_local:
        raise ConfigError(
            f"a search cannot be kept in {kept.root}: Optuna's database wants a local or shared disk\n"
            "  give a folder with --storage; study.ablation runs the best settings on any storage"
        )
    kept.probe()
    if cluster.is_this_machine:
        prepare_machine(config)
    console = Console(highlight=False, quiet=not progress)
    doubts = say_doubts(config, console)
    with only_driver(kept.folder, name):
        return _Search(config, name, settings, kept, cluster, console, doubts).run()


def _require_usable(config: StudyConfig, settings: SearchSettings) -> None:
    for key, value, known in (
        ("sampler", settings.sampler, get_args(SamplerName)),
        ("against", settings.against or "share", get_args(Against)),
    ):
        if value not in known:
            raise ConfigError(f"no {key} {value!r}: {choices(value, known)}")
    if settings.trials < 1:
        raise ConfigError(f"trials is {settings.trials}: give 1 or more")
    if not 0 <= settings.seed < 2**32:
        raise ConfigError(f"seed is {settings.seed}: a sampler's seed is a number from 0 to {2**32 - 1}")
    if settings.against and settings.sampler == "cmaes":
        others = ", ".join(name for name in get_args(SamplerName) if name != "cmaes")
        raise ConfigError(f"--sampler cmaes knows only one objective: with --against give {others}")
    if settings.explain and settings.against:
        raise ConfigError("--explain follows the path to the best settings: a front (--against) has several")
    if config.targets:
        raise ConfigError("a search is on one target: leave out targets, and set target.data")
    check(config, "the search")
    if problems := outside(config, against=settings.against):
        raise ConfigError("\n".join(["the search cannot be used", *(f"  {key}: {text}" for key, text in problems)]))


class _Search:
    """A search: its Optuna study, the stages that its trials need, and the final test."""

    def __init__(
        self,
        config: StudyConfig,
        name: str,
        settings: SearchSettings,
        storage: Storage,
        cluster: Cluster,
        console: Console,
        doubts: list[str],
    ) -> None:
        """Open the search; ``doubts`` are about its pretrained references.

        Raises:
            ConfigError: the database in its folder is that of a search with other settings.
            StorageError: the database is damaged, or cannot be read.
        """
        self.config, self.storage, self.settings = config, storage, settings
        self.name, self.cluster, self.console, self.doubts = name, cluster, console, doubts
        self.loggers = Loggers(config.loggers, name, console)
        self.against = settings.against
        self.own = own_params(config, against=self.against)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        path, spanned = self._database(self.name), space(config, against=self.against)
        with readable(path):
            database = open_database(path)
            self.book = TrialBook(
                spanned,
                database,
                name_within(database, name),
                sampler_name=settings.sampler,
                seed=settings.seed,
                against=self.against,
            )
            require_unchanged(self.book.study, path)
        own = {"against": self.against, "sampler": settings.sampler, "seed": settings.seed}
        claim(self.book.study, config, own, storage.root)
        self._enqueue(self.own, "own")
        if settings.warm_start:
            self._warm_start(settings.warm_start)

    def run(self) -> Outcome:
        """Search, test the finalists, and report."""
        graph = StageGraph()
        experiment = self._experiment(graph)
        seconds = (self.settings.minutes or float("inf")) * 60
        end = time.monotonic() + seconds
        self.console.print(f"search {self.name}: {self.book.asked} of {self.settings.trials} trials already stored")
        scheduler = None
        if self.against is None and self.settings.early_stopping:
            train = self.config.transfer.train
            scheduler = EarlyStopping(max(train.validate_every, train.epochs // 3), train.epochs)
            scheduler.remember(self.book.study.get_trials(deepcopy=False))

        def algorithm() -> ConfigurationSearcher:
            searcher = ConfigurationSearcher(
                graph,
                self._is_stored,
                experiment.config_of,
                self.book,
                self._cells,
                lambda key: self._metrics(graph, key),
                trials=self.settings.trials,
                abreast=experiment.slots,
                expired=lambda: time.monotonic() > end,
                announce=lambda line: self.console.print(line, markup=False),
            )
            if scheduler is not None:
                scheduler.is_judged = searcher.is_judged
            return searcher

        open_trials = self.book.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if self.book.asked < self.settings.trials or open_trials:
            self._measure_latencies()
            experiment.run_with(self.console, algorithm, scheduler, foreseen=False)
        return self._conclude(experiment)

    def _experiment(self, graph: StageGraph) -> Experiment:
        places = (self.config.resources, self.config.data, self.cluster, self.loggers)
        return Experiment(graph, self.storage, self.name, *places)

    def _cells(self, params: Mapping[str, Any]) -> list[Cell]:
        cells = [cell_of(self.config, params, seed, "a trial of the search") for seed in self.config.search.seeds]
        check(cells[0].config, "a trial of the search", prunes_target=False)
        return cells

    def _is_stored(self, key: str) -> bool:
        """Whether a stage is complete; damaged rows are reported, and the stage is trained again."""
        if not self.storage.has(key):
            return False
        damaged = self.storage.damaged([key])
        for damage in damaged.values():
            self.console.print(damage, markup=False, soft_wrap=True)
        return not damaged

    def _measure_latencies(self) -> None:
        """Measure every shape of net that the space has, and keep it with the Optuna study.

        Shapes are few, as only steps of neuron pruning change them. So all are measured side by side, once for the
        whole search and before its stages keep the machine busy: trials of one shape have one latency, in a later run
        too.
        """
        if self.against != "latency" or "latencies" in self.book.study.user_attrs:
            return
        config, search, prune = self.config, self.config.search, self.config.neuron_prune
        assert prune is not None, "the space of a search against latency was checked"
        nets = latency.after_each_step(
            config.network, target_classes(config), prune.params(None), search.neuron_steps[1]
        )
        self.console.print(f"measuring the latency of {len(nets)} nets, from unpruned to the fewest neurons")
        measured = latency.measure(nets, search.latency_batch, config.resources.threads)
        keep(self.book.study, "latencies", [{LATENCY: net.percent, LATENCY_MS: net.milliseconds} for net in measured])

    def _metrics(self, graph: StageGraph, key: str) -> dict[str, Any]:
        """Metrics of a stage's net; against latency with that of the net's shape."""
        metrics: dict[str, Any] = self.storage.manifest(key)["metrics"]
        if self.against != "latency":
            return metrics
        steps = sum(graph.stages[stage].spec.kind == "neuron_prune" for stage in graph.path(key))
        measured: list[dict[str, float]] = self.book.study.user_attrs["latencies"]
        return metrics | measured[steps]

    def _database(self, name: str) -> Path:
        return Path(self.storage.study_path(name, FILE))

    def _enqueue(self, params: Mapping[str, Any], origin: str) -> None:
        self.book.study.enqueue_trial(dict(params), user_attrs={"origin": origin}, skip_if_exists=True)

    def _warm_start(self, name: str) -> None:
        if not (path := self._database(name)).exists():
            raise ConfigError(
                f"no search {name!r} in {self.storage.root}: --warm-start takes the name of a search there"
            )
        with readable(path):
            database = open_database(path)
            earlier = optuna.load_study(study_name=name_within(database, name), storage=database)
            require_unchanged(earlier, path)
        for trial in ranked(earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))[:MOST_FINALISTS]:
            known = {key: value for key, value in trial.params.items() if key in self.own}
            params = fitting(self.config, known)
            if left_out := [f"{key} {value:.4g}" for key, value in known.items() if key not in params]:
                said = f"warm start: {', '.join(left_out)} of trial {trial.number} of {name} is outside this search's"
                self.console.print(f"{said} bounds, and drawn again", markup=False, soft_wrap=True)
            self._enqueue(params, "warm start")

    def _conclude(self, search: Experiment) -> Outcome:
        """Test the finalists with other seeds, write the tables and the best settings, and report."""
        complete = self.book.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = self._finalists(complete)
        path = self._path(best) if self.settings.explain else None
        graph = plan_cells(self._final_cells(best, path), checked=self.config)
        final = self._experiment(graph)
        try:
            final.run(self.console)
        finally:
            self._write(final, best, path)
        folder = self.storage.study_path(self.name)
        results = analysis.load(folder)
        report = str(analysis.write_report(results))
        found = f"{folder}/best.yaml" if best else None
        outcome = Outcome(results, folder, report, self._summary(search, best), final.failed, found)
        tell(self.loggers, outcome)
        return outcome

    def _finalists(self, complete: list[FrozenTrial]) -> list[FrozenTrial]:
        """The best trial by validation accuracy or, with two objectives, the Pareto front, at most five of it."""
        if self.against is None:
            return ranked(complete)[:1]
        front = ranked(self.book.study.best_trials) if complete else []
        if len(front) <= MOST_FINALISTS:
            return front
        spread = {round(i * (len(front) - 1) / (MOST_FINALISTS - 1)) for i in range(MOST_FINALISTS)}
        return [front[i] for i in sorted(spread)]

    def _path(self, best: list[FrozenTrial]) -> AblationPath | None:
        if not best:
            return None
        path = AblationPath(self.config, self.own, best[0].params)
        path.follow(self._experiment, self.storage, self.console)
        return path

    def _final_cells(self, best: list[FrozenTrial], path: AblationPath | None) -> list[Cell]:
        points = [(Point(OWN_SETTINGS), self.own, True)]
        points += [(Point(f"trial {trial.number}"), trial.params, False) for trial in best]
        tested = [
            replace(cell_of(self.config, params, seed, point.label), point=point, point_index=index, own_point=own)
            for seed in self.config.search.final_seeds
            for index, (point, params, own) in enumerate(points)
        ]
        steps = [cell for seed in self.config.search.final_seeds for cell in path.final_cells(seed)] if path else []
        return tested + steps

    def _write(self, final: Experiment, best: list[FrozenTrial], path: AblationPath | None) -> None:
        own = with_changes(self.config, {"seeds": list(self.config.search.final_seeds)}, "the search")
        trials = self.book.study.get_trials(deepcopy=False)
        chosen = {trial.number for trial in best}
        rows = [trial_row(trial, chosen) for trial in trials if trial.state.is_finished()]
        others: dict[str, Any] = {
            "trials.parquet": schema.table("trials", rows),
            "importance.parquet": schema.table("importance", self._importance(trials)),
        }
        if best:
            others["best.yaml"] = as_yaml(best_preset(self.config, best[0], self.name)).encode()
        tried = [key for trial in trials for key in trial.user_attrs.get("stages", [])]
        if path is not None:
            others["ablation_path.parquet"], tried = path.table(), tried + path.tried
        write_tables(final, own, doubts=self.doubts, others=others, untested=self._trained(tried))

    def _trained(self, tried: list[str]) -> list[str]:
        """Stages that measure what was tried, with all that they were made from, as far as they are complete."""
        found: dict[str, None] = {}
        new = list(dict.fromkeys(tried))
        while new := [key for key in self.storage.stored(new) if key not in found]:
            found |= dict.fromkeys(new)
            rows = self.storage.rows("stages", new)["parents"].to_pylist()
            new = list(dict.fromkeys(parent for text in rows for parent in json.loads(text).values()))
        return list(found)

    def _importance(self, trials: list[FrozenTrial]) -> list[dict[str, Any]]:
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if len(complete) < LEAST_TRIALS:
            return []
        return [
            {"hyperparameter": name, "seed": seed, "importance": share, "trials": len(complete)}
            for index, seed in enumerate(self.config.search.seeds)
            for name, share in importance(complete, index).items()
        ]

    def _summary(self, search: Experiment, best: list[FrozenTrial]) -> str:
        trials = self.book.study.get_trials(deepcopy=False)
        states = [trial.state.name.lower() for trial in trials if trial.state.is_finished()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines = [f"{len(states)} trials: {counts}"]
        if search.ran:
            lines.append(f"{len(search.ran)} stages trained in {duration(search.seconds)}")
        folder = self.storage.study_path(self.name)
        if best:
            lines.append(
                f"best settings: {folder}/best.yaml, to be run with study.ablation --preset {folder}/best.yaml"
            )
        lines.append(f"dashboard: optuna-dashboard sqlite:///{folder}/{FILE}")
        return "\n".join(lines)

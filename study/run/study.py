"""Runs a study: stage graph, one Ray Tune experiment, result tables, report.

The data flow of the whole system is here, from a configuration to what is concluded.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import analysis
from study.config import ConfigError, StudyConfig, check
from study.durations import duration
from study.facts import SequentialDesign
from study.graph import StageGraph, plan
from study.run.decoding import prepare_machine, understood
from study.run.lease import only_driver
from study.run.outcome import Outcome, require_name
from study.run.reference import say_doubts
from study.run.settling import Settling, require_main_comparisons
from study.run.standing import PLAN, tell
from study.run.tables import planned_cells, write_tables
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from study.tune.loggers import Loggers
from study.tune.progress import label


def run_study(
    config: StudyConfig,
    name: str,
    *,
    storage: str | Path = "results",
    address: str | None = None,
    slots: int | None = None,
    dashboard: bool = False,
    until_settled: SequentialDesign | None = None,
    hours: float | None = None,
    graph: StageGraph | None = None,
    progress: bool = True,
) -> Outcome:
    """Run a study, of which only the stages are trained that the storage does not have, and report it.

    Called again after an interruption, it resumes. Where Ray runs in this process already, the study runs on that Ray
    and leaves it running.

    Args:
        config: the study.
        name: name of its folder in the storage.
        storage: folder or URI of all results.
        address: a running Ray cluster; None: the Ray of this process or else one of its own, on this machine.
        slots: stages side by side; None: what fits; 0: one after another in this process, without Ray, for a debugger.
        dashboard: whether to start the Ray dashboard too.
        until_settled: add seeds until S and K are settled, by this design.
        hours: start no round of ``until_settled`` that would end later than this.
        graph: the study's plan, where it was made already; the configuration is not checked again then.
        progress: whether to show progress on the terminal or in the notebook.

    Raises:
        ConfigError: the configuration cannot be used.
        StorageError: the storage cannot be written to.
        ResourceError: no stage could ever start with the resources that there are.
        ClusterError: there is no such cluster.
        StudyIsRunningError: another process runs this study.
        DataError: data cannot be read.
    """
    require_name(name)
    cluster = Cluster(address, slots, dashboard)
    cluster.require_no_group(config.resources.workers)
    if hours is not None and until_settled is None:
        raise ConfigError("hours limits the rounds of until_settled, which is not given")
    if graph is None:
        check(config, name)
        graph = plan(config)
    settling = Settling(config, until_settled, hours) if until_settled else None
    if settling:
        require_main_comparisons(graph)
    kept = Storage(str(storage))
    kept.probe()
    console = Console(highlight=False, quiet=not progress)
    loggers = Loggers(config.loggers, name, console)
    study = _Study(name, kept, cluster, settling, console, loggers)
    with only_driver(kept.folder, name):
        return study.run(config, graph)


@dataclass(frozen=True)
class _Study:
    """A study under way: one round of training, unless seeds are added until it is settled."""

    name: str
    storage: Storage
    cluster: Cluster
    settling: Settling | None
    console: Console
    loggers: Loggers

    def run(self, config: StudyConfig, graph: StageGraph) -> Outcome:
        """Train and report."""
        folder = self.storage.study_path(self.name)
        rounds = [self._train(config, graph)]
        results = analysis.load(folder)
        while self.settling:
            standing, goes_on = self.settling.after_round(results)
            self.console.print(standing, markup=False, soft_wrap=True)
            if not goes_on:
                break
            rounds.append(self._train(self.settling.config, plan(self.settling.config)))
            results = analysis.load(folder)
        report = str(analysis.write_report(results))
        outcome = Outcome(results, folder, report, _summary(rounds), rounds[-1].failed)
        tell(self.loggers, outcome)
        return outcome

    def _train(self, config: StudyConfig, graph: StageGraph) -> Experiment:
        """Run what is not stored yet, and write the study's tables."""
        stored = len(self.storage.stored(graph.stages))
        self.storage.write_study(self.name, f"{PLAN}.parquet", planned_cells(graph))
        counts = f"{len(graph.cells)} cells, {len(graph.stages)} stages, {stored} already stored"
        self.console.print(f"study {self.name}: {counts}")
        if stored < len(graph.stages):
            for line in understood(config):
                self.console.print(line, markup=False, soft_wrap=True)
        if self.cluster.is_this_machine and stored < len(graph.stages):
            prepare_machine(config)
        doubts = say_doubts(config, self.console)
        places = (config.resources, config.data, self.cluster, self.loggers)
        experiment = Experiment(graph, self.storage, self.name, *places)
        try:
            experiment.run(self.console)
        finally:
            write_tables(experiment, config, self.settling.design if self.settling else None, doubts)
        return experiment


def _summary(rounds: list[Experiment]) -> str:
    experiment = rounds[-1]
    graph, folder = experiment.graph, experiment.storage.study_path(experiment.study)
    lines = [f"sharing saved {graph.unshared - len(graph.stages)} of {graph.unshared} stages"]
    trained = [one for one in rounds if one.ran]
    if ran := [key for one in trained for key in one.ran]:
        busy = sum(experiment.storage.rows("stages", ran)["seconds"].to_pylist())
        share = 100 * busy / sum(one.slots * one.seconds for one in trained)
        took = f"{len(ran)} stages in {duration(sum(one.seconds for one in trained))}"
        slots = trained[-1].slots
        lines.append(f"{took}; the {'slot was' if slots == 1 else f'{slots} slots were'} busy {share:.0f} % of it")
    elif not experiment.failed:
        lines.append("nothing to train: every stage was stored already")
    if experiment.failed:
        count = f"{len(experiment.failed)} stages failed, {len(experiment.skipped)} that need them were skipped"
        lines.append(f"{count} (tracebacks in {folder}/errors); run the same command to try again:")
        lines += [f"  {label(graph, key)}: {error}" for key, error in experiment.failed.items()]
    return "\n".join(lines)

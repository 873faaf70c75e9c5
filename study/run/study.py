"""Runs a study: stage graph, one Ray Tune experiment, result tables, report.

The data flow of the whole system is here, from a configuration to what is concluded.
"""

from dataclasses import dataclass
from pathlib import Path

import analysis
from study.config import ConfigError, StudyConfig, check
from study.facts import SequentialDesign
from study.graph import StageGraph, plan
from study.run.lease import only_driver
from study.run.outcome import Outcome, require_name
from study.run.settling import Settling, require_main_comparisons
from study.run.standing import tell
from study.run.training import Part, Training, summary
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment


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
        graph: the study's plan, if it was made already; the configuration is not checked again then.
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
    if config.targets:
        raise ConfigError(f"the study has {len(config.targets)} targets: run_targets runs it")
    cluster = Cluster(address, slots, dashboard)
    cluster.require_no_group(config.resources.workers)
    if until_settled is not None and config.tuned is not None:
        raise ConfigError("seeds are added until nets at common settings are settled: leave out tuned")
    if hours is not None and until_settled is None:
        raise ConfigError("hours limits the rounds of until_settled, which is not given")
    if graph is None:
        check(config, name)
        graph = plan(config)
    settling = Settling(config, until_settled, hours) if until_settled else None
    if settling:
        require_main_comparisons(graph)
    training = Training.opened(config, name, storage, cluster, progress)
    with only_driver(training.storage.folder, name):
        return _Study(training, settling).run(config, graph)


@dataclass(frozen=True)
class _Study:
    """A study under way: one round of training, unless seeds are added until it is settled."""

    training: Training
    settling: Settling | None

    def run(self, config: StudyConfig, graph: StageGraph) -> Outcome:
        """Train and report."""
        name, storage = self.training.name, self.training.storage
        storage.forget_targets(name)
        folder = storage.study_path(name)
        rounds = [self._round(config, graph)]
        results = analysis.load(folder)
        while self.settling:
            standing, goes_on = self.settling.after_round(results)
            self.training.console.print(standing, markup=False, soft_wrap=True)
            if not goes_on:
                break
            rounds.append(self._round(self.settling.config, plan(self.settling.config)))
            results = analysis.load(folder)
        report = str(analysis.write_report(results))
        outcome = Outcome(results, folder, report, summary(rounds), rounds[-1].failed)
        tell(self.training.loggers, outcome)
        return outcome

    def _round(self, config: StudyConfig, graph: StageGraph) -> Experiment:
        design = self.settling.design if self.settling else None
        return self.training.round(config, [Part(self.training.name, config, graph)], design)

"""Runs a study on several targets: one stage graph, one Ray Tune experiment, the tables and the report of each."""

from collections.abc import Mapping
from pathlib import Path

from analysis.overview import report_targets
from analysis.targets import load_targets
from study.config import ConfigError, StudyConfig, check, target_config
from study.graph import StageGraph, plan_targets
from study.run.lease import only_driver
from study.run.outcome import TargetsOutcome, require_name
from study.run.standing import tell_targets
from study.run.training import Part, Training, summary
from study.tune.cluster import Cluster


def run_targets(
    config: StudyConfig,
    name: str,
    *,
    storage: str | Path = "results",
    address: str | None = None,
    slots: int | None = None,
    dashboard: bool = False,
    graphs: Mapping[str, StageGraph] | None = None,
    progress: bool = True,
) -> TargetsOutcome:
    """Run a study on each of its ``targets``, whose source is trained once, and report each and all of them together.

    Called again after an interruption, it resumes.

    Args:
        config: the study, with ``targets``.
        name: name of its folder in the storage, in which each target has one.
        storage: folder or URI of all results.
        address: a running Ray cluster; None: the Ray of this process or else one of its own, on this machine.
        slots: stages side by side; None: what fits; 0: one after another in this process, without Ray, for a debugger.
        dashboard: whether to start the Ray dashboard too.
        graphs: the plan of each target, if it was made already; the configuration is not checked again then.
        progress: whether to show progress on the terminal or in the notebook.

    Raises:
        ConfigError: the configuration cannot be used, or has no targets.
        StorageError, ResourceError, ClusterError, StudyIsRunningError, DataError: as :func:`run_study`.
    """
    require_name(name)
    if not config.targets:
        raise ConfigError("the study has one target: give targets, or run it with run_study")
    cluster = Cluster(address, slots, dashboard)
    cluster.require_no_group(config.resources.workers)
    if graphs is None:
        check(config, name)
        graphs = plan_targets(config)
    training = Training.opened(config, name, storage, cluster, progress)
    kept = training.storage
    parts = [Part(f"{name}/{target}", target_config(config, target), graph) for target, graph in graphs.items()]
    with only_driver(kept.folder, name):
        kept.note_targets(name, config.targets)
        experiment = training.round(config, parts)
        results = load_targets(kept.study_path(name))
        report = report_targets(results)
        outcome = TargetsOutcome(results, kept.study_path(name), report, summary([experiment]), experiment.failed)
        tell_targets(training.loggers, outcome)
        return outcome

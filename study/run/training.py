"""A round of training: what the storage lacks of a study's stages, then the tables of the study or of each target."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from study.config import StudyConfig
from study.durations import duration
from study.facts import SequentialDesign
from study.graph import StageGraph, joined, plan_cells
from study.run.decoding import prepare_machine, understood
from study.run.reference import reference_doubts, say
from study.run.standing import PLAN
from study.run.tables import planned_cells, write_tables, write_targets
from study.run.tuning import Tuning
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from study.tune.loggers import Loggers
from study.tune.progress import label


@dataclass(frozen=True)
class Part:
    """A study with one target: the whole of a study, or what it is on one of several targets."""

    name: str
    """Of its folder among the storage's studies."""
    config: StudyConfig
    graph: StageGraph


@dataclass(frozen=True)
class Training:
    """What all rounds of a study have in common."""

    name: str
    storage: Storage
    cluster: Cluster
    console: Console
    loggers: Loggers

    @classmethod
    def opened(
        cls, config: StudyConfig, name: str, storage: str | Path, cluster: Cluster, progress: bool
    ) -> "Training":
        """Open the storage, which must be writable, and the trackers.

        Raises:
            StorageError: the storage cannot be written to.
            ConfigError: the packages of a tracker are not installed.
        """
        kept = Storage(str(storage))
        kept.probe()
        console = Console(highlight=False, quiet=not progress)
        return cls(name, kept, cluster, console, Loggers(config.loggers, name, console))

    def round(
        self, config: StudyConfig, parts: Sequence[Part], sequential: SequentialDesign | None = None
    ) -> Experiment:
        """Run what is not stored yet of all parts side by side, and write the tables of each.

        Args:
            config: the study.
            parts: the study itself or, of several targets, one for each.
            sequential: how seeds are added, if their number is not fixed.
        """
        tunings = {part.name: Tuning(part.config) for part in parts if part.config.tuned}
        graph = joined([*(part.graph for part in parts), *(tuning.graph for tuning in tunings.values())])
        stored = len(self.storage.stored(graph.stages))
        for part in parts:
            self.storage.write_study(part.name, f"{PLAN}.parquet", planned_cells(part.graph))
        cells = sum(len(part.graph.cells) for part in parts)
        on = f" on {len(parts)} targets" if len(parts) > 1 else ""
        self.console.print(f"study {self.name}: {cells} cells{on}, {len(graph.stages)} stages, {stored} already stored")
        for tuning in tunings.values():
            self.console.print(str(tuning), soft_wrap=True)
        if stored < len(graph.stages):
            for line in understood(config):
                self.console.print(line, markup=False, soft_wrap=True)
        if self.cluster.is_this_machine and stored < len(graph.stages):
            prepare_machine(config)
        doubts = {part.name: reference_doubts(part.config) for part in parts}
        # What is doubtful about the source concerns every target.
        say(dict.fromkeys(doubt for found in doubts.values() for doubt in found), self.console)
        places = (config.resources, config.data, self.cluster, self.loggers)
        experiment = Experiment(graph, self.storage, self.name, *places)
        try:
            experiment.run(self.console)
        finally:
            for part in parts:
                self._write(experiment, part, tunings.get(part.name), sequential, doubts[part.name])
            if config.targets:
                write_targets(self.storage, self.name, config)
        return experiment

    def _write(
        self,
        experiment: Experiment,
        part: Part,
        tuning: Tuning | None,
        sequential: SequentialDesign | None,
        doubts: list[str],
    ) -> None:
        """Write the tables of a part; of nets that are tuned, with those that are each at their best."""
        if tuning is None:
            own = replace(experiment, graph=part.graph, study=part.name)
            write_tables(own, part.config, sequential, doubts)
            return
        chosen, tried = tuning.concluded(self.storage, experiment.failed)
        graph = joined([part.graph, plan_cells(chosen, checked=part.config)])
        own = replace(experiment, graph=graph, study=part.name)
        others = {"tuning.parquet": tried}
        # Who chooses by validation accuracy does not look at the test accuracy of what was not chosen.
        write_tables(own, part.config, sequential, doubts, others, untested=[*tuning.graph.stages])


def summary(rounds: list[Experiment]) -> str:
    """Which stages were trained, how long that took, and what failed, as text."""
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

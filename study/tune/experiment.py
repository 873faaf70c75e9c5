"""Runs the missing stages of a graph as one Ray Tune experiment."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ray.tune import Callback
from rich.console import Console

from study.config import ResourceConfig
from study.graph import StageGraph
from study.storage import Storage
from study.tune.cluster import Cluster, Stops, connect, left_as_found, while_the_head_answers
from study.tune.in_process import run_in_process
from study.tune.loggers import Loggers
from study.tune.progress import Progress, label
from study.tune.resources import (
    ON_DEMAND,
    Ask,
    Capacity,
    ask_of,
    connected_cluster,
    require,
    require_usable_gpus,
    this_machine,
)
from study.tune.scheduling import EveryTrialItsProcess, LostGroups, LostProcesses, StageSearcher
from study.tune.starting import FirstStage, start_ray
from study.tune.trial import Task, pickled_functions, run_trial
from trainables.data import Places


@dataclass
class Experiment:
    """A graph's missing stages on Ray Tune, and what became of them."""

    graph: StageGraph
    storage: Storage
    study: str
    resources: ResourceConfig
    places: Places
    cluster: Cluster
    loggers: Loggers = field(default_factory=Loggers)
    """Trackers that stages are logged to."""
    ran: list[str] = field(default_factory=list)
    """Stages completed by this run."""
    failed: dict[str, str] = field(default_factory=dict)
    """Error by stage."""
    skipped: dict[str, str] = field(default_factory=dict)
    """For each stage that could not run: the failed stage that it needs."""
    slots: int = 0
    capacity: Capacity = field(init=False)
    """What there is to run on, once Ray has started."""
    seconds: float = 0.0
    """Wall time of the experiment, without the start of Ray."""

    def run(self, console: Console) -> None:
        """Run what is not complete yet.

        Raises:
            KeyboardInterrupt: the user has had enough. What is complete stays, the rest resumes from its checkpoint.
        """
        stored = self.storage.stored(self.graph.stages)
        damaged = self.storage.damaged(stored)
        for key, damage in damaged.items():
            console.print(f"{label(self.graph, key)}: {damage}", markup=False, soft_wrap=True)
        done = set(stored) - damaged.keys()
        if len(done) < len(self.graph.stages):
            self.run_with(console, lambda: StageSearcher(self.graph, done, self.config_of))

    def run_with(
        self, console: Console, algorithm: Callable[[], StageSearcher], scheduler: Any = None, *, foreseen: bool = True
    ) -> None:
        """Run the stages that a search algorithm hands out, which may add to the graph as it goes.

        Args:
            console: where progress is shown.
            algorithm: makes the search algorithm, once it is known how many stages run side by side.
            scheduler: a Tune scheduler that may stop stages early.
            foreseen: whether all stages are in the graph from the start, so that the time left can be estimated.
        """
        with left_as_found():
            starts = self.cluster.is_this_machine
            self._start(console)
            searcher = algorithm()
            done = set(searcher.done)
            started = time.monotonic()
            try:
                with (
                    while_the_head_answers(self.cluster.address, console),
                    Progress(self.graph, searcher, self.slots, console, foreseen) as progress,
                    Stops() as stops,
                    FirstStage(console, is_own=starts) as first,
                ):
                    followers = [progress, self.loggers.follow(self.graph), stops, first]
                    if self.cluster.in_process:
                        run_in_process(searcher, followers, scheduler)
                    else:
                        # Tensorboard's package takes long to import.
                        from study.tune.scalars import Scalars

                        callbacks = [LostProcesses(searcher), LostGroups(), *followers, Scalars(stops)]
                        self._fit(searcher, callbacks, scheduler, self._ray_folder(console))
            finally:
                self.seconds = time.monotonic() - started
                new = (searcher.done - done) | (searcher.done & searcher.losses.keys())
                self.ran = [key for key in self.graph.stages if key in new]
                self.failed, self.skipped = searcher.failed, searcher.skipped
                for key, traceback in searcher.tracebacks.items():
                    self.storage.write_study(self.study, f"errors/{key}.txt", traceback.encode())

    def config_of(self, key: str) -> dict[str, str]:
        """The configuration of a stage's trial: its task as JSON, and the beginning of its folder's name."""
        stage = self.graph.stages[key]
        task = Task(
            key=key,
            spec=stage.spec,
            parents=stage.parents,
            contents=stage.contents,
            storage=self.storage.root,
            resources=self.resources,
            places=self.places,
            functions=pickled_functions(stage.spec),
        )
        folder = label(self.graph, key).replace(" ", "_").replace("%", "percent")
        return {"task": task.model_dump_json(by_alias=True), "folder": folder}

    def _start(self, console: Console) -> None:
        """Start or reach Ray, if it is used, and see whether a stage can run."""
        # The study shows its own progress and handles Ctrl-C itself.
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
        # Not every report has every metric: validation may be every tenth epoch.
        os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
        # TensorBoard is the one way to look at a trial that somebody uses: Tune's CSV and JSON cost each report more.
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        # Nor does anybody need Tune's own state, so that it cannot be saved on a full disk is no news.
        logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
        # And of lost processes the study itself reports what became.
        for name in ("ray.tune.execution.tune_controller", "ray.tune.tune"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._connect(console, ask_of(self.resources))

    def _connect(self, console: Console, ask: Ask) -> None:
        """Reach the cluster, or start one, and report what a user should know of it."""
        starts = self.cluster.is_this_machine
        context = connect(self.cluster.address) if self.cluster.address is not None else None
        self.capacity = this_machine(ask) if starts else connected_cluster()
        if warning := require(ask, self.capacity):
            console.print(f"warning: {warning}", soft_wrap=True)
        if ask.gpus and not starts:
            require_usable_gpus()
        self.slots = 1 if self.cluster.in_process else self.cluster.slots or max(1, self.capacity.stages(ask))
        if starts and not self.cluster.in_process:
            context = self._start_own(ask)
        if context is not None and context.dashboard_url:
            console.print(f"Ray dashboard: http://{context.dashboard_url} (`ray get-auth-token` prints its token)")

    def _start_own(self, ask: Ask) -> Any:
        """Start Ray on this machine, with no more CPUs than the slots hold."""
        return start_ray(
            num_cpus=max(1, round(self.slots * ask.cpus * ask.processes)),
            num_gpus=int(self.capacity.present[0].resources["GPU"]),
            include_dashboard=self.cluster.dashboard,
        )

    def _ray_folder(self, console: Console) -> str:
        """Where Ray Tune keeps its logs; nothing is read from there again, so it need not be in an object store."""
        if self.storage.folder.is_local:
            return self.storage.study_path(self.study, "ray")
        folder = tempfile.mkdtemp(prefix=f"{self.study}-ray-")
        console.print(f"Ray's logs, for TensorBoard: {folder}", markup=False, soft_wrap=True)
        return folder

    def _fit(self, searcher: StageSearcher, callbacks: list[Callback], scheduler: Any, folder: str) -> None:
        from ray import tune

        in_group = self.resources.workers > 0
        ask = {"cpu": self.resources.cpus, "gpu": self.resources.gpus}
        if in_group:
            # A driver of a worker group holds no CPU: it would wait for workers that wait for its CPU.
            ask = {"memory": 1_000_000}
            # A driver that is lost takes its whole group along: where some nodes stay, it belongs there.
            ask |= {ON_DEMAND: 1} if self.capacity.offers(ON_DEMAND) else {}
        tune.Tuner(
            tune.with_resources(run_trial, ask),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler or EveryTrialItsProcess(),
                num_samples=-1,
                max_concurrent_trials=self.slots,
                reuse_actors=not in_group,
                trial_dirname_creator=_folder,
            ),
            run_config=tune.RunConfig(
                name=datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S"),
                storage_path=folder,
                verbose=0,
                callbacks=callbacks,
            ),
        ).fit()


def _folder(trial: Any) -> str:
    """The name of a trial's folder. Tune saves this function with each trial, so that it may hold no graph."""
    return f"{trial.config['folder']}_{trial.trial_id}"

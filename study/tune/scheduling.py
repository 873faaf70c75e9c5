"""The stage graph as a Ray Tune search algorithm: it hands out stages whose parents are stored."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from study.graph import StageGraph
from study.tune.advice import SHARE_LESS, out_of_memory
from study.tune.trial import ERROR, LOST, STORED, TRACEBACK

MOST_LOSSES = 2
"""How often a stage is trained again within a run because it was damaged: more often, the disk is broken."""
MOST_LOST_PROCESSES = 4
"""How often a stage's process may be lost before it fails, counted again whenever it gets further than before."""


class StageSearcher(Searcher):
    """Suggests ready stages, those on the longest remaining path first; skips what depends on a failed stage."""

    def __init__(self, graph: StageGraph, done: set[str], config_of: Callable[[str], dict[str, str]]) -> None:
        """Schedule the stages of ``graph`` that are not done.

        Args:
            graph: the study's stages.
            done: keys of complete stages.
            config_of: returns the configuration of a stage's trial.
        """
        # A searcher must name a metric; this one every report has, and no decision hangs on it.
        super().__init__(metric="training_iteration", mode="max")
        self.done = set(done)
        self.failed: dict[str, str] = {}
        """Error of each failed stage, by key."""
        self.tracebacks: dict[str, str] = {}
        """Python traceback of each stage that failed with an error of its own."""
        self.skipped: dict[str, str] = {}
        """For each stage that will not run: the failed stage that it needs."""
        self.losses: Counter[str] = Counter()
        """How often each stage was found damaged or missing by one that needs it."""
        self.running: dict[str, str] = {}
        """Stage of each live trial, by trial id."""
        self.stopped: set[str] = set()
        """Stages that a scheduler ended before they were complete."""
        self._lost_processes: Counter[str] = Counter()
        self._reached: dict[str, tuple[int, int]] = {}
        self._graph, self._config_of = graph, config_of
        self._remaining: dict[str, int] = {}
        self._waiting: list[str] = []
        self._enqueue(key for key in graph.stages if key not in self.done)

    def _enqueue(self, keys: Iterable[str]) -> None:
        """Add stages of the graph to those that wait; one that needs a failed stage is skipped at once."""
        for key in keys:
            culprit = next((stage for stage in self._graph.path(key) if stage in self.failed), None)
            if culprit is None:
                self._waiting.append(key)
            else:
                self.skipped[key] = culprit
        self._remaining = _longest_paths(self._graph)
        self._waiting.sort(key=lambda key: -self._remaining[key])

    @property
    def waiting(self) -> list[str]:
        """Stages that wait for a parent or a slot."""
        return list(self._waiting)

    def longest_path(self, key: str) -> int:
        """Effort from the stage's start to the end of the longest chain that hangs on it."""
        return self._remaining[key]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next ready stage; None while all wait for parents; FINISHED at the end."""
        for key in self._waiting:
            if self._is_ready(key):
                self._waiting.remove(key)
                self.running[trial_id] = key
                return {"stage": key, **self._config_of(key)}
        return None if self._waiting or self.running else Searcher.FINISHED

    def _is_ready(self, key: str) -> bool:
        return all(parent in self.done for parent in self._graph.stages[key].parents.values())

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Take note of how far the stage has got: on machines that come and go, one that gets on is not given up."""
        key = self.running.get(trial_id)
        reached = (result.get("round", 0), result.get("epoch", 0))
        if key is not None and reached > self._reached.get(key, (0, 0)):
            self._reached[key] = reached
            del self._lost_processes[key]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take note that a trial's stage is stored or failed for good, or that its process was lost."""
        key = self.running.pop(trial_id, None)
        if key is None:
            return
        message = (result or {}).get(ERROR)
        lost = (result or {}).get(LOST)
        if lost and self._train_again(lost, key):
            return
        if message:
            self.tracebacks[key] = str((result or {}).get(TRACEBACK))
            self._fail(key, message)
        elif error:
            self._start_again(key)
        elif (result or {}).get(STORED):
            self.done.add(key)
        else:
            self.stopped.add(key)

    def _train_again(self, lost: str, key: str) -> bool:
        """Queue a stage that was found damaged, and the one that found it so; no, if that was done too often."""
        if lost in self.done:
            if self.losses[lost] == MOST_LOSSES:
                return False
            self.losses[lost] += 1
            self.done.remove(lost)
            self._enqueue([lost])
        if lost in self.failed or lost in self.skipped:
            return False
        self._enqueue([key])
        return True

    def _start_again(self, key: str) -> None:
        """Queue a stage whose process was lost, which resumes from its checkpoint; not if it never gets further."""
        self._lost_processes[key] += 1
        if self._lost_processes[key] < MOST_LOST_PROCESSES:
            self._enqueue([key])
        else:
            # Of a process that the kernel killed for its memory nothing is left to tell.
            advice = f"if the machine's memory ran out, {SHARE_LESS}"
            self._fail(key, f"its process was lost {MOST_LOST_PROCESSES} times at the same place: {advice}")

    def _fail(self, key: str, message: str) -> None:
        self.failed[key] = message
        for waiting in list(self._waiting):
            if key in self._graph.path(waiting):
                self._waiting.remove(waiting)
                self.skipped[waiting] = key

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a copy of its search algorithm, and the storage knows which stages are complete."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the storage knows which stages are complete."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the storage knows which stages are complete."""


class EveryTrialItsProcess(FIFOScheduler):
    """Leaves it to Tune which trial takes a process that has become free: one that has none yet.

    The schedulers of Ray name the trial that has waited longest. That one's own process is about to start, and Tune
    stops it for the free one: if a stage takes less time than a process to start, only one slot would ever work.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None, with which Tune goes through the trials that wait."""


class Observer(Callback):
    """A callback that leaves nothing in the copy of its callbacks that Tune keeps with the experiment."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class LostProcesses(Observer):
    """Says in a stage's error what became of its process, which Tune does not tell its search algorithm."""

    def __init__(self, searcher: StageSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep Ray's message, and its gist if memory ran out."""
        key = trial.config["stage"]
        if key in self._searcher.failed and trial.error_file:
            said = Path(trial.error_file).read_text()
            self._searcher.tracebacks[key] = said
            if advice := out_of_memory(said):
                self._searcher.failed[key] = advice


class LostGroups(Observer):
    """Frees what the worker groups of lost trials hold, so that the next group finds room.

    Ray Train does so itself if a dashboard runs, and Ray when a whole job ends.
    """

    def __init__(self) -> None:
        self._lost, self._looked = False, 0.0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """From now on, look: a group's controller may be found dead a while after its trial."""
        self._lost = True

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look once a second."""
        if self._lost and time.monotonic() > self._looked + 1:
            self._looked = time.monotonic()
            free_lost_groups()


def free_lost_groups() -> None:
    """Remove the placement groups of this job whose creators are dead."""
    import ray
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    job = ray.get_runtime_context().get_job_id()
    # What Ray's public table leaves out is who made a group.
    for row in ray._private.state.state._connect_and_get_accessor().get_placement_group_table():
        group = PlacementGroupTableData.FromString(row)
        # The driver's own have no actor as their creator, which counts as a dead one.
        by_actor = not ray.ActorID(group.creator_actor_id).is_nil()
        is_lost = by_actor and group.creator_actor_dead and group.creator_job_id.hex() == job and not group.is_detached
        if is_lost and group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))


def _longest_paths(graph: StageGraph) -> dict[str, int]:
    """Effort from each stage's start to the end of the longest chain that hangs on it."""
    longest: dict[str, int] = dict.fromkeys(graph.stages, 0)
    # Children stand behind their parents, so that one pass from the end sees every child first.
    for key in reversed(graph.stages):
        longest[key] += graph.stages[key].effort
        for parent in graph.stages[key].parents.values():
            longest[parent] = max(longest[parent], longest[key])
    return longest

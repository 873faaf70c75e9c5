"""Stages one after another in the calling process, without Ray: for a debugger, a test, or if Ray cannot start."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from ray.tune import Callback
from ray.tune.schedulers import TrialScheduler

from study.tune.scheduling import StageSearcher
from study.tune.trial import Task, complete
from trainables.sessions import Session


class _StoppedEarly(BaseException):
    """The scheduler has ended the stage. No error of the stage, so nothing that handles those may catch it."""


@dataclass
class _Trial:
    """What callbacks and schedulers see of a Tune trial."""

    trial_id: str
    config: dict[str, Any]
    last_result: dict[str, Any] = field(default_factory=dict)


class _InProcessSession(Session):
    """Reports to a function."""

    def __init__(self, heard: "_Stage", *settings: Any) -> None:
        super().__init__(*settings)
        self._heard = heard

    def report(self, metrics: Mapping[str, Any]) -> None:
        self._heard.report(dict(metrics))


@dataclass
class _Stage:
    """One stage under way, and those who follow it."""

    trial: _Trial
    searcher: StageSearcher
    callbacks: Sequence[Callback]
    scheduler: TrialScheduler | None

    def run(self) -> None:
        """Train the stage, and tell everybody in Tune's order."""
        around: dict[str, Any] = {"iteration": 0, "trials": [self.trial], "trial": self.trial}
        if self.scheduler is not None:
            self.scheduler.on_trial_add(None, self.trial)
        for callback in self.callbacks:
            callback.on_trial_start(**around)
        try:
            last = complete(Task.of(self.trial.config["task"]), partial(_InProcessSession, self))
            self._hear(last)
        except _StoppedEarly:
            last = self.trial.last_result
        self.searcher.on_trial_complete(self.trial.trial_id, last)
        for callback in self.callbacks:
            callback.on_trial_complete(**around)
        if self.scheduler is not None:
            self.scheduler.on_trial_remove(None, self.trial)

    def report(self, result: dict[str, Any]) -> None:
        """Pass an epoch on; stop if the scheduler decides so."""
        self._hear(result)
        for callback in self.callbacks:
            callback.on_step_end(iteration=0, trials=[self.trial])
        if self.scheduler is not None:
            decision = self.scheduler.on_trial_result(None, self.trial, result)
            if decision == TrialScheduler.STOP:
                raise _StoppedEarly

    def _hear(self, result: dict[str, Any]) -> None:
        self.trial.last_result = result
        self.searcher.on_trial_result(self.trial.trial_id, result)
        for callback in self.callbacks:
            callback.on_trial_result(iteration=0, trials=[self.trial], trial=self.trial, result=result)


def run_in_process(
    searcher: StageSearcher, callbacks: Sequence[Callback], scheduler: TrialScheduler | None = None
) -> None:
    """Run what a search algorithm hands out, as Tune would on one slot."""
    # Ray Train announces every training that it runs in this process.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    threads, number = torch.get_num_threads(), 0
    try:
        while isinstance(config := searcher.suggest(str(number)), dict):
            _Stage(_Trial(str(number), config), searcher, callbacks, scheduler).run()
            number += 1
    finally:
        torch.set_num_threads(threads)

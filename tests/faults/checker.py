"""Runs a schedule and looks, after each driver, whether anything that can be read is wrong."""

import gc
import os
import shutil
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.fs
import torch
import torch._dynamo  # what an optimiser imports when it is made: once here, and not in each process
import yaml

import analysis
import analysis.reporting
import study.run.lease
import study.storage
from study import schema
from study.config import StudyConfig, load_config
from study.graph import StageGraph, plan
from study.run.lease import StudyIsRunningError
from study.run.study import run_study
from study.storage import Storage, StorageError
from tests.faults.disk import OTHER_STUDY, TAKES_OVER, Disk, came_true, flip_bit, lose_power, stand_still
from tests.faults.faults import Fault, Schedule
from tests.faults.small import STUDY
from tests.kills import COUNTER

OWN, OTHER = "own", "other"
"""The study that the drivers run, and one of the same stages that a second driver may run beside it."""
NEVER_SECONDS = 1e9

Tables = dict[str, pd.DataFrame]


@dataclass
class Verdict:
    """What became of a schedule."""

    faults: Counter[str] = field(default_factory=Counter)
    """How often each kind of fault came true."""
    drivers: int = 0
    epochs: int = 0
    """How many were begun."""
    wrong: str | None = None

    def record(self) -> dict[str, Any]:
        """As a line of JSON holds it."""
        return {**asdict(self), "faults": dict(sorted(self.faults.items()))}


class Wrong(Exception):
    """Something that no fault may bring about."""


class Checker:
    """The small study, as it is undisturbed, and the schedules that are compared with it."""

    def __init__(self, folder: Path, set_attribute: Callable[[Any, str, Any], None] = setattr) -> None:
        """Run the study undisturbed.

        Args:
            folder: for all that is written.
            set_attribute: sets what all drivers have in common, as they are forked from this process.
        """
        self._folder, self._root = folder, folder / "disturbed"
        folder.mkdir(parents=True, exist_ok=True)
        preset = folder / "small.yaml"
        preset.write_text(yaml.safe_dump(STUDY))
        self.config: StudyConfig = load_config(str(preset))
        self.graph: StageGraph = plan(self.config)
        _prepare(set_attribute)
        self._tables = self._undisturbed()
        self.epochs = self._begun("undisturbed")
        self._longest = int(self._tables["stages"]["epochs"].max())

    def run(self, schedule: Schedule) -> Verdict:
        """Run the drivers of a schedule and one after them, and check what each leaves behind."""
        verdict = Verdict()
        for name in ("disturbed", "journals"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        (self._folder / "journals").mkdir()
        self._count("disturbed").unlink(missing_ok=True)
        try:
            self._disturb(schedule, verdict)
        except Wrong as wrong:
            verdict.wrong = str(wrong)
        verdict.epochs = self._begun("disturbed")
        return verdict

    def fails(self, schedule: Schedule) -> bool:
        """Whether anything is wrong after this schedule."""
        return self.run(schedule).wrong is not None

    def _disturb(self, schedule: Schedule, verdict: Verdict) -> None:
        allowed = self.epochs
        for number, faults in enumerate(schedule.drivers):
            journal = self._folder / "journals" / str(number)
            verdict.drivers += 1
            self._drive(OWN, faults, schedule.in_object_store, journal)
            allowed += self._after(faults, came_true(journal), journal, verdict)
            self._look(OWN)
        for name in (OWN, OTHER):
            if name == OWN or (self._root / "studies" / OTHER).exists():
                verdict.drivers += 1
                self._end(name, schedule.in_object_store)
        if (begun := self._begun("disturbed")) > allowed:
            raise Wrong(f"{begun} epochs were begun, where {allowed} account for every fault")

    def _after(self, faults: tuple[Fault, ...], true: list[str], journal: Path, verdict: Verdict) -> int:
        """Let come true what comes when a driver has ended; return how many epochs its faults may have cost."""
        cost = 0
        for fault in faults:
            if fault.kind == "flip":
                flip_bit(self._root, fault.where)
                true.append("flip")
            elif fault.kind == "power" and "power" in true:
                cost += self._longest * lose_power(journal, fault)
        for kind in true:
            # A kill costs the epoch that it interrupts; what is lost once stored, or could not be, a whole stage.
            spans = sum(fault.span for fault in faults if fault.kind == kind)
            cost += {"kill": 1, "power": 1, "full": self._longest * (spans + 1), "flaky": 0, "clock": 0}.get(
                kind, self._longest
            )
        verdict.faults.update(true)
        return cost

    def _end(self, name: str, in_object_store: bool) -> None:
        """Run a study undisturbed: it must end, with the tables of one that never was disturbed."""
        last = partial(self._drive, name, (), in_object_store, self._folder / "journals" / "last")
        if (said := last()) is not None and said.startswith(StudyIsRunningError.__name__):
            # The damaged sign of life of somebody who is gone counts for a minute.
            stand_still(self._root)
            said = last()
        if said is not None:
            raise Wrong(f"the last driver of the study {name!r} did not end well: {said}")
        found = self._look(name)
        if found is None:
            raise Wrong(f"the study {name!r} has ended and cannot be read")
        if not found["stages"]["status"].eq("done").all():
            raise Wrong(f"the study {name!r} has ended without all of its stages")

    def _look(self, name: str) -> Tables | None:
        """Read a study as the analysis does: nothing, or one run's tables with none but right rows."""
        found = _in_process(lambda: _read(self._root, name))
        if not isinstance(found, dict):
            return None
        stages = found["stages"]
        done = set(stages.loc[stages["status"] == "done", "stage"])
        for table, undisturbed in self._tables.items():
            right = undisturbed if table == "cells" else undisturbed[undisturbed["stage"].isin(done)]
            read = stages[stages["stage"].isin(done)] if table == "stages" else found[table]
            try:
                volatile = schema.volatile_columns(table)
                pd.testing.assert_frame_equal(
                    read.drop(columns=volatile).reset_index(drop=True),
                    right.drop(columns=volatile).reset_index(drop=True),
                    check_exact=True,
                    check_dtype=False,
                )
            except AssertionError as error:
                raise Wrong(f"rows of {table} in the study {name!r}: {error}") from None
        return found

    def _undisturbed(self) -> Tables:
        root = self._folder / "undisturbed"
        if (said := self._drive(OWN, (), False, self._folder / "none", root)) is not None:
            raise RuntimeError(said)
        tables = _read(root, OWN)
        assert tables is not None
        return tables

    def _drive(
        self, name: str, faults: tuple[Fault, ...], in_object_store: bool, journal: Path, root: Path | None = None
    ) -> str | None:
        """Run a driver in a process of its own; return None, or how else it ended."""
        storage = root or self._root

        def second(fault: Fault) -> None:
            if fault.where < OTHER_STUDY:
                self._drive(OTHER, (), in_object_store, journal, storage)
                return
            if fault.where >= TAKES_OVER:
                stand_still(storage)
            elsewhere = "another machine" if fault.where >= TAKES_OVER else None
            _in_process(lambda: self._study(OWN, storage, plain, elsewhere))

        plain = Disk(storage, journal, (), in_object_store, second)
        ended = _in_process(
            lambda: self._study(name, storage, Disk(storage, journal, faults, in_object_store, second), None)
        )
        return ended if ended is None or isinstance(ended, str) else "it was killed"

    def _study(self, name: str, storage: Path, disk: Disk, host: str | None) -> str | None:
        os.environ[COUNTER] = str(self._count(storage.name))
        pyarrow.fs.LocalFileSystem = lambda: disk
        # Only waited through between two tries of a request or of a claim.
        time.sleep = lambda seconds: None
        if host is not None:
            socket.gethostname = lambda: host
        try:
            outcome = run_study(self.config, name, storage=storage, slots=0, graph=self.graph, progress=False)
        except (StorageError, StudyIsRunningError, analysis.StudyError) as error:
            return f"{type(error).__name__}: {error}"
        return "; ".join(outcome.failed.values()) or None

    def _count(self, storage: str) -> Path:
        return self._folder / f"{storage}.epochs"

    def _begun(self, storage: str) -> int:
        count = self._count(storage)
        return count.stat().st_size if count.exists() else 0


def _prepare(set_attribute: Callable[[Any, str, Any], None]) -> None:
    torch.set_num_threads(1)
    # One request after another, and no sign of life in between: a schedule then comes true the same way each time.
    set_attribute(study.storage, "REQUESTS_ABREAST", 1)
    set_attribute(study.run.lease, "BEAT_SECONDS", NEVER_SECONDS)
    # A report's files are written like any others, and take ten times as long to draw as the study takes to train.
    set_attribute(analysis.reporting, "_files", _pages)


def _pages(results: analysis.Results, pdf: bool) -> dict[str, bytes]:
    return {"stages.md": results.stages.to_csv().encode(), "index.html": results.cells.to_csv().encode()}


def _read(root: Path, name: str) -> Tables | None:
    """The tables of a study's last run; None where there is none yet, or it is damaged and that is said."""
    files = [f"{table}.parquet" for table in schema.TABLES]
    try:
        found = Storage(str(root)).study_files(name, files)
    except StorageError:
        return None
    if not found.keys() >= {*files, "study.json"}:
        return None
    return {table: pd.read_parquet(BytesIO(found[f"{table}.parquet"])) for table in schema.TABLES}


class _Killed:
    """In place of a result: the process has none."""


def _in_process(action: Callable[[], Any]) -> Any:
    """Do something in a forked process; return its result, or :class:`_Killed`.

    Raises:
        Wrong: it ended in an error that nobody had foreseen.
    """
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child() -> None:
        # Or a collection would touch, and so copy, all that the process has of its parent.
        gc.freeze()
        try:
            theirs.send((True, action()))
        except BaseException:
            theirs.send((False, traceback.format_exc()))
        theirs.close()

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        succeeded, result = ours.recv()
    except EOFError:
        succeeded, result = True, _Killed()
    process.join()
    if not succeeded:
        raise Wrong(result)
    return result

"""``python -m benchmarks.peers``: where the same faults leave the stores of Optuna and MLflow, and ours.

Each store records the same runs of some epochs, as a driver writes them, in a process that is really killed; and files
of a complete store are damaged as a failing disk or an interrupted copy would damage them. Then the driver runs again,
which records what the store does not call complete, and all is read as each project's documentation reads it.

None of the other stores promises to notice a changed file; SQLite checks its structure when it is asked to. So this
tells where a user of each is left, not that a promise was broken. MLflow is an extra: ``pip install -e '.[mlflow]'``.
"""

import argparse
import logging
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.goals import Goal, show
from benchmarks.tables import result_of
from study.config import load_config
from study.graph import Stage, plan
from study.storage import Storage

RUNS, EPOCHS = 12, 10
KILLS = 3
"""Of one driver after another."""
NAME = "runs"
STORES = ("ours", "optuna-journal", "optuna-sqlite", "mlflow-files", "mlflow-sqlite")
FAULTS = ("killed", "bit", "cut", "zeros")
ENDS = ("right", "reported, recorded again", "missing in silence, recorded again", "refused", "wrong in silence")

_FORK = multiprocessing.get_context("fork")
Values = Mapping[int, tuple[float, ...]]


class Store(Protocol):
    """Where runs are recorded, as a driver has it open."""

    def record(self, run: int) -> None:
        """Record the run's epochs and that it is complete; what has returned is acknowledged."""

    def complete(self) -> Values:
        """The epochs' values of each run that the store calls complete."""


def values_of(run: int) -> tuple[float, ...]:
    """What the run's epochs came to."""
    return tuple(np.random.default_rng(run).random(EPOCHS).tolist())


@cache
def stages() -> list[Stage]:
    """Stages that the runs stand for in our storage."""
    return [*plan(load_config("digits", ["seeds=1"])).stages.values()][:RUNS]


class Ours:
    """A storage of stages."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(str(folder))
        self.runs = {stage.key: run for run, stage in enumerate(stages())}

    def record(self, run: int) -> None:
        """Store a stage."""
        stage = stages()[run]
        result, row = result_of(stage, run)
        epochs = [
            {"round": 0, "epoch": epoch, "learning_rate": 0.1, "loss": value, "loss_main": value, "train_accuracy": 0.0}
            for epoch, value in enumerate(values_of(run), start=1)
        ]
        self.storage.store(stage.key, replace(result, epochs=epochs), row)

    def complete(self) -> Values:
        """The stages that are stored, after damaged ones are withdrawn, as a study's command begins."""
        for damage in self.storage.damaged(self.storage.stored(self.runs)).values():
            warnings.warn(damage, stacklevel=2)
        keys = self.storage.stored(self.runs)
        epochs = self.storage.rows("epochs", keys).to_pandas()
        return {self.runs[key]: tuple(epochs.loc[epochs["stage"] == key, "loss"]) for key in keys}


class Optuna:
    """A study of Optuna's, one trial a run."""

    def __init__(self, storage: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(study_name=NAME, storage=storage, load_if_exists=True)

    @classmethod
    def journal(cls, folder: Path) -> "Optuna":
        """In a journal, a file that is appended to."""
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        return cls(JournalStorage(JournalFileBackend(str(folder / "journal.log"))))

    @classmethod
    def sqlite(cls, folder: Path) -> "Optuna":
        """In SQLite."""
        return cls(f"sqlite:///{folder / 'optuna.db'}")

    def record(self, run: int) -> None:
        """Ask for a trial, report its epochs, and tell its result."""
        trial = self.study.ask()
        trial.set_user_attr("run", run)
        values = values_of(run)
        for epoch, value in enumerate(values, start=1):
            trial.report(value, epoch)
        self.study.tell(trial, values[-1])

    def complete(self) -> Values:
        """The intermediate values of complete trials."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(states=(TrialState.COMPLETE,))
        return {
            trial.user_attrs["run"]: tuple(value for _, value in sorted(trial.intermediate_values.items()))
            for trial in trials
        }


class Mlflow:
    """An experiment of MLflow's."""

    def __init__(self, uri: str) -> None:
        # Its file store, which it keeps for those who have it, wants to be allowed.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(NAME)
        self.experiment = found.experiment_id if found is not None else self.client.create_experiment(NAME)

    @classmethod
    def files(cls, folder: Path) -> "Mlflow":
        """In a folder of text files."""
        return cls((folder / "mlruns").as_uri())

    @classmethod
    def sqlite(cls, folder: Path) -> "Mlflow":
        """In SQLite."""
        return cls(f"sqlite:///{folder / 'mlflow.db'}")

    def record(self, run: int) -> None:
        """Create a run, log its epochs, and end it."""
        recorded = self.client.create_run(self.experiment, tags={"run": str(run)}).info.run_id
        for epoch, value in enumerate(values_of(run), start=1):
            self.client.log_metric(recorded, "loss", value, step=epoch)
        self.client.set_terminated(recorded, "FINISHED")

    def complete(self) -> Values:
        """The metric histories of finished runs."""
        found = self.client.search_runs([self.experiment], "attributes.status = 'FINISHED'")
        return {int(run.data.tags["run"]): self._values(run.info.run_id) for run in found}

    def _values(self, run: str) -> tuple[float, ...]:
        history = self.client.get_metric_history(run, "loss")
        return tuple(metric.value for metric in sorted(history, key=lambda metric: metric.step))


OPEN: dict[str, Callable[[Path], Store]] = {
    "ours": Ours,
    "optuna-journal": Optuna.journal,
    "optuna-sqlite": Optuna.sqlite,
    "mlflow-files": Mlflow.files,
    "mlflow-sqlite": Mlflow.sqlite,
}


def drive(store: str, folder: Path, acknowledged: Path) -> None:
    """Record the runs that are not complete, as a driver does that was started again."""
    opened = OPEN[store](folder)
    done = opened.complete()
    with acknowledged.open("a") as journal:
        for run in range(RUNS):
            if run not in done:
                opened.record(run)
                journal.write(f"{run}\n")
                journal.flush()


@dataclass(frozen=True)
class Reading:
    """What a process saw that opened the store and read it."""

    values: Values
    problem: str = ""
    """Of the error that ended it; empty if there was none."""
    said: bool = False
    """Whether a warning was printed or logged."""


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def read(store: str, folder: Path) -> Reading:
    """Read what is complete."""
    heard = _Heard(logging.WARNING)
    for name in ("", "optuna", "mlflow"):
        logging.getLogger(name).addHandler(heard)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        try:
            values = OPEN[store](folder).complete()
        except Exception as error:  # whatever it is, it is what a user gets
            return Reading({}, f"{type(error).__name__}: {error}")
    return Reading(values, said=bool(heard.records or [one for one in warned if issubclass(one.category, UserWarning)]))


def apart(what: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, and return what came of it; raise what it raised."""
    with _FORK.Pool(1) as pool:
        return pool.apply(what, arguments)


def start(store: str, folder: Path, acknowledged: Path) -> Any:
    """A driver in a process of its own."""
    driver = _FORK.Process(target=_quietly, args=(store, folder, acknowledged))
    driver.start()
    return driver


def _quietly(store: str, folder: Path, acknowledged: Path) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    drive(store, folder, acknowledged)


def damage(folder: Path, fault: str, draw: random.Random) -> None:
    """Damage one file as the fault does; files are drawn by their size, as a disk's faults are."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = draw.choices(files, [one.stat().st_size for one in files])[0]
    content = bytearray(path.read_bytes())
    place = draw.randrange(len(content))
    match fault:
        case "bit":
            content[place] ^= 1 << draw.randrange(8)
        case "cut":
            del content[place:]
        case "zeros":
            content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    path.write_bytes(bytes(content))


def end_of(found: Reading, again: Reading, acknowledged: Iterable[int]) -> str:
    """Which of :data:`ENDS` it is.

    Args:
        found: what was read after the fault.
        again: what was read after the driver ran once more.
        acknowledged: the runs that had been recorded before the fault.
    """
    for reading in (found, again):
        if any(values != values_of(run) for run, values in reading.values.items()):
            return "wrong in silence"
    if found.problem or again.problem or len(again.values) < RUNS:
        return "refused"
    if set(acknowledged) <= set(found.values):
        return "right"
    return "reported, recorded again" if found.said else "missing in silence, recorded again"


def schedule(store: str, fault: str, seed: int, complete: Path, seconds: float, folder: Path) -> tuple[str, str | None]:
    """Where one fault, or one series of kills, leaves a store: one of :data:`ENDS`, and why it refused.

    Args:
        store: one of :data:`STORES`.
        fault: one of :data:`FAULTS`.
        seed: decides what is hit and, but for the machine's speed, when.
        complete: a folder with a complete store.
        seconds: that a driver takes.
        folder: to work in.
    """
    draw = random.Random(f"{store} {fault} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    place, journal = folder / "store", folder / "acknowledged"
    if fault == "killed":
        place.mkdir(parents=True)
        # To make tables is done once, by hand perhaps: it is not what is killed.
        apart(read, store, place)
        for _ in range(KILLS):
            driver = start(store, place, journal)
            driver.join(draw.uniform(0, seconds))
            driver.kill()
            driver.join()
    else:
        shutil.copytree(complete, place)
        damage(place, fault, draw)
    before = {int(line) for line in journal.read_text().split()} if journal.exists() else set()
    found = apart(read, store, place)
    driver = start(store, place, folder / "again")
    driver.join()
    again = apart(read, store, place)
    end = end_of(found, again, before if fault == "killed" else range(RUNS))
    why = found.problem or again.problem or f"{len(again.values)} of {RUNS} runs, status {driver.exitcode}"
    return end, _brief(why, folder) if end == "refused" else None


def _brief(problem: str, folder: Path) -> str:
    """The first lines of an error without what differs from one schedule to the next."""
    first = " ".join(problem.replace(str(folder), "").split())[:90]
    return re.sub(r"[0-9a-f]{32}|\d+", "N", first)


def measure(
    stores: Iterable[str], times: int, folder: Path, faults: Sequence[str] = FAULTS
) -> dict[tuple[str, str], Counter[str]]:
    """How each schedule ended, by store and fault."""
    ends: dict[tuple[str, str], Counter[str]] = {}
    for store in stores:
        complete, warm = folder / store, folder / f"{store}.warm"
        complete.mkdir()
        warm.mkdir()
        # What a library imports is then there in all processes that this one forks.
        drive(store, warm, folder / "warm")
        apart(read, store, complete)
        started = time.perf_counter()
        driver = start(store, complete, folder / f"{store}.acknowledged")
        driver.join()
        seconds = time.perf_counter() - started
        undisturbed = apart(read, store, complete)
        assert undisturbed == Reading({run: values_of(run) for run in range(RUNS)}), undisturbed
        for fault in faults:
            found = [schedule(store, fault, seed, complete, seconds, folder / "one") for seed in range(times)]
            ends[store, fault] = Counter(end for end, _ in found)
            print(f"{store:16} {fault:8} {', '.join(f'{ends[store, fault][end]} {end}' for end in ENDS)}")
            for why, count in Counter(why for _, why in found if why is not None).most_common(3):
                print(f"{'':25} {count} refused: {why}", flush=True)
    return ends


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="schedules of each fault (default: %(default)s)")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS, help="default: all")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES, help="default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends = measure(options.stores, options.times, Path(folder), options.faults)
    ours = Counter[str]()
    for (store, _), found in ends.items():
        ours.update(found if store == "ours" else {})
    bad = sum(ours[end] for end in ("refused", "missing in silence, recorded again", "wrong in silence"))
    return show([Goal("ours: schedules that end wrong, refused or without a word", bad, "<=", 0)] if ours else [])


if __name__ == "__main__":
    sys.exit(main())

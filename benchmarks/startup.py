"""``python -m benchmarks.startup``: what a person waits for before anything is trained, and once all is.

Commands are timed in processor seconds of all their processes, so that a busy machine does not matter; the time until
the first stage starts is of the clock. It needs the default study: ``--storage`` names one that has it, else it is run.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pandas as pd

from benchmarks.goals import Goal, show
from study.storage import MANIFEST, Storage

STUDY = "digits"
ABLATION = ("study.ablation", "--preset", STUDY)
STAGES_A_SEED = 28
HELP, DRY_RUN, AGAIN, REPORT = 0.6, 4.0, 8.0, 6.0
FIRST_STAGE = 6.0
PLANNED, LISTED, GIGABYTES = 60.0, 10.0, 2.0
TRIED_FIRST = "imports for the plan, Ray's own start, and a stage's process take 3 s or more each, one after another"


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """A command of ours, as a user starts it."""
    return sys.executable, "-m", module, *arguments


def processor_seconds(argv: Sequence[str]) -> float:
    """User and system time of a command and of the processes that it waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def typical(argv: Sequence[str], times: int = 3) -> float:
    """Median of the command's processor seconds, after a first time that fills caches."""
    processor_seconds(argv)
    return median(processor_seconds(argv) for _ in range(times))


def seconds_to_first_stage(folder: str) -> float:
    """From the command to the start of its first stage, in a new storage."""
    started = datetime.now(UTC)
    subprocess.run(command(*ABLATION, "--seeds", "1", "--storage", folder), check=True, stdout=subprocess.DEVNULL)
    stages = pd.read_parquet(Path(folder, "studies", STUDY, "stages.parquet"))
    return float((stages["started_at"].min() - started).total_seconds())


def planning(stages: int) -> tuple[float, float]:
    """Seconds, and gigabytes at most, of planning a study of about N stages, as ``--dry-run`` does."""
    seeds = str(round(stages / STAGES_A_SEED))
    process = subprocess.Popen(command(*ABLATION, "--dry-run", "--seeds", seeds), stdout=subprocess.DEVNULL)
    started = time.perf_counter()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - started, usage.ru_maxrss / 2**20


def listing(stages: int, folder: str) -> float:
    """Seconds to tell which of N stages are stored, all of which are."""
    keys = [f"{number:016x}" for number in range(stages)]
    for key in keys:
        place = Path(folder, "stages", key)
        place.mkdir(parents=True)
        (place / MANIFEST).touch()
    started = time.perf_counter()
    found = Storage(folder).stored(keys)
    seconds = time.perf_counter() - started
    assert len(found) == stages
    return seconds


def measure(storage: str, stages: int) -> list[Goal]:
    """Time the commands on a storage that holds the default study, and what many stages take."""
    kept = ("--storage", storage)
    subprocess.run(command(*ABLATION, *kept), check=True, stdout=subprocess.DEVNULL)
    report = command("analysis", str(Path(storage, "studies", STUDY)))
    goals = [
        Goal("--help, processor s", typical(command("study.ablation", "--help")), "<=", HELP),
        Goal("--dry-run, processor s", typical(command(*ABLATION, "--dry-run", *kept)), "<=", DRY_RUN),
        Goal("a study that is complete, processor s", typical(command(*ABLATION, *kept)), "<=", AGAIN),
        Goal("python -m analysis, processor s", typical(report), "<=", REPORT),
    ]
    with tempfile.TemporaryDirectory() as folder:
        goals.append(
            Goal("to the first stage's start, s", seconds_to_first_stage(folder), "<=", FIRST_STAGE, TRIED_FIRST)
        )
    seconds, gigabytes = planning(stages)
    goals += [
        Goal(f"--dry-run of {stages:,} stages, s", seconds, "<=", PLANNED),
        Goal("the same, memory at most, GiB", gigabytes, "<=", GIGABYTES),
    ]
    with tempfile.TemporaryDirectory() as folder:
        goals.append(Goal(f"which of {stages:,} stages are stored, s", listing(stages, folder), "<=", LISTED))
    return goals


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--storage", help="a storage with the default study (default: it is run in a new one)")
    parser.add_argument("--stages", type=int, default=100_000, help="about N stages (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return show(measure(options.storage or folder, options.stages))


if __name__ == "__main__":
    sys.exit(main())

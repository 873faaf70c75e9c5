"""The small study as a command on Ray, whose processes get real signals at random moments."""

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import psutil

from study.run.lease import DEAD_SECONDS
from tests.commands import SECONDS, assert_same_results, command
from tests.faults.checker import OWN, Verdict
from tests.kills import named

SLOTS = 2
STOPPED_SECONDS = 3.0
MOMENTS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "trial killed", "driver stopped for a while")
ENDS = {"SIGKILL": {-signal.SIGKILL}} | {
    name: {128 + signal.Signals[name], -signal.Signals[name]} for name in ("SIGTERM", "SIGINT", "SIGHUP")
}
"""The statuses that each signal may end in: the command's own or, in its first moments, Python's; a shell shows one."""


def run(seed: int, preset: Path, folder: Path, undisturbed: Path, count: Path, epochs: int) -> Verdict:
    """Disturb the command two to four times, then let it end.

    Args:
        seed: decides what happens, but not exactly when.
        preset: of the small study.
        folder: for the storage.
        undisturbed: a storage with the study.
        count: the file in which epochs are counted, as the environment names it.
        epochs: how many an undisturbed study begins.
    """
    draw, verdict = random.Random(seed), Verdict(faults=Counter())
    shutil.rmtree(folder, ignore_errors=True)
    count.write_bytes(b"")
    arguments = command(preset, folder, "--name", OWN, "--slots", str(SLOTS))
    for _ in range(draw.randint(2, 4)):
        verdict.drivers += 1
        driver = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait(driver, count, draw.randrange(epochs))
        time.sleep(draw.uniform(0, 2))
        fault = draw.choice(MOMENTS)
        if driver.poll() is None:
            verdict.faults[fault] += 1
            _disturb(driver, fault, draw)
        status = driver.wait(SECONDS)
        # 0, where the study had just ended.
        if status not in ENDS.get(fault, set()) | {0}:
            verdict.wrong = f"after {fault} the command ended with status {status}"
            return verdict
    verdict.drivers += 1
    last = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS)
    verdict.epochs = count.stat().st_size
    # A kill interrupts an epoch in every slot.
    allowed = epochs + SLOTS * sum(verdict.faults.values())
    try:
        assert last.returncode == 0, last.stdout + last.stderr
        assert_same_results(folder, undisturbed, OWN, OWN)
        assert verdict.epochs <= allowed, f"{verdict.epochs} epochs were begun, where {allowed} account for every fault"
    except AssertionError as error:
        verdict.wrong = str(error)
    return verdict


def _wait(driver: "subprocess.Popen[bytes]", count: Path, epochs: int) -> None:
    end = time.monotonic() + SECONDS
    while count.stat().st_size < epochs and driver.poll() is None and time.monotonic() < end:
        time.sleep(0.02)


def _disturb(driver: "subprocess.Popen[bytes]", fault: str, draw: random.Random) -> None:
    if fault == "trial killed":
        if trials := named("ray::ImplicitFunc", psutil.Process(driver.pid).children(recursive=True)):
            draw.choice(trials).kill()
    elif fault == "driver stopped for a while":
        assert STOPPED_SECONDS < DEAD_SECONDS
        driver.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        driver.send_signal(signal.SIGCONT)
    else:
        driver.send_signal(getattr(signal, fault))

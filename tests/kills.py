"""A study that is killed again and again at random moments: its driver, one of its trials, or a node of its cluster."""

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from ray.cluster_utils import Cluster

from tests.commands import SECONDS
from trainables import architectures
from trainables.networks import LayeredNet

COUNTER = "EPOCHS_BEGUN"
"""Environment variable that names the file in which the network of this module counts."""


class CountedEpochs(torch.nn.Identity):
    """Appends a byte to a file whenever a training begins an epoch, whatever becomes of that epoch."""

    def train(self, mode: bool = True) -> "CountedEpochs":
        if mode:
            with Path(os.environ[COUNTER]).open("ab", buffering=0) as file:
                file.write(b".")
        super().train(mode)
        return self


def small_alexnet(classes: int) -> LayeredNet:
    """The project's, with a counter in its first layer, which no extra branch has."""
    net = architectures.small_alexnet(classes)
    net.weighted("conv1").before.append(CountedEpochs())
    return net


@contextmanager
def nodes(*cpus: int, gpus: int = 0) -> Iterator[Cluster]:
    """A Ray cluster on this machine: a head without CPUs, where drivers run, and nodes with so many, and with GPUs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for count in cpus:
            cluster.add_node(num_cpus=count, num_gpus=gpus)
        yield cluster
    finally:
        cluster.shutdown()


def started_by(node: Any) -> list[psutil.Process]:
    """The processes that a node of a cluster has started."""
    (raylet,) = node.all_processes["raylet"]
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(raylet.process.pid).children(recursive=True))
    return []


def named(beginning: str, processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes whose name, which Ray gives them, begins so."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if next(iter(process.cmdline()), "").startswith(beginning):
                found.append(process)
    return sorted(found, key=lambda process: int(process.pid))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Killer:
    """Runs a study's command on a cluster, and again after each kill of its driver."""

    def __init__(self, command: Sequence[str], cluster: Cluster, log: Path, seed: int) -> None:
        self.killed: list[str] = []
        """What was killed, in order: driver, trial or node."""
        self._command = [*command, "--address", str(cluster.address)]
        self._cluster, self._log = cluster, log
        self._draw = random.Random(seed)
        self._driver = self._start()

    def run(self, epochs: int, kills: int, begun: Callable[[], int]) -> int:
        """Kill the study at moments drawn over its first 95 %, then let it end.

        Args:
            epochs: how many the undisturbed study trains.
            kills: how often.
            begun: how many epochs were begun so far.

        Returns:
            The command's exit status.
        """
        for moment in sorted(self._draw.sample(range(int(0.95 * epochs)), kills)):
            self._await(lambda moment=moment: begun() >= moment)  # type: ignore[misc]
            # So that not only beginnings of epochs are hit, and a study that is just starting again.
            time.sleep(self._draw.uniform(0, 2))
            if self._ended():
                break
            self._draw.choice((self._kill_driver, self._kill_trial, self._kill_node))()
        return self._driver.wait(SECONDS)

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def _ended(self) -> bool:
        return self._driver.poll() is not None

    def _await(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self._ended())

    def _kill_driver(self) -> None:
        self._driver.kill()
        self._driver.wait()
        self._driver = self._start()
        self.killed.append("driver")

    def _kill_trial(self) -> None:
        self._await(lambda: bool(self._trials()))
        if trials := self._trials():
            self._draw.choice(trials).kill()
            self.killed.append("trial")

    def _trials(self) -> list[psutil.Process]:
        processes = [process for node in self._cluster.worker_nodes for process in started_by(node)]
        return named("ray::ImplicitFunc", processes)

    def _kill_node(self) -> None:
        """Kill a node with all that runs there; another comes, as from an autoscaler."""
        node = self._draw.choice(sorted(self._cluster.worker_nodes, key=lambda node: str(node.unique_id)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(num_cpus=1)
        self.killed.append("node")

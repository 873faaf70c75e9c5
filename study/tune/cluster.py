"""The Ray that an experiment runs on: reached, watched while it runs, and left on Ctrl-C."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from study.stops import StoppedError, heeded
from study.tune.scheduling import Observer

HEAD_SECONDS = 15.0
"""How long a cluster's head may be out of reach before it counts as gone."""

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
"""Options of ``ray.init``: the study has its own console output."""


class ClusterError(Exception):
    """The Ray cluster cannot be reached; the message states what to do."""


@dataclass(frozen=True)
class Cluster:
    """Where the experiment runs."""

    address: str | None = None
    """A running Ray cluster; None: this process's Ray or else one that is started here, for this experiment only."""
    slots: int | None = None
    """Stages side by side; None: what fits; 0: one after another in this process, without Ray."""
    dashboard: bool = False

    def __post_init__(self) -> None:
        """Check the slots.

        Raises:
            ClusterError: there are fewer than none, or none at an address.
        """
        if self.slots is not None and self.slots < 0:
            raise ClusterError(f"slots is {self.slots}: give 1 or more, 0 for this process, or None for what fits")
        if self.in_process and self.address is not None:
            raise ClusterError(f"slots=0 trains in this process, not at {self.address}: leave one of them out")

    @property
    def in_process(self) -> bool:
        """Whether stages are trained in this process, without Ray."""
        return self.slots == 0

    def require_no_group(self, workers: int) -> None:
        """Make sure that no stage wants a worker group if there is only this process.

        Raises:
            ClusterError: stages do.
        """
        if self.in_process and workers:
            raise ClusterError(
                f"slots=0 trains in this process, but resources.workers={workers} asks for a group of worker "
                "processes: set it to 0, or give 1 slot or more"
            )

    @property
    def is_this_machine(self) -> bool:
        """Whether no Ray is used that runs already."""
        import ray

        return self.in_process or (self.address is None and not ray.is_initialized())


@contextmanager
def left_as_found() -> Iterator[None]:
    """Stop Ray at the end, or leave the cluster, unless Ray ran in this process before."""
    import ray

    was_running, handler = ray.is_initialized(), signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if not was_running:
            ray.shutdown()
        # Ray has put one of its own in its place.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def connect(address: str) -> Any:
    """Connect to a running cluster.

    Raises:
        ClusterError: there is none.
    """
    import ray

    if ray.is_initialized():
        raise ClusterError(
            f"this process is connected to a Ray already: leave the address {address} out to run on that one, "
            "or call ray.shutdown() before"
        )
    try:
        _reach(address)
        return ray.init(address=address, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Ray cluster at --address {address}: {error}\n"
            "  start one with `ray start --head`, or leave --address out to run only on this machine"
        ) from None


def _reach(address: str) -> None:
    """Raise OSError if nothing listens; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class Stops(Observer):
    """Ctrl-C and SIGTERM that cannot get lost: raised within some of Ray's compiled code, they would be forgotten.

    Where Ray is started in this process, it takes SIGTERM for itself, and would end the process on the spot.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stopped: KeyboardInterrupt | None = None
        self._before: dict[int, Any] = {}
        self._holds = False

    def __enter__(self) -> "Stops":
        """Listen, if that is possible: signals belong to the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in heeded()}
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Leave them to whoever listened before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # Tune raises a KeyboardInterrupt of its own for any that it catches, which does not know the signal.
        if self._stopped is not None and isinstance(error, KeyboardInterrupt) and error is not self._stopped:
            raise self._stopped from None

    def _stop(self, number: int, _: object) -> None:
        self._stopped = StoppedError(number)
        if not self._holds:
            raise self._stopped

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Raise no signal before this ends: for what takes moments, and must not be left halfway."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
        if self._stopped is not None:
            raise self._stopped

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Raise it again."""
        if self._stopped is not None:
            raise self._stopped


@contextmanager
def while_the_head_answers(address: str | None, console: Console) -> Iterator[None]:
    """End the process, with status 2 and a word of advice, once the head of the cluster at the address is gone.

    Ray's calls do not return then and cannot be interrupted; after a minute Ray would end the process.
    """
    import ray

    if address is None:
        yield
        return
    head = ray.get_runtime_context().gcs_address
    ended = threading.Event()

    def watch() -> None:
        answered = time.monotonic()
        while not ended.wait(HEAD_SECONDS / 5):
            with suppress(OSError):
                _reach(head)
                answered = time.monotonic()
            if time.monotonic() - answered > HEAD_SECONDS:
                console.show_cursor()
                print(
                    f"the head of the Ray cluster at {head} is gone: it has not answered for {HEAD_SECONDS:.0f} s\n"
                    "  start it again, then run the same command: what is complete is stored, the rest resumes",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(2)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        ended.set()

"""Signals that ask a command to end: SIGTERM of a batch system, SIGHUP of a closed terminal, and Ctrl-C."""

import os
import signal
import sys
from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


STOPPED = 128
"""Exit status of a command that a signal stopped, less the signal's number: 130 after Ctrl-C, 143 after SIGTERM."""


class StoppedError(KeyboardInterrupt):
    """A signal has asked for the end; handled as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop(number: int, _: object) -> None:
    """Handler of signals that end a command."""
    raise StoppedError(number)


def heeded() -> Iterator[signal.Signals]:
    """The signals to listen to: not SIGHUP if a command is to outlive its terminal, as with nohup."""
    yield from (number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN)


def nobody_reads() -> int:
    """After a BrokenPipeError: make Python's last flush harmless. Return the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return STOPPED + signal.SIGPIPE

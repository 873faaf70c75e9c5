"""What the commands have in common: exit statuses, errors on one screen, and types of options.

Nothing large is imported here before the options are parsed: that takes seconds, for which ``--help`` need not wait.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING

from study.names import is_folder_name

if TYPE_CHECKING:
    from study.answers import Command
    from study.run.outcome import Outcome

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def start(command: str, options: argparse.Namespace) -> int:
    """Run a command of :mod:`study.commands`. Return the exit status. SIGTERM ends it as Ctrl-C does.

    With ``--json`` the answer is all that is on stdout; whatever else is printed goes to stderr.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    options.stdout = sys.stdout

    def action() -> int:
        status: int = import_module(f"study.commands.{command}").main(options)
        return status

    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            return _reported(f"study.{command}", action, options)
    except KeyboardInterrupt:
        print("\nstopped. What is complete is stored; run the same command again to go on from here.", file=sys.stderr)
        return INTERRUPTED


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON (docs/json.md), all else to stderr"
    )


def reply(options: argparse.Namespace, answer: "Command") -> None:
    """Print the answer of a command that was called with ``--json``."""
    print(answer.as_json(), file=options.stdout)


def _reported(name: str, action: Callable[[], int], options: argparse.Namespace) -> int:
    """Run an action; errors that are the user's are reported on one screen."""
    try:
        return action()
    except Exception as error:
        if (status := _status(error)) is None:
            raise
        print(f"{name}: {error}", file=sys.stderr)
        if options.json:
            from study.answers import Failure

            reply(options, Failure(error=str(error)))
        return status


def _status(error: Exception) -> int | None:
    """The exit status of an error that is the user's; None of any other. Only here are all of them imported."""
    import analysis
    from study.config import ConfigError
    from study.files import StorageError
    from study.run.lease import StudyIsRunningError
    from study.tune.cluster import ClusterError
    from study.tune.resources import ResourceError
    from trainables.data import DataError

    if isinstance(error, ConfigError | DataError | StorageError | ClusterError | ResourceError | StudyIsRunningError):
        return BAD_INPUT
    return SOME_FAILED if isinstance(error, analysis.StudyError) else None


def conclude(outcome: "Outcome", options: argparse.Namespace) -> int:
    """Print the outcome of a study or a search. Return the exit status."""
    from rich.console import Console

    from study.run.standing import study_outcome

    if options.json:
        reply(options, study_outcome(outcome))
        return SOME_FAILED if outcome.failed else OK
    console = Console(highlight=False)
    for text in (outcome.findings, outcome.summary, f"report: {outcome.report}"):
        console.print(text, markup=False, soft_wrap=True)
    return SOME_FAILED if outcome.failed else OK


def positive(text: str) -> int:
    """Type of an option: a number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def number(text: str) -> float:
    """Type of an option: a number from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def seconds(text: str) -> float:
    """Type of an option: seconds above 0."""
    if not (value := number(text)):
        raise argparse.ArgumentTypeError("give seconds above 0")
    return value


def folder_name(text: str) -> str:
    """Type of an option: a name without slashes."""
    if not is_folder_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a folder: give it without slashes")
    return text


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

"""What the commands have in common: exit statuses, errors on one screen, and types of options.

Nothing large is imported here before the options are parsed: that takes seconds, for which ``--help`` need not wait.
"""

import argparse
import io
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from study.names import name_fault
from study.stops import STOPPED, StoppedError, heeded, nobody_reads, stop

if TYPE_CHECKING:
    from study.answers import Command
    from study.run.outcome import Outcome, TargetsOutcome

OK, SOME_FAILED, BAD_INPUT = 0, 1, 2
OWN_PACKAGES = ("analysis", "search_spaces", "trainables")


def start(command: str, options: argparse.Namespace) -> int:
    """Run a command of :mod:`study.commands`. Return the exit status. SIGTERM and SIGHUP end it as Ctrl-C does.

    With ``--json`` the answer is all that is on stdout; whatever else is printed goes to stderr.
    """
    if hidden := _hidden_packages():
        print(f"study.{command}: {hidden}", file=sys.stderr)
        return BAD_INPUT
    for number in heeded():
        signal.signal(number, stop)
    _print_anything()
    _log_progress()
    options.stdout = sys.stdout

    def action() -> int:
        status: int = import_module(f"study.commands.{command}").main(options)
        return status

    try:
        with redirect_stdout(sys.stderr) if options.json else nullcontext():
            status = _reported(f"study.{command}", action, options)
        # What is left in the buffer may find nobody, either.
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as error:
        _say_stopped("")
        return STOPPED + (error.number if isinstance(error, StoppedError) else signal.SIGINT)
    except BrokenPipeError:
        _say_stopped("nobody reads the output any more: ")
        return nobody_reads()


def _log_progress() -> None:
    """Show on stderr the progress that the study's own packages log."""
    logging.basicConfig(format="%(message)s")
    for package in ("study", *OWN_PACKAGES):
        logging.getLogger(package).setLevel(logging.INFO)


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
    from study.config import ConfigError
    from study.files import StorageError
    from study.run.lease import StudyIsRunningError
    from study.tune.resources import ResourceError
    from trainables.data import DataError

    if isinstance(error, ConfigError | DataError | StorageError | ResourceError | StudyIsRunningError):
        return BAD_INPUT
    # SciPy and Ray take long to import, and most errors are among those above.
    import analysis
    from study.tune.cluster import ClusterError

    if isinstance(error, ClusterError):
        return BAD_INPUT
    if isinstance(error, analysis.StudyError):
        return BAD_INPUT if isinstance(error.__cause__, StorageError) else SOME_FAILED
    return None


def conclude(outcome: "Outcome | TargetsOutcome", options: argparse.Namespace) -> int:
    """Print the outcome of a study or a search. Return the exit status."""
    from rich.console import Console

    from study.run.outcome import Outcome
    from study.run.standing import study_outcome, targets_result

    if options.json:
        reply(options, study_outcome(outcome) if isinstance(outcome, Outcome) else targets_result(outcome))
        return SOME_FAILED if outcome.failed else OK
    console = Console(highlight=False)
    for text in (outcome.findings, outcome.summary, f"report: {outcome.report}"):
        console.print(text, markup=False, soft_wrap=True)
    return SOME_FAILED if outcome.failed else OK


SLOTS = "stages side by side (default: what fits); 0: in this process, without Ray"
"""What the option ``--slots`` means."""


def count(text: str) -> int:
    """Type of an option: a number from 0 up, without fractions."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return int(text)


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
    """Type of an option: the name of a study or a search."""
    if fault := name_fault(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a folder: {fault}")
    return text


def _say_stopped(why: str) -> None:
    # Whoever closed the terminal reads nothing.
    with suppress(OSError):
        told = "stopped. What is complete is stored; run the same command again to resume from here."
        print(f"\n{why}{told}", file=sys.stderr)


def _print_anything() -> None:
    """Let no letter end a command: a terminal or a log that is not UTF-8 shows an escape for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding or "").lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def _hidden_packages() -> str | None:
    """What is wrong if a file of the current folder hides a package of this project: Python looks there first."""
    own = Path(__file__).resolve().parents[1]
    for name in OWN_PACKAGES:
        origin = getattr(find_spec(name), "origin", None)
        if origin is not None and Path(origin).resolve() != own / name / "__init__.py":
            return f"{origin} hides this project's package {name}: rename it, or run the command elsewhere"
    return None

"""Prepares this machine for a study: checks that there is room, and decodes the data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from study.config import StudyConfig, data_configs
from study.durations import REPORT_SECONDS, duration
from study.tune.resources import ask_of, require, this_machine
from trainables.data import LAYOUTS, ImageSet, load
from trainables.data.decoding import Progress as OnProgress
from trainables.data.decoding import gigabytes
from trainables.settings import DataConfig

SHOWN_CLASSES = 6


def prepare_machine(config: StudyConfig) -> None:
    """Make sure that this machine has room for a stage, then decode what is not decoded yet, with progress.

    On a cluster each node decodes for itself, when its first stage asks for it.

    Raises:
        ResourceError: no stage could ever start here.
        DataError: a file cannot be read, or the disk is too small.
    """
    # Before hours of decoding.
    ask = ask_of(config.resources)
    require(ask, this_machine(ask))
    for _, own in distinct(data_configs(config)):
        if own.name in LAYOUTS:
            decoded(load(own, config.data))


def understood(config: StudyConfig) -> Iterator[str]:
    """What the study takes its data to be, in a few lines for each data set in files."""
    for domains, own in distinct(data_configs(config)):
        if own.name not in LAYOUTS:
            continue
        content = load(own, config.data)
        count = f"{len(content.labels):,} in {len(content.class_names):,} classes"
        yield f"{' and '.join(domains)}: {content.title}, {count}"
        for part, items in (content.official or {"all": torch.arange(len(content.labels))}).items():
            numbers = content.labels[items].bincount(minlength=len(content.class_names)).tolist()
            named = [f"{name} {number:,}" for name, number in zip(content.class_names, numbers, strict=True)]
            more = f" and {len(named) - SHOWN_CLASSES:,} more classes" if len(named) > SHOWN_CLASSES else ""
            yield f"  {part} {len(items):,}: {', '.join(named[:SHOWN_CLASSES])}{more}"
        yield from (f"  {note}" for note in content.notes)


def distinct(configs: dict[str, DataConfig]) -> list[tuple[list[str], DataConfig]]:
    """The data sets, each with the domains that use it."""
    names: dict[DataConfig, list[str]] = {}
    for domain, config in configs.items():
        names.setdefault(config.content(), []).append(domain)
    return [(domains, config) for config, domains in names.items()]


def decoded(content: ImageSet) -> str:
    """Decode the data set unless this was done before. Return a sentence about it.

    Raises:
        DataError: a file cannot be read, or the disk is too small.
    """
    decode = content.decoding
    if decode is None:
        return f"{content.title} is read again in each epoch: there is nothing to decode"
    if decode.is_done():
        return f"{content.title} is decoded already: {decode.array}"
    with progress_bar(f"decoding {content.title}") as progress:
        decode.open(progress)
    return f"{content.title} is decoded: {decode.array}, {gigabytes(decode.bytes)}"


@contextmanager
def progress_bar(title: str) -> Iterator[OnProgress]:
    """A progress bar on the terminal, gone when it is done; in a log, a line once a minute."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _in_a_log(title, console)
        return
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _in_a_log(title: str, console: Console) -> OnProgress:
    began = reported = time.monotonic()

    def report(done: int, of: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported >= REPORT_SECONDS and done:
            reported = now
            left = duration((now - began) * (of - done) / done)
            console.print(f"{title}: {done:,} of {of:,}, about {left} left", markup=False, soft_wrap=True)

    return report

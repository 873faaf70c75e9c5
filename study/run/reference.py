"""What is doubtful about a study's pretrained references."""

from collections.abc import Iterable

from rich.console import Console

from study.config import StudyConfig, stream_config, target_config
from study.settings.facts import located_weights
from trainables.doubts import doubts

MARK = "DOUBTFUL REFERENCE"
"""Begins each doubt, wherever it is printed."""


def say_doubts(config: StudyConfig, console: Console) -> list[str]:
    """Print what is doubtful about the pretrained references, and return it; raises as :func:`reference_doubts`."""
    found = reference_doubts(config)
    say(found, console)
    return found


def say(doubts: Iterable[str], console: Console) -> None:
    """Print doubts."""
    for doubt in doubts:
        console.print(doubt, markup=False, soft_wrap=True, style="bold red")


def reference_doubts(config: StudyConfig) -> list[str]:
    """A sentence for each doubt; none if each reference is plausible, or is trained by the study itself.

    Raises:
        ConfigError: a stream or a target changes what cannot be changed.
        DataError: images cannot be read.
        WeightsError: weights cannot be read.
    """
    if config.targets:
        doubted = [reference_doubts(target_config(config, target)) for target in config.targets]
        # What is doubtful about the source concerns every target.
        return list(dict.fromkeys(doubt for found in doubted for doubt in found))
    found = []
    for stream in [*config.streams] or [""]:
        own = stream_config(config, stream) if stream else config
        weights = located_weights(own)
        if weights is None or own.source.train is not None:
            continue
        named = f" ({stream})" if stream else ""
        for doubt in doubts(own.network, weights, own.source.data, own.target.data, own.data):
            found.append(f"{MARK}{named}: {doubt}")
    return found

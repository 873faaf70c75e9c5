"""``study.search``: running a search."""

import argparse
from pathlib import Path

from study.command import conclude
from study.config import load_config
from study.run.search import SearchSettings, run_search


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    settings = SearchSettings(
        trials=options.trials,
        sampler=options.sampler,
        against=options.against,
        seed=options.seed,
        minutes=options.minutes,
        early_stopping=not options.no_early_stopping,
        warm_start=options.warm_start,
        explain=options.explain,
    )
    name = options.name or f"{Path(options.preset).stem}-search"
    config = load_config(options.preset, options.set)
    where = {"storage": options.storage, "address": options.address, "slots": options.slots}
    return conclude(run_search(config, name, settings, **where), options)

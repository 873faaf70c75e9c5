"""Two studies next to one another: the nets that both have, and in which settings the studies differ."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from analysis.comparisons import Comparison, judged
from analysis.loading import Results, StudyError, readable
from analysis.nets import Net, table_nets
from analysis.questions import Question
from analysis.statistics.intervals import differences
from study.generations import read_generation
from study.settings.dotted import dotted

UNTOLD = ("title", "seeds", "resources", "loggers", "data")
"""Settings that make no other nets."""


@dataclass(frozen=True)
class Between:
    """A study and another, which is compared with it."""

    one: Results
    other: Results

    def __post_init__(self) -> None:
        """Make sure that nets of the two can be paired.

        Raises:
            StudyError: they were tested with other images, or no net is in both.
        """
        ours, theirs = (_test_data(results) for results in (self.one, self.other))
        if ours != theirs:
            raise StudyError(
                f"{' and '.join(self.names)} cannot be compared by seed: they were tested "
                f"with other images ({_named(ours)}; {_named(theirs)})"
            )
        if not self.nets:
            raise StudyError(f"{' and '.join(self.names)} have no net in common")

    @property
    def names(self) -> tuple[str, str]:
        """What the studies are called; by their folders, if they have one name."""
        one, other = self.one.facts.name, self.other.facts.name
        return (one, other) if one != other else (self.one.folder.at(), self.other.folder.at())

    @cached_property
    def nets(self) -> dict[str, tuple[Net, Net]]:
        """The nets of the tables that both have, by label."""
        first, second = ({net.label: net for net in table_nets(results)} for results in (self.one, self.other))
        return {label: (net, second[label]) for label, net in first.items() if label in second}

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The other study's nets against the first one's, by seed, as one family; without nets that are the same."""
        return judged(
            [
                Comparison(Question("between", label, theirs, ours), differences(theirs.accuracy, ours.accuracy))
                for label, (ours, theirs) in self.nets.items()
                if ours.stages != theirs.stages
            ],
            None,
        )

    @cached_property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """Settings in which the studies differ, by dotted key; a value that one does not have is None."""
        ours, theirs = (dict(dotted(_config(results))) for results in (self.one, self.other))
        keys = [key for key in dict.fromkeys([*ours, *theirs]) if key.partition(".")[0] not in UNTOLD]
        return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _test_data(results: Results) -> set[tuple[str, str]]:
    """What decides the images that nets are tested with, as the target's stages have it."""
    transfers = results.stages[results.stages["kind"].isin(["transfer", "probe"])]
    split = transfers["hyperparameters"].map(_split)
    return set(zip(transfers["data_fingerprint"].fillna("").tolist(), split.tolist(), strict=True))


def _split(hyperparameters: str) -> str:
    data = json.loads(hyperparameters).get("data", {})
    return ", ".join(f"{key} {data[key]}" for key in ("name", "test_share") if data.get(key) is not None)


def _named(data: set[tuple[str, str]]) -> str:
    return " and ".join(sorted(f"{split} {fingerprint[:8]}" for fingerprint, split in data)) or "none"


def _config(results: Results) -> Mapping[str, Any]:
    with readable():
        content = read_generation(results.folder, ["config.yaml"]).get("config.yaml", b"{}")
    return yaml.safe_load(content) or {}

"""Two studies next to one another: the nets that both have, and in which settings the studies differ."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import yaml

from analysis.comparisons import Comparison, Question, judged
from analysis.loading import Results, StudyError, readable
from analysis.nets import Net, in_table, nets, off_axis, outcomes
from analysis.statistics.intervals import differences, over_seeds
from analysis.statistics.significance import ALPHA
from analysis.tables.comparisons import p_text
from analysis.tables.comparisons import verdict as verdict_text
from analysis.tables.table import NOTHING, Header, Table, interval_columns, interval_text, points_text
from study.generations import read_generation

SHOWN_IN = ("table1", "table3", "table4", "controls", "probes")
"""Tables whose nets are compared."""
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
        first, second = (
            {net.label: net for net in nets(in_table(off_axis(outcomes(results)), *SHOWN_IN))}
            for results in (self.one, self.other)
        )
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
        ours, theirs = (dict(_dotted(_config(results))) for results in (self.one, self.other))
        keys = [key for key in dict.fromkeys([*ours, *theirs]) if key.partition(".")[0] not in UNTOLD]
        return {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}


def _test_data(results: Results) -> set[tuple[str, str]]:
    """What decides the images that nets are tested with, as the target's stages have it."""
    transfers = results.stages[results.stages["kind"].isin(["transfer", "probe"])]
    split = transfers["hyperparameters"].map(_split)
    return set(zip(transfers["data_fingerprint"].fillna("").tolist(), split.tolist(), strict=True))


def _split(hyperparameters: str) -> str:
    data = yaml.safe_load(hyperparameters).get("data", {})
    return ", ".join(f"{key} {data[key]}" for key in ("name", "test_share") if data.get(key) is not None)


def _named(data: set[tuple[str, str]]) -> str:
    return " and ".join(sorted(f"{split} {fingerprint[:8]}" for fingerprint, split in data)) or "none"


def _config(results: Results) -> Mapping[str, Any]:
    with readable():
        content = read_generation(results.folder, ["config.yaml"]).get("config.yaml", b"{}")
    return yaml.safe_load(content) or {}


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def between_table(both: Between) -> Table:
    """A row for each net that both studies have."""
    one, other = both.names
    found = {comparison.question.subject: comparison for comparison in both.comparisons}
    headers = [Header("net"), Header(one, "ACC %"), Header(other, "ACC %"), Header(f"{other} minus {one}")]
    headers += [Header("alone", "p"), Header("Holm", "p"), Header("shown")]
    rows, data = [], []
    for label, (ours, theirs) in both.nets.items():
        compared = found.get(label)
        texts = [interval_text(over_seeds(net.accuracy)) for net in (ours, theirs)]
        if compared is None:
            rest = ["the same nets", NOTHING, NOTHING, NOTHING]
        elif compared.mean is None:
            rest = ["no seed in common", NOTHING, NOTHING, NOTHING]
        else:
            p = [p_text(value) for value in (compared.p, compared.p_holm)]
            rest = [points_text(compared.mean), *p, verdict_text(compared)]
        rows.append([label, *texts, *rest])
        row: dict[str, object] = {"net": label, **interval_columns("one_", over_seeds(ours.accuracy))}
        row |= interval_columns("other_", over_seeds(theirs.accuracy))
        row |= interval_columns("difference_", compared.mean if compared else None)
        row |= {"pairs": compared.pairs if compared else 0, "p": compared and compared.p}
        data.append(row | {"p_holm": compared and compared.p_holm, "shown": bool(compared and compared.shown)})
    family = both.comparisons[0].family if both.comparisons else 0
    notes = [
        "Differences are paired by seed, with their own 95 % interval; accuracies are of all seeds that a study has.",
        f"Shown: p below {ALPHA} after Holm's correction over {family} differences, and an interval without zero.",
    ]
    return Table("between", f"{other} next to {one}", headers, rows, notes, pd.DataFrame(data))


def between_settings(both: Between) -> list[str]:
    """In which settings the studies differ, a line each."""
    if not both.settings:
        return ["The studies have the same settings."]
    return [f"{key}: {_text(ours)} → {_text(theirs)}" for key, (ours, theirs) in both.settings.items()]


def _text(value: Any) -> str:
    return "null" if value is None else str(value)

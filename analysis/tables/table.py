"""What a table is, how its values are written, and the list of a study's tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net
from analysis.statistics.effects import NO_SPREAD
from analysis.statistics.intervals import Interval

NOTHING = "\N{EN DASH}"
RETRAINED = (
    "The nets were trained on the validation images too (retrain_on_validation): validation ACC % is of images that "
    "were trained on, and nothing is chosen by it."
)


@dataclass(frozen=True)
class Header:
    """A column's heading; ``detail`` columns (every seed's value) are left out of LaTeX, ``prose`` wraps its lines."""

    name: str
    group: str = ""
    detail: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text (``rows`` under ``headers``) and for programs (``data``)."""

    name: str
    title: str
    headers: list[Header]
    rows: list[list[str]]
    notes: list[str]
    data: pd.DataFrame
    sources: list[list[Net]] = field(default_factory=list)
    """The nets behind each row, if the rows are made of nets: what `study.show` follows."""
    bold: frozenset[tuple[int, int]] = frozenset()
    """Cells, by row and column, that stand out in LaTeX: what is shown to be better."""


def published_heading(results: Results) -> str:
    """Heading of the paper's columns; with a note if the paper's data is not the study's."""
    other = "" if results.facts.same_data else " (another data set)"
    return f"paper, {results.facts.published}{other}"


def each_seed(seeds: list[int], quantity: str) -> Header:
    """Heading of a column that shows every seed's value."""
    return Header(f"{quantity}, each seed ({seed_list(seeds)})", detail=True)


def seed_list(seeds: list[int]) -> str:
    """Seeds as they are written: ``0, 1, 2`` or, if more follow one another, ``0 to 19``."""
    if len(seeds) > 3 and seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def problem_notes(nets: list[Net], seeds: list[int]) -> list[str]:
    """A line for every cell without a result, so that none is dropped in silence."""
    lines = [f"{net.label}, seed {seed}: {text}." for net in nets for seed, text in sorted(net.problems.items())]
    for net in nets:
        if lacking := sorted(set(seeds) - set(net.cells["seed"].tolist())):
            lines.append(f"{net.label}: no cell for seed {', '.join(map(str, lacking))}.")
    return lines


def problem_text(net: Net) -> str:
    """The problems of a net's seeds in one CSV field."""
    return "; ".join(f"seed {seed}: {text}" for seed, text in sorted(net.problems.items()))


def interval_columns(prefix: str, interval: Interval | None) -> dict[str, float | None]:
    """CSV columns of an interval: mean, ci_low, ci_high."""
    if interval is None:
        return dict.fromkeys([f"{prefix}mean", f"{prefix}ci_low", f"{prefix}ci_high"])
    return {f"{prefix}mean": interval.mean, f"{prefix}ci_low": interval.low, f"{prefix}ci_high": interval.high}


# How values are written ----------------------------------------------------------------------------------------------


def signed(value: float, decimals: int = 1) -> str:
    """A difference: always with its sign."""
    # Rounded first, so that a hair below zero is no minus zero.
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def points_of(number: float) -> str:
    """A number of percentage points, as text."""
    return f"{number:g} point" if number == 1 else f"{number:g} points"


def decimals_of(interval: Interval) -> int:
    """Decimals with which no end of an interval seems to be zero, three at most."""
    known = [value for value in (interval.mean, interval.low, interval.high) if value is not None]
    return next((d for d in (1, 2) if all(float(f"{v:.{d}f}") for v in known if abs(v) > NO_SPREAD)), 3)


def points_text(interval: Interval, unit: str = "", decimals: int | None = None) -> str:
    """A difference with the ends of its interval, ``+0.8 [0.2, 1.4]``; by default with :func:`decimals_of`."""
    decimals = decimals_of(interval) if decimals is None else decimals
    mean = signed(interval.mean, decimals) + unit
    if interval.low is None or interval.high is None:
        return mean
    low, high = (f"{end:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for end in (interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def percent(value: float) -> str:
    """An accuracy: one decimal, as in the paper."""
    return f"{value:.1f}"


def rate(value: float) -> str:
    """A pruning rate: a second decimal where it matters, as rates crowd near 100 %."""
    # Rounded first, so that a rate a hair below zero is no minus zero.
    return f"{round(value, 2) + 0.0:.2f}".removesuffix("0")


def count(value: float) -> str:
    """A number of neurons or weights, in thousands (K) or millions (M) if it is long."""
    for size, unit in ((10_000_000, "M"), (100_000, "K")):
        if value >= size:
            scaled = value / (1_000_000 if unit == "M" else 1_000)
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}{unit}"
    return f"{value:,.0f}" if value >= 1_000 or float(value).is_integer() else f"{value:,.1f}"


def interval_text(interval: Interval | None) -> str:
    """``81.6 ± 0.4``; for one seed, a note that it has no interval."""
    if interval is None:
        return "no result"
    if interval.half is None:
        return f"{percent(interval.mean)} (1 seed: no interval)"
    return f"{percent(interval.mean)} ± {percent(interval.half)}"


def rate_text(interval: Interval | None) -> str:
    """Like :func:`interval_text`, but a rate that is the same for every seed stands by itself."""
    if interval is None:
        return "no result"
    if not interval.half or rate(interval.half) == "0.0":
        return rate(interval.mean)
    return f"{rate(interval.mean)} ± {rate(interval.half)}"


def difference_text(interval: Interval | None, seeds: int) -> str:
    """``+0.4 ± 0.3``, with the number of pairs if it is less than the net's seeds."""
    if interval is None:
        return "no pair"
    mean = signed(interval.mean)
    if interval.half is None:
        return f"{mean} (1 pair: no interval)"
    return f"{mean} ± {percent(interval.half)}" + (f" ({interval.n} pairs)" if interval.n < seeds else "")


def seeds_text(values: Mapping[int, float], net: Net, seeds: list[int], text: Callable[[float], str] = percent) -> str:
    """Every seed's value in order, or the word for why there is none."""
    return " · ".join(
        text(values[seed]) if seed in values else net.problems.get(seed, NOTHING).partition(":")[0] for seed in seeds
    )


def rates_text(values: Mapping[int, float], net: Net, seeds: list[int], text: Callable[[float], str] = rate) -> str:
    """Like :func:`seeds_text`, but a rate that all seeds share is written once."""
    texts = seeds_text(values, net, seeds, text).split(" · ")
    return f"all {texts[0]}" if len(texts) > 1 and len(set(texts)) == 1 else " · ".join(texts)


def seed_count(net: Net, seeds: list[int]) -> str:
    """``3``, or ``2 of 3`` if some seeds have no result."""
    done = len(net.accuracy)
    return str(done) if done == len(seeds) else f"{done} of {len(seeds)}"

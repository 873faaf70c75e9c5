"""Whether a study that was run again produced what its report states, stage by stage, and what was different.

Where code, packages and hardware are of the same kind, every number comes out the same to the last bit. Where they are
not, a sum in another order is enough to send a training elsewhere, and that moves a net's accuracy about as far as
another seed does (Summers and Dinneen, "Nondeterminism and instability in neural network optimization", ICML 2021). So
a difference is judged by the spread over the report's own seeds: were all but the split drawn again for the m seeds of
a net, the mean of their differences would lie within ::

    t(1 - alpha / (2 tests), df) * s * sqrt(2 / m)

with s the standard deviation over the report's seeds; so the prediction interval of a replication is made (Patil, Peng
and Leek, "What should researchers expect when they replicate studies?", Perspectives on Psychological Science 11
(2016)). Each stage is judged by itself (m = 1), and each net over its seeds, for shifts that no single stage shows.
Alpha is 5 % for all these tests together (Bonferroni). s is the larger of the net's own spread and that of all nets of
its kind, as three seeds know their spread badly; df is that of the latter. Nets of one prune chain share much of
their noise, which this df does not see; the split's part of s, which does not change, makes up for that (simulated in
the tests). A pruning rate that no seed changes has no spread: any difference counts. With one seed nothing is known of
the noise, and any difference above the tolerance counts.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import pandas as pd
from scipy import stats

from analysis.comparisons import comparisons
from analysis.loading import Results
from analysis.nets import VARIANT
from analysis.statistics.effects import NO_SPREAD
from analysis.statistics.significance import ALPHA
from analysis.tables.table import signed
from study import schema

Verdict = Literal["same", "within", "beyond", "not done"]
VERDICTS: dict[Verdict, str] = {
    "same": "same to the last bit",
    "within": "other numbers, within the noise of seeds",
    "beyond": "beyond the noise of seeds",
    "not done": "done in the report, but not here",
}
QUANTITIES = {"test_accuracy": "test ACC %", "prune_percent": "Prune %"}
CELL = ["ablation", "point", *VARIANT]
"""What tells a cell from all others of its seed, whatever its stages' keys."""
MADE_WITH = ("code_version", "processor", "device", "tf32", "threads", "workers", "images_a_pass")
SETTINGS = ["network", "network_digest", "weights_fingerprint", "data", "data_fingerprint", "hyperparameters"]
MOST_LINES = 20
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reproduction:
    """A report's stages next to those of the study that was run again.

    ``stages`` has a row for each stage that is done in the report: ``net`` (what its seeds have in common), ``kind``,
    ``seed``, ``published`` and ``here`` (keys), each of :data:`QUANTITIES` as ``…_published`` and ``…_here``, and
    ``verdict``. ``nets`` has those whose mean over seeds is further off than noise explains: ``net``, ``quantity``,
    ``difference`` and ``bound``, in percentage points.
    """

    stages: pd.DataFrame
    nets: pd.DataFrame
    origins: list[str]
    """Stages that differ though all that they were made from is the same: there the difference begins."""
    made_otherwise: list[str]
    """What differs in code, packages, hardware, data and settings, as text."""
    conclusions: list[str]
    """Comparisons that are shown in only one of the two, as text."""
    lacking: int
    """Cells of the report that the study, as it was run again, has not."""

    @property
    def agrees(self) -> bool:
        """Whether nothing is beyond the noise of seeds, and nothing is missing."""
        return not self.lacking and self.nets.empty and set(self.stages["verdict"]) <= {"same", "within"}


def compare(published: Results, here: Results, tolerance: float = 0.0) -> Reproduction:
    """Compare a report with the study that was run again.

    Args:
        published: the report.
        here: the study that was run again, with all seeds of the report or some of them.
        tolerance: difference in percentage points that is none, whatever the noise.
    """
    roles = _roles(published)
    pairs, lacking = _pairs(published, here, roles)
    bounds = _Bounds(roles, pairs, published, tolerance)
    records: list[Row] = pairs.to_dict("records")  # type: ignore[assignment]
    one, other = _Recorded(published), _Recorded(here)
    pairs["verdict"] = [_verdict(row, one.of(row["published"]), other.of(row["here"]), bounds) for row in records]
    verdicts = dict(zip(pairs["here"], pairs["verdict"], strict=True))
    return Reproduction(
        stages=pairs,
        nets=pd.DataFrame(_shifted(pairs, bounds), columns=["net", "quantity", "difference", "bound"]),
        origins=list(_origins(here, verdicts)),
        made_otherwise=list(_made_otherwise(pairs, published, here)),
        conclusions=list(_conclusions(published, here)),
        lacking=lacking,
    )


def describe(found: Reproduction) -> str:
    """The comparison as text."""
    counts = found.stages["verdict"].value_counts()
    lines = [f"{len(found.stages)} stages compared with the report's:"]
    lines += [f"  {counts.get(verdict, 0):5}  {words}" for verdict, words in VERDICTS.items()]
    furthest = {
        words: (found.stages[f"{name}_here"] - found.stages[f"{name}_published"]).abs().max()
        for name, words in QUANTITIES.items()
    }
    largest = ", ".join(f"{words} {points:.2f}" for words, points in furthest.items() if pd.notna(points))
    lines.append(f"largest difference of a stage, in points: {largest or 'none can be told'}")
    if found.lacking:
        lines.append(f"{found.lacking} cells of the report are not in the study as this version of the code plans it")
    beyond: list[Row] = found.stages[found.stages["verdict"].isin(["beyond", "not done"])].to_dict("records")  # type: ignore[assignment]
    lines += _some("stages that differ:", [_stage_line(row) for row in beyond])
    shifts = [
        f"{net}: {QUANTITIES[quantity]} {signed(difference, 2)} over its seeds, noise explains {bound:.2f}"
        for net, quantity, difference, bound in found.nets.itertuples(index=False, name=None)
    ]
    lines += _some("nets whose mean differs:", shifts)
    lines += _some("the difference begins at:", found.origins)
    lines += _some("shown in only one of the two:", found.conclusions)
    lines += _some("made otherwise:", found.made_otherwise) or [
        "code, packages, processor, data and settings are the same"
    ]
    lines.append("reproduced" if found.agrees else "NOT reproduced")
    return "\n".join(lines)


def _some(head: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  and {len(lines) - MOST_LINES} more, in reproduction.csv"] if len(lines) > MOST_LINES else []
    return [head, *(f"  {line}" for line in lines[:MOST_LINES]), *more]


def _stage_line(row: Row) -> str:
    if row["verdict"] == "not done":
        return f"{row['here']} ({row['net']}, seed {row['seed']}): not done here"
    numbers = [
        f"{words} {row[f'{name}_published']:.2f} there, {row[f'{name}_here']:.2f} here"
        for name, words in QUANTITIES.items()
        if row[f"{name}_published"] != row[f"{name}_here"] and pd.notna(row[f"{name}_published"])
    ]
    return f"{row['here']} ({row['net']}, seed {row['seed']}): {'; '.join(numbers)}"


# Which stage is which ------------------------------------------------------------------------------------------------


def _paths(results: Results) -> dict[tuple[str, int], list[str]]:
    """The stages that each cell needs, in order, its own last, by what its seeds have in common and its seed."""
    columns = (results.cells[name] for name in [*CELL, "seed", "path"])
    return {(str(variant), seed): list(path) for *variant, seed, path in zip(*columns, strict=True)}


def _roles(results: Results) -> pd.DataFrame:
    """Each stage with its role, which its seeds have in common: the first cell that needs it, and its place there."""
    stages = results.stages.set_index("stage")
    names = {
        stage: net
        for column in ("measured", "stage")
        for stage, net in zip(results.cells[column], results.cells["net"], strict=True)
    }
    found: dict[str, dict[str, Any]] = {}
    for (variant, seed), path in _paths(results).items():
        for place, stage in enumerate(path):
            if stage not in found and stage in stages.index:
                kind = str(stages["kind"][stage])
                net = names.get(stage, f"{kind} before {names[path[-1]]}")
                found[stage] = {"role": f"{variant} {place}", "net": net, "kind": kind, "seed": seed}
    return pd.DataFrame([{"published": stage, **role} for stage, role in found.items()])


def _pairs(published: Results, here: Results, roles: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The stages of both that stand for each other, and how many cells of the report have none here."""
    ours, seeds = _paths(here), set(here.cells["seed"])
    found: dict[str, str] = {}
    lacking = 0
    for (variant, seed), path in _paths(published).items():
        if seed not in seeds:
            continue
        other = ours.get((variant, seed), [])
        lacking += not other
        # Another version may plan other steps on the way; the last one is the cell's net all the same.
        couples = zip(path, other, strict=True) if len(path) == len(other) else [(path[-1], end) for end in other[-1:]]
        for theirs, own in couples:
            found.setdefault(theirs, own)
    pairs = pd.DataFrame(found.items(), columns=["published", "here"]).merge(roles, on="published")
    for end, results in (("published", published), ("here", here)):
        values = results.stages[["stage", "status", *QUANTITIES]].set_index("stage").add_suffix(f"_{end}")
        pairs = pairs.join(values, on=end)
    return pairs[pairs["status_published"] == "done"].drop(columns="status_published"), lacking


class _Recorded:
    """All rows of each stage, without keys, settings and what may differ between two runs."""

    def __init__(self, results: Results) -> None:
        self._rows: dict[str, list[list[Any]]] = {}
        for name in ("stages", "epochs", "layers", "knowledge", "confusion"):
            frame: pd.DataFrame = getattr(results, name)
            left_out = [*schema.volatile_columns(name), *[*SETTINGS, "parents"] * (name == "stages")]
            frame = frame.drop(columns=left_out).astype(object)
            frame = frame.where(frame.notna(), None)
            for stage, *values in frame[["stage", *frame.columns.drop("stage")]].itertuples(index=False, name=None):
                self._rows.setdefault(stage, []).append(values)

    def of(self, stage: str) -> list[list[Any]]:
        return self._rows.get(stage, [])


def _alike(one: list[list[Any]], other: list[list[Any]]) -> bool:
    """Whether two stages' rows are the same, in all that both have: earlier versions did not record everything."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(x == y or x is None or y is None for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


# How far they may be apart -------------------------------------------------------------------------------------------


class _Bounds:
    """How far the noise of seeds moves the mean of some stages of a net."""

    def __init__(self, roles: pd.DataFrame, pairs: pd.DataFrame, published: Results, tolerance: float) -> None:
        several = int((pairs.groupby("role")["seed"].nunique() > 1).sum())
        self._tests = len(QUANTITIES) * (len(pairs) + several)
        self._tolerance = max(tolerance, NO_SPREAD)
        values = roles.join(published.stages.set_index("stage")[list(QUANTITIES)], on="published")
        self._spreads = {name: _spreads(values.dropna(subset=[name]), name) for name in QUANTITIES}

    def of(self, quantity: str, role: str, kind: str, seeds: int) -> float:
        spreads = self._spreads[quantity]
        alike = spreads[spreads["kind"] == kind]
        # The one reference that all seeds share has no spread of its own, nor have others of its kind.
        pool = alike if len(alike) else spreads
        if not (df := int(pool["df"].sum())):
            return self._tolerance
        pooled = float((pool["variance"] * pool["df"]).sum()) / df
        deviation = sqrt(max(pooled, float(spreads["variance"].get(role, 0.0))))
        reach = float(stats.t.isf(ALPHA / (2 * self._tests), df))
        return max(self._tolerance, reach * deviation * sqrt(2 / seeds))


def _spreads(values: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Variance over the report's seeds, and its degrees of freedom, of each role that has two seeds or more."""
    groups = values.groupby("role")
    spreads = pd.DataFrame(
        {"kind": groups["kind"].first(), "variance": groups[quantity].var(ddof=1), "df": groups.size() - 1}
    )
    return spreads[spreads["df"] > 0]


def _verdict(row: Row, published: list[list[Any]], here: list[list[Any]], bounds: _Bounds) -> Verdict:
    if row["status_here"] != "done":
        return "not done"
    if _alike(published, here):
        return "same"
    for name in QUANTITIES:
        theirs, ours = row[f"{name}_published"], row[f"{name}_here"]
        if pd.isna(theirs) and pd.isna(ours):
            continue
        # Not a difference above the bound: one of the two may be lacking.
        if not abs(ours - theirs) <= bounds.of(name, row["role"], row["kind"], 1):
            return "beyond"
    return "within"


def _shifted(pairs: pd.DataFrame, bounds: _Bounds) -> Iterator[tuple[str, str, float, float]]:
    for role, rows in pairs[pairs["status_here"] == "done"].groupby("role", sort=False):
        for name in QUANTITIES:
            differences = (rows[f"{name}_here"] - rows[f"{name}_published"]).dropna()
            if len(differences) > 1:
                mean, first = float(differences.mean()), rows.iloc[0]
                bound = bounds.of(name, str(role), str(first["kind"]), len(differences))
                if abs(mean) > bound:
                    yield str(first["net"]), name, mean, bound


# What was different --------------------------------------------------------------------------------------------------


def _origins(here: Results, verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    parents = dict(zip(here.stages["stage"], here.stages["parents"], strict=True))
    for stage, verdict in verdicts.items():
        made_from = json.loads(parents.get(stage, "{}")).values()
        if verdict != "same" and all(verdicts.get(parent) == "same" for parent in made_from):
            yield stage


def _made_otherwise(pairs: pd.DataFrame, published: Results, here: Results) -> Iterator[str]:
    pairs = pairs[pairs["status_here"] == "done"]
    theirs = published.stages.set_index("stage").loc[pairs["published"]]
    ours = here.stages.set_index("stage").loc[pairs["here"]]
    left, right = _made_with(theirs), _made_with(ours)
    for name in dict.fromkeys([*left, *right]):
        before, now = left.get(name, set()), right.get(name, set())
        # Where one of the two did not record it, nothing is known.
        if before and now and before != now:
            yield f"{name}: {', '.join(sorted(before))} there, {', '.join(sorted(now))} here"
    for name in SETTINGS:
        known = zip(theirs[name], ours[name], strict=True)
        if count := sum(_differ(name, before, now) for before, now in known if pd.notna(before) and pd.notna(now)):
            yield f"{name.replace('_', ' ')}: another one in {count} stages"


def _differ(name: str, before: object, now: object) -> bool:
    """Whether two values of a setting differ; of hyperparameters, the fields that both versions of the code have."""
    if name == "hyperparameters":
        return _common_fields_differ(json.loads(str(before)), json.loads(str(now)))
    return before != now


def _common_fields_differ(before: Any, now: Any) -> bool:
    if isinstance(before, dict) and isinstance(now, dict):
        return any(_common_fields_differ(before[name], now[name]) for name in before.keys() & now.keys())
    return bool(before != now)


def _made_with(stages: pd.DataFrame) -> dict[str, set[str]]:
    """Values of what stages were made with, by name; packages by their own."""
    found = {
        name.replace("_", " "): {
            f"{value:g}" if isinstance(value, float) else str(value) for value in stages[name].dropna()
        }
        for name in MADE_WITH
    }
    for versions in stages["package_versions"].dropna().unique():
        for package, version in json.loads(versions).items():
            found.setdefault(package, set()).add(version)
    return found


def _conclusions(published: Results, here: Results) -> Iterator[str]:
    if published.seeds != here.seeds:
        return
    ours = {one.question.name: one.shown for one in comparisons(here)}
    for one in comparisons(published):
        if ours.get(one.question.name, one.shown) != one.shown:
            yield f"{one.question.name}: shown {'in the report' if one.shown else 'here'}"

"""Results from elsewhere: single runs in a CSV file, whoever trained them, to tables, tests and conclusions.

Nets are compared with a baseline on each data set. Runs are not paired: seeds of other people's nets mostly have
nothing in common.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.loading import StudyError
from analysis.statistics.intervals import FloatArray
from analysis.statistics.moderation import Variances, moderated_variances, own_variances
from analysis.statistics.significance import ALPHA, holm

VERDICTS = ("gain", "costs less", "small loss", "loss", "open")
"""What a comparison can end in: ``costs less`` than the margin, a loss that is less than it, a loss of any size."""
QUANTITIES = ("data_set", "net", "sparsity", "seed", "accuracy")


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns."""

    data_set: str
    net: str
    seed: str
    accuracy: str
    sparsity: str | None = None


def read_runs(path: Path, columns: Columns) -> pd.DataFrame:
    """The runs of a CSV file: ``data_set``, ``net``, ``sparsity`` (0 to 1), ``seed`` and ``accuracy`` (%).

    Accuracies up to 1 are taken as shares; without a column of sparsities they are 0.

    Raises:
        StudyError: the file cannot be read, has no such column, or holds what is no run.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error
    table.columns = [str(name).strip() for name in table.columns]
    given = {quantity: getattr(columns, quantity) for quantity in QUANTITIES if getattr(columns, quantity)}
    for quantity, name in given.items():
        if name not in table.columns:
            option = quantity.replace("_", "-")
            raise StudyError(f"{path} has no column {name!r} (--{option}): there is {', '.join(table.columns)}")
    runs = table[[*given.values()]].set_axis([*given], axis=1)
    for quantity in ("data_set", "net", "seed"):
        runs[quantity] = runs[quantity].astype("string").str.strip()
    for quantity in ("accuracy", "sparsity"):
        runs[quantity] = pd.to_numeric(runs[quantity], errors="coerce") if quantity in runs else 0.0
    _require_runs(path, runs)
    if runs["accuracy"].max() <= 1:
        runs["accuracy"] *= 100
    if runs["sparsity"].max() > 1:
        runs["sparsity"] /= 100
    return runs.sort_values(["data_set", "sparsity", "net", "seed"], ignore_index=True)[[*QUANTITIES]]


def _require_runs(path: Path, runs: pd.DataFrame) -> None:
    """Make sure that each row is a run, and none is there twice.

    Raises:
        StudyError: one is not.
    """
    if runs.empty:
        raise StudyError(f"{path} has no rows")
    # A file's first row of values is its line 2.
    bad = runs.index[runs.isna().any(axis=1) | ~runs["accuracy"].between(0, 100) | ~runs["sparsity"].between(0, 100)]
    if len(bad):
        row = runs.loc[bad[0]].to_dict()
        raise StudyError(f"{path}, line {bad[0] + 2} ({len(bad)} such lines): this is no run: {row}")
    twice = runs.index[runs.duplicated(["data_set", "net", "sparsity", "seed"])]
    if len(twice):
        row = runs.loc[twice[0], ["data_set", "net", "sparsity", "seed"]].to_dict()
        raise StudyError(
            f"{path}, line {twice[0] + 2} ({len(twice)} such lines): this run is there twice: {row}; name the columns "
            "that tell runs apart with --seed and --sparsity"
        )


@dataclass(frozen=True)
class Elsewhere:
    """Runs of several nets on several data sets, and what follows from them."""

    title: str
    runs: pd.DataFrame
    baseline: str
    """Name of the net that all others are compared with, at its own sparsity."""
    margin: float | None = None
    """Points that a net may cost and still be as good, for what it saves; None: that is not asked."""

    def __post_init__(self) -> None:
        found = self.runs.loc[self.runs["net"] == self.baseline, "sparsity"].unique()
        if len(found) != 1:
            nets = ", ".join(self.runs["net"].unique())
            why = f"is there with {len(found)} sparsities" if len(found) else f"is none of the nets: {nets}"
            raise StudyError(f"the baseline {self.baseline!r} {why}; give one with --baseline")
        lacking = {*self.runs["data_set"]} - {*self.runs.loc[self.runs["net"] == self.baseline, "data_set"]}
        if lacking:
            raise StudyError(f"the baseline {self.baseline!r} was not run on {', '.join(sorted(lacking))}")

    @cached_property
    def arms(self) -> pd.DataFrame:
        """Each net on each data set: ``mean`` and ``variance`` of its accuracy, ``runs``, whether ``is_baseline``."""
        keys = ["data_set", "sparsity", "net"]
        arms = self.runs.groupby(keys, sort=True)["accuracy"].agg(["mean", "var", "count"])
        table = pd.DataFrame(arms).reset_index().rename(columns={"var": "variance", "count": "runs"})
        table["is_baseline"] = table["net"] == self.baseline
        return table

    @cached_property
    def variances(self) -> Variances:
        """What the comparisons are decided by."""
        arms = self.arms
        return moderated_variances(arms["variance"].fillna(0.0), arms["runs"], arms["data_set"])

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Each net against the baseline of its data set, in points, with both kinds of variance.

        ``difference``, ``low`` and ``high`` (95 %), ``p`` and ``p_holm``, with a margin ``p_margin_holm`` that no more
        than that is lost, and ``verdict``, one of :data:`VERDICTS`; with ``welch_`` before them, by each arm's own
        variance. Nothing is known of arms with a single run, nor of two arms whose runs are all alike.
        """
        arms = self.arms
        base = {name: place for place, name in arms.loc[arms["is_baseline"], "data_set"].items()}
        rows = arms.loc[~arms["is_baseline"], ["data_set", "net", "sparsity", "runs", "mean"]]
        compared, baselines = rows.index.to_numpy(), np.array([base[name] for name in rows["data_set"]])
        rows = rows.reset_index(drop=True)
        means = arms["mean"].to_numpy()
        rows["difference"] = means[compared] - means[baselines]
        own = own_variances(arms["variance"], arms["runs"])
        decided = [self._decided(variances, compared, baselines) for variances in (self.variances, own)]
        return pd.concat([rows, decided[0], decided[1].add_prefix("welch_")], axis=1)

    def _decided(
        self, variances: Variances, compared: npt.NDArray[np.int64], baselines: npt.NDArray[np.int64]
    ) -> pd.DataFrame:
        """Intervals, p and verdicts of the comparisons by one kind of variance."""
        means = self.arms["mean"].to_numpy()
        difference = means[compared] - means[baselines]
        with np.errstate(divide="ignore", invalid="ignore"):
            p, error, freedom = variances.unpaired(means, compared, baselines)
            asked = [p]
            if self.margin is not None:
                # Of the two one-sided tests (Schuirmann 1987), the one that a pruned net has to pass.
                asked.append(stats.t.sf((difference + self.margin) / error, freedom))
        several = (variances.runs[compared] > 1) & (variances.runs[baselines] > 1)
        known = np.isfinite(p) & (error > 0) & several
        # One family: a net that is claimed to differ and one that is claimed not to are claims alike.
        adjusted = np.full((len(asked), len(p)), np.nan)
        adjusted[:, known] = holm(np.concatenate([own_p[known] for own_p in asked])).reshape(len(asked), -1)
        half = np.where(known, stats.t.ppf(0.975, freedom) * error, np.nan)
        found = pd.DataFrame({"low": difference - half, "high": difference + half, "p": np.where(known, p, np.nan)})
        found["p_holm"] = adjusted[0]
        within = np.zeros(len(p), dtype=bool)
        if self.margin is not None:
            found["p_margin_holm"] = adjusted[1]
            within = adjusted[1] < ALPHA
        found["verdict"] = _verdicts(difference, adjusted[0] < ALPHA, within)
        return found

    @cached_property
    def nets(self) -> pd.DataFrame:
        """Each net over all data sets: mean accuracy, its difference, and the relative increase of test error in %."""
        arms = self.arms
        base = arms[arms["is_baseline"]].set_index("data_set")["mean"]
        against = arms["data_set"].map(base)
        # Of a baseline without an error there is no relative increase.
        error = (100 - against).replace(0.0, np.nan)
        arms = arms.assign(difference=arms["mean"] - against, error_increase=100 * (against - arms["mean"]) / error)
        found = arms.groupby(["sparsity", "net"], sort=True).agg(
            mean=("mean", "mean"),
            difference=("difference", "mean"),
            error_increase=("error_increase", "mean"),
            data_sets=("data_set", "nunique"),
        )
        found = found.reset_index()
        return pd.concat(
            [found[found["net"] == self.baseline], found[found["net"] != self.baseline]], ignore_index=True
        )

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Mean rank over the data sets (1 is the best) of the nets of each sparsity and the baseline.

        Next to it the p of Friedman's test that they are alike (Demsar 2006), if there are three nets or more.
        """
        made = []
        for sparsity in sorted({*self.arms.loc[~self.arms["is_baseline"], "sparsity"]}):
            chosen = self.arms[(self.arms["sparsity"] == sparsity) | self.arms["is_baseline"]]
            accuracy = chosen.pivot_table(index="data_set", columns="net", values="mean").dropna(axis=1)
            if accuracy.shape[1] < 2:
                continue
            enough = accuracy.shape[1] > 2 and len(accuracy) > 1
            p = stats.friedmanchisquare(*accuracy.to_numpy().T).pvalue if enough else np.nan
            mean = accuracy.rank(axis=1, ascending=False).mean()
            made.append(
                pd.DataFrame({"sparsity": sparsity, "net": mean.index, "rank": mean.to_numpy(), "friedman_p": p})
            )
        return pd.concat(made, ignore_index=True) if made else pd.DataFrame()

    def findings(self) -> list[str]:
        """What the runs show, in sentences."""
        rows = self.comparisons
        what = f"{len(rows)} comparisons with {self.baseline} on {self._places()}"
        lines = [self._counted(rows["verdict"], what)]
        if self.variances.moderated.any():
            lines.append(self._counted(rows["welch_verdict"], "With each arm's own variance (Welch's t test)"))
        single = int((self.arms["runs"] < 2).sum())
        if single:
            lines.append(f"{single} of {len(self.arms)} arms have a single run, which shows nothing.")
        lines.append(self.variances.reason)
        claims = f"all {len(rows)} comparisons"
        if self.margin is not None:
            claims += f", each with two claims: that there is a difference, and that it costs less than {self.points}"
        lines.append(
            f"Shown means: p below {ALPHA} in the t test, corrected (Holm) for {claims}. Open does not mean that there "
            "is no difference."
        )
        return lines

    def _counted(self, verdicts: pd.Series, what: str) -> str:
        numbers = {name: int((verdicts == name).sum()) for name in VERDICTS}
        losses = numbers["loss"] + numbers["small loss"]
        text = f"{what}: {losses} losses and {numbers['gain']} gains are shown"
        if self.margin is not None:
            small = f"{numbers['small loss']} of the losses and {numbers['costs less']} other nets"
            text += f"; {small} are shown to cost less than {self.points}"
        return f"{text}; {numbers['open']} are open."

    @property
    def points(self) -> str:
        """The margin as text."""
        return f"{self.margin:g} point{'' if self.margin == 1 else 's'}"

    def _places(self) -> str:
        count = self.runs["data_set"].nunique()
        return f"{count} data set{'s' if count > 1 else ''}"


def _verdicts(difference: FloatArray, differs: npt.NDArray[np.bool_], within: npt.NDArray[np.bool_]) -> list[str]:
    return [
        ("gain" if points > 0 else "small loss" if less else "loss") if shown else "costs less" if less else "open"
        for points, shown, less in zip(difference, differs, within, strict=True)
    ]


def sparsity_text(sparsity: float) -> str:
    """A sparsity as text."""
    return f"{100 * sparsity:g} %"

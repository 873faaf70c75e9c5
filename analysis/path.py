"""The ablation path of a search: what each step from the study's own settings to the best ones gains on test images."""

from dataclasses import dataclass

import pandas as pd

from analysis.loading import Results
from analysis.nets import Net, outcomes
from analysis.statistics.intervals import Interval, paired_difference
from analysis.tables.table import interval_columns, points_text
from study.names import PATH


@dataclass(frozen=True)
class Step:
    """A stop of the path; the first is the study's own settings, which gain nothing."""

    number: int
    change: str
    """The setting that is changed and its new value."""
    before: str | None
    """Its value before."""
    val_accuracy: float | None
    """Mean over the search's seeds, %: what the step was chosen by."""
    others: int
    """How many other changes were tried and gained less."""
    net: Net
    gain: Interval | None
    """Of test accuracy over the step before, paired by seed, in points."""
    total: Interval | None
    """The same over the study's own settings."""


def steps(results: Results) -> list[Step]:
    """The stops of the path in their order; none if the search was not asked to explain what it found."""
    cells = outcomes(results)
    cells = cells[cells["ablation"] == PATH]
    if results.ablation_path is None or results.trials is None or cells.empty:
        return []
    found: list[Step] = []
    for number, group in cells.groupby("point_index", sort=True):
        change = str(group["point"].iloc[0])
        net = Net(str(group["net"].iloc[0]), change, group)
        tried = results.ablation_path[results.ablation_path["step"] == number]
        before = tried.loc[tried["chosen"], "before"].tolist()
        judged = results.trials[results.trials["origin"] == "own"] if not found else tried[tried["chosen"]]
        validated = judged["val_accuracy"].dropna().tolist()
        found.append(
            Step(
                len(found),
                change,
                before[0] if before else None,
                validated[0] if validated else None,
                max(0, len(tried) - 1),
                net,
                paired_difference(net.accuracy, found[-1].net.accuracy) if found else None,
                paired_difference(net.accuracy, found[0].net.accuracy) if found else None,
            )
        )
    return found


def sentence(results: Results) -> list[str]:
    """What the path shows, in one sentence."""
    made = steps(results)
    if len(made) < 2:
        return []
    gains = [(step, step.gain) for step in made[1:] if step.gain is not None]
    shown = [step.change for step, gain in gains if gain.excludes_zero]
    texts = [f"{step.change} {points_text(gain)}" for step, gain in gains]
    said = f"Ablation path, gains on the test set in points: {'; '.join(texts)}."
    if not shown:
        return [f"{said} No single step shows a difference."]
    return [f"{said} By its own interval, a difference is shown by {' and '.join(shown)}."]


def path_data(made: list[Step]) -> pd.DataFrame:
    """What the table and the figure show, a row a stop."""
    return pd.DataFrame(
        {
            "step": step.number,
            "change": step.change,
            "before": step.before,
            "net": step.net.name,
            "val_accuracy": step.val_accuracy,
            "others_tried": step.others,
            **interval_columns("gain_", step.gain),
            **interval_columns("total_", step.total),
        }
        for step in made
    )

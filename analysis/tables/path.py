"""The table of a search's ablation path."""

from analysis.loading import Results
from analysis.path import Step, path_data, steps
from analysis.statistics.intervals import over_seeds
from analysis.tables.accuracy import PAIRED
from analysis.tables.table import NOTHING, Header, Table, interval_text, percent, points_text, problem_notes


def path_table(results: Results) -> Table | None:
    """A row a stop of the path; None if the search has none."""
    made = steps(results)
    if len(made) < 2:
        return None
    headers = [Header(name) for name in ("step", "change", "before", "net", "validation ACC %", "ACC %")]
    headers += [Header("gain of the step"), Header("gain so far")]
    notes = [
        "Of the settings in which the study's own and the best trial's differ, each step changes the one that gains "
        "most on validation images at the search's seeds (Fawcett and Hoos 2016); what else was tried is in "
        "ablation_path.parquet. A setting may gain something only after another is changed.",
        f"ACC % and gains are of test images, at the final seeds. {PAIRED}",
        *problem_notes([step.net for step in made], results.seeds),
    ]
    title = f"From this study's settings to the best trial's, one change a step, on {results.facts.target.title}"
    rows = [_row(step) for step in made]
    return Table("search_path", title, headers, rows, notes, path_data(made), [[step.net] for step in made])


def _row(step: Step) -> list[str]:
    return [
        str(step.number),
        step.change,
        step.before if step.before is not None else NOTHING,
        step.net.name,
        percent(step.val_accuracy) if step.val_accuracy is not None else NOTHING,
        interval_text(over_seeds(step.net.accuracy)),
        *(points_text(interval) if interval is not None else NOTHING for interval in (step.gain, step.total)),
    ]

"""What a study cost, and what it saved by training every shared stage once."""

import pandas as pd

from analysis.loading import Results
from analysis.tables.table import Header, Table

HOUR = 3600.0


def costs(results: Results, cells: pd.DataFrame) -> Table | None:
    """Hours by kind of stage, and the hours that each net's path would have taken from scratch.

    Unlike other tables it covers all the study's cells, whichever of them it receives.
    """
    spent, alone = stage_hours(results), _alone(results.cells)
    if spent.empty:
        return None
    spent = spent.assign(uses=spent["stage"].map(alone).fillna(0).astype(int))
    # A stage that no cell needs (any more) was trained all the same.
    spent["scratch"] = (spent["cpu"] + spent["gpu"]) * spent["uses"].clip(lower=1)
    data = (
        spent.groupby("kind", sort=False)
        .agg(
            stages=("stage", "size"),
            done=("done", "sum"),
            cpu_hours=("cpu", "sum"),
            gpu_hours=("gpu", "sum"),
            uses=("uses", "sum"),
            hours_unshared=("scratch", "sum"),
        )
        .reset_index()
    )
    total = {"kind": "all", **data.drop(columns="kind").sum().to_dict()}
    data = pd.concat([data, pd.DataFrame([total])], ignore_index=True)
    data["hours_saved"] = data["hours_unshared"] - data["cpu_hours"] - data["gpu_hours"]
    names = ("kind of stage", "stages", "done", "CPU hours", "GPU hours", "uses by nets", "hours unshared", "saved")
    rows = [
        [
            *(str(row["kind"]), f"{int(row['stages']):,}", f"{int(row['done']):,}"),
            *(_hours(row["cpu_hours"]), _hours(row["gpu_hours"]), f"{int(row['uses']):,}"),
            *(_hours(row["hours_unshared"]), _hours(row["hours_saved"])),
        ]
        for row in data.to_dict("records")
    ]
    notes = [
        "Hours: wall time of a stage's last attempt times its worker processes; CPU or GPU by the device it ran on. "
        "Threads, and stages that share a GPU, are not counted. Uses: nets whose path has the stage; unshared: what "
        "training each net from scratch would have taken.",
    ]
    return Table(
        "costs", "What the study cost, and what sharing stages saved", [*map(Header, names)], rows, notes, data
    )


def stage_hours(results: Results) -> pd.DataFrame:
    """Each stage with its kind, whether it is done, and its hours on CPUs and GPUs."""
    stages = results.stages
    hours = stages["seconds"].fillna(0.0) * stages["workers"].fillna(0).clip(lower=1) / HOUR
    on_cpu = stages["device"].fillna("cpu") == "cpu"
    frame = stages[["stage", "kind"]].assign(done=stages["status"] == "done")
    return frame.assign(cpu=hours.where(on_cpu, 0.0), gpu=hours.where(~on_cpu, 0.0))


def _alone(cells: pd.DataFrame) -> "pd.Series[int]":
    """In how many nets' paths each stage is; nets of one stage and seed are one net, whatever table asks for it."""
    return cells.drop_duplicates("measured")["path"].explode().value_counts()


def _hours(value: float) -> str:
    return f"{value:,.2f}" if value >= 0.1 or value == 0 else f"{value:.4f}"

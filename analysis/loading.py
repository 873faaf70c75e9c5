"""Reading a study folder: ``study.json`` and one Parquet file a table, checked against the schema."""

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowException

from analysis.published import FUSED, PUBLISHED, Column
from analysis.statistics.sequential import SequentialDesign
from study import schema
from study.files import Folder, StorageError

STUDY_KEYS = (
    *("name", "title", "source", "target", "network", "seeds", "published", "same_data", "tau"),
    *("streams", "fusion", "evaluation"),
)
REMEDY = "give the folder of a study, e.g. results/studies/digits, which `python -m study.ablation` writes"


class StudyError(Exception):
    """A study that can't be reported; the message is for the user and names the path and the remedy."""


@dataclass(frozen=True)
class Results:
    """A study's tables as DataFrames, in the columns of ``study.schema``, and its description.

    Only a hyperparameter search has ``trials`` and ``importance``.
    """

    folder: Folder
    study: dict[str, Any]
    cells: pd.DataFrame
    stages: pd.DataFrame
    epochs: pd.DataFrame
    layers: pd.DataFrame
    knowledge: pd.DataFrame
    confusion: pd.DataFrame
    trials: pd.DataFrame | None = None
    importance: pd.DataFrame | None = None

    @property
    def seeds(self) -> list[int]:
        """The study's seeds in its own order, then any other seed that a cell has."""
        asked = list(self.study["seeds"])
        return asked + sorted(set(self.cells["seed"].tolist()) - set(asked))

    @property
    def streams(self) -> list[str]:
        """The study's streams in its own order, then the fused scores, then any other that a cell has; often none."""
        asked = [*self.study["streams"], FUSED] if self.study["streams"] else []
        return list(dict.fromkeys([*asked, *self.cells["stream"].dropna()]))

    @property
    def sequential(self) -> SequentialDesign | None:
        """How seeds were added until the main comparisons were settled; None where their number was fixed."""
        design = self.study.get("sequential")
        return design and SequentialDesign(**design)

    @property
    def control_study(self) -> bool:
        """Whether the study's effects are known beforehand, so that its report says whether it sees them."""
        # Studies of an earlier version do not say.
        return bool(self.study.get("control_study", False))

    @property
    def retrained(self) -> bool:
        """Whether the nets were trained on the validation images too, so that nothing may be chosen by them."""
        # Studies of an earlier version do not say: they could not.
        return bool(self.study.get("retrained_on_validation", False))

    @property
    def published(self) -> Column:
        """The paper's values to print beside the study's: empty tables where there are none."""
        return PUBLISHED.get(self.study["published"] or "", Column())

    @property
    def evaluation(self) -> str:
        """How test images were shown to the nets, in brackets to follow a phrase."""
        return f" ({self.study['evaluation']})" if self.study["evaluation"] else ""


def load(path: str | Path) -> Results:
    """Read a study's folder, by its path or URI.

    Raises:
        StudyError: the folder or a file is not there, is not readable, or nothing in it has been run.
    """
    try:
        return _load(Folder(str(path)))
    except StorageError as error:
        raise StudyError(f"{error}: {REMEDY}") from error


def _load(folder: Folder) -> Results:
    if not folder.exists():
        raise StudyError(f"{folder.at()} does not exist, or is no folder: {REMEDY}")
    study = _study(folder)
    names = [*schema.TABLES, *(name for name in schema.SEARCH_TABLES if folder.has(f"{name}.parquet"))]
    results = Results(folder, study, **{name: _table(folder, name) for name in names})
    if not results.stages["stage"].is_unique:
        raise StudyError(f"{folder.at('stages.parquet')} has two rows for one stage: write the study's results again")
    if not results.stages["status"].isin(["done", "failed"]).any():
        raise StudyError(f"{folder.at()} has nothing done yet: run the study first, with the same command that made it")
    return results


def _study(folder: Folder) -> dict[str, Any]:
    path, content = folder.at("study.json"), folder.read("study.json")
    if content is None:
        raise StudyError(f"{folder.at()} is no study, it has no study.json: {REMEDY}")
    try:
        study = json.loads(content)
    except ValueError as error:
        raise StudyError(f"{path} can't be read ({error}): run the study's command again to write it anew") from error
    if not isinstance(study, dict) or (lacking := [key for key in STUDY_KEYS if key not in study]):
        detail = f"lacks {', '.join(lacking)}" if isinstance(study, dict) else "is no JSON object"
        raise StudyError(f"{path} {detail}: run the study's command again to write it anew")
    if study["published"] is not None and study["published"] not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        raise StudyError(f"{path}: no published values called {study['published']!r}, choose {known} or null")
    return study


def _table(folder: Folder, name: str) -> pd.DataFrame:
    path, content = folder.at(f"{name}.parquet"), folder.read(f"{name}.parquet")
    if content is None:
        raise StudyError(f"{path} is not there: run the study's command again, it writes the tables at its end")
    try:
        rows = pq.read_table(BytesIO(content))
    except (OSError, ValueError, ArrowException) as error:
        raise StudyError(f"{path} can't be read ({error}): run the study's command again to write it anew") from error
    try:
        return frame(name, rows)
    except (ValueError, ArrowException) as error:
        raise StudyError(f"{path} {error}: another version wrote it, run the study's command again") from error


def frame(name: str, rows: pa.Table) -> pd.DataFrame:
    """A stored table in the columns of its schema; what an earlier version did not write is null or made up for.

    Raises:
        ValueError: a column is lacking that may not be null, or has another type.
    """
    found: pd.DataFrame = schema.completed(name, rows).to_pandas()
    if name == "cells":
        # In studies of an earlier version, each net was measured by the stage that gave it.
        found["measured"] = found["measured"].fillna(found["stage"])
    return found

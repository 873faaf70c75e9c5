"""Reading a study folder: ``study.json`` and one Parquet file a table, checked against the schema."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowException
from pydantic import BaseModel, ValidationError

from analysis.published import FUSED, PUBLISHED, Column
from study import schema
from study.facts import StudyFacts, TargetsFacts
from study.files import Folder, StorageError
from study.generations import RECORD, ChangedError, read_generation, sha256

REMEDY = "give the folder of a study, e.g. results/studies/digits, which `python -m study.ablation` writes"

CONTENT = "content"


class StudyError(Exception):
    """A study that can't be reported; the message is for the user and names the path and the remedy."""


Value = TypeVar("Value")


@dataclass(frozen=True)
class Results:
    """A study's tables as DataFrames, in the columns of ``study.schema``, and its description.

    Only a hyperparameter search has ``trials``, ``importance`` and, if asked for, ``ablation_path``, and only a study
    with tuned nets ``tuning``.
    """

    folder: Folder
    facts: StudyFacts
    cells: pd.DataFrame
    stages: pd.DataFrame
    epochs: pd.DataFrame
    layers: pd.DataFrame
    knowledge: pd.DataFrame
    confusion: pd.DataFrame
    trials: pd.DataFrame | None = None
    importance: pd.DataFrame | None = None
    ablation_path: pd.DataFrame | None = None
    tuning: pd.DataFrame | None = None
    memo: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What :meth:`kept` keeps."""

    def kept(self, key: object, compute: Callable[[], Value]) -> Value:
        """The value under a key, computed when it is first asked for, and not to be changed."""
        if key not in self.memo:
            self.memo[key] = compute()
        value: Value = self.memo[key]
        return value

    @property
    def content(self) -> str | None:
        """Checksum of the files that the tables were read from; None if they are others."""
        return self.memo.get(CONTENT)

    @property
    def seeds(self) -> list[int]:
        """The study's seeds in its own order, then any other seed that a cell has."""
        asked = self.facts.seeds
        return asked + sorted(set(self.cells["seed"].tolist()) - set(asked))

    @property
    def streams(self) -> list[str]:
        """The study's streams in its own order, then the fused scores, then any other that a cell has; often none."""
        asked = [*self.facts.streams, FUSED] if self.facts.streams else []
        return list(dict.fromkeys([*asked, *self.cells["stream"].dropna()]))

    @property
    def published(self) -> Column:
        """The paper's values to print next to the study's: empty tables if there are none."""
        return PUBLISHED.get(self.facts.published or "", Column())

    @property
    def evaluation(self) -> str:
        """How test images were shown to the nets, in brackets to follow a phrase."""
        return f" ({self.facts.evaluation})" if self.facts.evaluation else ""


Facts = TypeVar("Facts", bound=BaseModel)


def once(function: Callable[[Results], Value]) -> Callable[[Results], Value]:
    """Decorator of what tables, figures and findings all ask of a study: it is computed once, and not to be changed."""

    @wraps(function)
    def kept(results: Results) -> Value:
        return results.kept(function, lambda: function(results))

    return kept


def load(path: str | Path) -> Results:
    """Read a study's folder, by its path or URI.

    Raises:
        StudyError: the folder or a file is not there, is not readable, or nothing in it has been run.
    """
    with readable():
        return load_folder(Folder(str(path)))


@contextmanager
def readable() -> Iterator[None]:
    """Report a storage that cannot be read as a study that cannot be reported."""
    try:
        yield
    except ChangedError as error:
        raise StudyError(str(error)) from error
    except StorageError as error:
        raise StudyError(f"{error}: {REMEDY}") from error


def load_folder(folder: Folder) -> Results:
    """Read a study's folder; raises a :class:`StorageError`, too."""
    if not folder.exists():
        raise StudyError(f"{folder.at()} does not exist, or is no folder: {REMEDY}")
    names = [*schema.TABLES, *schema.SEARCH_TABLES, *schema.TUNED_TABLES]
    files = read_generation(folder, [f"{name}.parquet" for name in names])
    facts = facts_of(folder, files, StudyFacts)
    there = [name for name in names if name in schema.TABLES or f"{name}.parquet" in files]
    results = Results(folder, facts, **{name: _table(folder, name, files) for name in there})
    results.kept(CONTENT, lambda: _checksum(files))
    if not results.stages["stage"].is_unique:
        raise StudyError(f"{folder.at('stages.parquet')} has two rows for one stage: write the study's results again")
    if not results.stages["status"].isin(["done", "failed"]).any():
        raise StudyError(f"{folder.at()} has nothing done yet: run the study first, with the same command that made it")
    return results


def _checksum(files: Mapping[str, bytes]) -> str:
    return sha256(repr(sorted((name, sha256(content)) for name, content in files.items())).encode())


def facts_of(folder: Folder, files: Mapping[str, bytes], model: type[Facts]) -> Facts:
    """The record as a model.

    Raises:
        StudyError: there is no record, or it is another model's.
    """
    if RECORD not in files:
        raise StudyError(f"{folder.at()} is no study, it has no {RECORD}: {REMEDY}")
    try:
        return model.model_validate_json(files[RECORD])
    except ValidationError as error:
        if model is StudyFacts and (targets := _targets(files[RECORD])):
            one = folder.at(targets[0])
            raise StudyError(f"{folder.at()} is a study on several targets: give the folder of one, {one}") from None
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in error.errors())
        said = f"{folder.at(RECORD)} can't be read ({problems})"
        raise StudyError(f"{said}: run the study's command again to rewrite it") from None


def _targets(record: bytes) -> list[str]:
    """Names of the targets of a study on several; none of any other."""
    try:
        return [*TargetsFacts.model_validate_json(record).targets]
    except ValidationError:
        return []


def _table(folder: Folder, name: str, files: Mapping[str, bytes]) -> pd.DataFrame:
    path = folder.at(f"{name}.parquet")
    if f"{name}.parquet" not in files:
        raise StudyError(f"{path} is not there: run the study's command again, it writes the tables at its end")
    try:
        rows = pq.read_table(BytesIO(files[f"{name}.parquet"]))
    except (OSError, ValueError, ArrowException) as error:
        raise StudyError(f"{path} can't be read ({error}): run the study's command again to rewrite it") from error
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
        # In studies of an earlier version, each net was measured by the stage that made it.
        found["measured"] = found["measured"].fillna(found["stage"])
    return found

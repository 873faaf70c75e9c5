"""The database of a search: opened only if it is whole; what it holds is used only if it is unchanged."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from study.files import PATIENCE_SECONDS, StorageError
from study.generations import checksum
from study.tune.configurations import SEAL, seal

FILE = "optuna.db"
REMEDY = (
    "move it away and run the command again: the search starts again, and stages that are stored are not trained again"
)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within, what goes wrong is the database's fault.

    Raises:
        StorageError: it is damaged, locked, or of another version of Optuna.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # SQLite's, SQLAlchemy's, Alembic's and Optuna's
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise StorageError(
            f"the search's database {path} cannot be read ({lines[0]})\n"
            f"  if another program has locked it, end that one; else {REMEDY}"
        ) from error


def open_database(path: Path) -> optuna.storages.RDBStorage:
    """Open or make the database, within :func:`readable`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _require_whole(path)
    # In a URL, question marks and per cent signs of the path would have a meaning: it only names the kind.
    connect = partial(sqlite3.connect, path, timeout=PATIENCE_SECONDS, check_same_thread=False)
    return optuna.storages.RDBStorage(f"sqlite:///{FILE}", engine_kwargs={"creator": connect})


def name_within(database: optuna.storages.RDBStorage, folder: str) -> str:
    """The name of the search in a database: its folder's, unless that was renamed or copied with all that is in it."""
    names = optuna.get_all_study_names(database)
    return folder if folder in names or not names else names[0]


def keep(study: optuna.Study, name: str, facts: Any) -> None:
    """Store facts of the whole search, which JSON can have, behind a seal."""
    # The seal first: facts that a kill left without one would never be doubted.
    study.set_user_attr(f"{name}_{SEAL}", checksum(facts))
    study.set_user_attr(name, facts)


def require_unchanged(study: optuna.Study, path: Path) -> None:
    """Make sure that each ended trial is as it ended, and that what :func:`keep` stored is as it was.

    Raises:
        StorageError: one is not.
    """
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    for trial in ended:
        if trial.user_attrs.get(SEAL) not in (None, seal(trial, trial.state, trial.values)):
            raise StorageError(
                f"{path} is damaged or was changed: trial {trial.number} is not what it was when it ended\n  {REMEDY}"
            )
    facts = study.user_attrs
    for name in facts:
        if facts.get(f"{name}_{SEAL}") not in (None, checksum(facts[name])):
            raise StorageError(f"{path} is damaged or was changed: its {name} are not what was stored\n  {REMEDY}")


def _require_whole(path: Path) -> None:
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as database:
        (said,) = database.execute("PRAGMA integrity_check").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(said)

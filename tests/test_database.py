"""A search's database: a flipped bit is found or changes nothing, and no path is a problem."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from study import SearchSettings, load_config, run_search
from study.files import StorageError
from study.run.database import FILE, keep, open_database, readable, require_unchanged
from study.tune.configurations import ACCURACY, PRUNED, TrialBook

FLIPS = 200
NAME = "search"


def space(trial: optuna.Trial) -> None:
    trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)
    trial.suggest_categorical("scope", ["layer", "global"])
    trial.suggest_int("n_m", 1, 4)


def book(path: Path) -> TrialBook:
    return TrialBook(space, open_database(path), NAME, sampler_name="random", seed=0, against=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of trials that are complete, stopped early, failed and open, in a folder with an unusual name."""
    path = tmp_path / "what? 100 %20" / FILE
    made = book(path)
    for number in range(6):
        trial = made.ask()
        trial.set_user_attr("stages", [f"stage {number}"])
        made.report(trial, 1, 50.0 + number)
        if number < 3:
            trial.set_user_attr(ACCURACY, [80.0 + number / 3])
            made.tell(trial, {ACCURACY: 80.0 + number / 3, PRUNED: 50.0})
        elif number < 5:
            made.tell(trial, None, failed=number == 4)
    keep(made.study, "latencies", [{"latency_ms": 1.5}, {"latency_ms": 0.5}])
    return path


def read(path: Path) -> list[Any]:
    """What later runs take from the trials that have ended."""
    with readable(path):
        study = book(path).study
        require_unchanged(study, path)
    ended = [trial for trial in study.get_trials() if trial.state.is_finished()]
    trials = [(one.number, one.state, one.params, one.values, one.user_attrs["stages"]) for one in ended]
    return [*trials, study.user_attrs.get("latencies")]


def test_what_was_stored_is_read(path: Path) -> None:
    *trials, latencies = read(path)
    assert [number for number, *_ in trials] == [0, 1, 2, 3, 4] and len(latencies) == 2
    assert path.is_file() and [file.name for file in path.parent.iterdir()] == [FILE]


def test_a_flipped_bit_is_found_or_changes_nothing(path: Path) -> None:
    content, right, draw = path.read_bytes(), read(path), random.Random(0)
    used = [place for place, byte in enumerate(content) if byte]
    refused = 0
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[draw.choice(used)] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            assert read(path) == right
        except StorageError as error:
            refused += 1
            assert str(path) in str(error) and "move it away and run the command again" in str(error)
    assert refused > FLIPS / 4


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_values SET value = value + 1 WHERE trial_value_id = 2",
        "UPDATE trial_params SET param_value = param_value / 2 WHERE param_id = 4",
        "UPDATE trial_user_attributes SET value_json = '[\"another\"]' WHERE value_json LIKE '%stage 1%'",
        "UPDATE trials SET state = 'FAIL' WHERE number = 1",
        "UPDATE trial_intermediate_values SET intermediate_value = 0 WHERE trial_intermediate_value_id = 2",
    ],
)
def test_a_trial_that_was_changed_is_not_believed(change: str, path: Path) -> None:
    with sqlite3.connect(path) as database:
        assert database.execute(change).rowcount == 1
    with pytest.raises(StorageError, match="trial 1 is not what it was when it ended"):
        read(path)


def test_measured_latencies_that_were_changed_are_not_believed(path: Path) -> None:
    with sqlite3.connect(path) as database:
        change = "UPDATE study_user_attributes SET value_json = replace(value_json, '0.5', '0.4')"
        assert database.execute(f"{change} WHERE key = 'latencies'").rowcount == 1
    with pytest.raises(StorageError, match="its latencies are not what was stored"):
        read(path)


def test_a_trial_of_an_earlier_version_has_no_seal(path: Path) -> None:
    right = read(path)
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM trial_user_attributes WHERE key = 'seal'")
    assert read(path) == right


def test_a_search_says_so_before_it_trains(preset: Path, tmp_path: Path) -> None:
    path = tmp_path / "studies" / NAME / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"SQLite format 3\0, or not")
    with pytest.raises(StorageError, match=r"the search's database .* cannot be read"):
        run_search(load_config(str(preset)), NAME, SearchSettings(trials=1), storage=tmp_path, slots=0, progress=False)
    assert not (tmp_path / "stages").exists()


def test_a_locked_database_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.run.database.PATIENCE_SECONDS", 0.1)
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match=r"(?s)is locked.*end that one"):
            read(path)
        database.execute("ROLLBACK")
    read(path)

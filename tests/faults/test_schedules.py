"""A hundred random schedules of faults, and defects that the checker must find.

``make faults`` runs a thousand.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from study.storage import StageCheckpoint, Storage
from tests.faults.checker import Checker
from tests.faults.faults import Schedule, draw, shortest
from trainables.sessions import Session

pytestmark = pytest.mark.slow

SCHEDULES = 100
"""Of the seeds that follow those of ``make faults``."""
FIRST = 1_000_000


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    with pytest.MonkeyPatch.context() as patch:
        yield Checker(tmp_path_factory.mktemp("faults"), patch.setattr)


def test_no_row_is_wrong_and_nothing_is_lost(checker: Checker) -> None:
    faults = 0
    for seed in range(FIRST, FIRST + SCHEDULES):
        verdict = checker.run(draw(seed))
        faults += verdict.faults.total()
        assert verdict.wrong is None, f"seed {seed}: {verdict.wrong}\n{draw(seed)}"
    assert faults > SCHEDULES


def any_file(self: Storage, key: str, name: str, manifest: Any = None) -> bytes:
    folder = (manifest or self.manifest(key))["folder"]
    return self.folder.read(f"stages/{key}/{folder}/{name}") or b""


def from_the_start(self: Session) -> None:
    return None


def unchecked(self: StageCheckpoint) -> bytes | None:
    return (self._folder.read(self._name) or b"")[32:] or None


@pytest.mark.parametrize(
    ("owner", "name", "defect", "kind"),
    [
        (Storage, "_file", any_file, "flip"),
        (Session, "resume", from_the_start, "kill"),
        (StageCheckpoint, "read", unchecked, "power"),
    ],
)
def test_a_planted_defect_is_found(
    checker: Checker, owner: Any, name: str, defect: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, defect)
    # Mostly the first ten find it; not each time the same, as a flipped bit may be one of a name or of a time.
    disturbed = (schedule for schedule in map(draw, itertools.count()) if schedule.kinds() == {kind})
    assert any(map(checker.fails, itertools.islice(disturbed, SCHEDULES)))


def test_the_shortest_schedule_that_fails() -> None:
    """Of one that fails by a flip before a kill of a later driver, these two are left."""

    def fails(schedule: Schedule) -> bool:
        kinds = [{fault.kind for fault in faults} for faults in schedule.drivers]
        flips = [number for number, found in enumerate(kinds) if "flip" in found]
        return any("kill" in found for number in flips for found in kinds[number + 1 :])

    schedules = [schedule for schedule in map(draw, range(1000)) if fails(schedule)]
    assert len(schedules) > 20
    for schedule in schedules:
        short = shortest(schedule, fails)
        assert fails(short) and [len(faults) for faults in short.drivers] == [1, 1]

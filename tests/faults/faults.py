"""Schedules of faults, drawn from a seed, and the shortest one that still fails."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["kill", "power", "full", "flaky", "second", "late", "clock", "flip"]

DISK_ONLY = frozenset({"power", "full"})
"""Faults that an object store does not have."""
STORE_ONLY = frozenset({"late"})
"""Faults that a disk does not have."""
CHANGES = 156
"""Changes of the storage that the small study makes, of which a fault hits one."""
CHANGES_AGAIN = 30
"""The same of a driver that finds all stages stored."""
CLAIM = 6
"""Changes in which a driver claims the study."""


@dataclass(frozen=True)
class Fault:
    """What happens to one driver.

    ========  =======================================================================================
    kill      SIGKILL before, in the middle of, or after a change of the storage
    power     the same, and the last ``span`` files written are cut, zeroed, gone or as they were before
    full      ``span`` writes find no room, too large a file, or a disk that has become read-only
    flaky     one in ten of ``span`` requests fails, as with a server's 5xx or a lost connection
    second    another driver runs from its start to its end between two changes of this one
    late      a write is applied, reported as failed, and applied once more ``span`` changes later
    clock     from a change on, the storage's clock is an hour ahead or behind
    flip      when the driver has ended, a bit of some file of the storage is turned
    ========  =======================================================================================
    """

    kind: Kind
    at: int
    """Which change of the storage, counted from the driver's start; without meaning for ``flip``."""
    span: int = 1
    where: float = 0.0
    """In [0, 1): which of several places, files, ways."""

    def __str__(self) -> str:
        return f"{self.kind} at change {self.at} (span {self.span}, {self.where:.3f})"


@dataclass(frozen=True)
class Schedule:
    """What each driver meets, and what the storage is on. After these drivers comes one that nothing happens to."""

    drivers: tuple[tuple[Fault, ...], ...]
    in_object_store: bool = False

    def __str__(self) -> str:
        place = "an object store" if self.in_object_store else "a disk"
        lines = [f"on {place}"]
        for number, faults in enumerate(self.drivers):
            lines.append(f"  driver {number}: " + ("; ".join(map(str, faults)) or "no fault"))
        return "\n".join(lines)

    def kinds(self) -> set[str]:
        """The kinds of its faults."""
        return {fault.kind for faults in self.drivers for fault in faults}

    def shorter(self) -> list["Schedule"]:
        """This schedule without one of its drivers, or without one fault of a driver."""
        found = []
        for place, faults in enumerate(self.drivers):
            others = (self.drivers[:place], self.drivers[place + 1 :])
            found.append(Schedule((*others[0], *others[1]), self.in_object_store))
            if len(faults) > 1:
                for left in range(len(faults)):
                    fewer = faults[:left] + faults[left + 1 :]
                    found.append(Schedule((*others[0], fewer, *others[1]), self.in_object_store))
        return found


def draw(seed: int) -> Schedule:
    """The schedule of a seed: one to four drivers with one or two faults each."""
    source = random.Random(seed)
    in_object_store = source.random() < 0.4
    without = DISK_ONLY if in_object_store else STORE_ONLY
    kinds: list[Kind] = [kind for kind in get_args(Kind) if kind not in without]
    drivers = []
    for number in range(source.randint(1, 4)):
        # Who comes later mostly finds little left to do: a fault that is drawn too late does not come true.
        changes = source.choice((CHANGES, CHANGES_AGAIN)) if number else CHANGES
        faults = [_fault(source, kinds, changes) for _ in range(source.randint(1, 2))]
        drivers.append(tuple(sorted(faults, key=lambda fault: fault.at)))
    return Schedule(tuple(drivers), in_object_store)


def _fault(source: random.Random, kinds: list[Kind], changes: int) -> Fault:
    kind = source.choice(kinds)
    if kind == "second" and source.random() < 0.3:
        changes = CLAIM
    return Fault(kind, source.randrange(changes), source.randint(1, 12), source.random())


def shortest(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """A schedule that still fails, and does not without any one of its drivers or faults."""
    while found := next((shorter for shorter in schedule.shorter() if fails(shorter)), None):
        schedule = found
    return schedule

"""Goals and what was measured, side by side."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One promise: ``measured`` must be at least, or at most, ``bound``."""

    what: str
    measured: float
    sign: str
    """``>=`` or ``<=``"""
    bound: float
    tried: str = ""
    """What was tried, where the goal is missed."""

    @property
    def is_met(self) -> bool:
        """Whether the promise holds."""
        return self.measured >= self.bound if self.sign == ">=" else self.measured <= self.bound

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED" + (f": {self.tried}" if self.tried else "")
        return f"{self.what:72} {self.measured:10.4g}   goal {self.sign} {self.bound:<8.4g} {verdict}"


def show(goals: list[Goal]) -> int:
    """Print the goals. Return the exit status: 1 if one is missed."""
    for goal in goals:
        print(goal)
    return 0 if all(goal.is_met for goal in goals) else 1

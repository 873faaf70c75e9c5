"""What a user may have meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, valid: Iterable[str], count: int = 1, before: str = "") -> str:
    """``before`` and a question with the nearest of the valid names, up to ``count``; empty if none is near."""
    near = difflib.get_close_matches(given, sorted(valid), n=count, cutoff=0.5)
    return f"{before}did you mean {' or '.join(map(repr, near))}?" if near else ""


def choices(given: str, valid: Iterable[str]) -> str:
    """The nearest of the valid names, if one is near, and all of them."""
    known = sorted(valid)
    return f"{did_you_mean(given, known)} There is {', '.join(known)}".strip()

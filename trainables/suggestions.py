"""What a user may have meant."""

import difflib
from collections.abc import Iterable


def choices(given: str, valid: Iterable[str]) -> str:
    """The nearest of the valid names, if one is near, and all of them."""
    known = sorted(valid)
    near = difflib.get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}There is {', '.join(known)}"

"""Work on very many items is not silent."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

REPORT_SECONDS = 10.0
"""How often it is told how many items are done."""

Item = TypeVar("Item")


def counted(items: Iterable[Item], tell: Callable[[int], None]) -> Iterator[Item]:
    """Yield the items; every ten seconds, ``tell`` how many were yielded before."""
    told = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - told >= REPORT_SECONDS:
            told = time.monotonic()
            tell(number)
        yield item

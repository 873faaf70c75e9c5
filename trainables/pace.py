"""Progress of long loops."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

REPORT_SECONDS = 10.0
"""Time between two reports."""

Item = TypeVar("Item")


def counted(items: Iterable[Item], report: Callable[[int], None]) -> Iterator[Item]:
    """Yield the items. Every ten seconds, call ``report`` with the number of items that came before.

    Args:
        items: what the loop is over.
        report: receives the number.
    """
    reported = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - reported >= REPORT_SECONDS:
            reported = time.monotonic()
            report(number)
        yield item

"""A table as Markdown and CSV."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from analysis.tables.table import Header, Table


def markdown(table: Table, *, detail: bool = True) -> str:
    """A GitHub table with aligned columns, so that it reads well on a screen; ``detail``: with every seed's value."""
    shown = [i for i, header in enumerate(table.headers) if detail or not header.detail]
    grid = [[_markdown(line[i]) for i in shown] for line in [_flat(table.headers), *table.rows]]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in grid]
    notes = "\n".join(f"- {_markdown(note)}" for note in table.notes)
    return f"## {_markdown(table.title)}\n\n" + "\n".join(f"| {line} |" for line in lines) + f"\n\n{notes}\n"


def section(heading: str, lines: Iterable[str]) -> str:
    """A heading and its lines as a list, in Markdown."""
    return f"## {heading}\n\n" + "".join(f"- {line}\n" for line in lines)


def csv(table: Table) -> str:
    """The machine-readable truth: full precision, empty if there is no value."""
    return table.data.to_csv(index=False, lineterminator="\n")


def groups(headers: list[Header]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group, as (group, number of columns)."""
    return [(name, len(list(run))) for name, run in groupby(headers, key=lambda header: header.group)]


def split(table: Table) -> tuple[Table, Table | None]:
    """What a page shows of a table, and a table of the columns that it shows on demand, if there are any."""
    details = [i for i, header in enumerate(table.headers) if header.detail]
    shown = _part(table, [i for i in range(len(table.headers)) if i not in details])
    if not details:
        return shown, None
    is_seeds = all("each seed" in table.headers[i].name for i in details)
    return shown, replace(_part(table, [0, *details]), title="each seed" if is_seeds else "more columns")


def _part(table: Table, columns: list[int]) -> Table:
    headers = [table.headers[i] for i in columns]
    return replace(table, headers=headers, rows=[[row[i] for i in columns] for row in table.rows])


def _flat(headers: list[Header]) -> list[str]:
    """Headings on one line: the first column of a group has its full name, the others what is before the comma."""
    texts, before = [], ""
    for header in headers:
        group = header.group if header.group != before else header.group.partition(",")[0]
        texts.append(f"{group}: {header.name}" if group else header.name)
        before = header.group
    return texts


def _markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")

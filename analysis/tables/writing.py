"""A table as Markdown, LaTeX and CSV."""

import re
import unicodedata
from collections.abc import Iterable
from itertools import groupby

from analysis.tables.table import Header, Table

GREEK = {
    letter: unicodedata.name(letter).rpartition(" ")[2].lower().replace("lamda", "lambda")
    for letter in "αβγδεζηθικλμνξπρστυφχψω"
}
LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    # After the \\ of the row before, LaTeX would take these for its arguments.
    **{character: f"{{{character}}}" for character in "[*"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "\N{MINUS SIGN}": "$-$",
    "·": r"$\cdot$",
    "\N{EN DASH}": "--",
    "…": r"\dots{}",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    **{letter: rf"$\{name}$" for letter, name in GREEK.items()},
    "∇": r"$\nabla$",
}


def markdown(table: Table, *, detail: bool = True) -> str:
    """A GitHub table with aligned columns, so that it reads well on a screen; ``detail``: with every seed's value."""
    shown = [i for i, header in enumerate(table.headers) if detail or not header.detail]
    grid = [[_markdown(line[i]) for i in shown] for line in [_flat(table.headers), *table.rows]]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    lines = [" | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in grid]
    notes = "\n".join(f"- {_markdown(note)}" for note in table.notes)
    return f"## {_markdown(table.title)}\n\n" + "\n".join(f"| {line} |" for line in lines) + f"\n\n{notes}\n"


def latex(table: Table) -> str:
    r"""A booktabs table, without the columns of every seed; needs only ``\usepackage{booktabs}``.

    Where the document has ``graphicx`` too, a table that is wider than the page is scaled to it.
    """
    shown = [i for i, header in enumerate(table.headers) if not header.detail]
    headers = [table.headers[i] for i in shown]
    title = re.sub(r"^Table \d+\. ", "", table.title)  # LaTeX numbers tables itself
    body = [_latex_row([table.rows[r][i] for i in shown]) for r in range(len(table.rows))]
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{escape_latex(title)}}}",
        rf"\label{{tab:{table.name}}}",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{l{''.join(map(_latex_column, headers[1:]))}}}",
        r"\toprule",
        *_latex_groups(headers),
        _latex_row([header.name for header in headers]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi\else\usebox0\fi",
        *(rf"\par {escape_latex(note)}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def section(heading: str, lines: Iterable[str]) -> str:
    """A heading and its lines as a list, in Markdown."""
    return f"## {heading}\n\n" + "".join(f"- {line}\n" for line in lines)


def csv(table: Table) -> str:
    """The machine-readable truth: full precision, empty where there is no value."""
    return table.data.to_csv(index=False, lineterminator="\n")


def escape_latex(text: str) -> str:
    """Text for LaTeX's text mode."""
    return "".join(LATEX.get(character, character) for character in text)


def groups(headers: list[Header]) -> list[tuple[str, int]]:
    """Neighbouring columns of one group, as (group, number of columns)."""
    return [(name, len(list(run))) for name, run in groupby(headers, key=lambda header: header.group)]


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


def _latex_row(texts: list[str]) -> str:
    return " & ".join(map(escape_latex, texts)) + r" \\"


def _latex_column(header: Header) -> str:
    return r"p{0.45\linewidth}" if header.prose else "r"


def _latex_groups(headers: list[Header]) -> list[str]:
    if not any(header.group for header in headers):
        return []
    cells, rules, start = [], [], 1
    for name, width in groups(headers):
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(name)}}}")
        rules += [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"] if name else []
        start += width
    return [" & ".join(cells) + r" \\", "".join(rules)]

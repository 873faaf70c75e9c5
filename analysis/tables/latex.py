"""A table as LaTeX, for a paper with one column or two."""

import re
import textwrap
import unicodedata

from analysis.tables.table import NOTHING, Header, Table
from analysis.tables.writing import groups

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
SUBSCRIPT = re.compile(r"(?<=TargetNet)(\(K-\))?_(C\d+(?:\.\d+)?|N)\b")
"""How the paper names nets that are pruned in the target."""
PAPER = "paper, "
COLUMN, GAP = 58, 3
"""Characters of a row that a column of a two-column page has room for, in footnotesize, and between two cells."""
LABEL = 42
"""Width at which the names of rows are wrapped."""
ROW_END = r" \\"
NARROW = 10
"""Headings are wrapped to the width of their column's values, but to no less than this."""
PROSE = 40
"""Characters of a line in a column of prose."""


def latex(table: Table) -> str:
    r"""Booktabs tables, without the columns of every seed; needs only ``\usepackage{booktabs}``.

    The paper's columns become a table of their own, a column that is alike in every row a note. Where the document has
    ``graphicx`` too, a table that is still wider than the page is scaled to it.
    """
    shown = [i for i, header in enumerate(table.headers) if not header.detail]
    theirs = [i for i in shown if table.headers[i].group.startswith(PAPER)]
    ours = [i for i in shown if i not in theirs]
    alike = [i for i in ours[1:] if len(table.rows) > 2 and len({row[i] for row in table.rows}) == 1]
    notes = [f"In every row, {table.headers[i].name}: {table.rows[0][i]}." for i in alike]
    title = re.sub(r"^Table \d+\. ", "", table.title)  # LaTeX numbers tables itself
    grid = _Grid(table, [i for i in ours if i not in alike], [*range(len(table.rows))])
    text = _environment(grid, title, table.name, [*table.notes, *notes])
    if theirs:
        rows = [number for number, row in enumerate(table.rows) if row[theirs[0]] != NOTHING]
        heading = table.headers[theirs[0]].group
        theirs = theirs if table.headers[theirs[0]].name == table.headers[0].name else [0, *theirs]
        text += "\n" + _environment(_Grid(table, theirs, rows), f"{title}: {heading}", f"{table.name}-paper", [])
    return text


def escape_latex(text: str) -> str:
    """Text for LaTeX's text mode; the paper's subscripts as such."""
    parts, end = [], 0
    for found in SUBSCRIPT.finditer(text):
        parts += [_escaped(text[end : found.start()]), _escaped(found[1] or ""), rf"$_{{\mathrm{{{found[2]}}}}}$"]
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


class _Grid:
    """Some rows and columns of a table, as LaTeX shows them."""

    def __init__(self, table: Table, columns: list[int], rows: list[int]) -> None:
        self.headers = [table.headers[i] for i in columns]
        texts = [_alike_decimals([table.rows[row][i] for row in rows], table.headers[i]) for i in columns]
        self.widths = [_width(header, own) for header, own in zip(self.headers, texts, strict=True)]
        cells = [
            [_cell(text, first=number == 0, bold=(row, i) in table.bold) for row, text in zip(rows, own, strict=True)]
            for number, (i, own) in enumerate(zip(columns, texts, strict=True))
        ]
        self.rows = [" & ".join(row) + ROW_END for row in zip(*cells, strict=True)]

    @property
    def environment(self) -> str:
        """One that spans both columns of a page, if the table needs them."""
        return "table" if sum(self.widths) + GAP * (len(self.widths) - 1) <= COLUMN else "table*"

    @property
    def headings(self) -> str:
        """The row of headings, each wrapped to its column."""
        wrapped = [textwrap.wrap(one.name, width) for one, width in zip(self.headers, self.widths, strict=True)]
        return " & ".join(map(_stacked, wrapped)) + ROW_END


def _environment(grid: _Grid, title: str, label: str, notes: list[str]) -> str:
    is_grouped = len({header.group for header in grid.headers}) > 1
    lines = [
        rf"\begin{{{grid.environment}}}",
        r"\centering\footnotesize",
        rf"\caption{{{escape_latex(title)}}}",
        rf"\label{{tab:{label}}}",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{l{''.join(map(_column, grid.headers[1:]))}}}",
        r"\toprule",
        *(_groups(grid) if is_grouped else []),
        grid.headings,
        r"\midrule",
        *grid.rows,
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi\else\usebox0\fi",
        *(rf"\par {escape_latex(note)}" for note in notes),
        rf"\end{{{grid.environment}}}",
    ]
    return "\n".join(lines) + "\n"


def _alike_decimals(texts: list[str], header: Header) -> list[str]:
    """Shares pruned are written without needless zeros; in a column they stand under one another with them."""
    if not header.name.startswith("Prune"):
        return texts
    most = max((len(found[1]) for text in texts for found in re.finditer(r"\d\.(\d+)", text)), default=0)
    return [re.sub(r"\d\.\d+", lambda found: found[0] + "0" * (most - len(found[0]) + 2), text) for text in texts]


def _width(header: Header, values: list[str]) -> int:
    """Characters of the widest value, and enough for the heading's longest word."""
    words = max(map(len, re.split(r"\s|(?<=-)", header.name)), default=0)
    longest = max(map(len, values), default=0)
    return max(min(longest, PROSE) if header.prose else min(longest, LABEL), words, min(NARROW, len(header.name)))


def _cell(text: str, *, first: bool, bold: bool) -> str:
    if first:
        return _stacked(textwrap.wrap(text, LABEL), "l")
    return rf"\textbf{{{escape_latex(text)}}}" if bold else escape_latex(text)


def _stacked(lines: list[str], side: str = "r") -> str:
    escaped = [escape_latex(line) for line in lines]
    # The strut keeps the first line off the rule above.
    return rf"\shortstack[{side}]{{\strut {ROW_END.join(escaped)}}}" if len(escaped) > 1 else "".join(escaped)


def _column(header: Header) -> str:
    return r"p{0.45\linewidth}" if header.prose else "r"


def _groups(grid: _Grid) -> list[str]:
    cells, rules, start = [], [], 0
    for name, columns in groups(grid.headers):
        room = sum(grid.widths[start : start + columns]) + GAP * (columns - 1)
        words = max(map(len, name.split()), default=1)
        heading = _stacked(textwrap.wrap(name, max(room, words)), "c")
        cells.append(rf"\multicolumn{{{columns}}}{{c}}{{{heading}}}")
        rules += [rf"\cmidrule(lr){{{start + 1}-{start + columns}}}"] if name else []
        start += columns
    return [" & ".join(cells) + ROW_END, "".join(rules)]

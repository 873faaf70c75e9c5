"""Every table as LaTeX compiles as it is; skipped only where no LaTeX is installed."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis.tables.latex import latex
from analysis.tables.table import Header, Table
from tests.analysis_study import Study
from tests.test_analysis_search import latency, plain

NASTY = (
    r"50 % of a_b & c#1 $x$ {y} ± \z ~ ^ <a> |b| λ·τ → ∇ … é ß “quoted” 'single' ≥ ≤ [x] *y* "
    "\N{MINUS SIGN}1 \N{EN DASH} 2 \N{MULTIPLICATION SIGN} 3"
)


@pytest.fixture(scope="module")
def pdflatex() -> str:
    found = shutil.which("pdflatex")
    if found is None:
        pytest.skip("no pdflatex")
    return found


def whole(study: Study) -> None:
    """All tables that one study can have: failures, names that LaTeX would read, an axis with points in brackets."""
    study.axis(
        "target_keep & more",
        {"[0.3, 0.2]": None, "*": None, "50 %": 1.0},
        "*",
        {"[0.3, 0.2]": 80.0, "*": 81.0, "50 %": 79.0},
    )
    study.fail("Hybrid-TransferNet(S+K-)-1", "RuntimeError: C:\\temp_1 is 100% full & {more}")
    for seed in study.description["seeds"]:
        for net in ("Standard-TransferNet", "Hybrid-TransferNet"):
            study.confuse(
                f"{net}-{seed}", {"zero_1": {"zero_1": 5, "one & two": 5}, "one & two": {"one & two": 9, "zero_1": 1}}
            )


STUDIES: dict[str, Callable[[Study], object]] = {
    "whole": whole,
    "streams": lambda study: study.two_stream(),
    "search": plain,
    "latency": latency,
}


def test_all_tables_compile_in_one_document(pdflatex: str, tmp_path: Path) -> None:
    parts: list[str] = []
    for name, change in STUDIES.items():
        study = Study(target={"name": "t", "title": "Tar_get & 100 %", "classes": 3})
        change(study)
        report = analysis.report(study.write(tmp_path / name)).parent
        tables = sorted(report.glob("*.tex"))
        assert tables
        parts += [table.read_text(encoding="utf-8") for table in tables]
    log = compiled(pdflatex, parts, tmp_path, "booktabs", "graphicx")
    # Scaled to the page: no table stands out of it.
    assert [line for line in log.splitlines() if line.startswith("Overfull \\hbox")] == []
    compiled(pdflatex, parts, tmp_path, "booktabs")


def test_what_latex_would_read_stands_as_it_is(pdflatex: str, tmp_path: Path) -> None:
    headers = [Header(NASTY), Header(NASTY, NASTY), Header("b", NASTY)]
    nasty = Table("nasty", NASTY, headers, [[NASTY] * 3] * 2, [NASTY], pd.DataFrame())
    compiled(pdflatex, [latex(nasty)], tmp_path, "booktabs", "graphicx")


def test_row_that_begins_with_a_bracket_is_no_argument(pdflatex: str, tmp_path: Path) -> None:
    rows = [["a", "1"], ["[2cm]", "2"], ["*", "3"]]
    table = Table("rows", "Rows", [Header("name"), Header("value")], rows, [], pd.DataFrame())
    compiled(pdflatex, [latex(table)], tmp_path, "booktabs")
    if text := shutil.which("pdftotext"):
        done = subprocess.run([text, "all.pdf", "-"], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert "[2cm]" in done.stdout
        assert "*" in done.stdout


def test_a_wide_table_spans_both_columns_and_a_narrow_one_does_not() -> None:
    headers = [Header("net"), *(Header(f"value {number}") for number in range(5))]
    wide = Table("wide", "Wide", headers, [["a net", *["12.3 ± 4.5"] * 5]], [], pd.DataFrame())
    narrow = Table("narrow", "Narrow", headers[:3], [row[:3] for row in wide.rows], [], pd.DataFrame())
    assert latex(wide).startswith("\\begin{table*}") and latex(wide).endswith("\\end{table*}\n")
    assert latex(narrow).startswith("\\begin{table}\n") and latex(narrow).endswith("\\end{table}\n")


def test_rows_are_read_at_a_glance() -> None:
    headers = [Header("net"), Header("seeds"), Header("Prune %"), Header("a heading of many words")]
    rows = [["A", "3", "0.0", "1"], ["Sparse-TargetNet(K-)_C97.5", "3", "97.52 ± 0.1", "22"]]
    rows.append(["Sparse-TargetNet_N", "3", "90.0", "3"])
    text = latex(Table("t", "T_C90", headers, rows, [], pd.DataFrame(), [], frozenset({(1, 3)})))
    assert r"T\_C90" in text and r"Sparse-TargetNet(K-)$_{\mathrm{C97.5}}$ & 97.52 $\pm$ 0.10 & \textbf{22}" in text
    assert r"A & 0.00 & 1 \\" in text and r"Sparse-TargetNet$_{\mathrm{N}}$ & 90.00 & 3" in text
    assert "In every row, seeds: 3." in text
    assert r"\shortstack[r]{\strut a heading \\of many \\words}" in text


def compiled(pdflatex: str, tables: list[str], folder: Path, *packages: str) -> str:
    """Compiles a document of the tables; what LaTeX had to say."""
    # Clearing pages, as LaTeX holds no more than a few tables back at once.
    body = "\\clearpage\n".join(tables)
    text = (
        "\\documentclass{article}\n\\usepackage{"
        + ",".join(packages)
        + "}\n\\begin{document}\n"
        + body
        + "\\end{document}\n"
    )
    (folder / "all.tex").write_text(text, encoding="utf-8")
    command = [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout

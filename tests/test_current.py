"""A report is written again only if it would be another one, or something of it is not as it was."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import analysis
from analysis import current, reporting
from analysis.tables.table import Header, Table
from tests.analysis_study import Study, writer


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


def written(report: Path) -> dict[str, tuple[int, bytes]]:
    """When each file of a report was written, and its content."""
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in report.iterdir()}


def contents(report: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in written(report).items()}


def test_a_report_that_would_be_the_same_stays(write: Callable[..., Path]) -> None:
    folder = write()
    report = analysis.report(folder).parent
    before = written(report)
    assert current.MADE in before
    analysis.report(folder)
    assert written(report) == before


def test_what_is_not_as_it_was_is_written_again(write: Callable[..., Path]) -> None:
    folder = write()
    report = analysis.report(folder).parent
    right = contents(report)
    changes: dict[str, Callable[[], object]] = {
        "a file was edited": lambda: (report / "table1.md").write_text("mine"),
        "a file is gone": lambda: (report / "figure3.png").unlink(),
        "the page is gone, as of a report that was never finished": lambda: (report / "index.html").unlink(),
        "the record is damaged": lambda: (report / current.MADE).write_text("{"),
        "the record is no record": lambda: (report / current.MADE).write_text("[]"),
        "an earlier report left a table": lambda: (report / "probes.md").write_text("stale"),
    }
    for change in changes.values():
        change()
        assert contents(report) != right
        analysis.report(folder)
        assert contents(report) == right


def test_another_study_or_other_code_is_another_report(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = analysis.report(write()).parent
    before = contents(report)

    def better(study: Study) -> None:
        for row in study.rows["stages"]:
            row["test_accuracy"] = 50.0

    folder = write(better)
    analysis.report(folder)
    moved = contents(report)
    assert moved["table1.csv"] != before["table1.csv"]
    monkeypatch.setattr(current, "_code", lambda: "another version")
    analysis.report(folder)
    again = contents(report)
    assert again.pop(current.MADE) != moved.pop(current.MADE)
    assert again == moved


def test_a_table_of_ones_own_is_always_made(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write()
    report = analysis.report(folder).parent

    def mine(results: analysis.Results, cells: pd.DataFrame) -> Table:
        return Table("mine", "Mine", [Header("cells")], [[str(len(cells))]], [], cells)

    monkeypatch.setitem(reporting.TABLES, "mine", mine)
    analysis.report(folder)
    assert (report / "mine.md").exists()


def test_figures_as_pdf_come_when_asked_for(write: Callable[..., Path]) -> None:
    folder = write()
    report = Path(analysis.write_report(folder)).parent
    analysis.write_report(folder, pdf=True)
    assert (report / "figure3.pdf").exists()


def test_tables_that_were_changed_in_python_are_always_written(write: Callable[..., Path]) -> None:
    folder = write()
    results = analysis.load(folder)
    report = analysis.report(results).parent
    before = contents(report)
    changed = replace(results, stages=results.stages.assign(test_accuracy=50.0))
    assert results.content is not None and changed.content is None
    analysis.report(changed)
    assert contents(report)["table1.csv"] != before["table1.csv"]
    analysis.report(results)
    assert contents(report) == before

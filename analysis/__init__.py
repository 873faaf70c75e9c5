"""What is concluded: a study's tables, figures and report, from its Parquet files only (neither torch nor ray)."""

from analysis.comparisons import pairs
from analysis.loading import Results, StudyError, load
from analysis.reporting import markdown_summary, report, write_report
from analysis.targets import Targets, load_targets

__all__ = [
    "Results",
    "StudyError",
    "Targets",
    "load",
    "load_targets",
    "markdown_summary",
    "pairs",
    "report",
    "write_report",
]

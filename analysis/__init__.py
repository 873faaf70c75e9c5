"""What is concluded: a study's tables, figures and report, from its Parquet files only (neither torch nor ray)."""

from analysis.comparisons import pairs
from analysis.loading import Results, StudyError, load
from analysis.reporting import markdown_summary, report, write_report

__all__ = ["Results", "StudyError", "load", "markdown_summary", "pairs", "report", "write_report"]

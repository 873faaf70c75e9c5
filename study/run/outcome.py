"""The outcome of a study or a search."""

from dataclasses import dataclass, field
from functools import cached_property

import analysis
from analysis import Results
from analysis.overview import summary_of_targets
from analysis.targets import Targets
from study.config import ConfigError
from study.names import name_fault


def require_name(name: str) -> None:
    """Make sure that a study or a search can have this name.

    Raises:
        ConfigError: it cannot.
    """
    if fault := name_fault(name):
        raise ConfigError(f"{name!r} cannot name a folder in the storage: {fault}")


@dataclass(frozen=True)
class Outcome:
    """A study or a search, run to its end."""

    results: Results = field(repr=False)
    """Its tables, as ``analysis.load`` returns them."""
    folder: str
    """Path or URI of its folder: tables, configuration, report."""
    report: str
    """Path or URI of its report."""
    summary: str
    """Which stages were trained, and how long they took, as text."""
    failed: dict[str, str]
    """Error per failed stage. Tracebacks are in the folder's ``errors``."""
    best: str | None = None
    """Of a search: path of the best settings, a preset."""

    @cached_property
    def findings(self) -> str:
        """The report's tables and conclusions in brief, as Markdown."""
        return analysis.markdown_summary(self.results)

    def _repr_markdown_(self) -> str:
        """Show the findings in a notebook."""
        return f"{self.findings}\n\n{self.summary}\n\nreport: {self.report}"


@dataclass(frozen=True)
class TargetsOutcome:
    """A study on several targets, run to its end."""

    results: Targets = field(repr=False)
    """The results on each target, and over all of them."""
    folder: str
    """Path or URI of its folder; each target has one in it: tables, configuration, report."""
    report: str
    """Path or URI of the report over all targets."""
    summary: str
    """Which stages were trained, and how long they took, as text."""
    failed: dict[str, str]
    """Error per failed stage. Tracebacks are in the folder's ``errors``."""

    @cached_property
    def findings(self) -> str:
        """The report's tables and conclusions, as Markdown."""
        return summary_of_targets(self.results)

    def _repr_markdown_(self) -> str:
        """Show the findings in a notebook."""
        return f"{self.findings}\n\n{self.summary}\n\nreport: {self.report}"

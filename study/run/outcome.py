"""The outcome of a study or a search."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import analysis
from analysis import Results
from analysis.overview import summary_of_targets
from analysis.targets import Targets
from study.config import ConfigError
from study.names import name_fault

Found = TypeVar("Found")


def require_name(name: str) -> None:
    """Make sure that a study or a search can have this name.

    Raises:
        ConfigError: it cannot.
    """
    if fault := name_fault(name):
        raise ConfigError(f"{name!r} cannot name a folder in the storage: {fault}")


@dataclass(frozen=True)
class Ended(ABC, Generic[Found]):
    """What has been run to its end."""

    results: Found = field(repr=False)
    """Its tables, as the analysis reads them."""
    folder: str
    """Path or URI of its folder: tables, configuration, report."""
    report: str
    """Path or URI of its report."""
    summary: str
    """Which stages were trained, and how long they took, as text."""
    failed: dict[str, str]
    """Error per failed stage. Tracebacks are in the folder's ``errors``."""

    @property
    @abstractmethod
    def findings(self) -> str:
        """The report's tables and conclusions in brief, as Markdown."""

    def _repr_markdown_(self) -> str:
        """Show the findings in a notebook."""
        return f"{self.findings}\n\n{self.summary}\n\nreport: {self.report}"


@dataclass(frozen=True)
class Outcome(Ended[Results]):
    """A study or a search, run to its end; ``results`` are those of ``analysis.load``."""

    best: str | None = None
    """Of a search: path of the best settings, a preset."""

    @cached_property
    def findings(self) -> str:
        """The report's tables and conclusions in brief, as Markdown."""
        return analysis.markdown_summary(self.results)


@dataclass(frozen=True)
class TargetsOutcome(Ended[Targets]):
    """A study on several targets, each of which has a folder in its own; ``results`` are ``analysis.load_targets``'."""

    @cached_property
    def findings(self) -> str:
        """The report's tables and conclusions, as Markdown."""
        return summary_of_targets(self.results)

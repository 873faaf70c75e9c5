"""What is run: an ablation study or a search, from a configuration to tables and a report.

From Python: ``from study import load_config, run_study, run_search``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.config import StudyConfig, load_config
    from study.run.outcome import Outcome, TargetsOutcome
    from study.run.search import SearchSettings, run_search
    from study.run.study import run_study
    from study.run.targets import run_targets

__all__ = [
    "Outcome",
    "SearchSettings",
    "StudyConfig",
    "TargetsOutcome",
    "load_config",
    "run_search",
    "run_study",
    "run_targets",
]

_HOMES = {
    "study.config": ("StudyConfig", "load_config"),
    "study.run.outcome": ("Outcome", "TargetsOutcome"),
    "study.run.search": ("SearchSettings", "run_search"),
    "study.run.study": ("run_study",),
    "study.run.targets": ("run_targets",),
}


def __getattr__(name: str) -> Any:
    # On demand: the analysis imports some of this package, and neither torch nor ray.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

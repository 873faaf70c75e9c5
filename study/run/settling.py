"""Adding seeds to a study until its main comparisons are settled, or a budget is spent."""

import time
from dataclasses import dataclass, field

from analysis import Results
from analysis.comparisons import Comparison, main_comparisons
from analysis.findings import sentence
from analysis.published import HYBRID, KNOWLEDGE_ONLY, SPARSE_ONLY, STANDARD
from study.config import ConfigError, StudyConfig
from study.facts import SequentialDesign
from study.graph import StageGraph


@dataclass
class Settling:
    """Which seeds a study has, and whether it takes more."""

    config: StudyConfig
    """With the seeds so far."""
    design: SequentialDesign
    hours: float | None = None
    """No round is started that, at the pace of the longest one, would end later than this."""
    _started: float = field(default_factory=time.monotonic, init=False)
    _round_began: float = field(default_factory=time.monotonic, init=False)
    _longest: float = field(default=0.0, init=False)
    _pairs: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Check the budget.

        Raises:
            ConfigError: the study has more seeds than it may get.
        """
        if len(self.config.seed_list) > self.design.most_seeds:
            raise ConfigError(
                f"the study has {len(self.config.seed_list)} seeds already, and --most-seeds is "
                f"{self.design.most_seeds}: give a larger number, or fewer --seeds to begin with"
            )

    @property
    def largest(self) -> StudyConfig:
        """The study with all the seeds that it may get."""
        return more_seeds(self.config, self.design.most_seeds - len(self.config.seed_list))

    def after_round(self, results: Results) -> tuple[str, bool]:
        """How the study stands after a round, and whether it continues: then the configuration has one more seed."""
        found = main_comparisons(results)
        now = time.monotonic()
        self._longest, self._round_began = max(self._longest, now - self._round_began), now
        end = self._end(found, now)
        self._pairs = {one.question.name: one.pairs for one in found}
        lines = [f"after {len(self.config.seed_list)} seeds (at most {self.design.most_seeds}):"]
        lines += [f"  {'settled' if one.settled else 'open   '}  {sentence(one, results)}" for one in found]
        if end:
            return "\n".join([*lines, f"  {end}"]), False
        self.config = more_seeds(self.config, 1)
        return "\n".join([*lines, f"  one more: seed {self.config.seed_list[-1]}"]), True

    def _end(self, found: list[Comparison], now: float) -> str:
        """Why no more seeds are added; empty if they are."""
        unsettled = [one for one in found if not one.settled]
        if not unsettled:
            return "all are settled"
        if len(self.config.seed_list) >= self.design.most_seeds:
            return "no more seeds are allowed (--most-seeds)"
        if self.hours is not None and now - self._started + self._longest > 3600 * self.hours:
            return "there is no time for another round (--hours)"
        if all(one.pairs == self._pairs.get(one.question.name) for one in unsettled):
            return "the last seed failed in all that is open, so no more are added"
        return ""


def more_seeds(config: StudyConfig, count: int) -> StudyConfig:
    """The study with ``count`` more seeds: the next numbers."""
    if isinstance(config.seeds, int):
        return config.model_copy(update={"seeds": config.seeds + count})
    after = max(config.seeds) + 1
    return config.model_copy(update={"seeds": [*config.seeds, *range(after, after + count)]})


def require_main_comparisons(graph: StageGraph) -> None:
    """Make sure, before anything is trained, that there is something to settle.

    Raises:
        ConfigError: the study has none of the comparisons that seeds are added for.
    """
    nets = {cell.net for cell, _ in graph.cells if cell.point is None}
    if STANDARD not in nets or not nets & {SPARSE_ONLY, KNOWLEDGE_ONLY, HYBRID}:
        raise ConfigError(
            f"--until-settled adds seeds until S and K are settled, for which a study needs {STANDARD} and a "
            f"Hybrid-TransferNet; this one has {', '.join(sorted(nets)) or 'neither'}: add paper to its ablations"
        )

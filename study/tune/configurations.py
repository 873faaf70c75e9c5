"""Optuna on the stage graph: trials ask for configurations, and only the stages that none has trained are trained.

One Optuna trial is a configuration, judged by the validation accuracy of its nets at the search's seeds. Its stages
are added to the graph and run as Ray Tune trials, each once, whatever the number of configurations that need it.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search_spaces.cells import Cell
from study.generations import checksum
from study.graph import StageGraph
from study.settings.choices import Against, SamplerName
from study.tune.scheduling import EveryTrialItsProcess, StageSearcher
from trainables.seeds import derive

Metrics = Mapping[str, float]
Nets = Callable[[Mapping[str, Any]], list[Cell]]
"""From the parameters of a trial to its cells, one per seed."""

ACCURACY, PRUNED = "val_accuracy", "prune_percent"
LATENCY, LATENCY_MS = "latency_percent", "latency_ms"
SECOND: dict[Against, tuple[str, StudyDirection]] = {
    "share": (PRUNED, StudyDirection.MAXIMIZE),
    "latency": (LATENCY, StudyDirection.MINIMIZE),
}
"""Metric and direction of the second objective.

Latency is weighed in percent of the unpruned net's: both are measured by turns, so that this is the same on a busy
machine, when milliseconds are not.
"""
IMPORTANCE_DRAWS = 8
"""How often a trial counts in the importance, each time with other values for what does not apply to it."""
LEAST_TRIALS = 4
"""Fewer complete trials than this tell nothing about what matters."""
SEAL = "seal"
"""The attribute of an ended trial that holds its :func:`seal`."""


def seal(trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> str:
    """A checksum of all that later runs take from an ended trial: a database has none of its own."""
    facts = {name: value for name, value in trial.user_attrs.items() if name != SEAL}
    # Of a trial that was stopped early, Optuna makes the last validation its value.
    known = [*(values or [])] if state == TrialState.COMPLETE else []
    return checksum((trial.number, state.name, trial.params, facts, sorted(trial.intermediate_values.items()), known))


def sampler(name: SamplerName, seed: int) -> optuna.samplers.BaseSampler:
    """The named Optuna sampler with a seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            # Grouped, for hyperparameters that apply to some trials only; lying, for trials that run side by side.
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=10)
        if name == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=seed)


class TrialBook:
    """A persistent Optuna study that hands out trials, to be continued after a crash.

    The sampler is made again for each trial, with its own seed, and takes its knowledge from the stored trials: so a
    restarted search resumes as if nothing had happened, and never proposes its first points again.
    """

    def __init__(
        self,
        space: Callable[[optuna.Trial], None],
        storage: optuna.storages.BaseStorage,
        name: str,
        *,
        sampler_name: SamplerName,
        seed: int,
        against: Against | None,
    ) -> None:
        """Open or make the Optuna study ``name`` in ``storage``.

        Args:
            space: define-by-run function.
            storage: Optuna storage.
            name: name of the Optuna study.
            sampler_name: the sampler.
            seed: the search's seed.
            against: the second objective; None: validation accuracy only.
        """
        objectives = dict([(ACCURACY, StudyDirection.MAXIMIZE), *([SECOND[against]] if against else [])])
        self._space, self._sampler, self._seed, self._metrics = space, sampler_name, seed, list(objectives)
        self.study = optuna.create_study(
            storage=storage, study_name=name, directions=list(objectives.values()), load_if_exists=True
        )

    @property
    def asked(self) -> int:
        """Trials asked for so far, in this run or an earlier one."""
        return len([trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING])

    def left_open(self) -> list[optuna.Trial]:
        """The trials that an interrupted run left open, each with the parameters that it had."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        # Optuna has no public way to take up a trial of another process.
        return [self._suggested(optuna.Trial(self.study, trial._trial_id), trial.number) for trial in running]

    def ask(self) -> optuna.Trial:
        """A new trial with its parameters."""
        number = self.asked
        return self._suggested(self.study.ask(), number)

    def _suggested(self, trial: optuna.Trial, number: int) -> optuna.Trial:
        self.study.sampler = sampler(self._sampler, derive(self._seed, "sampler", number) % 2**32)
        self._space(trial)
        return trial

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> None:
        """Keep an intermediate value; Optuna knows none of a trial with two objectives."""
        known = self._stored(trial).intermediate_values
        if len(self._metrics) == 1 and epoch not in known:
            trial.report(value, epoch)

    def tell(self, trial: optuna.Trial, metrics: Metrics | None, *, failed: bool = False) -> None:
        """End a trial: with its metrics; without any it was stopped early, or has failed."""
        values = None if metrics is None else [metrics[name] for name in self._metrics]
        state = TrialState.FAIL if failed else TrialState.PRUNED if values is None else TrialState.COMPLETE
        trial.set_user_attr(SEAL, seal(self._stored(trial), state, values))
        self.study.tell(trial, values, state)

    def _stored(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]


@dataclass
class Candidate:
    """A configuration under way: its Optuna trial and its nets, one per seed."""

    trial: optuna.Trial
    nets: list[str]
    """The stages that measure the nets."""
    trained: list[str]
    """The stages that make them: the same, unless nets are measured by stages of their own."""


class ConfigurationSearcher(StageSearcher):
    """Hands out the stages of the configurations that Optuna asks for."""

    def __init__(
        self,
        graph: StageGraph,
        done: Callable[[str], bool],
        config_of: Callable[[str], dict[str, str]],
        book: TrialBook,
        nets: Nets,
        metrics: Callable[[str], Metrics],
        *,
        trials: int,
        abreast: int,
        expired: Callable[[], bool],
        announce: Callable[[str], None],
    ) -> None:
        """Search.

        Args:
            graph: grows by the stages of each configuration.
            done: whether a stage is complete in the storage.
            config_of: returns the configuration of a stage's Tune trial.
            book: the Optuna study.
            nets: returns the cells of a configuration.
            metrics: metrics of the net that a complete stage has.
            trials: trials that the Optuna study should have in the end.
            abreast: configurations under way side by side.
            expired: whether the time for new trials is over.
            announce: takes a line when a trial ends.
        """
        super().__init__(graph, set(), config_of)
        self._is_done, self._book, self._nets, self._metrics = done, book, nets, metrics
        self._trials, self._abreast, self._expired, self._announce = trials, abreast, expired, announce
        self._candidates: list[Candidate] = []
        for trial in book.left_open():
            self._open(trial)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next ready stage; if none is, a new configuration's, while there are trials and time left."""
        while True:
            self._settle()
            stage = super().suggest(trial_id)
            if isinstance(stage, dict):
                return stage
            if len(self._candidates) >= self._abreast or self._book.asked >= self._trials or self._expired():
                return stage
            self._open(self._book.ask())

    def is_judged(self, key: str) -> bool:
        """Whether a configuration may be stopped early by what the stage shows: its net at the first seed."""
        return any(key == candidate.trained[0] for candidate in self._candidates)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a validation of the first seed's net on to Optuna, for trials that are stopped early."""
        super().on_trial_result(trial_id, result)
        self._pass_on(trial_id, result)

    def _pass_on(self, trial_id: str, result: Mapping[str, Any]) -> None:
        for candidate in self._candidates:
            if candidate.trained[0] == self.running.get(trial_id) and ACCURACY in result and "epoch" in result:
                self._book.report(candidate.trial, result["epoch"], result[ACCURACY])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take note of a stage's end, and tell Optuna of the configurations that are decided by it."""
        # Where a stage is stopped early, Tune shows the validation that decided it only here.
        self._pass_on(trial_id, result or {})
        super().on_trial_complete(trial_id, result, error)
        self._settle()

    def _open(self, trial: optuna.Trial) -> None:
        cells = self._nets(trial.params)
        before = set(self._graph.stages)
        nets = [self._graph.add(cell) for cell in cells]
        trained = [self._graph.net_of(net) for net in nets]
        self._candidates.append(Candidate(trial, nets, trained))
        trial.set_user_attr("stages", trained)
        needed = dict.fromkeys(key for net in nets for key in self._graph.path(net))
        known = self.done | set(self.failed) | set(self.skipped) | set(self.running.values()) | set(self._waiting)
        self.done |= {key for key in needed if key not in before and self._is_done(key)}
        self.stopped -= set(needed)
        self._enqueue(key for key in needed if key not in known | self.done)

    def _settle(self) -> None:
        """End the trials of the configurations whose nets are all there, or will never be."""
        for candidate in list(self._candidates):
            broken = [net for net in candidate.nets if net in self.failed or net in self.skipped]
            if broken:
                self._end(candidate, None, "failed")
            elif any(net in self.stopped for net in candidate.trained):
                self._end(candidate, None, "pruned")
            elif all(net in self.done for net in candidate.nets):
                self._end(candidate, [self._metrics(net) for net in candidate.nets], "complete")

    def _end(self, candidate: Candidate, metrics: list[Metrics] | None, state: str) -> None:
        self._candidates.remove(candidate)
        others = {key for other in self._candidates for net in other.nets for key in self._graph.path(net)}
        self._waiting = [key for key in self._waiting if key in others]
        result: dict[str, float] | None = None
        if metrics is not None:
            names = [name for name in (ACCURACY, PRUNED, LATENCY, LATENCY_MS) if name in metrics[0]]
            result = {name: sum(m[name] for m in metrics) / len(metrics) for name in names}
            for name in names:
                candidate.trial.set_user_attr(name, [m[name] for m in metrics])
        self._book.tell(candidate.trial, result, failed=state == "failed")
        outcome = f"validation {result[ACCURACY]:.1f} %, {result[PRUNED]:.1f} % pruned" if result else state
        if result and LATENCY in result:
            outcome += f", latency {result[LATENCY]:.1f} % of the unpruned net's"
        self._announce(f"trial {candidate.trial.number}: {outcome}")


@dataclass(frozen=True)
class _Compared:
    """What ASHA takes for a trial: a stage, which stays the same when its process is lost and another resumes it."""

    trial_id: str
    """The stage's key."""


class EarlyStopping(EveryTrialItsProcess, AsyncHyperBandScheduler):
    """ASHA (Li et al. 2020) on validation accuracy, only for the stages that configurations are judged by.

    The better half continues after each comparison. Only a configuration's first seed is compared: a search wants to
    learn from bad trials too, and importance is computed from complete ones only.
    """

    def __init__(self, grace_epochs: int, epochs: int) -> None:
        """Compare at ``grace_epochs`` and at each doubling of it below ``epochs``."""
        super().__init__(
            time_attr="epoch",
            metric=ACCURACY,
            mode="max",
            grace_period=grace_epochs,
            max_t=max(epochs, grace_epochs + 1),
            reduction_factor=2,
        )
        self.is_judged: Callable[[str], bool] = lambda key: False
        self._epochs = epochs
        self._judged: set[str] = set()

    def remember(self, trials: Iterable[FrozenTrial]) -> None:
        """Take over the comparisons of an earlier run from the validations that its trials have left with Optuna."""
        for trial in trials:
            for epoch, value in sorted(trial.intermediate_values.items()):
                if epoch < self._epochs:
                    stage = _Compared(trial.user_attrs["stages"][0])
                    super().on_trial_add(None, stage)
                    super().on_trial_result(None, stage, {"epoch": epoch, ACCURACY: value})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Follow the trial if its stage is one to judge by."""
        if self.is_judged(trial.config["stage"]):
            self._judged.add(trial.trial_id)
            super().on_trial_add(tune_controller, _Compared(trial.config["stage"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that is behind; never one that has trained its last epoch, nor one without a validation."""
        relevant = ACCURACY in result and "epoch" in result and result["epoch"] < result.get("epochs", 0)
        if trial.trial_id not in self._judged or not relevant:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _Compared(trial.config["stage"]), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: the last epoch is not a comparison."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget the trial."""
        self._judged.discard(trial.trial_id)


def importance(trials: list[FrozenTrial], seed_index: int, name: str = ACCURACY) -> dict[str, float]:
    """Share of the variance of a metric that each hyperparameter explains: fANOVA (Hutter, Hoos, Leyton-Brown 2014).

    A trial's metric is the same for any value of a hyperparameter that does not apply to it (tau without knowledge). So
    each trial counts several times, with other values drawn for those: no value then stands for "does not apply".

    Args:
        trials: complete trials with the metric, one value per seed, among their facts.
        seed_index: which seed's values.
        name: the metric.
    """
    distributions = {key: trial.distributions[key] for trial in trials for key in trial.params}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        rng = np.random.default_rng(trial.number)
        for _ in range(IMPORTANCE_DRAWS):
            drawn = {key: _draw(distribution, rng) for key, distribution in distributions.items()}
            study.add_trial(
                optuna.trial.create_trial(
                    params={**drawn, **trial.params},
                    distributions=distributions,
                    value=trial.user_attrs[name][seed_index],
                )
            )
    found = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {parameter: float(share) for parameter, share in found.items()}


def _draw(distribution: optuna.distributions.BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return int(rng.integers(distribution.low, distribution.high + 1))
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    low, high = distribution.low, distribution.high
    # Rounding may not carry a draw over the bound.
    drawn = np.exp(rng.uniform(np.log(low), np.log(high))) if distribution.log else rng.uniform(low, high)
    return float(np.clip(drawn, low, high))

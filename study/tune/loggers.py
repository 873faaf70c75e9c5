"""Experiment trackers: a run per stage, and one with the study's tables, in MLflow, trackio or Weights & Biases.

They run in the driver's process, so that no node of a cluster needs them. Where runs go is what each tracker's own
environment variables set (``MLFLOW_TRACKING_URI``; ``TRACKIO_DIR``; ``WANDB_MODE``, ``WANDB_DIR``, ``WANDB_API_KEY``).
No result depends on them: a tracker that fails is reported and then left out.
"""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from contextvars import Context
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import pandas as pd
from rich.console import Console

from study import schema
from study.graph import StageGraph
from study.settings.choices import LoggerName
from study.settings.dotted import dotted
from study.settings.overrides import ConfigError
from study.tune.progress import label
from study.tune.scheduling import Observer
from study.tune.trial import ERROR, STORED

REPORT = "report"
"""Name of the run with the study's tables."""
METRICS = [column.name for column in schema.EPOCHS if column.name not in ("stage", "round", "epoch")]
"""What is logged of an epoch."""


class Tracker(Protocol):
    """What a tracker can do."""

    def start(self, key: str, name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        """Begin the run of a stage."""

    def log(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Log an epoch of a stage."""

    def end(self, key: str, failed: bool) -> None:
        """End the run of a stage."""

    def report(self, metrics: Mapping[str, float], tables: Mapping[str, str], summary: str) -> None:
        """Log a study's end: a number per net, its tables as CSV, and a summary as Markdown."""


class MLflow:
    """MLflow, by its client: an experiment per study."""

    def __init__(self, study: str) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._param = Metric, Param
        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(study)
        self._experiment = known.experiment_id if known else self._client.create_experiment(study)
        self._runs: dict[str, str] = {}

    def start(self, key: str, name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        """Begin a run; parameters are texts in MLflow."""
        run = self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id
        self._client.log_batch(run, params=[self._param(name, str(value)) for name, value in settings.items()])
        self._runs[key] = run

    def log(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics at an epoch, in one request: the study waits for it."""
        now = round(1000 * time.time())
        entries = [self._metric(_metric_name(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._runs[key], metrics=entries)

    def end(self, key: str, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._runs.pop(key), "FAILED" if failed else "FINISHED")

    def report(self, metrics: Mapping[str, float], tables: Mapping[str, str], summary: str) -> None:
        """Log numbers as metrics, tables and summary as artifacts."""
        self.start(REPORT, REPORT, {"kind": REPORT}, {})
        self.log(REPORT, metrics, step=0)
        for name, table in tables.items():
            self._client.log_text(self._runs[REPORT], table, f"{name}.csv")
        self._client.log_text(self._runs[REPORT], summary, "summary.md")
        self.end(REPORT, failed=False)


def _metric_name(name: str) -> str:
    """A net's name in the letters that MLflow takes."""
    return "".join(letter if letter.isalnum() or letter in " _-./" else "_" for letter in name)


class InProjects:
    """What Weights & Biases and trackio have in common: a project per study, and runs that are objects."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._runs: dict[str, Any] = {}

    def log(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics at an epoch."""
        self._runs[key].log(dict(metrics), step=step)


class WandB(InProjects):
    """Weights & Biases."""

    def start(self, key: str, name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        """Begin a run next to those under way."""
        import wandb

        quiet = wandb.Settings(silent=True, console="off")
        self._runs[key] = wandb.init(
            project=self._study, name=name, config={**tags, **settings}, reinit="create_new", settings=quiet
        )

    def end(self, key: str, failed: bool) -> None:
        """End the run."""
        self._runs.pop(key).finish(exit_code=int(failed))

    def report(self, metrics: Mapping[str, float], tables: Mapping[str, str], summary: str) -> None:
        """Log numbers and tables."""
        import wandb

        self.start(REPORT, REPORT, {"kind": REPORT}, {"summary": summary})
        found: dict[str, Any] = {name: wandb.Table(dataframe=_frame(table)) for name, table in tables.items()}
        self._runs[REPORT].log({**metrics, **found})
        self.end(REPORT, failed=False)


class Trackio(InProjects):
    """trackio, in files of this machine, on a server or in a Hugging Face Space. What it prints per run is dropped."""

    def __init__(self, study: str) -> None:
        from trackio.utils import TRACKIO_DIR

        # Otherwise it reports the folder that it cannot write as a Python warning per run, and continues.
        TRACKIO_DIR.mkdir(parents=True, exist_ok=True)
        super().__init__(study)

    def start(self, key: str, name: str, tags: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        """Begin a run next to those under way."""
        import trackio

        begin = partial(trackio.init, embed=False, auto_log_cpu=False, auto_log_gpu=False)
        with redirect_stdout(io.StringIO()):
            # A new run ends the one of its context, so each has a context of its own.
            self._runs[key] = Context().run(begin, project=self._study, name=name, config={**tags, **settings})

    def end(self, key: str, failed: bool) -> None:
        """End the run. trackio has no status of a run and lists none without metrics, so ``failed`` is one (0 or 1)."""
        run = self._runs.pop(key)
        run.log({"failed": int(failed)})
        with redirect_stdout(io.StringIO()):
            run.finish()

    def report(self, metrics: Mapping[str, float], tables: Mapping[str, str], summary: str) -> None:
        """Log numbers, tables and summary."""
        import trackio

        self.start(REPORT, REPORT, {"kind": REPORT}, {})
        found: dict[str, Any] = {name: trackio.Table(dataframe=_frame(table)) for name, table in tables.items()}
        self._runs[REPORT].log({**metrics, **found, "summary": trackio.Markdown(summary)}, step=0)
        self.end(REPORT, failed=False)


def _frame(table: str) -> pd.DataFrame:
    """A table's CSV as texts."""
    return pd.read_csv(io.StringIO(table), dtype=str).fillna("")


TRACKERS: dict[LoggerName, tuple[str, Callable[[str], Tracker]]] = {
    "mlflow": ("mlflow", MLflow),
    "trackio": ("trackio", Trackio),
    "wandb": ("wandb", WandB),
}
"""Package and tracker, by the name that ``loggers`` has."""


def require_packages(names: Sequence[LoggerName]) -> None:
    """Make sure that the packages of the trackers are installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if find_spec(TRACKERS[name][0]) is None:
            raise ConfigError(f"loggers: {name} needs more packages: pip install -c constraints.txt -e '.[{name}]'")


class Loggers(Observer):
    """Reports stages and the study's end to the trackers."""

    def __init__(self, names: Sequence[LoggerName] = (), study: str = "", console: Console | None = None) -> None:
        """Open the trackers; one that cannot be opened is reported.

        Raises:
            ConfigError: the packages of one are not installed.
        """
        require_packages(names)
        super().__init__()
        self._console, self._study = console or Console(), study
        self._trackers: dict[str, Tracker] = {}
        for name in names:
            self._trying(name, partial(self._open_tracker, name))
        self._graph: StageGraph | None = None
        self._open: set[str] = set()

    @property
    def in_use(self) -> bool:
        """Whether any tracker is in use."""
        return bool(self._trackers)

    def _open_tracker(self, name: LoggerName) -> None:
        self._trackers[name] = TRACKERS[name][1](self._study)

    def follow(self, graph: StageGraph) -> "Loggers":
        """Name stages by this graph from now on."""
        self._graph = graph
        return self

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin the run of a stage; one that starts again after a loss resumes its run."""
        key = trial.config["stage"]
        if key in self._open or self._graph is None:
            return
        self._open.add(key)
        spec = self._graph.stages[key].spec
        tags = {"study": self._study, "stage": key, "kind": spec.kind, "network": spec.network, "data": spec.data.name}
        tags |= {"seed": str(spec.seed)} if spec.seed is not None else {}
        settings = dict(dotted(spec.params.model_dump(mode="json", by_alias=True)))
        name = label(self._graph, key)
        self._tell(lambda tracker: tracker.start(key, name, tags, settings))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log an epoch."""
        key = trial.config["stage"]
        if key in self._open and "epoch" in result and STORED not in result:
            metrics = {name: float(result[name]) for name in METRICS if _is_number(result.get(name))}
            # Neuron pruning has a training per round.
            step = int(result.get("round", 0)) * int(result.get("epochs", 0)) + int(result["epoch"])
            self._tell(lambda tracker: tracker.log(key, metrics, step))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run of a stage that is stored or has failed."""
        result = trial.last_result or {}
        self._end(trial.config["stage"], failed=ERROR in result)

    def _end(self, key: str, failed: bool) -> None:
        if key in self._open:
            self._open.remove(key)
            self._tell(lambda tracker: tracker.end(key, failed))

    def conclude(self, metrics: Mapping[str, float], tables: Mapping[str, str], summary: str) -> None:
        """Log the study's end; runs of stages that were lost end as failed."""
        for key in sorted(self._open):
            self._end(key, failed=True)
        self._tell(lambda tracker: tracker.report(metrics, tables, summary))

    def _tell(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._trying(name, partial(action, tracker))

    def _trying(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        # Trackers raise what they like, from HTTP errors to their own; none of it concerns the study.
        except Exception as error:
            self._trackers.pop(name, None)
            line = f"warning: {name} failed and is left out from here on: {type(error).__name__}: {error}"
            self._console.print(line, markup=False, soft_wrap=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

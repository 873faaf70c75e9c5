"""Progress of a running study: a calm live display on a terminal, plain lines elsewhere."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from study.durations import REPORT_SECONDS, duration
from study.graph import StageGraph
from study.tune.scheduling import Observer, StageSearcher
from study.tune.trial import ERROR, LOST
from trainables.hyperparameters import (
    FeaturesParams,
    KnowledgeConfig,
    MeanwhileParams,
    NeuronPruneParams,
    ProbeParams,
    SourcePruneParams,
    TargetPruneParams,
    TransferParams,
)


class Progress(Observer):
    """Follows the trials of the experiment and shows how the study stands."""

    def __init__(
        self, graph: StageGraph, searcher: StageSearcher, slots: int, console: Console, foreseen: bool = True
    ) -> None:
        super().__init__()
        self._graph, self._searcher, self._slots, self._console = graph, searcher, slots, console
        self._foreseen = foreseen
        self._from_storage = len(searcher.done)
        self._latest: dict[str, dict[str, Any]] = {}
        self._started: dict[str, float] = {}
        self._reported = time.monotonic()
        self._effort_done, self._busy_seconds = 0, 0.0
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        """Start the live display, if there is a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the live display."""
        self._live.stop()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stage has started."""
        self._started[trial.config["stage"]] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A stage has reported an epoch."""
        self._latest[trial.config["stage"]] = result

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """In a log, a line per long stage once a minute: a live display would show it."""
        if self._console.is_terminal or time.monotonic() - self._reported < REPORT_SECONDS:
            return
        self._reported = time.monotonic()
        for key, started in self._started.items():
            if (seconds := self._reported - started) >= REPORT_SECONDS:
                parts = [
                    label(self._graph, key),
                    _epoch(self._latest.get(key, {})),
                    _accuracy(self._latest.get(key, {})),
                ]
                line = f"{', '.join(filter(None, parts))}, after {duration(seconds)}{self._stage_left(key, seconds)}"
                self._console.print(Text(f"under way: {line}"), soft_wrap=True)

    def _stage_left(self, key: str, seconds: float) -> str:
        share = self._share(key)
        return f", about {duration(seconds / share - seconds)} left" if share else ""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stage is stored, or has failed with an error of its own."""
        key = trial.config["stage"]
        result = trial.last_result or {}
        if LOST in result and key not in self._searcher.failed:
            self._started.pop(key, None)
            line = f"{label(self._graph, key)} cannot start: {result[ERROR]}"
            self._console.print(Text(line, style="yellow"), soft_wrap=True)
            return
        self._finish(key, result.get(ERROR))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A stage's process was lost."""
        key = trial.config["stage"]
        if key in self._searcher.failed:
            self._finish(key, self._searcher.failed[key])
            return
        self._started.pop(key, None)
        line = f"{label(self._graph, key)}: its process is gone; it resumes from its last checkpoint"
        self._console.print(Text(line, style="yellow"), soft_wrap=True)

    def _finish(self, key: str, error: str | None) -> None:
        stage = self._graph.stages[key]
        seconds = time.monotonic() - self._started.pop(key, time.monotonic())
        self._effort_done += stage.effort
        self._busy_seconds += seconds
        outcome = f"failed: {error}" if error else _accuracy(self._latest.get(key, {}))
        if key in self._searcher.stopped:
            outcome += ", stopped early"
        done = len(self._searcher.done)
        line = f"[{done}/{len(self._graph.stages)}] {label(self._graph, key)}  {outcome}  {seconds:.1f} s"
        if not self._console.is_terminal:
            line += f"  ({self._counts()})"
        self._console.print(Text(line, style="red" if error else ""), soft_wrap=True)

    def _counts(self) -> str:
        searcher = self._searcher
        parts = [f"{len(self._started)} running", f"{len(searcher.waiting)} waiting"]
        if searcher.failed:
            parts.append(f"{len(searcher.failed)} failed, {len(searcher.skipped)} skipped")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Estimate from the speed so far: all remaining images over the slots, or the longest chain of stages."""
        if not self._effort_done or not self._foreseen:
            return None
        pace = self._busy_seconds / self._effort_done
        waiting = self._searcher.waiting
        total = float(sum(self._graph.stages[key].effort for key in waiting))
        total += sum(self._graph.stages[key].effort * (1 - self._share(key)) for key in self._started)
        chain = max((self._searcher.longest_path(key) for key in waiting), default=0)
        return pace * max(total / self._slots, chain)

    def _share(self, key: str) -> float:
        result = self._latest.get(key, {})
        return float(result.get("epoch", 0)) / float(result.get("epochs", 1))

    def _render(self) -> RenderableType:
        done, total = len(self._searcher.done), len(self._graph.stages)
        head = Table.grid(padding=(0, 1))
        stored = f" ({self._from_storage} from storage)" if self._from_storage else ""
        head.add_row(ProgressBar(total, done, width=30), f"{done}/{total} stages{stored}, {self._counts()}")
        running = Table.grid(padding=(0, 2))
        for key in self._started:
            result = self._latest.get(key, {})
            running.add_row(" ", label(self._graph, key), _epoch(result) or "starting", _accuracy(result))
        return Group(head, running)


def label(graph: StageGraph, key: str) -> str:
    """A stage in a few words: kind, what tells it from its siblings, and the seed."""
    spec, params = graph.stages[key].spec, graph.stages[key].spec.params
    words = [spec.kind]
    if isinstance(params, SourcePruneParams):
        words += [params.criterion, "to", _kept(params.keep)]
    if isinstance(params, FeaturesParams | ProbeParams):
        words.append(_sparsity_sign(graph, key).strip())
    if isinstance(params, TransferParams):
        words.append(_sparsity_sign(graph, key) + _knowledge_sign(params.knowledge))
    if isinstance(params, TargetPruneParams):
        words += [_knowledge_sign(params.knowledge), "to", f"{100 * params.keep:.3g}", "%"]
    if isinstance(params, NeuronPruneParams) and params.layer is not None:
        words += [_knowledge_sign(params.knowledge), params.layer]
    if isinstance(params, NeuronPruneParams) and params.step is not None:
        words += [_knowledge_sign(params.knowledge), f"step {params.step}"]
    if len(graph.networks) > 1 and spec.kind != "fusion":
        words.append(spec.network)
    if len(graph.targets) > 1 and (place := spec.data.place) in graph.targets:
        name, path = place
        words.append(Path(path).name if path else name.rpartition(":")[2])
    if spec.seed is not None:
        words.append(f"seed {spec.seed}")
    return " ".join(words)


def _kept(keep: dict[str, float] | float | str) -> str:
    if isinstance(keep, str):
        return "what is not zero"
    shares = [keep] if isinstance(keep, float) else sorted(set(keep.values()))
    ends = dict.fromkeys(f"{100 * share:.3g}" for share in (shares[0], shares[-1]))
    return f"{'-'.join(ends)} %"


def _sparsity_sign(graph: StageGraph, key: str) -> str:
    own, above = graph.stages[key].spec.params, graph.stages[graph.stages[key].parents["source"]].spec.params
    params = own.prune if isinstance(own, TransferParams) and own.prune is not None else above
    if not isinstance(params, SourcePruneParams | MeanwhileParams):
        return "S-"
    return "S+" if params.criterion == "magnitude" else "S random "


def _knowledge_sign(knowledge: KnowledgeConfig | None) -> str:
    if knowledge is None:
        return "K-"
    return "K+" if knowledge.source == "reference" else "K shuffled"


def _epoch(result: dict[str, Any]) -> str:
    return f"epoch {result['epoch']}/{result['epochs']}" if "epoch" in result else ""


def _accuracy(result: dict[str, Any]) -> str:
    value = result.get("val_accuracy")
    return "" if value is None else f"validation {value:.1f} %"

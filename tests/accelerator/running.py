"""Runs of the cases on a device and on the CPU, one after another in this process."""

import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tests.accelerator.cases import TRAIN, Case
from tests.accelerator.watching import Places, watched
from tests.runs import MemoryStore, Stopped, StoppingSession, artifact, run
from trainables.artifacts import Artifact
from trainables.results import StageResult
from trainables.sessions import Session


@dataclass
class Outcome:
    """How a stage went."""

    error: str | None = None
    result: StageResult | None = None
    """Its tensors are brought to the CPU: the reader of the report has no other device."""
    stored: set[str] = field(default_factory=set)
    """Types of the devices that the stage left its tensors on."""
    seen: Places = field(default_factory=dict)
    resumed_epochs: int = 0


class Runs:
    """Runs of the cases, here or on a device. Parents are trained on the CPU, once."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        self.cases = cases
        self.trained: dict[str, Outcome] = {}
        """On the CPU, by case."""

    def attempt(self, name: str, device: str) -> Outcome:
        """Run a case. Errors are reported, not raised."""
        case = self.cases[name]
        try:
            # Before the watch begins, for a parent may have to be trained yet.
            roles = {role: self.parent(other) for role, other in case.parents.items()}
            with watched() as seen:
                result, session = run_case(case, roles, device)
        except Exception:
            return Outcome(traceback.format_exc())
        stored = {tensor.device.type for tensor in result.tensors.values()}
        result.tensors = {name: tensor.cpu() for name, tensor in result.tensors.items()}
        return Outcome(None, result, stored, dict(seen), session.resumed_epochs)

    def on_the_cpu(self, name: str) -> Outcome:
        """What the accelerator's runs are compared with."""
        if name not in self.trained:
            self.trained[name] = self.attempt(name, "cpu")
        return self.trained[name]

    def parent(self, name: str) -> Artifact:
        """A case's net as the CPU trained it; or what neuron pruning needs of the Standard net: its accuracy."""
        if name == "no level":
            return Artifact({}, {"val_accuracy": 0.0})
        if name == "level that falls":
            return Artifact({}, {"val_accuracy": self.falling_level()})
        result = self.on_the_cpu(name).result
        assert result is not None, self.on_the_cpu(name).error
        return artifact(result)

    def falling_level(self) -> float:
        """A level that neuron pruning falls below; after its first round only, if its accuracy falls later at all."""
        free = self.on_the_cpu("neuron_prune").result
        assert free is not None
        first, *later = (float(row["val_accuracy"]) for row in free.epochs if row["epoch"] == TRAIN.epochs)
        return first if min(later) < first else first + 0.01


def run_case(case: Case, roles: Mapping[str, Artifact], device: str) -> tuple[StageResult, Session]:
    """Run a case, interrupted and resumed if it asks for that. Return the session of its last part, too."""
    seed = None if case.kind == "knowledge" else 0
    store = MemoryStore()
    if case.stop_after is not None and device != "cpu":
        with suppress(Stopped):
            run(case.kind, case.params, StoppingSession(store, case.stop_after, device), case.images, seed, roles)
    session = Session(store, device, images_a_pass=case.images_a_pass)
    return run(case.kind, case.params, session, case.images, seed, roles), session

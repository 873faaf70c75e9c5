"""The process that has the pretended accelerator: it runs all cases there and on the CPU, and reports the outcomes."""

import os
import pickle
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from tests.accelerator import checks
from tests.accelerator.cases import CASES, HOMES, TRAIN, WEIGHTS, Case
from tests.accelerator.device import DEVICE, register
from tests.accelerator.watching import Places, watched
from tests.runs import MemoryStore, Stopped, StoppingSession, artifact, run
from trainables import images
from trainables.artifacts import Artifact
from trainables.results import StageResult
from trainables.sessions import Session

REPORT = "report.pickle"


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


@dataclass
class Report:
    """What the process reports."""

    outcomes: dict[tuple[str, str], Outcome]
    """By case, and ``cpu`` or where the pixels were."""
    refusals: dict[str, str | None]
    allowances: dict[str, str]


def attempt(name: str, device: str) -> Outcome:
    """Run a case. Errors are reported, not raised."""
    case = CASES[name]
    try:
        # Before the watch begins, for a parent may have to be trained yet.
        roles = {role: parent(other) for role, other in case.parents.items()}
        with watched() as seen:
            result, session = run_case(case, roles, device)
    except Exception:
        return Outcome(traceback.format_exc())
    stored = {tensor.device.type for tensor in result.tensors.values()}
    result.tensors = {name: tensor.cpu() for name, tensor in result.tensors.items()}
    return Outcome(None, result, stored, dict(seen), session.resumed_epochs)


def run_case(case: Case, roles: Mapping[str, Artifact], device: str) -> tuple[StageResult, Session]:
    """Run a case, interrupted and resumed if it asks for that. Return the session of its last part, too."""
    seed = None if case.kind == "knowledge" else 0
    store = MemoryStore()
    if case.stop_after is not None and device != "cpu":
        with suppress(Stopped):
            run(case.kind, case.params, StoppingSession(store, case.stop_after, device), case.images, seed, roles)
    session = Session(store, device, images_a_pass=case.images_a_pass)
    return run(case.kind, case.params, session, case.images, seed, roles), session


@cache
def on_the_cpu(name: str) -> Outcome:
    """What the accelerator's runs are compared with."""
    return attempt(name, "cpu")


def parent(name: str) -> Artifact:
    """A case's net as the CPU trained it; or what neuron pruning needs of the Standard net: its accuracy."""
    if name == "no level":
        return Artifact({}, {"val_accuracy": 0.0})
    if name == "level that falls":
        return Artifact({}, {"val_accuracy": falling_level()})
    result = on_the_cpu(name).result
    assert result is not None, on_the_cpu(name).error
    return artifact(result)


def falling_level() -> float:
    """A level that neuron pruning falls below; after its first round only, if its accuracy falls later at all."""
    free = on_the_cpu("neuron_prune").result
    assert free is not None
    first, *later = (float(row["val_accuracy"]) for row in free.epochs if row["epoch"] == TRAIN.epochs)
    return first if min(later) < first else first + 0.01


def main(folder: Path) -> None:
    """Run everything and leave the outcomes in the folder."""
    os.chdir(folder)
    torch.set_num_threads(1)
    # As in a trial: some operations take another way then.
    torch.use_deterministic_algorithms(True, warn_only=True)
    register()
    save_file(dict(parent("reference").tensors), WEIGHTS)
    outcomes = {}
    for name in CASES:
        outcomes[name, "cpu"] = on_the_cpu(name)
        for home, resident_bytes in HOMES.items():
            with patch.object(images, "RESIDENT_BYTES", resident_bytes):
                outcomes[name, home] = attempt(name, DEVICE)
    report = Report(outcomes, checks.refusals(), checks.allowances())
    (folder / REPORT).write_bytes(pickle.dumps(report))


if __name__ == "__main__":
    # Under the module's name, not as __main__, or the report could not be unpickled elsewhere.
    from tests.accelerator.child import main

    main(Path(sys.argv[1]).resolve())

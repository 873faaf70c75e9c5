"""A process that has the pretended accelerator: it runs all cases there and on the CPU, and tells how they went."""

import os
import pickle
import sys
import traceback
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
    """Its tensors brought to the CPU: who reads this has no other device."""
    stored: set[str] = field(default_factory=set)
    """Where its tensors were."""
    seen: Places = field(default_factory=dict)
    resumed_epochs: int = 0


@dataclass
class Report:
    """All that the process has to tell."""

    outcomes: dict[tuple[str, str], Outcome]
    """By case, and ``cpu`` or where the pixels were."""
    refusals: dict[str, str | None]
    allowances: dict[str, str]


def attempt(name: str, device: str) -> Outcome:
    """Run a case; an error is told, not raised."""
    try:
        with watched() as seen:
            result, session = run_case(CASES[name], device)
    except Exception:
        return Outcome(traceback.format_exc())
    stored = {tensor.device.type for tensor in result.tensors.values()}
    result.tensors = {name: tensor.cpu() for name, tensor in result.tensors.items()}
    return Outcome(None, result, stored, dict(seen), session.resumed_epochs)


def run_case(case: Case, device: str) -> tuple[StageResult, Session]:
    """Run a case, once disturbed and resumed if it says so, and give the session that it ended in."""
    roles = {role: parent(name) for role, name in case.parents.items()}
    seed = None if case.kind == "knowledge" else 0
    session = Session(None, device, images_a_pass=case.images_a_pass)
    if case.stop_after is not None and device != "cpu":
        store = MemoryStore()
        with suppress(Stopped):
            run(case.kind, case.params, StoppingSession(store, case.stop_after, device), case.images, seed, roles)
        session = Session(store, device, 0)
    return run(case.kind, case.params, session, case.images, seed, roles), session


@cache
def on_the_cpu(name: str) -> Outcome:
    """What the accelerator's runs are compared with."""
    return attempt(name, "cpu")


def parent(name: str) -> Artifact:
    """A case's net as the CPU trained it; or what neuron pruning needs of the Standard net, its level."""
    if name == "no level":
        return Artifact({}, {"val_accuracy": 0.0})
    if name == "level that falls":
        return Artifact({}, {"val_accuracy": falling_level()})
    result = on_the_cpu(name).result
    assert result is not None, on_the_cpu(name).error
    return artifact(result)


def falling_level() -> float:
    """A level that the first round of neuron pruning holds, if the accuracy falls below it later at all."""
    free = on_the_cpu("neuron_prune").result
    assert free is not None
    first, *later = (float(row["val_accuracy"]) for row in free.epochs if row["epoch"] == TRAIN.epochs)
    return first if min(later) < first else first + 0.01


def main(folder: Path) -> None:
    """Run everything and leave the outcomes in the folder."""
    os.chdir(folder)
    torch.set_num_threads(1)
    register()
    save_file(dict(parent("reference").tensors), WEIGHTS)
    outcomes = {}
    for name in CASES:
        outcomes[name, "cpu"] = on_the_cpu(name)
        for home, resident in HOMES.items():
            with patch.object(images, "RESIDENT_BYTES", images.RESIDENT_BYTES if resident is None else resident):
                outcomes[name, home] = attempt(name, DEVICE)
    report = Report(outcomes, checks.refusals(), checks.allowances())
    (folder / REPORT).write_bytes(pickle.dumps(report))


if __name__ == "__main__":
    # By its own name, so that the report can be read by others.
    from tests.accelerator.child import main

    main(Path(sys.argv[1]).resolve())

"""Every kind of stage on a pretended accelerator, which refuses what CUDA refuses: the results are the CPU's.

The stages run in one process of their own, because an accelerator changes the whole process. What the pretence cannot
show is listed in ``accelerator/pretended.cpp``.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.accelerator.cases import CASES, HOMES
from tests.accelerator.checks import ALLOWED, REFUSED
from tests.accelerator.child import REPORT, Report
from tests.accelerator.device import DEVICE, lacking
from tests.accelerator.running import Outcome
from tests.commands import SECONDS
from trainables.results import StageResult

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))

everywhere = pytest.mark.parametrize("home", HOMES)
every_stage = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What a process with the accelerator reports."""
    folder = tmp_path_factory.mktemp("accelerator")
    done = subprocess.run(
        [sys.executable, "-m", "tests.accelerator.child", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = pickle.loads((folder / REPORT).read_bytes())
    # Pytest would keep its sixty megabytes for three more runs.
    (folder / REPORT).unlink()
    assert isinstance(content, Report)
    return content


def outcome(report: Report, name: str, home: str) -> tuple[Outcome, StageResult]:
    found = report.outcomes[name, home]
    assert found.error is None, found.error
    assert found.result is not None
    return found, found.result


@pytest.mark.parametrize("operation", REFUSED)
def test_what_cuda_refuses_is_refused(operation: str, report: Report) -> None:
    error = report.refusals[operation]
    assert error is not None and REFUSED[operation][1] in error


@pytest.mark.parametrize("operation", ALLOWED)
def test_what_cuda_allows_is_allowed(operation: str, report: Report) -> None:
    assert report.allowances[operation] == DEVICE


@everywhere
@every_stage
def test_a_stage_gives_what_it_gives_on_the_cpu(name: str, home: str, report: Report) -> None:
    """To the last bit: the kernels are the CPU's, and the generators draw the CPU's numbers."""
    (_, expected), (_, result) = outcome(report, name, "cpu"), outcome(report, name, home)
    assert result.tensors.keys() == expected.tensors.keys()
    for tensor, value in expected.tensors.items():
        assert torch.equal(result.tensors[tensor], value), tensor
    for rows in ("metrics", "epochs", "layers", "knowledge", "confusion", "class_names"):
        assert getattr(result, rows) == getattr(expected, rows), rows


@everywhere
@every_stage
def test_all_of_a_stage_lives_on_the_device(name: str, home: str, report: Report) -> None:
    (on_cpu, _), (here, _) = outcome(report, name, "cpu"), outcome(report, name, home)
    expected = {what: {DEVICE} if devices else set() for what, devices in on_cpu.seen.items()}
    if home == "host" and "pixels" in expected:
        expected["pixels"] = {"cpu"}
    assert here.seen == expected
    assert here.stored == {"cpu"}


def test_something_was_seen_of_each_training(report: Report) -> None:
    """Otherwise the test above would prove nothing."""
    always = {"pixels", "weights", "activations"}
    for name, case in CASES.items():
        seen = {what for what, devices in outcome(report, name, "cpu")[0].seen.items() if devices}
        if case.kind == "fusion":
            assert not seen
        elif case.kind in ("knowledge", "evaluation") or name == "reference, from weights":
            assert seen == always, name
        else:
            masks = {"masks"} if name not in ("reference", "transfer, S-K-") else set()
            assert seen == always | masks | {"gradients", "momentum", "noise"}, name


@everywhere
def test_a_disturbed_training_is_resumed(home: str, report: Report) -> None:
    """Its net is compared with the CPU's undisturbed one in the test above."""
    name = "neuron_prune, resumed"
    assert outcome(report, name, home)[0].resumed_epochs == CASES[name].stop_after
    assert outcome(report, name, "cpu")[0].resumed_epochs == 0


def test_the_stages_differ(report: Report) -> None:
    """Above, each is compared with itself on the CPU; here, with the others, so that its settings do something."""
    transfers = [outcome(report, name, "cpu")[1] for name, case in CASES.items() if case.kind == "transfer"]
    weights = [net.tensors["main.fc6.weight"] for net in transfers]
    for n, weight in enumerate(weights):
        assert not any(torch.equal(weight, other) for other in weights[n + 1 :])
    free, falling = (outcome(report, name, "cpu")[1] for name in ("neuron_prune", "neuron_prune, until accuracy falls"))
    assert falling.metrics["neurons"] > free.metrics["neurons"]

"""Memory that runs out, in the trial's process or by Ray's hand: what is said names what to set."""

from pathlib import Path

import pytest
import torch
from torch import nn

from study.tune.advice import out_of_memory
from tests.commands import study, study_process, table
from trainables import architectures
from trainables.networks import LayeredNet


class Hungry(nn.Module):
    """Wants more memory than any machine has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.empty(2**50, device=x.device).sum()


def hungry(classes: int) -> LayeredNet:
    net = architectures.small_alexnet(classes)
    net.weighted("fc6").before.append(Hungry())
    return net


def error_of(storage: Path, printed: str) -> str:
    """The one error of a study that failed, which it has also printed."""
    stages = table(storage, "stages")
    assert set(stages["status"]) == {"failed", "skipped"}
    (error,) = stages.loc[stages["status"] == "failed", "error"]
    assert error in printed
    return str(error)


def test_a_stage_that_wants_too_much_memory(preset: Path, tmp_path: Path) -> None:
    error = error_of(tmp_path, study(preset, tmp_path, "--set", "network=tests.test_memory:hungry", status=1))
    assert error.startswith("memory ran out (now resources.images_a_pass=the whole batch, resources.gpus=0.0")
    assert "with --slots or more resources.cpus" in error and "you tried to allocate 4503599627370496 bytes" in error


@pytest.mark.slow
def test_a_stage_that_ray_kills_for_the_machines_memory(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a threshold that every machine is above, Ray's memory monitor kills whatever trains."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    more = ("--slots", "1", "--set", "source.train.epochs=2000")
    error = error_of(tmp_path, study_process(preset, tmp_path, *more, status=1))
    assert error.startswith("memory ran out: let fewer stages share the machine")
    assert "killed due to the node running low on memory" in error
    assert list((tmp_path / "studies/tiny/errors").glob("reference-*.txt"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_without_room() -> None:
    with pytest.raises(torch.OutOfMemoryError) as error:
        torch.empty(2**45, device="cuda")
    advice = out_of_memory(f"OutOfMemoryError: {error.value}", {"images_a_pass": 128})
    assert advice is not None and advice.startswith("the GPU's memory ran out (now resources.images_a_pass=128)")
    assert "resources.gpus" in advice


def test_other_errors_get_no_advice() -> None:
    assert out_of_memory("DivergedError: the loss became nan in epoch 3") is None

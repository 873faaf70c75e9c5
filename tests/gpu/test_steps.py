"""A training step on a GPU: it never waits for the device, and takes the arithmetic that it was told to take."""

import warnings
from unittest.mock import patch

import pytest
import torch

from benchmarks.step import Bench
from tests.accelerator.cases import HOMES
from tests.gpu import GPU, needs_gpu
from tests.runs import artifact, run
from trainables import images
from trainables.devices import deterministic_kernels
from trainables.hyperparameters import EvaluationParams, ReferenceParams, TrainConfig
from trainables.sessions import Session

pytestmark = needs_gpu


def waits(steps: int, *, live: bool = False) -> list[str]:
    """Where the host waited for the GPU within an epoch of the guided and masked stage, as PyTorch saw it."""
    bench = Bench("small_alexnet", 10, steps, GPU)
    training = bench.training(bench.hybrid(live), masked=True, live=live)
    training.train(1)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training._steps(2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [
        f"{warning.filename}:{warning.lineno}" for warning in caught if "called a synchronizing" in str(warning.message)
    ]


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("live", [False, True])
def test_no_step_waits_for_the_device(live: bool, home: str) -> None:
    with patch.object(images, "RESIDENT_BYTES", HOMES[home]):
        few, many = waits(2, live=live), waits(6, live=live)
    assert len(many) == len(few), many


def test_precision_is_what_was_asked_for() -> None:
    """TF32 and bfloat16 round, float32 does not: three different nets. An evaluation is exact for each."""
    nets = {}
    for precision in ("float32", "tf32", "bfloat16"):
        train = TrainConfig(epochs=1, learning_rate=0.01, batch_size=10, dropout=0.0, precision=precision)
        nets[precision] = run("reference", ReferenceParams(train=train), Session(device=GPU))
    exact = nets["float32"].tensors["main.conv2.weight"]
    errors = {
        precision: ((net.tensors["main.conv2.weight"] - exact).norm() / exact.norm()).item()
        for precision, net in nets.items()
    }
    print(errors)
    assert errors["float32"] == 0 < errors["tf32"] < errors["bfloat16"] < 0.1
    for net in nets.values():
        again = [
            run("evaluation", EvaluationParams(), Session(device=device), roles={"net": artifact(net)})
            for device in (GPU, "cpu")
        ]
        assert again[0].metrics == pytest.approx(again[1].metrics, abs=0.2)


def test_attention_gives_the_same_each_time() -> None:
    """Over so many tokens that the memory-efficient kernel would add up in another order each time."""
    name = "timm:vit_tiny_patch16_224?input=3x96x96&img_size=96&patch_size=4&depth=2"
    found = []
    for _ in range(2):
        bench = Bench(name, batch=16, steps=4, device=GPU)
        training = bench.training(bench.hybrid(), masked=True)
        with deterministic_kernels():
            training.train(1)
        found.append(training.net.state_dict())
    for tensor, value in found[0].items():
        assert torch.equal(value, found[1][tensor]), tensor

"""Every kind of stage on a GPU: near the CPU's results, the same to the last bit each time, resumed anywhere."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.accelerator.cases import CASES, HOMES, WEIGHTS
from tests.accelerator.running import Outcome, Runs
from tests.gpu import GPU, needs_gpu
from tests.runs import DATA, MemoryStore, Stopped, StoppingSession, run
from trainables import images
from trainables.hyperparameters import ReferenceParams, SourcePruneParams, StageSpec, TrainConfig
from trainables.results import StageResult
from trainables.sessions import Session
from trainables.settings import DataConfig, Hyperparameters
from trainables.stages import run_stage

pytestmark = needs_gpu

NEAR, NEAR_IN_BFLOAT16 = 1e-3, 5e-2
"""Most that a stored number may be from the CPU's, absolutely or relatively."""
TIES = 0.01
"""Share of numbers that may be further away: a weight next to the threshold is pruned on one device only."""

every_stage = pytest.mark.parametrize("name", CASES)


def quiet(params: Hyperparameters) -> Hyperparameters:
    """Without dropout, whose noise each kind of device draws for itself."""
    fields = {name: getattr(params, name, None) for name in ("train", "retrain")}
    changed = {name: train.model_copy(update={"dropout": 0.0}) for name, train in fields.items() if train is not None}
    return params.model_copy(update=changed)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The cases without dropout, in a folder with the weights that one of them loads."""
    found = Runs({name: replace(case, params=quiet(case.params)) for name, case in CASES.items()})
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(tmp_path_factory.mktemp("gpu"))
        save_file(dict(found.parent("reference").tensors), WEIGHTS)
        yield found


def of(outcome: Outcome) -> StageResult:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def far(found: Tensor, expected: Tensor, near: float) -> float:
    """Share of the numbers that are not near to what is expected."""
    return (~torch.isclose(found.double(), expected.double(), rtol=near, atol=near)).double().mean().item()


def assert_near(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], near: float = NEAR) -> None:
    assert found.keys() == expected.keys()
    shares = {name: far(found[name], tensor, near) for name, tensor in expected.items() if tensor.numel()}
    print({name: share for name, share in shares.items() if share})
    assert max(shares.values(), default=0.0) <= TIES, shares


def assert_same(one: StageResult, other: StageResult) -> None:
    """Rows and tensors, to the last bit."""
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    for rows in ("metrics", "epochs", "layers", "knowledge", "confusion", "class_names"):
        assert getattr(one, rows) == getattr(other, rows), rows


@every_stage
def test_a_stage_gives_nearly_what_it_gives_on_the_cpu(name: str, runs: Runs) -> None:
    expected, outcome = of(runs.on_the_cpu(name)), runs.attempt(name, GPU)
    result = of(outcome)
    assert outcome.stored == {"cpu"}
    for what, devices in outcome.seen.items():
        assert devices <= {GPU}, what
    assert_near(result.tensors, expected.tensors, NEAR_IN_BFLOAT16 if "bfloat16" in name else NEAR)
    for metric, value in expected.metrics.items():
        if "accuracy" in metric:
            assert abs(result.metrics[metric] - value) <= 2, metric


@every_stage
def test_a_stage_gives_the_same_wherever_its_pixels_are_and_each_time(name: str, runs: Runs) -> None:
    """With the dropout that the CPU's nets were trained without. A resumed stage is compared with the undisturbed."""
    noisy = Runs({**runs.cases, name: CASES[name]})
    noisy.trained = runs.trained
    results = []
    for resident_bytes in HOMES.values():
        with patch.object(images, "RESIDENT_BYTES", resident_bytes):
            results.append(of(noisy.attempt(name, GPU)))
    assert_same(*results)


def test_a_resumed_stage_gives_what_the_undisturbed_gives(runs: Runs) -> None:
    resumed = runs.attempt("neuron_prune, resumed", GPU)
    assert resumed.resumed_epochs == CASES["neuron_prune, resumed"].stop_after
    assert_same(of(resumed), of(runs.attempt("neuron_prune", GPU)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("first", "then"), [(GPU, "cpu"), ("cpu", GPU)])
def test_a_training_moves_to_another_device(first: str, then: str, optimizer: str) -> None:
    rate = 0.01 if optimizer == "sgd" else 0.001
    train = TrainConfig(epochs=4, learning_rate=rate, batch_size=10, dropout=0.0, optimizer=optimizer)
    params = ReferenceParams(train=train)
    store = MemoryStore()
    with suppress(Stopped):
        run("reference", params, StoppingSession(store, 2, first))
    session = Session(store, then)
    moved = run("reference", params, session)
    assert session.resumed_epochs == 2
    assert_near(moved.tensors, run("reference", params).tensors)


NETWORKS = [
    "tests.own:residual",
    "torchvision:resnet18?input=3x32x32",
    "torchvision:mobilenet_v3_small?input=3x32x32",
    "timm:vit_tiny_patch16_224?input=3x32x32&img_size=32&patch_size=8&embed_dim=64&depth=2&num_heads=2",
]
COLOURED = DataConfig(name="tests.gpu.test_stages:coloured", train_per_class=20, val_per_class=4, mean=0.5, std=0.25)


def coloured(config: DataConfig, places: Any) -> Any:
    """Small noise in three channels, brighter from class to class."""
    from trainables.data.imageset import in_memory

    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(320) % 4
    pixels = torch.randint(64, (320, 3, 32, 32), generator=draw) + 48 * labels[:, None, None, None]
    return in_memory("coloured", pixels.to(torch.uint8), labels, tuple("abcd"), "coloured")


@pytest.mark.parametrize("network", NETWORKS)
def test_any_network_is_trained_and_pruned(network: str) -> None:
    """Near the CPU's after one step; the same to the last bit after two epochs, run twice."""
    data = DATA if network.startswith("tests") else COLOURED
    step = TrainConfig(epochs=1, learning_rate=0.01, batch_size=1000, dropout=0.0)
    two = TrainConfig(epochs=2, learning_rate=0.01, batch_size=20)

    def trained(train: TrainConfig, device: str) -> StageResult:
        spec = StageSpec(kind="reference", network=network, data=data, seed=0, params=ReferenceParams(train=train))
        return run_stage(spec, {}, Session(device=device))

    if network != "tests.own:residual":  # its stochastic depth has noise of its own
        assert_near(trained(step, GPU).tensors, trained(step, "cpu").tensors)
    reference = trained(two, GPU)
    assert_same(reference, trained(two, GPU))
    prune = SourcePruneParams(keep=0.4, retrain=two)
    spec = StageSpec(kind="source_prune", network=network, data=data, seed=0, params=prune)
    from tests.runs import artifact

    pruned = [run_stage(spec, {"source": artifact(reference)}, Session(device=GPU)) for _ in range(2)]
    assert_same(*pruned)

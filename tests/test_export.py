"""Exported nets are small, the same as the masked net, and read again without the study. No time is asserted."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from study import export, schema, speed
from study.command import BAD_INPUT, OK, SOME_FAILED
from study.commands import export as export_command
from study.storage import Storage
from tests import runs
from tests.test_storage import ROW
from trainables import latency, networks, pruning
from trainables.artifacts import Artifact, unpack_main
from trainables.export import choosing, compact
from trainables.export.compact import KERNELS, Stored, load_exported
from trainables.export.formats import WeightType
from trainables.export.unconnected import CHANNELS, remove_unconnected
from trainables.hyperparameters import NeuronPruneParams, TargetPruneParams, TrainConfig
from trainables.networks import LayeredNet, WeightedLayer
from trainables.results import StageResult

RETRAIN = TrainConfig(epochs=1, learning_rate=0.01, batch_size=20)
KINDS: tuple[WeightType, ...] = ("float32", "float16", "int8")
KEYS = {"standard": "transfer-00", "C95": "target_prune-11", "N": "neuron_prune-22", "reference": "reference-33"}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST_ROUNDS", 1)


@cache
def results() -> dict[str, StageResult]:
    """A Standard-TransferNet, one with few connections, and one with few neurons too."""
    standard = runs.transfer(None)
    pruned = runs.run(
        "target_prune",
        TargetPruneParams(keep=0.05, scope="global", criterion="magnitude", retrain=RETRAIN),
        start=runs.artifact(standard),
    )
    neurons = runs.run(
        "neuron_prune",
        NeuronPruneParams(neurons_per_step=100, images_per_class=4, layer="fc6", retrain=RETRAIN),
        start=runs.artifact(pruned),
    )
    return {"standard": standard, "C95": pruned, "N": neurons}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """The nets as a study leaves them."""
    storage = Storage(str(tmp_path / "results"))
    for name, result in results().items():
        row = {**ROW, "stage": KEYS[name], "kind": KEYS[name].rpartition("-")[0], "seed": 0}
        row["hyperparameters"] = json.dumps({"data": {"name": "digits8"}})
        storage.store(KEYS[name], result, row)
    reference = runs.source_nets()["reference"]
    published = StageResult(dict(reference.tensors), dict(reference.metrics), reference.class_names)
    row = {**ROW, "stage": KEYS["reference"], "kind": "reference", "seed": 0}
    storage.store(KEYS["reference"], published, row | {"hyperparameters": json.dumps({"data": {"name": "digits8"}})})
    nets = {
        "Standard-TransferNet": "standard",
        "Sparse-TargetNet_C95": "C95",
        "Sparse-TargetNet_N": "N",
        "Hybrid-TransferNet": None,
    }
    cells = [cell(net, KEYS[name] if name else "transfer-99") for net, name in nets.items()]
    storage.write_study("tiny", "cells.parquet", schema.table("cells", cells))
    return storage


def cell(net: str, key: str) -> dict[str, Any]:
    constant = {"ablation": "paper", "tables": [], "seed": 0, "n_m": 2, "path": [KEYS["reference"], key]}
    return {**constant, "net": net, "sparsity": "none", "knowledge": "none", "target_knowledge": "none", "stage": key}


def command(storage: Storage, *more: str) -> int:
    return export.main([*more, "--storage", storage.root])


def images(net: LayeredNet, count: int = 6) -> Tensor:
    return torch.rand(count, *net.input_shape, generator=torch.Generator().manual_seed(1))


def masked(name: str) -> LayeredNet:
    net, masks = unpack_main("small_alexnet", Artifact(results()[name].tensors))
    pruning.apply(net, masks)
    return net.eval()


def random_net(keep: float, seed: int) -> LayeredNet:
    net = networks.build("small_alexnet", 7)
    net.initialise(net.names, seed)
    for name in net.names:
        bias = net.op(name).bias
        assert bias is not None
        nn.init.normal_(bias)
    total = sum(weight.numel() for weight in net.weights().values())
    pruning.apply(net, pruning.shrink_globally(net, {}, round(keep * total), "random", seed))
    return net.eval()


@pytest.mark.parametrize("name", ["standard", "C95", "N"])
@pytest.mark.parametrize("format_", ["safetensors", "pt2", "onnx"])
@torch.no_grad()
def test_a_file_gives_what_the_masked_net_gives(
    storage: Storage, tmp_path: Path, format_: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own" / f"net.{format_}"
    assert command(storage, KEYS[name], "--format", format_, "--out", str(out)) == OK
    text = capsys.readouterr().out
    assert "largest difference" in text and "times smaller" in text and "fc6:" in text
    net = masked(name)
    call = export_command.read(out, format_, threads=1)
    for batch in (1, 5):
        x = images(net, batch)
        torch.testing.assert_close(call(x), net(x), atol=1e-4, rtol=0)
    card = (out.parent / "README.md").read_text()
    assert out.name in card and f"Stage `{KEYS[name]}`" in card
    assert {path.name for path in out.parent.iterdir()} == {out.name, "README.md"}


@torch.no_grad()
def test_a_stage_is_found_by_name_and_by_the_beginning_of_its_key(storage: Storage) -> None:
    assert command(storage, "tiny:Sparse-TargetNet_N:0") == OK
    assert command(storage, "target_p", "--weights", "int8") == OK
    exports = Path(storage.root) / "exports"
    for name, file in {"N": "neuron_prune-22-float32", "C95": "target_prune-11-int8"}.items():
        net = masked(name)
        x = images(net)
        allowed = 1e-4 if file.endswith("float32") else 0.1 * float(net(x).abs().max())
        assert float((load_exported(exports / file / "model.safetensors")(x) - net(x)).abs().max()) <= allowed


@settings(max_examples=40)
@given(keep=st.floats(0.003, 0.5), seed=st.integers(0, 1000))
@torch.no_grad()
def test_cut_off_neurons_go_without_changing_the_output(keep: float, seed: int) -> None:
    whole = random_net(keep, seed)
    small = copy.deepcopy(whole)
    lost = remove_unconnected(small)
    x = images(whole)
    torch.testing.assert_close(small(x), whole(x), atol=1e-5, rtol=1e-5)
    for name in whole.names:
        assert len(small.op(name).weight) == len(whole.op(name).weight) - lost[name]
        assert isinstance(small.op(name), nn.Linear) or lost[name] % CHANNELS == 0
    assert lost["fc8"] == 0
    # Nothing is left to remove, neither is a connection lost that led anywhere.
    assert not any(remove_unconnected(small).values())


@settings(max_examples=30)
@given(
    groups=st.sampled_from([(1, 2), (2, 1), (2, 4), (4, 4)]),
    padding=st.sampled_from([0, 1]),
    dead=st.integers(0, 31),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_channels_of_grouped_and_padded_convolutions(
    groups: tuple[int, int], padding: int, dead: int, seed: int
) -> None:
    torch.manual_seed(seed)
    first, second = nn.Conv2d(4, 64, 3, groups=groups[0]), nn.Conv2d(64, 8, 3, padding=padding, groups=groups[1])
    first.weight[torch.randperm(64)[: 2 * dead]] = 0
    read = second.weight.view(groups[1], 8 // groups[1], 64 // groups[1], 9)
    read[torch.rand(groups[1], 1, 64 // groups[1], 1).expand_as(read) < dead / 40] = 0
    layers = [
        ("conv1", WeightedLayer(first, after=[nn.ReLU(), nn.MaxPool2d(2)])),
        ("conv2", WeightedLayer(second, after=[nn.ReLU()])),
        ("fc3", WeightedLayer(nn.Linear(8 * (3 + 2 * padding) ** 2, 3), before=[nn.Flatten()])),
    ]
    net = LayeredNet(layers, (4, 12, 12)).eval()
    small = copy.deepcopy(net)
    lost = remove_unconnected(small)
    x = images(net)
    torch.testing.assert_close(small(x), net(x), atol=1e-5, rtol=1e-5)
    assert lost["conv1"] % CHANNELS == 0
    if not padding and dead == 31:
        assert lost["conv1"] > 0


@torch.no_grad()
def test_neighbours_of_a_normalised_channel_keep_it() -> None:
    first, second = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 4, 3)
    first.weight[:16], second.weight[:, :16] = 0, 0
    after = [nn.ReLU(), nn.LocalResponseNorm(5)]
    last = WeightedLayer(nn.Linear(4 * 16, 2), before=[nn.Flatten()])
    net = LayeredNet(
        [("conv1", WeightedLayer(first, after=after)), ("conv2", WeightedLayer(second)), ("fc", last)], (1, 8, 8)
    )
    assert not any(remove_unconnected(net).values())
    net.layers["conv1"] = WeightedLayer(first, after=[nn.ReLU()])
    assert remove_unconnected(net)["conv1"] == 16


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(keep=st.floats(0.0, 1.0), seed=st.integers(0, 1000), batch=st.integers(1, 3))
@torch.no_grad()
def test_every_kernel_gives_the_product(kernel: str, kind: WeightType, keep: float, seed: int, batch: int) -> None:
    torch.manual_seed(seed)
    op = nn.Linear(23, 11)
    op.weight *= torch.rand_like(op.weight) < keep
    stored = Stored.of(op, kind)
    x = torch.randn(batch, 23)
    right = nn.functional.linear(x, stored.widened().weight, op.bias)
    torch.testing.assert_close(KERNELS[kernel](stored)(x), right, atol=1e-5, rtol=1e-5)


@settings(max_examples=40)
@given(keep=st.sampled_from([0.0, 0.0005, 0.01, 0.2, 0.9, 1.0]), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
@torch.no_grad()
def test_weights_come_back_from_a_file(
    tmp_path_factory: pytest.TempPathFactory, keep: float, kind: WeightType, seed: int
) -> None:
    net = random_net(0.9, seed)
    op = net.op("fc6")
    op.weight *= torch.rand_like(op.weight) < keep
    stored = {name: Stored.of(net.op(name), kind) for name in net.names}
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    path.write_bytes(compact.encode("small_alexnet", stored, {"fc6": "dense"}))
    parts = dict(load_exported(path).named_buffers())
    for place, name in ((1, "fc6"), (0, "conv2")):
        assert torch.equal(parts[f"{name}.{place}.weight"], stored[name].widened().weight)
        error = (stored[name].widened().weight - net.op(name).weight).abs()
        largest = net.op(name).weight.abs().flatten(1).amax(1).view(-1, *[1] * (error.dim() - 1))
        assert bool((error <= {"float32": 0.0, "float16": 2**-10, "int8": 0.5001 / 127}[kind] * largest + 1e-7).all())


def test_the_size_of_a_file_is_what_its_parts_take() -> None:
    """A layer takes the smallest of the whole matrix, a bit a weight, and a byte a gap; of 255 zeros one more."""

    def size(weight: Tensor) -> int:
        return sum(part.nbytes for part in compact._smallest(weight).values())

    sparse = torch.zeros(100, 1000)
    sparse.view(-1)[::100] = 1.0
    assert size(sparse) == 1000 * (4 + 1)
    assert size(sparse.half()) == 1000 * (2 + 1)
    sparse.view(-1)[::1000] = 0.0
    sparse.view(-1)[1:] = 0.0
    sparse.view(-1)[600] = 1.0
    assert size(sparse) == 4 + 3  # 600 zeros: twice 255, and 90
    half = torch.zeros(100, 1000)
    half[:, ::2] = 1.0
    assert size(half) == 50_000 * 4 + 100_000 // 8
    assert size(torch.ones(10, 10)) == 400


def test_another_file_is_no_net(storage: Storage) -> None:
    (path,) = (Path(storage.root) / "stages" / KEYS["N"]).glob("*/tensors.safetensors")
    with pytest.raises(ValueError, match="is no exported net"):
        load_exported(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["neuron_prune-23"], "no stage 'neuron_prune-23' in .*: did you mean 'neuron_prune-22"),
        (["t"], "'t' may be any of target_prune-11, transfer-00"),
        (["knowledge-44"], "no stage"),
        (["tiny:Sparse-TargetNet_C96:0"], "no net 'Sparse-TargetNet_C96': did you mean 'Sparse-TargetNet_C95'"),
        (["tiny:Sparse-TargetNet_N:7"], "has no seed '7'; it has 0"),
        (["tyni:Sparse-TargetNet_N:0"], "no study 'tyni' in .*: did you mean 'tiny'"),
        (["tiny:Hybrid-TransferNet:0"], "stage transfer-99 is not complete: run its study again"),
        (["--compare", "tyni"], "no study 'tyni'"),
    ],
)
def test_bad_input_is_said(
    storage: Storage, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(storage, *arguments) == BAD_INPUT
    error = capsys.readouterr().err
    assert pd.Series([error]).str.contains(message).all(), error


def test_a_stage_without_a_net_is_said(storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    storage.store("knowledge-44", StageResult({"logits": torch.zeros(1)}, {}, ()), {**ROW, "stage": "knowledge-44"})
    assert command(storage, "knowl") == BAD_INPUT
    assert "knowledge-44 makes logits, no net" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_said(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert command(storage, KEYS["N"], "--out", str(tmp_path / "file" / "net")) == BAD_INPUT
    assert "cannot write" in capsys.readouterr().err
    assert command(storage, KEYS["N"], "--out", str(tmp_path)) == BAD_INPUT
    assert "is a folder" in capsys.readouterr().err


def test_a_net_that_differs_is_not_written(
    storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net"
    arguments = [KEYS["C95"], "--weights", "int8", "--tolerance", "1e-9", "--out", str(out)]
    assert command(storage, *arguments) == SOME_FAILED
    assert "differ by more than 1e-09" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_the_nets_of_a_study_are_compared(
    storage: Storage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "BATCHES", (1, 3))
    # A small matrix is exported in a second: with one kernel there is one to export.
    monkeypatch.setitem(choosing.CANDIDATES, "onnx", ("dense",))
    assert command(storage, "--compare", "tiny") == OK
    assert "Reference-SourceNet" in capsys.readouterr().out
    table = pd.read_parquet(Path(storage.root) / "studies" / "tiny" / "nets.parquet")
    assert len(table) == 4 * 2 * 2
    assert (table["milliseconds"] > 0).all()
    one = table[(table["runtime"] == "torch") & (table["batch"] == 1)].set_index("net")
    assert list(one.index) == [
        "Reference-SourceNet",
        "Standard-TransferNet",
        "Sparse-TargetNet_C95",
        "Sparse-TargetNet_N",
    ]
    assert one["percent_of_standard"]["Standard-TransferNet"] == 100
    dense = sum(networks.connection_counts("small_alexnet", 10).values())
    assert one["connections"]["Standard-TransferNet"] == dense
    assert one["connections"]["Sparse-TargetNet_C95"] <= 0.05 * dense + 1
    assert one["bytes"]["Sparse-TargetNet_C95"] < one["bytes_dense"]["Sparse-TargetNet_C95"] / 8


def test_a_slower_net_stands_as_slower() -> None:
    constant = {"stage": "s", "connections": 1, "neurons": 1, "macs": 1, "bytes": 1, "bytes_dense": 1, "kernels": "{}"}
    rows = [
        {**constant, "net": net, "prune_percent": pruned, "runtime": runtime, "batch": batch, "milliseconds": 1.0,
         "percent_of_standard": percent}
        for net, pruned, percent in (("Standard-TransferNet", 0.0, 100.0), ("few", 90.0, 130.0))
        for runtime in speed.RUNTIMES
        for batch in speed.BATCHES
    ]  # fmt: skip
    standard, few = speed.describe(schema.table("nets", rows)).splitlines()[1:]
    assert "slower: torch, 1; torch, 64; onnx, 1; onnx, 64" in few and "slower" not in standard


def test_multiply_accumulates_count_places() -> None:
    conv, last = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Linear(2 * 16, 3)
    net = LayeredNet([("c", WeightedLayer(conv)), ("f", WeightedLayer(last, before=[nn.Flatten()]))], (1, 4, 4))
    assert speed.multiply_accumulates(net) == 18 * 16 + 96
    with torch.no_grad():
        last.weight[0] = 0
    assert speed.multiply_accumulates(net) == 18 * 16 + 64


def test_sparse_kernels_are_not_tried_on_full_matrices() -> None:
    net = random_net(1.0, 0)
    stored = {name: Stored.of(net.op(name), "float32") for name in net.names}
    choices = choosing.choose(net, stored, "torch", batch=2, threads=1)
    # With one candidate there is nothing to measure.
    assert choices == {name: choosing.Choice("dense", {}) for name in net.inner_products()}

"""Masks in patterns, N of M inputs and blocks, and masks that shrink while a net trains."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.ao.pruning.sparsifier.weight_norm_sparsifier import WeightNormSparsifier

from study import load_config, run_study
from study.config import ConfigError
from study.graph import plan
from tests.runs import MemoryStore, Stopped, StoppingSession, artifact, parents, run
from trainables import networks, patterns, pruning
from trainables.artifacts import unpack_main
from trainables.hyperparameters import GradualConfig, SourcePruneParams, TargetPruneParams, TrainConfig
from trainables.networks import LayeredNet, WeightedLayer
from trainables.prune_steps import Gradual, PruneStep
from trainables.sessions import Session

RETRAIN = TrainConfig(epochs=4, learning_rate=0.01, batch_size=20)


def net_of(*ops: nn.Conv2d | nn.Linear, seed: int = 0) -> LayeredNet:
    net = LayeredNet([(f"layer{i}", WeightedLayer(op)) for i, op in enumerate(ops)], (1, 1, 1))
    net.initialise(net.names, seed)
    return net


def test_two_of_four_agrees_with_torch() -> None:
    net = net_of(nn.Linear(16, 10))
    masks = pruning.shrink_in_groups(net, {}, {"layer0": 2}, patterns.parsed("N:4"), "magnitude", 0)
    theirs: Any = nn.Sequential(nn.Linear(16, 10))
    theirs[0].weight.data.copy_(net.op("layer0").weight)
    sparsifier = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2, norm=1)
    sparsifier.prepare(theirs, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    assert torch.equal(masks["layer0"], theirs[0].parametrizations.weight[0].mask.bool())


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 3),
    kernel=st.integers(1, 3),
    criterion=st.sampled_from(["magnitude", "random"]),
)
def test_n_of_m_inputs_stay_at_each_position_of_a_kernel(
    seed: int, n: int, kernel: int, criterion: pruning.Criterion
) -> None:
    net = net_of(nn.Conv2d(8, 5, kernel), nn.Conv2d(6, 3, kernel), seed=seed)
    stay = {"layer0": n, "layer1": n}
    first = pruning.shrink_in_groups(net, {}, stay, patterns.parsed("N:4"), criterion, seed)
    assert first.keys() == {"layer0"}, "six inputs are no multiple of four"
    weight, mask = net.op("layer0").weight.detach().numpy(), first["layer0"].numpy()
    for out, half, y, x in itertools.product(range(5), range(2), range(kernel), range(kernel)):
        inputs = slice(4 * half, 4 * half + 4)
        kept = mask[out, inputs, y, x]
        assert kept.sum() == n
        if criterion == "magnitude":
            largest = np.argsort(-np.abs(weight[out, inputs, y, x]), kind="stable")[:n]
            assert set(np.flatnonzero(kept)) == set(largest)
    fewer = pruning.shrink_in_groups(net, first, {"layer0": max(1, n - 1)}, patterns.parsed("N:4"), criterion, seed)
    assert not (fewer["layer0"] & ~first["layer0"]).any()


@settings(max_examples=50)
@given(
    seed=st.integers(0, 999),
    share=st.floats(0.05, 0.95),
    sizes=st.sampled_from([(1, 4), (4, 1), (2, 3), (3, 5)]),
    globally=st.booleans(),
)
def test_blocks_of_highest_mean_stay_whole(seed: int, share: float, sizes: tuple[int, int], globally: bool) -> None:
    net = net_of(nn.Conv2d(7, 6, 2), nn.Linear(9, 8), seed=seed)
    blocks = patterns.parsed(f"{sizes[0]}x{sizes[1]}")
    counts = {name: round(share * weight.numel()) for name, weight in net.weights().items()}
    if globally:
        masks = pruning.shrink_globally(net, {}, sum(counts.values()), "magnitude", 0, blocks)
        _blocks_are_right([(net.weights()[name], mask) for name, mask in masks.items()], sizes, sum(counts.values()))
    else:
        masks = pruning.shrink(net, {}, counts, "magnitude", 0, blocks)
        for name, mask in masks.items():
            _blocks_are_right([(net.weights()[name], mask)], sizes, counts[name])
    smaller = {name: int(mask.sum()) // 2 for name, mask in masks.items()}
    further = pruning.shrink(net, masks, smaller, "magnitude", 0, blocks)
    assert not any((further[name] & ~mask).any() for name, mask in masks.items())


def _blocks_are_right(parts: list[tuple[Tensor, Tensor]], sizes: tuple[int, int], keep: int) -> None:
    kept: list[tuple[float, int]] = []
    gone: list[tuple[float, int]] = []
    for weight, mask in parts:
        values = (
            weight.detach().double().abs().flatten(2) if weight.ndim > 2 else weight.detach().double().abs()[..., None]
        )
        stays = mask.reshape(values.shape)
        rows, columns = (range(0, length, size) for length, size in zip(values.shape, sizes, strict=False))
        for y, x, position in itertools.product(rows, columns, range(values.shape[2])):
            block = (slice(y, y + sizes[0]), slice(x, x + sizes[1]), position)
            assert stays[block].all() or not stays[block].any()
            (kept if stays[block].any() else gone).append((float(values[block].mean()), stays[block].numel()))
    total = sum(size for _, size in kept)
    assert total <= keep
    if gone:
        best = max(gone)
        assert total + best[1] > keep
        assert not kept or best[0] <= min(kept)[0]


def test_random_masks_have_a_seed_of_their_own() -> None:
    def masks(seed: int | None) -> pruning.Masks:
        params = SourcePruneParams(keep=0.5, criterion="random", retrain=None, mask_seed=seed)
        return unpack_main("small_alexnet", artifact(run("source_prune", params, source=parents()["reference"])))[1]

    own, zero, seven = masks(None), masks(0), masks(7)
    assert all(torch.equal(mask, zero[name]) for name, mask in own.items()), "the stage's seed is 0"
    assert not any(torch.equal(mask, seven[name]) for name, mask in own.items())
    assert all(mask.sum() == seven[name].sum() for name, mask in own.items())


def test_half_of_each_four_inputs_stays_through_training() -> None:
    params = TargetPruneParams(keep=0.5, pattern="N:4", retrain=RETRAIN)
    start = parents()["sparse"]
    net, masks = unpack_main("small_alexnet", artifact(run("target_prune", params, start=start)))
    assert torch.equal(masks.pop("conv1"), start.tensors["mask.conv1"]), "it has one input"
    for name in masks:
        groups = net.weights()[name].movedim(1, -1).reshape(-1, 4).count_nonzero(1)
        assert int(groups.max()) == 2


def test_steps_of_the_source_go_by_the_pattern(tiny_preset: Path) -> None:
    changes = {"source.prune.keep": 0.25, "source.prune.pattern": "N:4", "source.prune.steps": 3}
    changes |= {"target_prune.keep": [0.1], "target_prune.named": [0.1]}
    config = load_config(str(tiny_preset), {**changes, "source.prune.spacing": "linear"})
    assert [step.keep for step in config.source.prune.schedule("magnitude")] == [0.75, 0.5, 0.25]
    with pytest.raises(ConfigError, match=r"4 inputs, 2.52 would stay for the share 0.63: give 0.25, 0.5, 0.75"):
        load_config(str(tiny_preset), changes)


@pytest.mark.parametrize("keep", [0.2, dict.fromkeys(networks.layer_names("small_alexnet"), 0.1)])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_gradual_pruning_follows_the_cubic_schedule(keep: Any, scope: pruning.Scope) -> None:
    net = networks.fresh("small_alexnet", 10, 0)
    dense = networks.weight_counts("small_alexnet", 10)
    config = GradualConfig(begin=0.1, end=0.6, updates=5)
    params = SourcePruneParams(
        keep=keep, scope="layer" if isinstance(keep, dict) else scope, gradual=config, retrain=RETRAIN
    )
    gradual = Gradual(config, PruneStep(net, {}, params, dense, 0), lambda masks: None)
    assert [gradual.due(step / 20) for step in range(20)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, *[5] * 8]
    masks: pruning.Masks = {}
    for update in range(1, 6):
        smaller = gradual.step.masks(masks, update / 5)
        assert not any((mask & ~masks[name]).any() for name, mask in smaller.items() if name in masks)
        masks = smaller
        end = 0.1 if isinstance(keep, dict) else keep
        share = end + (1 - end) * (1 - update / 5) ** 3
        kept = pruning.kept_connections(net, masks)
        assert sum(kept.values()) == pytest.approx(share * sum(dense.values()), abs=len(dense))
        if isinstance(keep, dict):
            assert all(kept[name] == pytest.approx(share * dense[name], abs=1) for name in kept)


@pytest.mark.parametrize(
    "params",
    [
        TargetPruneParams(keep=0.1, gradual=GradualConfig(updates=7), retrain=RETRAIN),
        TargetPruneParams(keep=0.1, scope="global", pattern="2x2", gradual=GradualConfig(updates=7), retrain=RETRAIN),
    ],
)
def test_gradual_pruning_ends_where_it_is_to_end_and_resumes_to_the_bit(params: TargetPruneParams) -> None:
    start = parents()["sparse"]
    whole = run("target_prune", params, start=start)
    total = sum(networks.connection_counts("small_alexnet", 10).values())
    assert whole.metrics["connections"] == pytest.approx(0.1 * total, abs=4) and whole.metrics["connections"] <= round(
        0.1 * total
    )
    store = MemoryStore()
    with pytest.raises(Stopped):
        run("target_prune", params, StoppingSession(store, 3), start=start)
    resumed = Session(store, "cpu", checkpoint_seconds=0)
    again = run("target_prune", params, resumed, start=start)
    assert resumed.resumed_epochs in (2, 3)
    assert again.tensors.keys() == whole.tensors.keys()
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in whole.tensors.items())
    at_once = run("target_prune", params.model_copy(update={"gradual": None}), start=start)
    assert any(not torch.equal(tensor, at_once.tensors[key]) for key, tensor in whole.tensors.items())


def test_even_a_training_of_one_step_ends_at_its_share() -> None:
    train = RETRAIN.model_copy(update={"epochs": 1, "batch_size": 1000})
    params = TargetPruneParams(keep=0.1, gradual=GradualConfig(), retrain=train)
    total = sum(networks.connection_counts("small_alexnet", 10).values())
    assert run("target_prune", params, start=parents()["sparse"]).metrics["connections"] == round(0.1 * total)


def test_without_retraining_in_the_source_masks_shrink_during_the_transfer(tiny_preset: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"source.prune": {"keep": 0.2, "steps": 1, "gradual": {"updates": 4}, "retrain": None}}
    changes |= {"ablations": ["paper", "controls"], "seeds": 1, "target_prune.keep": [0.1], "target_prune.named": [0.1]}
    config = load_config(str(tiny_preset), changes)
    graph = plan(config)
    kinds = [stage.spec.kind for stage in graph.stages.values()]
    assert "source_prune" not in kinds and kinds.count("transfer") == 9
    outcome = run_study(config, "meanwhile", storage=str(tmp_path), slots=0, progress=False)
    assert outcome.failed == {}
    stages = pd.read_parquet(Path(outcome.folder) / "stages.parquet").set_index("stage")
    layers = pd.read_parquet(Path(outcome.folder) / "layers.parquet")
    fresh = networks.layer_names("small_alexnet")[-config.transfer.n_m :]
    for cell, key in graph.cells:
        if cell.keep is not None:
            continue
        own = layers[layers["stage"] == key].set_index("layer")
        lower = own.drop(index=fresh)
        share = lower["connections"].sum() / lower["connections_dense"].sum()
        assert share == pytest.approx(1 if cell.sparsity == "none" else 0.2, abs=1e-3)
        assert (own.loc[fresh, "connections"] == own.loc[fresh, "connections_dense"]).all()
        assert "S random" not in cell.net or stages.loc[key, "status"] == "done"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_prune.pattern": "2:4"}, "'2:4' is a share and a pattern: give keep 0.5 and pattern 'N:4'"),
        ({"target_prune.pattern": 124}, "'2:4' is a share and a pattern: give keep 0.5 and pattern 'N:4'"),
        (
            {"target_prune.pattern": "500x1", "target_prune.scope": "layer"},
            "target_prune.pattern: is 500x1: one block is more than 0.* of the .* connections of conv1, which",
        ),
        (
            {"source.prune.pattern": "100x1", "source.prune.keep": 0.2},
            "source.prune.pattern: is 100x1: one block is more than 0.2 of the 400 connections of conv1",
        ),
        ({"target_prune.pattern": "N:999"}, "give a multiple of 1/999 below 1"),
        ({"target_prune.pattern": "1x1"}, "no pattern '1x1': give N:4"),
        ({"target_prune.pattern": "blocks"}, "no pattern 'blocks': give N:4"),
        ({"target_prune.pattern": "N:4"}, "of each 4 inputs, .* would stay for the share"),
        (
            {
                "target_prune.pattern": "N:2",
                "target_prune.keep": [0.5],
                "target_prune.named": [0.5],
                "target_prune.scope": "global",
            },
            "is the same in every layer and at once",
        ),
        ({"source.prune.gradual": {}}, "gradual prunes within one training: set steps to 1"),
        ({"source.prune.gradual": {"begin": 0.8}}, "begin is 0.8, which is not before end, 0.75"),
        ({"target_prune.gradual": {"updates": 0}}, "updates"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str, tiny_preset: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(str(tiny_preset), {"source.prune.steps": 2, **changes})

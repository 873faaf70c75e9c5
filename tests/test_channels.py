"""Channels are removed from any network, and the smaller net computes what the larger one did with them at zero."""

import copy
import sys
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces.space import outside
from study import load_config, run_study
from study.config import ConfigError
from tests.runs import DATA, SOURCE, MemoryStore, Stopped, StoppingSession, artifact
from tests.test_any_network import DEEP, LARGE, OTHERS, QUICK, RESIDUAL, magnitude
from trainables import channels, networks, pruning
from trainables.artifacts import Artifact, pack, unpack_extra, unpack_main
from trainables.hybrid import HybridTransferNet, extra_branch
from trainables.hyperparameters import (
    KnowledgeConfig,
    KnowledgeParams,
    NeuronPruneParams,
    ReferenceParams,
    StageParams,
    StageSpec,
    TrainConfig,
    TransferParams,
)
from trainables.latency import after_each_step
from trainables.sessions import Session
from trainables.stages import run_stage

TRAIN = TrainConfig(epochs=2, learning_rate=0.05, batch_size=20)
WITHOUT = "torchvision:shufflenet_v2_x1_0?input=3x64x64"
NETWORKS = [
    "small_alexnet",
    *QUICK,
    *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS if name not in (WITHOUT, *DEEP)),
    *(pytest.param(name, marks=pytest.mark.full) for name in (*DEEP, *LARGE)),
]


def hybrid(name: str) -> tuple[HybridTransferNet, pruning.Masks]:
    """A pruned net with an extra branch on half of its layers; BatchNorm as after some training."""
    main, reference = networks.fresh(name, 5, seed=0), networks.fresh(name, 7, seed=1)
    generator = torch.Generator().manual_seed(0)
    for module in main.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(len(module.running_mean), generator=generator) / 10)
            module.running_var.copy_(torch.rand(len(module.running_var), generator=generator) + 0.5)
            nn.init.constant_(module.bias, 0.1)
    masks = magnitude(main, 0.5)
    pruning.apply(main, masks)
    return HybridTransferNet(main, extra_branch(reference, max(1, len(main.names) // 2))).eval(), masks


def images(net: HybridTransferNet) -> Tensor:
    return torch.rand(4, *net.main.input_shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def silence(net: HybridTransferNet, left: dict[str, int], scores: dict[str, Tensor]) -> None:
    """Zeros in place of removal, at every weight that takes a channel."""
    for name, group in channels._groups(net, left).items():
        gone = scores[name].argsort(stable=True)[: len(scores[name]) - left[name]].tolist()
        for module, inputs, _ in group.outgoing(group.of(gone)):
            module.get_parameter("weight")[:, inputs] = 0


@pytest.mark.parametrize("name", NETWORKS)
def test_removal_equals_silencing(name: str) -> None:
    small, masks = hybrid(name)
    x = images(small)
    left = channels.schedule(channels.widths(name), 0.3)[0]
    scores = channels.scores(small, left, "activation", [x])
    silenced = copy.deepcopy(small)
    silence(silenced, left, scores)
    smaller = channels.remove_to(small, masks, left, scores)
    with torch.no_grad():
        ours, theirs = small(x), silenced(x)
    for a, b in ((ours.main, theirs.main), (ours.extra, theirs.extra)):
        assert a is not None and b is not None
        assert (a - b).abs().max() <= 1e-5 * max(1.0, float(b.abs().max()))
    weights = small.main.weights()
    assert all(
        weights[weight].shape == mask.shape and not weights[weight][~mask].any() for weight, mask in smaller.items()
    )
    assert {weight: len(weights[weight]) for weight in left} == left
    stored = Artifact(pack(small, smaller))
    again = HybridTransferNet(unpack_main(name, stored)[0], unpack_extra(name, stored)).eval()
    with torch.no_grad():
        read = again(x)
    assert torch.equal(read.main, ours.main)
    assert read.extra is not None and ours.extra is not None and torch.equal(read.extra, ours.extra)
    # What is stored can lose more.
    further = channels.schedule(channels.widths(name), 0.3)[1]
    channels.remove_to(again, {}, further, channels.scores(again, further, "magnitude", []))
    assert again(x).main.shape == (4, 5)


def test_hidden_neurons_alone_leave_a_transformer() -> None:
    vit = list(QUICK)[-1]
    assert channels.widths(vit) == {"blocks.0.mlp.fc1": 128, "blocks.1.mlp.fc1": 128}


def test_a_network_without_such_channels_is_refused(tiny_preset: Path) -> None:
    assert channels.widths(WITHOUT) == {}
    pruning_ = {"channels_per_step": 0.3, "images_per_class": 2, "retrain": TRAIN.model_dump()}
    changes = {"network": "tests.test_channels:normalised?input=1x24x24", "neuron_prune": pruning_}
    with pytest.raises(
        ConfigError, match="has no channels that can be removed by themselves: set neuron_prune to null"
    ):
        load_config(str(tiny_preset), changes)


def normalised(classes: int) -> nn.Module:
    mixing = nn.GroupNorm(1, 8)
    return nn.Sequential(nn.Conv2d(1, 8, 5, stride=5), mixing, nn.Flatten(), nn.Linear(128, classes))


def test_activations_are_means_of_absolute_inputs_over_images_and_positions() -> None:
    net, _ = hybrid("small_alexnet")
    x = images(net)
    found = channels.scores(net, ["conv2", "conv5", "fc6"], "activation", [x[:1], x[1:]])
    with torch.no_grad():
        expected = {depth: net.main.run(x, 0, depth).double() for depth in (2, 5, 6)}
    for layer, means in {
        "conv2": expected[2].mean((0, 2, 3)),
        "conv5": expected[5].mean((0, 2, 3)),
        "fc6": expected[6].mean(0),
    }.items():
        torch.testing.assert_close(found[layer], means, rtol=1e-5, atol=1e-5)


def test_magnitudes_are_norms_of_all_weights_of_a_channel() -> None:
    net, _ = hybrid("small_alexnet")
    found = channels.scores(net, ["fc6"], "magnitude", [])["fc6"]
    lower, upper = net.main.op("fc6"), net.main.op("fc7")
    squares = lower.weight.double().square().sum(1) + upper.weight.double().square().sum(0)
    assert found.argsort().tolist() == squares.argsort().tolist()


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(2, 300), min_size=1, max_size=4),
    st.floats(0.02, 0.9),
    st.sampled_from([1, 4, 8]),
)
def test_each_step_leaves_its_share_rounded_up(dense: dict[str, int], share: float, round_to: int) -> None:
    steps = channels.schedule(dense, share, round_to)
    for before, after in zip([dense, *steps], steps, strict=False):
        assert after != before and all(after[name] <= before[name] for name in dense)
    for after in steps:
        assert all(n % round_to == 0 or n == dense[name] for name, n in after.items())
    assert not steps or steps[-1] == {name: min(width, round_to) for name, width in dense.items()}
    if round_to == 1 and max(dense.values()) * share > 1:
        assert steps[0] == {name: ceil(width * (1 - share) - 1e-9) for name, width in dense.items()}


def _stage(
    params: StageParams, parents: Mapping[str, Artifact] = MappingProxyType({}), session: Session | None = None
) -> Artifact:
    images_, seed = (SOURCE, 0) if params.kind == "reference" else (DATA, None if params.kind == "knowledge" else 0)
    spec = StageSpec(kind=params.kind, network=RESIDUAL, data=images_, seed=seed, params=params)
    return artifact(run_stage(spec, parents, session or Session()))


@pytest.fixture(scope="module")
def nets() -> dict[str, Artifact]:
    reference = _stage(ReferenceParams(train=TRAIN))
    known = _stage(KnowledgeParams(), {"reference": reference})
    params = TransferParams(n_m=1, n_e=2, knowledge=KnowledgeConfig(tau=4, lambda_=1), train=TRAIN)
    start = _stage(params, {"source": reference, "reference": reference, "knowledge": known})
    return {"start": start, "standard": start, "knowledge": known}


def test_channels_go_until_accuracy_falls_and_a_killed_stage_resumes(nets: dict[str, Artifact]) -> None:
    params = NeuronPruneParams(
        channels_per_step=0.4,
        images_per_class=2,
        tolerance=25,
        knowledge=KnowledgeConfig(tau=4, lambda_=1),
        retrain=TRAIN,
    )
    whole = _stage(params, nets)
    assert whole.metrics["rounds"] >= 2
    store = MemoryStore()
    with pytest.raises(Stopped):
        _stage(params, nets, StoppingSession(store, 3))
    resumed = _stage(params, nets, Session(store, "cpu", checkpoint_seconds=0))
    assert all(torch.equal(tensor, resumed.tensors[key]) for key, tensor in whole.tensors.items())
    assert whole.metrics == resumed.metrics


def test_single_steps_lead_to_the_same_shapes(nets: dict[str, Artifact]) -> None:
    params = {"channels_per_step": 0.4, "images_per_class": 2, "round_to": 2, "retrain": TRAIN}
    net = nets["start"]
    for step in (1, 2):
        net = _stage(NeuronPruneParams.model_validate({**params, "step": step}), {"start": net})
    shapes = {name: len(weight) for name, weight in unpack_main(RESIDUAL, net)[0].weights().items()}
    assert shapes.items() >= channels.schedule(channels.widths(RESIDUAL), 0.4, 2)[1].items()
    drawn = after_each_step(RESIDUAL, 10, NeuronPruneParams.model_validate({**params, "step": 1}), 2)[-1]
    assert {name: len(weight) for name, weight in drawn.weights().items()} == shapes


def test_a_study_removes_channels_and_table_2_says_what_is_left(tiny_preset: Path, tmp_path: Path) -> None:
    pruning_ = {"channels_per_step": 0.3, "steps": 2, "images_per_class": 2, "retrain": TRAIN.model_dump()}
    changes = {"network": RESIDUAL, "neuron_prune": pruning_, "seeds": 1, "source.prune.steps": 1}
    config = load_config(str(tiny_preset), changes)
    assert "no layer has channels left after" in dict(outside(config, against="latency"))["search.neuron_steps"]
    outcome = run_study(config, "channels", storage=str(tmp_path), slots=0, progress=False)
    assert outcome.failed == {}
    table = pd.read_csv(Path(outcome.report).parent / "table2.csv").set_index("layer")
    left = channels.schedule(channels.widths(RESIDUAL), 0.3)[1]
    assert {name: float(str(table.loc[name, "neurons_mean"])) for name in left} == left
    assert table.loc["stem.0", "neurons_before_mean"] == 8 and "Output" in table.index and "Total" in table.index


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels_per_step": 0.3, "steps": 99}, "is 99, but the layers have channels for"),
        ({"round_to": 8}, "importance and round_to are those of channels: give channels_per_step, too"),
        (
            {},
            "has no hidden inner products with neurons to remove: set neuron_prune to null, or give channels_per_step",
        ),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], said: str, tiny_preset: Path) -> None:
    pruning_ = {"images_per_class": 2, "retrain": TRAIN.model_dump(), **changes}
    with pytest.raises(ConfigError, match=said):
        load_config(str(tiny_preset), {"network": RESIDUAL, "neuron_prune": pruning_})


def test_a_node_without_the_package_does_not_take_a_network_for_one_without_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError):
        channels.widths.__wrapped__(RESIDUAL)


def test_without_the_package_its_installation_is_asked_for(tiny_preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "installed", lambda: False)
    pruning_ = {"channels_per_step": 0.3, "images_per_class": 2, "retrain": TRAIN.model_dump()}
    with pytest.raises(ConfigError, match=r"needs the package torch-pruning: pip install"):
        load_config(str(tiny_preset), {"neuron_prune": pruning_})

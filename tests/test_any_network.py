"""Any network: what is traced computes what its authors wrote, and does all that the paper's nets do."""

import re
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn.utils import prune

from search_spaces.space import outside
from study import load_config, run_study
from study.commands.export import read
from study.config import ConfigError
from study.graph import plan
from study.networks import main as show_network
from tests.own import residual
from tests.runs import DATA, SOURCE, MemoryStore, Stopped, StoppingSession, artifact
from trainables import networks, objects, pruning, weights
from trainables.artifacts import Artifact, pack, unpack_extra, unpack_main
from trainables.context import StageContext
from trainables.export import choosing, whole
from trainables.hybrid import HybridTransferNet, extra_branch, extra_loss, main_loss, transfer_main_branch
from trainables.hyperparameters import (
    KnowledgeConfig,
    KnowledgeParams,
    ReferenceParams,
    SourcePruneParams,
    StageParams,
    StageSpec,
    TargetPruneParams,
    TrainConfig,
    TransferParams,
    WeightsConfig,
)
from trainables.layers import LayeredNet
from trainables.optimisation import descend, masked_weights
from trainables.results import StageResult
from trainables.seeds import derive
from trainables.sessions import Session
from trainables.stages import run_stage
from trainables.weight_names import WeightsError

RESIDUAL = "tests.own:residual"
QUICK = {
    RESIDUAL: 4,
    "torchvision:mobilenet_v3_small?input=3x32x32": 28,
    "torchvision:resnet18?input=3x32x32": 10,
    "timm:vit_tiny_patch16_224?input=1x24x24&img_size=24&in_chans=1&patch_size=6&embed_dim=32&depth=2&num_heads=2": 6,
}
OTHERS = {
    "timm:convnext_atto?input=3x64x64": 17,
    "timm:deit_tiny_patch16_224?input=3x32x32&img_size=32&drop_path_rate=0.1": 26,
    "timm:efficientnet_lite0?input=3x64x64": 32,
    "torchvision:convnext_tiny?input=3x64x64": 23,
    "torchvision:densenet121?input=3x64x64": 9,
    "torchvision:efficientnet_b0?input=3x64x64": 39,
    "torchvision:mobilenet_v2?input=3x64x64": 33,
    "torchvision:regnet_y_400mf?input=3x64x64": 18,
    "torchvision:resnet50?input=3x64x64": 18,
    "torchvision:shufflenet_v2_x1_0?input=3x64x64": 19,
    "torchvision:squeezenet1_1?input=3x64x64": 18,
    "torchvision:swin_t?input=3x64x64": 29,
}
"""Networks by name, with N."""
LARGE = {
    "torchvision:vgg16_bn?input=3x32x32": 16,
    "torchvision:vit_b_16?input=3x32x32&image_size=32": 26,
    "torchvision:wide_resnet50_2?input=3x64x64": 18,
}
"""The same, of 87 to 134 million weights: of each kind there is a smaller one above."""
ARCHITECTURES = [
    *QUICK.items(),
    *(pytest.param(name, depth, marks=pytest.mark.slow) for name, depth in OTHERS.items()),
    *(pytest.param(name, depth, marks=pytest.mark.full) for name, depth in LARGE.items()),
]
DEEP = [name for name in OTHERS if re.search("swin_t|densenet121|convnext_tiny|resnet50", name)]
"""Whole trainings of these take minutes; of each kind but Swin and DenseNet there is a smaller network."""
TRAINED = [
    *QUICK.items(),
    *(pytest.param(name, depth, marks=pytest.mark.slow) for name, depth in OTHERS.items() if name not in DEEP),
    *(pytest.param(name, (OTHERS | LARGE)[name], marks=pytest.mark.full) for name in (*DEEP, *LARGE)),
]


def plain(name: str, classes: int, seed: int) -> nn.Module:
    """The module as its authors wrote it, with the weights that the traced one has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "initialise"))
        return networks.find(name)(classes)


def images(net: LayeredNet, count: int) -> Tensor:
    return torch.rand(count, *net.input_shape, generator=torch.Generator().manual_seed(0))


def magnitude(net: LayeredNet, keep: float) -> pruning.Masks:
    return pruning.shrink(net, {}, {name: ceil(keep * w.numel()) for name, w in net.weights().items()}, "magnitude", 0)


@pytest.mark.parametrize(("name", "depth"), ARCHITECTURES)
def test_a_traced_network_is_the_one_that_its_authors_wrote(name: str, depth: int) -> None:
    net, theirs = networks.fresh(name, 5, seed=0).eval(), plain(name, 5, seed=0).eval()
    assert len(net.names) == depth == len(networks.layer_names(name))
    state = theirs.state_dict()
    assert net.tensors().keys() == state.keys()
    assert all(torch.equal(home.tensor, state[key]) for key, home in net.tensors().items())
    x = images(net, 2)
    with torch.no_grad():
        whole = theirs(x)
        assert torch.equal(net(x), whole)
        assert all(torch.equal(net.run(net.run(x, 0, k), k, depth), whole) for k in range(depth + 1))
    connections = [
        module.weight.numel()
        for module in theirs.modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not isinstance(module, nn.MultiheadAttention)
    ]
    attention = [m.in_proj_weight.numel() for m in theirs.modules() if isinstance(m, nn.MultiheadAttention)]
    assert sum(networks.connection_counts(name, 5).values()) == sum(connections) + sum(attention)
    networks.examine(name)


@pytest.mark.parametrize(("name", "depth"), TRAINED)
def test_a_traced_network_is_transferred_pruned_and_stored(name: str, depth: int) -> None:
    reference = networks.fresh(name, 7, seed=0).eval().requires_grad_(False)
    masks = magnitude(reference, 0.3)
    for weight, tensor in reference.weights().items():
        module = nn.Module()
        module.weight = nn.Parameter(tensor.clone())
        prune.l1_unstructured(module, "weight", amount=tensor.numel() - int(masks[weight].sum()))
        # Of weights with one magnitude either may go.
        left = (tensor * masks[weight]).abs().flatten().sort().values
        assert torch.equal(left, module.weight.abs().flatten().sort().values)
    top = networks.fresh(name, 5, seed=1, top=2)
    main, kept = transfer_main_branch(reference, masks, top)
    new = networks.fresh(name, 5, seed=1).tensors()
    old, fresh = reference.tensors(), top.tensors()
    for key, home in main.tensors().items():
        assert torch.equal(home.tensor, new[key].tensor if key in fresh else old[key].tensor)
    assert kept.keys() == main.weights().keys() - top.weights().keys()
    net = HybridTransferNet(main.requires_grad_(True), extra_branch(reference, 2).requires_grad_(True))
    frozen = {key: home.tensor.clone() for key, home in reference.tensors().items()}
    _take_steps(net, kept, reference)
    weights = net.main.weights()
    assert all(not weights[key][~mask].any() for key, mask in kept.items())
    assert all(torch.equal(frozen[key], home.tensor) for key, home in reference.tensors().items())
    for branch in (net.main, net.extra):
        assert branch is not None
        for key, home in branch.tensors().items():
            if key.endswith("running_mean"):
                assert not torch.equal(home.tensor, frozen[key]), f"each branch has statistics of its own: {key}"
    stored = Artifact(pack(net, kept))
    again, masks_again = unpack_main(name, stored)
    extra = unpack_extra(name, stored)
    assert extra is not None and extra.names == reference.names[-2:] and masks_again.keys() == kept.keys()
    x = images(again, 2)
    theirs = plain(name, 5, seed=9)
    theirs.load_state_dict({key.removeprefix("main."): t for key, t in stored.tensors.items() if key[:5] == "main."})
    with torch.no_grad():
        net.eval()
        assert torch.equal(again.eval()(x), net.main(x)) and torch.equal(theirs.eval()(x), net.main(x))


def _take_steps(net: HybridTransferNet, masks: pruning.Masks, reference: LayeredNet) -> None:
    pruning.apply(net.main, masks)
    x, labels = images(net.main, 6), torch.arange(6) % 5
    with torch.no_grad():
        knowledge = reference(x)
    for make in (torch.optim.SGD, torch.optim.AdamW):
        options: dict[str, Any] = {"momentum": 0.9} if make is torch.optim.SGD else {}
        optimizer = make(net.parameters(), lr=1e-3, weight_decay=1e-2, **options)
        for step in range(2 if options else 1):
            for branch in (net.main, net.extra):
                assert branch is not None
                branch.set_dropout(None)
                branch.seed_dropout(0, step)
            net.train()
            optimizer.zero_grad()
            output = net(x)
            assert output.extra is not None
            (main_loss(output.main, labels) + extra_loss(output.extra, knowledge, 4.0)).mean().backward()
            descend(optimizer, 1e-3, masked_weights(net.main, masks))


def test_the_extra_loss_reaches_the_layers_below_the_extra_branch_alone() -> None:
    reference = networks.fresh(RESIDUAL, 7, seed=0).eval()
    main = networks.fresh(RESIDUAL, 5, seed=1).eval()
    net = HybridTransferNet(main, extra_branch(reference, 2))
    x = images(main, 4)
    output = net(x)
    assert output.extra is not None
    extra_loss(output.extra, reference(x).detach(), 4.0).mean().backward()
    reached = [name for name in main.names if any(p.grad is not None for p in main.layer(name).parameters())]
    assert reached == main.names[:-2] == ["stem.0", "blocks.0"]


@pytest.mark.slow
def test_torchvisions_alexnet_traced_is_ours_to_the_last_bit() -> None:
    traced, ours = (networks.fresh(name, 5, seed=0) for name in ("torchvision:alexnet?input=3x64x64", "alexnet"))
    for theirs, home in zip(traced.tensors().values(), ours.tensors().values(), strict=True):
        theirs.tensor.data.copy_(home.tensor)
    masks = [magnitude(net, 0.1) for net in (traced, ours)]
    x, labels = images(traced, 4), torch.arange(4) % 5
    for net, own in zip((traced, ours), masks, strict=True):
        pruning.apply(net, own)
        net.set_dropout(0.5)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        for step in range(2):
            for position, dropout in enumerate(d for layer in net.dropouts().values() for d in layer):
                dropout.generator = torch.Generator().manual_seed(10 * step + position)
            optimizer.zero_grad()
            main_loss(net.train()(x), labels).mean().backward()
            descend(optimizer, 0.01, masked_weights(net, own))
    pairs = zip(traced.tensors().values(), ours.tensors().values(), strict=True)
    assert all(torch.equal(one.tensor, other.tensor) for one, other in pairs)
    assert networks.inner_product_widths("torchvision:alexnet") == {"classifier.1": 4096, "classifier.4": 4096}


TRAIN = TrainConfig(epochs=3, learning_rate=0.05, batch_size=20, dropout=None)
KNOWLEDGE = KnowledgeConfig(tau=4, lambda_=1)


def stages(name: str) -> Iterator[tuple[StageSpec, dict[str, int]]]:
    """The paper's pipeline: stages, and which earlier ones are their parents."""

    def spec(params: StageParams, data: Any = DATA, seed: int | None = 0) -> StageSpec:
        return StageSpec(kind=params.kind, network=name, data=data, seed=seed, params=params)

    yield spec(ReferenceParams(train=TRAIN), SOURCE), {}
    yield spec(SourcePruneParams(keep=0.4, scope="global", retrain=TRAIN), SOURCE), {"source": 0}
    yield spec(KnowledgeParams(), seed=None), {"reference": 0}
    transfer = TransferParams(n_m=2, n_e=2, knowledge=KNOWLEDGE, train=TRAIN)
    yield spec(transfer), {"source": 1, "reference": 0, "knowledge": 2}
    yield spec(TargetPruneParams(keep=0.1, knowledge=KNOWLEDGE, retrain=TRAIN)), {"start": 3, "knowledge": 2}


@pytest.mark.parametrize("name", [RESIDUAL, list(QUICK)[-1]])
def test_the_papers_pipeline_killed_and_resumed_is_the_same(name: str) -> None:
    results: list[StageResult] = []
    for spec, roles in stages(name):
        parents = {role: artifact(results[index]) for role, index in roles.items()}
        undisturbed = run_stage(spec, parents, Session())
        if spec.kind != "knowledge":
            store = MemoryStore()
            with pytest.raises(Stopped):
                run_stage(spec, parents, StoppingSession(store, 2))
            resumed = StoppingSession(store, 99)
            again = run_stage(spec, parents, resumed)
            assert resumed.resumed_epochs in (1, 2)
            assert again.tensors.keys() == undisturbed.tensors.keys()
            assert all(torch.equal(tensor, undisturbed.tensors[key]) for key, tensor in again.tensors.items())
            assert again.metrics == undisturbed.metrics
        results.append(undisturbed)
    last = results[-1]
    assert last.metrics["prune_percent"] == pytest.approx(90, abs=0.1)
    assert sum(row["connections"] for row in last.layers) == last.metrics["connections"]
    assert [row["layer"] for row in last.layers] == list(networks.fresh(name, 10, 0).weights())
    masks = {key.removeprefix("mask."): mask for key, mask in last.tensors.items() if key.startswith("mask.")}
    for key, mask in masks.items():
        stored = last.tensors.get(f"main.{key}.weight", last.tensors.get(f"main.{key}"))
        assert stored is not None and not stored[~mask].any()


def test_shares_by_layer_are_kept_by_each_of_its_weights() -> None:
    reference = artifact(run_stage(next(stages(RESIDUAL))[0], {}, Session()))
    keep = {"stem.0": 0.9, "blocks.0": 0.5, "blocks.1": 0.25, "head": 0.75}
    params = SourcePruneParams(keep=keep, retrain=TRAIN)
    spec = StageSpec(kind="source_prune", network=RESIDUAL, data=SOURCE, seed=0, params=params)
    rows = run_stage(spec, {"source": reference}, Session()).layers
    shares = {row["layer"]: row["connections"] / row["connections_dense"] for row in rows}
    assert shares == pytest.approx(
        {"stem.0": 65 / 72, "blocks.0.first.0": 0.5, "blocks.0.second.0": 0.5}
        | {"blocks.1.first.0": 0.25, "blocks.1.second.0": 0.25, "head": 0.75}
    )


class Branching(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        scores: Tensor = self.head((x if x.sum() > 0 else -x).mean((2, 3)))
        return scores


class FunctionalDropout(Branching):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(nn.functional.dropout(self.conv(x), 0.5, self.training).mean((2, 3)))
        return scores


class HiddenDropout(nn.Module):
    """Draws within a module that is taken whole."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


class Tied(Branching):
    def forward(self, x: Tensor) -> Tensor:
        once = self.conv(x).mean(1, keepdim=True)
        scores: Tensor = self.head(self.conv(once).mean((2, 3)))
        return scores


class OneLayer(Branching):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(x.mean((2, 3)).repeat(1, 4)) + self.conv(x).mean((1, 2, 3))[:, None]
        return scores


class Otherwise(Branching):
    """Computes something else where it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head((self.conv(x) * (1 if isinstance(x, fx.Proxy) else 2)).mean((2, 3)))
        return scores


def hidden_dropout(classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), HiddenDropout(), nn.Flatten(), nn.Linear(144, classes))


def attention_dropout(classes: int) -> nn.Module:
    net = Branching(classes)
    net.attention = nn.MultiheadAttention(4, 2, dropout=0.1)
    return net


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("Branching", r"its forward depends on its input .*: move what depends on it into a module of its own"),
        ("FunctionalDropout", r"computes something else in training \(dropout\): move it into a module of its own"),
        ("hidden_dropout", "its 0 draws random numbers that cannot be seeded|its 3 draws random numbers"),
        ("Otherwise", "its layers return another output than the module as a whole"),
        ("Tied", "two of its layers share conv"),
        ("OneLayer", "is one layer"),
        ("attention_dropout", "the attention attention has dropout of its own, which cannot be seeded: set it to 0"),
    ],
)
def test_what_cannot_be_traced_is_refused_with_its_place(function: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        networks.examine(f"tests.test_any_network:{function}?input=1x8x8")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("torchvision:resnet19", KeyError, "torchvision has no classifier 'resnet19': did you mean 'resnet18'"),
        ("timm:resnet19", KeyError, "timm has no model 'resnet19'"),
        ("torchvision:resnet18?input=3x32", KeyError, "give channels, height and width, such as input=3x224x224"),
        ("torchvision:resnet18?width=2", TypeError, "unexpected keyword argument 'width'"),
        ("torchvision:resnet18?input=1x32x32", ValueError, "cannot take images of 1 x 32 x 32"),
        ("torchvision:inception_v3?input=3x96x96&init_weights=true", ValueError, r"\?aux_logits=false"),
    ],
)
def test_a_wrong_name_is_explained(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        networks.examine(name)


def test_dropout_has_the_rate_asked_for_or_the_networks_own_and_what_is_off_stays_off() -> None:
    net = networks.fresh(RESIDUAL, 5, seed=0)
    rates = {}
    for rate in (None, 0.1):
        net.set_dropout(rate, {"head": 0.25})
        rates[rate] = [dropout.rate for layer in net.dropouts().values() for dropout in layer]
    assert rates == {None: [0.2, 0.2, 0.15], 0.1: [0.2, 0.2, 0.05]}
    vit = networks.fresh(list(QUICK)[-1], 5, seed=0)
    vit.set_dropout(0.5)
    assert {dropout.rate for layer in vit.dropouts().values() for dropout in layer} == {0.0}


def test_stochastic_depth_drops_whole_branches_as_torchvisions_does() -> None:
    net = networks.fresh(RESIDUAL, 5, seed=0)
    net.set_dropout(None)
    net.seed_dropout(0)
    ours = net.dropouts()["blocks.0"][0].train()
    drawn = ours(torch.ones(4000, 3, 2, 2))
    kept = drawn[:, 0, 0, 0]
    assert torch.equal(drawn, kept[:, None, None, None].expand_as(drawn))
    assert set(kept.tolist()) == set(torchvision.ops.stochastic_depth(torch.ones(99, 1), 0.2, "row").flatten().tolist())
    assert (kept == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("format_", ["safetensors", "pt2", "onnx"])
def test_a_traced_net_is_exported_as_it_is(format_: str, tmp_path: Path) -> None:
    net = networks.fresh(RESIDUAL, 5, seed=0)
    pruning.apply(net, magnitude(net, 0.3))
    x = images(net, 5)
    net.train()(x)
    path = tmp_path / f"net.{format_}"
    path.write_bytes(whole.encode(RESIDUAL, net.eval(), format_))
    with torch.no_grad():
        right, given = net(x), read(path, format_, 1, traced=True)(x)
    torch.testing.assert_close(given, right, atol=1e-5, rtol=1e-5)
    assert format_ == "onnx" or torch.equal(given, right)


ONNX = [
    *(pytest.param(name, marks=pytest.mark.full if "mobilenet" in name else pytest.mark.slow) for name in QUICK),
    *(pytest.param(name, marks=pytest.mark.full) for name in OTHERS | LARGE),
]
"""PyTorch takes up to a minute to export one."""


@pytest.mark.parametrize("name", ONNX)
def test_onnx_computes_what_pytorch_does(name: str) -> None:
    net = networks.fresh(name, 5, seed=0).eval()
    x = images(net, 3)
    with torch.no_grad():
        right = net(x)
    given = choosing.OnnxSession(whole.encode(name, net, "onnx"), 1)(x)
    assert (given - right).abs().max() <= 1e-4 * max(1.0, float(right.abs().max()))


def test_pretrained_weights_are_taken_by_their_names(tmp_path: Path) -> None:
    theirs, net = plain(RESIDUAL, 7, seed=3), networks.fresh(RESIDUAL, 5, seed=0)
    theirs.train()(images(net, 4))
    fresh_head = net.weights()["head"].clone()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "net.pth")
    weights.load_into(net, WeightsConfig(file=str(tmp_path / "net.pth")), None)
    state = theirs.state_dict()
    for key, home in net.tensors().items():
        if home.tensor.is_floating_point() and not key.startswith("head"):
            assert torch.equal(home.tensor, state[key]), key
    assert torch.equal(net.weights()["head"], fresh_head)
    before = {key: home.tensor.clone() for key, home in net.tensors().items()}
    state["more.weight"] = state.pop("stem.1.running_var")
    state["blocks.0.first.0.weight"] = torch.zeros(8, 4, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError) as caught:
        weights.load_into(net, WeightsConfig(file=str(tmp_path / "other.pth")), ["0", "1"])
    for line in (
        "the network has no place for the file's more.weight",
        "stem.1.running_var is not in the file",
        "blocks.0.first.0.weight is 8 x 8 x 3 x 3, the file's blocks.0.first.0.weight is 8 x 4 x 3 x 3",
        "head.weight is 5 x 8, the file's head.weight is 7 x 8",
    ):
        assert f"\n- {line}" in str(caught.value)
    assert all(torch.equal(before[key], home.tensor) for key, home in net.tensors().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "neuron_prune: tests.own:residual has no hidden inner products with neurons to remove: set",
        ),
        (
            {"neuron_prune": None, "resources.workers": 2},
            "resources.workers: is 2, but tests.own:residual normalises",
        ),
        ({"neuron_prune": None, "resources.images_a_pass": 5}, "resources.images_a_pass: is 5, but tests.own"),
        ({"neuron_prune": None, "transfer.n_e": 4}, "has N = 4 layers: give 1 to 3"),
        (
            {"neuron_prune": None, "source.prune.keep": {"stem.0": 0.5}},
            "source.prune.keep: must name each layer of tests.own:residual: stem.0, blocks.0, blocks.1, head",
        ),
    ],
)
def test_settings_that_such_a_network_cannot_have_are_refused(
    tiny_preset: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(str(tiny_preset), {"network": RESIDUAL, **changes})


def test_a_search_needs_a_number_for_dropout(tiny_preset: Path) -> None:
    changes = {"network": RESIDUAL, "neuron_prune": None, "transfer.train.dropout": None}
    problems = dict(outside(load_config(str(tiny_preset), changes), against="share"))
    assert problems["transfer.train.dropout"] == "is null, the network's own: a search needs a number"
    assert "removes neurons" in dict(outside(load_config(str(tiny_preset), changes), against="latency"))["neuron_prune"]


def test_the_command_shows_the_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_network([RESIDUAL, "--classes", "5"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"\n +2 +3 +blocks\.0 +blocks\.0\.first\.0 +8 x 8 x 3 x 3 +576 +69,696\n", shown)
    assert "N = 4, 2,416 connections" in shown and "It normalises batches" in shown
    assert "Its dropout has the rate 0.3" in shown and "drops 2 branches" in shown
    assert show_network(["small_alexnett"]) == 2
    assert "no network 'small_alexnett'" in capsys.readouterr().err


def narrow(width: int) -> Callable[[int], nn.Module]:
    """A function that no other process can import."""

    def build(classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(1, width, 5, stride=4), nn.BatchNorm2d(width), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Sequential(nn.Flatten(), nn.Linear(width, classes)),
        )

    return build


def sized(*sizes: Any) -> Callable[[int], nn.Module]:
    first, *others = sizes
    second, third = [*others, None, None][:2]

    def build(classes: int, width: Any = first) -> nn.Module:
        return nn.Linear(len([width, second, third]), classes)

    return build


def test_a_function_is_named_by_its_text_and_what_the_text_uses() -> None:
    names = [objects.named(function) for function in (narrow(4), narrow(4), narrow(5))]
    assert names[0] == names[1] != names[2] and re.fullmatch(r"object:build-[0-9a-f]{12}", names[0])
    assert objects.named(residual) == RESIDUAL
    # Equal values count as often as they are used, and so do those in containers and defaults.
    alike = [sized(*sizes) for sizes in ((8, 8, 9), (8, 9, 9), (8, 9, 8), ([8], 9), ([9], 9), ({"a": 8},), ({"a": 9},))]
    assert len({objects.named(function) for function in alike}) == len(alike)
    assert networks.digest(f"{names[0]}?input=1x24x24") != networks.digest(f"{names[2]}?input=1x24x24")
    with pytest.raises(KeyError, match="was given from Python, and is not known here"):
        networks.examine("object:build-0123456789ab")


@pytest.mark.slow
def test_a_study_of_a_network_that_is_given_from_python(tiny_preset: Path, tmp_path: Path) -> None:
    build = narrow(4)
    build.input_shape = (1, 24, 24)  # type: ignore[attr-defined]
    changes = {"network": build, "neuron_prune": None, "transfer.n_e": 1, "source.prune.steps": 1}
    config = load_config(str(tiny_preset), changes)
    outcome = run_study(config, "own", storage=str(tmp_path), slots=2, progress=False)
    assert not outcome.failed and outcome.results.stages["network"].unique().tolist() == [config.network]
    assert outcome.results.stages["test_accuracy"].notna().sum() == len(outcome.results.stages) - 1
    tables = {path.stem for path in Path(outcome.report).parent.glob("*.md")}
    assert {"table1", "table3"} <= tables and "table2" not in tables
    again = run_study(load_config(str(tiny_preset), changes), "again", storage=str(tmp_path), slots=0, progress=False)
    assert "nothing to train" in again.summary


def test_recalibrated_statistics_are_those_of_the_images() -> None:
    spec, _ = next(stages(RESIDUAL))
    train = TRAIN.model_copy(update={"recalibrate": 1000, "epochs": 1})
    spec = spec.model_copy(update={"params": ReferenceParams(train=train)})
    tensors = run_stage(spec, {}, Session()).tensors
    seen_ = StageContext(spec, {}, Session()).images()
    seen = torch.cat(list(seen_.centred(seen_.train)))
    with torch.no_grad():
        values = nn.functional.conv2d(seen, tensors["main.stem.0.weight"], stride=2).double()
    mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3))
    # Batch normalisation adds thousands of float32 up, on each processor in another order.
    torch.testing.assert_close(tensors["main.stem.1.running_mean"].double(), mean, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(tensors["main.stem.1.running_var"].double(), variance, atol=1e-4, rtol=1e-3)
    plain_ = run_stage(
        next(stages(RESIDUAL))[0].model_copy(
            update={"params": ReferenceParams(train=TRAIN.model_copy(update={"epochs": 1}))}
        ),
        {},
        Session(),
    ).tensors
    assert all(torch.equal(tensors[key], plain_[key]) for key in tensors if key.endswith("weight"))


def test_frozen_statistics_stay_and_their_batches_may_be_in_parts(tiny_preset: Path) -> None:
    spec, _ = next(stages(RESIDUAL))
    train = TRAIN.model_copy(update={"batch_norm": "freeze", "epochs": 2, "learning_rate": 0.001})
    spec = spec.model_copy(update={"params": ReferenceParams(train=train)})
    fresh = networks.fresh(RESIDUAL, 10, 0).tensors()
    whole_, parts = (run_stage(spec, {}, Session(images_a_pass=size)).tensors for size in (None, 7))
    for key, home in fresh.items():
        stored = whole_[f"main.{key}"]
        assert torch.equal(stored, home.tensor) == ("running" in key or "num_batches" in key), key
        torch.testing.assert_close(parts[f"main.{key}"], stored, atol=1e-5, rtol=1e-4)
    frozen = {"epochs": 1, "learning_rate": 0.1, "batch_norm": "freeze"}
    trainings = ("source.train", "source.prune.retrain", "transfer.train", "target_prune.retrain")
    changes = {"network": RESIDUAL, "neuron_prune": None, "resources.images_a_pass": 5}
    assert load_config(str(tiny_preset), changes | dict.fromkeys(trainings, frozen)).resources.images_a_pass == 5


def test_a_source_without_images_is_its_pretrained_net(tiny_preset: Path, tmp_path: Path) -> None:
    torch.save(plain(RESIDUAL, 12, seed=3).state_dict(), tmp_path / "net.pth")
    source = {"data": None, "weights": {"file": str(tmp_path / "net.pth")}}
    prune_ = {"keep": 0.5, "steps": 1, "scope": "global", "retrain": None}
    changes = {"network": RESIDUAL, "neuron_prune": None, "source": {**source, "prune": prune_}}
    config = load_config(str(tiny_preset), changes)
    specs = {stage.spec.kind: stage.spec for stage in plan(config).stages.values()}
    reference = run_stage(specs["reference"], {}, Session())
    assert len(reference.class_names) == 12 and reference.metrics.get("test_accuracy") is None
    pruned = run_stage(specs["source_prune"], {"source": artifact(reference)}, Session())
    assert pruned.metrics["prune_percent"] == pytest.approx(50, abs=0.1) and not pruned.epochs
    masks = {key.removeprefix("mask."): mask for key, mask in pruned.tensors.items() if key.startswith("mask.")}
    assert all(not pruned.tensors[f"main.{key}.weight"][~mask].any() for key, mask in masks.items())
    knowledge = run_stage(specs["knowledge"], {"reference": artifact(reference)}, Session())
    assert knowledge.tensors["logits"].shape[-1] == 12
    for wrong, said in (
        ({"source.train": {"epochs": 1, "learning_rate": 0.1}}, "without data nothing can be trained"),
        ({"source.prune.steps": 2}, "without retraining they make no difference: set steps to 1"),
        ({"target.data": {"name": "none"}}, "target.data: has no images"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_config(str(tiny_preset), {**changes, **wrong})


def test_images_are_normalised_as_the_pretrained_net_has_seen_them(tiny_preset: Path) -> None:
    weights_ = {"file": "torchvision:ResNet18_Weights.IMAGENET1K_V1"}
    changes = {"network": "torchvision:resnet18", "neuron_prune": None, "source.weights": weights_}
    with pytest.raises(ConfigError) as caught:
        load_config(str(tiny_preset), changes)
    assert "target.data: has mean 0.0 and std 1.0, but the net of torchvision:ResNet18_Weights" in str(caught.value)
    assert "mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225]: give these" in str(caught.value)


@pytest.mark.parametrize("name", [RESIDUAL, list(QUICK)[-1]])
def test_in_bfloat16_it_trains_alike(name: str) -> None:
    spec, _ = next(stages(name))
    losses = []
    for precision in ("float32", "bfloat16"):
        train = TRAIN.model_copy(update={"precision": precision})
        result = run_stage(spec.model_copy(update={"params": ReferenceParams(train=train)}), {}, Session())
        assert all(t.dtype == torch.float32 for key, t in result.tensors.items() if key.endswith("weight"))
        losses.append([row["loss"] for row in result.epochs])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)

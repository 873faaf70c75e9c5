"""The training loop on real images: masks hold, lambda 0 adds nothing, and a resumed run is the same run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runs import DATA, MemoryStore, Stopped, StoppingSession, parents, run, transfer
from trainables import data, networks, neurons, pruning
from trainables.artifacts import Artifact
from trainables.hybrid import HybridTransferNet, extra_branch, extra_loss, main_loss
from trainables.hyperparameters import (
    KnowledgeConfig,
    NeuronPruneParams,
    SourcePruneParams,
    TargetPruneParams,
    TrainConfig,
)
from trainables.images import Images
from trainables.results import StageResult
from trainables.sessions import Session
from trainables.training import DivergedError, Knowledge, Training


def main_branch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith("main.")}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def target_images(seed: int = 0) -> Images:
    content = data.load(DATA, data.Places())
    return Images.open(content, data.split(content, DATA, seed), DATA, (24, 24), torch.device("cpu"))


@pytest.mark.parametrize("n_e", [1, 2, 5])
def test_lambda_zero_trains_as_without_knowledge(n_e: int) -> None:
    without = transfer(knowledge=None)
    with_zero = transfer(knowledge=KnowledgeConfig(tau=4, lambda_=0), n_e=n_e)
    assert_same(main_branch(without.tensors), main_branch(with_zero.tensors))
    columns = ("loss", "loss_main", "train_accuracy", "val_accuracy", "learning_rate")
    for plain, zero in zip(without.epochs, with_zero.epochs, strict=True):
        assert {c: plain[c] for c in columns} == {c: zero[c] for c in columns}
        assert plain["loss_extra"] is None and plain["gradient_ratio"] is None
        assert zero["loss_ratio"] == 0 and zero["gradient_ratio"] == 0


def test_knowledge_changes_the_shared_layers() -> None:
    without, guided = transfer(knowledge=None), transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1))
    assert not torch.equal(without.tensors["main.fc6.weight"], guided.tensors["main.fc6.weight"])


def test_live_and_cached_knowledge_agree() -> None:
    cached = transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1))
    live = transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1, live=True))
    for name, tensor in cached.tensors.items():
        torch.testing.assert_close(live.tensors[name], tensor, atol=1e-4, rtol=1e-3)


def test_shuffled_knowledge_is_that_of_another_training_image() -> None:
    reference, shuffled = (
        transfer(knowledge=KnowledgeConfig(source=source, tau=4, lambda_=1)) for source in ("reference", "shuffled")
    )
    assert not torch.equal(reference.tensors["main.fc6.weight"], shuffled.tensors["main.fc6.weight"])

    def mean_over_classes(rows: list[dict[str, Any]]) -> float:
        return float(sum(row["probability"] for row in rows if row["class_rank"] == 1)) / 10

    # Mixed over classes, the knowledge of a class is flatter.
    assert mean_over_classes(shuffled.knowledge) < mean_over_classes(reference.knowledge) - 0.02


def test_hintons_factor_is_off_by_default_and_multiplies_by_tau_squared() -> None:
    plain = transfer(knowledge=KnowledgeConfig(tau=3, lambda_=9))
    hinton = transfer(knowledge=KnowledgeConfig(tau=3, lambda_=1, hinton_factor=True))
    assert_same(plain.tensors, hinton.tensors)


def test_the_measured_ratios() -> None:
    images = target_images()
    main, reference = (networks.build("small_alexnet", 10) for _ in range(2))
    main.initialise(main.names, 0)
    reference.initialise(reference.names, 1)
    net = HybridTransferNet(main, extra_branch(reference, 2))
    logits = torch.randn(len(images.labels), 10, generator=torch.Generator().manual_seed(0))
    knowledge = Knowledge(KnowledgeConfig(tau=2, lambda_=0.5), torch.arange(len(logits)), logits[:, None])
    # One batch that holds all images and no dropout: the first batch's gradients can be computed beforehand.
    (seen,) = images.centred(images.train)
    output = net(seen)
    output.shared.retain_grad()
    norms, means = [], []
    for loss in (
        0.5 * extra_loss(output.extra, logits[images.train], 2),
        main_loss(output.main, images.labels[images.train]),
    ):
        output.shared.grad = None
        loss.sum().backward(retain_graph=True)
        norms.append(output.shared.grad.norm().item())
        means.append(loss.mean().item())
    net.zero_grad()
    config = TrainConfig(epochs=1, learning_rate=0.01, batch_size=1000, dropout=0)
    (row,) = Training(net, {}, images, config, Session(), 0, knowledge).run()
    assert row["gradient_ratio"] == pytest.approx(norms[0] / norms[1], rel=1e-4)
    assert row["loss_ratio"] == pytest.approx(means[0] / means[1], rel=1e-5)
    softened = torch.softmax(logits[images.train].double() / 2, dim=1)
    entropy = -(softened * softened.log()).sum(1).mean().item()
    assert row["loss_kl"] == pytest.approx(2 * means[0] - entropy, rel=1e-4)
    assert row["kl_ratio"] == pytest.approx((means[0] - 0.5 * entropy) / means[1], rel=1e-4)
    assert row["loss"] == pytest.approx(sum(means), rel=1e-5)
    assert row["loss_extra"] == pytest.approx(2 * means[0], rel=1e-5)


def test_masked_weights_stay_zero_through_momentum_and_weight_decay() -> None:
    images = target_images()
    net = networks.build("small_alexnet", 10)
    net.initialise(net.names, 0)
    masks = pruning.shrink(net, {}, {name: w.numel() // 3 for name, w in net.weights().items()}, "magnitude", 0)
    start = {name: weight.detach().clone() for name, weight in net.weights().items()}
    config = TrainConfig(epochs=3, learning_rate=0.02, momentum=0.95, weight_decay=0.1, batch_size=20)
    Training(HybridTransferNet(net), masks, images, config, Session(), 0).run()
    for name, weight in net.weights().items():
        assert (weight[~masks[name]] == 0).all()
        assert (weight[masks[name]] != start[name][masks[name]]).any()


def test_a_masked_step_is_a_dense_step_times_the_mask() -> None:
    images = target_images()
    config = TrainConfig(epochs=1, learning_rate=0.02, batch_size=1000, dropout=0, decay="constant")
    nets = [networks.build("small_alexnet", 10) for _ in range(2)]
    for net in nets:
        net.initialise(net.names, 0)
    masks = pruning.shrink(nets[0], {}, {"fc6": 20_000, "conv3": 2000}, "magnitude", 0)
    pruning.apply(nets[1], masks)
    Training(HybridTransferNet(nets[0]), masks, images, config, Session(), 0).run()
    Training(HybridTransferNet(nets[1]), {}, images, config, Session(), 0).run()
    for name, weight in nets[1].weights().items():
        assert torch.equal(nets[0].weights()[name], weight * masks.get(name, torch.ones_like(weight)))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_training_is_the_same_training(stop_after: int) -> None:
    undisturbed = transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1), epochs=4)
    store = MemoryStore()
    with pytest.raises(Stopped):
        transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1), epochs=4, session=StoppingSession(store, stop_after))
    session = Session(store, checkpoint_seconds=0)
    resumed = transfer(knowledge=KnowledgeConfig(tau=4, lambda_=1), epochs=4, session=session)
    assert session.resumed_epochs == stop_after
    assert_same(resumed.tensors, undisturbed.tensors)
    assert (resumed.epochs, resumed.metrics) == (undisturbed.epochs, undisturbed.metrics)


def test_divergence_is_explained() -> None:
    with pytest.raises(DivergedError, match="learning_rate below 10000"):
        transfer(knowledge=None, learning_rate=10_000.0)


RETRAIN = TrainConfig(epochs=2, learning_rate=0.01, batch_size=20)


def test_source_pruning_keeps_exactly_its_shares() -> None:
    dense = networks.connection_counts("small_alexnet", 10)
    keep = {name: 0.1 + 0.05 * i for i, name in enumerate(dense)}
    result = run("source_prune", SourcePruneParams(keep=keep, retrain=RETRAIN), source=parents()["reference"])
    for row in result.layers:
        layer = row["layer"]
        assert row["connections"] == round(keep[layer] * dense[layer])
        assert int(torch.count_nonzero(result.tensors[f"main.{layer}.weight"])) == row["connections"]
    assert result.metrics["connections"] == sum(row["connections"] for row in result.layers)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_target_pruning_keeps_exactly_its_share_and_masks_shrink(scope: pruning.Scope) -> None:
    start = parents()
    first = run("target_prune", TargetPruneParams(keep=0.2, scope=scope, retrain=RETRAIN), start=start["sparse"])
    second = run(
        "target_prune",
        TargetPruneParams(keep=0.1, scope=scope, retrain=RETRAIN),
        start=Artifact(first.tensors, first.metrics),
    )
    total = sum(networks.connection_counts("small_alexnet", 10).values())
    assert first.metrics["connections"] == round(0.2 * total)
    assert second.metrics["connections"] == round(0.1 * total)
    for name, mask in second.tensors.items():
        if name.startswith("mask."):
            assert not (mask & ~first.tensors[name]).any()


def test_without_knowledge_target_pruning_drops_the_extra_branch() -> None:
    start = parents()["guided"]
    assert any(name.startswith("extra.") for name in start.tensors)
    result = run("target_prune", TargetPruneParams(keep=0.2, scope="global", retrain=RETRAIN), start=start)
    assert not any(name.startswith("extra.") for name in result.tensors)


def neuron_prune(level: float, session: Session | None = None, **changes: Any) -> Any:
    everything = parents()
    standard = Artifact({}, {"val_accuracy": level})
    params = NeuronPruneParams(
        **{
            "neurons_per_step": 60,
            "images_per_class": 2,
            "retrain": RETRAIN,
            "knowledge": KnowledgeConfig(tau=4, lambda_=1),
            **changes,
        }
    )
    start, knowledge = everything["guided"], everything["knowledge"]
    return run("neuron_prune", params, session, start=start, standard=standard, knowledge=knowledge)


def test_neuron_pruning_takes_turns_until_no_neurons_are_left_to_take() -> None:
    result = neuron_prune(level=0.0)
    left = {row["layer"]: (row["neurons_before"], row["neurons"]) for row in result.layers}
    assert left["fc6"] == (256, 16) and left["fc7"] == (256, 16)
    assert result.metrics["rounds"] == 8
    assert result.tensors["main.fc7.weight"].shape == (16, 16)
    assert result.tensors["extra.fc7.weight"].shape[1] == 16
    assert [row["round"] for row in result.epochs] == [r for r in range(8) for _ in range(2)]


@pytest.mark.parametrize("start", ["guided", "sparse"])
def test_single_steps_of_neuron_pruning_make_the_nets_of_the_whole(start: str) -> None:
    everything = parents()
    knowledge = KnowledgeConfig(tau=4, lambda_=1) if start == "guided" else None
    params = {"neurons_per_step": 90, "images_per_class": 2, "retrain": RETRAIN, "knowledge": knowledge}
    roles = {"knowledge": everything["knowledge"]}
    standard = Artifact({}, {"val_accuracy": 0.0})
    whole = run(
        "neuron_prune", NeuronPruneParams(**params), None, roles=roles, start=everything[start], standard=standard
    )
    net, history = everything[start], []
    turns = neurons.turns({"fc6": 256, "fc7": 256}, 90)
    for step, layer in enumerate(turns, start=1):
        result = run("neuron_prune", NeuronPruneParams(**params, layer=layer), None, roles=roles, start=net)
        left = {row["layer"]: row["neurons"] for row in result.layers}
        assert (left["fc6"], left["fc7"]) == (256 - 90 * -(-step // 2), 256 - 90 * (step // 2))
        history += [row | {"round": step - 1} for row in result.epochs]
        net = Artifact(result.tensors, result.metrics)
    assert whole.metrics["rounds"] == len(turns) == 4
    assert_same(net.tensors, whole.tensors)
    assert history == whole.epochs


def test_a_resumed_step_of_neuron_pruning_is_the_same() -> None:
    def step(session: Session | None = None) -> StageResult:
        params = NeuronPruneParams(neurons_per_step=60, images_per_class=2, layer="fc7", retrain=RETRAIN)
        return run("neuron_prune", params, session, start=parents()["sparse"])

    store = MemoryStore()
    with pytest.raises(Stopped):
        step(StoppingSession(store, 1))
    assert_same(step(Session(store, checkpoint_seconds=0)).tensors, step().tensors)


def test_neuron_pruning_gives_the_last_net_at_the_level() -> None:
    free = neuron_prune(level=0.0)
    by_round = [row["val_accuracy"] for row in free.epochs if row["epoch"] == 2]
    level = by_round[0] if by_round[1] < by_round[0] else by_round[1] + 0.01
    accepted = next(i for i, accuracy in enumerate([*by_round, -1.0]) if accuracy < level)
    result = neuron_prune(level=level)
    assert result.metrics["rounds"] == accepted + 1
    removed = sum(row["neurons_before"] - row["neurons"] for row in result.layers)
    assert removed == 60 * accepted
    if accepted:
        assert result.metrics["val_accuracy"] >= level


def test_an_unreachable_level_leaves_the_net_as_it_was() -> None:
    result = neuron_prune(level=101.0)
    assert_same(main_branch(result.tensors), main_branch(parents()["guided"].tensors))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 7, 15])
def test_resumed_neuron_pruning_is_the_same(stop_after: int) -> None:
    undisturbed = neuron_prune(level=0.0)
    store = MemoryStore()
    with pytest.raises(Stopped):
        neuron_prune(0.0, StoppingSession(store, stop_after))
    resumed = neuron_prune(0.0, Session(store, checkpoint_seconds=0))
    assert_same(resumed.tensors, undisturbed.tensors)
    assert (resumed.epochs, resumed.metrics) == (undisturbed.epochs, undisturbed.metrics)


def test_the_test_set_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = neuron_prune(level=20.0)
    content = data.load(DATA, data.Places())
    test = data.split(content, DATA, 0).test
    labels = content.labels.clone()
    labels[test] = (labels[test] + 1) % 10
    other = replace(content, labels=labels)
    original = data.split
    # The split goes by the true labels, so that only what the test images are called differs.
    monkeypatch.setattr(data, "split", lambda _, config, seed: original(content, config, seed))
    monkeypatch.setattr(data, "load", lambda config, places: other)
    cheated = neuron_prune(level=20.0)
    assert_same(main_branch(honest.tensors), main_branch(cheated.tensors))
    assert honest.epochs == cheated.epochs
    assert honest.metrics["test_accuracy"] != cheated.metrics["test_accuracy"]

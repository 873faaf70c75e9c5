"""One runner a stage kind: from the parents' artifacts to the stage's own artifact and rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables import artifacts, data, networks, neurons, pruning
from trainables.artifacts import Artifact
from trainables.hybrid import HybridTransferNet, extra_branch, transfer_main_branch
from trainables.hyperparameters import (
    KnowledgeConfig,
    NeuronPruneParams,
    ReferenceParams,
    SourcePruneParams,
    StageSpec,
    TargetPruneParams,
    TrainConfig,
    TransferParams,
)
from trainables.networks import LayeredNet
from trainables.pruning import Masks
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.training import Images, Knowledge, Round, Row, Training, evaluate

KNOWLEDGE_RANKS = 10
"""Source classes that the knowledge table holds for each target class: the most probable ones."""


@dataclass
class StageResult:
    """What a stage gives: tensors and facts for its children, and its rows for the result tables."""

    tensors: dict[str, Tensor]
    metrics: Row
    class_names: tuple[str, ...]
    epochs: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    knowledge: list[Row] = field(default_factory=list)


Parents = Mapping[str, Artifact]


def run_stage(spec: StageSpec, parents: Parents, session: Session) -> StageResult:
    """Run one stage; the same spec and parents give the same result wherever it runs.

    Args:
        spec: the stage.
        parents: artifacts by role (``source``, ``reference``, ``knowledge``, ``start``, ``standard``).
        session: where reports and checkpoints go, and the device.
    """
    return RUNNERS[spec.kind](_Stage(spec, parents, session))


@dataclass
class _Stage:
    spec: StageSpec
    parents: Parents
    session: Session

    @property
    def seed(self) -> int:
        assert self.spec.seed is not None
        return self.spec.seed

    def images(self) -> Images:
        content = data.load(self.spec.data.name)
        split = data.split(content.labels, self.spec.data, self.seed)
        device = self.session.device
        return Images(
            content.images.to(device),
            content.labels.to(device),
            split.train.to(device),
            split.val.to(device),
            split.test.to(device),
            self.spec.data,
        )

    def net(self, role: str) -> tuple[LayeredNet, Masks]:
        """A parent's main branch and masks, on the session's device."""
        net, masks = artifacts.unpack_main(self.spec.network, self.parents[role])
        device = self.session.device
        return net.to(device), {name: mask.to(device) for name, mask in masks.items()}

    def hybrid(self, role: str, config: KnowledgeConfig | None) -> tuple[HybridTransferNet, Masks]:
        """A parent's net to go on with; without knowledge its extra branch is left behind."""
        main, masks = self.net(role)
        extra = artifacts.unpack_extra(self.spec.network, self.parents[role]) if config is not None else None
        if extra is not None:
            extra.to(self.session.device)
        return HybridTransferNet(main, extra, self.live_reference(config)), masks

    def live_reference(self, config: KnowledgeConfig | None) -> LayeredNet | None:
        return self.net("reference")[0] if config is not None and config.live else None

    def knowledge(self, config: KnowledgeConfig | None, images: Images) -> Knowledge | None:
        """Where the extra loss takes its logits from; the shuffled control permutes the training images."""
        if config is None:
            return None
        partner = torch.arange(len(images.labels))
        if config.source == "shuffled":
            train = images.train.cpu()
            partner[train] = train[torch.randperm(len(train), generator=generator(self.seed, "shuffle"))]
        logits = None if config.live else self.parents["knowledge"].tensors["logits"].to(self.session.device)
        return Knowledge(config, partner.to(self.session.device), logits)

    def set_dropout(self, net: HybridTransferNet, masks: Masks, train: TrainConfig) -> None:
        """Dropout of the stage's training: the main branch's scaled by what its layers keep, the extra branch's not."""
        dense = networks.connection_counts(self.spec.network, net.main.classes)
        kept = pruning.kept_connections(net.main, masks)
        net.main.set_dropout(train.dropout, {n: kept[n] / dense[n] for n in kept} if train.rescale_dropout else None)
        if net.extra is not None:
            net.extra.set_dropout(train.dropout)


def _reference(stage: _Stage) -> StageResult:
    params = cast(ReferenceParams, stage.spec.params)
    images = stage.images()
    main = networks.build(stage.spec.network, len(data.load(stage.spec.data.name).class_names))
    main.initialise(main.names, stage.seed)
    net = HybridTransferNet(main.to(stage.session.device))
    stage.set_dropout(net, {}, params.train)
    epochs = Training(net, {}, images, params.train, stage.session, stage.seed).run()
    return _result(stage, net, {}, images, epochs, before=_Extent.of(main, {}))


def _source_prune(stage: _Stage) -> StageResult:
    params = cast(SourcePruneParams, stage.spec.params)
    images = stage.images()
    net, masks = stage.hybrid("source", None)
    before = _Extent.of(net.main, masks)
    dense = networks.connection_counts(stage.spec.network, net.main.classes)
    if isinstance(params.keep, dict):
        keep = {name: round(share * dense[name]) for name, share in params.keep.items()}
        masks = pruning.shrink(net.main, masks, keep, params.criterion, stage.seed)
    else:
        masks = _shrink_net(net.main, masks, params.keep, dense, params.scope, params.criterion, stage.seed)
    stage.set_dropout(net, masks, params.retrain)
    epochs = Training(net, masks, images, params.retrain, stage.session, stage.seed).run()
    return _result(stage, net, masks, images, epochs, before)


def _knowledge(stage: _Stage) -> StageResult:
    reference, _ = stage.net("reference")
    content = data.load(stage.spec.data.name)
    everything = torch.arange(len(content.labels), device=stage.session.device)
    pixels = content.images.to(stage.session.device)
    images = Images(pixels, content.labels, everything, everything, everything, stage.spec.data)
    reference.eval()
    with torch.no_grad():
        logits = torch.cat([reference(batch).cpu() for batch in images.batches(everything)])
    metrics = {"rounds": 0, "epochs": 0, "images": len(everything)}
    return StageResult({"logits": logits}, metrics, content.class_names)


def _transfer(stage: _Stage) -> StageResult:
    params = cast(TransferParams, stage.spec.params)
    images = stage.images()
    source, source_masks = stage.net("source")
    before = _Extent.of(source, source_masks)
    classes = len(data.load(stage.spec.data.name).class_names)
    main, masks = transfer_main_branch(source, source_masks, n_m=params.n_m, classes=classes, seed=stage.seed)
    extra = None
    if params.knowledge is not None:
        assert params.n_e is not None
        extra = extra_branch(stage.net("reference")[0], params.n_e)
    net = HybridTransferNet(main, extra, stage.live_reference(params.knowledge)).to(stage.session.device)
    stage.set_dropout(net, masks, params.train)
    knowledge = stage.knowledge(params.knowledge, images)
    epochs = Training(net, masks, images, params.train, stage.session, stage.seed, knowledge).run()
    result = _result(stage, net, masks, images, epochs, before)
    if knowledge is not None:
        result.knowledge = _knowledge_rows(stage, net, knowledge, images)
    return result


def _target_prune(stage: _Stage) -> StageResult:
    params = cast(TargetPruneParams, stage.spec.params)
    images = stage.images()
    net, masks = stage.hybrid("start", params.knowledge)
    before = _Extent.of(net.main, masks)
    dense = networks.connection_counts(stage.spec.network, net.main.classes)
    masks = _shrink_net(net.main, masks, params.keep, dense, params.scope, params.criterion, stage.seed)
    stage.set_dropout(net, masks, params.retrain)
    knowledge = stage.knowledge(params.knowledge, images)
    epochs = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge).run()
    return _result(stage, net, masks, images, epochs, before)


def _neuron_prune(stage: _Stage) -> StageResult:
    params = cast(NeuronPruneParams, stage.spec.params)
    if params.layer is not None:
        return _neuron_step(stage, params, params.layer)
    images = stage.images()
    level = stage.parents["standard"].metrics["val_accuracy"] - params.tolerance
    accepted, start_masks = stage.hybrid("start", params.knowledge)
    before = _Extent.of(accepted.main, start_masks)
    knowledge = stage.knowledge(params.knowledge, images)
    best, epochs, first = artifacts.pack(accepted, start_masks), [], 0
    if (state := stage.session.resume()) is not None:
        best, epochs, first = state["before"]["net"], state["before"]["epochs"], state["round"]
        stage.session.resumed_epochs += len(epochs)

    candidates = accepted.main.inner_products()[:-1]
    rounds = first
    while True:
        # Layers take turns, as the paper's counts say: 4 x 512 neurons of FC6 and 3 x 512 of FC7 went for Indoor67.
        layer = candidates[rounds % len(candidates)]
        net, masks = _restore(stage, best, params.knowledge)
        if net.main.op(layer).weight.shape[0] <= params.neurons_per_step:
            break
        masks = _remove_neurons(stage, params, net, masks, layer, images)
        stage.set_dropout(net, masks, params.retrain)
        round_ = Round(rounds, {"net": best, "epochs": epochs})
        history = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge, round_).run()
        epochs = [*epochs, *history]
        rounds += 1
        if evaluate(net.main, images, images.val).accuracy < level:
            break
        best = artifacts.pack(net, masks)
    net, masks = _restore(stage, best, params.knowledge)
    result = _result(stage, net, masks, images, epochs, before)
    result.metrics["rounds"] = rounds
    return result


def _neuron_step(stage: _Stage, params: NeuronPruneParams, layer: str) -> StageResult:
    """One step of neuron pruning as a stage of its own, so that nets with more steps share it."""
    images = stage.images()
    net, masks = stage.hybrid("start", params.knowledge)
    before = _Extent.of(net.main, masks)
    masks = _remove_neurons(stage, params, net, masks, layer, images)
    stage.set_dropout(net, masks, params.retrain)
    knowledge = stage.knowledge(params.knowledge, images)
    epochs = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge).run()
    return _result(stage, net, masks, images, epochs, before)


def _remove_neurons(
    stage: _Stage, params: NeuronPruneParams, net: HybridTransferNet, masks: Masks, layer: str, images: Images
) -> Masks:
    """Remove one step's least-activated neurons of the layer; gives the masks of the smaller matrices."""
    subset = _subset(images, params.images_per_class, stage.seed)
    activations = neurons.mean_activations(net.main, layer, images.batches(subset))
    return neurons.remove(net, masks, layer, neurons.least_activated(activations, params.neurons_per_step))


def _restore(
    stage: _Stage, tensors: dict[str, Tensor], knowledge: KnowledgeConfig | None
) -> tuple[HybridTransferNet, Masks]:
    parents = {**stage.parents, "accepted": Artifact(tensors)}
    return _Stage(stage.spec, parents, stage.session).hybrid("accepted", knowledge)


def _subset(images: Images, per_class: int, seed: int) -> Tensor:
    """Up to ``per_class`` training images of each class, drawn by the seed."""
    train = images.train.cpu()
    order = train[torch.randperm(len(train), generator=generator(seed, "activations"))]
    labels = images.labels.cpu()[order]
    parts = [order[labels == label][:per_class] for label in labels.unique()]
    return torch.cat(parts).sort().values.to(images.train.device)


def _shrink_net(
    main: LayeredNet,
    masks: Masks,
    share: float,
    dense: Mapping[str, int],
    scope: pruning.Scope,
    criterion: pruning.Criterion,
    seed: int,
) -> Masks:
    """Masks that keep ``share`` of the dense net's connections, over all layers together."""
    keep = round(share * sum(dense.values()))
    if scope == "global":
        return pruning.shrink_globally(main, masks, keep, criterion, seed)
    counts = pruning.apportion(pruning.kept_connections(main, masks), keep)
    return pruning.shrink(main, masks, counts, criterion, seed)


@dataclass(frozen=True)
class _Extent:
    """Connections and neurons of each layer at a moment of a stage."""

    connections: dict[str, int]
    neurons: dict[str, int]

    @classmethod
    def of(cls, net: LayeredNet, masks: Masks) -> "_Extent":
        kept = pruning.kept_connections(net, masks)
        return cls(kept, {name: int(weight.shape[0]) for name, weight in net.weights().items()})


def _result(
    stage: _Stage, net: HybridTransferNet, masks: Masks, images: Images, epochs: list[Row], before: _Extent
) -> StageResult:
    """Evaluate the final net and count what is left of it. The test set is touched here and nowhere else."""
    main = net.main
    after = _Extent.of(main, masks)
    dense = networks.connection_counts(stage.spec.network, main.classes)
    train, val, test = (evaluate(main, images, part) for part in (images.train, images.val, images.test))
    total, kept = sum(dense.values()), sum(after.connections.values())
    layers = [
        {
            "index": index,
            "layer": name,
            "type": "inner_product" if isinstance(main.op(name), nn.Linear) else "convolution",
            "connections_dense": dense[name],
            "connections_before": before.connections[name],
            "connections": after.connections[name],
            "neurons_before": before.neurons[name],
            "neurons": after.neurons[name],
        }
        for index, name in enumerate(main.names, start=1)
    ]
    metrics = {
        "train_accuracy": train.accuracy,
        "val_accuracy": val.accuracy,
        "val_loss": val.loss,
        "test_accuracy": test.accuracy,
        "test_top5_accuracy": test.top5_accuracy,
        "connections_dense": total,
        "connections": kept,
        "prune_percent": 100 * (1 - kept / total),
        "neurons": sum(after.neurons[name] for name in main.inner_products()),
        "loss_ratio": epochs[-1]["loss_ratio"] if epochs else None,
        "gradient_ratio": epochs[-1]["gradient_ratio"] if epochs else None,
        "rounds": 1,
        "epochs": len(epochs),
        "images": len(images.train),
    }
    class_names = data.load(stage.spec.data.name).class_names
    return StageResult(artifacts.pack(net, masks), metrics, class_names, epochs, layers)


def _knowledge_rows(stage: _Stage, net: HybridTransferNet, knowledge: Knowledge, images: Images) -> list[Row]:
    """Mean softened output of the reference over each target class's training images (Figure 2)."""
    target = data.load(stage.spec.data.name).class_names
    source = stage.parents["reference"].class_names
    rows = []
    for label, name in enumerate(target):
        members = images.train[images.labels[images.train] == label]
        softened = functional.softmax(knowledge.of(net, images, members) / knowledge.config.tau, dim=1)
        mean = softened.double().mean(0)
        for rank, index in enumerate(mean.argsort(descending=True, stable=True)[:KNOWLEDGE_RANKS].tolist(), start=1):
            rows.append(
                {
                    "tau": knowledge.config.tau,
                    "target_class": name,
                    "images": len(members),
                    "rank": rank,
                    "source_class": source[index],
                    "probability": float(mean[index]),
                }
            )
    return rows


RUNNERS: dict[str, Callable[[_Stage], StageResult]] = {
    "reference": _reference,
    "source_prune": _source_prune,
    "knowledge": _knowledge,
    "transfer": _transfer,
    "target_prune": _target_prune,
    "neuron_prune": _neuron_prune,
}

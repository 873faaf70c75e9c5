"""One runner for each stage kind: from the parents' artifacts to the stage's own artifact and rows."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from trainables import artifacts, networks, pretrained, removals, weights
from trainables.artifacts import Artifact
from trainables.context import Parents, StageContext
from trainables.devices import deterministic_kernels, float32_products, placed
from trainables.features import Features
from trainables.hybrid import HybridTransferNet, extra_branch, transfer_main_branch
from trainables.hyperparameters import (
    EvaluationParams,
    FeaturesParams,
    FusionParams,
    KnowledgeParams,
    NeuronPruneParams,
    ProbeParams,
    ReferenceParams,
    SourcePruneParams,
    StageParams,
    StageSpec,
    TargetPruneParams,
    TransferParams,
)
from trainables.images import Images
from trainables.layers import LayeredNet
from trainables.pruning import Masks
from trainables.results import (
    Extent,
    Scores,
    StageResult,
    accuracies,
    confusion_rows,
    knowledge_rows,
    layer_rows,
    net_metrics,
    score_tensors,
)
from trainables.sessions import Session
from trainables.training import Round, Row, Training, evaluate

TARGET_KINDS = ("transfer", "probe", "target_prune", "neuron_prune")
"""Stages whose net is for the target: their class scores can be fused with another net's."""


def run_stage(spec: StageSpec, parents: Parents, session: Session) -> StageResult:
    """Run one stage; the same spec and parents have the same result wherever it runs.

    Args:
        spec: the stage.
        parents: artifacts by role (``source``, ``reference``, ``knowledge``, ``start``, ``standard``).
        session: where reports and checkpoints go, and the device.
    """
    with deterministic_kernels(), float32_products(tf32=False):
        return _RUNNERS[spec.kind](StageContext(spec, parents, session))


_RUNNERS: dict[str, Callable[[StageContext], StageResult]] = {}

Kind = TypeVar("Kind", bound=StageParams)


def runs(
    kind: type[Kind],
) -> Callable[[Callable[[StageContext, Kind], StageResult]], Callable[[StageContext, Kind], StageResult]]:
    """Register the runner of a stage kind, by the hyperparameters that it takes."""

    def register(run: Callable[[StageContext, Kind], StageResult]) -> Callable[[StageContext, Kind], StageResult]:
        def checked(stage: StageContext) -> StageResult:
            assert isinstance(stage.spec.params, kind)
            return run(stage, stage.spec.params)

        _RUNNERS[kind.kind] = checked
        return run

    return register


@runs(ReferenceParams)
def _reference(stage: StageContext, params: ReferenceParams) -> StageResult:
    images, class_names = stage.images(), stage.content.class_names
    if stage.content.is_empty:
        assert params.weights is not None
        class_names = pretrained.class_names(params.weights, stage.spec.network)
    main = networks.fresh(stage.spec.network, len(class_names), stage.seed)
    if params.weights is not None:
        weights.load_into(main, params.weights, class_names if params.train is None else None)
    net, epochs = HybridTransferNet(placed(main, stage.session.device)), []
    if params.train is not None:
        stage.set_dropout(net, {}, params.train)
        epochs = Training(net, {}, images, params.train, stage.session, stage.seed).run()
    return _result(stage, net, {}, images, epochs, Extent.of(main, {}), class_names)


@runs(SourcePruneParams)
def _source_prune(stage: StageContext, params: SourcePruneParams) -> StageResult:
    images = stage.images()
    net, masks = stage.hybrid(stage.parents["source"], None)
    before = Extent.of(net.main, masks)
    masks, gradual = stage.prune(net, masks, params, params.retrain)
    epochs = []
    if params.retrain is not None:
        training = Training(net, masks, images, params.retrain, stage.session, stage.seed, gradual=gradual)
        epochs, masks = training.run(), training.masks
    return _result(stage, net, masks, images, epochs, before, stage.class_names)


@runs(KnowledgeParams)
@torch.no_grad()
def _knowledge(stage: StageContext, _params: KnowledgeParams) -> StageResult:
    """Logits ``float32 (images, views, source classes)`` of all training views; zeros for test images."""
    reference, _ = stage.net("reference")
    return _of_all_views(stage, "logits", reference, (reference.classes,))


@runs(FeaturesParams)
@torch.no_grad()
def _features(stage: StageContext, _params: FeaturesParams) -> StageResult:
    """Outputs of layer N - 1 ``float32 (images, views, ...)`` for all training views; zeros for test images."""
    source, _ = stage.net("source")
    below = source.part(0, len(source.names) - 1).eval()
    one = below(torch.zeros(1, *source.input_shape, device=stage.session.device))
    return _of_all_views(stage, "features", below, tuple(one.shape[1:]))


def _of_all_views(stage: StageContext, name: str, net: LayeredNet, shape: tuple[int, ...]) -> StageResult:
    """The output of a net, of this shape per image, for all training views of all images that may be known."""
    images = stage.known_images()
    net.eval()
    views = images.placements(images.config.views)
    given = torch.zeros(len(images.labels), len(views), *shape)
    parts = stage.session.share(list(images.evaluation_batches(images.train)))
    stream = images.stream((part, view) for part in parts for view in views)
    for part in parts:
        for view in range(len(views)):
            given[part, view] = net(next(stream)).cpu()
    if stage.session.world_size > 1:
        for part in images.evaluation_batches(images.train):
            given[part] = stage.session.sum(given[part].to(stage.session.device)).cpu()
    metrics = {"rounds": 0, "epochs": 0, "images": len(images.train)}
    return StageResult({name: given}, metrics, stage.content.class_names)


@runs(ProbeParams)
def _probe(stage: StageContext, params: ProbeParams) -> StageResult:
    images = stage.images()
    source, source_masks = stage.net("source")
    before = Extent.of(source, source_masks)
    top = networks.fresh(stage.spec.network, len(stage.content.class_names), stage.seed, 1)
    main, masks = transfer_main_branch(source, source_masks, top)
    output = HybridTransferNet(placed(main, stage.session.device).top(1))
    stage.set_dropout(output, {}, params.train)
    features = Features.of(images, stage.parents["features"].tensors["features"])
    epochs = Training(output, {}, features, params.train, stage.session, stage.seed).run()
    return _result(stage, HybridTransferNet(main), masks, images, epochs, before)


@runs(TransferParams)
def _transfer(stage: StageContext, params: TransferParams) -> StageResult:
    images = stage.images()
    source, source_masks = stage.net("source")
    before = Extent.of(source, source_masks)
    # The output layer is always new, for it has the target's classes; so N_m 0 and 1 make the same net.
    top = networks.fresh(stage.spec.network, len(stage.content.class_names), stage.seed, max(params.n_m, 1))
    main, masks = transfer_main_branch(source, source_masks, top)
    extra = None
    if params.knowledge is not None:
        assert params.n_e is not None
        extra = extra_branch(stage.net("reference")[0], params.n_e)
    net = HybridTransferNet(main, extra, stage.live_reference(params.knowledge))
    placed(net, stage.session.device)
    gradual = None
    if params.prune is not None:
        lower = len(main.names) - len(top.names)
        masks, gradual = stage.prune(net, masks, params.prune, params.train, lower)
    stage.set_dropout(net, masks, params.train)
    knowledge = stage.knowledge(params.knowledge, images)
    training = Training(net, masks, images, params.train, stage.session, stage.seed, knowledge, gradual=gradual)
    epochs, masks = training.run(), training.masks
    result = _result(stage, net, masks, images, epochs, before)
    if knowledge is not None:
        result.knowledge = knowledge_rows(net, knowledge, images, stage.parents["reference"].class_names)
    return result


@runs(TargetPruneParams)
def _target_prune(stage: StageContext, params: TargetPruneParams) -> StageResult:
    images = stage.images()
    net, masks = stage.hybrid(stage.parents["start"], params.knowledge)
    before = Extent.of(net.main, masks)
    masks, gradual = stage.prune(net, masks, params, params.retrain)
    knowledge = stage.knowledge(params.knowledge, images)
    training = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge, gradual=gradual)
    epochs, masks = training.run(), training.masks
    return _result(stage, net, masks, images, epochs, before)


@runs(NeuronPruneParams)
def _neuron_prune(stage: StageContext, params: NeuronPruneParams) -> StageResult:
    if params.is_one_step:
        return _neuron_step(stage, params)
    images = stage.images()
    level = stage.parents["standard"].metrics["val_accuracy"] - params.tolerance
    accepted, start_masks = stage.hybrid(stage.parents["start"], params.knowledge)
    before = Extent.of(accepted.main, start_masks)
    knowledge = stage.knowledge(params.knowledge, images)
    best, epochs, first = artifacts.pack(accepted, start_masks), [], 0
    if (state := stage.session.resume()) is not None:
        best, epochs, first = state["before"]["net"], state["before"]["epochs"], state["round"]
        stage.session.resumed_epochs += len(epochs)

    rounds = first
    for left in removals.schedule(params, stage.spec.network)[first:]:
        net, masks = stage.hybrid(Artifact(best), params.knowledge)
        masks = removals.take(net, masks, params, left, images, stage.seed)
        stage.set_dropout(net, masks, params.retrain)
        round_ = Round(rounds, {"net": best, "epochs": epochs})
        history = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge, round_).run()
        epochs = [*epochs, *history]
        rounds += 1
        if evaluate(net.main, images, images.val, stage.session).accuracy < level:
            break
        best = artifacts.pack(net, masks)
    net, masks = stage.hybrid(Artifact(best), params.knowledge)
    result = _result(stage, net, masks, images, epochs, before)
    result.metrics["rounds"] = rounds
    return result


def _neuron_step(stage: StageContext, params: NeuronPruneParams) -> StageResult:
    """One step of neuron pruning as a stage of its own, so that nets with more steps share it."""
    images = stage.images()
    net, masks = stage.hybrid(stage.parents["start"], params.knowledge)
    before = Extent.of(net.main, masks)
    left = removals.only_step(params, stage.spec.network, net)
    masks = removals.take(net, masks, params, left, images, stage.seed)
    stage.set_dropout(net, masks, params.retrain)
    knowledge = stage.knowledge(params.knowledge, images)
    epochs = Training(net, masks, images, params.retrain, stage.session, stage.seed, knowledge).run()
    return _result(stage, net, masks, images, epochs, before)


def _result(
    stage: StageContext,
    net: HybridTransferNet,
    masks: Masks,
    images: Images,
    epochs: list[Row],
    before: Extent,
    class_names: tuple[str, ...] | None = None,
) -> StageResult:
    """The stage's result with the description of its final net; its classes are named as the data's by default."""
    metrics = net_metrics(net, masks, stage.spec.network, images, stage.session, epochs)
    layers = layer_rows(net.main, masks, stage.spec.network, before)
    names = class_names or stage.content.class_names
    result = StageResult(artifacts.pack(net, masks), metrics, names, epochs, layers)
    if stage.content.is_empty:
        return result
    val, test = (Scores.of(net.main, images, part, stage.session) for part in (images.val, images.test))
    result.metrics |= accuracies(val, test)
    if stage.spec.kind in TARGET_KINDS:
        result.tensors |= score_tensors(val, test)
        result.confusion = confusion_rows(test, stage.content.class_names)
    return result


@runs(EvaluationParams)
def _evaluation(stage: StageContext, _params: EvaluationParams) -> StageResult:
    """Accuracies of a net by other crops than those that it was trained and validated by."""
    images, crops = stage.images(), stage.spec.data.evaluation
    main, masks = stage.net("net")
    val, test = (Scores.of(main, images, part, stage.session, crops) for part in (images.val, images.test))
    metrics = net_metrics(HybridTransferNet(main), masks, stage.spec.network, images, stage.session, [], crops)
    result = StageResult({}, {**metrics, **accuracies(val, test), "rounds": 0}, stage.content.class_names)
    if _holds_scores(stage.parents["net"]):
        result.tensors |= score_tensors(val, test)
        result.confusion = confusion_rows(test, stage.content.class_names)
    return result


def _holds_scores(artifact: Artifact) -> bool:
    """Whether a net is for the target: the class scores of other nets are large and never fused."""
    return "labels.test" in artifact.tensors


@runs(FusionParams)
def _fusion(stage: StageContext, params: FusionParams) -> StageResult:
    """Weighted mean of the class scores of several nets on the same videos."""
    val, test = (_fused(stage.parents, params.weights, part) for part in ("val", "test"))
    nets = [stage.parents[stream].metrics for stream in params.weights]
    totals: Row = {name: sum(net[name] for net in nets) for name in ("connections_dense", "connections", "neurons")}
    totals["prune_percent"] = 100 * (1 - totals["connections"] / totals["connections_dense"])
    counts = {"rounds": 0, "epochs": 0, "images": nets[0]["images"]}
    class_names = stage.parents[next(iter(params.weights))].class_names
    return StageResult(
        score_tensors(val, test),
        {**totals, **counts, **accuracies(val, test)},
        class_names,
        confusion=confusion_rows(test, class_names),
    )


def _fused(parents: Parents, shares: Mapping[str, float], part: str) -> Scores:
    labels = [parents[stream].tensors[f"labels.{part}"] for stream in shares]
    if any(not torch.equal(labels[0], others) for others in labels[1:]):
        raise ValueError(f"the streams {', '.join(shares)} have other {part} videos: their data must be split alike")
    scores = [share * parents[stream].tensors[f"log_scores.{part}"].exp() for stream, share in shares.items()]
    return Scores((torch.stack(scores).sum(0) / sum(shares.values())).log(), labels[0])

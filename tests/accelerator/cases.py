"""What is run on the pretended accelerator: small stages of every kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.hyperparameters import (
    EvaluationParams,
    FusionParams,
    KnowledgeConfig,
    KnowledgeParams,
    NeuronPruneParams,
    ReferenceParams,
    SourcePruneParams,
    TargetPruneParams,
    TrainConfig,
    TransferParams,
    WeightsConfig,
)
from trainables.images import RESIDENT_BYTES
from trainables.settings import DataConfig, Hyperparameters

CENTRE = DataConfig(name="tests.test_images:roomy", train_per_class=6, val_per_class=6, mean=(0.25,), std=(0.5,))
"""Larger than the network's input, so that crops differ; one mean a channel, which is a tensor on the device."""
TEN = CENTRE.model_copy(update={"views": "ten"})
RANDOM = CENTRE.model_copy(update={"views": "random"})
IMAGES = {"centre": CENTRE, "ten": TEN, "random": RANDOM}

TRAIN = TrainConfig(epochs=2, learning_rate=0.01, batch_size=10)
GUIDED = KnowledgeConfig(tau=4, lambda_=1)
WEIGHTS = "weights.safetensors"
"""File of the reference's weights, in the working directory."""


@dataclass(frozen=True)
class Case:
    """One stage of small_alexnet."""

    kind: str
    params: Hyperparameters
    parents: Mapping[str, str]
    """By role, the case whose net, trained on the CPU, is the parent."""
    images: DataConfig = CENTRE
    images_a_pass: int | None = None
    stop_after: int | None = None
    """Crash after this many epochs and resume from the checkpoint, on the accelerator only; None: never."""


def _transfer(knowledge: KnowledgeConfig | None, views: str = "centre", **more: Any) -> Case:
    train = TRAIN.model_copy(update={"precision": more.pop("precision", "float32")})
    params = TransferParams(n_m=2, n_e=2 if knowledge else None, knowledge=knowledge, train=train)
    parents = {"source": "pruned" if knowledge else "reference"}
    if knowledge is not None:
        parents["reference"] = "reference"
        if not knowledge.live:
            parents["knowledge"] = f"knowledge, {views}"
    return Case("transfer", params, parents, IMAGES[views], **more)


_GUIDES = {"reference": "reference", "knowledge": "knowledge, centre"}


def _target_prune(**changes: Any) -> Case:
    params = TargetPruneParams(keep=0.2, knowledge=GUIDED, retrain=TRAIN, **changes)
    return Case("target_prune", params, {"start": "transfer, S+K+", **_GUIDES})


def _neuron_prune(standard: str, stop_after: int | None = None, **changes: Any) -> Case:
    params = NeuronPruneParams(
        neurons_per_step=100, images_per_class=2, knowledge=GUIDED, retrain=TRAIN, tolerance=0, **changes
    )
    parents = {"start": "target_prune, layer", "standard": standard, **_GUIDES}
    return Case("neuron_prune", params, parents, stop_after=stop_after)


CASES = {
    "reference": Case("reference", ReferenceParams(train=TRAIN), {}),
    "reference, from weights": Case("reference", ReferenceParams(weights=WeightsConfig(file=WEIGHTS)), {}, TEN),
    "pruned": Case("source_prune", SourcePruneParams(keep=0.4, retrain=TRAIN), {"source": "reference"}),
    "pruned, globally, at random": Case(
        "source_prune",
        SourcePruneParams(keep=0.4, scope="global", criterion="random", retrain=TRAIN),
        {"source": "reference"},
    ),
    "knowledge, centre": Case("knowledge", KnowledgeParams(), {"reference": "reference"}),
    "knowledge, ten": Case("knowledge", KnowledgeParams(), {"reference": "reference"}, TEN),
    "transfer, S-K-": _transfer(None),
    "transfer, S+K+": _transfer(GUIDED),
    "transfer, S+K+, ten crops, in parts": _transfer(GUIDED, "ten", images_a_pass=4),
    "transfer, S+K+, live, random crops": _transfer(GUIDED.model_copy(update={"live": True}), "random"),
    "transfer, S+K+, shuffled": _transfer(GUIDED.model_copy(update={"source": "shuffled"})),
    "transfer, S+K+, bfloat16": _transfer(GUIDED, precision="bfloat16"),
    "target_prune, layer": _target_prune(scope="layer"),
    "target_prune, global": _target_prune(scope="global"),
    "neuron_prune": _neuron_prune("no level"),
    "neuron_prune, until accuracy falls": _neuron_prune("level that falls"),
    "neuron_prune, a step": _neuron_prune("no level", layer="fc6"),
    "neuron_prune, resumed": _neuron_prune("no level", stop_after=3),
    "evaluation, ten crops": Case(
        "evaluation",
        EvaluationParams(),
        {"net": "transfer, S+K+"},
        CENTRE.model_copy(update={"evaluation": "ten"}),
    ),
    "fusion": Case(
        "fusion",
        FusionParams(weights={"spatial": 1, "temporal": 2}),
        {"spatial": "transfer, S+K+", "temporal": "transfer, S-K-"},
    ),
}
HOMES = {"resident": RESIDENT_BYTES, "host": 0}
"""Where the pixels are: on the device or on the host. The value is up to how many bytes go to the device."""

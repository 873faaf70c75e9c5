"""What a stage reports of its net: accuracies, what is left of each layer, confusion, and the knowledge used."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables import networks, pruning
from trainables.data import ArrayPixels
from trainables.hybrid import HybridTransferNet
from trainables.images import Images
from trainables.layers import LayeredNet
from trainables.pruning import Masks
from trainables.sessions import Session
from trainables.settings import Crops
from trainables.training import Evaluation, Knowledge, Row, evaluate, log_scores, tally

KNOWLEDGE_RANKS = 10
"""Source classes that the knowledge table holds for each target class: the most probable ones."""


@dataclass
class StageResult:
    """The result of a stage: tensors and facts for its children, and its rows for the result tables."""

    tensors: dict[str, Tensor]
    metrics: Row
    class_names: tuple[str, ...]
    epochs: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    knowledge: list[Row] = field(default_factory=list)
    confusion: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Extent:
    """Connections of each weight, and the neurons that it makes, at a moment of a stage."""

    connections: dict[str, int]
    neurons: dict[str, int]

    @classmethod
    def of(cls, net: LayeredNet, masks: Masks) -> "Extent":
        """What there is now."""
        kept = pruning.kept_connections(net, masks)
        return cls(kept, {name: int(weight.shape[0]) for name, weight in net.weights().items()})


@dataclass(frozen=True)
class Scores:
    """Logarithmic class scores ``float32 (k, classes)`` of a part's items and their labels ``int64 (k,)``."""

    log_scores: Tensor
    labels: Tensor

    @classmethod
    def of(cls, net: LayeredNet, images: Images, items: Tensor, session: Session, crops: Crops = "centre") -> "Scores":
        """The scores of a main branch, on the CPU; the workers of a group share the work, and each gets all scores."""
        found = torch.zeros(len(items), net.classes, device=images.device)
        for part, scores in log_scores(net, images, items, session, crops):
            found[int(part[0]) : int(part[-1]) + 1] = scores
        return cls(session.sum(found).cpu(), images.labels[items])


def accuracies(val: Scores, test: Scores) -> Row:
    """The metrics of final scores. The test set is looked at here and nowhere else."""
    on_val, on_test = (Evaluation.of(tally(part.log_scores, part.labels), len(part.labels)) for part in (val, test))
    return {
        "val_accuracy": on_val.accuracy,
        "val_loss": on_val.loss,
        "test_accuracy": on_test.accuracy,
        "test_top5_accuracy": on_test.top5_accuracy,
    }


def score_tensors(val: Scores, test: Scores) -> dict[str, Tensor]:
    """Scores and labels as an artifact keeps them: what a fusion with another net needs."""
    return {
        f"{kind}.{part}": tensor
        for part, scores in (("val", val), ("test", test))
        for kind, tensor in (("log_scores", scores.log_scores), ("labels", scores.labels))
    }


def net_metrics(
    net: HybridTransferNet,
    masks: Masks,
    network: str,
    images: Images,
    session: Session,
    epochs: list[Row],
    crops: Crops = "centre",
) -> Row:
    """What there is to report of a final net in addition to its accuracies on validation and test images."""
    after, dense = Extent.of(net.main, masks), networks.weight_counts(network, net.main.classes)
    total, kept = sum(dense.values()), sum(after.connections.values())
    # Images that are read again each time are too many to be run over once more.
    in_reach = isinstance(images.pixels, ArrayPixels) and len(images.train) > 0
    return {
        "train_accuracy": evaluate(net.main, images, images.train, session, crops).accuracy if in_reach else None,
        "connections_dense": total,
        "connections": kept,
        "prune_percent": 100 * (1 - kept / total),
        "neurons": sum(after.neurons[name] for name in net.main.inner_products()),
        "loss_ratio": epochs[-1]["loss_ratio"] if epochs else None,
        "kl_ratio": epochs[-1]["kl_ratio"] if epochs else None,
        "gradient_ratio": epochs[-1]["gradient_ratio"] if epochs else None,
        "rounds": 1,
        "epochs": len(epochs),
        "images": len(images.train),
    }


def layer_rows(main: LayeredNet, masks: Masks, network: str, before: Extent) -> list[Row]:
    """Connections and neurons before and after, of each weight: layers of most networks have several."""
    after, dense = Extent.of(main, masks), networks.weight_counts(network, main.classes)
    positions = networks.output_positions(main)
    return [
        {
            "layer_index": index,
            "layer": weight,
            "type": _type(home.module),
            "connections_dense": dense[weight],
            "connections_before": before.connections[weight],
            "connections": after.connections[weight],
            "neurons_before": before.neurons[weight],
            "neurons": after.neurons[weight],
            "positions": positions.get(weight),
        }
        for index, name in enumerate(main.names, start=1)
        for weight, home in main.layer(name).connections(name).items()
    ]


def _type(module: nn.Module) -> str:
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    return "inner_product" if isinstance(module, nn.Linear) else "convolution"


def confusion_rows(test: Scores, class_names: Sequence[str]) -> list[Row]:
    """How many test images of each class are taken for which."""
    classes = len(class_names)
    pairs = test.labels * classes + test.log_scores.argmax(1)
    counts = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return [
        {"target_class": class_names[label], "predicted_class": class_names[predicted], "images": int(count)}
        for label, predicted in counts.nonzero().tolist()
        if (count := counts[label, predicted])
    ]


def knowledge_rows(
    net: HybridTransferNet, knowledge: Knowledge, images: Images, source_classes: Sequence[str]
) -> list[Row]:
    """Mean softened output of the reference over each target class's training images (Figure 2)."""
    rows = []
    for label, name in enumerate(images.content.class_names):
        members = images.train[images.labels[images.train] == label]
        mean = functional.softmax(_logits(net, knowledge, images, members) / knowledge.config.tau, dim=1)
        mean = mean.double().mean(0)
        for rank, index in enumerate(mean.argsort(descending=True, stable=True)[:KNOWLEDGE_RANKS].tolist(), start=1):
            rows.append(
                {
                    "tau": knowledge.config.tau,
                    "target_class": name,
                    "images": len(members),
                    "class_rank": rank,
                    "source_class": source_classes[index],
                    "probability": float(mean[index]),
                }
            )
    return rows


def _logits(net: HybridTransferNet, knowledge: Knowledge, images: Images, items: Tensor) -> Tensor:
    """Logits that guide the items, of all views if they are cached, else of the centre crops."""
    partners = knowledge.partner[items]
    if knowledge.logits is not None:
        return knowledge.logits[partners].flatten(0, 1)
    return torch.cat([net.knowledge(seen) for seen in images.centred(partners)])

"""What follows from a study's configuration and its data."""

from functools import cache

from study.settings.models import StudyConfig
from trainables import data, networks, pretrained, pruning
from trainables.hyperparameters import WeightsConfig
from trainables.weight_files import fingerprint
from trainables.weights import load_into


def located_weights(config: StudyConfig) -> WeightsConfig | None:
    """The pretrained weights of the reference, their file's path made whole."""
    weights = config.source.weights
    return weights and weights.model_copy(update={"file": config.data.find(weights.file)})


def source_classes(config: StudyConfig) -> tuple[str, ...]:
    """Names of the source's classes; without images, the pretrained weights'.

    Raises:
        WeightsError: these cannot be read.
    """
    if names := data.load(config.source.data, config.data).class_names:
        return names
    weights = located_weights(config)
    assert weights is not None
    return pretrained.class_names(weights, config.network)


def nonzero_shares(config: StudyConfig) -> dict[str, float]:
    """Share of each layer's connections that are not zero in the pretrained weights.

    Raises:
        WeightsError: these cannot be read, or do not fit.
    """
    weights = located_weights(config)
    assert weights is not None
    return _nonzero_shares(weights, fingerprint(weights.file), config.network, source_classes(config))


@cache
def _nonzero_shares(weights: WeightsConfig, content: str, network: str, classes: tuple[str, ...]) -> dict[str, float]:
    """The content is there so that a changed file is looked at again."""
    net = networks.fresh(network, len(classes), 0)
    load_into(net, weights, classes)
    left = pruning.by_layer(net, pruning.nonzero_connections(net))
    return {name: left[name] / count for name, count in networks.connection_counts(network, len(classes)).items()}


def target_classes(config: StudyConfig) -> int:
    """Number of classes of the target."""
    return len(data.load(config.target.data, config.data).class_names)


def hybrid_share(config: StudyConfig) -> float | None:
    """Share of connections that Hybrid-TransferNet keeps; None if only training tells, with one global threshold."""
    prune, n_m = config.source.prune, max(config.transfer.n_m, 1)
    if prune.scope == "global":
        return None
    dense = networks.connection_counts(config.network, target_classes(config))
    table = nonzero_shares(config) if prune.is_given else prune.final_shares
    shares = table if isinstance(table, dict) else dict.fromkeys(dense, table)
    fresh = list(dense)[len(dense) - n_m :]
    kept = sum(count * (1.0 if layer in fresh else shares[layer]) for layer, count in dense.items())
    return kept / sum(dense.values())

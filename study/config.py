"""The study's configuration, checked as a whole: the data sets, the network and the weights are looked at."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from search_spaces.ablations import ABLATIONS
from search_spaces.axes import axis_names
from study.settings.facts import hybrid_share, located_weights, nonzero_shares, source_classes, target_classes
from study.settings.models import NeuronPruneConfig, StudyConfig
from study.settings.overrides import (
    ConfigError,
    Overrides,
    Source,
    as_yaml,
    data_configs,
    list_presets,
    on_each,
    preset_title,
    read_config,
    read_source,
    stream_config,
    target_config,
    value_at,
    with_changes,
)
from study.settings.resources import ResourceConfig
from trainables import channels, data, networks, patterns, removals
from trainables.data import Places
from trainables.data.absent import NONE
from trainables.hyperparameters import WeightsConfig
from trainables.pretrained import normalisation
from trainables.settings import DataConfig
from trainables.suggestions import choices
from trainables.weight_files import fingerprint
from trainables.weight_names import WeightsError
from trainables.weights import load_into

__all__ = [
    "ConfigError",
    "NeuronPruneConfig",
    "ResourceConfig",
    "StudyConfig",
    "as_yaml",
    "check",
    "data_configs",
    "hybrid_share",
    "list_presets",
    "load_config",
    "located_weights",
    "on_each",
    "preset_title",
    "read_config",
    "source_classes",
    "stream_config",
    "target_classes",
    "target_config",
    "with_changes",
]


def load_config(preset: str, overrides: Overrides = ()) -> StudyConfig:
    """Read a preset (a name, or a path of a YAML file) and apply overrides.

    Args:
        preset: its name or path.
        overrides: ``key.sub=value`` texts, as ``--set`` takes them, or values by dotted keys: ``{"transfer.tau": 2}``.

    Raises:
        ConfigError: the preset is unknown, or anything in it or in the overrides is wrong; all problems are listed.
    """
    source = read_source(preset, overrides)
    config = source.parsed()
    _require(source, _problems(config))
    return config


def check(config: StudyConfig, what: str, *, prunes_target: bool = True) -> None:
    """Make sure that a configuration can be used; ``what`` names it in errors.

    Where nothing is to be pruned in the target, ``prunes_target=False`` leaves its schedule unchecked.

    Raises:
        ConfigError: it cannot; all problems are listed.
    """
    _require(Source(Path(what), {}), _problems(config, prunes_target))


def _require(source: Source, problems: Sequence[tuple[str, str]]) -> None:
    if problems:
        raise source.error(problems)


def _problems(config: StudyConfig, prunes_target: bool = True) -> list[tuple[str, str]]:
    if config.targets:
        return [*_targets_problems(config)]
    problems = [*_cross_checks(config)]
    return problems or ([*_target_checks(config)] if prunes_target else [])


def _tuned_problems(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether each net can be tuned separately, on validation images and with other seeds than the study's."""
    tuned = config.tuned
    if tuned is None:
        return
    if config.target.data.retrain_on_validation:
        yield "tuned", "chooses by validation accuracy, but target.data.retrain_on_validation trains on these images"
    if config.streams:
        yield "tuned", "a two-stream study is not tuned: leave out tuned, or streams and fusion"
    if not {*config.ablations} & {*ABLATIONS}:
        yield "tuned", f"there are no nets to tune: add one of {', '.join(ABLATIONS)} to the ablations"
    for key in tuned.settings:
        try:
            value_at(config, key)
        except ConfigError as error:
            yield "tuned.settings", str(error)


def _targets_problems(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """What is wrong with any of several targets; what is wrong with all of them, once."""
    if config.streams:
        yield "targets", "a two-stream study has one target: leave out targets, or streams and fusion"
        return
    concerned: dict[tuple[str, str], list[str]] = {}
    for target in config.targets:
        for problem in _problems(target_config(config, target)):
            concerned.setdefault(problem, []).append(target)
    for (key, message), targets in concerned.items():
        if len(targets) == len(config.targets):
            yield key, message
        else:
            others = f" (so has {', '.join(targets[1:])})" if len(targets) > 1 else ""
            yield f"targets.{targets[0]}", f"{key}: {message}{others}"


def _cross_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """What no single key can know: pairs of key and message."""
    axes = axis_names(config)
    for name in config.ablations:
        if name not in (known := [*ABLATIONS, *axes]):
            yield "ablations", f"no ablation {name!r}: {choices(name, known)}"
    for crossing, parts in config.crossings.items():
        for name in parts.axes:
            if name not in axes or name in config.crossings:
                plain = [axis for axis in axes if axis not in config.crossings]
                yield f"crossings.{crossing}.axes", f"no axis {name!r}: {choices(name, plain)}"
    for name, points in config.axes.items():
        if any("target.data.retrain_on_validation" in point for point in points):
            yield f"axes.{name}", "retrain_on_validation cannot vary: the points of an axis are chosen by validation"
    for name in {*config.axes, *config.crossings} & {*ABLATIONS}:
        yield "axes", f"{name!r} is the name of an ablation already: choose another"
    data_problems = [*_data_checks(config)]
    yield from data_problems
    if len(set(config.seed_list)) < len(config.seed_list):
        yield "seeds", "each seed must be there once"
    if (problem := networks.problem(config.network)) is not None:
        yield "network", problem
        return
    if data_problems:
        return
    problems = [*_tuned_problems(config), *_network_checks(config), *_weights_checks(config)]
    # Streams have these in common with their study: once reported is enough.
    yield from problems or _stream_checks(config)


def _data_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether the data sets are there, whole, and large enough for their splits."""
    known = {**data.DATA_SETS, **data.LAYOUTS}
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        if images.name not in known and ":" not in images.name:
            yield f"{domain}.data.name", f"no data set {images.name!r}: {choices(images.name, known)}"
            return
        if (problem := _split_problem(images, config.data)) is not None:
            yield f"{domain}.data", problem
    if config.target.data.is_free and not config.transfer.live:
        yield (
            "target.data.views",
            "random crops and augmented images have no stored knowledge: set transfer.live=true, which runs the "
            "reference on each batch, or views=ten and auto_augment=null",
        )
    probe = config.transfer.probe or config.transfer.train
    if "probes" in config.ablations and (config.target.data.is_free or probe.mixes):
        yield (
            "ablations",
            "has probes, which are trained on stored features: give target.data.views centre or ten, no auto_augment, "
            "and a transfer.probe without mixup and CutMix",
        )
    if "probes" in config.ablations and config.source.prune.in_transfer:
        yield "ablations", "has probes, but there is no sparse net in the source: masks shrink during the transfer"
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        if images.modality == "flow" and (images.views == "resized" or images.auto_augment):
            yield f"{domain}.data.views", "optical flow is neither resized nor augmented: give views=ten or random"


@cache
def _split_problem(images: DataConfig, places: Places) -> str | None:
    """Why a data set cannot be opened or split; looked at once, for the many configurations of an axis."""
    try:
        data.split(data.load(images, places), images, seed=0)
    except (KeyError, ValueError) as error:
        return str(error.args[0])
    return None


def _stream_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether each stream of a two-stream study can be used, and their fusion."""
    for stream in config.streams:
        try:
            check(stream_config(config, stream), f"streams.{stream}")
        except ConfigError as error:
            yield f"streams.{stream}", str(error)
    if set(config.fusion) != set(config.streams):
        yield "fusion", f"must give a weight for each stream: {', '.join(config.streams) or 'there is none'}"
    if "two-stream" in config.ablations and len(config.streams) < 2:
        yield "ablations", "two-stream needs at least two streams: see the preset hmdb51"


def _network_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """What depends on the layers of the network."""
    name, transfer = config.network, config.transfer
    dense = networks.connection_counts(name, target_classes(config))
    channels, height, width = networks.input_shape(name)
    if data.load(config.target.data, config.data).is_empty:
        yield "target.data", "has no images: nothing could be transferred to it"
        return
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        content = data.load(images, config.data)
        shape = content.shape
        if content.is_empty:
            continue
        if shape[0] != channels or shape[1] < height or shape[2] < width:
            yield (
                "network",
                f"{name} takes {channels} x {height} x {width} images (channels, height, width), but those of "
                f"{domain}.data are {' x '.join(map(str, shape))}: larger ones are cropped, nothing else fits",
            )
    depth = len(dense)
    for key, n_m in (("n_m", transfer.n_m), ("standard_n_m", transfer.standard_n_m)):
        if n_m is not None and n_m > depth:
            yield f"transfer.{key}", f"is {n_m}, but {name} has N = {depth} layers: give 0 to {depth}"
    if transfer.n_e >= depth:
        where = f"the extra branch must sit on a layer of the main branch, and {name} has N = {depth} layers"
        yield "transfer.n_e", f"is {transfer.n_e}, but {where}: give 1 to {depth - 1}"
    table = None if config.source.prune.is_given else config.source.prune.final_shares
    if isinstance(table, dict) and set(table) != set(dense):
        yield "source.prune.keep", f"must name each layer of {name}: {', '.join(dense)}"
    yield from _batch_checks(config)
    yield from _block_checks(config)
    if config.neuron_prune is not None:
        yield from _neuron_checks(config, config.neuron_prune)


def _batch_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether batches are seen whole if an image depends on its batch: parts would be other batches."""
    source, target = [config.source.train, config.source.prune.retrain], [config.transfer.train]
    target += [prune.retrain for prune in (config.target_prune, config.neuron_prune) if prune is not None]
    trainings = [train for train in (*source, *target) if train is not None]
    mixes = any(train.mixes for train in trainings)
    if any(train.mixes for train in target) and not config.transfer.live:
        yield "transfer.live", "is false, but mixed images have no stored knowledge: set it to true"
    if mixes:
        why = "but images are mixed with others of their batch, which must then be whole: give"
    elif networks.normalises_batches(config.network) and any(train.batch_norm != "freeze" for train in trainings):
        why = f"but {config.network} normalises its batches, which must then be whole: give"
    else:
        return
    if config.resources.workers > 1:
        yield "resources.workers", f"is {config.resources.workers}, {why} 0 or 1"
    if config.resources.images_a_pass is not None:
        yield "resources.images_a_pass", f"is {config.resources.images_a_pass}, {why} null"


def _block_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether each weight keeps a block at least: if one block is more than it keeps, it would lose everything."""
    source, target = config.source.prune, config.target_prune
    asked = [("target_prune", target.pattern, target.keep[-1], target.scope)]
    if not source.is_given:
        shares = source.final_shares
        least = min(shares.values()) if isinstance(shares, dict) else shares
        asked.append(("source.prune", source.pattern, least, source.scope))
    counts = networks.weight_counts(config.network, target_classes(config))
    for key, text, share, scope in asked:
        if text is None or scope == "global" or (size := patterns.parsed(text).block) is None:
            continue
        small = next((name for name, count in counts.items() if size > share * count), None)
        if small is not None:
            kept = f"{share:g} of the {counts[small]:,} connections of {small}"
            yield f"{key}.pattern", f"is {text}: one block is more than {kept}, which would lose all of them"


def _neuron_checks(config: StudyConfig, prune: NeuronPruneConfig) -> Iterator[tuple[str, str]]:
    """Whether neurons can be pruned, and the number of steps is set if validation cannot tell it."""
    if prune.channels_per_step is not None and not channels.installed():
        yield "neuron_prune.channels_per_step", f"needs the package torch-pruning: {channels.REMEDY}"
        return
    of_channels = prune.channels_per_step is not None
    widths = channels.widths(config.network) if of_channels else networks.inner_product_widths(config.network)
    if not widths:
        what = (
            "channels that can be removed by themselves"
            if of_channels
            else "hidden inner products with neurons to remove"
        )
        remedy = "set neuron_prune to null" + ("" if of_channels else ", or give channels_per_step: 0.1, say")
        yield "neuron_prune", f"{config.network} has no {what}: {remedy}"
        return
    if not of_channels and prune.neurons_per_step >= min(widths.values()):
        yield (
            "neuron_prune.neurons_per_step",
            f"is {prune.neurons_per_step}, but the inner-product layers of {config.network} have "
            f"{', '.join(map(str, widths.values()))} neurons: give less than {min(widths.values())}",
        )
    if prune.steps is None:
        if config.target.data.retrain_on_validation and "paper" in config.ablations:
            yield (
                "target.data.retrain_on_validation",
                "needs neuron_prune.steps, the number that a study without it took: nets that were trained on the "
                "validation images cannot tell when accuracy falls. Or leave paper out of the ablations",
            )
        return
    most = len(removals.schedule(prune.params(None), config.network))
    if prune.steps > most:
        what = "channels" if of_channels else "neurons"
        yield "neuron_prune.steps", f"is {prune.steps}, but the layers have {what} for {most}: give 1 to {most}"


@cache
def _weights_problem(
    weights: WeightsConfig, content: str, network: str, classes: tuple[str, ...], output: bool
) -> str | None:
    """Why the weights cannot be the network's; the content is there so that a changed file is looked at again."""
    try:
        load_into(networks.build(network, len(classes)), weights, classes if output else None)
    except WeightsError as error:
        return str(error)
    return None


def _weights_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether pretrained weights are there and fit."""
    if (weights := located_weights(config)) is None:
        return
    try:
        content = fingerprint(weights.file)
        classes = source_classes(config)
    except WeightsError as error:
        yield "source.weights.file", str(error)
        return
    problem = _weights_problem(weights, content, config.network, classes, config.source.train is None)
    if problem is not None:
        yield "source.weights", problem
    elif config.source.prune.is_given and min(nonzero_shares(config).values()) > 0.99:
        yield "source.prune.keep", f"is nonzero, but {weights.file} has no zeros: give sparse weights, or a share"
    yield from _normalisation_checks(config, weights)


def _normalisation_checks(config: StudyConfig, weights: WeightsConfig) -> Iterator[tuple[str, str]]:
    """Whether images are normalised as those that the pretrained net has seen, if that is known."""
    try:
        seen = normalisation(weights.file)
    except WeightsError:
        # No such weights: that is reported already.
        return
    if seen is None or weights.cross_modality or weights.bgr:
        return
    for domain, images in (("source", config.source.data), ("target", config.target.data)):
        given = [[value] * 3 if isinstance(value, float) else list(value) for value in (images.mean, images.std)]
        if images.name != NONE and given != list(seen):
            yield (
                f"{domain}.data",
                f"has mean {images.mean} and std {images.std}, but the net of {weights.file} was trained with mean "
                f"{seen[0]} and std {seen[1]}: give these",
            )


def _target_checks(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Whether pruning in the target starts below what Hybrid-TransferNet keeps, if that can be known beforehand."""
    share = hybrid_share(config)
    if share is not None and config.target_prune.keep[0] >= share:
        yield (
            "target_prune.keep",
            f"starts at {config.target_prune.keep[0]}, but Hybrid-TransferNet keeps {share:.3f} of the connections "
            "already: start below that",
        )

"""What pretrained weights tell of themselves: the classes that their net tells apart, and how it saw its images."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from trainables import networks
from trainables.hyperparameters import WeightsConfig
from trainables.weight_files import TORCHVISION, fingerprint, listed, read, torchvision_weights
from trainables.weight_names import WeightsError


def class_names(weights: WeightsConfig, network: str) -> tuple[str, ...]:
    """The classes of a file's net in the order of its outputs: their names if these are known, else their numbers.

    Raises:
        WeightsError: the file cannot be read, or has no output layer of the network's kind.
    """
    file = weights.file
    return _named(weights) or tuple(str(number) for number in range(_outputs(file, fingerprint(file), network)))


def _named(weights: WeightsConfig) -> tuple[str, ...]:
    if weights.classes is None and weights.file.startswith(TORCHVISION):
        return tuple(torchvision_weights(weights.file.removeprefix(TORCHVISION)).meta["categories"])
    return weights.classes or ()


def outputs_of(weights: WeightsConfig, classes: Sequence[str]) -> list[int] | None:
    """The net's outputs for the classes of a data set, found by name; None if they are taken in the data's order.

    Raises:
        WeightsError: a class is not among those that the weights are declared to have, or is there twice.
    """
    names = _named(weights)
    if names == tuple(classes):
        return None
    times = Counter(names)
    odd = [name for name in classes if times[name] != 1]
    if not odd:
        return [names.index(name) for name in classes]
    if weights.classes is None:
        return None
    raise WeightsError(
        f"source.weights.classes must name each class of the data once; missing or repeated: {listed(odd)}"
    )


@lru_cache(maxsize=64)
def _outputs(file: str, content: str, network: str) -> int:
    """Width of the output layer; the content is there so that a changed file is looked at again."""
    net, tensors = networks.outline(network, 2), read(file)
    matrices = [tensor for tensor in tensors.values() if tensor.ndim > 1]
    if net.is_traced:
        output = f"{list(net.weights())[-1]}.weight"
        matrices = [tensors[name] for name in (output, f"main.{output}") if name in tensors]
    if not matrices:
        raise WeightsError(f"{file} has no output layer for {network}, so it is not known how many classes it has")
    return len(matrices[-1])


def normalisation(file: str) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation of the pixels in 0..1, a value a channel; None if they are not known."""
    if not file.startswith(TORCHVISION):
        return None
    seen = torchvision_weights(file.removeprefix(TORCHVISION)).transforms()
    return list(seen.mean), list(seen.std)

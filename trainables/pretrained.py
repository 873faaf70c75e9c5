"""What pretrained weights say of themselves: the classes that their net tells apart, and how it saw its images."""

from functools import lru_cache

from trainables import networks
from trainables.weight_files import TORCHVISION, fingerprint, read, torchvision_weights
from trainables.weight_names import WeightsError


def class_names(file: str, network: str) -> tuple[str, ...]:
    """The classes of a file's net, by their names where torchvision has them and by their numbers elsewhere.

    Raises:
        WeightsError: the file cannot be read, or has no output layer of the network's kind.
    """
    if file.startswith(TORCHVISION):
        return tuple(torchvision_weights(file.removeprefix(TORCHVISION)).meta["categories"])
    return tuple(str(number) for number in range(_outputs(file, fingerprint(file), network)))


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
    """Mean and standard deviation of the pixels in 0..1, a value a channel; None where they are not known."""
    if not file.startswith(TORCHVISION):
        return None
    seen = torchvision_weights(file.removeprefix(TORCHVISION)).transforms()
    return list(seen.mean), list(seen.std)

"""What CUDA allows and what it refuses. The pretence must do the same, or a test that passes on it proves nothing."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tests.accelerator.device import DEVICE

MIXED = "Expected all tensors to be on the same device"
INDEX = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
GENERATOR = "Expected a '{}' device type for generator but found '{}'"


def here(*shape: int) -> Tensor:
    return torch.ones(shape)


def there(*shape: int) -> Tensor:
    return torch.ones(shape, device=DEVICE)


def rows(device: str) -> Tensor:
    return torch.tensor([0, 2], device=device)


def put(tensor: Tensor, indices: Tensor, values: Tensor) -> None:
    tensor[indices] = values


def filled(tensor: Tensor, device: str) -> Tensor:
    return tensor.bernoulli_(0.5, generator=torch.Generator(device))


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a sum": (lambda: there(3) + here(3), MIXED),
    "a CPU tensor with a device scalar": (lambda: here(3) + there(), MIXED),
    "a product in place": (lambda: there(3).mul_(here(3)), MIXED),
    "an output on the CPU": (lambda: torch.sum(there(3), 0, out=here()), MIXED),
    "an inner product": (lambda: functional.linear(there(2, 3), here(4, 3)), MIXED),
    "a convolution": (lambda: functional.conv2d(there(1, 1, 4, 4), here(1, 1, 3, 3)), MIXED),
    "a convolution's bias": (lambda: functional.conv2d(there(1, 1, 4, 4), there(1, 1, 3, 3), here(1)), MIXED),
    "labels of a loss": (lambda: functional.cross_entropy(there(2, 3), rows("cpu")), MIXED),
    "a stack of scalars": (lambda: torch.stack([there(), here()]), MIXED),
    "a CPU tensor at device indices": (lambda: here(3)[rows(DEVICE)], INDEX),
    "setting a CPU tensor at device indices": (lambda: put(here(3), rows(DEVICE), here(2)), INDEX),
    "setting CPU values": (lambda: put(there(3), rows("cpu"), here(2)), MIXED),
    "index_select": (lambda: there(3).index_select(0, rows("cpu")), MIXED),
    "gather": (lambda: there(3).gather(0, rows("cpu")), MIXED),
    "a CPU generator": (lambda: filled(there(3), "cpu"), GENERATOR.format(DEVICE, "cpu")),
    "a device generator for the CPU": (lambda: filled(here(3), DEVICE), GENERATOR.format("cpu", DEVICE)),
    "a CPU generator for a new tensor": (
        lambda: torch.randperm(3, generator=torch.Generator(), device=DEVICE),
        GENERATOR.format(DEVICE, "cpu"),
    ),
    "a device tensor as an array": (lambda: there(3).numpy(), "to host memory first"),
}
ALLOWED: dict[str, Callable[[], Tensor]] = {
    "a CPU scalar": lambda: there(3) + here(),
    "a CPU scalar first": lambda: here() * there(3),
    "CPU indices": lambda: there(3)[rows("cpu")],
    "a CPU mask": lambda: there(3)[torch.tensor([True, False, True])],
    "a device generator": lambda: filled(there(3), DEVICE),
    "from pinned memory": lambda: torch.ones(3).pin_memory().to(DEVICE, non_blocking=True),
}
"""Each returns a tensor on the device."""


def refusals() -> dict[str, str | None]:
    """The error of each operation that must be refused; None if there was none."""
    return {name: _error(operation) for name, (operation, _) in REFUSED.items()}


def allowances() -> dict[str, str]:
    """The device of each result that must be allowed."""
    return {name: operation().device.type for name, operation in ALLOWED.items()}


def _error(operation: Callable[[], object]) -> str | None:
    try:
        operation()
    except (RuntimeError, TypeError) as error:
        return str(error)
    return None

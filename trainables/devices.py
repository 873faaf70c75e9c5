"""What a training has to do for the sake of its device: copies that do not wait, memory layout, arithmetic, memory.

None of it changes what is computed on a CPU, but for the memory layout, which all devices have in common.
"""

import gc
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

AHEAD = 2
"""Batches that are fetched while the device is busy with others."""

Net = TypeVar("Net", bound=nn.Module)


class DeviceError(RuntimeError):
    """PyTorch cannot use the GPU that it is meant to use; the message states why."""


def usable_gpu() -> str:
    """The name of the GPU device.

    Raises:
        DeviceError: PyTorch has none that it can use.
    """
    if (problem := gpu_problem()) is not None:
        raise DeviceError(problem)
    return "cuda"


def gpu_problem() -> str | None:
    """Why PyTorch can use no GPU in this process; None if it can."""
    if torch.cuda.is_available():
        return None
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    try:
        torch.cuda.init()
        said = "it sees no GPU"
    except (AssertionError, RuntimeError) as error:
        said = str(error).splitlines()[0].partition(". ")[0]
    return f"PyTorch {torch.__version__}, {built}, can use no GPU: {said}"


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. A copy from the CPU to a GPU is queued behind its work: nothing waits for it."""
    return _pinned(tensor, device).to(device, non_blocking=True)


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in memory from which the device copies by itself; as it is if it need not be copied from the CPU."""
    if device.type == "cpu" or tensor.device.type != "cpu" or not tensor.numel():
        return tensor
    return tensor.pin_memory()


def placed(net: Net, device: torch.device) -> Net:
    """The net on the device, its convolutions in channels-last layout: the fastest on GPUs, and on CPUs by a sixth."""
    return net.to(device).to(memory_format=torch.channels_last)


def fetched_ahead(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """The batches, in order, on their way to the device while it is busy with earlier ones.

    They are fetched by another thread. A CPU gains nothing by that.
    """
    if device.type == "cpu":
        yield from batches
        return

    def fetch() -> Tensor | None:
        on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
        with on_device:
            batch = next(batches, None)
            return None if batch is None else _pinned(batch, device)

    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Tensor | None]] = deque(thread.submit(fetch) for _ in range(AHEAD))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(fetch))
            yield moved(batch, device)


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Within, PyTorch takes kernels whose results do not vary between runs, wherever it has such.

    That it only warns of the others is for the few that have no equal (adaptive pooling to windows that overlap). But
    the memory-efficient attention takes its varying kernel then, so it is turned off: the plain one needs more memory.
    """
    flags = torch.utils.deterministic
    efficient = torch.backends.cuda.mem_efficient_sdp_enabled()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = flags.fill_uninitialized_memory  # type: ignore[attr-defined]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    # Filling memory that is overwritten at once costs time and decides nothing.
    flags.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        flags.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        torch.backends.cuda.enable_mem_efficient_sdp(efficient)


@contextmanager
def float32_products(*, tf32: bool) -> Iterator[None]:
    """Within, a GPU takes products of float32 in TF32, or else exactly; PyTorch's own default is a mixture."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = tf32
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def release_memory(device: torch.device) -> None:
    """Give the GPU memory that PyTorch keeps for later back: other processes on the same GPU may need it."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()

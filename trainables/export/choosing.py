"""Which kernel executes each inner product the fastest on this machine, and the runtimes that a net is exported to."""

import io
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables import latency
from trainables.export.compact import KERNELS, Stored
from trainables.export.formats import Runtime
from trainables.layers import LayeredNet
from trainables.seeds import generator

Call = Callable[[Tensor], Tensor]

CANDIDATES: dict[Runtime, tuple[str, ...]] = {
    "torch": ("dense", "columns", "csr", "bag", "gather"),
    "pt2": ("dense", "columns", "bag", "gather"),
    "onnx": ("dense", "columns", "gather"),
}
"""Kernels that each runtime can execute. Semi-structured (2:4) products are only for GPUs."""
MOST_SPARSE_KEEPS = 0.5
"""Sparse kernels are for matrices with fewer connections than this share: above, the places outweigh the zeros."""
SECONDS = 3.0
"""Measuring the candidates of one layer takes about so long."""


@dataclass(frozen=True)
class Choice:
    """A layer's kernel, and how long a pass took with each candidate, in milliseconds; a single one is not measured."""

    kernel: str
    milliseconds: dict[str, float]


def choose(
    net: LayeredNet, stored: Mapping[str, Stored], runtime: Runtime, batch: int, threads: int
) -> dict[str, Choice]:
    """The fastest kernel for each inner product.

    Args:
        net: the net, without cut-off neurons.
        stored: weights of each layer.
        runtime: what will execute the net.
        batch: images of a pass; another batch may want other kernels.
        threads: threads of the arithmetic.
    """
    return {name: _fastest(stored[name], runtime, batch, threads) for name in net.inner_products()}


def _fastest(stored: Stored, runtime: Runtime, batch: int, threads: int) -> Choice:
    # As files are loaded by torch with wide weights, they are measured so.
    stored = stored.widened() if runtime == "torch" else stored
    x = torch.rand(batch, stored.weight.shape[1], generator=generator(0, "choosing"))
    names = [name for name in CANDIDATES[runtime] if _applies(name, stored.weight)]
    if len(names) == 1:
        return Choice(names[0], {})
    calls = [executable(KERNELS[name](stored), runtime, x, threads) for name in names]
    times = latency.by_turns([lambda call=call: call(x) for call in calls], threads, SECONDS)  # type: ignore[misc]
    milliseconds = {name: time.milliseconds for name, time in zip(names, times, strict=True)}
    return Choice(min(milliseconds, key=lambda name: milliseconds[name]), milliseconds)


def _applies(kernel: str, weight: Tensor) -> bool:
    connected = weight != 0
    if kernel == "columns":
        read = connected.any(0)
        return bool(read.any() and not read.all())
    return kernel == "dense" or bool(connected.float().mean() < MOST_SPARSE_KEEPS)


def executable(module: nn.Module, runtime: Runtime, example: Tensor, threads: int) -> Call:
    """The module as the runtime executes it: ``float32`` batch to ``float32`` outputs."""
    if runtime == "torch":
        return module.eval()
    if runtime == "pt2":
        return read_pt2(io.BytesIO(pt2(module, example)))
    return OnnxSession(onnx(module, example), threads)


def pt2(module: nn.Module, example: Tensor) -> bytes:
    """The content of a file of torch.export, for batches of any size; ``example`` is a batch of images."""
    content = io.BytesIO()
    torch.export.save(_exported(module, example), content)
    return content.getvalue()


def onnx(module: nn.Module, example: Tensor) -> bytes:
    """The content of an ONNX file, for batches of any size; input ``images``, output ``logits``."""
    with warnings.catch_warnings(), _silent_exporter():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _exported(module, example),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def read_pt2(file: str | Path | io.BytesIO) -> Call:
    """The net of a file of torch.export."""
    return torch.export.load(file if isinstance(file, io.BytesIO) else str(file)).module()


class OnnxSession:
    """An ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, model: str | bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs of a batch."""
        (logits,) = self.session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits)


def _exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    # A batch of one would be taken for a constant.
    batch = example if len(example) > 1 else example.expand(2, *example.shape[1:]).contiguous()
    return torch.export.export(module.eval(), (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))


class _silent_exporter:
    """The exporter logs which operators of other versions it lacks: nothing that concerns a user."""

    def __enter__(self) -> None:
        self.before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self.before)

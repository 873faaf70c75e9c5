"""Small and fast nets: how a pruned net is executed, and how it is written to a file and read again.

**Execution.** Convolutions stay dense. Each inner product has a *kernel*. All kernels return the same output but for
the order of sums: which one is the fastest depends on matrix, batch and machine, so
:mod:`trainables.export.choosing` measures.

**File.** A safetensors file of, for each layer,

- ``<layer>.bias``: ``float32 (outputs,)``;
- ``<layer>.weight``: the whole weight; or, if that is smaller, its non-zeros in row-major order as
  ``<layer>.values`` ``(n,)`` and their places, either as ``<layer>.bits``, ``uint8``: one bit a weight, set where it is
  not zero, the highest bit of a byte first; or as ``<layer>.gaps``, ``uint8``: zeros before each non-zero, where 255
  stands for 255 zeros and no value (the relative index of Deep Compression, Han et al. 2016, with 8 bits);
- ``<layer>.scale``: ``float32 (outputs,)``, if weights are ``int8``: weight = stored * scale of its output.

The metadata holds ``format``, ``network`` and ``layers``: JSON, of each layer its weight's ``shape`` and ``kernel``.
"""

import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from trainables import networks
from trainables.export.formats import WeightType
from trainables.layers import Dropout, LayeredNet

FORMAT = "sparse-transfer-study compact 1"
_SKIP = 255
"""The gap that stands for as many zeros without a value behind them."""


@dataclass(frozen=True)
class Stored:
    """A layer's weights as they are stored: ``weight * scale`` (by output) is the weight."""

    weight: Tensor
    """``float32``, ``float16`` or ``int8``, of the layer's shape; pruned connections are zeros."""
    bias: Tensor
    """``float32 (outputs,)``"""
    scale: Tensor | None = None
    """``float32 (outputs,)``; None: 1."""

    @classmethod
    def of(cls, op: nn.Conv2d | nn.Linear, kind: WeightType) -> "Stored":
        """Weights of a layer, rounded to the type; ``int8`` symmetrically, the largest of each output to 127."""
        weight = op.weight.detach()
        bias = weight.new_zeros(len(weight)) if op.bias is None else op.bias.detach()
        if kind == "int8":
            scale = weight.flatten(1).abs().amax(1) / 127
            rows = torch.where(scale > 0, scale, 1.0).view(-1, *[1] * (weight.dim() - 1))
            return cls((weight / rows).round().to(torch.int8), bias, scale)
        return cls(weight.to(torch.float16 if kind == "float16" else torch.float32), bias)

    def widened(self) -> "Stored":
        """The same in ``float32`` without a scale."""
        weight = self.weight.float()
        if self.scale is not None:
            weight = weight * self.scale.view(-1, *[1] * (weight.dim() - 1))
        return Stored(weight, self.bias)


class Product(nn.Module):
    """A layer's weights at work: weights wider than they are stored are made on the way, by each pass."""

    scale: Tensor | None
    bias: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.register_buffer("bias", stored.bias.clone())
        self.register_buffer("scale", None if stored.scale is None else stored.scale.clone())

    def finish(self, product: Tensor) -> Tensor:
        """Scale and bias, for a product ``(images, outputs)``."""
        return product + self.bias if self.scale is None else product * self.scale + self.bias


class Convolution(Product):
    """A dense convolution."""

    weight: Tensor

    def __init__(self, stored: Stored, like: nn.Conv2d) -> None:
        super().__init__(stored)
        if like.padding_mode != "zeros":
            raise ValueError(f"cannot export a convolution with padding_mode {like.padding_mode!r}: only zeros")
        self.register_buffer("weight", stored.weight.clone())
        self.stride = cast(tuple[int, int], like.stride)
        self.padding = cast(tuple[int, int], like.padding)
        self.dilation = cast(tuple[int, int], like.dilation)
        self.groups = like.groups

    def forward(self, x: Tensor) -> Tensor:
        """``(images, channels, height, width)`` to the same with the outputs as channels."""
        if self.scale is None:
            return self._convolved(x, self.bias)
        return self._convolved(x, None) * self.scale[:, None, None] + self.bias[:, None, None]

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.weight.float()
        return functional.conv2d(
            x, weight, bias, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
        )


class Dense(Product):
    """The whole matrix."""

    weight: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        self.register_buffer("weight", stored.weight.clone())

    def forward(self, x: Tensor) -> Tensor:
        """``(images, inputs)`` to ``(images, outputs)``."""
        if self.scale is None:
            return functional.linear(x, self.weight.float(), self.bias)
        return self.finish(functional.linear(x, self.weight.float()))


class Columns(Dense):
    """The whole matrix but for inputs that nothing is connected to."""

    columns: Tensor

    def __init__(self, stored: Stored) -> None:
        read = (stored.weight != 0).any(0)
        super().__init__(Stored(stored.weight[:, read], stored.bias, stored.scale))
        self.register_buffer("columns", read.nonzero().flatten().int())

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`Dense`."""
        return super().forward(x.index_select(1, self.columns))


class Csr(Product):
    """Compressed sparse rows, by the library's own routine; torch.export cannot write it."""

    matrix: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        starts, inputs, values = _rows(stored.weight)
        with warnings.catch_warnings():
            # That the interface is a beta, and that it could check what was built right here.
            warnings.filterwarnings("ignore", message="Sparse")
            # 32-bit indices: with 64 bits they are converted in each pass, which takes longer than the product.
            matrix = torch.sparse_csr_tensor(starts, inputs, values.float(), stored.weight.shape)
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`Dense`."""
        if len(x) == 1:
            return self.finish(torch.mv(self.matrix, x[0])[None])
        return self.finish((self.matrix @ x.t()).t())


class Bag(Product):
    """Compressed sparse rows as sums of embeddings: an input is a word, an output the weighted sum of its words."""

    starts: Tensor
    inputs: Tensor
    values: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        for name, part in zip(("starts", "inputs", "values"), _rows(stored.weight), strict=True):
            self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`Dense`."""
        table, weights = x.t().contiguous(), self.values.float()
        sums = functional.embedding_bag(
            self.inputs, table, self.starts, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        return self.finish(sums.t())


class Gather(Product):
    """Each output gathers its inputs, rows padded to the longest one (ELLPACK); for runtimes without sparse kernels."""

    inputs: Tensor
    values: Tensor

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored)
        connected = stored.weight != 0
        longest = max(1, int(connected.sum(1).max()))
        inputs = torch.sort(connected.to(torch.uint8), dim=1, descending=True, stable=True).indices[:, :longest]
        self.register_buffer("inputs", inputs.flatten().int())
        self.register_buffer("values", stored.weight.gather(1, inputs))

    def forward(self, x: Tensor) -> Tensor:
        """As :class:`Dense`."""
        seen = x.index_select(1, self.inputs).unflatten(1, self.values.shape)
        return self.finish((seen * self.values.float()).sum(2))


KERNELS: dict[str, type[Dense | Csr | Bag | Gather]] = {
    "dense": Dense,
    "columns": Columns,
    "csr": Csr,
    "bag": Bag,
    "gather": Gather,
}


def assemble(net: LayeredNet, stored: Mapping[str, Stored], kernels: Mapping[str, str]) -> nn.Sequential:
    """The net as a plain chain in evaluation mode: without dropout, each inner product with its kernel.

    Args:
        net: defines the order of layers and what stands between them; its own weights are not looked at.
        stored: weights of each layer.
        kernels: of each inner product, a name of :data:`KERNELS`; dense if there is none.
    """
    chain: OrderedDict[str, nn.Module] = OrderedDict()
    for name in net.names:
        layer, op = net.weighted(name), net.op(name)
        if isinstance(op, nn.Conv2d):
            product: nn.Module = Convolution(stored[name], op)
        else:
            product = KERNELS[kernels.get(name, "dense")](stored[name])
        modules = [*layer.before, product, *layer.after]
        chain[name] = nn.Sequential(*[m for m in modules if not isinstance(m, Dropout | nn.Dropout)])
    return nn.Sequential(chain).eval()


def encode(network: str, stored: Mapping[str, Stored], kernels: Mapping[str, str]) -> bytes:
    """The content of a file, as the module's head describes it."""
    tensors: dict[str, Tensor] = {}
    layers = {}
    for name, layer in stored.items():
        parts = {"bias": layer.bias, **_smallest(layer.weight)}
        if layer.scale is not None:
            parts["scale"] = layer.scale
        tensors |= {f"{name}.{kind}": tensor.contiguous() for kind, tensor in parts.items()}
        layers[name] = {"shape": list(layer.weight.shape), "kernel": kernels.get(name, "dense")}
    return save(tensors, {"format": FORMAT, "network": network, "layers": json.dumps(layers)})


def load_exported(path: str | Path) -> nn.Module:
    """The net of an exported safetensors file, ready to predict: images ``float32`` to logits.

    Weights are ``float32`` in memory, however they are stored. The kernels are those that were the fastest where the
    file was written.

    Raises:
        ValueError: the file is not one of these.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is no exported net: its format is {metadata.get('format')!r}, not {FORMAT!r}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
    layers = json.loads(metadata["layers"])
    stored = {
        name: Stored(
            _decoded(tensors, name, layer["shape"]), tensors[f"{name}.bias"], tensors.get(f"{name}.scale")
        ).widened()
        for name, layer in layers.items()
    }
    net = networks.build(metadata["network"], classes=1)
    return assemble(net, stored, {name: layer["kernel"] for name, layer in layers.items()})


def _smallest(weight: Tensor) -> dict[str, Tensor]:
    """The encoding that takes the fewest bytes."""
    flat = weight.flatten()
    values = flat[flat != 0]
    places = np.flatnonzero(flat.numpy())
    candidates: list[dict[str, Tensor]] = [
        {"weight": weight},
        {"bits": torch.from_numpy(np.packbits(flat.numpy() != 0)), "values": values},
        {"gaps": torch.from_numpy(_gaps(places)), "values": values},
    ]
    return min(candidates, key=lambda parts: sum(part.nbytes for part in parts.values()))


def _gaps(places: np.ndarray) -> np.ndarray:
    zeros = np.diff(places, prepend=-1) - 1
    skips = zeros // _SKIP
    ends = np.cumsum(skips + 1)
    gaps = np.full(int(ends[-1]) if len(ends) else 0, _SKIP, dtype=np.uint8)
    gaps[ends - 1] = zeros % _SKIP
    return gaps


def _decoded(tensors: Mapping[str, Tensor], name: str, shape: list[int]) -> Tensor:
    """A layer's stored weight, whichever way it was encoded."""
    if f"{name}.weight" in tensors:
        return tensors[f"{name}.weight"]
    values = tensors[f"{name}.values"]
    flat = values.new_zeros(int(np.prod(shape)))
    if f"{name}.bits" in tensors:
        places = np.flatnonzero(np.unpackbits(tensors[f"{name}.bits"].numpy(), count=len(flat)))
    else:
        gaps = tensors[f"{name}.gaps"].numpy()
        places = (np.cumsum(np.where(gaps == _SKIP, _SKIP, gaps.astype(np.int64) + 1)) - 1)[gaps != _SKIP]
    flat[torch.from_numpy(places)] = values
    return flat.reshape(shape)


def _rows(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compressed sparse rows: where each begins and the last ends, the inputs, the values; indices ``int32``."""
    connected = weight != 0
    starts = functional.pad(connected.sum(1).cumsum(0), (1, 0))
    return starts.int(), connected.nonzero()[:, 1].int().contiguous(), weight[connected]

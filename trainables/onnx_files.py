"""Reading the weights of an ONNX file, in the order in which its graph uses them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainables.weight_names import PARAMETER, WeightsError

MATRICES = ("Gemm", "MatMul")
WEIGHTED = ("Conv", "ConvTranspose", *MATRICES)
PASSED_ON = ("Identity", "Transpose")
"""Nodes between a stored tensor and the node that uses it."""


def onnx_graph(path: Path) -> Any:
    """The graph of an ONNX file.

    Raises:
        WeightsError: it is none, or not whole, or the package is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise WeightsError(f"{path} needs the package onnx: pip install -c constraints.txt -e '.[onnx]'") from error
    try:
        return onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise WeightsError(f"{path} is no whole ONNX file: {error}") from error


def read_onnx(path: Path) -> dict[str, Tensor]:
    """Weights by their names, in the order in which the graph uses them; inner products as (outputs, inputs).

    They may be stored as initializers or in nodes of type Constant. A tensor whose name does not tell that it is some
    layer's weight or bias gets the name of the node that uses it.

    Raises:
        WeightsError: the file cannot be read, or holds weights of another kind.
    """
    graph = onnx_graph(path)
    import onnx
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in graph.initializer} | _constants(graph)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored.values()):
        raise WeightsError(f"{path} has its weights in another file: save it as one, onnx.save(onnx.load(...), ...)")
    if any(tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) for tensor in stored.values()):
        raise WeightsError(f"{path} is quantised to integers: give the net with floating-point weights")
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    tensors: dict[str, Tensor] = {}
    for use in _uses(graph, stored, onnx.helper):
        if stored[use.tensor].data_type in kinds:
            array = numpy_helper.to_array(stored[use.tensor]).astype("float32", copy=False)
            tensor = torch.tensor(array)
            tensors.setdefault(use.name, tensor.t() if use.turned and tensor.ndim == 2 else tensor)
    return tensors


def _constants(graph: Any) -> dict[str, Any]:
    """Tensors in nodes of type Constant, by their outputs."""
    return {
        node.output[0]: option.t
        for node in graph.node
        if node.op_type == "Constant"
        for option in node.attribute
        if option.name == "value"
    }


@dataclass(frozen=True)
class _Use:
    """A stored tensor that a node takes."""

    tensor: str
    name: str
    """What it is called in the result."""
    turned: bool
    """Whether torch has that matrix the other way round."""


def _uses(graph: Any, stored: Mapping[str, Any], helper: Any) -> Iterator[_Use]:
    """Stored tensors that the graph's nodes take, in order.

    ``Gemm`` with transB = 1 multiplies as torch does, by (outputs, inputs); with transB = 0, and ``MatMul``, it is by
    (inputs, outputs). The node has to tell which: the shape of a square matrix does not.
    """
    producers = {output: node for node in graph.node for output in node.output}
    layer_of: dict[str, str] = {}  # by the output of its node
    for node in graph.node:
        options = {option.name: helper.get_attribute_value(option) for option in node.attribute}
        if node.op_type == "Gemm" and (options.get("alpha", 1), options.get("beta", 1)) != (1, 1):
            raise WeightsError(f"the ONNX node {node.name or node.output[0]} scales its weights: that cannot be read")
        if node.op_type in PASSED_ON:
            continue
        matrix = node.op_type in MATRICES
        layer = ""
        for position, name in enumerate(node.input):
            turned = matrix and position == 1 and not options.get("transB", 0)
            while name in producers and producers[name].op_type in (PASSED_ON if matrix else PASSED_ON[:1]):
                turned ^= producers[name].op_type == "Transpose"
                name = producers[name].input[0]
            if name not in stored:
                layer = layer or (layer_of.get(name, "") if node.op_type == "Add" else "")
                continue
            match = PARAMETER.fullmatch(name)
            if node.op_type in WEIGHTED and position == 1:
                layer = match["layer"] if match else f"{node.op_type}{len(layer_of) + 1}"
                layer_of[node.output[0]] = layer
            kind = "weight" if node.op_type in WEIGHTED and position == 1 else "bias"
            yield _Use(name, name if match or not layer else f"{layer}.{kind}", turned)

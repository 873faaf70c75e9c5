"""ONNX files as the model zoo has them, with its names: ``conv1_w_0``, ``fc8_b_0``."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from trainables import architectures
from trainables.networks import LayeredNet


def write_alexnet(path: Path, classes: int) -> dict[str, np.ndarray]:
    """The zoo's bvlcalexnet with random weights; gives them."""
    with torch.device("meta"):
        outline = architectures.bvlc_alexnet(classes)
    arrays = zoo_arrays(outline)
    onnx.save(onnx_graph(outline, arrays), path)
    return arrays


def onnx_graph(net: LayeredNet, arrays: dict[str, np.ndarray], inner: str = "transB=1") -> onnx.ModelProto:
    """A net of convolutions, ReLU, pooling and inner products, with the model zoo's names."""
    nodes, x = [], "data_0"
    for name in net.names:
        layer, op = net.weighted(name), net.op(name)
        inputs = [f"{name}_w_0", f"{name}_b_0"]
        if isinstance(op, nn.Conv2d):
            pads, strides = [*op.padding, *op.padding], list(op.stride)
            nodes.append(helper.make_node("Conv", [x, *inputs], [name], pads=pads, strides=strides, group=op.groups))
        else:
            if any(isinstance(module, nn.Flatten) for module in layer.before):
                nodes.append(helper.make_node("Flatten", [x], [f"{name}_flat"]))
                x = f"{name}_flat"
            nodes += inner_product(x, name, arrays, inner)
        x = name
        for position, module in enumerate(layer.after):
            y = f"{name}_{position}"
            if isinstance(module, nn.ReLU):
                nodes.append(helper.make_node("Relu", [x], [y]))
            elif isinstance(module, nn.MaxPool2d):
                size = [module.kernel_size] * 2
                nodes.append(helper.make_node("MaxPool", [x], [y], kernel_shape=size, strides=size))
            elif isinstance(module, nn.LocalResponseNorm):
                nodes.append(helper.make_node("LRN", [x], [y], size=module.size))
            else:
                continue
            x = y
    images = helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, [1, *net.input_shape])
    prob = helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [1, net.classes])
    stored = [numpy_helper.from_array(array, name) for name, array in reversed(arrays.items())]
    stored.append(numpy_helper.from_array(np.array([1, -1]), "OC2_DUMMY_1"))
    stored.append(numpy_helper.from_array(np.array(0.5, dtype=np.float32), "ratio"))
    graph = helper.make_graph(nodes, "zoo", [images], [prob], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def inner_product(x: str, name: str, arrays: dict[str, np.ndarray], inner: str) -> list[onnx.NodeProto]:
    weight, bias = f"{name}_w_0", f"{name}_b_0"
    if inner == "transB=1":
        return [helper.make_node("Gemm", [x, weight, bias], [name], transB=1)]
    if inner == "transposed":
        turn = helper.make_node("Transpose", [weight], [f"{name}_t"], perm=[1, 0])
        return [turn, helper.make_node("Gemm", [x, f"{name}_t", bias], [name])]
    arrays[weight] = np.ascontiguousarray(arrays[weight].T)
    if inner == "transB=0":
        return [helper.make_node("Gemm", [x, weight, bias], [name])]
    product = helper.make_node("MatMul", [x, weight], [f"{name}_product"])
    return [product, helper.make_node("Add", [f"{name}_product", bias], [name])]


def zoo_arrays(net: LayeredNet, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in net.names:
        op = net.op(name)
        shape = tuple(op.weight.shape)
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        arrays[f"{name}_w_0"] = rng.standard_normal(shape, dtype=np.float32) * scale
        arrays[f"{name}_b_0"] = rng.random(shape[0], dtype=np.float32)
    return arrays

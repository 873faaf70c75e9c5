"""Traced nets as files: nothing is chosen, removed or compressed, as their kernels are the libraries' own.

``safetensors`` holds the net's own state dict, pruned weights as zeros, which its authors' class loads. ``pt2`` and
``onnx`` hold the program.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from trainables import networks
from trainables.artifacts import fill
from trainables.export import choosing
from trainables.layers import LayeredNet
from trainables.seeds import generator


def encode(network: str, net: LayeredNet, format_: str) -> bytes:
    """The content of a file."""
    if format_ == "safetensors":
        tensors = {name: home.tensor.detach().contiguous() for name, home in net.tensors().items()}
        return save(tensors, {"format": "state dict", "network": network})
    example = torch.rand(2, *net.input_shape, generator=generator(0, "export"))
    return (choosing.onnx if format_ == "onnx" else choosing.pt2)(net, example)


def load(path: str | Path) -> nn.Module:
    """The net of a safetensors file, ready to predict."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dictionary)
        network = file.metadata()["network"]
    return fill(networks.build(network, classes=2), tensors).eval()

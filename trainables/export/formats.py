"""The formats of exported nets, by their names."""

from typing import Literal

Runtime = Literal["torch", "pt2", "onnx"]
WeightType = Literal["float32", "float16", "int8"]
RUNTIMES: dict[str, Runtime] = {"safetensors": "torch", "pt2": "pt2", "onnx": "onnx"}
"""What executes a file of each format."""

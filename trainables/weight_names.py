"""How files of pretrained weights name their tensors."""

import re

PARAMETER = re.compile(r"(?P<layer>.+?)[._/](?:(?P<weight>weight|w)|bias|b)(?:_0)?")  # Caffe2 appends the _0
"""A layer's weight or bias."""
TORCHVISION_LAYER = re.compile(r"(features|classifier)\.(\d+)\.")


class WeightsError(ValueError):
    """Weights that are missing, unreadable or unusable; the message states why."""


def torchvision_position(name: str) -> tuple[bool, int]:
    """Where a tensor of torchvision's AlexNet or VGG stands: features come first, and numbers count as numbers."""
    match = TORCHVISION_LAYER.match(name)
    return (match[1] == "classifier", int(match[2])) if match else (True, 0)


def numbers_as_numbers(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people count: ``net.2`` before ``net.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

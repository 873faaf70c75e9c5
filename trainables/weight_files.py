"""Reading pretrained weights: a file of one of the usual kinds, or torchvision's by name, as tensors by their names."""

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainables.data.places import in_package
from trainables.onnx_files import read_onnx
from trainables.suggestions import did_you_mean
from trainables.weight_names import TORCHVISION_LAYER, WeightsError, torchvision_position

TORCHVISION = "torchvision:"
PACKAGE = "package:"
"""Begins the name of a file that an installed package holds: ``package:my_package/models/net.pth``."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
HASHED = re.compile(r".*-(?=\w*[a-f])(?=\w*\d)([0-9a-f]{8,64})\.\w+")
"""A file's name that ends in the start of its SHA-256, as torch.hub and timm call theirs; a date is none."""


def fingerprint(file: str) -> str:
    """What stands for the content of ``file`` in a key: SHA-256 of its bytes, or torchvision's name.

    The name fixes the content: the address behind it has a hash in it, which is checked after the download.

    Raises:
        WeightsError: no such file.
    """
    if file.startswith(TORCHVISION):
        return file
    path = existing(file)
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, modified: int) -> str:
    """Size and time of change are there so that a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(file: str) -> dict[str, Tensor]:
    """Tensors by their names in the file, in the order of its layers if the file has one; on the CPU.

    Of a net that this project stored, only the main branch, without its masks. Of ONNX, the weights of inner products
    as torch has them: (outputs, inputs).

    Raises:
        WeightsError: no such file or name, or not one that can be read.
    """
    tensors = _read(file)
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise WeightsError(
            f"{file} holds numbers that are infinite or none, in {listed(broken)}: its training diverged"
        )
    return tensors


def _read(file: str) -> dict[str, Tensor]:
    if file.startswith(TORCHVISION):
        return _fetched(file.removeprefix(TORCHVISION))
    path = existing(file)
    with path.open("rb") as opened:
        if opened.read(len(LFS_POINTER)) == LFS_POINTER:
            raise WeightsError(f"{file} is a pointer of Git LFS, not the weights: run git lfs pull where it lies")
    _check_name(path)
    if path.suffix not in _READERS:
        kinds = f"{', '.join(_READERS)}, or {TORCHVISION}AlexNet_Weights.IMAGENET1K_V1 and its like"
        raise WeightsError(f"{file} is of no kind that can be read: give {kinds}")
    return _READERS[path.suffix](path)


def _check_name(path: Path) -> None:
    """If a file's name states its hash, the content must match."""
    if (named := HASHED.fullmatch(path.name)) and not fingerprint(str(path)).startswith(named[1]):
        raise WeightsError(
            f"{path} does not hold what its name states: its SHA-256 starts with {fingerprint(str(path))[:8]}, not "
            f"{named[1][:8]}. Get it again, or give it another name if it was changed on purpose"
        )


def existing(file: str) -> Path:
    """The path of a file that is there.

    Raises:
        WeightsError: it is not.
    """
    path = Path(file).expanduser()
    if file.startswith(PACKAGE):
        held = in_package(file.removeprefix(PACKAGE))
        if held is None:
            raise WeightsError(f"{file}: that package is not installed")
        path = held
    if not path.is_file():
        raise WeightsError(f"there is no file {file}")
    return path


def _fetched(name: str) -> dict[str, Tensor]:
    """State dict of torchvision's name, downloaded on first use into torch's own cache."""
    weights = torchvision_weights(name)
    if not weights.meta.get("categories"):
        raise WeightsError(
            f"{TORCHVISION}{name} has no classifier: its numbers there are none. A reference needs one, for its "
            "predictions are what the transfer is guided by: choose other weights of the network"
        )
    try:
        # Only tensors are unpickled, as in our own reading.
        state = weights.get_state_dict(check_hash=True, progress=False, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"{TORCHVISION}{name} could not be fetched from {weights.url} ({error}). Without a connection, fetch that "
            f"file elsewhere and put it into {cache} on each node, or give its path instead of the name"
        ) from error
    return _state_dict(f"{TORCHVISION}{name}", state)


def torchvision_weights(name: str) -> Any:
    """Torchvision's entry of that name.

    Raises:
        WeightsError: it has none.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise WeightsError(f"{TORCHVISION}{name} needs the package torchvision: pip install torchvision") from error
    # Without the aliases named DEFAULT, which mean other weights in other versions.
    known = {str(w): w for model in models.list_models(module=models) for w in models.get_model_weights(model)}
    if name not in known:
        question = did_you_mean(name, known, 3) or "did you mean 'AlexNet_Weights.IMAGENET1K_V1'?"
        raise WeightsError(f"torchvision has no weights {name!r}: {question}")
    return known[name]


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} was not read: it is damaged, or holds more than tensors, and reading that could run a program "
            "that came with it. Save only the weights: torch.save(model.state_dict(), ...)"
        ) from error
    return _state_dict(str(path), content)


def _state_dict(file: str, content: object) -> dict[str, Tensor]:
    """The state dict in what a torch file holds: all of it, or under ``state_dict`` or ``model``."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(
            f"{file} holds a {type(content).__name__}, and no state dict, nor one under state_dict or model"
        )
    strange = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(f"{file} is no state dict: {listed(strange)} are no tensors")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""  # of DataParallel
    tensors = {name.removeprefix(prefix): tensor.detach() for name, tensor in content.items()}
    if all(TORCHVISION_LAYER.match(name) for name in tensors):
        # Some tools sort the names as text, which would put features.10 before features.3.
        return dict(sorted(tensors.items(), key=lambda item: torchvision_position(item[0])))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Such a file keeps no order: torchvision's is restored from its names."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"{path} is no whole safetensors file: {error}") from error
    if any(name.startswith("main.") for name in tensors):
        return {name: tensor for name, tensor in tensors.items() if name.startswith("main.")}
    return dict(sorted(tensors.items(), key=lambda item: torchvision_position(item[0])))


def listed(names: list[str], most: int = 6) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".safetensors": _read_safetensors,
    ".onnx": read_onnx,
}

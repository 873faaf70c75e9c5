"""Where data sets lie and where their decoded pixels are kept. Nothing of it can change a result."""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from trainables.settings import FilePath, absolute

ROOT_VARIABLE = "STUDY_DATA_ROOT"
"""Environment variable with the folder of all data sets, if no preset and no option sets it."""


def _root() -> str | None:
    return os.environ.get(ROOT_VARIABLE)


def _cache() -> str:
    return str(Path.home() / ".cache" / "sparse-transfer-study")


def in_package(path: str) -> Path | None:
    """A file or folder of an installed package, ``package/folder/file``; None if the package is not installed."""
    package, _, inner = path.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inner


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file of the cache, whole or not at all; one that cannot be written is done without, as it saves time."""
    # The ending stays: some writers add theirs.
    part = path.with_name(f"{os.getpid()}-{path.name}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)


class Places(BaseModel):
    """Folders on a node. Immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    root: FilePath | None = Field(default_factory=_root, validate_default=True)
    """Folder in which each data set has a folder of its name; null: the environment variable STUDY_DATA_ROOT."""
    cache: FilePath = Field(default_factory=_cache, validate_default=True)
    """Folder on the node's own disk for decoded pixels, which all trials of the node share."""

    def find(self, file: str) -> str:
        """The file of pretrained weights that a preset names: relative to the data root, or else to the current folder.

        Names that are no paths (``torchvision:...``) stay as they are.
        """
        if ":" in file:
            return file
        beside = Path(self.root or ".") / file
        return absolute(str(beside if beside.is_file() else file))

"""The nets of a storage: found by a key, the beginning of one or a name, and opened with what is known of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from study.config import ConfigError, StudyConfig, data_configs, read_config
from study.storage import Storage, StorageError
from trainables import artifacts, data, networks, pruning
from trainables.data import DataError
from trainables.images import Images
from trainables.networks import LayeredNet
from trainables.suggestions import did_you_mean

NETLESS = {"knowledge": "logits", "features": "features", "fusion": "class scores", "evaluation": "accuracies"}
"""Stage kinds that make no net, and what they make."""
REFERENCE = "Reference-SourceNet"


@dataclass(frozen=True)
class StoredNet:
    """The net of a complete stage, its pruned weights zero."""

    key: str
    kind: str
    network: str
    seed: int
    net: LayeredNet

    @property
    def dense_connections(self) -> int:
        """Connections of the unpruned net."""
        return sum(networks.connection_counts(self.network, self.net.classes).values())

    @property
    def dense_bytes(self) -> int:
        """Size of the unpruned net's weights and biases in float32."""
        return networks.dense_bytes(self.network, self.net.classes)


def connections(net: LayeredNet) -> int:
    """Connections of a net, without those that are pruned: its weights that are not zero."""
    return sum(int((weight != 0).sum()) for weight in net.weights().values())


def open_net(storage: Storage, key: str) -> StoredNet:
    """The net of a stage.

    Raises:
        ConfigError: the stage has no net.
        StorageError: the stage is not complete, or damaged.
    """
    kind = key.rpartition("-")[0]
    if kind in NETLESS:
        raise ConfigError(f"{key} makes {NETLESS[kind]}, no net: choose a stage of another kind, a transfer, say")
    if not storage.has(key):
        raise StorageError(f"stage {key} is not complete: run its study again, then export it")
    (row,) = storage.rows("stages", [key]).to_pylist()
    net, masks = artifacts.unpack_main(row["network"], storage.artifact(key))
    pruning.apply(net, masks)
    return StoredNet(key, kind, row["network"], row["seed"], net.eval())


def find_stage(storage: Storage, text: str) -> str:
    """Key of the stage that a user means: a key, the only one that begins so, or ``STUDY:NET:SEED``.

    Raises:
        ConfigError: there is none, or there are several.
        StorageError: the study was not run.
    """
    if text.count(":") >= 2:
        study, _, rest = text.partition(":")
        net, _, seed = rest.rpartition(":")
        return _named(storage, study, net, seed)
    keys = storage.stages()
    if not keys:
        raise ConfigError(f"no stage is stored in {storage.root}: run a study first, or give its place with --storage")
    found = [text] if text in keys else [key for key in keys if key.startswith(text)]
    if not found:
        question = did_you_mean(text, keys, 3, before=": ")
        raise ConfigError(f"no stage {text!r} in {storage.root}{question}; or give STUDY:NET:SEED")
    return _only(text, found)


def study_nets(storage: Storage, study: str) -> dict[str, str]:
    """Stages of the nets that a comparison shows, the lowest seed of each: reference, Standard, C-nets and N-net.

    Raises:
        ConfigError: no such study.
        StorageError: the study was not run.
    """
    cells = [cell for cell in _cells(storage, study) if cell["ablation"] == "paper"]
    chosen: dict[str, str] = {}
    for cell in sorted(cells, key=lambda cell: cell["seed"]):
        name, path = str(cell["net"]), list(cell["path"])
        if cell["stream"]:
            name = f"{name}, {cell['stream']}"
        if name.startswith("Standard-TransferNet"):
            chosen.setdefault(name.replace("Standard-TransferNet", REFERENCE), path[0])
        if name.startswith(("Standard-TransferNet", "Sparse-TargetNet_")) and storage.has(cell["stage"]):
            chosen.setdefault(name, cell["stage"])
    return {name: key for name, key in chosen.items() if key.rpartition("-")[0] not in NETLESS}


def example_images(storage: Storage, stored: StoredNet, count: int) -> Tensor | None:
    """Test images as the net sees them, ``float32 (count, channels, height, width)``; None if they are not there."""
    for study in storage.studies():
        try:
            cells = storage.read_study(study, "cells")
            if not any(stored.key in path for path in cells["path"].to_pylist()):
                continue
            storage.study_files(study, ["config.yaml"])  # is what was written
            config = read_config(storage.study_path(study, "config.yaml"))
            return _test_images(config, stored, count)
        except (StorageError, ConfigError, DataError, KeyError):
            continue
    return None


def _test_images(config: StudyConfig, stored: StoredNet, count: int) -> Tensor | None:
    domain = "source" if stored.kind in ("reference", "source_prune") else "target"
    channels, *size = stored.net.input_shape
    for name, own in data_configs(config).items():
        content = data.load(own, config.data)
        if name.endswith(domain) and content.shape[0] == channels:
            split = data.split(content, own, stored.seed)
            images = Images.open(content, split, own, (size[0], size[1]), torch.device("cpu"))
            return next(images.centred(split.test[:count]))
    return None


def _named(storage: Storage, study: str, net: str, seed: str) -> str:
    cells = _cells(storage, study)
    if net == REFERENCE:
        keys = [cell["path"][0] for cell in cells if str(cell["seed"]) == seed and cell["path"]]
        keys = [key for key in keys if key.startswith("reference-")]
    else:
        nets = {str(cell["net"]) for cell in cells}
        if net not in nets:
            raise ConfigError(f"study {study} has no net {net!r}{did_you_mean(net, nets, 3, before=': ')}")
        # The paper's ablation holds the net itself; an axis holds variants of the same name.
        own = [cell for cell in cells if cell["net"] == net and str(cell["seed"]) == seed]
        plain = [cell for cell in own if cell["ablation"] == "paper"] or [cell for cell in own if not cell["point"]]
        keys = [cell["stage"] for cell in plain or own]
    if not keys:
        seeds = ", ".join(sorted({str(cell["seed"]) for cell in cells}))
        raise ConfigError(f"study {study} has no seed {seed!r}; it has {seeds}")
    return _only(f"{study}:{net}:{seed}", sorted(set(keys)))


def all_cells(storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of all studies, each with the study's name; a study whose table cannot be read hides no other."""
    for study in storage.studies():
        try:
            cells = storage.read_study(study, "cells").to_pylist()
        except StorageError:
            continue
        yield from ((study, cell) for cell in cells)


def _cells(storage: Storage, study: str) -> list[dict[str, Any]]:
    if study not in storage.studies():
        question = did_you_mean(study, storage.studies(), 3, before=": ")
        raise ConfigError(f"no study {study!r} in {storage.root}{question}")
    rows: list[dict[str, Any]] = storage.read_study(study, "cells").to_pylist()
    return rows


def _only(text: str, found: list[str]) -> str:
    if len(found) > 1:
        raise ConfigError(f"{text!r} may be any of {', '.join(found[:8])}{', ...' if len(found) > 8 else ''}")
    return found[0]

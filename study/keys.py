"""Content keys: what decides a stage's result, and nothing else, as a hash."""

from collections.abc import Mapping
from typing import Any

from study.generations import checksum
from trainables import data, networks
from trainables.data import ImageSet, Places
from trainables.hyperparameters import KEY_VERSION, ReferenceParams, StageSpec, TransferParams
from trainables.objects import source_digest
from trainables.settings import READING, Hyperparameters
from trainables.weight_files import fingerprint

MEASURING = ("evaluation", "fusion")
"""Kinds of stages that look at nets that others have trained."""


class Contents(Hyperparameters):
    """What a stage reads, by content: hashes that a key is made of, and that the node compares before it runs it."""

    data: str
    """Fingerprint of the data set and, of one of the user's own, of its source text."""
    network: str | None = None
    """Digest of the network's modules, shapes and, of one of the user's own, its source text; None for a fusion."""
    weights: str | None = None
    """Fingerprint of the pretrained weights, if there are any."""


def contents(spec: StageSpec, places: Places) -> Contents:
    """What the stage reads on this machine.

    Raises:
        KeyError: no such data set or network.
        DataError, WeightsError: data or weights are not there, or not whole.
    """
    weights = spec.params.weights if isinstance(spec.params, ReferenceParams) else None
    own_data = f" {source_digest(spec.data.name)}" if ":" in spec.data.name else ""
    return Contents(
        data=data.load(spec.data, places).fingerprint + own_data,
        network=None if spec.kind == "fusion" else networks.digest(spec.network),
        weights=weights and fingerprint(weights.file),
    )


def stage_key(spec: StageSpec, parents: Mapping[str, str], places: Places) -> str:
    """Content key: kind and a hash of hyperparameters, contents, seed and parents' keys.

    Fields at their default are left out, so that a new field does not orphan old results, and so are those that this
    stage does not use. Of files, their content is in the key, not their paths.
    """
    content = {
        "version": KEY_VERSION,
        "kind": spec.kind,
        "network": spec.network,
        "contents": contents(spec, places).model_dump(exclude_none=True),
        "data": _data(spec, data.load(spec.data, places)),
        "seed": spec.seed,
        "params": _params(spec, parents),
        "parents": dict(parents),
    }
    return f"{spec.kind}-{checksum(content)[:16]}"


def _data(spec: StageSpec, content: ImageSet) -> dict[str, Any]:
    """The settings of the data that decide the result, without those at their default."""
    unused = {"path", *(field for field in READING[2:] if field not in content.reads)}
    if spec.kind != "evaluation":
        unused.add("evaluation")
    if spec.kind in MEASURING or (isinstance(spec.params, ReferenceParams) and spec.params.train is None):
        unused |= {"views", "auto_augment"}
    if spec.data.views != "resized" or "views" in unused:
        unused |= {"scale", "hflip"}
    if spec.seed is None:
        # Such a stage sees all images, whatever part they are in.
        unused |= {"test_share", "train_per_class", "val_per_class", "retrain_on_validation"}
    if "test" in content.official:
        unused.add("test_share")
    if "val" in content.official:
        unused.add("val_per_class")
    if spec.kind == "fusion":
        unused |= {"mean", "std"}
    return spec.data.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=unused)


def _params(spec: StageSpec, parents: Mapping[str, str]) -> dict[str, Any]:
    """The hyperparameters that decide the result, without those at their default."""
    params = spec.params.without_paths(exclude_defaults=True)
    for name in ("train", "retrain"):
        if train := params.get(name):
            train.pop("validate_every", None)
            if train.get("decay") != "step":
                train.pop("step_size", None)
                train.pop("gamma", None)
            if train.get("dropout") == 0 or not _has_pruned_layers(spec, parents):
                train.pop("rescale_dropout", None)
    knowledge = params.get("knowledge")
    if knowledge and knowledge["tau"] == 1:
        knowledge.pop("hinton_factor", None)
    return params


def _has_pruned_layers(spec: StageSpec, parents: Mapping[str, str]) -> bool:
    """Whether a layer of the net that is trained may have lost connections."""
    from_dense = spec.kind == "transfer" and parents.get("source", "").startswith("reference-")
    if isinstance(spec.params, TransferParams) and spec.params.prune is not None:
        return True
    return spec.kind not in ("reference", "probe") and not from_dense

"""The paper's tasks from end to end, on miniature data in the official layouts: real networks at their real size."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torchvision import models

from tests.clips import make_hmdb51, make_ucf101
from tests.commands import study
from tests.trees import make_flower102, make_folder, make_imagenet, make_indoor67
from tests.zoo import write_alexnet
from trainables import networks

pytestmark = pytest.mark.slow

BRIEF = {"seeds": 1, "resources": "{threads: 1, checkpoint_seconds: 600}", "neuron_prune.images_per_class": 2}
"""As little training, and as few checkpoints of half a gigabyte, as show that all parts fit."""


def options(root: Path, domains: dict[str, Any], **settings: Any) -> list[str]:
    trained = ("source.prune.retrain", "transfer.train", "target_prune.retrain", "neuron_prune.retrain")
    settings = BRIEF | {f"{key}.{name}": 1 for key in trained for name in ("epochs", "validate_every")} | settings
    settings |= {f"{domain}.data.{key}": value for domain in ("source", "target") for key, value in domains.items()}
    settings |= {"data.root": root, "data.cache": root / "cache", "source.prune.steps": 1}
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def stages(storage: Path) -> pd.DataFrame:
    found = pd.read_parquet(storage / "studies" / "tiny" / "stages.parquet")
    assert (found["status"] == "done").all()
    return found


def test_indoor67(tmp_path: Path) -> None:
    make_imagenet(tmp_path / "imagenet")
    make_indoor67(tmp_path / "indoor67")
    write_alexnet(tmp_path / "bvlcalexnet-12.onnx", classes=3)
    points = {"target_prune.keep": "[0.05, 0.025]", "source.data.val_per_class": 2, "target.data.val_per_class": 2}
    more = options(tmp_path, {}, **points, **{"neuron_prune.neurons_per_step": 2048})
    printed = study("indoor67", tmp_path / "results", *more, "--name", "tiny")
    for words in ("Table 1", "Table 2", "Table 3", "paper, Indoor67", "Sparse-TargetNet_C97.5"):
        assert words in printed
    found = stages(tmp_path / "results")
    reference = found[found["kind"] == "reference"].iloc[0]
    assert (reference["epochs"], reference["network"]) == (0, "bvlc_alexnet")
    # Weights of Caffe's AlexNet (three classes) times the shares of the table; FC7 and the output are dense again.
    dense = [34_848, 307_200, 884_736, 663_552, 442_368, 37_748_736, 16_777_216, 3 * 4096]
    kept = sum(count * share for count, share in zip(dense, (0.84, 0.38, 0.35, 0.37, 0.37, 0.0737, 1, 1), strict=True))
    hybrid = found[(found["kind"] == "transfer") & (found["prune_percent"] > 0)]
    assert hybrid["prune_percent"].to_numpy() == pytest.approx(100 * (1 - kept / sum(dense)), abs=1e-4)


@pytest.mark.full
def test_flower102(tmp_path: Path) -> None:
    make_imagenet(tmp_path / "imagenet")
    make_flower102(tmp_path / "flower102")
    net = networks.build("bvlc_alexnet", 3)
    net.initialise(net.names, 0)
    weights = tmp_path / "alexnet.pth"
    torch.save({f"{name}.{kind}": p for name in net.names for kind, p in net.op(name).named_parameters()}, weights)
    points = {"target_prune.keep": "[0.1, 0.015]", "source.data.val_per_class": 2}
    points |= {"source.weights.file": weights, "source.weights.bgr": False, "neuron_prune.neurons_per_step": 2048}
    printed = study("flower102", tmp_path / "results", *options(tmp_path, {}, **points), "--name", "tiny")
    for words in ("Table 1", "Table 2", "Table 3", "paper, Flower102", "Sparse-TargetNet_C98.5"):
        assert words in printed
    found = stages(tmp_path / "results")
    # The official parts: three training images a class, whatever the seed.
    assert set(found.loc[found["kind"] == "transfer", "images"]) == {9}


@pytest.mark.full
def test_two_folders_are_all_it_takes(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", per_class=20)
    make_folder(tmp_path / "yours", parts=("train", "val", "test"), per_class=6)
    paths = {"source.data.path": tmp_path / "mine", "target.data.path": tmp_path / "yours"}
    brief = {"source.train.epochs": 1, "neuron_prune.neurons_per_step": 2048, "target_prune.keep": "[0.05, 0.025]"}
    printed = study("folder", tmp_path / "results", *options(tmp_path, {}, **paths, **brief), "--name", "tiny")
    for words in ("Table 1", "Table 2", "Table 3"):
        assert words in printed
    found = stages(tmp_path / "results")
    assert set(found.loc[found["kind"] == "transfer", "images"]) == {18}
    assert not any(str(tmp_path) in text for text in found["hyperparameters"])


@pytest.mark.full
def test_hmdb51(tmp_path: Path) -> None:
    make_ucf101(tmp_path / "ucf101", classes=2, groups=(1, 8, 9), clips=1)
    make_hmdb51(tmp_path / "hmdb51", classes=2, train=2, test=1)
    weights = tmp_path / "vgg16.pth"
    torch.save(models.vgg16(weights=None).state_dict(), weights)
    few = {"positions": 1, "val_per_class": 1, "views": "centre"}
    more = options(tmp_path, few, **{"source.weights.file": weights, "source.train.epochs": 1})
    printed = study("hmdb51", tmp_path / "results", *more, "--name", "tiny")
    weights.unlink()
    for words in ("Table 4", "spatial", "temporal", "two-stream", "paper, HMDB51"):
        assert words in printed
    found = stages(tmp_path / "results")
    assert set(found.loc[found["kind"] == "reference", "network"]) == {"vgg16", "vgg16_flow"}
    pruned = found.loc[found["kind"] == "target_prune", "prune_percent"]
    assert pruned.to_numpy() == pytest.approx(85, abs=1e-3)
    assert (found["kind"] == "fusion").sum() == 3

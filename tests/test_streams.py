"""Two streams and the fusion of their class scores, on small data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from study.config import ConfigError, load_config
from study.graph import plan
from study.storage import Storage
from tests.commands import study
from tests.conftest import TINY
from tests.runs import run
from trainables.artifacts import Artifact
from trainables.hyperparameters import FusionParams

TINY_PRUNE: Any = TINY["target_prune"]
STREAMS: dict[str, Any] = {
    **TINY,
    "ablations": ["two-stream"],
    "published": "HMDB51",
    "target_prune": {**TINY_PRUNE, "keep": [0.3], "named": [0.3]},
    "streams": {"spatial": {}, "temporal": {"transfer.train.epochs": 3, "target.data.mean": 0.2}},
    "fusion": {"spatial": 1, "temporal": 4},
}


@pytest.fixture(scope="module")
def two_streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "streams.yaml"
    path.write_text(yaml.safe_dump(STREAMS))
    return path


def test_the_plan_has_each_stream_and_their_fusion(two_streams: Path) -> None:
    graph = plan(load_config(str(two_streams)))
    assert [(cell.net, cell.stream) for cell, _ in graph.cells] == [
        (net, stream)
        for net in ("Standard-TransferNet", "Hybrid-TransferNet", "Sparse-TargetNet_C70")
        for stream in ("spatial", "temporal", "two-stream")
    ]
    by_net = {(cell.net, cell.stream): key for cell, key in graph.cells}
    for net in ("Standard-TransferNet", "Hybrid-TransferNet", "Sparse-TargetNet_C70"):
        fused = graph.stages[by_net[net, "two-stream"]]
        assert fused.parents == {stream: by_net[net, stream] for stream in ("spatial", "temporal")}
    # Both streams start from one reference here, for nothing of the source differs.
    assert sum(stage.spec.kind == "reference" for stage in graph.stages.values()) == 1


def test_streams_may_be_trained_on_validation_images_as_they_prune_no_neurons(two_streams: Path) -> None:
    retrain = "target.data.retrain_on_validation=true"
    assert load_config(str(two_streams), [retrain]).target.data.retrain_on_validation
    with pytest.raises(ConfigError, match=r"needs neuron_prune\.steps"):
        load_config(str(two_streams), [retrain, "ablations=[two-stream,paper]"])


def test_a_study_of_two_streams(two_streams: Path, tmp_path: Path) -> None:
    printed = study(two_streams, tmp_path)
    assert "Table 4" in printed
    storage = Storage(str(tmp_path))
    graph = plan(load_config(str(two_streams)))
    for cell, key in graph.cells:
        if cell.stream != "two-stream":
            continue
        stage, fused = graph.stages[key], storage.artifact(key)
        parts = {name: storage.artifact(parent).tensors for name, parent in stage.parents.items()}
        spatial, temporal = (np.exp(parts[name]["log_scores.test"].double().numpy()) for name in stage.parents)
        predicted = (spatial + 4 * temporal).argmax(1)
        labels = parts["spatial"]["labels.test"].numpy()
        assert fused.metrics["test_accuracy"] == pytest.approx(100 * (predicted == labels).mean())
        nets = [storage.artifact(parent).metrics for parent in stage.parents.values()]
        assert fused.metrics["connections"] == sum(net["connections"] for net in nets)


def test_streams_of_other_videos_are_not_fused() -> None:
    def scores(labels: list[int]) -> Artifact:
        tensors = {f"log_scores.{part}": torch.zeros(2, 3) for part in ("val", "test")}
        metrics = {"connections_dense": 2, "connections": 1, "neurons": 1, "images": 5}
        tensors |= {f"labels.{part}": torch.tensor(labels) for part in ("val", "test")}
        return Artifact(tensors, metrics, ("a", "b", "c"))

    with pytest.raises(ValueError, match="split alike"):
        run("fusion", FusionParams(weights={"a": 1, "b": 4}), a=scores([0, 1]), b=scores([1, 0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fusion": {"spatial": 1}}, ["fusion", "spatial, temporal"]),
        ({"fusion": {"spatial": 1, "temporal": 0}}, ["fusion", "greater than 0"]),
        ({"streams": {"spatial": {}}, "fusion": {"spatial": 1}}, ["two-stream", "at least two"]),
        (
            {"streams": {"spatial": {}, "temporal": {"transfer.tao": 2}}},
            ["streams.temporal", "transfer.tao", "did you mean 'transfer.tau'"],
        ),
    ],
)
def test_streams_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    path = tmp_path / "streams.yaml"
    path.write_text(yaml.safe_dump({**STREAMS, **change}))
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    for word in words:
        assert word in str(error.value)

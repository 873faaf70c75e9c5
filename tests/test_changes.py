"""What the user changes between two runs, or while one is under way: nothing old passes for new."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from study.config import load_config
from study.graph import plan
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment
from tests.commands import study_process, table
from tests.conftest import TINY
from tests.trees import make_folder

pytestmark = pytest.mark.slow

NET = """
from torch import nn
from trainables.networks import LayeredNet, WeightedLayer

def net(classes):
    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(1, 8, 5, stride=2), after=[nn.ReLU(), nn.MaxPool2d(2)])),
            ("fc2", WeightedLayer(nn.Linear(200, 128), before=[nn.Flatten()], after=[nn.ReLU()])),
            ("fc3", WeightedLayer(nn.Linear(128, 128), after=[nn.ReLU()])),
            ("fc4", WeightedLayer(nn.Linear(128, classes))),
        ],
        input_shape=(1, 24, 24),
    )
"""


def test_an_edited_network_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    module, preset, storage = tmp_path / "edited_net.py", tmp_path / "tiny.yaml", tmp_path / "results"
    preset.write_text(yaml.safe_dump({**TINY, "network": "edited_net:net", "ablations": ["transfer"]}))
    module.write_text(NET)
    study_process(preset, storage, "--slots", "0")
    before = {path: path.read_bytes() for path in (storage / "stages").rglob("*") if path.is_file()}
    old = table(storage, "stages")
    # The same layers and shapes, but another function.
    module.write_text(NET.replace("after=[nn.ReLU()]", "after=[nn.Tanh()]"))
    study_process(preset, storage, "--slots", "0")
    new = table(storage, "stages")
    assert (new["status"] == "done").all() and len(new) == len(old)
    assert not set(new["stage"]) & set(old["stage"])
    assert not set(new["network_digest"]) & set(old["network_digest"])
    assert {path: path.read_bytes() for path in before} == before
    module.write_text(NET)
    assert "nothing to train" in study_process(preset, storage, "--slots", "0")


def test_data_that_changes_after_planning_stops_the_study(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", per_class=8)
    images = {"name": "folder", "path": str(tmp_path / "images"), "size": 32, "val_per_class": 2}
    domain = {"data": images}
    small = {"network": "tests.own:rgb", "neuron_prune": {**TINY["neuron_prune"], "neurons_per_step": 8}}  # type: ignore[dict-item]
    tree = {**TINY, **small, "ablations": ["transfer"], "source": {**TINY["source"], **domain}, "target": domain}  # type: ignore[dict-item]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    config = load_config(str(tmp_path / "tiny.yaml"))
    storage = Storage(str(tmp_path / "results"))
    graph = plan(config)
    changed = next(path for path in (tmp_path / "images").rglob("*") if path.is_file())
    changed.write_bytes(changed.read_bytes() + b"more")
    experiment = Experiment(graph, storage, "tiny", config.resources, config.data, Cluster(slots=0))
    experiment.run(Console(quiet=True))
    (reference,) = (key for key, stage in graph.stages.items() if stage.spec.kind == "reference")
    assert experiment.failed.keys() == {reference}
    assert "the data folder differ from what the study was planned with" in experiment.failed[reference]
    assert experiment.skipped.keys() == graph.stages.keys() - {reference}
    assert storage.stages() == [] and experiment.ran == []

"""Linear probes: the output layer is trained on stored features, as it would be on the frozen net's."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from study import load_config, run_study
from study.config import ConfigError
from study.graph import plan
from tests.runs import DATA, MemoryStore, Stopped, StoppingSession, artifact, run, source_nets
from tests.test_any_network import QUICK, RESIDUAL
from trainables import data, networks
from trainables.artifacts import Artifact, unpack_main
from trainables.hyperparameters import FeaturesParams, ProbeParams, StageSpec, TrainConfig
from trainables.images import Images
from trainables.results import StageResult
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.stages import run_stage

TRAIN = TrainConfig(epochs=3, learning_rate=0.05, batch_size=8, dropout=0, weight_decay=0.001)
TEN = DATA.model_copy(update={"views": "ten", "train_per_class": 2})


def features(source: Artifact, config: DataConfig = DATA) -> Artifact:
    return artifact(run("features", FeaturesParams(), images=config, seed=None, source=source))


def probe(source: Artifact, config: DataConfig = DATA, session: Session | None = None, **changes: Any) -> StageResult:
    params = ProbeParams(train=TRAIN.model_copy(update=changes))
    return run("probe", params, session, images=config, source=source, features=features(source, config))


def opened(config: DataConfig) -> Images:
    content = data.load(config, data.Places())
    return Images.open(content, data.split(content, config, 0), config, (24, 24), torch.device("cpu"))


@pytest.mark.parametrize("name", ["reference", "pruned"])
def test_a_probe_is_the_output_layer_trained_on_the_frozen_net(name: str) -> None:
    source = source_nets()[name]
    result = probe(source)
    net, masks = unpack_main("small_alexnet", source)
    images = opened(DATA)
    with torch.no_grad():
        known = torch.cat([net.eval().run(seen, 0, 7) for seen in images.centred(torch.arange(len(images.labels)))])
    output = nn.Linear(256, 10)
    fresh = networks.fresh("small_alexnet", 10, 0, 1).op("fc8")
    output.load_state_dict(fresh.state_dict())
    optimizer = torch.optim.SGD(output.parameters(), lr=0.05, momentum=0.9, weight_decay=0.001)
    for epoch in (1, 2, 3):
        order = images.train[torch.randperm(len(images.train), generator=generator(0, "order", epoch))]
        batches = order.split(8)
        for step, batch in enumerate(batches):
            done = torch.tensor((epoch - 1 + step / len(batches)) / 3)
            optimizer.param_groups[0]["lr"] = float(0.05 * 0.5 * (1 + torch.cos(done * torch.pi)))
            optimizer.zero_grad()
            functional.cross_entropy(output(known[batch]), images.labels[batch]).backward()
            optimizer.step()
    torch.testing.assert_close(result.tensors["main.fc8.weight"], output.weight.detach(), atol=1e-5, rtol=1e-4)
    lower = [key for key in source.tensors if key.startswith(("main.", "mask.")) and ".fc8" not in key]
    assert (
        all(torch.equal(result.tensors[key], source.tensors[key]) for key in lower) and "mask.fc8" not in result.tensors
    )
    right = (output(known[images.test]).argmax(1) == images.labels[images.test]).double().mean()
    assert result.metrics["test_accuracy"] == pytest.approx(100 * float(right), abs=0.2)
    assert (len(masks) > 0) == (result.metrics["prune_percent"] > 0)


def test_features_are_of_all_views_and_each_epoch_sees_one() -> None:
    source = source_nets()["reference"]
    stored = features(source, TEN).tensors["features"]
    images = opened(TEN)
    net = unpack_main("small_alexnet", source)[0].eval()
    items = torch.arange(5)
    with torch.no_grad():
        for number, view in enumerate(images.placements("ten")):
            (seen,) = images.stream([(items, view)])
            torch.testing.assert_close(stored[items, number], net.run(seen, 0, 7))
    assert probe(source, TEN, epochs=1).metrics["val_accuracy"] > 10


def test_a_killed_probe_resumes_to_the_bit() -> None:
    source = source_nets()["pruned"]
    whole = probe(source, TEN, dropout=0.3)
    store = MemoryStore()
    with pytest.raises(Stopped):
        probe(source, TEN, StoppingSession(store, 2), dropout=0.3)
    again = probe(source, TEN, Session(store, "cpu", checkpoint_seconds=0), dropout=0.3)
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in whole.tensors.items())


@pytest.mark.parametrize(
    "name",
    [
        RESIDUAL,
        list(QUICK)[-1],
    ],
)
def test_any_network_is_probed(name: str) -> None:
    source = networks.fresh(name, 7, 0)
    tensors = {f"main.{key}": home.tensor.detach() for key, home in source.tensors().items()}

    def stage(kind: str, params: FeaturesParams | ProbeParams, seed: int | None, **parents: Artifact) -> StageResult:
        spec = StageSpec(kind=kind, network=name, data=DATA, seed=seed, params=params)
        return run_stage(spec, parents, Session())

    known = stage("features", FeaturesParams(), None, source=Artifact(tensors))
    result = stage("probe", ProbeParams(train=TRAIN), 0, source=Artifact(tensors), features=artifact(known))
    new = source.top(1).tensors()
    kept = [key for key in tensors if key.removeprefix("main.") not in new]
    assert len(kept) > 10
    assert all(torch.equal(result.tensors[key], tensors[key]) for key in kept)
    assert result.epochs[-1]["loss_main"] < result.epochs[0]["loss_main"]


def test_a_study_probes_each_source_net_once_for_all_seeds(tiny_preset: Path, tmp_path: Path) -> None:
    config = load_config(str(tiny_preset), {"ablations": ["probes"], "seeds": 2, "transfer.probe": TRAIN.model_dump()})
    kinds = [stage.spec.kind for stage in plan(config).stages.values()]
    # The reference, Sparse-SourceNet, and a net with random masks a seed.
    assert (kinds.count("features"), kinds.count("probe"), kinds.count("transfer")) == (4, 6, 2)
    outcome = run_study(config, "probes", storage=str(tmp_path), slots=0, progress=False)
    assert outcome.failed == {}
    table = pd.read_csv(Path(outcome.report).parent / "probes.csv").set_index("net")
    assert list(table.index) == ["Standard-TransferNet", "Linear probe", "Linear probe(S+)", "Linear probe(S random)"]
    assert table["seeds"].tolist() == [2] * 4
    pruned = [float(share) for share in table["prune_mean"].tolist()]
    assert pruned[:2] == [0, 0] and pruned[2] == pruned[3] > 10
    asked = set(pd.read_csv(Path(outcome.report).parent / "comparisons.csv")["comparison"])
    assert {
        "Fine-tuning against a linear probe",
        "Features of the Sparse-SourceNet against random masks' (linear probes)",
    } <= asked


@pytest.mark.parametrize(
    "changes",
    [
        {"target.data.views": "random", "transfer.live": True},
        {"target.data.auto_augment": "rand", "transfer.live": True},
        {"transfer.train.mixup_alpha": 0.1, "transfer.live": True},
    ],
)
def test_what_has_no_stored_features_is_not_probed(changes: dict[str, Any], tiny_preset: Path) -> None:
    with pytest.raises(ConfigError, match="has probes, which are trained on stored features"):
        load_config(str(tiny_preset), {"ablations": ["probes"], **changes})

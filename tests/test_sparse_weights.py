"""Sparse weights from elsewhere: what is zero in them stays zero through the transfer."""

from pathlib import Path

import pytest
import torch
from torch.nn.utils import prune

from study import run_study
from study.config import ConfigError, load_config
from study.graph import StageGraph, plan
from study.run.outcome import Outcome
from study.storage import Storage
from study.tune.progress import label
from tests.own import rgb
from tests.trees import COLOUR_SIDE, MEAN, STD, make_colours
from trainables import artifacts

PRESET = """
title: sparse weights
network: tests.own:rgb
seeds: 1
ablations: [transfer, controls]
source:
  data: {{name: folder, path: {root}/source, size: {size}, val_per_class: 2, mean: {mean}, std: {std}}}
  weights: {{file: {root}/sparse.pth}}
  train: null
  prune: {{keep: nonzero, steps: 1, retrain: null}}
target:
  data: {{name: folder, path: {root}/target, size: {size}, val_per_class: 2, mean: {mean}, std: {std}}}
transfer: {{tau: 2, lambda: 1, n_m: 1, n_e: 1, train: {{epochs: 2, learning_rate: 0.01}}}}
target_prune: {{keep: [0.1], named: [0.1], retrain: {{epochs: 1, learning_rate: 0.01}}}}
neuron_prune: null
data: {{cache: {root}/cache}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders, and weights that another tool has pruned to 40 % of each layer but the output."""
    folder = tmp_path_factory.mktemp("sparse")
    make_colours(folder / "source", ["a", "b", "c"], per_class=8)
    make_colours(folder / "target", ["d", "e"], per_class=8)
    torch.manual_seed(0)
    net = rgb(3)
    net.initialise(net.names, seed=0)
    torch.save(net.state_dict(), folder / "dense.pth")
    for name in net.names[:-1]:
        prune.l1_unstructured(net.op(name), "weight", amount=0.6)
        prune.remove(net.op(name), "weight")
    torch.save(net.state_dict(), folder / "sparse.pth")
    (folder / "sparse.yaml").write_text(PRESET.format(root=folder, size=COLOUR_SIDE, mean=list(MEAN), std=list(STD)))
    return folder


@pytest.fixture(scope="module")
def trained(root: Path) -> tuple[StageGraph, Outcome]:
    config = load_config(str(root / "sparse.yaml"))
    return plan(config), run_study(config, "sparse", storage=root / "results", slots=0, progress=False)


def test_zeros_are_held_through_the_transfer(root: Path, trained: tuple[StageGraph, Outcome]) -> None:
    graph, outcome = trained
    assert not outcome.failed
    storage = Storage(str(root / "results"))
    file = torch.load(root / "sparse.pth")
    zeros = {name: file[name] == 0 for name in file if name.endswith("weight") and bool((file[name] == 0).any())}
    assert len(zeros) >= 2
    names = {label(graph, key): key for key in graph.stages}
    assert "source_prune magnitude to what is not zero seed 0" in names
    for words in ("transfer S+K+ seed 0", "transfer S+K- seed 0"):
        net, masks = artifacts.unpack_main("tests.own:rgb", storage.artifact(names[words]))
        state = net.state_dict()
        for name, zero in zeros.items():
            assert bool((state[name][zero] == 0).all()) and not bool((state[name][~zero] == 0).any()), name
        assert net.names[-1] not in masks  # the output starts again
    dense, _ = artifacts.unpack_main("tests.own:rgb", storage.artifact(names["transfer S-K- seed 0"]))
    regrown = [bool((dense.state_dict()[name][zero] != 0).any()) for name, zero in zeros.items()]
    assert all(regrown)  # without S, nothing holds them


def test_random_masks_are_as_many(trained: tuple[StageGraph, Outcome]) -> None:
    graph, outcome = trained
    layers = outcome.results.layers
    kept = {
        label(graph, key): layers[layers["stage"] == key].set_index("layer")["connections"].to_dict()
        for key, stage in graph.stages.items()
        if stage.spec.kind == "source_prune"
    }
    (own,) = [counts for name, counts in kept.items() if "magnitude" in name]
    (control,) = [counts for name, counts in kept.items() if "random" in name]
    assert own == control


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["source.prune.steps=2", "source.prune.retrain={epochs: 1, learning_rate: 0.1}"], "set steps to 1"),
        (["source.train={epochs: 1, learning_rate: 0.1}"], "prune.keep=nonzero takes the masks of sparse weights"),
        (["target_prune.keep=[0.9]", "target_prune.named=[0.9]"], "keeps 0."),
    ],
)
def test_what_does_not_go_with_given_masks_is_said(root: Path, changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(load_config(str(root / "sparse.yaml"), changes))


def test_dense_weights_have_no_masks_to_give(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no zeros: give sparse weights, or a share"):
        load_config(str(root / "sparse.yaml"), [f"source.weights.file={root}/dense.pth"])

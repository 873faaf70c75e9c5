"""Two streams on clips that motion alone tells apart: flow is computed, stacked, learned, and fused with frames."""

from pathlib import Path

import pandas as pd
import pytest

from tests.clips import make_hmdb51, make_ucf101
from tests.commands import study

pytestmark = pytest.mark.slow

TRAIN = "{epochs: 40, learning_rate: 0.02, batch_size: 16, dropout: 0.2, validate_every: 20}"
SETTINGS = {
    "seeds": 1,
    "network": "tests.own:rgb",
    "streams.temporal": "{network: tests.own:flow, source.data.modality: flow, target.data.modality: flow, "
    "source.data.mean: 0.5, target.data.mean: 0.5, source.data.std: 0.1, target.data.std: 0.1}",
    "source.weights": "null",
    "source.train": TRAIN,
    "source.prune.keep": 0.5,
    "source.prune.steps": 1,
    "source.prune.retrain": TRAIN,
    "transfer.train": TRAIN,
    "transfer.n_m": 1,
    "transfer.lambda": 0.5,
    "target_prune.retrain": TRAIN,
    "neuron_prune.neurons_per_step": 16,
    "resources": "{}",
}
DATA = {"size": 32, "stack": 5, "positions": 3, "flow": "dis", "val_per_class": 2, "views": "centre"}


def test_motion_is_seen_by_the_temporal_stream_alone(tmp_path: Path) -> None:
    make_ucf101(tmp_path / "data" / "ucf101", groups=(1, 8, 9, 10, 11), clips=3)
    make_hmdb51(tmp_path / "data" / "hmdb51", train=10, test=6)
    settings = SETTINGS | {
        f"{domain}.data.{key}": value for domain in ("source", "target") for key, value in DATA.items()
    }
    settings |= {"data.root": tmp_path / "data", "data.cache": tmp_path / "cache"}
    more = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    printed = study("hmdb51", tmp_path / "results", *more, "--name", "tiny")
    assert "Table 4" in printed
    folder = tmp_path / "results" / "studies" / "tiny"
    stages = pd.read_parquet(folder / "stages.parquet").set_index("stage")
    cells = pd.read_parquet(folder / "cells.parquet")
    cells["accuracy"] = stages["test_accuracy"].reindex(cells["stage"]).to_numpy()
    by_net = cells.pivot(index="net", columns="stream", values="accuracy")
    print(by_net)
    hybrid = by_net.loc["Hybrid-TransferNet"]
    assert hybrid["temporal"] >= 75
    assert (by_net["temporal"] > by_net["spatial"] + 20).all()
    assert (by_net["two-stream"] >= by_net["temporal"]).all()

"""The report says what the nets were trained with, and of which source nets it speaks."""

import json
from pathlib import Path

import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

import analysis
from analysis.nets import off_axis, outcomes
from analysis.tables.settings import OFF, settings, source_nets
from tests.analysis_study import page_of
from trainables.hyperparameters import KnowledgeConfig, NeuronPruneParams, TrainConfig


@pytest.fixture(scope="module")
def results(trained: Path) -> analysis.Results:
    return analysis.load(trained / "studies" / "tiny")


def test_what_has_no_row_is_the_default() -> None:
    known = {**TrainConfig.model_fields, **KnowledgeConfig.model_fields, **NeuronPruneParams.model_fields}
    assert {name: known[name].default for name in OFF} == OFF


def test_source_nets_are_those_that_the_cells_start_from(results: analysis.Results) -> None:
    table = source_nets(results, off_axis(outcomes(results)))
    assert table is not None
    reference, *steps = results.stages[results.stages["kind"].isin(["reference", "source_prune"])].to_dict("records")
    last = max(steps, key=lambda row: row["prune_percent"])
    rows = table.data.to_dict("records")
    assert [row["net"] for row in rows] == ["Reference-SourceNet", "Sparse-SourceNet"]
    assert [row["acc_mean"] for row in rows] == [reference["test_accuracy"], last["test_accuracy"]]
    assert [row["prune_mean"] for row in rows] == [0.0, last["prune_percent"]]


def test_it_says_how_far_the_test_images_decide(results: analysis.Results) -> None:
    cells = off_axis(outcomes(results))
    table = source_nets(results, cells)
    assert table is not None
    mean = cells["test_accuracy"].mean() / 100
    images = int(results.confusion.loc[results.confusion["stage"] == cells["measured"].iloc[0], "images"].sum())
    low, high = proportion_confint(mean * images, images, method="normal")
    (note,) = [note for note in table.notes if "tested on the same" in note]
    assert f"the same {images:,} images" in note and f"within {50 * (high - low):.1f} points" in note


def test_settings_are_those_of_the_stages(results: analysis.Results) -> None:
    table = settings(results, off_axis(outcomes(results)))
    assert table is not None
    rows = {row["setting"]: row for row in table.data.to_dict("records")}
    assert rows["epochs"]["transfer"] == "2" and rows["learning_rate"]["reference"] == "0.01"
    assert rows["tau"]["transfer"] == "4" and rows["tau"]["reference"] == "\N{EN DASH}"
    assert rows["keep"]["target_prune"].split(", ") == ["0.3", "0.2"]
    assert rows["scope"]["target_prune"] == "global"
    assert not {"nesterov", "validate_every", "data"} & rows.keys()
    transfers = results.stages.loc[results.stages["kind"] == "transfer", "hyperparameters"]
    train = json.loads(transfers.iloc[0])["train"]
    hidden = {name: value for name, value in train.items() if name not in rows and value is not None}
    assert {name: OFF.get(name) for name in hidden} | {"validate_every": train["validate_every"]} == hidden


def test_the_page_says_where_it_comes_from(results: analysis.Results, trained: Path) -> None:
    page = page_of(trained / "studies" / "tiny")
    assert "images: 40 for training, 80 for validation, " in page
    assert f"python -m study.reproduce {trained / 'studies' / 'tiny'}" in page
    for name, fingerprint in results.stages[["data", "data_fingerprint"]].dropna().itertuples(index=False):
        assert f"{name} {fingerprint[:16]}" in page
    assert pd.Timestamp(results.stages["started_at"].min()).strftime("%Y-%m-%d %H:%M UTC") in page
    assert {"source_nets.csv", "settings.tex"} <= {path.name for path in (trained / "studies/tiny/report").iterdir()}

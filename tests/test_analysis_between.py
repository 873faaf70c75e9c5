"""Two studies next to one another: paired by seed, one family, and only with the same test images."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.multitest import multipletests

from analysis.__main__ import main
from analysis.between import Between
from analysis.loading import Results, StudyError, load
from analysis.tables.between import between_settings, between_table
from tests.analysis_study import Study, writer

SEEDS = tuple(range(8))


def results(name: str, shift: float = 0.0, seed: int = 0, data: Mapping[str, object] | None = None) -> Results:
    """The synthetic study; its accuracies are moved by a shift and noise."""
    own = Study(seeds=SEEDS, name=name).results()
    noise = np.random.default_rng(seed).normal(shift, 0.4, len(own.stages))
    hyperparameters = json.dumps({"data": {"name": "digits", "test_share": 0.5, **(data or {})}})
    stages = own.stages.assign(
        test_accuracy=own.stages["test_accuracy"] + noise,
        hyperparameters=hyperparameters,
        data_fingerprint="abc",
        stage=own.stages["stage"] + f"-{name}",
    )
    cells = own.cells.assign(
        stage=own.cells["stage"] + f"-{name}",
        measured=own.cells["measured"] + f"-{name}",
        path=own.cells["path"].map(lambda path: [f"{stage}-{name}" for stage in path]),
    )
    return replace(own, stages=stages, cells=cells)


def test_differences_are_paired_by_seed_and_corrected_together() -> None:
    both = Between(results("one"), results("other", shift=1.0, seed=1))
    by_name = {}
    for one in (both.one, both.other):
        cells = one.cells.query("net == 'Hybrid-TransferNet' and ablation == 'paper'").sort_values("seed")
        known = one.stages.set_index("stage")["test_accuracy"].to_dict()
        by_name[one.facts.name] = np.array([known[stage] for stage in cells["stage"]])
    expected = stats.ttest_rel(by_name["other"], by_name["one"])
    (found,) = [one for one in both.comparisons if one.question.subject == "Hybrid-TransferNet"]
    assert found.mean is not None and found.mean.mean == pytest.approx((by_name["other"] - by_name["one"]).mean())
    assert found.p_own == pytest.approx(expected.pvalue)
    adjusted = multipletests([one.p for one in both.comparisons], method="holm")[1]
    assert [one.p_holm for one in both.comparisons] == pytest.approx(list(adjusted))
    assert all(one.shown for one in both.comparisons)


def test_nets_that_are_the_same_take_no_part() -> None:
    one = results("one")
    table = between_table(Between(one, replace(one, facts=one.facts.model_copy(update={"name": "other"}))))
    assert {row[3] for row in table.rows} == {"the same nets"}
    assert not table.data["shown"].any()


def test_a_net_that_one_of_them_lacks_is_left_out() -> None:
    other = results("other")
    other = replace(other, cells=other.cells[other.cells["net"] != "Sparse-TargetNet_N"])
    labels = [row[0] for row in between_table(Between(results("one"), other)).rows]
    assert "Hybrid-TransferNet" in labels and "Sparse-TargetNet_N" not in labels


@pytest.mark.parametrize("data", [{"test_share": 0.4}, {"name": "letters"}])
def test_other_test_images_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(
        StudyError, match="one and other cannot be compared by seed: they were tested with other images"
    ):
        Between(results("one"), results("other", data=data))


def test_another_number_of_training_images_is_not() -> None:
    both = Between(results("one", data={"train_per_class": 10}), results("other", data={"train_per_class": 20}))
    assert both.comparisons


@pytest.fixture
def two(tmp_path: Path) -> Callable[[dict[str, object], dict[str, object]], list[str]]:
    """Writes two studies with these configurations; returns their folders."""

    def write(*configs: dict[str, object]) -> list[str]:
        folders = []
        for number, config in enumerate(configs):
            folder = writer(tmp_path / f"study{number}")(lambda study: study.simulate({}, spread=0.4, seed=3))
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            folders.append(str(folder))
        return folders

    return write


def test_the_command_tells_settings_and_differences(
    two: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = two(
        {"title": "A", "seeds": 3, "transfer": {"tau": 4, "train": {"epochs": 2}}},
        {"title": "B", "seeds": 5, "transfer": {"tau": 2, "train": {"epochs": 2}, "n_e": 1}},
    )
    assert main(["compare", *folders, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "- transfer.tau: 4 → 2\n- transfer.n_e: null → 1\n" in printed
    assert "epochs" not in printed and "title" not in printed and "the same nets" in printed
    # Both are called digits: then by their folders.
    assert f"{folders[1]} minus {folders[0]}" in printed
    written = pd.read_csv(tmp_path / "out" / "between.csv")
    assert written["net"].tolist() == [*Between(*map(load, folders)).nets]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".csv", ".tex"}


def test_equal_settings_are_said(two: Callable[..., list[str]]) -> None:
    folders = two({"transfer": {"tau": 4}}, {"transfer": {"tau": 4}})
    assert between_settings(Between(*map(load, folders))) == ["The studies have the same settings."]


def test_what_cannot_be_compared_is_told_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path / "no"), str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1

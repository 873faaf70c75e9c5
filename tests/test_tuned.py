"""Tuned against tuned: each net tries the same settings, and a badly set rate is no gain any more."""

import io
import itertools
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import analysis
from analysis.axes import axes
from analysis.loading import Results, frame
from analysis.nets import outcomes
from analysis.tuned import best_comparisons, compared, conclusion, expected_best, tried
from search_spaces.tuning import arms, candidates
from study import ablation, schema
from study import show as show_command
from study.answers import StudyOutcome
from study.config import StudyConfig, load_config, with_changes
from study.facts import StudyFacts
from study.files import Folder
from study.graph import plan
from study.run.tuning import best_candidate
from tests.commands import assert_same_results, study, table
from tests.conftest import SMALL as SMALL_DATA
from tests.conftest import TINY

RATE = "transfer.train.learning_rate"
TUNED = {RATE: [0.0001, 0.03], "budget": 3}
SMALL = {**TINY, "seeds": 2, "ablations": ["transfer"], "tuned": TUNED}
COMMON, GOOD = 0, 1
"""Candidates of the simulation: the study's own settings, which are bad for one net, and others."""


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("preset"))


@pytest.fixture(scope="module")
def ran(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A storage with the study, and what the command printed."""
    storage = tmp_path_factory.mktemp("tuned")
    return storage, study(preset, storage)


@pytest.fixture(scope="module")
def results(ran: tuple[Path, str]) -> Results:
    return analysis.load(ran[0] / "studies/tiny")


def tuned_config(preset: Path, tuned: dict[str, Any]) -> StudyConfig:
    return load_config(str(preset), {"tuned": tuned})


# What is tried --------------------------------------------------------------------------------------------------------


def test_the_studys_own_settings_are_tried_first_and_once(preset: Path) -> None:
    config = tuned_config(preset, {RATE: [0.03, 0.01], "transfer.tau": [4, 2]})
    assert [point.changes for point in candidates(config)] == [
        {},
        {RATE: 0.03, "transfer.tau": 4},
        {RATE: 0.03, "transfer.tau": 2},
        {RATE: 0.01, "transfer.tau": 2},
    ]
    assert candidates(config)[0].label == f"{RATE} = 0.01, transfer.tau = 4"


def test_of_more_than_the_budget_so_many_are_drawn(preset: Path) -> None:
    rates = [round(0.01 * 1.1**power, 6) for power in range(30)]
    config = tuned_config(preset, {RATE: rates, "budget": 6})
    drawn = [point.changes.get(RATE) for point in candidates(config)]
    assert len(drawn) == len({*drawn}) == 6 and drawn[0] is None
    assert drawn == [point.changes.get(RATE) for point in candidates(config)]
    other = tuned_config(preset, {RATE: rates, "budget": 6, "draw": 1})
    assert drawn != [point.changes.get(RATE) for point in candidates(other)]


def test_every_net_of_the_tables_is_tuned_once(preset: Path) -> None:
    config = load_config(str(preset), {"ablations": ["paper", "transfer", "controls", "tau"]})
    found = [arm.net for arm in arms(config, 0)]
    assert len(found) == len({*found})
    # Four transfer nets, two pruned ones (the rest of Figure 3 are none of a table), the N-net, five controls.
    assert len(found) == 12 and "Sparse-TargetNet(K-)_C70" not in found


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({0: 50.0, 1: 60.0}, 1),
        ({0: 51.0, 1: 51.0}, 0),  # of equals the first
        ({0: 50.0, 1: None}, 0),
        ({0: None, 1: 50.0}, 1),
        ({0: None, 1: None}, 0),
    ],
)
def test_the_highest_is_chosen(scores: dict[int, float | None], best: int) -> None:
    assert best_candidate(scores) == best


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_the_expected_best_is_the_mean_over_all_draws(accuracies: list[float]) -> None:
    by_hand = [
        np.mean([max(draw) for draw in itertools.combinations(accuracies, trials)])
        for trials in range(1, len(accuracies) + 1)
    ]
    assert expected_best(accuracies) == pytest.approx(by_hand)


# What is run ----------------------------------------------------------------------------------------------------------


def test_each_net_chooses_at_each_seed_by_validation_accuracy(ran: tuple[Path, str]) -> None:
    tuning, stages = table(ran[0], "tuning"), table(ran[0], "stages").set_index("stage")
    assert "tuning: 4 nets, each with 3 settings at 2 seeds: " in ran[1]
    assert len(tuning) == 4 * 3 * 2
    for _, rows in tuning.groupby(["net", "seed"]):
        assert rows["candidate"].tolist() == [0, 1, 2] and rows["chosen"].sum() == 1
        assert rows["val_accuracy"].tolist() == stages.loc[rows["stage"], "val_accuracy"].tolist()
        assert rows.loc[rows["chosen"], "val_accuracy"].item() == rows["val_accuracy"].max()


def test_a_net_at_its_best_is_the_one_of_a_study_with_these_settings(ran: tuple[Path, str], preset: Path) -> None:
    tuning, cells = table(ran[0], "tuning").query("chosen"), table(ran[0], "cells")
    best = cells[cells["ablation"] == "tuned"].set_index(["net", "seed"])["stage"]
    assert len(best) == len(tuning) == 8
    config = load_config(str(preset), {"tuned": None})
    for net, seed, changes in zip(tuning["net"], tuning["seed"], tuning["changes"], strict=True):
        own = plan(with_changes(config, json.loads(str(changes)), "here"))
        (expected,) = [key for cell, key in own.cells if (cell.net, cell.seed) == (net, seed)]
        assert best[net, seed] == expected


def test_no_test_image_is_looked_at_for_a_choice(ran: tuple[Path, str]) -> None:
    stages, cells = table(ran[0], "stages"), table(ran[0], "cells")
    others = stages[(stages["kind"] == "transfer") & ~stages["stage"].isin(cells["stage"])]
    assert len(others) and others[[str(name) for name in stages if str(name).startswith("test_")]].isna().all(axis=None)
    assert others["val_accuracy"].notna().all()
    assert stages[stages["stage"].isin(cells["stage"])]["test_accuracy"].notna().all()
    assert not {*table(ran[0], "confusion")["stage"]} & {*others["stage"]}


def test_the_report_has_both_next_to_one_another(ran: tuple[Path, str], results: Results) -> None:
    assert "at common settings, and with each net at its best" in ran[1] and "With each net at its best" in ran[1]
    page = (ran[0] / "studies/tiny/report/index.html").read_text()
    assert "tunes each net alone" not in page
    assert 'id="tuned"' in page and 'id="tuning"' in page and 'id="expected_best"' in page
    written = pd.read_csv(ran[0] / "studies/tiny/report/tuned.csv").set_index("comparison")
    assert written.index.tolist() == [one.name for one in compared(results)]
    # They are at settings of their own, and no points of an axis.
    assert not axes(outcomes(results))


def test_again_nothing_is_trained_and_the_answer_has_both(
    ran: tuple[Path, str], preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with redirect_stdout(printed := io.StringIO()):
        arguments = ["--preset", str(preset), "--storage", str(ran[0]), "--name", "again", "--slots", "0", "--json"]
        assert ablation.main(arguments) == 0
    answer = StudyOutcome.model_validate_json(printed.getvalue())
    assert [one.comparison for one in answer.tuned] == [one.comparison for one in answer.comparisons]
    assert "1 running" not in capsys.readouterr().err
    assert_same_results(ran[0], ran[0], "tiny", "again")
    pd.testing.assert_frame_equal(table(ran[0], "tuning"), table(ran[0], "tuning", "again"))


def test_settings_that_fail_are_told_and_not_chosen(tmp_path: Path) -> None:
    path = written(tmp_path, seeds=1, tuned={RATE: [0.01, 1e6]})
    study(path, tmp_path / "storage", status=1)
    tuning = table(tmp_path / "storage", "tuning").set_index(["net", "candidate"])
    wild = tuning.xs(1, level="candidate")
    assert not wild["chosen"].any() and wild["val_accuracy"].isna().all() and wild["error"].notna().all()
    assert tuning.xs(0, level="candidate")["chosen"].all()
    results = analysis.load(tmp_path / "storage/studies/tiny")
    assert all(one.failed == 1 for one in tried(results))
    assert "4 trials of the tuning have no result" in conclusion(results)[-1]


def test_show_has_the_nets_at_their_best(ran: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--storage", str(ran[0])]
    assert show_command.main(["tiny", *where]) == 0
    assert capsys.readouterr().out.count("each at its best") == 4
    # The net of the study, not the one at its best.
    assert show_command.main(["tiny:Hybrid-TransferNet:0", *where]) == 0
    assert "train.learning_rate 0.01" in capsys.readouterr().out


@pytest.mark.slow
def test_each_of_several_targets_is_tuned(tmp_path: Path) -> None:
    targets = {"digits": {}, "mnist": {"target.data.name": "mnist5k"}}
    printed = study(written(tmp_path, seeds=1, targets=targets), tmp_path / "storage")
    assert printed.count("tuning: 4 nets") == 2
    for target in targets:
        own = analysis.load(tmp_path / "storage/studies/tiny" / target)
        assert len(tried(own)) == 4 and len(own.cells[own.cells["ablation"] == "tuned"]) == 4


# What cannot be used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuned": {"target_prune.keep": [[0.3]]}}, "decides which nets there are"),
        ({"tuned": {"transfer.tua": [1]}}, "did you mean 'transfer.tau'"),
        ({"tuned": {"source.train.epochs": [1]}}, "is the same for all nets"),
        ({"tuned": {"transfer.tau": [4, 4]}}, "has 4 twice"),
        ({"tuned": {"transfer.tau": [-1]}}, "greater than 0"),
        ({"tuned": {"transfer.n_m": [99]}}, "layers"),
        ({"tuned": {"budget": 3}}, "tuned.settings: field required"),
        ({"ablations": ["tau"]}, "there are no nets to tune"),
        ({"target": {"data": {**SMALL_DATA, "retrain_on_validation": True}}}, "chooses by validation"),
    ],
)
def test_what_cannot_be_tuned(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    printed = study(written(tmp_path, **changes), tmp_path / "storage", status=2)
    assert said in printed and len(printed.splitlines()) < 8
    assert not (tmp_path / "storage").exists()


def test_seeds_are_not_added_to_tuned_nets(preset: Path, tmp_path: Path) -> None:
    assert "leave out tuned" in study(preset, tmp_path / "storage", "--until-settled", status=2)


def test_the_options_of_the_command(tmp_path: Path, tiny_preset: Path) -> None:
    options = ["--dry-run", "--tune", f"{RATE}=0.01,0.02,0.05", "--tune", "transfer.tau=2,4", "--budget", "3"]
    assert "7 nets, each with 3 settings at 1 seed" in study(tiny_preset, tmp_path / "storage", *options)
    assert "--budget goes with --tune" in study(tiny_preset, tmp_path / "storage", "--budget", "3", status=2)


# What is concluded ----------------------------------------------------------------------------------------------------

NETS = {
    "Standard-TransferNet": ("none", "none"),
    "Hybrid-TransferNet(S+K-)": ("magnitude", "none"),
    "Hybrid-TransferNet(S-K+)": ("none", "reference"),
    "Hybrid-TransferNet": ("magnitude", "reference"),
}


def simulated(draw: np.random.Generator, badly_set: str, loss: float, seeds: int = 5) -> Results:
    """A study of nets that are equally good, whose common settings cost one of them some points."""
    of_seed = draw.normal(0, 0.5, seeds)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in (*schema.TABLES, "tuning")}
    for net, (sparsity, knowledge) in NETS.items():
        means = {COMMON: 80 - loss * (net == badly_set), GOOD: 80.0}
        for seed in range(seeds):
            test = {number: float(mean + of_seed[seed] + draw.normal(0, 0.5)) for number, mean in means.items()}
            validation = {number: accuracy + float(draw.normal(0, 0.7)) for number, accuracy in test.items()}
            chosen = best_candidate(validation)
            for number in means:
                row: dict[str, Any] = {
                    "net": net,
                    "seed": seed,
                    "candidate": number,
                    "settings": f"train.rate = {number}",
                    "changes": "{}",
                }
                row |= {"val_accuracy": validation[number], "chosen": number == chosen}
                rows["tuning"].append(row | {"stage": f"{net}-{number}-{seed}"})
                made: dict[str, Any] = {
                    "stage": f"{net}-{number}-{seed}",
                    "kind": "transfer",
                    "status": "done",
                    "network": "n",
                }
                made |= {"data": "d", "seed": seed, "parents": "{}", "hyperparameters": "{}", "rounds": 1, "epochs": 1}
                made |= {"images": 1, "test_accuracy": test[number], "val_accuracy": validation[number]}
                rows["stages"].append(made)
            for ablation_, number in (("transfer", COMMON), ("tuned", chosen)):
                stage = f"{net}-{number}-{seed}"
                cell: dict[str, Any] = {
                    "ablation": ablation_,
                    "net": net,
                    "tables": ["table1"],
                    "seed": seed,
                    "stage": stage,
                    "n_m": 2,
                }
                cell |= {"sparsity": sparsity, "knowledge": knowledge, "target_knowledge": "none", "path": [stage]}
                cell |= {"point": f"rate {number}", "point_index": number} if ablation_ == "tuned" else {}
                rows["cells"].append(cell)
    domain = {"name": "d", "title": "D", "classes": 3}
    facts: dict[str, Any] = {"name": "s", "title": "S", "source": domain, "target": domain, "network": "n"}
    facts |= {"published": None, "seeds": [*range(seeds)], "same_data": False, "tau": 4.0, "streams": []}
    facts |= {"fusion": {}, "evaluation": ""}
    frames = {name: frame(name, schema.table(name, own)) for name, own in rows.items()}
    return Results(Folder("."), StudyFacts.model_validate(facts), **frames)


@pytest.mark.parametrize(("count", "least"), [(12, 11), pytest.param(100, 95, marks=pytest.mark.slow)])
def test_a_badly_set_baseline_is_a_gain_at_common_settings_only(count: int, least: int) -> None:
    draw = np.random.default_rng(18)
    studies = [simulated(draw, "Standard-TransferNet", loss=4.0) for _ in range(count)]
    gains = [all(one.common.verdict == "better" for one in compared(own)) for own in studies]
    claims = [any(one.shown for one in best_comparisons(own)) for own in studies]
    assert sum(gains) >= least and count - sum(claims) >= least
    lines = conclusion(studies[gains.index(True)])
    assert "0 of 3 verdicts are the same" in lines[0] and len(lines) == 4


def test_a_badly_set_net_is_a_loss_at_common_settings_only() -> None:
    draw = np.random.default_rng(5)
    found = [compared(simulated(draw, "Hybrid-TransferNet", loss=4.0))[-1] for _ in range(10)]
    assert sum(one.common.verdict == "worse" and one.best.verdict == "open" for one in found) >= 9


def test_what_suits_all_nets_alike_changes_no_verdict() -> None:
    results = simulated(np.random.default_rng(1), "nobody", loss=0.0)
    assert not any(one.changes for one in compared(results))
    (line,) = conclusion(results)
    assert "3 of 3 verdicts are the same" in line


def test_settings_that_are_nothing_to_a_net_are_counted_once(results: Results) -> None:
    """A temperature is nothing to a net without knowledge: it tried one setting, whatever the budget."""
    assert results.tuning is not None
    alike = results.tuning.assign(stage=results.tuning["net"] + results.tuning["seed"].astype(str))
    assert {one.different for one in tried(replace(results, tuning=alike))} == {1}
    assert {one.number for one in tried(results)} == {one.different for one in tried(results)} == {3}


def test_only_keys_that_matter_to_a_net_are_told(results: Results) -> None:
    """Two keys, of which the second is nothing to the net: which of its values was chosen says nothing."""
    rows = [
        {
            "net": "n",
            "seed": seed,
            "candidate": number,
            "settings": f"a.rate = {rate}, b.rate = {other}",
            "changes": "{}",
            "val_accuracy": 50.0 + number + 9 * (seed == 0) * (rate == 1),
            "stage": f"{seed}-{rate}",
        }
        for seed in (0, 1)
        for number, (rate, other) in enumerate(itertools.product((1, 2), (3, 4)))
    ]
    tuning = pd.DataFrame(rows)
    tuning["chosen"] = tuning.groupby("seed")["val_accuracy"].transform("max") == tuning["val_accuracy"]
    (one,) = tried(replace(results, tuning=tuning))
    assert one.chosen == {"a.rate": {"1": 1, "2": 1}} and one.settings == "rate 1 (1), 2 (1)"
    assert (one.number, one.different) == (4, 2)


def test_what_was_chosen_is_counted_over_seeds() -> None:
    results = simulated(np.random.default_rng(2), "Standard-TransferNet", loss=4.0)
    (standard,) = [one for one in tried(results) if one.net == "Standard-TransferNet"]
    assert standard.chosen == {"train.rate": {"1": 5}} and standard.settings == "rate 1"
    assert results.tuning is not None
    of_net = results.tuning[results.tuning["net"] == "Hybrid-TransferNet"].pivot(
        index="seed", columns="candidate", values="val_accuracy"
    )
    (hybrid,) = [one for one in tried(results) if one.net == "Hybrid-TransferNet"]
    assert hybrid.curve == pytest.approx([of_net.mean(axis=1).mean(), of_net.max(axis=1).mean()])
    assert hybrid.best_accuracy is not None and hybrid.best_accuracy.mean == pytest.approx(of_net.max(axis=1).mean())

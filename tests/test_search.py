"""The search: its space, its memory, and a planted objective that it must find; then the command, for real."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
import yaml
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search_spaces.space import cell_of, changes_of, outside, own_params, space
from study.config import ConfigError, StudyConfig, load_config, with_changes
from study.graph import StageGraph, plan, plan_cells
from study.run.identity import RECORD, claim
from study.search import main
from study.settings.choices import Against, SamplerName
from study.tune.configurations import (
    ACCURACY,
    LATENCY,
    PRUNED,
    ConfigurationSearcher,
    EarlyStopping,
    TrialBook,
    importance,
)
from study.tune.trial import ERROR

CONDITIONAL = {"sparsity": {"source_steps", "source_factor"}, "knowledge": {"tau", "lambda", "n_e"}}


@pytest.fixture
def config() -> StudyConfig:
    return load_config("digits")


def book(
    config: StudyConfig,
    storage: optuna.storages.BaseStorage | None = None,
    sampler: SamplerName = "tpe",
    seed: int = 0,
    against: Against | None = None,
) -> TrialBook:
    storage = storage or optuna.storages.InMemoryStorage()
    asked = space(config, against=against)
    return TrialBook(asked, storage, "test", sampler_name=sampler, seed=seed, against=against)


def run(book: TrialBook, objective: Callable[[Mapping[str, Any]], float], trials: int) -> list[dict[str, Any]]:
    """Ask and tell until the study has so many trials."""
    asked = []
    while book.asked < trials:
        trial = book.ask()
        params = trial.params
        asked.append(params)
        trial.set_user_attr(ACCURACY, [objective(params)])
        book.tell(
            trial,
            {ACCURACY: objective(params), PRUNED: 10.0, LATENCY: 100.0 - params.get("neuron_steps", 0)},
        )
    return asked


def planted(params: Mapping[str, Any]) -> float:
    """Best with knowledge, at rate 0.01 and tau 4; nothing else matters."""
    value = 60 - 60 * math.log10(params["learning_rate"] / 0.01) ** 2
    if params["knowledge"] == "reference":
        value += 16 - 5 * math.log2(params["tau"] / 4) ** 2
    return value


def test_the_search_finds_a_planted_optimum(config: StudyConfig) -> None:
    searched = book(config)
    run(searched, planted, 80)
    best = searched.study.best_trial
    assert best.params["knowledge"] == "reference"
    assert best.values[0] > 74
    assert best.params["learning_rate"] == pytest.approx(0.01, rel=0.6)
    assert best.params["tau"] == pytest.approx(4, rel=0.5)


def test_importance_ranks_what_matters_first(config: StudyConfig) -> None:
    # Drawn at random: TPE's trials crowd around the optimum, where the best-tuned hyperparameter hardly varies.
    searched = book(config, sampler="random")
    run(searched, planted, 120)
    shares = importance(searched.study.trials, 0)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(list(shares)[:3]) == {"tau", "knowledge", "learning_rate"}
    irrelevant = shares.keys() - {"tau", "knowledge", "learning_rate"}
    assert len(irrelevant) == 8 and max(shares[name] for name in irrelevant) < 0.1


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "cmaes", "random"])
def test_a_continued_search_is_the_same_search(config: StudyConfig, tmp_path: Path, sampler: SamplerName) -> None:
    whole = run(book(config, sampler=sampler), planted, 14)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/optuna.db")
    parts = [book(config, storage, sampler) for _ in range(2)]
    assert run(parts[0], planted, 8) + run(parts[1], planted, 14) == whole
    # A genetic algorithm may propose a point again; it is then answered from the storage.
    assert sampler == "nsga2" or len({json.dumps(params, sort_keys=True) for params in whole}) == 14
    assert run(book(config, sampler=sampler, seed=1), planted, 3) != whole[:3]


def test_hyperparameters_are_asked_for_where_they_apply(config: StudyConfig) -> None:
    for params in run(book(config, sampler="random", against="share"), lambda _: 0.0, 60):
        for switch, dependents in CONDITIONAL.items():
            assert (params[switch] != "none") == bool(dependents & set(params))
        assert 0.0125 <= params["target_keep"] <= 0.3
        (cell,) = [cell_of(config, params, 0, "a test")]
        assert plan_cells([cell], config).stages


def test_the_studys_own_point_is_the_papers_net(config: StudyConfig) -> None:
    papers = [key for cell, key in plan(config).cells if cell.net == "Hybrid-TransferNet" and cell.seed == 0]
    without: tuple[Against | None, ...] = (None, "latency")
    for against in without:
        own = cell_of(config, own_params(config, against=against), 0, "a test")
        assert plan_cells([own], config).cells[0][1] in papers
    choices: tuple[Against, ...] = get_args(Against)
    assert [outside(config, against=against) for against in choices] == [[], []]


def test_against_latency_a_trial_is_a_transfer_net_less_some_neurons(config: StudyConfig) -> None:
    asked = run(book(config, sampler="random", against="latency"), lambda _: 0.0, 60)
    assert {params["neuron_steps"] for params in asked} == set(range(13))
    for params in asked:
        graph = plan_cells([cell_of(config, params, 0, "a test")], config)
        kinds = [stage.spec.kind for stage in graph.stages.values()]
        assert kinds.count("neuron_prune") == params["neuron_steps"]
        # Neither Standard-TransferNet, whose level would end the steps, nor connections pruned in the target.
        assert kinds.count("transfer") == 1 and "target_prune" not in kinds


def test_latency_is_the_less_the_better(config: StudyConfig) -> None:
    searched = book(config, sampler="random", against="latency")
    run(searched, lambda _: 50.0, 30)
    fastest = max(trial.params["neuron_steps"] for trial in searched.study.trials)
    assert {trial.params["neuron_steps"] for trial in searched.study.best_trials} == {fastest}


def test_more_steps_than_the_layers_have_neurons_for_are_refused(config: StudyConfig) -> None:
    # Each of the two layers of 256 neurons can lose 32 seven times.
    assert outside(load_config("digits", ["search.neuron_steps=[2,14]"]), against="latency") == []
    too_far = load_config("digits", ["search.neuron_steps=[0,15]"])
    assert outside(too_far, against=None) == outside(too_far, against="share") == []
    ((key, text),) = outside(too_far, against="latency")
    assert key == "search.neuron_steps"
    assert text.startswith("goes up to 15, but") and text.endswith("ends after 14")


def test_a_search_does_not_train_on_what_it_judges_by() -> None:
    overrides = ["target.data.retrain_on_validation=true", "neuron_prune.steps=3"]
    ((key, text),) = outside(load_config("digits", overrides), against=None)
    assert key == "target.data.retrain_on_validation" and "judges its trials by validation images" in text


def test_what_an_interrupted_run_left_open_is_taken_over(config: StudyConfig) -> None:
    storage = optuna.storages.InMemoryStorage()
    first = book(config, storage)
    params = first.ask().params
    again = book(config, storage)
    (adopted,) = again.left_open()
    assert adopted.params == params
    again.tell(adopted, None, failed=True)
    run(again, planted, 3)
    assert [trial.state for trial in again.study.trials] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]


def test_a_trial_ended_early_is_recorded_as_pruned(config: StudyConfig) -> None:
    searched = book(config)
    slow = searched.ask()
    searched.report(slow, 10, 50.0)
    searched.tell(slow, None)
    (trial,) = searched.study.trials
    assert trial.state == TrialState.PRUNED and trial.intermediate_values == {10: 50.0}


def train(stopping: EarlyStopping, number: int, accuracies: Sequence[float], since: int = 0) -> dict[int, float]:
    """Validate a trial's net by epochs until it is stopped; gives what was seen."""
    stopping.is_judged = lambda stage: True
    trial = SimpleNamespace(trial_id=str(number), config={"stage": f"stage {number}"})
    stopping.on_trial_add(None, trial)
    seen = {}
    for epoch, accuracy in list(enumerate(accuracies, start=1))[since:]:
        seen[epoch] = accuracy
        result = {"epoch": epoch, "epochs": len(accuracies), ACCURACY: accuracy}
        if stopping.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            break
    return seen


def left(number: int, seen: Mapping[int, float], state: TrialState) -> optuna.trial.FrozenTrial:
    attributes = {"stages": [f"stage {number}"]}
    trial = optuna.trial.create_trial(state=state, intermediate_values=dict(seen), user_attrs=attributes)
    trial.number = number
    return trial


def test_a_continued_search_stops_what_an_undisturbed_one_stops() -> None:
    accuracies = np.random.default_rng(0).uniform(50, 90, size=(15, 9))
    stopping = EarlyStopping(2, 9)
    whole = [train(stopping, number, row) for number, row in enumerate(accuracies)]
    assert {max(seen) for seen in whole} == {2, 4, 8, 9}
    for killed, seen in enumerate(whole):
        for validated in range(len(seen)):
            earlier = [left(number, whole[number], TrialState.PRUNED) for number in range(killed)]
            known = dict(list(seen.items())[:validated])
            stopping = EarlyStopping(2, 9)
            stopping.remember([*earlier, left(killed, known, TrialState.RUNNING)])
            # The checkpoint may be older than the last validation.
            ends = [max(train(stopping, killed, accuracies[killed], since=max(0, validated - 1)))]
            ends += [max(train(stopping, later, accuracies[later])) for later in range(killed + 1, len(whole))]
            assert ends == [max(seen) for seen in whole[killed:]]


def test_what_needs_a_failed_stage_fails_too_and_the_search_ends(config: StudyConfig) -> None:
    searched = book(config, sampler="random")
    searcher = ConfigurationSearcher(
        StageGraph(),
        lambda key: False,
        lambda key: {"task": key},
        searched,
        lambda params: [cell_of(config, params, 0, "a test")],
        lambda key: {ACCURACY: 50.0, PRUNED: 0.0},
        trials=6,
        abreast=1,
        expired=lambda: False,
        announce=lambda line: None,
    )
    handed_out: list[str] = []
    # The reference fails, and every configuration needs it: whoever waited for it would wait for ever.
    while isinstance(suggestion := searcher.suggest(f"ray-{len(handed_out)}"), dict):
        handed_out.append(suggestion["stage"])
        searcher.on_trial_complete(f"ray-{len(handed_out) - 1}", {ERROR: "DivergedError"})
    assert suggestion == Searcher.FINISHED
    assert [key.split("-")[0] for key in handed_out] == ["reference"]
    assert [trial.state for trial in searched.study.trials] == [TrialState.FAIL] * 6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.tau=[8,2]", "8.0 is not below 2.0"),
        ("search.tau=[0,2]", "greater than 0"),
        ("search.target_keep=[0,0.3]", "greater than 0"),
        ("search.n_e=[1,2,3]", "search.n_e"),
        ("search.taus=[1,2]", "did you mean 'search.tau'"),
        ("search.seeds=[100]", "other seeds|needs others"),
        ("search.source_steps=[]", "at least 1 item"),
        ("search.neuron_steps=[-1,3]", "greater than or equal to 0"),
        ("search.neuron_steps=[3,3]", "3 is not below 3"),
        ("search.latency_batch=0", "greater than or equal to 1"),
    ],
)
def test_bad_spaces(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("digits", [override])


def options(storage: Path, preset: Path, *more: str, slots: int = 0) -> list[str]:
    # One slot at most, so that the order in which trials end is always the same.
    return ["--preset", str(preset), "--storage", str(storage), "--slots", str(slots), "--trials", "6", *more]


def trials(storage: Path) -> pd.DataFrame:
    return pd.read_parquet(storage / "studies" / "tiny-search" / "trials.parquet")


@pytest.mark.slow
def test_a_killed_search_ends_with_the_trials_of_an_undisturbed_one(
    preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The killed one runs on Ray, the others without."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    small = ("--against", "share", "--set", "search.final_seeds=[9]")
    assert main(options(whole, preset, *small)) == 0
    command = [sys.executable, "-m", "study.search", *options(disturbed, preset, *small, slots=1)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("trial 2"):
            break
    orphans = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs([child for child in orphans if child.is_running()], timeout=5)
    time.sleep(1)
    assert main(options(disturbed, preset, *small)) == 0
    pd.testing.assert_frame_equal(trials(disturbed), trials(whole))
    assert len(trials(whole)) == 6 and trials(whole)["origin"].tolist()[0] == "own"
    folder = whole / "studies" / "tiny-search"
    references = list((whole / "stages").glob("reference-*"))
    assert len(references) == 1
    assert (folder / "report" / "index.html").exists()
    best = yaml.safe_load((folder / "best.yaml").read_text())
    number = int(best["title"].split("trial ")[1].split(" ")[0])
    chosen = trials(whole).set_index("trial").loc[number]
    assert chosen["best"]
    config = load_config(str(preset))
    wanted = changes_of(config, json.loads(str(chosen["hyperparameters"])))
    assert best["transfer"]["n_m"] == wanted["transfer.n_m"]
    assert load_config(str(folder / "best.yaml")).transfer.n_m == wanted["transfer.n_m"]
    capsys.readouterr()
    assert main(options(whole, preset, "--set", "transfer.tau=3")) == 2
    said = capsys.readouterr().err
    assert "made with other settings" in said and "transfer.tau" in said


@pytest.mark.slow
def test_a_search_against_latency(preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real trials: those of one shape have one latency, also in a later run, and each step is trained once."""
    fast = ("--against", "latency", "--set", "search.final_seeds=[9]", "--set", "search.neuron_steps=[0,3]")
    for number in ("4", "6"):
        assert main(options(tmp_path, preset, *fast, "--trials", number)) == 0
        # Measured by the first run only.
        assert ("measuring the latency of 4 nets" in capsys.readouterr().out) == (number == "4")
    made = trials(tmp_path)
    assert made["state"].tolist() == ["complete"] * 6
    steps = pd.Series([json.loads(text)["neuron_steps"] for text in made["hyperparameters"]])
    assert steps[0] == 0 and made["latency_percent"][0] == 100
    assert (made.groupby(steps)["latency_ms"].nunique() == 1).all() and made["latency_ms"].min() > 0
    rows = [json.loads(path.read_text())["stages"] for path in (tmp_path / "stages").glob("*/*/rows.json")]
    stages = pd.concat(map(pd.DataFrame, rows)).set_index("stage")
    for (nets, taken), pruned in zip(zip(made["stages"], steps, strict=True), made["prune_percent"], strict=True):
        for net in nets:
            # Two layers of 256 neurons and ten classes, less 100 a step.
            assert stages.loc[net, "neurons"] == 522 - 100 * taken
        assert stages.loc[nets, "prune_percent"].mean() == pytest.approx(pruned)
    folder = tmp_path / "studies" / "tiny-search"
    assert "Latency %" in (folder / "report" / "search_trials.md").read_text()
    best = load_config(str(folder / "best.yaml"))
    chosen = made.loc[int(best.title.split("trial ")[1].split(" ")[0].rstrip(","))]
    assert chosen["best"] and chosen["val_accuracy"] == made["val_accuracy"].max()
    assert main(options(tmp_path, preset, "--against", "share")) == 2
    said = capsys.readouterr().err
    assert "made with other settings" in said and "against" in said


def test_bad_commands(preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["--preset", str(preset), "--storage", str(tmp_path / "none")]
    for more, words in (
        (["--set", "search.tau=[8,16]"], "leaves out the study's own 4"),
        (["--set", "search.n_m=[1,9]"], "small_alexnet has 8 layers"),
        (["--warm-start", "nothing"], "no such search|no search"),
        (["--against", "latency"], "search.neuron_steps: goes up to 12"),
        (["--against", "share", "--sampler", "cmaes"], "only one objective"),
        (["--seed", str(2**32)], "a sampler's seed is a number from 0 to 4294967295"),
    ):
        assert main([*base, *more]) == 2
        error = capsys.readouterr().err
        assert any(word in error for word in words.split("|")), error
    for more, words in (
        (["--against", "speed"], "invalid choice: 'speed'"),
        (["--seed", "-1"], "argument --seed: '-1' is not a number from 0 up"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*base, *more])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_a_search_of_an_earlier_version_is_known_again(tiny_config: StudyConfig, tmp_path: Path) -> None:
    """Its record lacks later keys and has the place of its data; what decides a result has to be the same."""
    study, settings = optuna.create_study(), {"against": None, "sampler": "tpe", "seed": 0}
    claim(study, tiny_config, settings, "results")
    record = study.user_attrs[RECORD]
    record["config"]["source"]["data"]["path"] = "/elsewhere"
    record["config"]["margin"] = 2.0
    del record["config"]["search"]["latency_batch"], record["config"]["transfer"]["train"]["layer_decay"]
    study.set_user_attr(RECORD, record)
    elsewhere = with_changes(tiny_config, {"target.data.path": str(tmp_path), "loggers": ["wandb"]}, "a test")
    claim(study, elsewhere, settings, "results")
    for changes in ({"transfer.tau": 2.0}, {"transfer.train.layer_decay": 0.5}):
        with pytest.raises(ConfigError, match=rf"in results was made with other settings: .*{next(iter(changes))}"):
            claim(study, with_changes(tiny_config, changes, "a test"), settings, "results")

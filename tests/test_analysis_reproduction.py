"""A study that was run again, next to its report: what is the same, what noise explains, and what it does not."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.loading import Results
from analysis.reproduction import Reproduction, compare, describe
from tests.analysis_study import SEEDS, Study

HYBRID = "Hybrid-TransferNet"


def results(change: Callable[[Study], object] = lambda study: None, seeds: tuple[int, ...] = SEEDS) -> Results:
    study = Study(seeds)
    for row in study.rows["stages"]:
        if row["kind"] == "transfer":
            row["parents"] = json.dumps({"source": f"sparse-{row['seed']}"})
        if row["kind"] == "target_prune":
            row["parents"] = json.dumps({"start": f"{HYBRID}-{row['seed']}"})
    change(study)
    return study.results()


def stage(study: Study, key: str) -> dict[str, Any]:
    return next(row for row in study.rows["stages"] if row["stage"] == key)


def hashed(text: str) -> Callable[[Study], object]:
    return lambda study: stage(study, "sparse-0").update(tensors_sha256=text)


def verdicts(found: Reproduction) -> dict[str, str]:
    return dict(zip(found.stages["published"], found.stages["verdict"], strict=True))


def test_the_same_study_is_the_same_though_times_and_keys_are_not() -> None:
    def renamed(study: Study) -> None:
        for name, rows in study.rows.items():
            for row in rows:
                row["stage"] = f"new-{row['stage']}"
                if name == "cells":
                    row["path"] = [f"new-{key}" for key in row["path"]]
                if name == "stages":
                    row |= {"seconds": 9.0, "data_fingerprint": "other"}

    published = results(lambda study: [row.update(data_fingerprint="one") for row in study.rows["stages"]])
    found = compare(published, results(renamed))
    assert set(verdicts(found).values()) == {"same"} and len(found.stages) == len(published.stages)
    assert (found.stages["here"] == "new-" + found.stages["published"]).all()
    assert found.agrees and not found.origins and not found.conclusions
    assert found.made_otherwise == [f"data fingerprint: another one in {len(found.stages)} stages"]


def test_a_field_that_an_earlier_version_had_not_is_no_difference() -> None:
    def trained(**train: Any) -> Results:
        hyperparameters = json.dumps({"train": {"epochs": 2, **train}})
        return results(lambda study: [row.update(hyperparameters=hyperparameters) for row in study.rows["stages"]])

    assert compare(trained(rate=0.1), trained(rate=0.1, optimizer="sgd")).made_otherwise == []
    other = compare(trained(rate=0.1), trained(rate=0.2, optimizer="sgd"))
    assert other.made_otherwise == [f"hyperparameters: another one in {len(other.stages)} stages"]


def test_a_bit_anywhere_is_seen_and_where_it_begins() -> None:
    def change(study: Study) -> None:
        next(row for row in study.rows["epochs"] if row["stage"] == f"{HYBRID}-1")["loss"] += 1e-12
        stage(study, "Sparse-TargetNet_C90-1")["test_accuracy"] += 0.1
        for row in study.rows["stages"]:
            row["package_versions"] = json.dumps({"python": "3.11.9", "torch": "2.10.0", "ray": "2.60.0"})

    found = compare(results(), results(change))
    different = {key: verdict for key, verdict in verdicts(found).items() if verdict != "same"}
    assert different == {f"{HYBRID}-1": "within", "Sparse-TargetNet_C90-1": "within"}
    assert found.agrees and found.origins == [f"{HYBRID}-1"]
    assert found.made_otherwise == ["torch: 2.9.0 there, 2.10.0 here"]
    one, other = (results(hashed(text)) for text in "ab")
    assert verdicts(compare(one, other))["sparse-0"] == "within"
    # What an earlier version did not record says nothing.
    assert set(verdicts(compare(results(), one)).values()) == {"same"}


def test_what_noise_does_not_explain_is_told() -> None:
    def shifted(points: float, *keys: str) -> Reproduction:
        def change(study: Study) -> None:
            for row in study.rows["stages"]:
                row["test_accuracy"] = (row["test_accuracy"] or 0) + points * (row["stage"] in keys)

        return compare(results(), results(change))

    one = shifted(6.0, "Sparse-TargetNet_C90-1")
    assert not one.agrees and verdicts(one)["Sparse-TargetNet_C90-1"] == "beyond"
    assert "Sparse-TargetNet_C90-1 (Sparse-TargetNet_C90, seed 1): test ACC % 83.10 there, 89.10 here" in describe(one)
    assert "largest difference of a stage, in points: test ACC % 6.00, Prune % 0.00\n" in describe(one)
    # Too little for any one seed, but all have it.
    every = shifted(1.9, *(f"Sparse-TargetNet_C90-{seed}" for seed in SEEDS))
    assert "beyond" not in verdicts(every).values() and not every.agrees
    assert every.nets[["net", "quantity"]].to_numpy().tolist() == [["Sparse-TargetNet_C90", "test_accuracy"]]
    assert "NOT reproduced" in describe(every)


def test_a_rate_that_no_seed_changes_must_not_change_at_all() -> None:
    def change(study: Study) -> None:
        stage(study, "Sparse-TargetNet_C90-1")["prune_percent"] += 0.01
        stage(study, "neurons-1")["prune_percent"] += 0.01

    found = verdicts(compare(results(), results(change)))
    assert found["Sparse-TargetNet_C90-1"] == "beyond" and found["neurons-1"] == "within"


def test_other_draws_of_the_same_noise_are_rarely_called_different() -> None:
    rng = np.random.default_rng(0)

    def noise(study: Study) -> None:
        study.simulate({}, spread=0.3)
        chain = {seed: rng.normal(0, 0.5) for seed in SEEDS}
        for row in study.rows["stages"]:
            if row["kind"] in ("transfer", "target_prune", "neuron_prune"):
                row["test_accuracy"] += rng.normal(0, 0.5) + chain[row["seed"]] * (row["kind"] != "transfer")

    wrong = sum(not compare(results(noise), results(noise)).agrees for _ in range(12))
    # Of 12 pairs with 5 % each, four or more are called different in two of a thousand tests.
    assert wrong < 4


def test_one_seed_knows_no_noise() -> None:
    def change(study: Study) -> None:
        stage(study, f"{HYBRID}-0")["test_accuracy"] += 0.1

    published, here = results(seeds=(0,)), results(change, seeds=(0,))
    assert verdicts(compare(published, here))[f"{HYBRID}-0"] == "beyond"
    assert compare(published, here, tolerance=0.2).agrees


def test_some_seeds_can_be_compared_and_what_is_missing_is_told() -> None:
    first = compare(results(), results(seeds=(0,)))
    assert first.agrees and set(first.stages["seed"]) == {0}

    def fail(study: Study) -> None:
        study.fail(f"{HYBRID}-0", "no memory")
        study.rows["cells"] = [row for row in study.rows["cells"] if row["net"] != "Sparse-TargetNet_N"]

    found = compare(results(), results(fail))
    assert verdicts(found)[f"{HYBRID}-0"] == "not done" and found.lacking == len(SEEDS) and not found.agrees
    assert "not done here" in describe(found)


def test_conclusions_that_changed_are_named() -> None:
    def strong(study: Study) -> None:
        study.simulate({HYBRID: 3.0}, spread=0.1)

    published, here = (results(change, seeds=tuple(range(6))) for change in (strong, lambda study: study.simulate({})))
    assert "Sparsity with knowledge (S and K): shown in the report" in compare(published, here).conclusions


@pytest.mark.parametrize("end", ["published", "here"])
def test_what_failed_in_the_report_is_not_asked_for(end: str) -> None:
    failed = results(lambda study: study.fail("neurons-2", "no neuron left"))
    found = compare(failed, results()) if end == "published" else compare(results(), failed)
    assert ("neurons-2" in verdicts(found)) == (end == "here")
    assert found.agrees == (end == "published")

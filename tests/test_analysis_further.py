"""The paper's further claims: main effects, K while pruning, nets next to what they were made from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.multitest import multipletests

from analysis.comparisons import comparisons
from analysis.findings import findings
from analysis.further import further_comparisons
from analysis.loading import Results
from analysis.questions import CONTROL
from study.facts import SequentialDesign
from tests.analysis_study import CURVE, Study

SEEDS = tuple(range(6))
NETS = {
    "Standard-TransferNet": (0, 0),
    "Hybrid-TransferNet(S+K-)": (1, 0),
    "Hybrid-TransferNet(S-K+)": (0, 1),
    "Hybrid-TransferNet": (1, 1),
}


@pytest.fixture(scope="module")
def results() -> Results:
    """The synthetic study, its accuracies moved at random."""
    results = Study(seeds=SEEDS).results()
    noise = np.random.default_rng(4).normal(0, 0.6, len(results.stages))
    return replace(results, stages=results.stages.assign(test_accuracy=results.stages["test_accuracy"] + noise))


def accuracy(results: Results, net: str) -> "pd.Series[float]":
    """Test accuracy of a net of the paper's ablation, by seed."""
    cells = results.cells.query("net == @net and ablation == 'paper'").set_index("seed").sort_index()
    known = results.stages.set_index("stage")["test_accuracy"]
    return cells["stage"].map(known.to_dict()).astype(float)


def difference(results: Results, name: str) -> float:
    (one,) = [one for one in further_comparisons(results) if one.question.name == name]
    assert one.mean is not None and one.pairs == len(SEEDS)
    return one.mean.mean


def test_main_effects_and_interaction_are_those_of_a_factorial_design(results: Results) -> None:
    rows = [
        {"accuracy": value, "s": s, "k": k, "seed": seed}
        for net, (s, k) in NETS.items()
        for seed, value in accuracy(results, net).items()
    ]
    # Centred, so that each coefficient is the effect over both settings of the other part.
    table = pd.DataFrame(rows).assign(s=lambda all_: all_["s"] - 0.5, k=lambda all_: all_["k"] - 0.5)
    fitted = ols("accuracy ~ s * k + C(seed)", table).fit().params
    assert difference(results, "Sparsity (S), mean over K- and K+") == pytest.approx(fitted["s"])
    assert difference(results, "Knowledge (K), mean over S- and S+") == pytest.approx(fitted["k"])
    assert difference(results, "Interaction of S and K") == pytest.approx(fitted["s:k"])


def test_a_main_effect_has_less_noise_than_each_part_of_it() -> None:
    """Its variance over seeds is a half of that of one difference, if nets are independent."""
    widths = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(0, 1, 5000)
        own = Study(seeds=tuple(range(20))).results()
        own = replace(own, stages=own.stages.assign(test_accuracy=80 + noise[: len(own.stages)]))
        main, part = further_comparisons(own)[0].mean, comparisons(own)[0].mean
        assert main is not None and part is not None and main.half is not None and part.half is not None
        widths.append(main.half / part.half)
    assert np.mean(widths) == pytest.approx(np.sqrt(0.5), abs=0.06)


def test_knowledge_while_pruning_is_asked_at_each_named_rate_and_over_the_curve(results: Results) -> None:
    by_rate = {
        f"C{100 - 100 * keep:g}": accuracy(results, f"Sparse-TargetNet_C{100 - 100 * keep:g}")
        - accuracy(results, f"Sparse-TargetNet(K-)_C{100 - 100 * keep:g}")
        for keep in CURVE
    }
    for rate in ("C90", "C98.75"):
        assert difference(results, f"Knowledge while pruning, {rate}") == pytest.approx(by_rate[rate].mean())
    over_all = pd.DataFrame(by_rate).mean(axis=1)
    assert difference(results, "Knowledge while pruning, mean over C80 to C98.75") == pytest.approx(over_all.mean())
    names = [one.question.name for one in further_comparisons(results)]
    assert (
        sum(name.startswith("Knowledge while pruning") for name in names) == 3
    )  # the curve's other points: no table's


def test_nets_are_compared_with_what_they_were_made_from(results: Results) -> None:
    hybrid = accuracy(results, "Hybrid-TransferNet")
    for net, baseline, sign in (
        ("Sparse-TargetNet_C90", "Hybrid-TransferNet", 1),
        ("Sparse-TargetNet_N", "Hybrid-TransferNet", 1),
        ("Hybrid-TransferNet", "Hybrid-TransferNet(S+K-)", -1),
        ("Hybrid-TransferNet", "Hybrid-TransferNet(S-K+)", -1),
    ):
        other = accuracy(results, net if sign == 1 else baseline)
        expected = sign * (other - hybrid).mean()
        assert difference(results, f"{net} against {baseline}") == pytest.approx(expected)


def test_they_are_a_family_of_their_own(results: Results) -> None:
    further = further_comparisons(results)
    expected = multipletests([one.p for one in further], method="holm")[1]
    assert [one.p_holm for one in further] == pytest.approx(list(expected))
    assert {one.family for one in further} == {len(further)}
    # What the study was made for is corrected as if nobody had asked more.
    asked = [one for one in comparisons(results) if one.question.kind != CONTROL]
    assert {one.family for one in asked} == {len(asked) + sum(one.margin is not None for one in asked)}


def test_a_seed_that_lacks_a_net_takes_no_part(results: Results) -> None:
    lost = results.stages["stage"] == "Hybrid-TransferNet(S+K-)-3"
    stages = results.stages.assign(test_accuracy=results.stages["test_accuracy"].mask(lost))
    found = {one.question.name: one for one in further_comparisons(replace(results, stages=stages))}
    assert 3 not in found["Sparsity (S), mean over K- and K+"].differences
    assert 3 in found["Knowledge while pruning, C90"].differences


def test_what_a_study_lacks_is_not_asked(results: Results) -> None:
    fewer = replace(results, cells=results.cells[results.cells["net"] != "Hybrid-TransferNet(S-K+)"])
    names = [one.question.name for one in further_comparisons(fewer)]
    assert not any("mean over" in name and "pruning" not in name for name in names) and names


def test_where_seeds_were_added_they_are_judged_by_the_same_design(results: Results) -> None:
    design = SequentialDesign(negligible=0.5, most_seeds=30)
    own = replace(results, facts=results.facts.model_copy(update={"sequential": design}))
    further = further_comparisons(own)
    assert all(one.design == design for one in further)
    plain = {one.question.name: one for one in further_comparisons(results)}
    assert all(one.p is None or one.p != plain[one.question.name].p for one in further)


def test_the_findings_name_what_is_shown(results: Results) -> None:
    (line,) = [line for line in findings(results) if "further claims of the paper" in line]
    shown = [one.question.name for one in further_comparisons(results) if one.shown]
    assert shown and all(name in line for name in shown)
    assert not any(one.question.name in line for one in further_comparisons(results) if not one.shown)

"""The comparisons of a study and the sentences made from them: they say what was planted, and no more."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.comparisons import Comparison, comparisons
from analysis.findings import findings
from analysis.questions import CONTROL
from analysis.statistics.intervals import Interval
from analysis.statistics.power import detectable
from analysis.statistics.significance import holm
from analysis.tables.axes import CHOICE
from analysis.tables.table import RETRAINED, decimals_of, points_text
from tests.analysis_study import ACCURACY, SEEDS, Study, columns, files_of, page_of, stream_accuracy, table, writer

QUESTIONS = [
    "Sparsity (S)",
    "Knowledge (K)",
    "Sparsity with knowledge (S and K)",
    "Sparse-TargetNet_C90 against Standard-TransferNet",
    "Sparse-TargetNet_C98.75 against Standard-TransferNet",
    "Sparse-TargetNet_N against Standard-TransferNet",
    "The image's own knowledge against that of another image (with S)",
    "Pruning by magnitude against random masks (with K)",
]
EIGHT = tuple(range(8))
SHOWN = re.compile(r" (helps|hurts|is better than|is worse than)\b")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with the given changes and returns its folder."""
    return writer(tmp_path / "study")


def simulated(gains: dict[str, float], **more: Any) -> Callable[[Study], None]:
    return lambda study: study.simulate(gains, **more)


def answers(folder: Path) -> dict[str, Comparison]:
    return {one.question.name: one for one in comparisons(analysis.load(folder))}


def sentences(folder: Path) -> list[str]:
    return findings(analysis.load(folder))


def test_every_question_is_answered_by_its_pair(write: Callable[..., Path]) -> None:
    folder = write(simulated({}), seeds=EIGHT)
    found = answers(folder)
    assert list(found) == QUESTIONS
    accuracy = analysis.load(folder).stages.set_index("stage")["test_accuracy"]
    pairs = {
        "Knowledge (K)": ("Hybrid-TransferNet(S-K+)", "Standard-TransferNet"),
        QUESTIONS[3]: ("Sparse-TargetNet_C90", "Standard-TransferNet"),
        QUESTIONS[6]: ("Hybrid-TransferNet", "control-magnitude-shuffled"),
        QUESTIONS[7]: ("Hybrid-TransferNet", "control-random-reference"),
    }
    for name, (ours, theirs) in pairs.items():
        values = [[accuracy[f"{net}-{seed}"] for seed in EIGHT] for net in (ours, theirs)]
        expected = stats.ttest_rel(*values)
        one = found[name]
        assert one.mean is not None and one.p is not None
        assert one.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval()
        assert (one.mean.low, one.mean.high) == pytest.approx((interval.low, interval.high))
    # Claims about nets, those of their costs too, are one family, controls another.
    for is_control in (False, True):
        family = [one for one in found.values() if (one.question.kind == CONTROL) == is_control]
        claims = [(one.p, one.p_holm) for one in family] + [(one.p_margin, one.p_margin_holm) for one in family]
        known = [(p, adjusted) for p, adjusted in claims if p is not None]
        assert {one.family for one in family} == {len(known)} == ({2} if is_control else {9})
        assert [adjusted for _, adjusted in known] == pytest.approx(holm([p for p, _ in known]))


def test_table_has_what_the_comparisons_have(write: Callable[..., Path]) -> None:
    folder = write(simulated({"Hybrid-TransferNet(S+K-)": 1.0}), seeds=EIGHT)
    made = table(folder, "comparisons")
    one = answers(folder)["Sparsity (S)"]
    row = made.data.iloc[0]
    assert (row["net"], row["minus"], row["pairs"], row["shown"]) == (
        "Hybrid-TransferNet(S+K-)",
        "Standard-TransferNet",
        8,
        True,
    )
    assert one.mean is not None
    assert row["diff_mean"] == pytest.approx(np.mean(one.values))
    assert row["diff_median"] == pytest.approx(np.median(one.values))
    assert row["d_z"] == pytest.approx(np.mean(one.values) / np.std(one.values, ddof=1))
    assert row["detectable"] == pytest.approx(detectable(float(np.std(one.values, ddof=1)), 8))
    assert row["detectable_holm"] > row["detectable"]
    assert [row[f"diff_seed_{seed}"] for seed in EIGHT] == one.values
    assert pd.isna(row["seeds_needed"])  # nothing to settle
    text = columns(files_of(folder)["comparisons.md"])
    decimals = max(decimals_of(other.mean) for other in answers(folder).values() if other.mean)
    assert text["Sparsity (S)"][:3] == ["8", points_text(one.mean, decimals=decimals), "better"]


def test_planted_effect_is_found_and_no_other(write: Callable[..., Path]) -> None:
    lines = sentences(write(simulated({"Hybrid-TransferNet(S+K-)": 1.0}), seeds=EIGHT))
    shown = [line for line in lines if SHOWN.search(line)]
    assert len(shown) == 1
    assert re.fullmatch(r"Sparsity \(S\) helps on Digits: \+\d\.\d points \[\d\.\d, \d\.\d\] \(8 seeds\)\.", shown[0])
    assert next(line for line in lines if line.startswith("Knowledge (K): no difference shown: "))


def test_planted_harm_is_called_harm(write: Callable[..., Path]) -> None:
    lines = sentences(write(simulated({"Hybrid-TransferNet(S-K+)": -1.5}), seeds=EIGHT))
    assert any(line.startswith("Knowledge (K) hurts on Digits: \N{MINUS SIGN}1.") for line in lines)


def test_control_that_is_no_worse_is_not_beaten(write: Callable[..., Path]) -> None:
    gains = dict.fromkeys(["Hybrid-TransferNet", "control-magnitude-shuffled"], 2.0)
    lines = sentences(write(simulated(gains), seeds=EIGHT))
    assert any(line.startswith("Sparsity with knowledge (S and K) helps") for line in lines)
    assert any(line.startswith(f"{QUESTIONS[6]}: no difference shown: ") for line in lines)
    assert any(line.startswith("Pruning by magnitude is better than random masks (with K) on Digits") for line in lines)


def test_nothing_planted_nothing_shown(write: Callable[..., Path]) -> None:
    lines = sentences(write(simulated({}, seed=1), seeds=EIGHT))
    assert [line for line in lines if SHOWN.search(line)] == []
    open_ = [line for line in lines if "no difference shown" in line]
    cheap = [line for line in lines if "costs less than 1 point: " in line]
    assert len(open_) + len(cheap) == len(QUESTIONS)
    assert len(cheap) == 3 and all(line.startswith("Sparse-TargetNet") for line in cheap)
    assert all(re.search(r"would have seen \d\.\d points or more \(80 % power\); ", line) for line in open_)
    assert lines[-1].startswith(
        "Shown means: p below 0.05 in the paired t test, corrected (Holm) for the 9 claims about nets and, "
    )
    assert "apart from them, the 2 of controls, and a 95 % interval without zero" in lines[-1]


def test_studies_without_effect_rarely_claim_one() -> None:
    """The whole way from accuracies to sentences; the rate itself is measured with more draws in the statistics."""
    claims = 0
    for seed in range(30):
        study = Study(EIGHT[:4])
        study.simulate({}, seed=seed)
        results = study.results()
        claims += any(one.shown for one in comparisons(results))
    # Of 30 studies with 5 % each, six or more claim something in three of a thousand tests.
    assert claims < 6


def test_one_seed_shows_nothing(write: Callable[..., Path]) -> None:
    folder = write(simulated({"Hybrid-TransferNet": 9.0}), seeds=(0,))
    lines = sentences(folder)
    assert lines[0].startswith("One seed shows nothing")
    assert all(line.endswith("points with one seed, which shows nothing.") for line in lines[1:])
    assert not any(SHOWN.search(line) for line in lines)
    made = table(folder, "comparisons")
    assert {row[3] for row in made.rows} == {"no"}
    assert made.data["p"].isna().all()


def test_interval_without_zero_is_not_enough(write: Callable[..., Path]) -> None:
    # Differences 1.1, 0.8, 1.3: p = 0.018 alone, 0.09 after Holm.
    line = next(line for line in sentences(write()) if line.startswith("Knowledge (K)"))
    assert "no difference shown: +1.1 points [0.4, 1.7] (3 seeds)" in line
    assert "its own interval leaves out zero, but not after Holm's correction over 6 claims" in line


def test_no_spread_is_no_certainty(write: Callable[..., Path]) -> None:
    line = next(line for line in sentences(write()) if line.startswith("Sparse-TargetNet_C90"))
    assert "no difference shown: +3.0 points [3.0, 3.0] (3 seeds); all seeds differ alike" in line


def test_what_failed_is_said_first(write: Callable[..., Path]) -> None:
    def fail(study: Study) -> None:
        study.fail("Hybrid-TransferNet(S+K-)-1", "no memory")
        for seed in SEEDS:
            study.fail(f"neurons-{seed}", "no neuron left")

    folder = write(fail)
    lines = sentences(folder)
    cells = len(analysis.load(folder).cells)
    assert lines[0] == f"Not all is done: 4 of {cells} cells have no result (see the failures)."
    assert "(2 of 3 seeds)" in next(line for line in lines if line.startswith("Sparsity (S)"))
    assert "Sparse-TargetNet_N against Standard-TransferNet: no result, as no seed has both nets." in lines
    # What has no pair takes no part in the family.
    assert answers(folder)["Knowledge (K)"].family == len(QUESTIONS) - 2 - 1
    assert any("no neuron left" in note for note in table(folder, "comparisons").notes)


def test_streams_and_fusion_are_compared(write: Callable[..., Path]) -> None:
    found = answers(write(lambda study: study.two_stream()))
    both = [f"Sparsity with knowledge (S and K), {stream}" for stream in ("spatial", "temporal", "two-stream")]
    assert set(both) <= set(found)
    fused = found["Fusing the streams of Hybrid-TransferNet against its temporal stream alone"]
    differences = {
        seed: stream_accuracy("Hybrid-TransferNet", "two-stream", seed)
        - stream_accuracy("Hybrid-TransferNet", "temporal", seed)
        for seed in SEEDS
    }
    assert fused.differences == pytest.approx(differences)


def test_study_without_comparisons_has_no_summary(write: Callable[..., Path]) -> None:
    def alone(study: Study) -> None:
        study.rows["cells"] = [row for row in study.rows["cells"] if row["net"] == "Standard-TransferNet"]

    folder = write(alone)
    assert sentences(folder) == []
    assert "What this study shows" not in analysis.markdown_summary(folder)
    assert "What this study shows" not in page_of(folder)


def test_summary_stands_first_on_screen_and_page(write: Callable[..., Path]) -> None:
    folder = write(simulated({"Hybrid-TransferNet(S+K-)": 1.0}), seeds=EIGHT)
    line = next(line for line in sentences(folder) if SHOWN.search(line))
    assert analysis.markdown_summary(folder).startswith("## What this study shows\n\n- Sparsity (S) helps on Digits: ")
    page = page_of(folder)
    assert page.index(f"<li>{line}</li>") < page.index('id="comparisons"') < page.index('id="table1"')


def test_pairs_are_tidy(write: Callable[..., Path]) -> None:
    frame = analysis.pairs(analysis.load(write()))
    assert len(frame) == len(QUESTIONS) * len(SEEDS)
    row = frame[(frame["comparison"] == "Knowledge (K)") & (frame["seed"] == 2)].iloc[0]
    assert (row["net"], row["minus"]) == ("Hybrid-TransferNet(S-K+)", "Standard-TransferNet")
    assert row["accuracy"] == pytest.approx(ACCURACY["Hybrid-TransferNet(S-K+)"] + 0.7)
    assert row["difference"] == pytest.approx(row["accuracy"] - row["minus_accuracy"])


def test_end_near_zero_does_not_seem_to_be_zero() -> None:
    assert points_text(Interval(0.8, 0.6, 3)) == "+0.8 [0.2, 1.4]"
    assert points_text(Interval(0.8, 0.78, 3), " points") == "+0.80 points [0.02, 1.58]"
    assert points_text(Interval(-0.3, 0.1, 3)) == "\N{MINUS SIGN}0.3 [\N{MINUS SIGN}0.4, \N{MINUS SIGN}0.2]"
    assert points_text(Interval(0.5, None, 1)) == "+0.5"


@pytest.mark.parametrize("retrained", [False, True])
def test_validation_images_that_were_trained_on_choose_nothing(write: Callable[..., Path], retrained: bool) -> None:
    def change(study: Study) -> None:
        study.two_stream()
        study.axis("tau", {"tau = 1": 1.0, "tau = 4": 4.0}, "tau = 4", {"tau = 1": 80.0, "tau = 4": 82.0})
        for stage in {row["stage"] for row in study.rows["stages"]}:
            study.confuse(stage, {"zero": {"zero": 8, "one": 2}, "one": {"one": 9, "zero": 1}})

    folder = write(change, **({"retrained_on_validation": True} if retrained else {}))
    assert (RETRAINED in sentences(folder)) == retrained
    assert any(name.startswith("Fusing") for name in answers(folder)) != retrained
    assert (RETRAINED in table(folder, "table4_differences").notes) == retrained
    assert [note for note in table(folder, "axis_tau").notes if note in (CHOICE, RETRAINED)] == [
        RETRAINED if retrained else CHOICE
    ]
    page = analysis.report(folder).read_text(encoding="utf-8")
    assert ('id="confusion"' in page) != retrained and ("Choose by validation" in page) != retrained
    assert ("nothing was chosen by them" in page) == retrained

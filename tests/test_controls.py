"""The controls: the report says of each whether it passed, and real trainings see an effect that is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import analysis
from analysis.controls import NEGATIVE, POSITIVE
from analysis.findings import findings
from study.config import load_config
from study.graph import plan
from tests import commands
from tests.analysis_study import Study, page_of, table, writer
from tests.conftest import TINY

EIGHT = tuple(range(8))
KNOWLEDGE, IMAGE, IMAGE_WITH_S, MAGNITUDE, MAGNITUDE_WITH_K = POSITIVE
OTHER, OTHER_WITH_S = NEGATIVE
# Each part gains 2 points; random masks gain nothing, and knowledge of other images costs 1.
GAINS = {"Hybrid-TransferNet(S-K+)": 2.0, "Hybrid-TransferNet(S+K-)": 2.0, "Hybrid-TransferNet": 4.0}
GAINS |= {"control-none-shuffled": -1.0, "control-magnitude-shuffled": 1.0, "control-random-reference": 2.0}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a control study with gains by net, and returns its folder."""

    def _write(gains: dict[str, float], seeds: tuple[int, ...] = EIGHT, change: Callable[[Study], object] = id) -> Path:
        def planted(study: Study) -> None:
            study.control_study()
            study.simulate(gains)
            change(study)

        return writer(tmp_path / "study")(planted, seeds=seeds)

    return _write


def results_of(folder: Path) -> dict[str, str]:
    return {row[0]: row[-1] for row in table(folder, "verdicts").rows}


def test_controls_pass_where_all_is_as_it_must_be(write: Callable[..., Path]) -> None:
    folder = write(GAINS)
    assert results_of(folder) == dict.fromkeys([*POSITIVE, *NEGATIVE], "passed")
    lines = findings(analysis.load(folder))
    difference = table(folder, "verdicts").data.set_index("control")["diff_mean"]
    least, most = difference[list(POSITIVE)].idxmin(), difference[list(NEGATIVE)].idxmax()
    assert lines[0].startswith(
        f"All 7 controls passed: the study sees gains that are there (the smallest is {least}: +"
    )
    assert f"and none where there must be none (the largest is {most}: \N{MINUS SIGN}" in lines[0]
    assert not any("CONTROLS NOT PASSED" in line for line in lines)
    assert any(line.startswith("Knowledge of another image is worse than none (without S) on Digits") for line in lines)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        # Any knowledge does: what helps is no knowledge of the image.
        ({"control-none-shuffled": 2.0}, {IMAGE, OTHER}),
        ({"control-random-none": 2.0}, {MAGNITUDE}),
        (
            {"control-random-reference": 4.0, "control-magnitude-shuffled": 4.0},
            {MAGNITUDE_WITH_K, IMAGE_WITH_S, OTHER_WITH_S},
        ),
        ({"Hybrid-TransferNet(S-K+)": 0.0}, {KNOWLEDGE}),
        ({"Hybrid-TransferNet(S-K+)": -2.0}, {KNOWLEDGE, IMAGE}),
    ],
)
def test_a_control_that_fails_is_said_first_and_loudly(
    write: Callable[..., Path], change: dict[str, float], failed: set[str]
) -> None:
    folder = write(GAINS | change)
    assert {name for name, result in results_of(folder).items() if result == "NOT PASSED"} == failed
    line = findings(analysis.load(folder))[0]
    assert line.startswith(f"CONTROLS NOT PASSED, {len(failed)} of 7: ")
    assert {name for name in (*POSITIVE, *NEGATIVE) if name in line} == failed
    assert analysis.markdown_summary(folder).startswith(f"## What this study shows\n\n- {line}")


def test_the_page_says_it_loudly_too(write: Callable[..., Path]) -> None:
    page = analysis.report(write({}, seeds=(0, 1))).read_text(encoding="utf-8")
    assert '<li class="warning">CONTROLS NOT PASSED' in page and "NOT PASSED</td>" in page


def test_nothing_passes_without_numbers(write: Callable[..., Path]) -> None:
    one_seed = write(GAINS, seeds=(0,))
    assert set(results_of(one_seed).values()) == {"NOT PASSED"}

    def lose(study: Study) -> None:
        for seed in EIGHT:
            study.fail(f"control-none-shuffled-{seed}", "no memory")
        study.rows["cells"] = [row for row in study.rows["cells"] if row["sparsity"] != "random"]

    folder = write(GAINS, change=lose)
    rows = {row[0]: row for row in table(folder, "verdicts").rows}
    assert {name for name, row in rows.items() if row[-1] == "NOT PASSED"} == {
        IMAGE,
        MAGNITUDE,
        MAGNITUDE_WITH_K,
        OTHER,
    }
    assert rows[IMAGE][3] == "no pair" and rows[MAGNITUDE][3] == "not in this study"
    assert any("no memory" in note for note in table(folder, "verdicts").notes)


def test_a_study_with_nothing_to_compare_fails_its_controls(write: Callable[..., Path]) -> None:
    def alone(study: Study) -> None:
        study.rows["cells"] = [row for row in study.rows["cells"] if row["net"] == "Standard-TransferNet"]

    folder = write(GAINS, change=alone)
    assert findings(analysis.load(folder))[0].startswith("CONTROLS NOT PASSED, 7 of 7")
    assert "CONTROLS NOT PASSED" in page_of(folder)


def test_other_studies_are_not_judged(tmp_path: Path) -> None:
    def planted(study: Study) -> None:
        study.control_study()
        del study.description["control_study"]  # as studies of an earlier version are

    folder = writer(tmp_path / "study")(planted)
    assert not any("CONTROLS" in line or "controls passed" in line for line in findings(analysis.load(folder)))
    assert "verdicts" not in {made.name for made in analysis.reporting.tables(analysis.load(folder))}
    assert not any("Knowledge of another image" in line for line in findings(analysis.load(folder)))


def test_the_preset_has_every_net_that_its_controls_need() -> None:
    config = load_config("controls", ["seeds=1"])
    assert config.control_study
    graph = plan(config)
    pairs = {(cell.sparsity, cell.knowledge) for cell, _ in graph.cells}
    assert pairs == {(s, k) for s in ("none", "magnitude", "random") for k in ("none", "reference", "shuffled")}
    kinds = {stage.spec.kind for stage in graph.stages.values()}
    assert kinds == {"reference", "source_prune", "knowledge", "transfer"}


@pytest.mark.slow
def test_real_trainings_show_effects_that_are_there(tmp_path: Path) -> None:
    """The controls in small, where wrong knowledge and random masks leave hardly anything of the net."""
    train = {"epochs": 8, "learning_rate": 0.03, "batch_size": 20, "dropout": 0.1, "validate_every": 8}
    transfer = {"epochs": 60, "learning_rate": 0.02, "validate_every": 60}
    small: dict[str, Any] = TINY | {"ablations": ["transfer", "controls"], "control_study": True, "seeds": 2}
    small["source"] = {
        "data": {"name": "digits8", "test_share": 0.5, "train_per_class": 40, "mean": 0.13, "std": 0.31},
        "train": train,
        "prune": {"keep": 0.3, "steps": 1, "retrain": train | {"epochs": 2}},
    }
    small["target"] = {"data": {"name": "digits8", "test_share": 0.8, "train_per_class": 3, "mean": 0.13, "std": 0.31}}
    small["transfer"] = {"tau": 4, "lambda": 4, "train": transfer}
    preset = tmp_path / "small.yaml"
    preset.write_text(yaml.safe_dump(small))
    printed = commands.study(preset, tmp_path)
    # Two seeds show nothing, and the report says so; but the differences are there, and of this sign for each of them.
    assert "CONTROLS NOT PASSED" in printed
    pairs = analysis.pairs(analysis.load(tmp_path / "studies" / "small"))
    difference = pairs.set_index(["comparison", "seed"])["difference"]
    # Each was 55 points or more.
    assert (difference[[IMAGE, MAGNITUDE]] > 30).all()
    assert (difference[OTHER] < -30).all()

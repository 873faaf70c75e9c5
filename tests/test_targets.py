"""A study on several targets: one source for all, each target as if it were alone, and what holds over all of them."""

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

import analysis
from analysis.comparisons import comparisons
from analysis.figures.targets import targets_figure
from analysis.loading import Results, StudyError
from analysis.overview import findings, summary_of_targets
from analysis.statistics.intervals import FloatArray
from analysis.tables.table import NOTHING
from analysis.tables.targets import tables
from analysis.targets import Targets, is_on_targets, load_targets, wilcoxon_p
from study import run_study, run_targets
from study import show as show_command
from study.answers import TargetsResult
from study.config import ConfigError, load_config, target_config
from study.facts import TargetsFacts
from study.files import Folder
from study.graph import plan, plan_targets
from tests.analysis_study import Study
from tests.commands import assert_same_results, study, table
from tests.conftest import TINY

TARGETS = {"digits": {}, "mnist": {"target.data.name": "mnist5k", "transfer.tau": 2, "neuron_prune": None}}


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("presets") / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "seeds": 2, "ablations": ["transfer"], "targets": TARGETS}))
    return path


@pytest.fixture(scope="module")
def ran(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A storage with the study, and what the command printed."""
    storage = tmp_path_factory.mktemp("two")
    return storage, study(preset, storage)


@pytest.fixture
def storage(ran: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    return Path(shutil.copytree(ran[0], tmp_path / "storage"))


# What is run ----------------------------------------------------------------------------------------------------------


def test_the_source_is_trained_once(preset: Path) -> None:
    config = load_config(str(preset), {"ablations": ["paper"]})
    own, graph = plan_targets(config), plan(config)
    kinds = {name: Counter(stage.spec.kind for stage in one.stages.values()) for name, one in own.items()}
    together = Counter(stage.spec.kind for stage in graph.stages.values())
    for kind in ("reference", "source_prune"):
        assert together[kind] == kinds["digits"][kind] == kinds["mnist"][kind] > 0
    for kind in ("knowledge", "transfer", "target_prune", "neuron_prune"):
        assert together[kind] == kinds["digits"][kind] + kinds["mnist"][kind] > 0
    assert len(graph.cells) == sum(len(one.cells) for one in own.values())


def test_each_target_is_as_if_it_were_alone(ran: tuple[Path, str], preset: Path, tmp_path: Path) -> None:
    config = target_config(load_config(str(preset)), "mnist")
    alone = run_study(config, "alone", storage=tmp_path, slots=0, progress=False)
    assert_same_results(ran[0], tmp_path, "two/mnist", "alone")
    ours, theirs = (analysis.load(folder) for folder in (ran[0] / "studies/two/mnist", alone.folder))
    assert ours.facts.model_copy(update={"name": "alone"}) == theirs.facts


def test_the_command_ends_in_a_report_over_all_and_one_of_each(ran: tuple[Path, str]) -> None:
    storage, printed = ran
    assert "on 2 targets" in printed and "Nets on 2 targets" in printed and "Comparisons over targets" in printed
    folder = storage / "studies/two"
    page = (folder / "report/index.html").read_text()
    for target in TARGETS:
        assert f'href="../{target}/report/index.html"' in page
        assert (folder / target / "report/index.html").is_file() and (folder / target / "config.yaml").is_file()
    found = pd.read_csv(folder / "report/targets.csv").set_index("net")
    hybrid = analysis.load(folder / "mnist").stages
    transfer = table(storage, "cells", "two/mnist").query("net == 'Hybrid-TransferNet'")["stage"]
    mean = hybrid.set_index("stage").loc[transfer, "test_accuracy"].mean()
    assert found.loc["Hybrid-TransferNet", "mnist_mean"] == pytest.approx(mean)
    # The numbers behind the picture are another file than the table's.
    assert {"comparison", "target"} <= {*pd.read_csv(folder / "report/targets_map.csv").columns}


def test_another_seed_extends_it(preset: Path, storage: Path) -> None:
    study(preset, storage, "--seeds", "3")
    assert (
        {*table(storage, "cells", "two/digits")["seed"]} == {*table(storage, "cells", "two/mnist")["seed"]} == {0, 1, 2}
    )


def test_from_python(preset: Path, storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(str(preset))
    outcome = run_targets(config, "two", storage=storage, slots=0, progress=False)
    assert "nothing to train" in outcome.summary and not outcome.failed
    assert [*outcome.results.by_target] == [*TARGETS] and Path(outcome.report).is_file()
    assert "Comparisons over targets" in outcome._repr_markdown_() and len(repr(outcome)) < 1000
    assert capsys.readouterr().out == ""
    with pytest.raises(ConfigError, match="run_targets"):
        run_study(config, "two", storage=storage, slots=0)
    with pytest.raises(ConfigError, match="has one target"):
        run_targets(target_config(config, "mnist"), "two", storage=storage, slots=0)


def test_its_answer_is_of_the_schema(preset: Path, storage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from study import ablation

    arguments = ["--preset", str(preset), "--storage", str(storage), "--slots", "0", "--json"]
    assert ablation.main([*arguments, "--dry-run"]) == 0
    plan_of_both = json.loads(capsys.readouterr().out)
    assert Counter(cell["target"] for cell in plan_of_both["cells"]) == {"digits": 8, "mnist": 8}
    assert ablation.main(arguments) == 0
    answer = TargetsResult.model_validate_json(capsys.readouterr().out)
    assert [*answer.targets] == [*TARGETS] and answer.targets["mnist"].study == "two/mnist"
    first, one = answer.over_targets[0], load_targets(answer.folder).over_targets[0]
    assert (first.comparison, first.difference, first.p_holm) == (one.name, one.difference.mean, one.p_holm)


def test_show_knows_the_study_and_its_targets(ran: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--storage", str(ran[0])]
    assert show_command.main(where) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["two/digits", "two/mnist"]
    assert show_command.main(["two", *where]) == 0
    assert capsys.readouterr().out.count("Standard-TransferNet") == 2
    assert show_command.main(["two/mnist:Hybrid-TransferNet:1", *where]) == 0
    assert "on mnist5k, seed 1" in capsys.readouterr().out
    assert show_command.main(["two", "table1", "1", *where]) == 2
    assert "two/digits" in capsys.readouterr().err


def test_a_study_that_has_one_target_again_is_shown_as_one(storage: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "seeds": 2, "ablations": ["transfer"]}))
    assert "nothing to train" in study(path, storage)
    assert not is_on_targets(storage / "studies/two")
    # Nothing of the other report passes for this one's.
    report = storage / "studies/two/report"
    assert not [*report.glob("*target*")] and (report / "table1.csv").is_file()
    assert show_command.main(["two", "table1", "1", "--storage", str(storage)]) == 0


def test_what_fails_on_one_target_is_told_and_spares_the_other(tmp_path: Path) -> None:
    path, storage = tmp_path / "two.yaml", tmp_path / "storage"
    wild = {"target.data.name": "mnist5k", "transfer.train.learning_rate": 1e6}
    path.write_text(yaml.safe_dump({**TINY, "ablations": ["transfer"], "targets": {"digits": {}, "wild": wild}}))
    printed = study(path, storage, status=1)
    assert "4 stages failed" in printed and "wild: Hybrid-TransferNet, seed 0: failed" in printed
    assert {*table(storage, "stages", "two/digits")["status"]} == {"done"}
    assert Counter(table(storage, "stages", "two/wild")["status"])["failed"] == 4
    assert "4 stages failed" in (storage / "studies/two/report/index.html").read_text()


# What cannot be used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["digits8"], "one target"),
        (["digits8", "digits8"], "two of the data sets have one name"),
        (["digits8", "nope"], "targets.nope: target.data.name: no data set 'nope'"),
        ({"a": {}, "b": {"source.seed": 1}}, "b changes source.seed"),
        ({"a": {}, "b": {"seeds": 2}}, "b changes seeds"),
        ({"a": {}, "b": {"target.data.nam": "x"}}, "did you mean 'target.data.name'"),
        ({"a": {}, "b/c": {}}, "cannot name a folder"),
        ({"a": {}, "report": {}}, "cannot name a target"),
        ({"a": {}, "b:c": {}}, "cannot name a target"),
        ({"a": {}, "b": {"transfer.n_m": 99}}, "targets.b: transfer.n_m"),
    ],
)
def test_targets_that_cannot_be_used(targets: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "targets": targets}))
    printed = study(path, tmp_path / "storage", status=2)
    assert said in printed and len(printed.splitlines()) < 8
    assert not (tmp_path / "storage").exists()


def test_what_is_wrong_with_all_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "targets": TARGETS, "network": "vgg16"}))
    printed = study(path, tmp_path / "storage", status=2)
    assert printed.count("vgg16 takes") == 2  # the source's images, and those of the targets


def test_names_of_data_sets_become_names_of_targets(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**TINY, "targets": ["digits8", "trainables.data.digits:mnist5k"]}))
    config = load_config(str(path))
    assert [*config.targets] == ["digits8", "mnist5k"]
    assert target_config(config, "mnist5k").target.data.name == "trainables.data.digits:mnist5k"


@pytest.mark.parametrize(
    "more", [["--until-settled"], ["--set", "fusion={a: 1, b: 1}", "--set", "streams={a: {}, b: {}}"]]
)
def test_what_goes_with_one_target_alone(more: list[str], preset: Path, tmp_path: Path) -> None:
    assert "target" in study(preset, tmp_path / "storage", *more, status=2)


# What is concluded ----------------------------------------------------------------------------------------------------


def results_of(shift: float, seed: int, name: str = "digits") -> Results:
    """A synthetic study whose accuracies, except those of Standard-TransferNet, are shifted and noisy."""
    results = Study(seeds=(0, 1, 2, 3, 4)).results()
    noise = np.random.default_rng(seed).normal(0, 0.3, len(results.stages))
    moved = results.stages["test_accuracy"] + noise + shift * ~results.stages["stage"].str.startswith("Standard")
    facts = results.facts.model_copy(update={"name": name})
    return replace(results, facts=facts, stages=results.stages.assign(test_accuracy=moved))


def targets_of(*shifts: float) -> Targets:
    by_target = {f"t{number}": results_of(shift, number) for number, shift in enumerate(shifts)}
    facts = TargetsFacts(name="many", title="Many", targets=dict.fromkeys(by_target, ""))
    return Targets(Folder("."), facts, by_target)


def accuracy(results: Results, net: str) -> FloatArray:
    """Test accuracies of a net of the paper's ablation, in the order of its seeds."""
    cells = results.cells.query("net == @net and ablation == 'paper'").sort_values("seed")
    return np.array(results.stages.set_index("stage").loc[cells["stage"], "test_accuracy"], float)


def test_a_difference_over_targets_is_the_mean_of_those_on_each() -> None:
    study = targets_of(-1.5, 0.0, 2.5)
    one = next(one for one in study.over_targets if one.name == "Sparsity with knowledge (S and K)")
    pairs = [
        (accuracy(results, "Hybrid-TransferNet"), accuracy(results, "Standard-TransferNet"))
        for results in study.by_target.values()
    ]
    differences = np.array([net.mean() - baseline.mean() for net, baseline in pairs])
    errors = np.array([100 - baseline.mean() for _, baseline in pairs])
    assert one.difference.mean == pytest.approx(differences.mean())
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert [one.difference.low, one.difference.high] == pytest.approx([low, high])
    assert one.error_change is not None and one.error_change.mean == pytest.approx((-100 * differences / errors).mean())


def test_claims_on_all_targets_are_corrected_together() -> None:
    study = targets_of(-3.0, 0.0, 1.0)
    together = [one for own in study.comparisons.values() for one in own]
    claims = [p for one in together for p in (one.p, one.p_margin) if p is not None]
    expected = iter(multipletests(claims, method="holm")[1])
    for one in together:
        assert one.family == len(claims)
        for p, adjusted in ((one.p, one.p_holm), (one.p_margin, one.p_margin_holm)):
            assert (p is None) == (adjusted is None)
            if p is not None:
                assert adjusted == pytest.approx(next(expected))
    # A target's own report corrects for that target, so that it claims no less.
    for target, results in study.by_target.items():
        for own, ours in zip(comparisons(results), study.comparisons[target], strict=True):
            assert own.p_holm is not None and ours.p_holm is not None and own.p_holm <= ours.p_holm


def test_p_values_over_targets_are_corrected_for_all_comparisons() -> None:
    study = targets_of(*np.linspace(1.5, 4, 10))
    found = [one for one in study.over_targets if one.p is not None]
    expected = multipletests([one.p for one in found], method="holm")[1]
    assert [one.p_holm for one in found] == pytest.approx(list(expected))
    assert {one.verdict for one in found if one.name.startswith(("Sparsity", "Knowledge (K)"))} == {"better"}
    assert all("over 10 targets, shown to be better over targets" in line for line in findings(study)[1:4])


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=9))
def test_wilcoxons_test_is_that_over_all_signs(differences: list[int]) -> None:
    """Ties and zeros included: the share of all assignments of signs whose sum of ranks is as far from its middle."""
    p = wilcoxon_p([float(one) for one in differences])
    if not any(differences):
        assert p is None
        return
    known = np.array([one for one in differences if one])
    ranks = stats.rankdata(np.abs(known))
    middle, seen = ranks.sum() / 2, ranks[known > 0].sum()
    sums = [ranks[[*signs]].sum() for signs in itertools.product([False, True], repeat=len(known))]
    assert p == pytest.approx(np.mean([abs(one - middle) >= abs(seen - middle) - 1e-9 for one in sums]))


def test_of_many_targets_too() -> None:
    differences = [float(one) for one in np.random.default_rng(0).normal(0.4, 1, 20)]
    assert wilcoxon_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert wilcoxon_p([1.0]) is None


def test_the_targets_that_it_takes_to_show_anything() -> None:
    study = targets_of(1.0, 2.0)
    least, rows = study.targets_needed, len(study.over_targets)
    # Holm asks the smallest p for 0.05 over the number of comparisons; all signs alike are 2 of 2^n.
    assert 2 * 0.5**least <= 0.05 / rows < 2 * 0.5 ** (least - 1)
    assert {one.verdict for one in study.over_targets} == {"open"}
    assert f"it takes {least} targets" in findings(study)[-1]


def test_ranks_are_means_over_targets() -> None:
    study = targets_of(-1.5, 0.0, 2.5)
    accuracies = study.accuracies
    assert not accuracies.isna().any(axis=None)
    expected = np.mean([stats.rankdata(-accuracies[target].to_numpy()) for target in accuracies], axis=0)
    assert [*study.ranks.values()] == pytest.approx(list(expected))
    assert study.p_friedman == pytest.approx(stats.friedmanchisquare(*accuracies.to_numpy()).pvalue)


def test_a_net_that_one_target_lacks_has_no_rank_and_is_compared_where_it_is() -> None:
    study = targets_of(1.0, 2.0, 3.0)
    lacking = study.by_target["t1"]
    fewer = replace(lacking, cells=lacking.cells.query("net != 'Sparse-TargetNet_N'"))
    study = replace(study, by_target={**study.by_target, "t1": fewer})
    assert "Sparse-TargetNet_N" not in study.ranks and "Hybrid-TransferNet" in study.ranks
    one = next(one for one in study.over_targets if one.name.startswith("Sparse-TargetNet_N"))
    assert one.difference.n == 2 and [*one.by_target] == ["t0", "t2"]
    row = next(row for row in tables(study)[0].rows if row[0] == "Sparse-TargetNet_N")
    assert row[2] == row[-1] == NOTHING


def test_a_seed_that_failed_is_told() -> None:
    study = targets_of(1.0, 2.0)
    results = study.by_target["t1"]
    stage = results.stages["stage"] == "Hybrid-TransferNet-2"
    failed = results.stages.assign(status=results.stages["status"].mask(stage, "failed"))
    study = replace(study, by_target={**study.by_target, "t1": replace(results, stages=failed)})
    assert "t1: Hybrid-TransferNet, seed 2: failed" in summary_of_targets(study)


def test_marks_say_what_is_shown() -> None:
    study = targets_of(-6.0, -0.5)
    plot = targets_figure(study)
    assert plot is not None
    shown = plot.data.set_index(["comparison", "target"])["verdict"]
    assert shown["Sparsity (S)", "t0"] == "worse" and shown["Sparsity (S)", "mean"] == "open"
    row = next(row for row in tables(study)[1].rows if row[0] == "Sparsity (S)")
    assert row[1].endswith("*") and not row[2].endswith("*")


# What is read ---------------------------------------------------------------------------------------------------------


def test_tables_of_two_runs_are_not_taken_for_one(storage: Path) -> None:
    folder = storage / "studies/two"
    record = folder / "mnist/study.json"
    content = json.loads(record.read_text())
    del content["sha256"]  # as an earlier version wrote it
    record.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"mnist was written by another run .*: run the study's command again"):
        load_targets(folder)


def test_a_study_on_targets_is_no_study_on_one(ran: tuple[Path, str]) -> None:
    folder = ran[0] / "studies/two"
    assert is_on_targets(folder) and not is_on_targets(folder / "digits")
    with pytest.raises(StudyError, match=r"on several targets: give the folder of one, .*two/digits"):
        analysis.load(folder)


def test_a_study_that_gets_targets_keeps_nothing_of_its_former_report(preset: Path, storage: Path) -> None:
    report = storage / "studies/two/report"
    (report / "table1.csv").write_text("of the study that had one target")
    study(preset, storage)
    assert not (report / "table1.csv").exists() and (report / "over_targets.csv").is_file()

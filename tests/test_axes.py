"""The axes of the ablations: their points, what they share, and how mistakes in them are said."""

from pathlib import Path

import pytest

from search_spaces.ablations import ABLATIONS, cells_of
from search_spaces.axes import AXES, axis_names, points_of
from study.ablation import _parser, main
from study.command import BAD_INPUT
from study.commands.ablation import _overrides
from study.config import ConfigError, StudyConfig, load_config, with_changes
from study.graph import plan
from study.run.tables import cell_row, planned_cells
from study.settings.overrides import value_at


def with_ablations(config: StudyConfig, *names: str) -> StudyConfig:
    return config.model_copy(update={"ablations": names})


@pytest.mark.parametrize("preset", ["digits"])
@pytest.mark.parametrize("axis", sorted(AXES))
def test_every_axis_holds_the_studys_own_point_once(preset: str, axis: str) -> None:
    config = load_config(preset)
    cells = cells_of(with_ablations(config, axis))
    own = {cell.point_index for cell in cells if cell.own_point}
    assert len(own) == 1
    points = points_of(config, axis)
    assert len({point.label for point in points}) == len(points) >= 5
    per_net = {(cell.net, cell.seed, cell.point_index) for cell in cells}
    assert len(per_net) == len(cells)


def test_tau_reuses_all_that_the_paper_trains(tiny_config: StudyConfig) -> None:
    paper = plan(with_ablations(tiny_config, "paper"))
    both = plan(with_ablations(tiny_config, "paper", "tau"))
    new = [stage for key, stage in both.stages.items() if key not in paper.stages]
    assert set(paper.stages) <= set(both.stages)
    assert [stage.spec.kind for stage in new] == ["transfer"] * 4
    own = [key for cell, key in both.cells if cell.ablation == "tau" and cell.own_point]
    assert own == [key for cell, key in paper.cells if cell.net == "Hybrid-TransferNet"]


def test_a_points_row(tiny_config: StudyConfig) -> None:
    graph = plan(with_ablations(tiny_config, "lambda"))
    rows = [cell_row(graph, cell, key) for cell, key in graph.cells]
    assert [(row["point"], row["point_value"], row["lambda_"]) for row in rows] == [
        (f"lambda = {value:g}", value, value) for value in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
    ]
    assert [row["own_point"] for row in rows] == [value == 1 for value in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)]


def test_cells_of_one_variant_and_seed_are_one_net(tiny_config: StudyConfig) -> None:
    cells = planned_cells(plan(with_ablations(tiny_config, "paper", "lambda", "tau"))).to_pandas()
    assert (cells.groupby(["variant", "seed"])["measured"].nunique() == 1).all()
    assert (cells.groupby(["measured", "seed"])["variant"].nunique() == 1).all()
    assert {"Hybrid-TransferNet", "Hybrid-TransferNet, lambda = 2"} < set(cells["variant"])


def test_ones_own_axis_and_a_partial_crossing(tiny_config: StudyConfig) -> None:
    config = with_changes(
        tiny_config,
        {
            "axes": {"rate": [{"transfer.train.learning_rate": 0.01}, {"transfer.train.learning_rate": 0.02}]},
            "crossings": {"rate-tau": {"axes": ["rate", "tau"], "skip": [{"transfer.tau": 16}, {"transfer.tau": 1}]}},
            "ablations": ["rate-tau", "rate"],
        },
        "a test",
    )
    cells = cells_of(config)
    crossing = [cell for cell in cells if cell.ablation == "rate-tau" and cell.net == "Hybrid-TransferNet"]
    assert [cell.point.label for cell in crossing if cell.point] == [
        f"transfer.train.learning_rate = {rate}, tau = {tau}" for rate in (0.01, 0.02) for tau in (2, 4, 8)
    ]
    assert [(c.config.transfer.train.learning_rate, c.config.transfer.tau) for c in crossing][1] == (0.01, 4)
    assert [cell.own_point for cell in crossing] == [False, True, False, False, False, False]
    assert [c.point.value for c in cells if c.ablation == "rate" and c.point] == [0.01, 0.01, 0.02, 0.02]
    assert "rate-tau" in axis_names(config)


DESIGNS = {
    "factorial": [(), ("c",), ("b",), ("b", "c"), ("a",), ("a", "c"), ("a", "b"), ("a", "b", "c")],
    "one-factor": [(), ("a",), ("b",), ("c",)],
    "leave-one-out": [(), ("a", "b", "c"), ("b", "c"), ("a", "c"), ("a", "b")],
    "ladder": [(), ("a",), ("a", "b"), ("a", "b", "c")],
}
OTHER = {"a": ("transfer.tau", 2), "b": ("transfer.lambda", 0.5), "c": ("transfer.n_e", 1)}
"""What an axis changes of the study."""


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("named", [True, False], ids=["own point named", "own point understood"])
def test_a_design_has_the_combinations_of_its_name(tiny_config: StudyConfig, design: str, named: bool) -> None:
    if design == "factorial" and not named:
        return  # a factorial has the points that its axes have
    own = {key: value_at(tiny_config, key) for key, _ in OTHER.values()}
    axes = {axis: [{key: own[key]}] * named + [{key: value}] for axis, (key, value) in OTHER.items()}
    changes = {"axes": axes, "crossings": {"all": {"axes": ["a", "b", "c"], "design": design}}, "ablations": ["all"]}
    config = with_changes(tiny_config, changes, "a test")
    found = [cell for cell in cells_of(config) if cell.net == "Hybrid-TransferNet"]
    changed = [
        tuple(axis for axis, (key, value) in OTHER.items() if value_at(cell.config, key) == value) for cell in found
    ]
    assert changed == DESIGNS[design]
    assert [cell.own_point for cell in found] == [not one for one in changed]
    assert len({cell.point.label for cell in found if cell.point}) == len(found)


@pytest.mark.parametrize("design", ["leave-one-out", "ladder"])
def test_a_design_that_wants_one_other_point_says_so(tiny_config: StudyConfig, design: str) -> None:
    changes = {"crossings": {"x": {"axes": ["tau", "lambda"], "design": design}}, "ablations": ["x"]}
    with pytest.raises(ConfigError, match=f"design {design} wants one point of each axis .* and tau has 4"):
        plan(with_changes(tiny_config, changes, "a test"))


def test_one_factor_takes_all_points_of_an_axis(tiny_config: StudyConfig) -> None:
    changes = {"crossings": {"x": {"axes": ["tau", "lambda"], "design": "one-factor"}}, "ablations": ["x"]}
    config = with_changes(tiny_config, changes, "a test")
    assert len(points_of(config, "x")) == 1 + 4 + 5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablations=[paper,tua]", "did you mean 'tau'"),
        ("crossings={x: {axes: [tau, lamda]}}", "did you mean 'lambda'"),
        ("crossings={x: {axes: [tau]}}", "at least 2 items"),
        ("axes={paper: [{transfer.tau: 1}]}", "name of an ablation already"),
        ("axes={mine: []}", "at least 1 item"),
    ],
)
def test_mistakes(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("digits", [override])


def test_a_point_that_cannot_be_says_which() -> None:
    config = load_config("digits", ["axes={mine: [{transfer.tua: 1}]}", "ablations=[mine]"])
    with pytest.raises(ConfigError, match=r"(?s)did you mean 'transfer\.tau'.*of axis mine"):
        cells_of(config)
    config = load_config("digits", ["axes={mine: [{transfer.n_e: 8}]}", "ablations=[mine]"])
    with pytest.raises(ConfigError, match=r"(?s)give 1 to 7.*point 'transfer\.n_e = 8' of axis mine"):
        plan(config)


def test_axes_come_beside_the_presets_ablations(
    tiny_preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--preset", str(tiny_preset), "--storage", str(tmp_path / "none"), "--dry-run"]
    assert main([*base, "--ablate", "tau,controls"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("paper ", "tau = 16", "K shuffled"))
    assert main([*base, "--ablate", "nothing"]) == 2
    assert "no ablation 'nothing'" in capsys.readouterr().err


def test_a_very_large_study_is_not_started_unasked(
    tiny_preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.commands.ablation.MANY_STAGES", 20)
    storage = tmp_path / "none"
    assert main(["--preset", str(tiny_preset), "--storage", str(storage), "--ablate", "source-schedule"]) == 2
    error = capsys.readouterr().err
    assert "stages to train" in error and "add --yes" in error
    assert not storage.exists()


def test_names_are_not_taken_twice() -> None:
    assert not set(ABLATIONS) & set(AXES)


def test_n_m_means_the_n_m_of_every_net_whatever_the_studys_own_standard_has(tiny_config: StudyConfig) -> None:
    config = with_changes(with_ablations(tiny_config, "paper", "n_m"), {"transfer.standard_n_m": 1}, "a test")
    graph = plan(config)
    rows = [cell_row(graph, cell, key) for cell, key in graph.cells]
    points = [row for row in rows if row["ablation"] == "n_m"]
    assert points and all(row["n_m"] == row["point_value"] for row in points)
    own = {row["net"]: row for row in points if row["own_point"]}
    assert {net: row["n_m"] for net, row in own.items()} == {"Standard-TransferNet": 1, "Hybrid-TransferNet": 2}
    paper = {row["net"]: row["stage"] for row in rows if row["ablation"] == "paper"}
    assert all(row["stage"] == paper[net] for net, row in own.items())
    assert sum(row["own_point"] for row in points) == len(own)


@pytest.mark.parametrize(
    ("keys", "nets"),
    [
        ("transfer.tau=1,2", {"Hybrid-TransferNet"}),
        ("transfer.train.learning_rate=0.01,0.02", {"Standard-TransferNet", "Hybrid-TransferNet"}),
        ("target.data.train_per_class=2,3", {"Standard-TransferNet", "Hybrid-TransferNet"}),
        ("source.train.epochs=1,3", {"Standard-TransferNet", "Hybrid-TransferNet"}),
        ("source.prune.steps=1,3", {"Hybrid-TransferNet(S+K-)", "Hybrid-TransferNet"}),
        ("target_prune.retrain.epochs=1,3", {"Sparse-TargetNet_C80"}),
        ("neuron_prune.tolerance=1,3", {"Sparse-TargetNet_N"}),
    ],
)
def test_an_axis_shows_the_nets_that_its_key_matters_for(keys: str, nets: set[str], tiny_preset: Path) -> None:
    options = _parser().parse_args(["--preset", str(tiny_preset), "--vary", keys])
    config = load_config(str(tiny_preset), _overrides(options))
    cells = [cell for cell in cells_of(config) if cell.point is not None]
    assert {cell.net for cell in cells} == nets
    # Each point is another net: none is shown that the key changes nothing of.
    graph = plan(config)
    measured = [key for cell, key in graph.cells if cell.point is not None]
    assert len(set(measured)) == len(measured) == 2 * len(nets)
    assert {cell.point.value for cell in cells if cell.point} == {float(one) for one in keys.split("=")[1].split(",")}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["transfer.tau"], "give a key and its values"),
        (["transfer.tau="], "give a key and its values"),
        (["=1,2"], "give a key and its values"),
        (["transfer.tau=1,[2"], "flow sequence"),
        (["transfer.tau=1,2,1"], "1 is given twice"),
        (["transfer.tau=1", "transfer.tau=2"], "transfer.tau is given twice"),
        (["transfer.tua=1"], "did you mean 'transfer.tau'"),
    ],
)
def test_mistakes_in_vary_are_explained(
    texts: list[str], words: str, tiny_preset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for text in texts for word in ("--vary", text)]
    assert main(["--preset", str(tiny_preset), *options, "--dry-run"]) == BAD_INPUT
    assert words in capsys.readouterr().err


def test_two_keys_with_one_word_are_axes_of_their_own(tiny_preset: Path) -> None:
    vary = ["--vary", "transfer.train.epochs=1,2", "--vary", "source.train.epochs=1,2", "--vary", "transfer.tau=2,8"]
    config = load_config(str(tiny_preset), _overrides(_parser().parse_args(["--preset", str(tiny_preset), *vary])))
    assert set(config.axes) == {"transfer-train-epochs", "source-train-epochs", "tau"}
    assert config.ablations == ("paper", "transfer-train-epochs", "source-train-epochs", "tau")

"""Cells become stages once, and keys are about content."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.cells import Cell
from study.config import StudyConfig, load_config
from study.graph import StageGraph, plan
from study.keys import stage_key
from study.run.tables import cell_row
from trainables.data import Places
from trainables.hyperparameters import KnowledgeConfig, SourcePruneParams, StageSpec, TrainConfig, TransferParams
from trainables.settings import DataConfig

PLACES = Places()
KEYS = {"Hybrid-TransferNet": "transfer-80f7db32be482f87", "Sparse-TargetNet_N": "neuron_prune-17edfa111a4b578a"}
FORMER = {"test_share": 0.8, "val_per_class": None}
"""What the study of those keys had."""


def counts(graph: StageGraph) -> dict[str, int]:
    kinds = [stage.spec.kind for stage in graph.stages.values()]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def changed(config: StudyConfig, **changes: Any) -> StudyConfig:
    return config.model_copy(update=changes)


def test_a_long_plan_is_not_silent(
    tiny_config: StudyConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainables.pace.REPORT_SECONDS", 0)
    with caplog.at_level("INFO", "study"):
        cells = len(plan(tiny_config).cells)
    assert caplog.messages == [f"planned {number} cells so far" for number in range(cells)]


def test_the_default_study_shares_what_it_can() -> None:
    config = load_config("digits", ["ablations=[paper]", "source.seed=0"])
    points, steps = len(config.target_prune.keep), config.source.prune.steps
    for seeds in (1, 3):
        graph = plan(changed(config, seeds=seeds))
        assert counts(graph) == {
            "reference": 1,
            "transfer": 4 * seeds,
            "source_prune": steps,
            "knowledge": 1,
            "target_prune": 2 * points * seeds,
            "neuron_prune": seeds,
        }
        assert len(graph.cells) == seeds * (4 + 2 * points + 1)
        assert graph.unshared > len(graph.stages)


@pytest.mark.parametrize("seed", ["0", "null"])
def test_random_masks_are_of_the_cells_seed(seed: str) -> None:
    config = load_config("digits", ["ablations=[controls]", f"source.seed={seed}", "source.prune.steps=1", "seeds=3"])
    graph = plan(config)
    drawn: dict[str, set[int | None]] = {"random": set(), "magnitude": set()}
    for cell, key in graph.cells:
        if cell.sparsity == "none":
            continue
        stage = graph.stages[graph.stages[key].parents["source"]]
        params = stage.spec.params
        assert isinstance(params, SourcePruneParams)
        masks = stage.spec.seed if params.mask_seed is None else params.mask_seed
        assert cell.sparsity == "magnitude" or masks == cell.seed
        drawn[cell.sparsity].add(masks)
    assert drawn == {"random": {0, 1, 2}, "magnitude": {0} if seed == "0" else {0, 1, 2}}
    assert counts(graph)["reference"] == len(drawn["magnitude"])


def test_keys_stay_as_they_are(tiny_preset: Path) -> None:
    # A stored net is found by its key: one that changes without need orphans every net of its kind.
    former = {f"{domain}.data.{key}": value for domain in ("source", "target") for key, value in FORMER.items()}
    config = load_config(str(tiny_preset), {**former, "neuron_prune.tolerance": 0})
    cells = {cell.net: key for cell, key in plan(config).cells}
    assert {net: cells[net] for net in ("Hybrid-TransferNet", "Sparse-TargetNet_N")} == KEYS


def test_neuron_steps_are_a_chain_that_nets_share(tiny_config: StudyConfig) -> None:
    def net(steps: int) -> Cell:
        return Cell("a test", "net", 0, tiny_config, "magnitude", "reference", None, "reference", neuron_steps=steps)

    graph = StageGraph()
    keys = [graph.add(net(steps)) for steps in (4, 2, 0, 3, 1)]
    chain = sorted(keys, key=lambda key: len(graph.path(key)))
    assert [graph.stages[key].spec.kind for key in chain] == ["transfer"] + ["neuron_prune"] * 4
    assert counts(graph)["neuron_prune"] == 4 and counts(graph)["transfer"] == 1
    for before, after in itertools.pairwise(chain):
        assert graph.stages[after].parents["start"] == before
    layers = [getattr(graph.stages[key].spec.params, "layer", None) for key in chain]
    assert layers == [None, "fc6", "fc7", "fc6", "fc7"]


def test_parents_stand_before_children(tiny_config: StudyConfig) -> None:
    graph = plan(tiny_config)
    seen: set[str] = set()
    for key, stage in graph.stages.items():
        assert set(stage.parents.values()) <= seen
        seen.add(key)
    for _, key in graph.cells:
        path = graph.path(key)
        assert path[-1] == key
        assert all(set(graph.stages[stage].parents.values()) <= set(path) for stage in path)


def test_another_seed_adds_its_own_stages_only(tiny_config: StudyConfig) -> None:
    three, four = plan(changed(tiny_config, seeds=3)), plan(changed(tiny_config, seeds=4))
    new = set(four.stages) - set(three.stages)
    assert set(three.stages) <= set(four.stages)
    assert {four.stages[key].spec.seed for key in new} == {3}


def test_without_knowledge_tau_and_lambda_change_nothing(tiny_config: StudyConfig) -> None:
    hotter = changed(tiny_config, transfer=tiny_config.transfer.model_copy(update={"tau": 8.0, "n_e": 3}))
    one, other = plan(tiny_config), plan(hotter)
    shared = set(one.stages) & set(other.stages)
    kinds = [one.stages[key].spec for key in set(one.stages) - shared]
    assert all(spec.params.knowledge is not None for spec in kinds if isinstance(spec.params, TransferParams))
    standard = [key for cell, key in one.cells if cell.net == "Standard-TransferNet"]
    assert set(standard) <= shared


def test_no_and_one_new_layer_are_one_stage(tiny_config: StudyConfig) -> None:
    zero, one = (
        plan(changed(tiny_config, transfer=tiny_config.transfer.model_copy(update={"n_m": n}))) for n in (0, 1)
    )
    assert list(zero.stages) == list(one.stages)


def with_transfer(config: StudyConfig, **changes: Any) -> StudyConfig:
    return changed(config, transfer=config.transfer.model_copy(update=changes))


def test_standard_may_have_another_n_m(tiny_config: StudyConfig) -> None:
    plain, own = plan(tiny_config), plan(with_transfer(tiny_config, standard_n_m=1))
    for cell, key in own.cells:
        path = [own.stages[stage].spec.params for stage in own.path(key)]
        found = {params.n_m: params.n_e for params in path if isinstance(params, TransferParams)}
        row = cell_row(own, cell, key)
        if cell.net == "Standard-TransferNet":
            assert found == {1: None} and row["n_m"] == 1
        elif cell.neurons:
            assert found == {1: None, 2: 2}, "neuron pruning stops at Standard's level"
        else:
            assert set(found) == {2} and row["n_m"] == 2
    new = {key: own.stages[key].spec.kind for key in own.stages if key not in plain.stages}
    assert sorted(new.values()) == ["neuron_prune", "transfer"]
    same = plan(with_transfer(tiny_config, standard_n_m=2))
    assert list(same.stages) == list(plain.stages)


def test_a_given_number_of_neuron_steps_needs_no_level(tiny_config: StudyConfig) -> None:
    assert tiny_config.neuron_prune is not None
    prune = tiny_config.neuron_prune.model_copy(update={"steps": 3})
    graph = plan(changed(tiny_config, neuron_prune=prune))
    (key,) = (key for cell, key in graph.cells if cell.neurons)
    steps = [graph.stages[stage] for stage in graph.path(key) if stage.startswith("neuron_prune")]
    assert [getattr(step.spec.params, "layer", None) for step in steps] == ["fc6", "fc7", "fc6"]
    assert not any("standard" in step.parents for step in steps)


def test_knowledge_is_shared_by_all_seeds_and_splits(tiny_config: StudyConfig) -> None:
    data = tiny_config.target.data.model_copy(update={"train_per_class": 6})
    other = changed(tiny_config, target=tiny_config.target.model_copy(update={"data": data}), seeds=2)
    keys = [{k for k, s in plan(c).stages.items() if s.spec.kind == "knowledge"} for c in (tiny_config, other)]
    assert keys[0] == keys[1] and len(keys[0]) == 1


def test_live_knowledge_needs_the_reference_instead_of_the_cache(tiny_config: StudyConfig) -> None:
    live = changed(tiny_config, transfer=tiny_config.transfer.model_copy(update={"live": True}))
    graph = plan(live)
    assert "knowledge" not in counts(graph)
    guided = [s for s in graph.stages.values() if s.spec.kind == "target_prune" and s.spec.params.knowledge]  # type: ignore[attr-defined]
    assert guided and all("reference" in stage.parents for stage in guided)


def test_a_reference_for_each_seed(tiny_config: StudyConfig) -> None:
    own = changed(tiny_config, source=tiny_config.source.model_copy(update={"seed": None}), seeds=3)
    assert counts(plan(own))["reference"] == 3


def spec(seed: int = 0, **train: Any) -> StageSpec:
    data = DataConfig(name="digits8", train_per_class=4)
    params = TransferParams(n_m=2, train=TrainConfig(epochs=2, learning_rate=0.1, **train))
    return StageSpec(kind="transfer", network="small_alexnet", data=data, seed=seed, params=params)


def test_a_field_at_its_default_is_not_in_the_key() -> None:
    assert stage_key(spec(momentum=0.9), {}, PLACES) == stage_key(spec(), {}, PLACES)


@given(st.integers(0, 99), st.floats(0, 0.5), st.dictionaries(st.sampled_from(["source", "reference"]), st.text("ab")))
def test_keys_differ_with_content_alone(seed: int, dropout: float, parents: dict[str, str]) -> None:
    key = stage_key(spec(seed, dropout=dropout), parents, PLACES)
    assert key == stage_key(spec(seed, dropout=dropout), dict(reversed(parents.items())), PLACES)
    assert key != stage_key(spec(seed + 1, dropout=dropout), parents, PLACES)
    assert key != stage_key(spec(seed, dropout=dropout + 0.25), parents, PLACES)
    assert key != stage_key(spec(seed, dropout=dropout), {**parents, "source": "c"}, PLACES)
    assert key.startswith("transfer-")


def test_a_spec_survives_json() -> None:
    original = spec().model_copy(
        update={
            "params": TransferParams(
                n_m=1,
                n_e=2,
                knowledge=KnowledgeConfig(tau=3, lambda_=0.5),
                train=TrainConfig(epochs=1, learning_rate=0.1),
            )
        }
    )
    again = StageSpec.model_validate_json(original.model_dump_json(by_alias=True))
    assert again == original
    assert stage_key(again, {}, PLACES) == stage_key(original, {}, PLACES)


@pytest.mark.parametrize("spacing", ["geometric", "linear"])
def test_steps_of_a_schedule_lead_to_hans_shares(spacing: str) -> None:
    config = load_config("digits", [f"source.prune.spacing={spacing}", "source.prune.steps=3"])
    steps = config.source.prune.schedule("magnitude")
    assert len(steps) == 3
    assert steps[-1].keep == config.source.prune.final_shares
    assert isinstance(steps[0].keep, dict)
    expected = 0.09 ** (1 / 3) if spacing == "geometric" else 1 - 0.91 / 3
    assert steps[0].keep["fc6"] == pytest.approx(expected, abs=1e-6)

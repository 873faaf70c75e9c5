"""A key is the truth about a result: all that decides it is in the key by content, and nothing else is."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from study.config import StudyConfig, load_config
from study.graph import plan
from study.keys import contents, stage_key
from study.storage import Storage
from study.tune.trial import ContentsError, Task, run_task
from tests.own import rgb
from tests.runs import DATA, SOURCE, artifact, parents, run, source_nets
from tests.trees import make_folder
from trainables import data, networks
from trainables.data import ImageSet, Places
from trainables.data.imageset import in_memory
from trainables.hyperparameters import (
    KEY_VERSION,
    PARAMS,
    EvaluationParams,
    FusionParams,
    GradualConfig,
    KnowledgeConfig,
    MeanwhileParams,
    ReferenceParams,
    SourcePruneParams,
    StageSpec,
    TrainConfig,
    TransferParams,
    WeightsConfig,
)
from trainables.importing import source_digest
from trainables.results import StageResult
from trainables.sessions import Session
from trainables.settings import DataConfig

PLACES = Places()

VERSION_AND_DEFAULTS = {
    "KEY_VERSION": 3,
    "DataConfig": {
        "path": None,
        "test_share": 0.2,
        "train_per_class": None,
        "val_per_class": None,
        "retrain_on_validation": False,
        "mean": 0.0,
        "std": 1.0,
        "size": 256,
        "orientation": "stored",
        "duplicates": None,
        "views": "centre",
        "scale": (0.08, 1.0),
        "hflip": 0.5,
        "auto_augment": None,
        "evaluation": "centre",
        "modality": "rgb",
        "positions": 25,
        "stack": 10,
        "flow": "tvl1",
    },
    "TrainConfig": {
        "batch_size": 25,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "decay_all": True,
        "optimizer": "sgd",
        "nesterov": False,
        "decay": "cosine",
        "step_size": None,
        "gamma": 0.1,
        "warmup_epochs": 0.0,
        "layer_decay": 1.0,
        "label_smoothing": 0.0,
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "dropout": 0.5,
        "batch_norm": "train",
        "recalibrate": None,
        "rescale_dropout": True,
        "precision": "float32",
        "validate_every": 1,
    },
    "WeightsConfig": {"bgr": False, "classes": None, "cross_modality": False},
    "KnowledgeConfig": {"source": "reference", "hinton_factor": False, "live": False},
    "ReferenceParams": {"train": None, "weights": None},
    "SourcePruneParams": {
        "scope": "layer",
        "criterion": "magnitude",
        "pattern": None,
        "gradual": None,
        "mask_seed": None,
    },
    "KnowledgeParams": {},
    "FeaturesParams": {},
    "ProbeParams": {},
    "TransferParams": {"n_e": None, "knowledge": None, "prune": None},
    "TargetPruneParams": {
        "scope": "layer",
        "criterion": "magnitude",
        "pattern": None,
        "gradual": None,
        "knowledge": None,
    },
    "NeuronPruneParams": {
        "neurons_per_step": None,
        "layer": None,
        "channels_per_step": None,
        "step": None,
        "importance": "activation",
        "round_to": 1,
        "tolerance": 0.0,
        "knowledge": None,
    },
    "EvaluationParams": {},
    "FusionParams": {},
}
"""A field at its default is not in the key. So a new field may join this table, as its default is what was done before;
but whoever changes a default here must raise KEY_VERSION too, or old results pass for new ones."""


def test_a_default_does_not_change_without_the_version() -> None:
    models: list[type[BaseModel]] = [DataConfig, TrainConfig, WeightsConfig, KnowledgeConfig, *PARAMS.values()]
    found: dict[str, Any] = {"KEY_VERSION": KEY_VERSION}
    for model in models:
        fields = model.model_fields.items()
        found[model.__name__] = {name: own.default for name, own in fields if own.default is not PydanticUndefined}
    assert found == VERSION_AND_DEFAULTS


# What is in a key -----------------------------------------------------------------------------------------------------


def everything(config: DataConfig, places: Places) -> ImageSet:
    """A data set whose pixels may depend on all of its settings."""
    images = torch.arange(8 * 3 * 30 * 30).remainder(251).to(torch.uint8).reshape(8, 3, 30, 30)
    return in_memory("everything", images, torch.arange(8) % 2, ("a", "b"), "everything")


def elsewhere(config: DataConfig, places: Places) -> ImageSet:
    """The same under another name."""
    return everything(config, places)


def another(classes: int) -> networks.LayeredNet:
    """The same as another network under another name."""
    return rgb(classes)


TRAIN = TrainConfig(epochs=2, learning_rate=0.01)
KNOWLEDGE = KnowledgeConfig(tau=4, lambda_=1)
FULL: dict[str, dict[str, Any]] = {
    "reference": {"train": TRAIN, "weights": WeightsConfig(file=__file__)},
    "source_prune": {"keep": 0.5, "gradual": GradualConfig(end=0.4, updates=3), "retrain": TRAIN},
    "knowledge": {},
    "features": {},
    "probe": {"train": TRAIN},
    "transfer": {
        "n_m": 2,
        "n_e": 2,
        "knowledge": KNOWLEDGE,
        "prune": MeanwhileParams(keep=0.5, gradual=GradualConfig(end=0.4, updates=3)),
        "train": TRAIN,
    },
    "target_prune": {"keep": 0.5, "pattern": "4x1", "knowledge": KNOWLEDGE, "retrain": TRAIN},
    "neuron_prune": {"neurons_per_step": 8, "images_per_class": 4, "knowledge": KNOWLEDGE, "retrain": TRAIN},
    "evaluation": {},
    "fusion": {"weights": {"file": 1.0, "motion": 4.0}},
}
"""Hyperparameters of each kind, with all that may be left out. A stream may be called anything, ``file`` too."""
OTHER: dict[str, Any] = {
    "name": f"{__name__}:elsewhere",
    "path": "/elsewhere",
    "test_share": 0.5,
    "train_per_class": 2,
    "val_per_class": 2,
    "retrain_on_validation": True,
    "mean": 0.5,
    "std": 0.5,
    "size": 128,
    "orientation": "exif",
    "duplicates": "drop",
    "views": "ten",
    "scale": [0.5, 1.0],
    "hflip": 0.25,
    "auto_augment": "rand",
    "evaluation": "ten",
    "modality": "flow",
    "positions": 5,
    "stack": 5,
    "flow": "dis",
    "epochs": 3,
    "learning_rate": 0.1,
    "batch_size": 5,
    "momentum": 0.5,
    "weight_decay": 0.1,
    "decay_all": False,
    "optimizer": "adamw",
    "nesterov": True,
    "decay": "constant",
    "step_size": 1,
    "gamma": 0.5,
    "warmup_epochs": 0.5,
    "layer_decay": 0.75,
    "label_smoothing": 0.1,
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "dropout": 0.1,
    "batch_norm": "freeze",
    "recalibrate": 50,
    "rescale_dropout": False,
    "precision": "bfloat16",
    "validate_every": 2,
    "bgr": True,
    "cross_modality": True,
    "classes": ["one", "two"],
    "source": "shuffled",
    "tau": 2.0,
    "lambda": 2.0,
    "hinton_factor": True,
    "live": True,
    "keep": 0.25,
    "scope": "global",
    "criterion": "random",
    "n_m": 1,
    "n_e": 1,
    "neurons_per_step": 4,
    "layer": "fc4",
    "pattern": "N:4",
    "gradual": {"updates": 7},
    "begin": 0.1,
    "updates": 7,
    "channels_per_step": 0.5,
    "step": 2,
    "mask_seed": 3,
    "importance": "magnitude",
    "round_to": 8,
    "images_per_class": 2,
    "tolerance": 1.0,
}
"""Another value of each field, by its name; of a table of numbers, each number is doubled."""
SPLIT = {f"data.{name}" for name in ("test_share", "train_per_class", "val_per_class", "retrain_on_validation")}
NO_STEPS = {
    kind: {f"{kind}.{name}" for name in ("validate_every", "step_size", "gamma")} for kind in ("train", "retrain")
}
UNUSED: dict[str, set[str]] = {
    "reference": {"data.evaluation", *NO_STEPS["train"], "train.rescale_dropout", "weights.file"},
    "source_prune": {"data.evaluation", *NO_STEPS["retrain"]},
    "knowledge": {"data.evaluation", *SPLIT},
    "features": {"data.evaluation", *SPLIT},
    "probe": {"data.evaluation", *NO_STEPS["train"], "train.rescale_dropout"},
    "transfer": {"data.evaluation", *NO_STEPS["train"]},
    "target_prune": {"data.evaluation", *NO_STEPS["retrain"]},
    "neuron_prune": {"data.evaluation", *NO_STEPS["retrain"]},
    "evaluation": {"data.views", "data.auto_augment"},
    "fusion": {"data.evaluation", "data.views", "data.auto_augment", "data.mean", "data.std"},
}
"""All that may be changed and leaves the key as it is; the path of the data and :data:`OF_RESIZED` too, of any kind."""
OF_RESIZED = {"data.scale", "data.hflip"}
"""What decides nothing while views are not resized."""


def full_spec(kind: str) -> dict[str, Any]:
    data_ = DataConfig(name=f"{__name__}:everything", val_per_class=1)
    seed = None if kind in ("knowledge", "features") else 0
    spec = StageSpec(kind=kind, network="tests.own:rgb", data=data_, seed=seed, params=PARAMS[kind](**FULL[kind]))
    return spec.model_dump(mode="json", by_alias=True)


def key_of(spec: Mapping[str, Any], source: str = "source_prune-0") -> str:
    return stage_key(StageSpec.model_validate(spec), {"source": source}, PLACES)


def variations(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to change one field of a tree, by its dotted name."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from ((where, {**tree, name: own}) for where, own in variations(value, f"{path}{name}."))
        else:
            other = OTHER[name] if name in OTHER else 2 * value if isinstance(value, float) else f"{value}.copy"
            yield f"{path}{name}", {**tree, name: other}


@pytest.mark.parametrize("kind", PARAMS)
def test_every_field_is_in_the_key_but_for_a_written_list(kind: str, tmp_path: Path) -> None:
    spec = full_spec(kind)
    copied = tmp_path / "copy.pth"
    copied.write_bytes(Path(__file__).read_bytes())
    changed = {f"data.{where}": {**spec, "data": own} for where, own in variations(spec["data"])}
    changed |= {where: {**spec, "params": own} for where, own in variations(spec["params"])}
    if kind == "reference":
        changed["weights.file"] = {**spec, "params": {**spec["params"], "weights": {"file": str(copied)}}}
    same = {where for where, own in changed.items() if key_of(own) == key_of(spec)}
    assert same == UNUSED[kind] | OF_RESIZED | {"data.path"}
    assert key_of(spec | {"network": f"{__name__}:another"}) != key_of(spec)
    assert kind in ("knowledge", "features") or key_of(spec | {"seed": 1}) != key_of(spec)
    assert key_of(spec, source="source_prune-1") != key_of(spec)


def test_equal_channels_are_one_number() -> None:
    one, several = (DataConfig(name="digits8", mean=value, std=value) for value in (0.25, (0.25, 0.25, 0.25)))
    assert one == several
    assert DataConfig(name="digits8", mean=(0.25, 0.5, 0.25)).mean == (0.25, 0.5, 0.25)


# What is not in a key changes nothing ---------------------------------------------------------------------------------


def parts(config: DataConfig, places: Places) -> ImageSet:
    """The digits with official parts."""
    content = data.load(DataConfig(name="digits8"), places)
    items = torch.arange(len(content.labels))
    official = {"train": items[::3], "val": items[1::3], "test": items[2::3]}
    return replace(content, official=official, reads=frozenset())


OFFICIAL = DATA.model_copy(update={"name": f"{__name__}:parts"})
BRIEF = TrainConfig(epochs=1, learning_rate=0.01, batch_size=20)
WITHOUT = BRIEF.model_copy(update={"dropout": 0.0})
ONE = KnowledgeConfig(tau=1, lambda_=1)


@cache
def loaded() -> WeightsConfig:
    """Weights in a file."""
    from tempfile import mkdtemp

    file = Path(mkdtemp()) / "weights.pth"
    torch.save({n.removeprefix("main."): t for n, t in source_nets()["reference"].tensors.items()}, file)
    return WeightsConfig(file=str(file))


def reference(train: TrainConfig | None = BRIEF) -> ReferenceParams:
    return ReferenceParams(train=train, weights=None if train else loaded())


def prune(train: TrainConfig) -> SourcePruneParams:
    return SourcePruneParams(keep=0.5, retrain=train)


def guided(knowledge: KnowledgeConfig) -> TransferParams:
    return TransferParams(n_m=1, n_e=2, knowledge=knowledge, train=BRIEF)


def without_scale(train: TrainConfig) -> TrainConfig:
    return train.model_copy(update={"rescale_dropout": False})


Side = tuple[Any, DataConfig]


def sides() -> dict[str, tuple[str, Side, Side]]:
    """Pairs of settings that differ in what their stage does not use."""
    seldom = BRIEF.model_copy(update={"epochs": 3})
    seldom, often = seldom.model_copy(update={"validate_every": 3}), seldom
    read = DATA.model_copy(update={"size": 64, "positions": 3, "stack": 4, "flow": "dis"})
    shares = OFFICIAL.model_copy(update={"test_share": 0.3, "val_per_class": 1})
    ten = DATA.model_copy(update={"views": "ten"})
    crops = DATA.model_copy(update={"evaluation": "ten"})
    hinton = ONE.model_copy(update={"hinton_factor": True})
    return {
        "validations": ("transfer", (TransferParams(n_m=1, train=often), DATA), (_transfer(seldom), DATA)),
        "crops of evaluation": ("transfer", (_transfer(BRIEF), DATA), (_transfer(BRIEF), crops)),
        "a scale of no dropout": ("source_prune", (prune(WITHOUT), SOURCE), (prune(without_scale(WITHOUT)), SOURCE)),
        "a scale of dense layers": ("reference", (reference(), DATA), (reference(without_scale(BRIEF)), DATA)),
        "dense layers of a transfer": ("transfer", (_transfer(BRIEF), DATA), (_transfer(without_scale(BRIEF)), DATA)),
        "tau squared of 1": ("transfer", (guided(ONE), DATA), (guided(hinton), DATA)),
        "how files would be read": ("reference", (reference(), DATA), (reference(), read)),
        "shares of official parts": ("reference", (reference(), OFFICIAL), (reference(), shares)),
        "views of no training": ("reference", (reference(None), DATA), (reference(None), ten)),
        "views of an evaluation": ("evaluation", (EvaluationParams(), DATA), (EvaluationParams(), ten)),
    }


def _transfer(train: TrainConfig) -> TransferParams:
    return TransferParams(n_m=1, train=train)


@pytest.mark.parametrize("name", sides())
def test_settings_that_are_not_in_the_key_change_no_result(name: str) -> None:
    kind, *both = sides()[name]
    found = [_key_and_result(kind, params, images) for params, images in both]
    assert both[0] != both[1]
    assert found[0][0] == found[1][0]
    one, other = found[0][1], found[1][1]
    assert one.metrics == other.metrics and one.confusion == other.confusion
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(tensor, other.tensors[part]) for part, tensor in one.tensors.items())


def _key_and_result(kind: str, params: Any, images: DataConfig) -> tuple[str, StageResult]:
    nets = {**source_nets(), "source": source_nets()["reference"], "net": parents()["sparse"]}
    source = {"source": "reference-0"} if kind == "transfer" else {}
    spec = StageSpec(kind=kind, network="small_alexnet", data=images, seed=0, params=params)
    return stage_key(spec, source, PLACES), run(kind, params, images=images, roles=nets)


# A network or data set of one's own -----------------------------------------------------------------------------------


def own_package(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "nets.py").write_text(
        f"import torch\nimport {name}_installed\n\n"
        "def net(classes):\n    from . import blocks\n    return blocks.build(classes)\n"
    )
    (folder / name / "blocks.py").write_text(f"from {name}_lib.parts import piece\n\ndef build(classes):\n    ...\n")
    (folder / f"{name}_lib").mkdir()
    (folder / f"{name}_lib" / "parts.py").write_text("piece = 1\n")
    (folder / f"{name}_unused.py").write_text("")
    (folder / "elsewhere" / "site-packages").mkdir(parents=True)
    (folder / "elsewhere" / "site-packages" / f"{name}_installed.py").write_text("")


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("{}/nets.py", True),
        ("{}/blocks.py", True),
        ("{}/__init__.py", True),
        ("{}_lib/parts.py", True),
        ("{}_unused.py", False),
        ("elsewhere/site-packages/{}_installed.py", False),
    ],
)
def test_the_source_text_that_a_function_can_reach_counts(
    file: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "own" + re.sub(r"\W", "", file)
    own_package(tmp_path, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    # As a .pth file or --system-site-packages adds the packages of another environment.
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere" / "site-packages"))
    before = source_digest(f"{name}.nets:net")
    with (tmp_path / file.format(name)).open("a") as text:
        text.write("# another line\n")
    assert source_digest(f"{name}.nets:net") == before, "modules are loaded once"
    source_digest.cache_clear()
    assert (source_digest(f"{name}.nets:net") != before) == counts


def test_a_network_is_known_by_its_modules_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    def wider(classes: int) -> networks.LayeredNet:
        net = networks.build("small_alexnet", classes)
        net.layer("conv1").after = torch.nn.Sequential(torch.nn.ReLU())
        return net

    found = {networks.digest(name) for name in networks.NETWORKS}
    assert len(found) == len(networks.NETWORKS)
    monkeypatch.setitem(networks.NETWORKS, "wider", wider)
    assert networks.digest("wider") not in found


# What a node reads ----------------------------------------------------------------------------------------------------


def task_of(spec: StageSpec, places: Places, storage: Path) -> Task:
    key = stage_key(spec, {}, places)
    return Task(key=key, spec=spec, parents={}, contents=contents(spec, places), storage=str(storage), places=places)


def test_data_that_changed_after_planning_is_an_error(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", per_class=8)
    places = Places(cache=str(tmp_path / "cache"))
    images = DataConfig(name="folder", path=str(tmp_path / "images"), size=32, val_per_class=2)
    params = ReferenceParams(train=BRIEF)
    spec = StageSpec(kind="reference", network="tests.own:rgb", data=images, seed=0, params=params)
    task = task_of(spec, places, tmp_path / "results")
    image = next((tmp_path / "images").rglob("*.png"), None) or next((tmp_path / "images").rglob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"more")
    with pytest.raises(ContentsError, match="the data folder differ from what") as error:
        run_task(task, Storage(task.storage), Session(places=places))
    assert task.contents.data in str(error.value) and contents(spec, places).data in str(error.value)
    assert Storage(task.storage).stages() == []
    run_task(again := task_of(spec, places, tmp_path / "results"), Storage(again.storage), Session(places=places))
    assert Storage(task.storage).stages() == [again.key]


def test_weights_that_changed_after_planning_are_an_error(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(Path(loaded().file).read_bytes())
    params = ReferenceParams(weights=WeightsConfig(file=str(file)))
    spec = StageSpec(kind="reference", network="small_alexnet", data=DATA, seed=0, params=params)
    task = task_of(spec, PLACES, tmp_path / "results")
    net = torch.load(file, weights_only=True)
    torch.save({name: 2 * tensor for name, tensor in net.items()}, file)
    with pytest.raises(ContentsError, match=r"the weights .*weights\.pth differ"):
        run_task(task, Storage(task.storage), Session())
    run_task(again := task_of(spec, PLACES, tmp_path / "results"), Storage(again.storage), Session())
    (row,) = Storage(task.storage).rows("stages", [again.key]).to_pylist()
    assert row["weights_fingerprint"] == again.contents.weights and again.key != task.key


# How a net is measured ------------------------------------------------------------------------------------------------


def kinds(config: StudyConfig, overrides: Mapping[str, Any], preset: Path) -> dict[str, str]:
    """Kinds of the stages that the overrides add to the study."""
    own = load_config(str(preset), [f"{key}={value}" for key, value in overrides.items()])
    before = plan(config).stages
    return {key: stage.spec.kind for key, stage in plan(own).stages.items() if key not in before}


@pytest.mark.parametrize("domain", ["source", "target"])
def test_another_evaluation_adds_no_training(tiny_config: StudyConfig, tiny_preset: Path, domain: str) -> None:
    new = kinds(tiny_config, {f"{domain}.data.evaluation": "ten"}, tiny_preset)
    assert new and set(new.values()) == {"evaluation"}


def test_validating_less_often_adds_nothing(tiny_config: StudyConfig, tiny_preset: Path) -> None:
    trained = ("source.train", "source.prune.retrain", "transfer.train", "target_prune.retrain", "neuron_prune.retrain")
    assert not kinds(tiny_config, {f"{key}.validate_every": 2 for key in trained}, tiny_preset)


def test_cells_are_measured_by_the_evaluation_and_keep_their_net(tiny_preset: Path) -> None:
    plain, ten = (plan(load_config(str(tiny_preset), [f"target.data.evaluation={e}"])) for e in ("centre", "ten"))
    nets = {(cell.net, cell.seed): key for cell, key in plain.cells}
    assert {(cell.net, cell.seed): ten.net_of(key) for cell, key in ten.cells} == nets
    for _, key in ten.cells:
        assert ten.stages[key].spec.kind == "evaluation" and ten.path(key)[-1] == key
        assert ten.stages[key].spec.data.evaluation == "ten"


def test_an_evaluation_measures_the_net_by_its_crops() -> None:
    net = parents()["sparse"]
    centre, ten = (
        run("evaluation", EvaluationParams(), images=DATA.model_copy(update={"evaluation": crops}), net=net)
        for crops in ("centre", "ten")
    )
    for name in ("val_accuracy", "test_accuracy", "val_loss", "connections", "prune_percent", "neurons"):
        assert centre.metrics[name] == net.metrics[name], name
    assert torch.equal(centre.tensors["log_scores.test"], net.tensors["log_scores.test"])
    assert not torch.equal(ten.tensors["log_scores.test"], net.tensors["log_scores.test"])
    assert ten.metrics["connections"] == net.metrics["connections"]


def test_scores_of_evaluations_can_be_fused() -> None:
    ten = DATA.model_copy(update={"evaluation": "ten"})
    measured = artifact(run("evaluation", EvaluationParams(), images=ten, net=parents()["sparse"]))
    fused = run("fusion", FusionParams(weights={"one": 1.0, "two": 4.0}), one=measured, two=measured)
    for name in ("test_accuracy", "connections", "prune_percent"):
        expected = measured.metrics[name] * (2 if name == "connections" else 1)
        assert fused.metrics[name] == expected

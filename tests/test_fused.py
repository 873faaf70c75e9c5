"""Fused trainings: each net comes out as if it had been trained alone, whatever becomes of the others."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.config import ConfigError, StudyConfig, load_config
from study.experiment import Cluster, Experiment
from study.graph import StageGraph, plan
from study.scheduling import StageSearcher
from study.storage import Storage
from study.trial import PUBLISHED, Task, run_task, run_with_mates
from tests.runs import DATA, MemoryStore, Stopped, StoppingSession
from trainables import data, networks, pruning
from trainables.fused import FusedTraining, UnlikeError, fuse
from trainables.hybrid import HybridTransferNet, extra_branch
from trainables.hyperparameters import KnowledgeConfig, StageSpec, TrainConfig
from trainables.images import Images
from trainables.networks import Dropout, LayeredNet, WeightedLayer
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.training import DivergedError, Knowledge, Training

SOURCE_CLASSES, NETS = 6, 3
CONFIG = TrainConfig(epochs=3, learning_rate=0.01, batch_size=15, dropout=0.4, validate_every=3)


def convolutional(classes: int) -> LayeredNet:
    """Groups, strides, another padding, channels normalised together, layers without bias, dropout everywhere."""
    first = nn.Conv2d(1, 8, 5, stride=2, padding=2)
    second = nn.Conv2d(8, 12, 3, padding=1, groups=2, bias=False, padding_mode="reflect")
    return LayeredNet(
        [
            ("conv1", WeightedLayer(first, after=[nn.ReLU(), nn.LocalResponseNorm(3), Dropout()])),
            ("conv2", WeightedLayer(second, after=[nn.Sequential(nn.ReLU(), Dropout()), nn.MaxPool2d(3, 2)])),
            ("fc3", WeightedLayer(nn.Linear(12 * 25, 32), before=[nn.Flatten(), Dropout()], after=[nn.ReLU()])),
            ("fc4", WeightedLayer(nn.Linear(32, 32), after=[nn.ReLU(), Dropout()])),
            ("fc5", WeightedLayer(nn.Linear(32, classes, bias=False))),
        ],
        input_shape=(1, 24, 24),
    )


def perceptron(classes: int) -> LayeredNet:
    """An inner product sees the images."""
    return LayeredNet(
        [
            ("fc1", WeightedLayer(nn.Linear(24 * 24, 32), before=[nn.Flatten()], after=[nn.ReLU(), Dropout()])),
            ("fc2", WeightedLayer(nn.Linear(32, 32), after=[nn.ReLU(), Dropout()])),
            ("fc3", WeightedLayer(nn.Linear(32, classes))),
        ],
        input_shape=(1, 24, 24),
    )


@cache
def images() -> Images:
    content = data.load(DATA, data.Places())
    return Images.open(content, data.split(content, DATA, 0), DATA, (24, 24), torch.device("cpu"))


def training(build: Callable[[int], LayeredNet], number: int, guided: bool, **other: Any) -> Training:
    """One of some trainings that differ in weights, masks, dropout, tau, lambda and whose knowledge guides an image."""
    main, reference = build(10), build(SOURCE_CLASSES)
    main.initialise(main.names, number)
    reference.initialise(reference.names, number + 100)
    # The first net is dense: another one's mask must not touch it.
    kept = {name: weight.numel() // 3 for name, weight in list(main.weights().items())[:2]} if number else {}
    masks = pruning.shrink(main, {}, kept, "magnitude", 0)
    net = HybridTransferNet(main, extra_branch(reference, 2) if guided else None)
    net.main.set_dropout(CONFIG.dropout, dict.fromkeys(kept, 1 / 3))
    knowledge = None
    if net.extra is not None:
        net.extra.set_dropout(CONFIG.dropout)
        count = len(images().labels)
        logits = torch.randn(count, 1, SOURCE_CLASSES, generator=generator(0, "logits"))
        config = KnowledgeConfig(tau=1 + number, lambda_=0.5 + number)
        knowledge = Knowledge(config, torch.randperm(count, generator=generator(number, "partner")), logits)
    arguments: dict[str, Any] = {"images": images(), "config": CONFIG, "session": Session(), "seed": 0} | other
    return Training(net, masks, knowledge=knowledge, **arguments)


def assert_alike(fused: Training, alone: Training) -> None:
    for name, tensor in alone.net.state_dict().items():
        torch.testing.assert_close(fused.net.state_dict()[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    for own, row in zip(fused.history, alone.history, strict=True):
        assert own == {name: value if value is None else pytest.approx(value, rel=1e-3) for name, value in row.items()}


@pytest.mark.parametrize("build", [convolutional, perceptron, networks.find("small_alexnet")])
@pytest.mark.parametrize("guided", [False, True])
def test_fused_trainings_are_those_alone(build: Callable[[int], LayeredNet], guided: bool) -> None:
    alone, together = ([training(build, number, guided) for number in range(NETS)] for _ in range(2))
    for one in alone:
        one.run()
    fused = FusedTraining(together)
    fused.run()
    assert not fused.failed
    for one, other in zip(together, alone, strict=True):
        assert_alike(one, other)
    masked = together[1].net.main.op(together[1].net.main.names[0]).weight
    assert int((masked != 0).sum()) == masked.numel() // 3


def test_a_net_that_diverges_leaves_the_others_alone() -> None:
    alone, together = ([training(convolutional, number, True) for number in range(NETS)] for _ in range(2))
    with torch.no_grad():
        together[1].net.main.op("fc4").weight.fill_(1e30)
    fused = FusedTraining(together)
    fused.run()
    assert list(fused.failed) == [1] and "in epoch 1" in str(fused.failed[1])
    assert together[1].history == []
    for number in (0, 2):
        alone[number].run()
        assert_alike(together[number], alone[number])


def test_nothing_is_trained_on_once_all_have_diverged() -> None:
    together = [training(perceptron, number, False) for number in range(2)]
    for one in together:
        one.net.main.op("fc2").weight.data.fill_(1e30)
    fused = FusedTraining(together)
    fused.run()
    assert list(fused.failed) == [0, 1] and not any(one.history for one in together)


@pytest.mark.parametrize(("groups", "bias"), [(1, True), (2, True), (2, False)])
def test_the_first_layer_is_given_each_image_once(groups: int, bias: bool) -> None:
    def build() -> LayeredNet:
        conv = nn.Conv2d(4, 6, 3, groups=groups, bias=bias)
        return LayeredNet([("conv1", WeightedLayer(conv)), ("conv2", WeightedLayer(nn.Conv2d(6, 5, 3)))], (4, 8, 8))

    nets = [build() for _ in range(NETS)]
    seen: Tensor = torch.randn(7, 4, 8, 8)
    right = torch.stack([net(seen) for net in nets], dim=1)
    given = fuse(nets, shared=True)(seen).unflatten(0, (7, NETS))
    torch.testing.assert_close(given, right)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"config": CONFIG.model_copy(update={"batch_size": 7})}, "differ in their training settings"),
        ({"seed": 1}, "differ in their seeds"),
        ({"guided": False}, "differ in having knowledge|differ in the shapes"),
        ({"build": perceptron}, "differ in the shapes of their nets"),
        ({"session": Session(images_a_pass=5)}, "whole batches"),
    ],
)
def test_what_does_not_go_together_is_refused(other: dict[str, Any], complaint: str) -> None:
    own: dict[str, Any] = {"build": convolutional, "number": 0, "guided": True}
    with pytest.raises(ValueError, match=complaint):
        FusedTraining([training(**own), training(**own | other)])


Stores = list[MemoryStore]


def with_stores(stores: Stores, lead: Session | None = None) -> list[Training]:
    """Trainings that store every epoch; the first one in a session of its own kind, if it is given."""
    sessions = [lead or Session(stores[0], checkpoint_seconds=0)]
    sessions += [Session(store, checkpoint_seconds=0) for store in stores[1:]]
    return [training(convolutional, number, True, session=session) for number, session in enumerate(sessions)]


@pytest.fixture
def stores() -> Stores:
    """Checkpoints of a fused training that crashed after two of three epochs."""
    stores = [MemoryStore() for _ in range(NETS)]
    with pytest.raises(Stopped):
        FusedTraining(with_stores(stores, StoppingSession(stores[0], 2))).run()
    return stores


def test_a_fused_training_goes_on_from_its_checkpoints(stores: Stores) -> None:
    undisturbed = [training(convolutional, number, True) for number in range(NETS)]
    FusedTraining(undisturbed).run()
    resumed = with_stores(stores)
    FusedTraining(resumed).run()
    for one, other in zip(resumed, undisturbed, strict=True):
        assert one.session.resumed_epochs == 2
        assert one.history == other.history
        for name, tensor in other.net.state_dict().items():
            torch.testing.assert_close(one.net.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def test_a_net_goes_on_alone_from_a_fused_checkpoint(stores: Stores) -> None:
    for number, one in enumerate(with_stores(stores)):
        undisturbed = training(convolutional, number, True)
        undisturbed.run()
        one.run()
        assert one.session.resumed_epochs == 2
        assert_alike(one, undisturbed)


def test_checkpoints_hold_one_net_each(stores: Stores) -> None:
    own = MemoryStore()
    training(convolutional, 0, True, session=Session(own, checkpoint_seconds=0)).run()
    for store in stores:
        assert len(store.content or b"") == pytest.approx(len(own.content or b""), rel=0.05)


def test_nets_that_have_got_further_than_others_are_not_fused(stores: Stores) -> None:
    stores[1].content = None
    with pytest.raises(UnlikeError, match="further than others"):
        FusedTraining(with_stores(stores)).run()


def normalised(classes: int) -> LayeredNet:
    """Batch normalisation has no place in a fused net: it joins the rows of all nets."""
    after: list[nn.Module] = [nn.BatchNorm2d(4, affine=False, track_running_stats=False), nn.Flatten()]
    return LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(1, 4, 5, stride=4), after=after)),
            ("fc2", WeightedLayer(nn.Linear(4 * 25, classes))),
        ],
        input_shape=(1, 24, 24),
    )


def test_nets_whose_rows_do_not_stand_alone_are_not_fused() -> None:
    with pytest.raises(UnlikeError, match="BatchNorm2d"):
        FusedTraining([training(normalised, number, False) for number in range(2)])


@dataclass
class Transfers:
    """A graph whose stages up to the transfers are complete, and its K+ transfers."""

    experiment: Experiment
    keys: list[str]

    def task(self, **mate: Any) -> Task:
        """The first transfer with the second one, some of whose fields are others."""
        task = Task.model_validate_json(self.experiment.task(*self.keys))
        return task.model_copy(update={"mates": (task.mates[0].model_copy(update=mate),)})

    def row(self, key: str) -> dict[str, Any]:
        """The stage's row."""
        (row,) = self.experiment.storage.rows("stages", [key]).to_pylist()
        return dict(row)

    def forget(self, key: str) -> None:
        """Remove a stage from the storage."""
        shutil.rmtree(Path(self.experiment.storage.root) / "stages" / key)


@pytest.fixture
def transfers(tiny_config: StudyConfig, tmp_path: Path) -> Transfers:
    graph, storage = plan(tiny_config), Storage(str(tmp_path / "storage"))
    experiment = Experiment(graph, storage, "tiny", tiny_config.resources, tiny_config.data, Cluster())
    guided = [key for key, stage in graph.stages.items() if getattr(stage.spec.params, "n_e", None)]
    needed = {parent for key in guided for parent in graph.path(key)} - set(guided)
    for key in (key for key in graph.stages if key in needed):
        run_task(Task.model_validate_json(experiment.task(key)), Session())
    return Transfers(experiment, guided)


def changed(task: Task, **params: Any) -> StageSpec:
    """The mate's spec with other parameters."""
    spec = task.mates[0].spec
    return spec.model_copy(update={"params": spec.params.model_copy(update=params)})


def test_stages_that_are_trained_as_one_are_published_each(transfers: Transfers) -> None:
    assert len({transfers.experiment.graph.fusible(key) for key in transfers.keys}) == 1
    run_with_mates(transfers.task(), Session())
    fused = [transfers.row(key) for key in transfers.keys]
    for key in transfers.keys:
        transfers.forget(key)
        run_task(Task.model_validate_json(transfers.experiment.task(key)), Session())
    for row, key in zip(fused, transfers.keys, strict=True):
        alone = transfers.row(key)
        assert (row["fused"], alone["fused"]) == (2, 1)
        for name in ("connections", "epochs", "images", "parents", "hyperparameters"):
            assert row[name] == alone[name]
        for name in ("val_loss", "loss_ratio", "gradient_ratio"):
            assert row[name] == pytest.approx(alone[name], rel=1e-3)


def test_a_mate_that_diverges_or_cannot_be_read_is_left_to_its_own_trial(transfers: Transfers) -> None:
    first, second = transfers.keys
    knowledge = KnowledgeConfig(tau=4, lambda_=1e38)
    run_with_mates(transfers.task(spec=changed(transfers.task(), knowledge=knowledge)), Session())
    assert transfers.experiment.storage.has(first) and not transfers.experiment.storage.has(second)
    assert transfers.row(first)["fused"] == 2

    transfers.forget(first)
    run_with_mates(transfers.task(parents=dict.fromkeys(("source", "reference", "knowledge"), "nobody")), Session())
    assert transfers.experiment.storage.has(first) and not transfers.experiment.storage.has(second)


def test_mates_are_published_where_the_trials_own_stage_diverges(transfers: Transfers) -> None:
    task = transfers.task()
    spec = task.spec.model_copy(
        update={"params": task.spec.params.model_copy(update={"knowledge": KnowledgeConfig(tau=4, lambda_=1e38)})}
    )
    with pytest.raises(DivergedError, match="in epoch 1"):
        run_with_mates(task.model_copy(update={"spec": spec}), Session())
    assert [transfers.experiment.storage.has(key) for key in transfers.keys] == [False, True]


def searcher(graph: StageGraph, slots: int, fused: int = 8) -> tuple[StageSearcher, dict[str, list[str]]]:
    """A search algorithm whose transfers are ready, and for each stage handed out those that go with it."""
    with_stage: dict[str, list[str]] = {}

    def task(key: str, *mates: str) -> str:
        with_stage[key] = list(mates)
        return "task"

    transfers = {key for key, stage in graph.stages.items() if stage.spec.kind == "transfer"}
    ready = {parent for key in transfers for parent in graph.path(key)} - transfers
    return StageSearcher(graph, ready, task, fused=fused, slots=slots), with_stage


@pytest.fixture(scope="module")
def digits() -> StageGraph:
    return plan(load_config("digits", ["seeds=1"]))


@pytest.mark.parametrize(("slots", "sizes"), [(1, [6]), (2, [3, 3]), (4, [2, 2, 1, 1])])
def test_free_slots_share_what_can_be_trained_as_one(digits: StageGraph, slots: int, sizes: list[int]) -> None:
    algorithm, with_stage = searcher(digits, slots)
    guided = [key for key, stage in digits.stages.items() if getattr(stage.spec.params, "n_e", None)]
    assert len(guided) == 6 and len({digits.fusible(key) for key in guided}) == 1
    # Without the others, which go by threes.
    algorithm._waiting = [key for key in algorithm.waiting if key in guided]
    for number in range(slots):
        assert isinstance(algorithm.suggest(f"trial {number}"), dict)
    assert sorted((1 + len(mates) for mates in with_stage.values()), reverse=True) == sizes
    assert len({*with_stage, *(mate for mates in with_stage.values() for mate in mates)}) == 6


def test_mates_are_handed_out_after_the_trial_that_trains_them(digits: StageGraph) -> None:
    algorithm, with_stage = searcher(digits, 1)
    config = algorithm.suggest("first")
    assert isinstance(config, dict)
    first, mates = config["stage"], with_stage[config["stage"]]
    assert mates and set(mates) < set(algorithm.waiting)
    other = algorithm.suggest("second")
    assert isinstance(other, dict) and other["stage"] not in mates
    algorithm.on_trial_complete("first", error=True)
    again = algorithm.suggest("third")
    assert isinstance(again, dict) and again["stage"] == first and with_stage[first] == mates
    algorithm.on_trial_complete("third", {PUBLISHED: 1})
    for number in range(len(mates)):
        after = algorithm.suggest(f"mate {number}")
        assert isinstance(after, dict)
        algorithm.on_trial_complete(f"mate {number}", {PUBLISHED: 1})
    assert {first, *mates} <= algorithm.done


def test_without_the_setting_each_stage_is_by_itself(digits: StageGraph) -> None:
    algorithm, with_stage = searcher(digits, 1, fused=1)
    algorithm.suggest("first")
    assert list(with_stage.values()) == [[]]


@pytest.mark.parametrize("other", ["workers=2", "images_a_pass=10"])
def test_what_splits_a_batch_excludes_fused_stages(other: str) -> None:
    with pytest.raises(ConfigError, match=rf"resources.*fused=2 and {other} exclude each other"):
        load_config("digits", ["resources.fused=2", f"resources.{other}"])

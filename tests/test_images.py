"""Views: crops, mirrorings and positions; what is seen in parts, or by cached knowledge, is the same whole and live."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import ten_crop

from tests.runs import artifact, run
from trainables import data, networks
from trainables.artifacts import Artifact
from trainables.data.imageset import in_memory
from trainables.hyperparameters import KnowledgeConfig, KnowledgeParams, ReferenceParams, TrainConfig, TransferParams
from trainables.images import Images
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.training import evaluate

ROOMY = DataConfig(name="roomy", train_per_class=6, val_per_class=6)
"""Noise with a bright bar a class, 30 x 28 pixels: larger than the network's 24 x 24."""


def roomy(config: DataConfig, places: data.Places) -> data.ImageSet:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    images = rng.integers(0, 120, (80, 1, 30, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, 4 + 6 * label : 7 + 6 * label] += 120
    return in_memory("Bars", torch.from_numpy(images), torch.from_numpy(labels), ("a", "b", "c", "d"), "roomy")


@pytest.fixture(autouse=True)
def _data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.DATA_SETS, "roomy", roomy)


def opened(config: DataConfig = ROOMY, content: data.ImageSet | None = None) -> Images:
    content = content or data.load(config, data.Places())
    return Images.open(content, data.split(content, config, 0), config, (24, 24), torch.device("cpu"))


def pixels() -> Tensor:
    content = data.load(ROOMY, data.Places()).pixels()
    assert isinstance(content, data.ArrayPixels)
    return content.array


def test_a_data_set_of_ones_own_is_named_by_its_function() -> None:
    own = data.load(DataConfig(name="tests.test_images:roomy"), data.Places())
    assert (own.title, own.shape) == ("Bars", (1, 30, 28))


def test_the_ten_crops_are_torchvisions() -> None:
    images = opened()
    items = torch.tensor([3, 50])
    views = images.placements("ten")
    seen = torch.stack(list(images.stream((items, view) for view in views)))
    expected = torch.stack(ten_crop(pixels()[items].float() / 255, [24, 24]))
    # Both centre an odd rest; torchvision rounds half to even.
    assert torch.equal(seen[[0, 1, 2, 3, 5, 6, 7, 8]], expected[[0, 1, 2, 3, 6, 5, 8, 7]])
    assert torch.equal(seen[4], expected[4])


def test_each_image_has_its_own_view() -> None:
    for kind in ("ten", "random"):
        images = opened(ROOMY.model_copy(update={"views": kind}))
        views = images.views(seed=1, epoch=2)
        items = torch.arange(80)
        (seen,) = images.stream([(items, views.placement)])
        for item in items.tolist():
            _, top, left, mirrored, _ = views.placement[item].tolist()
            crop = pixels()[item, :, top : top + 24, left : left + 24]
            assert torch.equal(seen[item], (crop.flip(-1) if mirrored else crop).float() / 255)
        assert len(views.placement.unique(dim=0)) >= 10
        again = images.views(seed=1, epoch=2)
        assert torch.equal(views.placement, again.placement)
        assert not torch.equal(views.placement, images.views(seed=1, epoch=3).placement)
        assert not torch.equal(views.placement, images.views(seed=2, epoch=2).placement)


def test_accelerators_crop_alike() -> None:
    images = opened(ROOMY.model_copy(update={"views": "random"}))
    placement = images.views(seed=0, epoch=1).placement
    placement[:, 3] = 0
    assert torch.equal(images._gathered(pixels(), placement), images._cropped(pixels(), placement))


def test_a_mirrored_flow_moves_the_other_way() -> None:
    images = opened(ROOMY.model_copy(update={"modality": "flow"}))
    flow = torch.randint(0, 256, (2, 4, 24, 24), dtype=torch.uint8)
    images = replace(images, pixels=data.ArrayPixels(flow))
    (seen,) = images.stream([(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1, 0]))])
    assert torch.equal(seen[:, [1, 3]], flow[:, [1, 3]].flip(-1).float() / 255)
    assert torch.equal(seen[:, [0, 2]], (255 - flow[:, [0, 2]].flip(-1)).float() / 255)


def test_channels_are_normalised_each_for_itself() -> None:
    images = opened(ROOMY.model_copy(update={"mean": (0.25,), "std": (0.5,)}))
    plain, normalised = (next(iter(x.centred(torch.arange(3)))) for x in (opened(), images))
    assert torch.equal(normalised, (plain - 0.25) / 0.5)


def test_positions_are_rows_of_the_pixels() -> None:
    content = data.load(ROOMY, data.Places())
    videos = replace(content, labels=content.labels[::4], positions=4)
    images = opened(DataConfig(name="roomy", train_per_class=1, val_per_class=1), videos)
    (seen,) = images.stream([(torch.tensor([2]), torch.tensor([3, 0, 0, 0, 0]))])
    assert torch.equal(seen[0], pixels()[2 * 4 + 3, :, :24, :24].float() / 255)
    drawn = images.views(seed=0, epoch=1)
    assert set(drawn.placement[:, 0].tolist()) == {0, 1, 2, 3}
    assert len(images.placements("ten")) == 40


@pytest.mark.parametrize("positions", [1, 4])
def test_scores_are_the_mean_over_positions_and_crops(positions: int) -> None:
    config = ROOMY.model_copy(update={"evaluation": "ten", "train_per_class": 1, "val_per_class": 1})
    content = data.load(ROOMY, data.Places())
    images = opened(config, replace(content, labels=content.labels[::positions], positions=positions))
    net = networks.build("small_alexnet", 4)
    net.initialise(net.names, 0)
    items = images.test
    logits = torch.stack([net(seen) for seen in images.stream((items, view) for view in images.placements("ten"))])
    scores = torch.softmax(logits.double(), dim=2).mean(0)
    labels = images.labels[items]
    found = evaluate(net, images, items, Session(), "ten")
    assert found.accuracy == pytest.approx(100 * (scores.argmax(1) == labels).double().mean().item())
    expected = -scores[torch.arange(len(items)), labels].log().mean().item()
    assert found.loss == pytest.approx(expected, rel=1e-5)


def roomy_run(kind: str, params: Any, session: Session | None = None, **more: Any) -> Any:
    return run(kind, params, session, **{"images": ROOMY, **more})


def nets(views: str) -> dict[str, Artifact]:
    images = ROOMY.model_copy(update={"views": views})
    train = TrainConfig(epochs=2, learning_rate=0.01, batch_size=10)
    reference = artifact(roomy_run("reference", ReferenceParams(train=train)))
    knowledge = artifact(roomy_run("knowledge", KnowledgeParams(), images=images, seed=None, reference=reference))
    return {"source": reference, "reference": reference, "knowledge": knowledge}


@pytest.mark.parametrize("source", ["reference", "shuffled"])
def test_cached_knowledge_of_ten_crops_is_the_live_one(source: Any) -> None:
    images = ROOMY.model_copy(update={"views": "ten"})
    train = TrainConfig(epochs=2, learning_rate=0.01, batch_size=10)
    roles = nets("ten")
    assert roles["knowledge"].tensors["logits"].shape == (80, 10, 4)
    results = []
    for live in (False, True):
        knowledge = KnowledgeConfig(source=source, tau=2, lambda_=1, live=live)
        params = TransferParams(n_m=2, n_e=2, knowledge=knowledge, train=train)
        results.append(roomy_run("transfer", params, images=images, roles=roles))
    cached, live_ = results
    for name, tensor in cached.tensors.items():
        torch.testing.assert_close(live_.tensors[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_free_crops_train_with_live_knowledge() -> None:
    images = ROOMY.model_copy(update={"views": "random"})
    knowledge = KnowledgeConfig(tau=2, lambda_=1, live=True)
    train = TrainConfig(epochs=2, learning_rate=0.01, batch_size=10)
    params = TransferParams(n_m=2, n_e=2, knowledge=knowledge, train=train)
    result = roomy_run("transfer", params, images=images, roles=nets("centre"))
    assert result.epochs[-1]["loss_extra"] > 0
    assert result.knowledge


@pytest.mark.parametrize("images_a_pass", [1, 7, 64])
def test_a_batch_in_parts_is_the_batch(images_a_pass: int) -> None:
    """Dropout included: its noise is drawn for the whole batch."""
    knowledge = KnowledgeConfig(tau=2, lambda_=1)
    train = TrainConfig(epochs=3, learning_rate=0.01, batch_size=20, dropout=0.5)
    params = TransferParams(n_m=2, n_e=2, knowledge=knowledge, train=train)
    roles = nets("centre")
    whole = roomy_run("transfer", params, roles=roles)
    parts = roomy_run("transfer", params, Session(images_a_pass=images_a_pass), roles=roles)
    for row, other in zip(whole.epochs, parts.epochs, strict=True):
        assert other == pytest.approx(row, rel=1e-3)


def test_bfloat16_trains_nearly_the_same() -> None:
    def train(precision: Any) -> Any:
        config = TrainConfig(epochs=3, learning_rate=0.01, batch_size=20, dropout=0, precision=precision)
        return roomy_run("reference", ReferenceParams(train=config))

    exact, mixed = train("float32"), train("bfloat16")
    assert mixed.epochs[-1]["loss"] == pytest.approx(exact.epochs[-1]["loss"], rel=0.05)
    assert mixed.epochs != exact.epochs
    assert all(tensor.dtype != torch.bfloat16 for tensor in mixed.tensors.values())


def test_confusion_counts_each_test_image_once() -> None:
    params = TransferParams(n_m=2, train=TrainConfig(epochs=1, learning_rate=0.01))
    result = roomy_run("transfer", params, roles=nets("centre"))
    assert sum(row["images"] for row in result.confusion) == len(opened().test)
    right = sum(row["images"] for row in result.confusion if row["target_class"] == row["predicted_class"])
    assert 100 * right / len(opened().test) == pytest.approx(result.metrics["test_accuracy"])


@pytest.mark.parametrize("seed", [0, 1])
def test_validation_images_can_be_trained_on_in_the_end(seed: int) -> None:
    content = data.load(ROOMY, data.Places())
    apart, whole = (
        data.split(content, ROOMY.model_copy(update={"retrain_on_validation": retrain}), seed)
        for retrain in (False, True)
    )
    assert whole.train.tolist() == sorted([*apart.train.tolist(), *apart.val.tolist()])
    assert whole.val.equal(apart.val) and whole.test.equal(apart.test)
    assert not set(whole.train.tolist()) & set(whole.test.tolist())

"""Fused trainings: each net comes out as if it had been trained alone, whatever becomes of the others."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.runs import DATA
from trainables import data, networks, pruning
from trainables.fused import FusedTraining, fuse
from trainables.hybrid import HybridTransferNet, extra_branch
from trainables.hyperparameters import KnowledgeConfig, TrainConfig
from trainables.images import Images
from trainables.networks import Dropout, LayeredNet, WeightedLayer
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.training import Knowledge, Training

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

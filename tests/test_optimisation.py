"""The optimizer, the learning rate and what decays, next to torch's own schedulers and closed forms."""

from math import cos, pi
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from tests.own import Residual, residual
from trainables import networks
from trainables.hybrid import main_loss
from trainables.hyperparameters import TrainConfig
from trainables.optimisation import descend, learning_rate, optimizer_of

RESIDUAL = "tests.own:residual"


def config(**options: Any) -> TrainConfig:
    return TrainConfig(**{"epochs": 10, "learning_rate": 0.4, **options})


def test_the_learning_rate_of_each_schedule() -> None:
    cosine, constant = config(), config(decay="constant")
    step, warm = config(decay="step", step_size=3, gamma=0.5), config(warmup_epochs=2)
    assert [learning_rate(constant, epoch) for epoch in (0, 5, 10)] == [0.4, 0.4, 0.4]
    assert [learning_rate(step, epoch) for epoch in (0, 2.9, 3, 6, 9.5)] == [0.4, 0.4, 0.2, 0.1, 0.05]
    assert [learning_rate(warm, epoch) for epoch in (0, 0.5, 1, 2)] == pytest.approx([0, 0.1, 0.2, 0.4])
    assert learning_rate(warm, 6) == pytest.approx(0.2) and learning_rate(warm, 10) == pytest.approx(0)
    for epoch in (0, 1, 2.5, 9):
        assert learning_rate(cosine, epoch) == pytest.approx(0.2 * (1 + cos(pi * epoch / 10)))


def test_schedules_are_those_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    ours = [config(), config(decay="step", step_size=4)]
    for own, make in zip(
        ours,
        (
            lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
            lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 4),
        ),
        strict=True,
    ):
        optimizer = torch.optim.SGD([parameter], lr=0.4)
        scheduler = make(optimizer)
        for epoch in range(10):
            assert learning_rate(own, epoch) == pytest.approx(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()


def test_biases_and_normalisation_do_not_decay_where_they_shall_not() -> None:
    net = networks.fresh(RESIDUAL, 5, seed=0)
    optimizer = optimizer_of([net], config(decay_all=False, weight_decay=0.5))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(net.parameters()))
    for parameter in net.parameters():
        assert decays[id(parameter)] == (0.5 if parameter.ndim > 1 else 0.0)


def test_each_layer_learns_at_its_share_of_the_rate() -> None:
    net, top = networks.fresh(RESIDUAL, 5, seed=0), networks.fresh(RESIDUAL, 7, seed=0, top=2)
    own = config(layer_decay=0.5, weight_decay=0.0, momentum=0.0)
    optimizer = optimizer_of([net, top], own)
    for parameter in [*net.parameters(), *top.parameters()]:
        parameter.data.zero_()
        parameter.grad = torch.ones_like(parameter)
    descend(optimizer, 0.4, [])
    for branch in (net, top):
        for below, name in enumerate(reversed(branch.names)):
            for parameter in branch.layer(name).parameters():
                assert torch.equal(parameter, torch.full_like(parameter, -0.4 * 0.5**below))


@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"optimizer": "adamw"}, {"decay_all": False}])
def test_a_step_is_torchs_own(options: dict[str, Any]) -> None:
    own = config(weight_decay=0.1, **options)
    ours, theirs = networks.fresh(RESIDUAL, 5, seed=0), residual(5)
    assert isinstance(theirs, Residual)
    theirs.load_state_dict({key: home.tensor for key, home in ours.tensors().items()})
    vectors = [p for p in theirs.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": [p for p in theirs.parameters() if p.ndim > 1]}]
    groups.append({"params": vectors, "weight_decay": 0.1 if own.decay_all else 0.0})
    make = torch.optim.AdamW if own.optimizer == "adamw" else torch.optim.SGD
    more: dict[str, Any] = {} if make is torch.optim.AdamW else {"momentum": 0.9, "nesterov": own.nesterov}
    expected, optimizer = make(groups, lr=0.4, weight_decay=0.1, **more), optimizer_of([ours], own)
    x = torch.rand(6, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        ours.eval()(x).square().sum().backward()
        theirs.eval()(x).square().sum().backward()
        descend(optimizer, 0.01, [])
        for group in expected.param_groups:
            group["lr"] = 0.01
        expected.step()
        optimizer.zero_grad()
        expected.zero_grad()
    state = theirs.state_dict()
    assert all(torch.equal(home.tensor, state[key]) for key, home in ours.tensors().items())


def test_smoothed_labels() -> None:
    scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6) % 4
    target = 0.8 * functional.one_hot(labels, 4) + 0.2 / 4
    expected = -(target * scores.log_softmax(1)).sum(1)
    torch.testing.assert_close(main_loss(scores, labels, 0.2), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"decay": "step"}, "decay=step needs step_size"),
        ({"warmup_epochs": 10}, "warmup_epochs is 10, and there are 10 epochs"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs optimizer=sgd with momentum"),
        ({"nesterov": True, "optimizer": "adamw"}, "nesterov needs optimizer=sgd with momentum"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**options)

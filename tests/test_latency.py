"""Measured latency: ratios alone, as nobody knows what else this machine does."""

import pytest
import torch
from torch import nn

from trainables import latency, networks, pruning
from trainables.hyperparameters import NeuronPruneParams, TrainConfig
from trainables.latency import after_each_step, measure
from trainables.networks import LayeredNet, WeightedLayer


def chain(width: int) -> LayeredNet:
    ops = [nn.Linear(width, width) for _ in range(4)]
    layers = [(f"fc{place}", WeightedLayer(op)) for place, op in enumerate(ops)]
    return LayeredNet(layers, input_shape=(1, 1, width))


def losing(neurons: int) -> NeuronPruneParams:
    retrain = TrainConfig(epochs=1, learning_rate=0.1)
    return NeuronPruneParams(neurons_per_step=neurons, images_per_class=1, retrain=retrain)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST_ROUNDS", 20)


def test_a_net_with_a_hundred_times_the_work_takes_longer() -> None:
    # Of one input, the work of the wider layers being behind it.
    narrow, wide = chain(64), chain(64)
    wide.layers["fc1"], wide.layers["fc2"] = WeightedLayer(nn.Linear(64, 16384)), WeightedLayer(nn.Linear(16384, 64))
    first, second = measure([narrow, wide])
    assert first.percent == 100
    assert second.percent > 150 and second.milliseconds > first.milliseconds > 0
    assert measure([wide, narrow])[1].percent < 67


def test_zeros_save_no_time_but_removed_neurons_do() -> None:
    whole, masked = (networks.build("small_alexnet", 10) for _ in range(2))
    for net in (whole, masked):
        net.initialise(net.names, 0)
    kept = {name: weight.numel() // 20 for name, weight in masked.weights().items()}
    pruning.apply(masked, pruning.shrink(masked, {}, kept, "magnitude", 0))
    few = after_each_step("small_alexnet", 10, losing(250), 2)[-1]
    _, with_zeros, with_few_neurons = measure([whole, masked, few])
    assert with_few_neurons.percent < with_zeros.percent


def test_measuring_leaves_threads_and_nets_as_they_were() -> None:
    net = chain(8)
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    torch.set_num_threads(2)
    measure([net], batch=3, threads=1)
    assert torch.get_num_threads() == 2
    assert all(torch.equal(before[name], parameter) for name, parameter in net.named_parameters())


def test_a_long_measurement_ends_after_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0)
    passes = []
    net = chain(8)
    net.register_forward_hook(lambda *_: passes.append(torch.is_inference_mode_enabled() and not net.training))
    measure([net.train()])
    assert passes == [True] * latency.LEAST_ROUNDS * (latency.WARM_UP + latency.RUNS)


def test_shapes_after_each_step() -> None:
    nets = after_each_step("small_alexnet", 7, losing(60), 3)
    widths = [[int(net.op(name).weight.shape[0]) for name in ("fc6", "fc7", "fc8")] for net in nets]
    assert widths == [[256, 256, 7], [196, 256, 7], [196, 196, 7], [136, 196, 7]]
    assert all(net(torch.zeros(2, *net.input_shape)).shape == (2, 7) for net in nets)

"""Physical removal of neurons: the smaller net computes what the larger one did with those neurons at zero."""

import pytest
import torch

from trainables import networks, neurons, pruning
from trainables.artifacts import Artifact, pack, unpack_extra, unpack_main
from trainables.hybrid import HybridTransferNet, extra_branch

IMAGES = torch.rand(5, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def hybrid(n_e: int = 2) -> tuple[HybridTransferNet, pruning.Masks]:
    main, reference = networks.build("small_alexnet", 10), networks.build("small_alexnet", 10)
    main.initialise(main.names, 0)
    reference.initialise(reference.names, 1)
    masks = pruning.shrink(main, {}, {"fc6": 3000, "fc7": 2000, "fc8": 600}, "magnitude", 0)
    pruning.apply(main, masks)
    return HybridTransferNet(main, extra_branch(reference, n_e)).eval(), masks


@pytest.mark.parametrize("layer", ["fc6", "fc7"])
@pytest.mark.parametrize("n_e", [1, 2, 3])
def test_removal_equals_silencing(layer: str, n_e: int) -> None:
    small, masks = hybrid(n_e)
    gone = torch.tensor([0, 7, 8, 100, 255])
    silenced, _ = hybrid(n_e)
    with torch.no_grad():
        silenced.main.op(layer).weight[gone] = 0
        silenced.main.op(layer).bias[gone] = 0  # type: ignore[index]
    smaller = neurons.remove(small, masks, layer, gone)
    ours, oracle = small(IMAGES), silenced(IMAGES)
    torch.testing.assert_close(ours.main, oracle.main, atol=1e-5, rtol=1e-4)
    assert ours.extra is not None and oracle.extra is not None
    torch.testing.assert_close(ours.extra, oracle.extra, atol=1e-5, rtol=1e-4)
    for name, mask in smaller.items():
        assert mask.shape == small.main.op(name).weight.shape
        assert ((small.main.op(name).weight != 0) <= mask).all()
    assert small.main.op(layer).weight.shape[0] == 251


def test_activations_are_means_over_images_after_relu() -> None:
    net, _ = hybrid()
    batches = [IMAGES[:2], IMAGES[2:]]
    expected = net.main.run(IMAGES, 0, 6).double().mean(0)
    activations = neurons.mean_activations(net.main, "fc6", batches)
    torch.testing.assert_close(activations, expected)
    assert (activations >= 0).all()


def test_the_least_activated_go_and_ties_go_to_the_lower_index() -> None:
    assert neurons.least_activated(torch.tensor([3.0, 1.0, 0.0, 1.0, 2.0]), 2).tolist() == [2, 1]


@pytest.mark.parametrize("widths", [(4096, 4096), (256, 200), (200, 256), (64,), (256, 256, 40)])
def test_layers_take_turns_until_the_next_has_too_few(widths: tuple[int, ...]) -> None:
    named = {f"fc{place}": width for place, width in enumerate(widths)}
    order = neurons.turns(named, 32)
    names = list(named)
    assert order == [names[step % len(names)] for step in range(len(order))]
    left = {name: width - 32 * order.count(name) for name, width in named.items()}
    assert min(left.values()) > 0
    assert left[names[len(order) % len(names)]] <= 32


def test_only_hidden_inner_products_lose_neurons() -> None:
    net, masks = hybrid()
    for layer in ("fc8", "conv5"):
        with pytest.raises(ValueError, match="fc6, fc7"):
            neurons.remove(net, masks, layer, torch.tensor([0]))
    with pytest.raises(ValueError, match="all 256"):
        neurons.remove(net, masks, "fc6", torch.arange(256))


def test_a_net_with_removed_neurons_is_stored_and_loaded() -> None:
    net, masks = hybrid()
    masks = neurons.remove(net, masks, "fc6", torch.arange(64))
    artifact = Artifact(pack(net, masks))
    main, loaded = unpack_main("small_alexnet", artifact)
    extra = unpack_extra("small_alexnet", artifact)
    again = HybridTransferNet(main, extra).eval()
    ours, oracle = again(IMAGES), net(IMAGES)
    assert torch.equal(ours.main, oracle.main)
    assert ours.extra is not None and oracle.extra is not None and torch.equal(ours.extra, oracle.extra)
    assert all(torch.equal(loaded[name], mask) for name, mask in masks.items())

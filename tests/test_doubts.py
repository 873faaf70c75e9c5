"""A pretrained reference that cannot be what it is meant to be is said loudly, with what would put it right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from analysis.findings import findings
from study import data as study_data
from study import run_study
from study.config import load_config
from tests.trees import COLOUR_SIDE as SIZE
from tests.trees import MEAN, STD, make_colours
from trainables import networks
from trainables.data import DataError, Places
from trainables.doubts import doubts
from trainables.hyperparameters import WeightsConfig
from trainables.settings import DataConfig

CLASSES = 12


def net_of(folder: Path, order: list[str], path: Path, prepare: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A net trained for the folder's images, whose outputs are the classes in the given order."""
    images, labels = [], []
    for label, name in enumerate(order):
        for file in sorted((folder / name).iterdir()):
            images.append(np.asarray(Image.open(file)).transpose(2, 0, 1))
            labels.append(label)
    x, y = prepare(torch.from_numpy(np.stack(images)).float()), torch.tensor(labels)
    net = networks.fresh("tests.own:rgb", len(order), 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    assert (net(x).argmax(1) == y).float().mean() > 0.9
    torch.save(net.state_dict(), path)
    return path


def usual(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def caffes(pixels: torch.Tensor) -> torch.Tensor:
    """Blue, green, red; 0..255 less a mean."""
    return (pixels - 255 * torch.tensor(MEAN)[:, None, None]).flip(1)


TEXT = sorted(map(str, range(CLASSES)))
NUMBERS = [*map(str, range(CLASSES))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("doubts")
    make_colours(root / "images", NUMBERS)
    net_of(root / "images", TEXT, root / "right.pth", usual)
    net_of(root / "images", NUMBERS, root / "numbers.pth", usual)
    net_of(root / "images", [*reversed(TEXT)], root / "reversed.pth", usual)
    net_of(root / "images", TEXT, root / "caffe.pth", caffes)
    torch.save(networks.fresh("tests.own:rgb", CLASSES, 3).state_dict(), root / "untrained.pth")
    make_colours(root / "named", [f"colour {chr(97 + n)}" for n in range(CLASSES)])
    return root


def source(root: Path, folder: str = "images", **more: Any) -> DataConfig:
    fields = {"name": "folder", "path": str(root / folder), "size": SIZE, "val_per_class": 4, "mean": MEAN, "std": STD}
    return DataConfig.model_validate(fields | more)


def said(root: Path, file: str, images: DataConfig | None = None, **weights: Any) -> list[str]:
    given = WeightsConfig(file=str(root / file), **weights)
    own = images or source(root)
    return doubts("tests.own:rgb", given, own, own, Places(cache=str(root / "cache")))


def test_a_net_that_sees_rightly_raises_none(made: Path) -> None:
    assert said(made, "right.pth") == []


def test_classes_sorted_as_text_instead_of_numbers(made: Path) -> None:
    chance, order = said(made, "numbers.pth")
    assert "gets 17 % of 48 images of the source right, where guessing gets 8 %" in chance
    assert "With its classes in the order of their numbers, 100 % would be right instead of 17 %" in order
    assert "set source.weights.classes to [0, 1, 2, 3, ...]" in order
    assert said(made, "numbers.pth", classes=NUMBERS) == []


def test_classes_in_any_other_order(made: Path) -> None:
    whole = source(made, test_share=0.8, val_per_class=2)  # enough images of each class to tell
    lines = said(made, "reversed.pth", whole)
    assert "With its classes in another order, 100 % would be right instead of" in lines[-1]
    assert said(made, "reversed.pth", classes=[*reversed(TEXT)]) == []


def test_blue_for_red_and_another_range_of_pixels(made: Path) -> None:
    (*_, way) = said(made, "caffe.pth")
    assert "set source.weights.bgr to true and mean to [0.485, 0.456, 0.406] and std to [0.0039, 0.0039, 0.0039]" in way
    assert said(made, "caffe.pth", source(made, std=1 / 255), bgr=True) == []


def test_a_net_that_nothing_puts_right_is_near_chance(made: Path) -> None:
    (line,) = said(made, "untrained.pth")
    assert "where guessing gets 8 %: look at" in line


def test_it_is_remembered_by_all_that_decides_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = said(made, "numbers.pth")

    def forbidden(*_: object) -> nn.Module:
        raise AssertionError("looked at again")

    monkeypatch.setattr("trainables.doubts._Look.at", forbidden)
    assert said(made, "numbers.pth") == first
    with pytest.raises(AssertionError, match="looked at again"):
        said(made, "numbers.pth", bgr=True)


def test_without_source_images_its_outputs_on_the_target_tell(made: Path) -> None:
    nothing = DataConfig(name="none")
    places = Places(cache=str(made / "cache"))

    def outputs(file: str, target: DataConfig) -> list[str]:
        return doubts("tests.own:rgb", WeightsConfig(file=str(made / file)), nothing, target, places)

    assert outputs("right.pth", source(made, "named")) == []
    (line,) = outputs("caffe.pth", source(made, "named"))
    assert "its outputs hardly depend on which one it sees (0.06 nats" in line
    net = networks.fresh("tests.own:rgb", CLASSES, 0)
    for parameter in net.parameters():
        parameter.data.mul_(0.01)
    torch.save(net.state_dict(), made / "flat.pth")
    (line,) = outputs("flat.pth", source(made, "named"))
    assert "its outputs hardly depend on which one it sees (0.00 nats" in line


def test_images_that_are_too_small_are_refused(made: Path) -> None:
    with pytest.raises(DataError, match=r"images are \(3, 16, 16\), and the network takes \(3, 24, 24\)"):
        said(made, "right.pth", source(made, size=16))


PRESET = """
title: doubts
network: tests.own:rgb
seeds: 1
ablations: [transfer]
source:
  data: {{name: folder, path: {root}/images, size: 24, val_per_class: 4, mean: {mean}, std: {std}}}
  weights: {{file: {root}/numbers.pth}}
  train: null
  prune: {{keep: 0.5, steps: 1, retrain: null}}
target:
  data: {{name: folder, path: {root}/named, size: 24, val_per_class: 4, mean: {mean}, std: {std}}}
transfer: {{tau: 2, lambda: 1, n_m: 1, n_e: 1, train: {{epochs: 1, learning_rate: 0.001}}}}
target_prune: {{keep: [0.2], named: [0.2], retrain: {{epochs: 1, learning_rate: 0.001}}}}
neuron_prune: null
data: {{cache: {root}/cache}}
"""


def test_console_report_and_check_say_it(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "doubts.yaml"
    preset.write_text(PRESET.format(root=made, mean=list(MEAN), std=list(STD)))
    line = "DOUBTFUL REFERENCE: The pretrained reference gets 17 % of 48 images of the source right"
    assert study_data.main(["check", str(preset)]) == 1
    assert line in capsys.readouterr().out
    outcome = run_study(load_config(str(preset), []), "doubts", storage=tmp_path / "results", slots=0)
    assert line in capsys.readouterr().out
    assert findings(outcome.results)[0].startswith(line)
    assert f'<li class="warning">{line}' in Path(outcome.report).read_text(encoding="utf-8")
    right = [f"source.weights.classes={NUMBERS}"]
    assert study_data.main(["check", str(preset), "--set", *right]) == 0
    assert "DOUBTFUL" not in capsys.readouterr().out

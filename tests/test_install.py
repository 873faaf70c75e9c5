"""What a cluster's nodes install is what the presets need: with nothing else to import, each preset reads its data."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from study.config import list_presets
from tests.clips import make_hmdb51, make_ucf101
from tests.commands import SECONDS
from tests.trees import make_flower102, make_folder, make_imagenet, make_indoor67
from tests.zoo import write_alexnet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = "sparse-transfer-study"
INSTALLS = {
    "cluster.yaml": r"-e '/home/ubuntu/study\[(.+?)\]'",
    "Dockerfile": r"-e 'study\[(.+?)\]'",
    "README.md": r"-e '\.\[(nodes)\]'",
}
"""Where the packages of a cluster's nodes are installed, and what finds their extras there."""

CHILD = """
import sys
from importlib import metadata

allowed = set(sys.argv[1].split(","))
owners = metadata.packages_distributions()

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        dists = owners.get(name.partition(".")[0], [])
        if dists and not allowed & {dist.lower().replace("_", "-") for dist in dists}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Finder, sys.meta_path)

import torch
from study.config import data_configs, load_config
from trainables import data

config = load_config(sys.argv[2], sys.argv[3:])
for images in data_configs(config).values():
    pixels = data.load(images, config.data).pixels()
    assert pixels.fetch(torch.tensor([0])).numel()
"""
"""Checks a preset as a study does, its weights too, and reads a first image of all that it trains on."""


def closure(extras: Iterable[str]) -> set[str]:
    """All distributions that this project needs with some extras, itself too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, pending = {PROJECT}, [*project["dependencies"]]
    pending += [text for extra in extras for text in project["optional-dependencies"][extra]]
    seen = set()
    while pending:
        text = pending.pop()
        if text in seen:
            continue
        seen.add(text)
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name == PROJECT:
            pending += [own for extra in requirement.extras for own in project["optional-dependencies"][extra]]
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            # Dashboards need not be there to test this.
            continue
        found.add(name)
        for need in map(Requirement, needs):
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                pending.append(str(need).partition(";")[0])
    return found


def extras_of(file: str) -> list[str]:
    (found,) = re.findall(INSTALLS[file], (ROOT / file).read_text())
    return str(found).split(",")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with all data sets in miniature, and the weights' file."""
    folder = tmp_path_factory.mktemp("data")
    make_imagenet(folder / "imagenet", train=12)
    make_indoor67(folder / "indoor67", train=12)
    make_flower102(folder / "flower102")
    make_folder(folder / "mine", per_class=10)
    make_ucf101(folder / "ucf101", classes=2, groups=(1, 8, 9), clips=1)
    make_hmdb51(folder / "hmdb51", classes=2, train=2, test=1)
    write_alexnet(folder / "bvlcalexnet-12.onnx", classes=3)
    return folder


def read(preset: str, extras: Iterable[str], root: Path) -> "subprocess.CompletedProcess[str]":
    """Read all that a preset trains on, in a process that can import nothing but what the extras install."""
    own = [f"data.root={root}", f"data.cache={root / 'cache'}"]
    if preset == "folder":
        own += [f"{domain}.data.path={root / 'mine'}" for domain in ("source", "target")]
    if preset == "hmdb51":
        # Few videos; and no weights, which torchvision would download.
        own += [
            "source.weights=null",
            "streams.temporal={network: vgg16_flow, source.data.modality: flow, "
            "target.data.modality: flow, source.data.mean: 0.5, source.data.std: 0.25, target.data.mean: 0.5, "
            "target.data.std: 0.25}",
        ]
        own += [f"{domain}.data.{few}=1" for domain in ("source", "target") for few in ("val_per_class", "positions")]
        own += [f"{domain}.data.flow=dis" for domain in ("source", "target")]  # of the same package, and fast
    allowed = ",".join(sorted(closure(extras)))
    return subprocess.run(
        [sys.executable, "-c", CHILD, allowed, preset, *own],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def test_all_nodes_install_the_same() -> None:
    assert {file: extras_of(file) for file in INSTALLS} == {file: ["nodes"] for file in INSTALLS}


@pytest.mark.parametrize("preset", [name for name in list_presets() if name != "solar"])
def test_the_nodes_can_read_what_the_preset_trains_on(preset: str, root: Path) -> None:
    done = read(preset, ["nodes"], root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("preset", "extras", "lacking"),
    [("indoor67", ["video"], "onnx"), ("hmdb51", ["onnx"], "OpenCV"), ("solar", ["onnx"], "elpv-dataset")],
)
def test_without_an_extra_the_preset_says_what_is_lacking(
    preset: str, extras: list[str], lacking: str, root: Path
) -> None:
    done = read(preset, ["dashboard", "cluster", *extras], root)
    assert done.returncode != 0 and lacking in done.stderr

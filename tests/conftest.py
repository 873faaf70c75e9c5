"""Small studies that train for real in a second or two."""

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import settings

from study.config import StudyConfig, load_config
from tests.commands import ADDRESS, study

# A busy machine may take any time for an example.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

TRAIN = {"epochs": 2, "learning_rate": 0.01, "batch_size": 20}

# Few images to validate and to test with, as most of a small study's time would go there.
SMALL: dict[str, Any] = {"name": "digits8", "test_share": 0.15, "val_per_class": 8}
TINY = {
    "title": "A study for tests",
    "network": "small_alexnet",
    "seeds": 1,
    "ablations": ["paper"],
    "published": "Flower102",
    "source": {
        "data": {**SMALL, "train_per_class": 10},
        "train": TRAIN,
        "prune": {"keep": 0.4, "steps": 2, "retrain": TRAIN},
    },
    "target": {"data": {**SMALL, "train_per_class": 4}},
    "transfer": {"train": TRAIN},
    "target_prune": {"keep": [0.3, 0.2], "named": [0.3, 0.2], "scope": "global", "retrain": TRAIN},
    "neuron_prune": {"neurons_per_step": 100, "images_per_class": 4, "tolerance": 20, "retrain": TRAIN},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_preset(tmp_path: Path) -> Path:
    """A preset file whose whole study takes seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests that share a run."""
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def trained(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with this study, undisturbed. It is to be read only: a test that writes there takes a copy."""
    storage = tmp_path_factory.mktemp("trained")
    study(preset, storage)
    return storage


@pytest.fixture
def tiny_config(tiny_preset: Path) -> StudyConfig:
    return load_config(str(tiny_preset))


def pytest_configure(config: pytest.Config) -> None:
    # Ray's workers give way to every other process by default: next to other tests, they would wait for minutes.
    os.environ.update({"RAY_worker_niceness": "0"})
    # A job that a shell started in the background ignores Ctrl-C, and so would all processes that the tests start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests that are too long for every day, too")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.passed and ADDRESS in (printed := report.capstdout + report.capstderr):
        report.outcome, report.longrepr = "failed", f"an object's address was printed:\n{printed}"
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Files with long tests first, or one process would still be at them when the other has nothing left to do.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: --full"))

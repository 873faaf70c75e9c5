"""The small study of the schedules: every kind of stage that the paper has, in some seconds of a processor."""

from typing import Any

from torch import nn

from tests.conftest import SMALL
from tests.kills import CountedEpochs
from trainables.networks import Dropout, LayeredNet, WeightedLayer

TRAIN = {"epochs": 3, "learning_rate": 0.01, "batch_size": 20}
SHORT = {**TRAIN, "epochs": 1}
STUDY: dict[str, Any] = {
    "title": "A study that is disturbed",
    "network": "tests.faults.small:net",
    "seeds": 1,
    "ablations": ["paper"],
    "source": {
        "data": {**SMALL, "train_per_class": 4},
        "train": TRAIN,
        "prune": {"keep": 0.4, "steps": 2, "retrain": SHORT},
    },
    "target": {"data": {**SMALL, "train_per_class": 4}},
    "transfer": {"n_m": 1, "n_e": 2, "train": TRAIN},
    "target_prune": {"keep": [0.3], "named": [0.3], "scope": "global", "retrain": SHORT},
    "neuron_prune": {"neurons_per_step": 16, "images_per_class": 4, "tolerance": 20, "retrain": SHORT},
    "resources": {"checkpoint_seconds": 0},
}


def net(classes: int) -> LayeredNet:
    """Five layers for 24 x 24 images; the first counts the epochs that are begun."""
    small = LayeredNet(
        [
            ("conv1", WeightedLayer(nn.Conv2d(1, 8, 5, stride=2), after=[nn.ReLU(), nn.MaxPool2d(2)])),
            ("conv2", WeightedLayer(nn.Conv2d(8, 8, 3), after=[nn.ReLU()])),
            ("fc3", WeightedLayer(nn.Linear(72, 32), before=[nn.Flatten()], after=[nn.ReLU(), Dropout()])),
            ("fc4", WeightedLayer(nn.Linear(32, 32), after=[nn.ReLU(), Dropout()])),
            ("fc5", WeightedLayer(nn.Linear(32, classes))),
        ],
        input_shape=(1, 24, 24),
    )
    small.weighted("conv1").before.append(CountedEpochs())
    return small

"""Doubts about a pretrained reference, raised before anything rests on it: whether it sees images as it was trained to.

A net whose classes are in another order, that takes blue for red, or pixels of another range, trains no worse than any
other; only its knowledge and its pruning are worth nothing. So some images of the source are shown to it, as configured
and in other usual ways. Where the source has no images, its outputs on the target's have to do.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainables import data, networks, pretrained, weights
from trainables.data.files import FilePixels
from trainables.data.imageset import ImageSet, in_memory
from trainables.data.places import keep
from trainables.devices import float32_products
from trainables.hyperparameters import WeightsConfig
from trainables.images import Images
from trainables.layers import LayeredNet
from trainables.settings import DataConfig
from trainables.weight_files import TORCHVISION, fingerprint

VERSION = 2
"""Part of what is remembered: to be raised when other doubts are raised."""
LOOKED_AT = 256
"""Images that the net is shown."""
SKILL = 0.25
"""Near chance: less than this part of the way from guessing to always right."""
SURE = 0.8
"""With so much skill, no other way of seeing is tried."""
SIGMAS = 3.0
"""Standard errors by which another way has to be better, on the same images."""
LEAST_NATS = 0.25
"""Information about which image it sees that a net's outputs carry at least: 0.99 nats of a net trained on ImageNet, on
photographs of solar cells only, and 0.22 where the range of their pixels is wrong."""
ENOUGH = 4
"""Images a class from which another order of classes can be told."""

Channels = tuple[float, ...]


def doubts(
    network: str, given: WeightsConfig, source: DataConfig, target: DataConfig, places: data.Places
) -> list[str]:
    """Return a sentence for each doubt about a pretrained net as the reference; none if it is plausible.

    Remembered in the cache, by all that decides them. Videos are looked at once they are decoded.

    Args:
        network: the network.
        given: its weights, their file located.
        source: the data that the net was trained for, or the data set ``none``.
        target: what its outputs are looked at on where the source has no images.
        places: of data and cache.

    Raises:
        DataError: images cannot be read.
        WeightsError: the weights cannot be read, or do not fit.
    """
    content = data.load(source, places)
    shown, config = (content, source) if not content.is_empty else (data.load(target, places), target)
    if shown.decoding is not None and shown.decoding.processes and not shown.decoding.is_done():
        return []  # of videos, all positions would be decoded, which can take hours
    decides = [VERSION, networks.digest(network), fingerprint(given.file), given.model_dump(exclude={"file"})]
    decides += [shown.fingerprint, config.without_paths(), content.is_empty]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
    memory = Path(places.cache).expanduser() / f"reference-{digest}.json"
    with suppress(OSError, ValueError):
        remembered: list[str] = json.loads(memory.read_bytes())
        return remembered
    classes = content.class_names or pretrained.class_names(given, network)
    net = networks.fresh(network, len(classes), 0)
    weights.load_into(net, given, classes)
    look = _Look.at(net.eval(), shown, config)
    with torch.no_grad(), float32_products(tf32=False):
        found = [*(_on_target(look, classes) if content.is_empty else _on_source(look, given, classes))]
    keep(memory, lambda part: part.write_text(json.dumps(found), encoding="utf-8"))
    return found


@dataclass(frozen=True)
class _Look:
    """Some images, and the net that is shown them."""

    net: LayeredNet
    content: ImageSet
    config: DataConfig

    @classmethod
    def at(cls, net: LayeredNet, content: ImageSet, config: DataConfig) -> "_Look":
        """Images of the test part, all classes alike."""
        test = data.split(content, config, seed=0).test
        items = test[torch.linspace(0, len(test) - 1, min(LOOKED_AT, len(test))).round().long()]
        _, height, width = net.input_shape
        if content.shape[0] != net.input_shape[0] or content.shape[1] < height or content.shape[2] < width:
            raise data.DataError(f"images are {content.shape}, and the network takes {net.input_shape}")
        few = in_memory(
            content.title, _pixels(content, items), content.labels[items], content.class_names, content.fingerprint
        )
        return cls(net, few, config)

    @property
    def labels(self) -> Tensor:
        """Of the images, ``int64 (n,)``."""
        return self.content.labels

    def logits(self, mean: Channels, std: Channels, *, turned: bool = False) -> Tensor:
        """``float32 (n, classes)``, with the pixels normalised so and their channels as they are or turned round."""
        none, items = torch.empty(0, dtype=torch.int64), torch.arange(len(self.labels))
        config = self.config.model_copy(update={"mean": mean, "std": std})
        _, height, width = self.net.input_shape
        split = data.Split(none, none, items)
        images = Images.open(self.content, split, config, (height, width), torch.device("cpu"))
        # Mean and standard deviation go with their channels.
        return torch.cat([self.net(part.flip(1) if turned else part) for part in images.centred(items)])

    def as_configured(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation, a value a channel."""
        return _each(self.config.mean, self.content.shape[0]), _each(self.config.std, self.content.shape[0])


def _each(value: float | Channels, channels: int) -> Channels:
    return value if isinstance(value, tuple) else (value,) * channels


def _pixels(content: ImageSet, items: Tensor) -> Tensor:
    """The first position of each item; not all files are decoded for so few."""
    decoding = content.decoding
    if decoding is None or decoding.is_done():
        return content.pixels().fetch(items * content.positions)
    files = FilePixels(decoding.folder, decoding.files, decoding.config, decoding.decode_item)
    return files.fetch(items)[:: content.positions]


def _on_source(look: _Look, given: WeightsConfig, classes: Sequence[str]) -> Iterator[str]:
    own = look.logits(*look.as_configured()).argmax(1)
    right = own == look.labels
    chance = max(1 / len(classes), float(look.labels.bincount().max()) / len(look.labels))
    skill = (_share(right) - chance) / (1 - chance)
    if skill >= SURE:
        return
    remedies = [*_other_orders(own, look.labels, classes)]
    if not given.file.startswith(TORCHVISION):  # how these see images is known
        remedies += _other_ways(look, given, right)
    best = max(remedies, key=lambda remedy: remedy.share, default=None)
    if best is not None and (best.share - chance) / (1 - chance) < SKILL:
        best = None
    if skill < SKILL:
        share = (
            f"{_percent(right)} of {len(right)} images of the source right, where guessing gets {100 * chance:.0f} %"
        )
        causes = "" if best else ": look at the order of its classes, of its channels, and at mean and std"
        yield f"The pretrained reference gets {share}{causes}."
    if best:
        yield best.sentence


@dataclass(frozen=True)
class _Remedy:
    """What would put a net right."""

    share: float
    """Of the images, those that it then gets right."""
    sentence: str


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def _percent(right: Tensor) -> str:
    return f"{100 * _share(right):.0f} %"


def _is_better(other: Tensor, right: Tensor) -> bool:
    """Whether more answers are right by more than chance, on the same images (McNemar 1947)."""
    won, lost = int((other & ~right).sum()), int((right & ~other).sum())
    return won - lost > SIGMAS * sqrt(max(1, won + lost))


def _other_orders(answers: Tensor, labels: Tensor, classes: Sequence[str]) -> Iterator[_Remedy]:
    """Whether the net's outputs are the classes in another order."""
    right = answers == labels
    if all(name.isdecimal() for name in classes):
        # Folders are sorted as text; who trained the net may have sorted them as numbers.
        rank = torch.tensor([int(name) for name in classes]).argsort().argsort()
        if _is_better(other := answers == rank[labels], right):
            names = ", ".join(sorted(classes, key=int)[:4])
            yield _Remedy(
                _share(other),
                f"With its classes in the order of their numbers, {_percent(other)} would be right instead of "
                f"{_percent(right)}: set source.weights.classes to [{names}, ...].",
            )
            return
    if len(labels) < ENOUGH * len(classes):
        return
    from scipy.optimize import linear_sum_assignment

    # An order that is found on one half of the images is tried on the other.
    even = torch.arange(len(labels)) % 2 == 0
    seen = np.zeros((len(classes), len(classes)))
    np.add.at(seen, (labels[even].numpy(), answers[even].numpy()), 1)
    _, order = linear_sum_assignment(seen, maximize=True)
    other = answers[~even] == torch.from_numpy(order)[labels[~even]]
    if _is_better(other, right[~even]):
        yield _Remedy(
            _share(other),
            f"With its classes in another order, {_percent(other)} would be right instead of {_percent(right[~even])}: "
            "set source.weights.classes to the classes in the order of the net's outputs.",
        )


def _other_ways(look: _Look, given: WeightsConfig, right: Tensor) -> Iterator[_Remedy]:
    """The best of other usual ways to show the net its images, if it is better than the configured one."""
    own, channels = look.as_configured(), look.content.shape[0]
    ranges: list[tuple[Channels, Channels]] = [((0.0,) * channels, (scale,) * channels) for scale in (1.0, 1 / 255)]
    ranges.append(((0.5,) * channels, (0.5,) * channels))
    turns = [False]
    if channels == 3 and look.config.modality == "rgb":
        turns = [False, True]
        imagenet = (0.485, 0.456, 0.406)
        ranges += [(imagenet, (0.229, 0.224, 0.225)), (imagenet, (1 / 255,) * 3)]
    ways = [(turned, seen) for turned in turns for seen in (own, *ranges) if turned or seen != own]
    answers = {way: look.logits(*way[1], turned=way[0]).argmax(1) == look.labels for way in ways}
    best = max(ways, key=lambda way: int(answers[way].sum()))
    if not _is_better(answers[best], right):
        return
    turned, (mean, std) = best
    changes = []
    if turned:
        changes.append(f"source.weights.bgr to {str(not given.bgr).lower()}")
    if (mean, std) != own:
        shown = [[round(value, 4) for value in values] for values in (mean, std)]
        changes.append(f"mean to {shown[0]} and std to {shown[1]}, of source.data and target.data alike")
    yield _Remedy(
        _share(answers[best]),
        f"Shown its images otherwise, it gets {_percent(answers[best])} right instead of {_percent(right)}: set "
        f"{' and '.join(changes)}.",
    )


def _on_target(look: _Look, classes: Sequence[str]) -> Iterator[str]:
    outputs = look.logits(*look.as_configured()).softmax(1)
    # Entropy of the mean output less the mean entropy: little where all outputs are flat, and where all are alike.
    nats = float(torch.special.entr(outputs.mean(0)).sum() - torch.special.entr(outputs).sum(1).mean())
    answers = outputs.argmax(1).bincount(minlength=len(classes))
    share, first = 100 * float(answers.max()) / len(outputs), classes[int(answers.argmax())]
    advice = (
        "look at mean and std of the data, at the order of channels (source.weights.bgr), and at the network's file"
    )
    if nats < LEAST_NATS:
        yield (
            f"The pretrained reference tells little about the target's images: its outputs hardly depend on which one "
            f"it sees ({nats:.2f} nats; {share:.0f} % of them are taken for {first}); {advice}."
        )

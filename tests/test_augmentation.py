"""Augmented and mixed images: functions of seed, epoch and image, as torchvision makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from study import load_config
from study.config import ConfigError
from study.keys import stage_key
from tests.runs import DATA, MemoryStore, Stopped, StoppingSession, artifact, source_nets
from trainables import data
from trainables.artifacts import Artifact
from trainables.augmentation import Mixing
from trainables.data.imageset import in_memory
from trainables.hybrid import HybridTransferNet, main_loss
from trainables.hyperparameters import KnowledgeConfig, StageSpec, TrainConfig, TransferParams
from trainables.images import Images
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.stages import run_stage

PLAIN = DataConfig(name="tests.test_augmentation:gradients", train_per_class=6, val_per_class=6)
RESIZED = PLAIN.model_copy(update={"views": "resized", "scale": (0.25, 0.5)})
TRIVIAL = PLAIN.model_copy(update={"auto_augment": "trivial"})


def gradients(config: DataConfig, places: data.Places) -> data.ImageSet:
    """Colours that say where a pixel was: red its column, green its row; blue is the item."""
    ramp = torch.arange(40, dtype=torch.uint8) * 6
    images = torch.stack(
        [torch.stack([ramp.expand(40, 40), ramp[:, None].expand(40, 40), torch.full((40, 40), i)]) for i in range(60)]
    )
    return in_memory("Gradients", images.to(torch.uint8), torch.arange(60) % 3, ("a", "b", "c"), "gradients")


def opened(config: DataConfig) -> Images:
    content = data.load(config, data.Places())
    return Images.open(content, data.split(content, config, 0), config, (24, 24), torch.device("cpu"))


def seen(images: Images, items: Tensor, seed: int = 0, epoch: int = 1) -> Tensor:
    (found,) = images.stream([(items, images.views(seed, epoch).placement[items])])
    return found


@pytest.mark.parametrize("config", [RESIZED, TRIVIAL, RESIZED.model_copy(update={"auto_augment": "rand"})])
def test_a_view_is_a_function_of_seed_epoch_and_image(config: DataConfig) -> None:
    images, items = opened(config), torch.arange(60)
    before = torch.get_rng_state()
    whole = seen(images, items)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order[:7]], seen(images, order[:7]))
    assert torch.equal(before, torch.get_rng_state())
    for other in (seen(images, items, epoch=2), seen(images, items, seed=1)):
        assert (whole != other).flatten(1).any(1).float().mean() > 0.7
    assert images.views(0, 1).index is None
    assert torch.equal(torch.cat(list(images.centred(items))), torch.cat(list(opened(PLAIN).centred(items))))


def test_resized_views_are_torchvisions_and_as_large_as_asked_for() -> None:
    images, items = opened(RESIZED), torch.arange(60)
    views = seen(images, items) * 255
    oracle = v2.Compose([v2.RandomResizedCrop((24, 24), scale=(0.25, 0.5), antialias=True), v2.RandomHorizontalFlip()])
    pixels = images.pixels.fetch(items)
    for item in items.tolist():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(images.views(0, 1).placement[item, 4]))
            assert torch.equal(views[item].round().to(torch.uint8), oracle(pixels[item]))
    # Columns and rows that are seen, from what they are coloured with, a pixel being resampled at each end.
    spans = [(view[c].max() - view[c].min()) / 6 + 1 for view in views for c in (0, 1)]
    areas = torch.stack(spans).reshape(60, 2).prod(1) / 1600
    assert areas.min() > 0.2 and areas.max() < 0.53 and areas.max() - areas.min() > 0.15
    mirrored = (views[:, 0, 0, 0] > views[:, 0, 0, -1]).float().mean()
    assert 0.3 < mirrored < 0.7
    for hflip in (0.0, 1.0):
        views = seen(opened(RESIZED.model_copy(update={"hflip": hflip})), items)
        assert bool((views[:, 0, 0, 0] > views[:, 0, 0, -1]).all()) == (hflip == 1)


@pytest.mark.parametrize(("name", "kind"), [("trivial", v2.TrivialAugmentWide), ("rand", v2.RandAugment)])
def test_augmentations_are_torchvisions_on_the_view(name: str, kind: type[v2.Transform]) -> None:
    config = PLAIN.model_copy(update={"auto_augment": name, "views": "ten"})
    images, items = opened(config), torch.arange(20)
    placement = images.views(3, 5).placement
    given = (seen(images, items, 3, 5) * 255).round().to(torch.uint8)
    for item in items.tolist():
        _, top, left, mirrored, seed = placement[item].tolist()
        view = images.pixels.fetch(torch.tensor([item]))[0][:, top : top + 24, left : left + 24]
        view = functional.horizontal_flip(view) if mirrored else view
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert torch.equal(given[item], kind()(view))


def test_mixup_mixes_images_and_labels_alike() -> None:
    images, labels = (
        torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 2, 0, 1, 2]),
    )
    mixing = Mixing(TrainConfig(epochs=1, learning_rate=0.1, mixup_alpha=0.4), 3)
    shares = set()
    for batch in range(8):
        mixed, soft = mixing.of_batch(0, 1, batch)(images, labels)
        share = float(soft[0, 0])
        torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0))
        one_hot = torch.nn.functional.one_hot(labels, 3).float()
        torch.testing.assert_close(soft, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        scores = torch.rand(6, 3)
        expected = share * main_loss(scores, labels) + (1 - share) * main_loss(scores, labels.roll(1))
        torch.testing.assert_close(main_loss(scores, soft), expected)
        shares.add(share)
    assert len(shares) == 8


def test_cutmix_pastes_a_rectangle_and_its_share_of_the_label() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 10, 10)
    labels = torch.arange(4)
    config = TrainConfig(epochs=1, learning_rate=0.1, cutmix_alpha=1.0)
    for batch in range(8):
        mixed, soft = Mixing(config, 4).of_batch(0, 1, batch)(images, labels)
        pasted = (mixed[1, 0] == 0).float()
        assert float(soft[1, 0]) == pytest.approx(float(pasted.mean()), abs=1e-6)
        rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
        assert pasted.sum() == rows * columns


def test_with_both_each_batch_has_one_of_the_two() -> None:
    images, labels = torch.rand(4, 1, 10, 10), torch.arange(4)
    config = TrainConfig(epochs=1, learning_rate=0.1, mixup_alpha=1.0, cutmix_alpha=1.0)
    mixtures = [Mixing(config, 4).of_batch(0, 1, batch)(images, labels)[0] for batch in range(20)]
    pasted = [bool(((mixed == images) | (mixed == images.roll(1, 0))).all()) for mixed in mixtures]
    assert 3 < sum(pasted) < 17


KNOWN = KnowledgeConfig(tau=4, lambda_=1, live=True)
AUGMENTED = DATA.model_copy(update={"views": "resized", "scale": (0.6, 1.0), "hflip": 0.0, "auto_augment": "trivial"})
MIXED = TrainConfig(epochs=3, learning_rate=0.01, batch_size=20, mixup_alpha=0.2, cutmix_alpha=1.0)


def _transfer(session: Session, train: TrainConfig = MIXED) -> Artifact:
    params = TransferParams(n_m=2, n_e=2, knowledge=KNOWN, train=train)
    spec = StageSpec(kind="transfer", network="small_alexnet", data=AUGMENTED, seed=0, params=params)
    nets = source_nets()
    return artifact(run_stage(spec, {"source": nets["pruned"], "reference": nets["reference"]}, session))


def test_a_killed_training_of_augmented_and_mixed_images_resumes_to_the_bit() -> None:
    whole = _transfer(Session())
    store = MemoryStore()
    with pytest.raises(Stopped):
        _transfer(StoppingSession(store, 2))
    resumed = Session(store, "cpu", checkpoint_seconds=0)
    again = _transfer(resumed)
    assert resumed.resumed_epochs in (1, 2)
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in whole.tensors.items())
    plain = _transfer(Session(), MIXED.model_copy(update={"mixup_alpha": 0.0, "cutmix_alpha": 0.0}))
    assert any(not torch.equal(tensor, plain.tensors[key]) for key, tensor in whole.tensors.items())


def test_the_reference_guides_by_the_mixture_that_the_net_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, Tensor]] = []
    watched = {"reference": HybridTransferNet.knowledge, "net": HybridTransferNet.forward}

    def watch(who: str) -> Callable[[HybridTransferNet, Tensor], object]:
        def call(net: HybridTransferNet, x: Tensor) -> object:
            shown.append((who, x))
            return watched[who](net, x)

        return call

    monkeypatch.setattr(HybridTransferNet, "knowledge", watch("reference"))
    monkeypatch.setattr(HybridTransferNet, "forward", watch("net"))
    _transfer(Session(), MIXED.model_copy(update={"epochs": 1}))
    steps = [x for who, x in shown if who == "net"]
    guiding = [x for who, x in shown if who == "reference"][: len(steps)]
    assert len(steps) > 1 and all(torch.equal(a, b) for a, b in zip(steps, guiding, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target.data.views": "resized"}, "random crops and augmented images have no stored knowledge"),
        ({"target.data.auto_augment": "rand"}, "random crops and augmented images have no stored knowledge"),
        ({"target.data.auto_augment": "magic"}, "target.data.auto_augment"),
        ({"source.data.scale": [0.9, 0.5]}, "the first share must not be above the second, but 0.9 is above 0.5"),
        ({"transfer.train.mixup_alpha": 0.2}, "transfer.live: is false, but mixed images have no stored knowledge"),
        (
            {"source.train.cutmix_alpha": 1, "resources.workers": 2},
            "resources.workers: is 2, but images are mixed with",
        ),
        ({"source.train.cutmix_alpha": 1, "resources.images_a_pass": 9}, "resources.images_a_pass: is 9, but images"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str, tiny_preset: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(str(tiny_preset), changes)


def test_scale_is_in_the_key_of_resized_views_alone() -> None:
    def key(views: str, scale: tuple[float, float]) -> str:
        config = DATA.model_copy(update={"views": views, "scale": scale})
        params = TransferParams(n_m=2, train=MIXED)
        spec = StageSpec(kind="transfer", network="small_alexnet", data=config, seed=0, params=params)
        return stage_key(spec, {"source": "reference-0"}, data.Places())

    assert key("ten", (0.5, 1.0)) == key("ten", (0.08, 1.0))
    assert key("resized", (0.5, 1.0)) != key("resized", (0.08, 1.0))

"""What a training does for the sake of its device, as far as a CPU can show it."""

from pathlib import Path

import pytest
import torch

from tests.own import rgb
from tests.runs import DATA, parents, run
from tests.trees import make_imagenet
from trainables import pruning
from trainables.context import StageContext
from trainables.data import Places
from trainables.devices import float32_products, placed
from trainables.hybrid import HybridTransferNet
from trainables.hyperparameters import KnowledgeParams, ReferenceParams, SourcePruneParams, StageSpec, TrainConfig
from trainables.networks import Dropout, LayeredNet
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.stages import run_stage
from trainables.training import Training


class Rank(Session):
    """One of a group of workers, whose others say nothing."""

    def __init__(self, rank: int, world_size: int, places: Places | None = None) -> None:
        super().__init__(places=places)
        self.rank, self.world_size = rank, world_size


@pytest.mark.parametrize("few", [0, 256])
def test_a_worker_without_a_share_of_the_last_batch_goes_on(
    few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.data.files.FEW_ROWS", few)
    make_imagenet(tmp_path / "imagenet", train=5)
    # Of each class, one image is for validation: 12 are left, in batches of 11 and 1.
    images = DataConfig(name="imagenet", size=32, val_per_class=1)
    train = TrainConfig(epochs=1, learning_rate=0.01, batch_size=11)
    spec = StageSpec(
        kind="reference", network="tests.own:rgb", data=images, seed=0, params=ReferenceParams(train=train)
    )
    places = Places(root=str(tmp_path))
    result = run_stage(spec, {}, Rank(1, 2, places))
    assert result.metrics["images"] == 12
    assert all(tensor.isfinite().all() for tensor in result.tensors.values())


def test_ranks_divide_an_evaluation_and_knowledge_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made before the patch: all tests of the process share it, and other batches round otherwise.
    reference = parents()["reference"]
    monkeypatch.setattr("trainables.images.EVALUATION_BATCH", 7)
    whole = run("knowledge", KnowledgeParams(), seed=None, reference=reference).tensors["logits"]
    shares = [run("knowledge", KnowledgeParams(), Rank(rank, 3), seed=None, reference=reference) for rank in range(3)]
    logits = [share.tensors["logits"] for share in shares]
    assert torch.equal(torch.stack(logits).sum(0), whole)
    assert all(0 < part.count_nonzero() < whole.count_nonzero() for part in logits)
    step = SourcePruneParams(keep=0.5, retrain=TrainConfig(epochs=1, learning_rate=1e-9, dropout=0.0))
    found = [run("source_prune", step, session, source=reference) for session in (Session(), Rank(1, 2))]
    assert 0 < found[1].metrics["test_accuracy"] < found[0].metrics["test_accuracy"]


def test_masks_lie_in_memory_as_their_weights_do() -> None:
    net = placed(HybridTransferNet(rgb(4)), torch.device("cpu"))
    net.main.initialise(net.main.names, 0)
    masks = pruning.shrink_globally(net.main, {}, 500, "magnitude", 0)
    spec = StageSpec(kind="reference", network="tests.own:rgb", data=DATA, seed=0, params=ReferenceParams())
    images = StageContext(spec, {}, Session()).images()
    training = Training(net, masks, images, TrainConfig(epochs=1, learning_rate=0.1), Session(), 0)
    for (weight, laid_out), (name, mask) in zip(training.masked, masks.items(), strict=True):
        assert weight is net.main.op(name).weight
        assert laid_out.stride() == weight.stride() and torch.equal(laid_out, mask.to(weight))
    assert net.main.op("conv2").weight.is_contiguous(memory_format=torch.channels_last)


def test_dropout_in_bfloat16_is_as_exact_as_its_result_can_be() -> None:
    x = torch.rand(64, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    dropout = Dropout().train()
    dropout.rate, dropout.generator = 0.3, torch.Generator().manual_seed(1)
    seen = dropout(x)
    assert seen.dtype == torch.bfloat16
    expected = (x.double() / 0.7).bfloat16()
    kept = seen != 0
    assert 0.6 < kept.double().mean() < 0.8
    assert torch.equal(seen[kept], expected[kept])


def test_products_are_exact_but_where_training_says_otherwise() -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    with float32_products(tf32=False):
        assert not any(flag.allow_tf32 for flag in flags)
        with pytest.raises(ZeroDivisionError), float32_products(tf32=True):
            assert all(flag.allow_tf32 for flag in flags)
            raise ZeroDivisionError
        assert not any(flag.allow_tf32 for flag in flags)
    assert [flag.allow_tf32 for flag in flags] == before


@pytest.mark.parametrize("asked_before", [False, True])
def test_a_stage_asks_for_deterministic_kernels_and_leaves_the_process_as_it_was(
    asked_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[bool] = set()
    forward = LayeredNet.forward

    def watched(self: LayeredNet, x: torch.Tensor) -> torch.Tensor:
        seen.add(torch.are_deterministic_algorithms_enabled())
        return forward(self, x)

    monkeypatch.setattr("trainables.networks.LayeredNet.forward", watched)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(asked_before)
    try:
        train = TrainConfig(epochs=1, learning_rate=0.01, batch_size=20)
        run("reference", ReferenceParams(train=train))
        assert seen == {True} and torch.are_deterministic_algorithms_enabled() == asked_before
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_validation_is_exact_whatever_training_is(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[bool]] = {"train": set(), "eval": set()}
    forward = LayeredNet.forward

    def watched(self: LayeredNet, x: torch.Tensor) -> torch.Tensor:
        seen["train" if self.training else "eval"].add(torch.backends.cudnn.allow_tf32)
        return forward(self, x)

    monkeypatch.setattr("trainables.networks.LayeredNet.forward", watched)
    train = TrainConfig(epochs=2, learning_rate=0.01, precision=precision)
    run("reference", ReferenceParams(train=train))
    assert seen == {"train": {precision == "tf32"}, "eval": {False}}

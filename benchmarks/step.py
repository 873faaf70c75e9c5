"""``python -m benchmarks.step``: training steps of the stage kinds next to the bare step of the dense net.

*Bare* is forward, loss, backward and SGD on one batch that is there already. The stages' steps are those of
:class:`trainables.training.Training`: images gathered, cropped and normalised, losses recorded, masks applied. All take
turns in one run; what is shown are medians of the ratios within a turn, as the machine may get slower or faster.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.goals import Goal, show
from trainables import networks, pruning
from trainables.data import Split
from trainables.data.imageset import in_memory
from trainables.devices import deterministic_kernels, float32_products, placed
from trainables.hybrid import HybridTransferNet, extra_branch, extra_loss, main_loss
from trainables.hyperparameters import KnowledgeConfig, Precision, TrainConfig
from trainables.images import Images
from trainables.networks import LayeredNet
from trainables.sessions import Session
from trainables.settings import DataConfig
from trainables.training import Knowledge, Training

CLASSES, KEEP, N_E, DROPOUT = 10, 0.05, 2, 0.5
KNOWLEDGE = KnowledgeConfig(tau=2, lambda_=1)
PLAIN, GUIDED, MASKS = 0.95, 0.90, 1.02
NEVER = 10**6
"""No epoch gets there: nothing is validated."""

BFLOAT16 = 1.5
LARGE = {"alexnet": 256, "torchvision:resnet50": 128}
"""Networks that fill a GPU, with their batches."""

TRIED = (
    "reading, cropping and normalising the batch is 2 % of it, and sums for the records; dropouts are kept in a list"
)
TRIED_MASKS = "the product costs the same at any batch; boolean masks, masked_fill_ and index_copy_ are slower"

Epoch = Callable[[int], None]


class Bench:
    """One network with its images, batch and configuration."""

    def __init__(self, network: str, batch: int, steps: int, device: str = "cpu") -> None:
        self.network, self.steps = network, steps
        self.config = TrainConfig(
            epochs=NEVER, learning_rate=1e-4, batch_size=batch, dropout=DROPOUT, validate_every=NEVER
        )
        self.images = _images(networks.input_shape(network), batch * steps, torch.device(device))
        items = self.images.train[:batch]
        self.batch = next(self.images.centred(items))[:batch]
        self.labels = self.images.targets(items)
        self.logits = torch.randn(len(self.images.labels), 1, CLASSES).to(self.images.device)

    def net(self) -> LayeredNet:
        """A dense net with dropout."""
        net = networks.fresh(self.network, CLASSES, seed=0)
        net.set_dropout(DROPOUT)
        return placed(net, self.images.device)

    def hybrid(self, live: bool = False) -> HybridTransferNet:
        """A net with an extra branch and, for live knowledge, the reference."""
        main, reference = self.net(), self.net()
        return HybridTransferNet(main, extra_branch(reference, N_E), reference if live else None)

    def stage(self, net: HybridTransferNet, masked: bool = False, live: bool = False) -> Epoch:
        """An epoch of a stage's training."""
        return self.training(net, masked, live).train

    def training(self, net: HybridTransferNet, masked: bool = False, live: bool = False) -> Training:
        """A stage's training."""
        masks = _masks(net.main) if masked else {}
        knowledge = None
        if net.extra is not None:
            config = KNOWLEDGE.model_copy(update={"live": live})
            partner = torch.arange(len(self.logits))
            knowledge = Knowledge(config, partner, None if live else self.logits)
        return Training(net, masks, self.images, self.config, Session(device=self.images.device), 0, knowledge)

    def bare(self, net: nn.Module, loss: Callable[[], Tensor], branches: list[LayeredNet]) -> Epoch:
        """As many steps on the one batch."""
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

        def epoch(number: int) -> None:
            for branch in branches:
                branch.seed_dropout(0, number)
            net.train()
            for _ in range(self.steps):
                optimizer.zero_grad(set_to_none=True)
                loss().backward()
                optimizer.step()

        return epoch

    def bare_dense(self) -> Epoch:
        """Nothing but the dense net."""
        net = self.net()
        return self.bare(net, lambda: main_loss(net(self.batch), self.labels).mean(), [net])

    def bare_hybrid(self) -> Epoch:
        """Nothing but both branches and their losses."""
        net, logits = self.hybrid(), self.logits[: len(self.batch), 0]
        assert net.extra is not None

        def loss() -> Tensor:
            output = net(self.batch)
            return (main_loss(output.main, self.labels) + extra_loss(output.extra, logits, KNOWLEDGE.tau)).mean()

        return self.bare(net, loss, [net.main, net.extra])

    def library_masks(self) -> Epoch:
        """The dense net masked by torch.nn.utils.prune, which multiplies in each forward and backward pass."""
        net = self.net()
        for name, mask in _masks(net).items():
            prune.custom_from_mask(net.op(name), "weight", mask)
        return self.bare(net, lambda: main_loss(net(self.batch), self.labels).mean(), [net])


def measure(network: str, batch: int, steps: int, rounds: int, device: str) -> list[Goal]:
    """Goals of one network."""
    bench = Bench(network, batch, steps, device)
    kinds = {
        "bare dense": bench.bare_dense(),
        "bare, masks of torch.nn.utils.prune": bench.library_masks(),
        "bare, both branches": bench.bare_hybrid(),
        "K-": bench.stage(HybridTransferNet(bench.net())),
        "K-, masked": bench.stage(HybridTransferNet(bench.net()), masked=True),
        "K+, cached": bench.stage(bench.hybrid()),
        "K+, cached, masked": bench.stage(bench.hybrid(), masked=True),
        "K+, live": bench.stage(bench.hybrid(live=True), live=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, epoch in kinds.items():
            taken = timed(partial(epoch, number + 1), device)
            if number:  # the first one warms up
                seconds[name].append(taken / steps)
    print(
        f"{network}, batches of {batch}, {steps} steps x {rounds} turns; throughput as a share of the bare dense step"
    )
    ratio = partial(_ratio, seconds)
    for name in kinds:
        print(f"  {name:38} {1000 * median(seconds[name]):9.2f} ms   {ratio('bare dense', name):6.3f}")
    print(f"  live over cached knowledge: {ratio('K+, live', 'K+, cached'):.2f} times the time")
    both = ratio("bare, both branches", "K+, cached")
    masked, library = ratio("K-, masked", "K-"), ratio("bare, masks of torch.nn.utils.prune", "bare dense")
    return [
        Goal(f"{network}: K- over the bare dense step", ratio("bare dense", "K-"), ">=", PLAIN, TRIED),
        Goal(f"{network}: K+ cached over the bare step of both", both, ">=", GUIDED),
        Goal(f"{network}: masked over dense step, time", masked, "<=", MASKS, TRIED_MASKS),
        Goal(f"{network}: the same, next to torch.nn.utils.prune's {library:.3f}", masked, "<=", library),
    ]


def measure_precisions(network: str, batch: int, steps: int, rounds: int, device: str) -> list[Goal]:
    """What the precisions of ``train.precision`` are worth: images a second of the guided and masked step."""
    bench = Bench(network, batch, steps, device)
    kinds = {}
    for precision in get_args(Precision):
        bench.config = bench.config.model_copy(update={"precision": precision})
        kinds[precision] = bench.stage(bench.hybrid(), masked=True)
    seconds: dict[str, list[float]] = {precision: [] for precision in kinds}
    for number in range(rounds + 1):
        for precision, epoch in kinds.items():
            taken = timed(partial(epoch, number + 1), device)
            if number:
                seconds[precision].append(taken)
    for precision, each in seconds.items():
        step = median(each) / steps
        print(f"  {network}, batches of {batch}, {precision:9} {batch / step:9.0f} images/s  {1000 * step:8.2f} ms")
    faster = 1 / _ratio(seconds, "bfloat16", "float32")
    return [Goal(f"{network}: images/s in bfloat16 over those in float32", faster, ">=", BFLOAT16)]


def timed(work: Callable[[], None], device: str) -> float:
    """Seconds until the device has done the work, too."""
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


def finish(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def _ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def _masks(net: LayeredNet) -> pruning.Masks:
    return pruning.shrink_globally(net, {}, round(KEEP * sum(w.numel() for w in net.weights().values())), "random", 0)


def _images(shape: tuple[int, int, int], count: int, device: torch.device) -> Images:
    """Random images of the network's size, all of them for training."""
    pixels = torch.randint(256, (count, *shape), dtype=torch.uint8)
    labels = torch.arange(count) % CLASSES
    content = in_memory("noise", pixels, labels, tuple("0123456789"), "noise")
    none = torch.empty(0, dtype=torch.int64)
    split, config = Split(torch.arange(count), none, none), DataConfig(name="noise")
    return Images.open(content, split, config, shape[1:], device)


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="the small net alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # The bare step, too, takes exact products and kernels that do not vary, which a GPU would not by itself.
    with deterministic_kernels(), float32_products(tf32=False):
        # As in the presets: of alexnet's, the smallest batch, where all that is not per image weighs most.
        goals = measure("small_alexnet", batch=25, steps=10, rounds=40, device=options.device)
        if not options.quick:
            steps = 1 if options.device == "cpu" else 10
            goals += measure("alexnet", batch=64, steps=steps, rounds=10, device=options.device)
    if options.device != "cpu":
        for network, batch in LARGE.items():
            goals += measure_precisions(network, batch, steps=8, rounds=5, device=options.device)
    return show(goals)


if __name__ == "__main__":
    sys.exit(main())

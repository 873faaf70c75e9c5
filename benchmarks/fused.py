"""``python -m benchmarks.fused``: nets of a study trained as one (horizontally fused) beside one by one.

Cells that share data and seed see the same batches in the same order, so their nets can be trained as one
(:mod:`trainables.fused`). Both ways take turns in one run; what is shown are medians of the ratios within a turn. On a
CPU they are of processor time, which other work on the machine disturbs less than it does the clock. Then the default
study at one seed is run both ways, on one slot and on two.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from rich.console import Console

from benchmarks.goals import Goal, show
from benchmarks.step import Bench
from study.config import load_config
from study.experiment import Cluster, Experiment
from study.graph import plan
from study.storage import Storage
from trainables.fused import FusedTraining
from trainables.hybrid import HybridTransferNet
from trainables.training import Training, log_scores

NETS = (2, 3, 6, 8)
"""How many are fused: as many as the default study has that can be, and more."""
BATCH, STEPS = 25, 4
"""The default study's batches in the target: 100 images an epoch."""
VALIDATED, VALIDATE_EVERY = 800, 10
"""Its validation images, and the epochs from one validation to the next."""
STEP, STUDY = 1.15, 1.05
TRIED = "torch.func.vmap gives 0.90 to 1.06, reading the batches once without fusing 1.01 to 1.03"
TRIED_SLOTS = "slots share what can be fused, so that less is fused on each"


@dataclass(frozen=True)
class Found:
    """How many times longer training one by one takes than another way, for the same nets and images."""

    step: float
    stage: float
    """With the validations of the default study, which fusing does not touch."""


class Contest:
    """Dense K- nets, or masked K+ nets: one by one, fused, and one by one in channels_last."""

    def __init__(self, bench: Bench, nets: int, guided: bool) -> None:
        self.bench, self.guided = bench, guided
        self.alone, self.reordered, fused = ([self._training() for _ in range(nets)] for _ in range(3))
        for training in self.reordered:
            training.net.to(memory_format=torch.channels_last)
        self.fused = FusedTraining(fused)

    def _training(self) -> Training:
        net = self.bench.hybrid() if self.guided else HybridTransferNet(self.bench.net())
        return self.bench.training(net, masked=self.guided)

    def run(self, turns: int) -> dict[str, Found]:
        """What was found of each way but one by one."""
        ways: dict[str, tuple[Callable[[int], None], list[Training]]] = {
            "alone": (partial(_train, self.alone), self.alone),
            "fused": (self.fused.train, self.fused.trainings),
            "channels_last": (partial(_train, self.reordered), self.reordered),
        }
        steps: dict[str, list[float]] = {way: [] for way in ways}
        stages: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(turns + 1):
            for way, (train, nets) in ways.items():
                step = _seconds(self.bench, partial(train, turn + 1))
                validation = _seconds(self.bench, partial(_validate, nets))
                if turn:  # the first one warms up
                    steps[way].append(step)
                    stages[way].append(VALIDATE_EVERY * step + validation)
        return {way: Found(_ratio(steps, way), _ratio(stages, way)) for way in ways if way != "alone"}


def run(fused: int, slots: int, gpus: int) -> float:
    """Wall time of the default study at one seed, with so many nets trained as one at most, without Ray's start."""
    config = load_config("digits", ["seeds=1", f"resources.fused={fused}", f"resources.gpus={gpus}"])
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(slots=slots)
        experiment = Experiment(plan(config), Storage(folder), "study", config.resources, config.data, cluster)
        experiment.run(Console(quiet=True))
    assert not experiment.failed, experiment.failed
    return experiment.seconds


def _train(trainings: list[Training], epoch: int) -> None:
    for training in trainings:
        training.train(epoch)


@torch.no_grad()
def _validate(trainings: list[Training]) -> None:
    items = trainings[0].images.train.repeat(VALIDATED // (BATCH * STEPS))
    for training in trainings:
        list(log_scores(training.net.main, training.images, items))


def _seconds(bench: Bench, work: Callable[[], None]) -> float:
    on_cuda = bench.images.device.type == "cuda"
    clock = time.perf_counter if on_cuda else time.process_time
    if on_cuda:
        torch.cuda.synchronize()
    started = clock()
    work()
    if on_cuda:
        torch.cuda.synchronize()
    return clock() - started


def _ratio(seconds: dict[str, list[float]], way: str) -> float:
    return median(alone / own for alone, own in zip(seconds["alone"], seconds[way], strict=True))


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fused", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench("small_alexnet", BATCH, STEPS, options.device)
    print("small_alexnet, time one by one over that of the other way: of training steps, and with validations")
    found: dict[tuple[bool, int], dict[str, Found]] = {}
    for guided in (False, True):
        for nets in NETS:
            ways = found[guided, nets] = Contest(bench, nets, guided).run(options.turns)
            words = "; ".join(f"{way} {one.step:.2f}, {one.stage:.2f}" for way, one in ways.items())
            print(f"  {'K+, masked' if guided else 'K-':10} {nets} nets: {words}", flush=True)
    dense, masked = (found[guided, NETS[-1]]["fused"].step for guided in (False, True))
    return show(
        [
            Goal(f"{NETS[-1]} nets, K-: step, one by one / fused", dense, ">=", STEP, TRIED),
            Goal(f"{NETS[-1]} nets, K+, masked: step, one by one / fused", masked, ">=", STEP, TRIED),
            *([study_goal(1, 1)] if options.device == "cuda" else [study_goal(1), study_goal(2, tried=TRIED_SLOTS)]),
        ]
    )


def study_goal(slots: int, gpus: int = 0, tried: str = TRIED) -> Goal:
    """What the default study gains, on one GPU or none."""
    alone, fused = run(1, slots, gpus), run(NETS[-1], slots, gpus)
    print(f"default study, one seed, {slots} slots: one by one {alone:.1f} s, fused {fused:.1f} s", flush=True)
    return Goal(f"default study, {slots} slots: one by one / fused", alone / fused, ">=", STUDY, tried)


if __name__ == "__main__":
    sys.exit(main())

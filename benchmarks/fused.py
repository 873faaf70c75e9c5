"""``python -m benchmarks.fused``: nets of a study trained as one (horizontally fused) beside one by one.

Cells that share data and seed see the same batches in the same order, so their nets can be trained as one
(:mod:`trainables.fused`). Both ways take turns in one run; what is shown are medians of the ratios within a turn. On a
CPU they are of processor time, which other work on the machine disturbs less than it does the clock.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from heapq import heappop, heappush
from statistics import median

import torch

from benchmarks.goals import Goal, show
from benchmarks.step import Bench
from study.config import load_config
from study.graph import Stage, StageGraph, plan
from trainables.fused import FusedTraining
from trainables.hybrid import HybridTransferNet
from trainables.training import Training, log_scores

NETS = (2, 3, 6, 8)
"""How many are fused: as many as the default study has that could be, and more."""
BATCH, STEPS = 25, 4
"""The default study's batches in the target: 100 images an epoch."""
VALIDATED, VALIDATE_EVERY = 800, 10
"""Its validation images, and the epochs from one validation to the next."""
STEP, STUDY = 1.15, 1.05
TRIED = "torch.func.vmap gives 0.90 to 1.06, reading the batches once without fusing 1.01 to 1.03"
TRIED_SLOTS = "a group waits for the last of its parents and takes one slot where its stages took several"
TRIED_SINGLE = "channels_last gives single nets what fusing gives, and faster validations"


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


Group = list[Stage]
Ratios = dict[tuple[bool, int], float]
"""How many times longer one by one takes, by whether the nets have knowledge and how many they are."""


def groups_of(graph: StageGraph) -> list[Group]:
    """A study's stages, together where they could be trained as one.

    They are as many stages of their kind away from where their chain begins, for they must be ready together.
    """
    groups: dict[tuple[str, int], Group] = {}
    for stage in graph.stages.values():
        before = [graph.stages[key].spec.kind for key in graph.path(stage.key)].count(stage.spec.kind)
        groups.setdefault((graph.fusible(stage.key) or stage.key, before), []).append(stage)
    return list(groups.values())


def makespan(groups: list[Group], ratios: Ratios, slots: int) -> float:
    """Time that a study takes on so many slots, in training images: groups on the longest path first, as studies do."""
    home = {stage.key: number for number, group in enumerate(groups) for stage in group}
    needs = [{home[key] for stage in group for key in stage.parents.values()} for group in groups]
    times = [sum(stage.effort for stage in group) / _ratio_of(group, ratios) for group in groups]

    @cache
    def longest(number: int) -> float:
        after = (other for other in range(len(groups)) if number in needs[other])
        return times[number] + max(map(longest, after), default=0.0)

    waiting = sorted(range(len(groups)), key=longest, reverse=True)
    done: set[int] = set()
    running: list[tuple[float, int]] = []
    now = 0.0
    while waiting or running:
        for number in [number for number in waiting if needs[number] <= done][: slots - len(running)]:
            waiting.remove(number)
            heappush(running, (now + times[number], number))
        now, finished = heappop(running)
        done.add(finished)
    return now


def _ratio_of(group: Group, ratios: Ratios) -> float:
    """What the largest measured group that is no larger than this one gains."""
    measured = [nets for nets in NETS if nets <= len(group)]
    return ratios[_is_guided(group[0]), measured[-1]] if measured else 1.0


def _parts(group: Group, whole: bool) -> list[Group]:
    return [group] if whole else [[stage] for stage in group]


def _is_guided(stage: Stage) -> bool:
    return getattr(stage.spec.params, "knowledge", None) is not None


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
            *study_goals(found),
        ]
    )


def study_goals(found: dict[tuple[bool, int], dict[str, Found]]) -> list[Goal]:
    """What the default study would gain."""
    fused = {size: ways["fused"].stage for size, ways in found.items()}
    reordered = {size: ways["fused"].stage / ways["channels_last"].stage for size, ways in found.items()}
    together = groups_of(plan(load_config("digits")))
    alone = [part for group in together for part in _parts(group, False)]
    effort = sum(stage.effort for group in together if len(group) > 1 for stage in group)
    print(f"default study: {100 * effort / makespan(alone, {}, 1):.0f} % of its training could be fused")

    # Chains of pruning steps run side by side, but transfers are more than the slots.
    transfers = [part for group in together for part in _parts(group, group[0].spec.kind == "transfer")]

    def gain(groups: list[Group], ratios: Ratios, slots: int) -> float:
        return makespan(alone, {}, slots) / makespan(groups, ratios, slots)

    return [
        Goal("default study: 1 slot, one by one / fused", gain(together, fused, 1), ">=", STUDY, TRIED),
        Goal("default study: 2 slots, one by one / fused", gain(together, fused, 2), ">=", STUDY, TRIED_SLOTS),
        Goal("default study: 2 slots, the same, transfers alone fused", gain(transfers, fused, 2), ">=", STUDY, TRIED),
        Goal("default study: 1 slot, channels_last / fused", gain(together, reordered, 1), ">=", STUDY, TRIED_SINGLE),
    ]


if __name__ == "__main__":
    sys.exit(main())

"""How long nets take for a forward pass on the CPU.

In a study nets are executed densely: a pruned connection is a zero that is multiplied like any other number. So latency
depends only on the shapes of the layers, not on masks nor on what was learned, and only removed neurons make a net
faster. Exported nets (:mod:`trainables.export.compact`) are measured by :func:`by_turns` too.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from trainables import networks, removals
from trainables.hybrid import HybridTransferNet
from trainables.hyperparameters import NeuronPruneParams
from trainables.layers import LayeredNet
from trainables.seeds import generator

WARM_UP, RUNS = 2, 5
"""Forward passes of a net's turn: first some that do not count, then those that are timed."""
LEAST_ROUNDS, MOST_ROUNDS = 5, 100
"""In a round every net has one turn."""
SECONDS = 30
"""No new round begins after this time, once there are enough."""


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass."""

    milliseconds: float
    """Median over all timed passes."""
    percent: float
    """Of the first net's time, median over the rounds: what else the machine does slows both nets of a round."""


def measure(nets: Sequence[LayeredNet], batch: int = 1, threads: int = 1) -> list[Latency]:
    """Latency of each net, and relative to the first one's, in evaluation mode.

    The nets take turns, so that a machine that gets slower or faster does so for all. A turn is several passes long:
    the first ones fetch the weights that another net has driven out of the cache, and do not count.

    Args:
        nets: nets on the CPU, of one input shape.
        batch: images of a forward pass.
        threads: threads of the arithmetic.
    """
    images = torch.rand(batch, *nets[0].input_shape, generator=generator(0, "latency"))
    return by_turns([partial(net.eval(), images) for net in nets], threads, SECONDS)


def by_turns(passes: Sequence[Callable[[], object]], threads: int, seconds: float) -> list[Latency]:
    """Time of each pass, and relative to the first one's; no new round begins after ``seconds``."""
    times: list[list[list[float]]] = [[] for _ in passes]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        end = time.perf_counter() + seconds
        for number in range(MOST_ROUNDS):
            if number >= LEAST_ROUNDS and time.perf_counter() > end:
                break
            for one, rounds in zip(passes, times, strict=True):
                rounds.append(_turn(one))
    finally:
        torch.set_num_threads(before)
    own = [[median(turn) for turn in rounds] for rounds in times]
    return [
        Latency(
            milliseconds=1000 * median(seconds for turn in rounds for seconds in turn),
            percent=100 * median(this / first for this, first in zip(medians, own[0], strict=True)),
        )
        for rounds, medians in zip(times, own, strict=True)
    ]


def after_each_step(network: str, classes: int, params: NeuronPruneParams, steps: int) -> list[LayeredNet]:
    """The unpruned network, and its shape after each step of neuron pruning, up to ``steps``."""
    nets = [networks.fresh(network, classes, seed=0)]
    for left in removals.schedule(params, network)[:steps]:
        smaller = copy.deepcopy(nets[-1])
        removals.shorten(HybridTransferNet(smaller), params, left)
        nets.append(smaller)
    return nets


@torch.inference_mode()
def _turn(one: Callable[[], object]) -> list[float]:
    """Seconds of each timed pass of one turn."""
    for _ in range(WARM_UP):
        one()
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        one()
        seconds.append(time.perf_counter() - started)
    return seconds

"""``python -m benchmarks.packing``: what stages that share a device get done together, next to one that has it alone.

``resources.gpus=0.25`` puts four stages on each GPU. Here so many processes take the guided and masked step of
:mod:`benchmarks.step` for some seconds at the same time. A small net cannot keep a GPU busy by itself; a large one can,
and then nothing is left for others.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import torch

from benchmarks.goals import Goal, show
from benchmarks.step import Bench, Epoch, finish

SECONDS, STEPS = 3.0, 10
PATIENCE = 120
"""Seconds until a silent process is given up."""
NETWORKS = {"small_alexnet": 25, "alexnet": 64}
"""Networks with the smallest batch of the presets."""
Measured = tuple[str, int, float]
"""Network, processes at once, and this one's steps a second."""
TOGETHER = 2.0
"""Four stages of the small net are worth two that have a GPU each, at least."""


def work(
    rank: int, networks: Sequence[str], shares: Sequence[int], device: str, barrier: Barrier, found: "Queue[Measured]"
) -> None:
    """One process: its steps a second for each network, with none, one, ... next to it. It rests if it has no part.

    Starting takes longer than measuring, so each process is started once.
    """
    torch.set_num_threads(1)
    for network in networks:
        bench = Bench(network, NETWORKS[network], STEPS, device)
        epoch = bench.stage(bench.hybrid(), masked=True)
        epoch(1)
        for share in shares:
            finish(device)
            barrier.wait()
            if rank < share:
                found.put((network, share, _rate(epoch, device)))
            barrier.wait()


def _rate(epoch: Epoch, device: str) -> float:
    started, epochs = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        epochs += 1
        epoch(epochs + 1)
        finish(device)
    return epochs * STEPS / (time.perf_counter() - started)


def measure(networks: Sequence[str], device: str, shares: Sequence[int]) -> dict[str, dict[int, float]]:
    """Steps a second of all together, by network and number of processes."""
    context = get_context("spawn")
    barrier, found = context.Barrier(max(shares)), context.Queue()
    workers = [
        context.Process(target=work, args=(rank, networks, shares, device, barrier, found), daemon=True)
        for rank in range(max(shares))
    ]
    for worker in workers:
        worker.start()
    rates: dict[str, dict[int, float]] = {network: dict.fromkeys(shares, 0.0) for network in networks}
    for _ in range(sum(shares) * len(networks)):
        network, share, rate = found.get(timeout=PATIENCE)
        rates[network][share] += rate
    for worker in workers:
        worker.join()
    return rates


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--shares", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="processes at once")
    parser.add_argument("--quick", action="store_true", help="the small net alone")
    options = parser.parse_args()
    shares = sorted({1, 4, *options.shares})
    networks = list(NETWORKS)[: 1 if options.quick else None]
    rates = measure(networks, options.device, shares)
    for network, each in rates.items():
        for share, rate in each.items():
            print(f"  {network:14} {share:3} at once {rate:9.1f} steps/s   {rate / each[1]:6.2f} times one alone")
    small = rates["small_alexnet"]
    return show([Goal("small_alexnet: four stages at once over one alone", small[4] / small[1], ">=", TOGETHER)])


if __name__ == "__main__":
    sys.exit(main())

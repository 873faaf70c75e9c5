"""``python -m benchmarks.export``: how small and fast AlexNet is at 98 % pruned, against the promises.

No trained weights are at hand: the weights are random, pruned by the project's own magnitude pruning to the counts of
the paper's Table 2 (Indoor67), which scatters connections evenly, the worst case for all that removes whole rows.
"""

import argparse
import copy
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.goals import Goal, show
from trainables import latency, networks, neurons, pruning
from trainables.export import choosing, compact
from trainables.export.compact import Stored
from trainables.export.formats import Runtime, WeightType
from trainables.export.unconnected import remove_unconnected
from trainables.hybrid import HybridTransferNet
from trainables.networks import LayeredNet
from trainables.seeds import generator

CLASSES = 67
REMOVED = {"fc6": 2048, "fc7": 1536}
INNER_PRODUCTS = {"fc6": 217_000, "fc7": 52_000, "fc8": 44_000}
CONVOLUTIONS = 784_000
SIZE, FASTER, WHOLE, DIFFERENCE = 40, 5, 1.15, 1e-4


def pruned(network: str) -> tuple[LayeredNet, LayeredNet]:
    """The dense net and the pruned one, its neurons removed and its pruned weights zero."""
    dense = networks.build(network, CLASSES)
    dense.initialise(dense.names, seed=0)
    # Random logits of a net without biases die away with its connections: these keep differences visible.
    for name in dense.names:
        bias = dense.op(name).bias
        assert bias is not None
        nn.init.normal_(bias, std=0.1, generator=generator(0, "bias", name))
    net = copy.deepcopy(dense.eval())
    for layer, count in REMOVED.items():
        neurons.remove(HybridTransferNet(net), {}, layer, torch.arange(count))
    convolutions = {n: w.numel() for n, w in net.weights().items() if isinstance(net.op(n), nn.Conv2d)}
    keep = pruning.apportion(convolutions, CONVOLUTIONS) | INNER_PRODUCTS
    pruning.apply(net, pruning.shrink(net, {}, keep, "magnitude", seed=0))
    return dense, net


def sizes(network: str, net: LayeredNet, dense: LayeredNet) -> dict[WeightType, float]:
    """How many times smaller the file is than the dense weights and biases in float32."""
    reference = sum(parameter.nbytes for parameter in dense.parameters())
    kinds: tuple[WeightType, ...] = ("float32", "float16", "int8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        found = {}
        for kind in kinds:
            path.write_bytes(compact.encode(network, _weights(net, kind), {}))
            found[kind] = reference / path.stat().st_size
            print(f"file, weights in {kind}: {path.stat().st_size:,} bytes; dense float32 {reference:,}")
    return found


@dataclass(frozen=True)
class Pair:
    """The dense net and the pruned one with the kernels that were the fastest, each as a chain."""

    dense: nn.Sequential
    fast: nn.Sequential
    first: int
    """Place of the first inner product."""
    images: Tensor

    @classmethod
    def of(cls, dense: LayeredNet, masked: LayeredNet, runtime: Runtime, batch: int, threads: int) -> "Pair":
        """Choose the kernels, and print what each candidate takes."""
        net = copy.deepcopy(masked)
        remove_unconnected(net)
        choices = choosing.choose(net, _weights(net), runtime, batch, threads)
        for name, choice in choices.items():
            measured = ", ".join(f"{kernel} {time:.3f} ms" for kernel, time in choice.milliseconds.items())
            words = measured or f"{choice.kernel} alone"
            print(f"  {runtime}, batch {batch}, {name}: {words}", flush=True)
        fast = compact.assemble(net, _weights(net), {name: choice.kernel for name, choice in choices.items()})
        first = net.names.index(net.inner_products()[0])
        images = torch.rand(batch, *net.input_shape, generator=generator(0, "images"))
        return cls(compact.assemble(dense, _weights(dense), {}), fast, first, images)

    @torch.inference_mode()
    def measure(self, runtime: Runtime, threads: int, seconds: float) -> list[latency.Latency]:
        """By turns: both nets' inner products and, for one image, the pruned net's convolutions, it, and the dense."""
        features = self.fast[: self.first](self.images)
        parts = [(self.dense[self.first :], features), (self.fast[self.first :], features)]
        if len(self.images) == 1:
            parts += [(self.fast[: self.first], self.images), (self.fast, self.images), (self.dense, self.images)]
        calls = [(choosing.executable(module, runtime, x, threads), x) for module, x in parts]
        return latency.by_turns([partial(call, x) for call, x in calls], threads, seconds)


def goals_of(pair: Pair, masked: LayeredNet, runtime: Runtime, threads: int, seconds: float) -> list[Goal]:
    """Times against the promises, and outputs against the masked net's."""
    found = pair.measure(runtime, threads, seconds)
    times = [f"{time.milliseconds:.2f} ms" for time in found]
    of = f"{runtime}, batch {len(pair.images)}"
    print(f"{of}: inner products {times[0]} dense, {times[1]} pruned", flush=True)
    # Percentages are of the dense inner products' time, by turns.
    faster = 100 / found[1].percent
    if len(times) == 2:
        # The promises are of single images.
        print(f"{of}: inner products {faster:.1f} times faster", flush=True)
        return []
    print(f"{of}: convolutions alone {times[2]}, whole pruned net {times[3]}, whole dense net {times[4]}", flush=True)
    call = choosing.executable(pair.fast, runtime, pair.images, threads)
    with torch.inference_mode():
        right, given = masked(pair.images), call(pair.images)
    largest, difference = float(right.abs().max()), float((right - given).abs().max())
    return [
        Goal(f"{of}: inner products, dense / pruned time", faster, ">=", FASTER),
        Goal(f"{of}: whole net / its convolutions alone, time", found[3].percent / found[2].percent, "<=", WHOLE),
        Goal(f"{of}: difference of outputs (up to {largest:.2g})", difference, "<=", DIFFERENCE),
    ]


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--network", default="bvlc_alexnet", choices=["bvlc_alexnet", "alexnet"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement of whole nets")
    options = parser.parse_args()
    dense, net = pruned(options.network)
    kept = sum(int((weight != 0).sum()) for weight in net.weights().values())
    total = sum(weight.numel() for weight in dense.weights().values())
    print(f"{options.network}: {kept:,} of {total:,} connections, {100 * (1 - kept / total):.1f} % pruned")
    smaller = sizes(options.network, net, dense)
    goals = [Goal(f"file size, dense float32 / {kind}", ratio, ">=", SIZE) for kind, ratio in smaller.items()]
    runtimes: tuple[Runtime, ...] = ("torch", "onnx")
    for runtime in runtimes:
        for batch in (1, 64):
            pair = Pair.of(dense, net, runtime, batch, options.threads)
            goals += goals_of(pair, net, runtime, options.threads, options.seconds)
    return show(goals)


def _weights(net: LayeredNet, kind: WeightType = "float32") -> dict[str, Stored]:
    return {name: Stored.of(net.op(name), kind) for name in net.names}


if __name__ == "__main__":
    sys.exit(main())

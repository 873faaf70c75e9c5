"""``python -m benchmarks.export``: how small and fast AlexNet is at 98 % pruned, against the promises.

No trained weights are at hand: the weights are random, pruned by the project's own magnitude pruning to the counts of
the paper's Table 2 (Indoor67), which scatters connections evenly, the worst case for all that removes whole rows.
"""

import argparse
import copy
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.goals import Goal, show
from trainables import choosing, compact, latency, networks, neurons, pruning
from trainables.choosing import Runtime
from trainables.compact import Stored, WeightType
from trainables.hybrid import HybridTransferNet
from trainables.networks import LayeredNet
from trainables.seeds import generator
from trainables.unconnected import remove_unconnected

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


@dataclass(frozen=True)
class Times:
    """Milliseconds of a pass: of the dense net and its inner products, and of the pruned one, its parts too."""

    dense: float
    dense_inner_products: float
    whole: float
    convolutions: float
    inner_products: float
    whole_to_convolutions: float
    """Ratio, median over rounds."""
    kernels: dict[str, str]
    difference: float
    largest: float


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


@torch.inference_mode()
def times(dense: LayeredNet, masked: LayeredNet, runtime: Runtime, batch: int, threads: int, seconds: float) -> Times:
    """Measure both nets and their parts by turns."""
    net = copy.deepcopy(masked)
    remove_unconnected(net)
    choices = choosing.choose(net, _weights(net), runtime, batch, threads)
    kernels = {name: choice.kernel for name, choice in choices.items()}
    for name, choice in choices.items():
        print(f"  {runtime}, batch {batch}, {name}: " + _words(choice.milliseconds))
    fast = compact.assemble(net, _weights(net), kernels)
    slow = compact.assemble(dense, _weights(dense), {})
    first = next(place for place, name in enumerate(net.names) if name in net.inner_products())
    images = torch.rand(batch, *net.input_shape, generator=generator(0, "images"))
    features = fast[:first](images)
    parts: list[tuple[nn.Module, Tensor]] = [
        (fast[:first], images), (fast, images), (fast[first:], features), (slow, images), (slow[first:], features),
    ]  # fmt: skip
    calls = [(choosing.executable(module, runtime, x, threads), x) for module, x in parts]
    convolutions, whole, inner, dense_whole, dense_inner = latency.by_turns(
        [lambda call=call, x=x: call(x) for call, x in calls],  # type: ignore[misc]
        threads,
        seconds,
    )
    right, given = masked(images), calls[1][0](images)
    return Times(
        dense=dense_whole.milliseconds,
        dense_inner_products=dense_inner.milliseconds,
        whole=whole.milliseconds,
        convolutions=convolutions.milliseconds,
        inner_products=inner.milliseconds,
        whole_to_convolutions=whole.percent / 100,
        kernels=kernels,
        difference=float((right - given).abs().max()),
        largest=float(right.abs().max()),
    )


def main() -> int:
    """Measure, print, and give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--network", default="caffenet", choices=["caffenet", "alexnet"])
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
            found = times(dense, net, runtime, batch, options.threads, options.seconds)
            print(
                f"{runtime}, batch {batch}: dense {found.dense:.2f} ms, of it inner products "
                f"{found.dense_inner_products:.2f}; pruned {found.whole:.2f} ms, convolutions alone "
                f"{found.convolutions:.2f}, inner products {found.inner_products:.2f} ({found.kernels})"
            )
            faster = found.dense_inner_products / found.inner_products
            of = f"{runtime}, batch {batch}"
            if batch == 1:
                goals += [
                    Goal(f"{of}: inner products, dense / pruned time", faster, ">=", FASTER),
                    Goal(f"{of}: whole net / its convolutions alone", found.whole_to_convolutions, "<=", WHOLE),
                ]
            goals.append(Goal(f"{of}: outputs (up to {found.largest:.2g})", found.difference, "<=", DIFFERENCE))
    return show(goals)


def _weights(net: LayeredNet, kind: WeightType = "float32") -> dict[str, Stored]:
    return {name: Stored.of(net.op(name), kind) for name in net.names}


def _words(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {time:.3f} ms" for name, time in milliseconds.items())


if __name__ == "__main__":
    sys.exit(main())

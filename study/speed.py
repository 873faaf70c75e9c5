"""How small and fast the nets of a study are once exported: size, arithmetic, and measured time side by side."""

import copy
import json
from typing import Any

import pyarrow as pa
import torch

from study import schema
from study.config import ConfigError
from study.storage import Storage
from study.stored_nets import StoredNet, connections, open_net, study_nets
from trainables import latency
from trainables.export import choosing, compact
from trainables.export.compact import Stored
from trainables.export.formats import Runtime
from trainables.export.unconnected import remove_unconnected
from trainables.networks import LayeredNet, output_positions
from trainables.seeds import generator

BATCHES = (1, 64)
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx")
SECONDS_A_NET = 6.0
"""All nets are measured by turns, about so long a net, runtime and batch."""


def compare(storage: Storage, study: str, threads: int) -> pa.Table:
    """One row for each net, runtime and batch; see :data:`study.schema.NETS`.

    Raises:
        ConfigError, StorageError: no such study, or it has no complete nets.
    """
    keys = study_nets(storage, study)
    if not any(name.startswith("Standard") for name in keys):
        raise ConfigError(f"study {study} has no complete Standard-TransferNet to compare with: run it first")
    nets = {name: open_net(storage, key) for name, key in keys.items()}
    if traced := [stored.network for stored in nets.values() if stored.net.is_traced]:
        raise ConfigError(f"the nets of {study} are {traced[0]}: kernels are compared only for the paper's networks")
    small = {name: _without_cut_off(stored.net) for name, stored in nets.items()}
    about = {name: _about(name, stored, small[name]) for name, stored in nets.items()}
    rows: list[dict[str, Any]] = []
    for runtime in RUNTIMES:
        for batch in BATCHES:
            timed = _measure(small, runtime, batch, threads)
            rows += [{**about[name], "runtime": runtime, "batch": batch, **timed[name]} for name in nets]
    return schema.table("nets", rows)


def describe(table: pa.Table) -> str:
    """The table as text, one line per net; nets slower than the unpruned Standard-TransferNet are marked."""
    head = f"{'net':28} {'kept %':>7} {'neurons':>8} {'MMACs':>8} {'KiB':>9} {'smaller':>8}"
    head += "".join(f" {f'{runtime}, {batch}':>19}" for runtime in RUNTIMES for batch in BATCHES)
    lines = [f"{head}   (runtime, batch: ms and % of Standard-TransferNet's)"]
    by_net: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        by_net.setdefault(row["net"], []).append(row)
    for net, rows in by_net.items():
        first = rows[0]
        line = f"{net:28} {100 - first['prune_percent']:7.2f} {first['neurons']:8,} {first['macs'] / 1e6:8.2f}"
        line += f" {first['bytes'] / 1024:9,.1f} {first['bytes_dense'] / first['bytes']:7.1f}x"
        times = [f"{row['milliseconds']:.3f} {row['percent_of_standard']:4.0f} %" for row in rows]
        line += "".join(f" {time:>19}" for time in times)
        slower = [f"{row['runtime']}, {row['batch']}" for row in rows if row["percent_of_standard"] > 100]
        if slower and first["prune_percent"] > 0:
            line += f"   slower: {'; '.join(slower)}"
        lines.append(line)
    return "\n".join(lines)


def multiply_accumulates(net: LayeredNet) -> int:
    """Multiply-accumulates of one image, counting the connections that are left: each once a place it is applied at."""
    positions = output_positions(net)
    return sum(int((net.op(name).weight != 0).sum()) * positions[name] for name in net.names)


def _without_cut_off(net: LayeredNet) -> LayeredNet:
    net = copy.deepcopy(net)
    remove_unconnected(net)
    return net


def _about(name: str, stored: StoredNet, net: LayeredNet) -> dict[str, Any]:
    left = connections(net)
    return {
        "net": name,
        "stage": stored.key,
        "connections": left,
        "prune_percent": 100 * (1 - left / stored.dense_connections),
        "neurons": sum(len(net.op(layer).weight) for layer in net.inner_products()),
        "macs": multiply_accumulates(net),
        "bytes": len(compact.encode(stored.network, _weights(net), {})),
        "bytes_dense": stored.dense_bytes,
    }


def _weights(net: LayeredNet) -> dict[str, Stored]:
    return {name: Stored.of(net.op(name), "float32") for name in net.names}


def _measure(nets: dict[str, LayeredNet], runtime: Runtime, batch: int, threads: int) -> dict[str, dict[str, Any]]:
    kernels, calls = {}, []
    for name, net in nets.items():
        choices = choosing.choose(net, _weights(net), runtime, batch, threads)
        kernels[name] = {layer: choice.kernel for layer, choice in choices.items()}
        chain = compact.assemble(net, _weights(net), kernels[name])
        images = torch.rand(batch, *net.input_shape, generator=generator(0, "latency"))
        call = choosing.executable(chain, runtime, images, threads)
        calls.append(lambda call=call, images=images: call(images))
    standard = next(position for position, name in enumerate(nets) if name.startswith("Standard"))
    # Percentages are of the first one's time.
    order = [standard, *(position for position in range(len(nets)) if position != standard)]
    times = latency.by_turns([calls[position] for position in order], threads, SECONDS_A_NET * len(nets))
    return {name: _timed(kernels[name], times[order.index(position)]) for position, name in enumerate(nets)}


def _timed(kernels: dict[str, str], time: latency.Latency) -> dict[str, Any]:
    return {
        "kernels": json.dumps(kernels),
        "milliseconds": time.milliseconds,
        "percent_of_standard": time.percent,
    }

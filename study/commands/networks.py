"""``study.networks``: a network's layers."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from study.answers import LayerRecord, NetworkLayers
from study.command import OK, reply
from study.config import ConfigError
from trainables import channels, networks
from trainables.layers import LayeredNet, StochasticDepth, output_positions

FROM_THE_TOP = (
    "From the top: with N_m of a layer's number or more it starts dense and random in the transfer; with N_e of its "
    "number or more the extra branch has a copy of it."
)


def main(options: argparse.Namespace) -> int:
    """Run the command. Return the exit status."""
    name = str(options.name)
    if (problem := networks.problem(name)) is not None:
        raise ConfigError(problem)
    net = networks.build(name, options.classes)
    positions = output_positions(net)
    if options.json:
        reply(options, NetworkLayers(network=name, input_shape=[*net.input_shape], layers=records(net, positions)))
        return OK
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    console.print(_layers(net, positions))
    console.print("\n".join(describe(name, net, positions)), soft_wrap=True, markup=False)
    return OK


def records(net: LayeredNet, positions: dict[str, int]) -> list[LayerRecord]:
    """The layers, from the input to the output."""
    found = []
    for index, name in enumerate(net.names, start=1):
        weights = {weight: home.tensor for weight, home in net.layer(name).connections(name).items()}
        known = all(weight in positions for weight in weights)
        found.append(
            LayerRecord(
                layer=index,
                from_the_top=len(net.names) - index + 1,
                name=name,
                shapes={weight: list(tensor.shape) for weight, tensor in weights.items()},
                connections=sum(tensor.numel() for tensor in weights.values()),
                multiply_adds=sum(t.numel() * positions[weight] for weight, t in weights.items()) if known else None,
            )
        )
    return found


def describe(name: str, net: LayeredNet, positions: dict[str, int]) -> list[str]:
    """What a study has to know of the network, in lines."""
    connections = {weight: tensor.numel() for weight, tensor in net.weights().items()}
    products = sum(count * positions.get(weight, 0) for weight, count in connections.items())
    lines = [
        f"{name}: N = {len(net.names)}, {sum(connections.values()):,} connections, {products:,} multiply-adds for an "
        f"image of {' x '.join(map(str, net.input_shape))} (channels, height, width), {net.classes} classes",
        FROM_THE_TOP,
    ]
    hidden = net.hidden_inner_products()
    removable = f"Neurons can be removed from {', '.join(hidden)}." if hidden else "It has no hidden inner products."
    lines.append(
        removable + ("" if hidden else " A study of it sets neuron_prune to null, or channels_per_step in it.")
    )
    lines += _channels(name)
    dropouts = [one for layer in net.dropouts().values() for one in layer if one.p]
    depth = sum(isinstance(one, StochasticDepth) for one in dropouts)
    rates = sorted({one.p for one in dropouts if not isinstance(one, StochasticDepth)})
    if rates:
        lines.append(f"Its dropout has the rate {', '.join(f'{rate:g}' for rate in rates)}: dropout: null keeps that.")
    if depth:
        lines.append(f"It drops {depth} branches of residual blocks at random (stochastic depth), at its own rates.")
    if networks.normalises_batches(name):
        lines.append("It normalises batches (BatchNorm), so that they have to be seen whole: one worker, one pass.")
    return lines


def _channels(name: str) -> list[str]:
    """What channels_per_step would remove, if that can be told."""
    if not channels.installed():
        return []
    widths = channels.widths(name)
    if not widths:
        return ["No channels can be removed by themselves."]
    return [f"{sum(widths.values()):,} channels can be removed (channels_per_step), set by {', '.join(widths)}."]


def _layers(net: LayeredNet, positions: dict[str, int]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("layer", "from the top"):
        table.add_column(title, justify="right")
    for title in ("name", "connections", "shape"):
        table.add_column(title, overflow="fold")
    for title in ("number", "multiply-adds"):
        table.add_column(title, justify="right")
    for index, name in enumerate(net.names, start=1):
        where = [str(index), str(len(net.names) - index + 1), name]
        for weight, home in net.layer(name).connections(name).items():
            size = home.tensor.numel()
            products = f"{size * positions[weight]:,}" if weight in positions else "?"
            table.add_row(*where, weight, " x ".join(map(str, home.tensor.shape)), f"{size:,}", products)
            where = ["", "", ""]
    return table

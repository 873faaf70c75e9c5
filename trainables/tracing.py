"""Any ``nn.Module`` as a chain of layers, without a line of code for it.

The net is traced with torch.fx and cut wherever a single tensor carries everything. A *layer* is what lies between two
cuts and has at least one weighted operation in it: of AlexNet each convolution and inner product, of ResNet each
residual block, of a transformer each attention and each MLP. Normalisation and its statistics, embeddings and biases
belong to the layer that uses them and go wherever it goes. Tensors keep their names in the net's own state dict, under
which pretrained ones come, and under which they are stored.

Dropout and stochastic depth are exchanged for modules with generators of their own, so that comparisons are paired and
a resumed training draws what an undisturbed one draws.
"""

import copy
import inspect
import itertools
import operator
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from trainables.layers import ChannelDropout, Dropout, Home, Layer, LayeredNet, StochasticDepth

WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)
"""Modules whose weights are connections."""
NEXT = (Dropout, nn.Flatten)
"""What belongs to the layer that follows, as dropout before an inner product does."""
NEURONWISE = (nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Tanh, nn.Identity, Dropout, nn.Flatten)
"""What leaves a neuron's value to itself: neurons can be removed from an inner product between only such."""

BATCH = 3
"""Images that shapes are found for: few tensors have this size in their first dimension."""

Connections = dict[str, str]
"""Names of connections, by the names of their weights in the net's own state dict."""


class TracedLayer(Layer):
    """A piece of a traced net."""

    def __init__(self, piece: fx.GraphModule, connections: Connections) -> None:
        super().__init__()
        self.piece = piece
        self.own = connections

    def forward(self, x: Tensor) -> Tensor:
        """Output of the piece."""
        result: Tensor = self.piece(x)
        return result

    def tensors(self, name: str) -> dict[str, Home]:
        """Its parameters and buffers, by their names in the net's own state dict."""
        return dict(_homes(self.piece))

    def connections(self, name: str) -> dict[str, Home]:
        """Its connection weights, by the names of their modules."""
        homes = dict(_homes(self.piece))
        return {self.own[key]: homes[key] for key in self.own}

    @property
    def is_inner_product(self) -> bool:
        """Whether it is one inner product, with nothing around it that mixes neurons."""
        called = [node for node in self.piece.graph.nodes if node.op not in ("placeholder", "output")]
        modules = [self.piece.get_submodule(node.target) for node in called if node.op == "call_module"]
        others = [node for node in called if node.op != "call_module" and node.target is not torch.flatten]
        products = [module for module in modules if isinstance(module, nn.Linear)]
        return len(products) == 1 and not others and all(isinstance(m, (nn.Linear, *NEURONWISE)) for m in modules)


def cut(name: str, net: nn.Module, input_shape: tuple[int, int, int]) -> LayeredNet:
    """The net as a chain of layers; its tensors stay the same objects.

    Args:
        name: what the network is called in errors.
        net: any module that takes a batch of images and returns class scores.
        input_shape: channels, height and width of the images.

    Raises:
        ValueError: it cannot be traced, cut or trained here; the message states where and what would help.
    """
    _own_randomness(name, net)
    graph = _traced(name, net)
    _count_images_anew(graph, _shapes(name, net, graph, input_shape))
    shapes = _shapes(name, net, graph, input_shape)
    names = _connection_names(net)
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    cuts = _cuts(net, graph, nodes, shapes, names)
    if len(cuts) < 3:
        raise ValueError(f"{name} is one layer: nowhere between its weights does a single tensor carry everything")
    layers = [
        TracedLayer(piece, {key: names[key] for key in _owned(piece) if key in names})
        for piece in (_piece(net, nodes[a:b], start, end) for (a, start), (b, end) in itertools.pairwise(cuts))
    ]
    _require_own_tensors(name, layers)
    return LayeredNet(list(zip(_layer_names(layers), layers, strict=True)), input_shape)


def _own_randomness(name: str, net: nn.Module) -> None:
    """Exchange the net's dropout for such that draws from generators of its own."""
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.MultiheadAttention) and module.dropout:
            raise ValueError(
                f"{name}: the attention {path} has dropout of its own, which cannot be seeded: set it to 0"
            )
        own = _seeded(name, path, module)
        if own is not None:
            net.set_submodule(path, own)


def _seeded(name: str, path: str, module: nn.Module) -> Dropout | None:
    if isinstance(module, Dropout):
        return None
    if type(module) is nn.Dropout:
        return Dropout(module.p)
    if isinstance(module, nn.Dropout1d | nn.Dropout2d | nn.Dropout3d):
        return ChannelDropout(module.p)
    if isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout):
        raise ValueError(f"{name}: {path} is a {type(module).__name__}, which cannot be seeded: use nn.Dropout")
    # Told by their names: torchvision takes a second to import, and timm need not be there.
    if type(module).__name__ == "StochasticDepth":
        if module.mode != "row":
            raise ValueError(f"{name}: {path} drops its branch for a whole batch: only mode='row' can be seeded")
        return StochasticDepth(float(getattr(module, "p", 0.0)))
    if type(module).__name__ == "DropPath":
        return StochasticDepth(float(getattr(module, "drop_prob", 0.0) or 0.0))
    return None


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self.whole, self.within = whole, [""]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Weighted operations, and what has none in it: a trace would freeze there whether the net is training."""
        return (
            super().is_leaf_module(m, module_qualified_name)
            or isinstance(m, WEIGHTED)
            or module_qualified_name in self.whole
            or not any(isinstance(part, WEIGHTED) for part in m.modules())
        )

    def call_module(self, m: nn.Module, forward: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        self.within.append(self.path_of_module(m))
        result = super().call_module(m, forward, args, kwargs)  # type: ignore[arg-type]
        self.within.pop()
        return result


def _traced(name: str, net: nn.Module) -> fx.Graph:
    """The net's graph; a module whose program depends on its input, or on training, is one node, whatever it holds."""
    _, *more = inspect.signature(net.forward).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in more if parameter.default is not parameter.empty}
    whole: set[str] = set()
    was_training = net.training
    while True:
        graphs = []
        try:
            for training in (True, False):
                tracer = _Tracer(whole)
                graphs.append(tracer.trace(net.train(training), defaults))
        except (fx.proxy.TraceError, TypeError) as error:
            if not (module := tracer.within[-1]):
                remedy = "move what depends on it into a module of its own, which is then taken whole"
                raise ValueError(f"{name}: its forward depends on its input ({error}): {remedy}") from error
        else:
            if (node := _other_in_training(*graphs)) is None:
                return _of_images_alone(name, graphs[0])
            around = [path for path in node.meta.get("nn_module_stack", {}) if path not in whole]
            if not (module := around[-1] if around else ""):
                remedy = "move it into a module of its own, or turn it off (auxiliary classifiers: ?aux_logits=false)"
                raise ValueError(f"{name}: its forward computes something else in training ({node.name}): {remedy}")
        finally:
            net.train(was_training)
        whole.add(module)


def _of_images_alone(name: str, graph: fx.Graph) -> fx.Graph:
    """The graph without the other arguments of the net's forward, which have their defaults, and checks of these."""
    _, *others = (node for node in graph.nodes if node.op == "placeholder")
    unwanted = dict.fromkeys(others)
    for node in graph.nodes:
        if any(one in unwanted for one in node.all_input_nodes):
            unwanted[node] = None
    for node in reversed(unwanted):
        if node.users:
            raise ValueError(f"{name}: its forward takes more than images ({node.name})")
        graph.erase_node(node)
    return graph


def _other_in_training(training: fx.Graph, evaluating: fx.Graph) -> fx.Node | None:
    """The first node that is another one in evaluation."""
    for one, other in itertools.zip_longest(training.nodes, evaluating.nodes):
        if one is None or other is None or _program(one) != _program(other):
            first: fx.Node | None = one if one is not None else other
            return first
    return None


def _program(node: fx.Node) -> tuple[object, ...]:
    return node.op, node.target, str(node.args), str(node.kwargs)


def _shapes(name: str, net: nn.Module, graph: fx.Graph, input_shape: tuple[int, int, int]) -> dict[fx.Node, torch.Size]:
    """Shapes of the nodes that return a single tensor. On the meta device nothing is computed, and statistics stay."""
    propagated = copy.deepcopy(fx.GraphModule(net, graph)).to("meta").eval()
    try:
        # It prints what it raises.
        with torch.device("meta"), redirect_stderr(StringIO()):
            ShapeProp(propagated).propagate(torch.empty(BATCH, *input_shape, device="meta"))
    except Exception as error:  # the module is the user's own: it may raise anything
        shape = " x ".join(map(str, input_shape))
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{name} cannot take images of {shape} (channels, height, width): {reason}") from error
    nodes = zip(graph.nodes, propagated.graph.nodes, strict=True)
    found = ((node, getattr(shaped.meta.get("tensor_meta"), "shape", None)) for node, shaped in nodes)
    return {node: shape for node, shape in found if shape is not None}


def _count_images_anew(graph: fx.Graph, shapes: dict[fx.Node, torch.Size]) -> None:
    """Take the number of images from the tensor at hand: kept from far below, it would be a second thing to carry."""
    for node in list(graph.nodes):
        if not _counts_images(node, shapes):
            continue
        for user in list(node.users):
            here = [one for one in user.all_input_nodes if one in shapes and shapes[one][:1] == (BATCH,)]
            if here and here[0] is not node.args[0]:
                with graph.inserting_before(user):
                    user.replace_input_with(node, graph.call_method("size", (here[0], 0)))
    graph.eliminate_dead_code()


def _counts_images(node: fx.Node, shapes: dict[fx.Node, torch.Size]) -> bool:
    """Whether a node is ``x.size(0)`` or ``x.shape[0]`` of a tensor whose first dimension are the images."""
    source = node.args[0] if node.args else None
    if node.op == "call_function" and node.target is operator.getitem and node.args[1] == 0:
        assert isinstance(source, fx.Node)
        is_shape = (source.target is getattr and source.args[1] == "shape") or source.target == "size"
        source = source.args[0] if is_shape else None
    elif node.target != "size" or node.args[1:] != (0,):
        return False
    return isinstance(source, fx.Node) and shapes.get(source, ())[:1] == (BATCH,)


def _connection_names(net: nn.Module) -> Connections:
    """The name of each connection weight, by that in the state dict: its module's, if it is called weight."""
    found = {}
    for path, module in net.named_modules():
        if isinstance(module, WEIGHTED):
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.ndim > 1 and key.endswith("weight"):
                    weight = f"{path}.{key}".lstrip(".")
                    found[weight] = weight.removesuffix(".weight")
    return found


def _cuts(
    net: nn.Module, graph: fx.Graph, nodes: list[fx.Node], shapes: dict[fx.Node, torch.Size], names: Connections
) -> list[tuple[int, fx.Node]]:
    """Where the net is cut: positions in ``nodes``, and the node whose tensor carries everything there."""
    entry = next(node for node in graph.nodes if node.op == "placeholder")
    (last,) = (node for node in graph.nodes if node.op == "output")
    position = {node: index for index, node in enumerate(nodes)}
    until = {n: max((position.get(user, len(nodes)) for user in n.users), default=-1) for n in [entry, *nodes]}

    def carriers() -> Iterator[fx.Node | None]:
        """Before each node, the one tensor that is alive, if there is but one value."""
        alive = [entry]
        for index, node in enumerate(nodes):
            alive = [one for one in alive if until[one] >= index]
            yield alive[0] if len(alive) == 1 and alive[0] in shapes else None
            alive.append(node)

    only = list(carriers())
    weighted = [index for index, node in enumerate(nodes) if _has_connections(net, node, names)]
    cuts = [(0, entry)]
    for before, after in itertools.pairwise(weighted):
        places = [(index, carrier) for index in range(before + 1, after + 1) if (carrier := only[index]) is not None]
        if places:
            stop = next((index for index in range(before + 1, after) if _goes_up(net, nodes[index])), after)
            cuts.append(max(((i, c) for i, c in places if i <= stop), key=lambda place: place[0], default=places[0]))
    result = last.args[0]
    assert isinstance(result, fx.Node)
    return [*cuts, (len(nodes), result)]


def _has_connections(net: nn.Module, node: fx.Node, names: Connections) -> bool:
    if node.op == "call_module":
        assert isinstance(node.target, str)
        return any(f"{node.target}.{key}" in names for key in net.get_submodule(node.target).state_dict())
    return any(one.op == "get_attr" and one.target in names for one in node.all_input_nodes)


def _goes_up(net: nn.Module, node: fx.Node) -> bool:
    """Whether a node belongs to the layer that follows."""
    if node.op == "call_module":
        assert isinstance(node.target, str)
        return isinstance(net.get_submodule(node.target), NEXT)
    return bool(node.target in (torch.flatten, "flatten"))


def _piece(net: nn.Module, nodes: list[fx.Node], start: fx.Node, end: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copied = {start: graph.placeholder("x")}

    def of(node: fx.Node) -> fx.Node:
        if node not in copied and node.op == "get_attr":  # tensors of the net itself are where they are used
            copied[node] = graph.node_copy(node, of)
        return copied[node]

    for node in nodes:
        copied[node] = graph.node_copy(node, of)
    graph.output(of(end))
    return fx.GraphModule(net, graph)  # takes only what its graph names


def _homes(piece: nn.Module) -> Iterator[tuple[str, Home]]:
    for path, module in piece.named_modules():
        kept = set(module.state_dict())
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        yield from ((f"{path}.{key}".lstrip("."), Home(module, key)) for key, _ in own if key in kept)


def _owned(piece: nn.Module) -> list[str]:
    return [key for key, _ in _homes(piece)]


def _require_own_tensors(name: str, layers: list[TracedLayer]) -> None:
    """Refuse tensors that two layers share: each would train, prune and store a copy of its own."""
    users: dict[int, str] = {}
    for layer in layers:
        homes = {id(home.tensor): key for key, home in _homes(layer.piece)}
        if shared := homes.keys() & users.keys():
            raise ValueError(f"{name}: two of its layers share {users[shared.pop()]}, which cannot be pruned")
        users |= homes


def _layer_names(layers: list[TracedLayer]) -> list[str]:
    """What the modules of each layer's connections have in common, if no other layer has it too."""
    owned = [list(layer.own.values()) for layer in layers]
    common = [".".join(itertools.takewhile(bool, _shared_parts(names))) for names in owned]
    return [name if name and common.count(name) == 1 else names[0] for name, names in zip(common, owned, strict=True)]


def _shared_parts(names: list[str]) -> Iterator[str]:
    for parts in zip(*(name.split(".") for name in names), strict=False):
        if len(set(parts)) > 1:
            return
        yield parts[0]

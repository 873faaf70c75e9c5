"""Horizontally fused training (HFTA, Wang et al. 2021): several nets of one shape on the same batches, as one net.

A layer of all the nets is one operation: one convolution with a group a net, one batched inner product. Everything
else in a net has no weights, so it serves the fused net as it is. All tensors have a row for each image and net, in the
order image 0 of every net, image 1 of every net, and so on; so a layer has to treat each of its rows alone.

Worth it where an operation takes less time than starting it does: ``benchmarks/README.md`` says what it is worth on a
CPU.
"""

import copy
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from trainables.hybrid import HybridTransferNet, extra_loss, main_loss
from trainables.images import Views
from trainables.networks import Dropout, LayeredNet, WeightedLayer
from trainables.sessions import State
from trainables.training import DivergedError, Training, descend

MOMENTUM = "momentum_buffer"
"""Where SGD keeps a parameter's momentum."""


class UnlikeError(ValueError):
    """These trainings cannot be fused."""


class FusedConv2d(nn.Conv2d):
    """The same convolution of several nets; where ``shared``, all of them see the same images, given once."""

    def __init__(self, ops: Sequence[nn.Conv2d], shared: bool) -> None:
        op, nets = ops[0], len(ops)
        # Of one image without groups, all filters of all nets can be taken in one group: nothing is copied.
        copies, groups = (1, 1) if shared and op.groups == 1 else (nets, nets * op.groups)
        super().__init__(
            copies * op.in_channels,
            nets * op.out_channels,
            op.kernel_size,  # type: ignore[arg-type]
            op.stride,  # type: ignore[arg-type]
            op.padding,  # type: ignore[arg-type]
            op.dilation,  # type: ignore[arg-type]
            groups,
            op.bias is not None,
            op.padding_mode,
        )
        self.nets, self.copies, self.shared = nets, copies, shared

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(images * nets, out, h, w)`` of rows ``(images * nets, in, h, w)``, or of images if shared."""
        x = x.repeat(1, self.copies, 1, 1) if self.shared else x.unflatten(0, (-1, self.nets)).flatten(1, 2)
        rows: Tensor = super().forward(x).unflatten(1, (self.nets, -1)).flatten(0, 1)
        return rows


class FusedLinear(nn.Linear):
    """The same inner product of several nets; where ``shared``, all of them see the same images, given once."""

    def __init__(self, ops: Sequence[nn.Linear], shared: bool) -> None:
        super().__init__(ops[0].in_features, len(ops) * ops[0].out_features, ops[0].bias is not None)
        self.nets, self.shared = len(ops), shared

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(images * nets, out)`` of rows ``(images * nets, in)``, or of images if shared."""
        rows = x.expand(self.nets, *x.shape) if self.shared else x.unflatten(0, (-1, self.nets)).transpose(0, 1)
        product = torch.bmm(rows, self.weight.unflatten(0, (self.nets, -1)).mT).transpose(0, 1)
        if self.bias is not None:
            product = product + self.bias.unflatten(0, (self.nets, -1))
        result: Tensor = product.flatten(0, 1)
        return result


class FusedDropout(nn.Module):
    """Dropout with the noise that each net draws when it is trained alone."""

    def __init__(self, dropouts: Sequence[Dropout]) -> None:
        super().__init__()
        # Not as modules: they stay the nets' own, which seed them.
        self._dropouts = tuple(dropouts)

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(images * nets, ...)``, each with its net's noise while training."""
        if not self.training or not any(dropout.rate for dropout in self._dropouts):
            return x
        images = len(x) // len(self._dropouts)
        return x * torch.stack([dropout.noise(x, images) for dropout in self._dropouts], dim=1).flatten(0, 1)


def fuse(nets: Sequence[LayeredNet], *, shared: bool) -> LayeredNet:
    """One net of several, whose weights are theirs: theirs become views of its own.

    Args:
        nets: of one shape.
        shared: they see the same images, which are then given once; otherwise one row a net.
    """
    layers = []
    for number, name in enumerate(nets[0].names):
        parts = [net.layer(name) for net in nets]
        layers.append((name, _fused_layer(parts, shared and number == 0)))
    fused = LayeredNet(layers, nets[0].input_shape)
    for own, parameters in _shares(fused, nets):
        _share(own, parameters)
    return fused


def _shares(fused: LayeredNet, nets: Sequence[LayeredNet]) -> Iterator[tuple[nn.Parameter, list[nn.Parameter]]]:
    """Each parameter of a fused net, and those that are its parts."""
    for layer in fused.names:
        for name, own in fused.op(layer).named_parameters():
            yield own, [net.op(layer).get_parameter(name) for net in nets]


def _fused_layer(layers: Sequence[WeightedLayer], shared: bool) -> WeightedLayer:
    fused = copy.deepcopy(layers[0])
    for name, module in list(fused.named_modules()):
        if isinstance(module, Dropout):
            same = [layer.get_submodule(name) for layer in layers]
            fused.set_submodule(name, FusedDropout([part for part in same if isinstance(part, Dropout)]))
    ops = [layer.op for layer in layers]
    convolutions = [op for op in ops if isinstance(op, nn.Conv2d)]
    if convolutions:
        fused.op = FusedConv2d(convolutions, shared)
    else:
        fused.op = FusedLinear([op for op in ops if isinstance(op, nn.Linear)], shared)
    return fused


def _share(fused: nn.Parameter, parts: Sequence[nn.Parameter]) -> None:
    """Make the fused parameter hold its parts' values, and the parts views of it."""
    fused.data = torch.cat([part.data for part in parts]).contiguous()
    for part, view in zip(parts, fused.data.chunk(len(parts)), strict=True):
        part.data = view


class FusedTraining:
    """Several trainings as one, each doing what it does alone, but for rounding.

    Sums are taken in another order, as with another memory layout, and what that rounds differently grows with epochs.
    The trainings' nets are trained in place, and their histories grow, as if each ran alone. A net that diverges does
    not touch the others.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        """Fuse trainings that have not begun in this process.

        Raises:
            UnlikeError: they are not of one shape, or do not see the same batches in the same order.
        """
        _require_alike(trainings)
        self.trainings, first = list(trainings), trainings[0]
        mains = [training.net.main for training in trainings]
        extras = [training.net.extra for training in trainings if training.net.extra is not None]
        main = fuse(mains, shared=True)
        self.net = HybridTransferNet(main, fuse(extras, shared=False) if extras else None)
        self._parameters = list(_shares(main, mains))
        if self.net.extra is not None:
            self._parameters += _shares(self.net.extra, extras)
        self.masks = _fused_masks(trainings)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), momentum=first.config.momentum, weight_decay=first.config.weight_decay
        )
        device = first.images.device
        guides = [training.knowledge for training in trainings if training.knowledge is not None]
        self._weights = torch.tensor([guide.weight for guide in guides], device=device)
        self._taus = torch.tensor([guide.config.tau for guide in guides], device=device)
        self.failed: dict[int, DivergedError] = {}
        """Why a training ended, by its place among them."""

    def run(self) -> None:
        """Train all epochs that are not in the checkpoints, unless all nets diverge; ``failed`` says which have.

        The first training's session is told of each epoch and says when it is time for checkpoints. Each training has
        its own, from which it can go on alone as well.

        Raises:
            UnlikeError: some trainings have got further than others.
        """
        lead = self.trainings[0]
        for epoch in range(self._resume() + 1, lead.config.epochs + 1):
            self.train(epoch)
            alive = [training for place, training in enumerate(self.trainings) if place not in self.failed]
            if not alive:
                return
            lead.session.checkpoint_together([(training.session, self._state_of(training)) for training in alive])
            if lead in alive:
                lead.session.report({**lead.history[-1], "epochs": lead.config.epochs})

    def _resume(self) -> int:
        """Take over the checkpoints, if there are any; gives the epochs already trained."""
        epochs = {training.resume() for training in self.trainings}
        if len(epochs) > 1:
            raise UnlikeError("these trainings cannot be fused: some have got further than others")
        for own, parts in self._parameters:
            states = [training.optimizer.state[part] for training, part in zip(self.trainings, parts, strict=True)]
            if any(state.get(MOMENTUM) is not None for state in states):
                self.optimizer.state[own][MOMENTUM] = torch.cat([state[MOMENTUM] for state in states])
        return epochs.pop()

    def _state_of(self, training: Training) -> State:
        """State of one training, in tensors of its own: views would be stored with all that they are views of."""

        def state() -> dict[str, Any]:
            place = self.trainings.index(training)
            for own, parts in self._parameters:
                if (momentum := self.optimizer.state[own].get(MOMENTUM)) is not None:
                    part = momentum.chunk(len(self.trainings))[place]
                    training.optimizer.state[parts[place]][MOMENTUM] = part.clone()
            own_state = training.state()
            return {**own_state, "net": {name: tensor.clone() for name, tensor in own_state["net"].items()}}

        return state

    def train(self, epoch: int) -> None:
        """Train all nets one epoch, counted from 1, and append a row to the history of each that has not diverged."""
        first, nets = self.trainings[0], len(self.trainings)
        for training in self.trainings:
            training.seed_dropout(epoch)
        batches, views = first.batches(epoch)
        stream = first.images.stream((batch, views.placement[batch]) for batch in batches)
        sums = torch.zeros(3, nets, dtype=torch.float64, device=first.images.device)
        squares = torch.zeros(2, nets, dtype=torch.float64, device=first.images.device)
        self.net.train()
        for step, (batch, seen) in enumerate(zip(batches, stream, strict=True)):
            rate = first.learning_rate(epoch - 1 + step / len(batches))
            self.optimizer.zero_grad(set_to_none=True)
            main, extra, shared, correct = self._forward(seen, batch, views)
            if step == 0 and extra is not None and shared is not None:
                squares += _gradient_squares(extra, main, shared)
            ((main if extra is None else main + extra).sum() / len(batch)).backward()
            none = main.new_zeros(nets)
            sums += torch.stack([main.sum(0), none if extra is None else extra.sum(0), correct]).detach()
            descend(self.optimizer, rate, self.net.main, self.masks)
        self._record(epoch, rate, sums / len(first.images.train), squares)

    def _forward(
        self, seen: Tensor, items: Tensor, views: Views
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Losses ``(images, nets)``, the shared layer's output and the number of right answers of each net."""
        first, nets = self.trainings[0], len(self.trainings)
        device = first.images.device
        with torch.autocast(device.type, torch.bfloat16, enabled=first.config.precision == "bfloat16"):
            output = self.net(seen)
        labels = first.images.targets(items).repeat_interleave(nets)
        main = main_loss(output.main.float(), labels).unflatten(0, (-1, nets))
        correct = (output.main.argmax(1) == labels).unflatten(0, (-1, nets)).sum(0)
        extra = None
        if output.extra is not None:
            guides = [(training.net, training.knowledge) for training in self.trainings]
            logits = [guide.of(net, first.images, items, views) for net, guide in guides if guide is not None]
            taus = self._taus.repeat(len(items))[:, None]
            extra = extra_loss(output.extra.float(), torch.stack(logits, dim=1).flatten(0, 1), taus)
            extra = self._weights * extra.unflatten(0, (-1, nets))
        return main, extra, output.shared, correct

    def _record(self, epoch: int, rate: float, means: Tensor, squares: Tensor) -> None:
        ratios = [sqrt(extra / main) if main else None for extra, main in squares.T.tolist()]
        for place, (training, mean, ratio) in enumerate(zip(self.trainings, means.T.tolist(), ratios, strict=True)):
            if place in self.failed:
                continue
            try:
                training.record(epoch, rate, mean, ratio)
            except DivergedError as error:
                self.failed[place] = error


def _fused_masks(trainings: Sequence[Training]) -> dict[str, Tensor]:
    """Masks of the fused weights, 1 where a connection is kept; layers that no net has a mask for have none."""
    fused = {}
    for name in trainings[0].net.main.names:
        own = [training.masks.get(name) for training in trainings]
        if any(mask is not None for mask in own):
            weights = [training.net.main.op(name).weight for training in trainings]
            parts = [torch.ones_like(w) if mask is None else mask for w, mask in zip(weights, own, strict=True)]
            fused[name] = torch.cat(parts).contiguous()
    return fused


def _gradient_squares(extra: Tensor, main: Tensor, shared: Tensor) -> Tensor:
    """Squared norms of each net's gradients of both losses at the shared layer, ``float64 (2, nets)``."""
    gradients = [torch.autograd.grad(loss.sum(), shared, retain_graph=True)[0] for loss in (extra, main)]
    rows = torch.stack([gradient.double().square().flatten(1).sum(1) for gradient in gradients])
    squares: Tensor = rows.unflatten(1, (-1, main.shape[1])).sum(1)
    return squares


def _require_alike(trainings: Sequence[Training]) -> None:
    first = trainings[0]
    for training in trainings:
        for what, one, other in (
            ("the shapes of their nets", _shapes(first), _shapes(training)),
            ("their training settings", first.config, training.config),
            ("their seeds", first.seed, training.seed),
            ("having knowledge", first.knowledge is None, training.knowledge is None),
        ):
            if one != other:
                raise UnlikeError(f"these trainings cannot be fused: they differ in {what}")
        if training.images is not first.images:
            raise UnlikeError("these trainings cannot be fused: they must be given the same Images")
        if training.session.world_size > 1 or training.session.images_a_pass is not None:
            raise UnlikeError("fused trainings have one worker, and take whole batches (no images_a_pass)")
        for module in training.net.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                raise UnlikeError(
                    f"a net with {type(module).__name__} cannot be fused: each of its rows must stand alone"
                )
            if isinstance(module, (nn.Conv2d, nn.Linear)) and type(module) not in (nn.Conv2d, nn.Linear):
                raise UnlikeError(f"a net with {type(module).__name__} cannot be fused: nobody knows how")


def _shapes(training: Training) -> dict[str, torch.Size]:
    return {name: p.shape for name, p in training.net.named_parameters() if p.requires_grad}

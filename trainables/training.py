"""The one training loop: it serves the reference, source pruning, transfer and target pruning alike.

Where it runs (a test, a Tune trial's process, a Ray Train worker group) is the session's business.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isfinite, log, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from trainables import pruning
from trainables.augmentation import Mix, Mixing
from trainables.devices import float32_products, moved, placed
from trainables.hybrid import HybridTransferNet, Output, extra_loss, knowledge_entropy, main_loss
from trainables.hyperparameters import KnowledgeConfig, TrainConfig
from trainables.images import Images, Views
from trainables.layers import LayeredNet
from trainables.optimisation import descend, learning_rate, masked_weights, optimizer_of
from trainables.prune_steps import Gradual
from trainables.pruning import Masks
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.settings import Crops

Row = dict[str, Any]


class DivergedError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class Knowledge:
    """Where the extra loss takes the reference's logits from."""

    config: KnowledgeConfig
    partner: Tensor
    """Image whose logits guide each image, ``int64 (n,)``: the image itself, or another one as a control."""
    logits: Tensor | None
    """Cached logits a_R of all views of all images, ``float32 (n, views, source classes)``, on the device if they are
    small; None: the net's reference computes them."""

    def of(self, net: HybridTransferNet, images: Images, items: Tensor, views: Views, mix: Mix | None) -> Tensor:
        """Logits a_R that guide the items, mixed as these are: ``(len(items), source classes)`` on their device."""
        partners = self.partner[items]
        if self.logits is not None:
            assert views.index is not None
            home = self.logits.device
            return moved(self.logits[moved(partners, home), moved(views.index[partners], home)], images.device)
        (seen,) = images.stream([(partners, views.placement[partners])])
        return net.knowledge(seen if mix is None else mix(seen, images.targets(partners))[0])

    @property
    def weight(self) -> float:
        """Factor of L_extra in L_total: lambda, times tau^2 if Hinton's factor is on."""
        return self.config.lambda_ * (self.config.tau**2 if self.config.hinton_factor else 1.0)


@dataclass(frozen=True)
class Round:
    """Which of a stage's trainings this is, and what came before it: kept in the checkpoints next to the training."""

    number: int = 0
    before: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, and mean cross entropy in nats."""

    accuracy: float
    top5_accuracy: float
    loss: float

    @classmethod
    def of(cls, total: Tensor, images: int) -> "Evaluation":
        """The evaluation of ``count`` images, from the sum of their tallies."""
        right, among_five, loss = total.tolist()
        return cls(100 * right / images, 100 * among_five / images, loss / images)


@torch.no_grad()
def log_scores(
    net: LayeredNet, images: Images, items: Tensor, session: Session, crops: Crops = "centre"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logarithm of the class scores of a main branch, without dropout, in evaluation batches: this worker's share.

    Scores ``float32 (k, classes)``, on the device, are the mean of the softmax outputs over positions and crops. With
    them come their places in ``items``, ``int64 (k,)``.
    """
    net.eval()
    views = images.placements(crops)
    parts = session.share(list(images.evaluation_batches(torch.arange(len(items)))))
    stream = images.stream((items[part], view) for part in parts for view in views)
    for part in parts:
        seen = torch.stack([functional.log_softmax(net(next(stream)), dim=1) for _ in views])
        yield part, seen.logsumexp(0) - log(len(views)) if len(views) > 1 else seen[0]


def tally(scores: Tensor, labels: Tensor) -> Tensor:
    """What an evaluation is made of, ``float64 (3,)``: right answers, right ones among the first five, summed loss.

    Args:
        scores: logarithmic class scores ``(k, classes)``.
        labels: ``int64 (k,)``, on the same device.
    """
    ranked = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
    loss = functional.nll_loss(scores, labels, reduction="sum")
    return torch.stack([ranked[:, 0].sum(), ranked.any(1).sum(), loss]).double()


def evaluate(net: LayeredNet, images: Images, items: Tensor, session: Session, crops: Crops = "centre") -> Evaluation:
    """Evaluate a main branch on the items, without dropout; the workers of a group share the work."""
    total = torch.zeros(3, dtype=torch.float64, device=images.device)
    for part, scores in log_scores(net, images, items, session, crops):
        total += tally(scores, images.targets(items[part]))
    return Evaluation.of(session.sum(total), len(items))


class Training:
    """One training of a net, in place; its masked weights stay zero.

    Learning rate, image order and dropout are functions of (seed, epoch), so a resumed training ends with the same
    net as an undisturbed one. A stage that trains several times counts its trainings in ``round_``.
    """

    def __init__(
        self,
        net: HybridTransferNet,
        masks: Masks,
        images: Images,
        config: TrainConfig,
        session: Session,
        seed: int,
        knowledge: Knowledge | None = None,
        round_: Round | None = None,
        gradual: Gradual | None = None,
    ) -> None:
        self.net, self.images, self.config, self.session = net, images, config, session
        self.seed, self.knowledge = seed, knowledge
        self.round = round_ or Round()
        placed(net, images.device)
        self.gradual, self.updates = gradual, 0
        self._set_masks(masks)
        self.parallel = session.prepare(net)
        self.optimizer = optimizer_of([branch for _, branch in self._branches()], config)
        by_layer = [layer for _, branch in self._branches() for layer in branch.dropouts().values()]
        self.mixing = Mixing(config, net.main.classes) if config.mixes else None
        self.dropouts = [dropout for layer in by_layer for dropout in layer]
        self.history: list[Row] = []

    def run(self) -> list[Row]:
        """Train all epochs that the session's checkpoint does not have yet, and return one row per epoch.

        Raises:
            DivergedError: the loss became infinite or not a number.
        """
        for epoch in range(self.resume() + 1, self.config.epochs + 1):
            self.train(epoch)
            self.session.checkpoint(self.state)
            known = {name: value for name, value in self.history[-1].items() if value is not None}
            self.session.report({**known, "epochs": self.config.epochs})
        if self.config.recalibrate is not None:
            recalibrate(self.net.main, self.images, self.config.recalibrate, self.seed)
        return self.history

    def _set_masks(self, masks: Masks) -> None:
        self.masks = masks
        pruning.apply(self.net.main, masks)
        self.masked = masked_weights(self.net.main, masks)

    def _prune(self, trained: float) -> None:
        """Take the update of gradual pruning that is due after a share of the training, if one is."""
        if self.gradual is None or (due := self.gradual.due(trained)) <= self.updates:
            return
        self.updates = due
        self._set_masks(self.gradual.step.masks(self.masks, due / self.gradual.config.updates))
        self.gradual.pruned(self.masks)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        gradual = {"masks": self.masks, "updates": self.updates} if self.gradual is not None else {}
        return gradual | {
            "round": self.round.number,
            "before": self.round.before,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }

    def resume(self) -> int:
        """Take over a checkpoint if there is one. Return the epochs trained before."""
        state = self.session.resume()
        if state is not None and state["round"] == self.round.number:
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = state["history"]
            if self.gradual is not None:
                self.updates = state["updates"]
                self._set_masks({name: mask.to(self.images.device) for name, mask in state["masks"].items()})
                self.gradual.pruned(self.masks)
            self.session.resumed_epochs += len(self.history)
        return len(self.history)

    def train(self, epoch: int) -> None:
        """Train one epoch, counted from 1, validate, and append its row to the history."""
        with float32_products(tf32=self.config.precision == "tf32"):
            rate, sums, squares = self._steps(epoch)
        means = (self.session.sum(sums) / len(self.images.train)).tolist()
        extra_square, main_square = self.session.sum(squares).tolist()
        self.record(epoch, rate, means, sqrt(extra_square / main_square) if main_square else None)

    def _steps(self, epoch: int) -> tuple[float, Tensor, Tensor]:
        """Take an epoch's steps: the last one's learning rate, and sums over this worker's images.

        The first, ``float64 (4,)``, are of L_main, lambda * L_extra, its floor and right answers, the second,
        ``float64 (2,)``, of the squared gradients of lambda * L_extra and L_main at the shared layer, in the first
        batch.
        """
        self.seed_dropout(epoch)
        items, views = self.batches(epoch)
        batches = [(batch, self._passes(len(batch))) for batch in items]
        stream = self.images.stream(
            (batch[rows], views.placement[batch[rows]]) for batch, passes in batches for rows in passes
        )
        sums = torch.zeros(4, dtype=torch.float64, device=self.images.device)
        squares = torch.zeros(2, dtype=torch.float64, device=self.images.device)
        self.net.train()
        if self.config.batch_norm == "freeze":
            for module in _normalisations(self.net):
                module.eval()
        for step, (batch, passes) in enumerate(batches):
            mix = self.mixing.of_batch(self.seed, epoch, step) if self.mixing is not None else None
            rate = learning_rate(self.config, epochs := epoch - 1 + step / len(batches))
            is_last = epoch == self.config.epochs and step == len(batches) - 1
            self._prune(1.0 if is_last else epochs / self.config.epochs)
            self.optimizer.zero_grad(set_to_none=True)
            self._start_batch(len(batch))
            for number, rows in enumerate(passes, start=1):
                self._select(moved(rows, self.images.device) if len(rows) < len(batch) else None)
                with self._synchronised(number == len(passes)):
                    main, extra, floor, shared, correct = self._forward(next(stream), batch[rows], views, mix)
                    if step == 0 and extra is not None and shared is not None:
                        squares += _gradient_squares(extra, main, shared)
                    loss = (main if extra is None else main + extra).sum() / len(batch)
                    # Data-parallel workers average their gradients; the loss is already divided by the whole batch.
                    (loss * self.session.world_size).backward()
                none = main.new_zeros(())
                parts = [none if part is None else part.sum() for part in (main, extra, floor)]
                sums += torch.stack([*parts, correct]).detach()
            descend(self.optimizer, rate, self.masked)
        return rate, sums, squares

    def batches(self, epoch: int) -> tuple[Sequence[Tensor], Views]:
        """The training items of each batch of an epoch, and the views in which they are seen."""
        train = self.images.train
        order = torch.randperm(len(train), generator=generator(self.seed, "order", epoch))
        return train[order].split(self.config.batch_size), self.images.views(self.seed, epoch)

    def _passes(self, batch: int) -> list[Tensor]:
        """Rows of a batch that this worker takes, in parts that fit its device: gradients of the parts add up."""
        own = torch.arange(batch)[self.session.rank :: self.session.world_size]
        return list(own.split(self.session.images_a_pass or max(1, len(own))))

    def _forward(
        self, seen: Tensor, items: Tensor, views: Views, mix: Mix | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor]:
        """Losses of each image, the extra one's floor, the shared layer's output and the number of right answers."""
        labels = right = self.images.targets(items)
        if mix is not None:
            # Right is then the class of which a mixture has most.
            seen, labels = mix(seen, labels)
            right = labels.argmax(1)
        bfloat16 = self.config.precision == "bfloat16"
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=bfloat16):
            output: Output = self.parallel(seen)
        main = main_loss(output.main.float(), labels, self.config.label_smoothing)
        correct = (output.main.argmax(1) == right).sum()
        return main, *self._extra_loss(output, items, views, mix), output.shared, correct

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged over the workers with the last part of a batch only."""
        parallel = self.parallel
        if last or not isinstance(parallel, DistributedDataParallel):
            return nullcontext()
        waiting: AbstractContextManager[None] = parallel.no_sync()
        return waiting

    def _branches(self) -> list[tuple[str, LayeredNet]]:
        branches = [("main", self.net.main)]
        return branches if self.net.extra is None else [*branches, ("extra", self.net.extra)]

    def seed_dropout(self, epoch: int) -> None:
        """Let the epoch's dropout noise begin."""
        for name, branch in self._branches():
            # The 0 was once a worker's rank; it stays, for without it every net would be another one.
            branch.seed_dropout(self.seed, name, epoch, 0)

    def _start_batch(self, images: int) -> None:
        for dropout in self.dropouts:
            dropout.start_batch(images)

    def _select(self, rows: Tensor | None) -> None:
        for dropout in self.dropouts:
            dropout.rows = rows

    def _extra_loss(
        self, output: Output, items: Tensor, views: Views, mix: Mix | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The weighted extra loss, lambda * L_extra, and its lower bound, one value per image."""
        if output.extra is None or self.knowledge is None:
            return None, None
        logits = self.knowledge.of(self.net, self.images, items, views, mix)
        weight, tau = self.knowledge.weight, self.knowledge.config.tau
        return weight * extra_loss(output.extra.float(), logits, tau), weight * knowledge_entropy(logits, tau)

    def record(self, epoch: int, rate: float, means: list[float], gradient_ratio: float | None) -> None:
        """Append an epoch's row to the history.

        Args:
            epoch: counted from 1.
            rate: learning rate of its last step.
            means: over its images, of L_main, of lambda * L_extra and its floor, and share of right answers.
            gradient_ratio: norm of the extra loss's gradient over the main loss's, at the shared layer.

        Raises:
            DivergedError: a loss is infinite or not a number.
        """
        loss_main, weighted_extra, floor, correct = means
        above_floor = weighted_extra - floor
        if not isfinite(loss_main + weighted_extra):
            raise DivergedError(
                f"the loss became {loss_main + weighted_extra} in epoch {epoch}: "
                f"try a learning_rate below {self.config.learning_rate}"
            )
        validation = None
        if epoch % self.config.validate_every == 0 or epoch == self.config.epochs:
            validation = evaluate(self.net.main, self.images, self.images.val, self.session)
        weight = self.knowledge.weight if self.knowledge is not None else 0.0
        self.history.append(
            {
                "round": self.round.number,
                "epoch": epoch,
                "learning_rate": rate,
                "loss": loss_main + weighted_extra,
                "loss_main": loss_main,
                "loss_extra": weighted_extra / weight if weight else None,
                "loss_kl": above_floor / weight if weight else None,
                "loss_ratio": weighted_extra / loss_main if self.knowledge is not None and loss_main else None,
                "kl_ratio": above_floor / loss_main if self.knowledge is not None and loss_main else None,
                "gradient_ratio": gradient_ratio,
                "train_accuracy": 100 * correct,
                "val_accuracy": validation.accuracy if validation else None,
            }
        )


@torch.no_grad()
def recalibrate(net: LayeredNet, images: Images, count: int, seed: int) -> None:
    """Recompute BatchNorm's statistics, each the mean over batches of up to ``count`` training images.

    What is normalised by statistics of another net has lost far more than its pruned connections (Li et al. 2020,
    "EagleEye: Fast sub-net evaluation for efficient neural network pruning").
    """
    net.eval()
    normalisations = _normalisations(net)
    momenta = [module.momentum for module in normalisations]
    for module in normalisations:
        module.reset_running_stats()
        # None: every batch has the same weight.
        module.momentum = None
        module.train()
    order = torch.randperm(len(images.train), generator=generator(seed, "recalibrate"))[:count]
    for seen in images.centred(images.train[order].sort().values):
        net(seen)
    for module, momentum in zip(normalisations, momenta, strict=True):
        module.momentum = momentum
    net.eval()


def _normalisations(net: nn.Module) -> list[_BatchNorm]:
    """BatchNorm modules that keep statistics."""
    return [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def _gradient_squares(extra: Tensor, main: Tensor, shared: Tensor) -> Tensor:
    """Squared norms of the gradients of both losses at the shared layer, ``float64 (2,)``."""
    gradients = [torch.autograd.grad(loss.sum(), shared, retain_graph=True)[0] for loss in (extra, main)]
    return torch.stack([gradient.double().square().sum() for gradient in gradients])

"""The one training loop: it serves the reference, source pruning, transfer and target pruning alike.

Where it runs (a test, a Tune trial's process, a Ray Train worker group) is the session's business.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import cos, isfinite, pi
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainables import pruning
from trainables.hybrid import HybridTransferNet, Output, extra_loss, main_loss
from trainables.hyperparameters import DataConfig, KnowledgeConfig, TrainConfig
from trainables.networks import LayeredNet
from trainables.pruning import Masks
from trainables.seeds import generator
from trainables.sessions import Session

EVALUATION_BATCH = 500
Row = dict[str, Any]


class DivergedError(RuntimeError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class Images:
    """The images of a stage on its device, with their split."""

    pixels: Tensor
    labels: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    config: DataConfig

    def batch(self, indices: Tensor) -> Tensor:
        """Normalised float32 images ``(len(indices), channels, height, width)``."""
        return (self.pixels[indices].float() / 255 - self.config.mean) / self.config.std

    def batches(self, indices: Tensor) -> Iterator[Tensor]:
        """Normalised images in evaluation batches."""
        for part in indices.split(EVALUATION_BATCH):
            yield self.batch(part)


@dataclass(frozen=True)
class Knowledge:
    """Where the extra loss takes the reference's logits from."""

    config: KnowledgeConfig
    partner: Tensor
    """Image whose logits guide each image, ``int64 (n,)``: the image itself, or another one as a control."""
    logits: Tensor | None
    """Cached logits a_R of all images, ``float32 (n, source classes)``; None: the net's reference computes them."""

    def of(self, net: HybridTransferNet, images: Images, indices: Tensor) -> Tensor:
        """Logits a_R for the images at ``indices``."""
        partners = self.partner[indices]
        return net.knowledge(images.batch(partners)) if self.logits is None else self.logits[partners]

    @property
    def weight(self) -> float:
        """Factor of L_extra in L_total: lambda, times tau^2 where Hinton's factor is on."""
        return self.config.lambda_ * (self.config.tau**2 if self.config.hinton_factor else 1.0)


@dataclass(frozen=True)
class Round:
    """Which of a stage's trainings this is, and what came before it: kept in the checkpoints beside the training."""

    number: int = 0
    before: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent, and mean cross entropy in nats."""

    accuracy: float
    top5_accuracy: float
    loss: float


@torch.no_grad()
def evaluate(net: LayeredNet, images: Images, indices: Tensor) -> Evaluation:
    """Evaluate a main branch on the images at ``indices``, without dropout."""
    net.eval()
    top1 = top5 = 0
    loss = 0.0
    for part in indices.split(EVALUATION_BATCH):
        logits, labels = net(images.batch(part)), images.labels[part]
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.any(1).sum())
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    count = len(indices)
    return Evaluation(100 * top1 / count, 100 * top5 / count, loss / count)


class Training:
    """One training of a net, in place; its masked weights stay zero.

    Learning rate, image order and dropout are functions of (seed, epoch), so a resumed training gives the same net as
    an undisturbed one. A stage that trains several times says in ``round_`` which time this is.
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
    ) -> None:
        self.net, self.images, self.config, self.session = net, images, config, session
        self.seed, self.knowledge = seed, knowledge
        self.round = round_ or Round()
        pruning.apply(net.main, masks)
        self.masked = [net.main.op(name).weight for name in masks]
        self.masks = [mask.to(weight) for mask, weight in zip(masks.values(), self.masked, strict=True)]
        self.parallel = session.prepare(net)
        self.optimizer = torch.optim.SGD(
            [parameter for parameter in net.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        self.history: list[Row] = []

    def run(self) -> list[Row]:
        """Train all epochs that the session's checkpoint does not have yet, and give one row an epoch.

        Raises:
            DivergedError: the loss became infinite or not a number.
        """
        for epoch in range(self.resume() + 1, self.config.epochs + 1):
            self.train(epoch)
            self.session.checkpoint(self.state)
            self.session.report({**self.history[-1], "epochs": self.config.epochs})
        return self.history

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "round": self.round.number,
            "before": self.round.before,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }

    def resume(self) -> int:
        """Take over a checkpoint, if there is one; gives the epochs already trained."""
        state = self.session.resume()
        if state is not None and state["round"] == self.round.number:
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = state["history"]
            self.session.resumed_epochs += len(self.history)
        return len(self.history)

    def train(self, epoch: int) -> None:
        """Train one epoch, counted from 1, and append its row to the history."""
        self._seed_dropout(epoch)
        train = self.images.train
        order = torch.randperm(len(train), generator=generator(self.seed, "order", epoch)).to(train.device)
        batches = train[order].split(self.config.batch_size)
        sums = torch.zeros(3, dtype=torch.float64, device=train.device)
        gradients = None
        self.net.train()
        for step, batch in enumerate(batches):
            rate = self._learning_rate(epoch - 1 + step / len(batches))
            local = batch[self.session.rank :: self.session.world_size]
            output: Output = self.parallel(self.images.batch(local))
            main = main_loss(output.main, self.images.labels[local])
            extra = self._extra_loss(output, local)
            if step == 0:
                gradients = self._gradient_ratio(main, extra, output.shared)
            self._step((main if extra is None else main + extra).sum() / len(batch), rate)
            correct = (output.main.argmax(1) == self.images.labels[local]).sum()
            sums += torch.stack([main.sum(), main.new_zeros(()) if extra is None else extra.sum(), correct]).detach()
        self._record(epoch, rate, (self.session.sum(sums) / len(train)).tolist(), gradients)

    def _seed_dropout(self, epoch: int) -> None:
        self.net.main.seed_dropout(self.seed, "main", epoch, self.session.rank)
        if self.net.extra is not None:
            self.net.extra.seed_dropout(self.seed, "extra", epoch, self.session.rank)

    def _learning_rate(self, epochs: float) -> float:
        if self.config.decay == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * 0.5 * (1 + cos(pi * epochs / self.config.epochs))

    def _extra_loss(self, output: Output, batch: Tensor) -> Tensor | None:
        """The weighted extra loss, lambda * L_extra, one value an image."""
        if output.extra is None or self.knowledge is None:
            return None
        logits = self.knowledge.of(self.net, self.images, batch)
        return self.knowledge.weight * extra_loss(output.extra, logits, self.knowledge.config.tau)

    def _gradient_ratio(self, main: Tensor, extra: Tensor | None, shared: Tensor | None) -> float | None:
        if extra is None or shared is None:
            return None
        pair = [torch.autograd.grad(loss.sum(), shared, retain_graph=True)[0] for loss in (extra, main)]
        squares = self.session.sum(torch.stack([gradient.double().square().sum() for gradient in pair]))
        return float((squares[0] / squares[1]).sqrt()) if squares[1] > 0 else None

    def _step(self, loss: Tensor, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        # Data-parallel workers average their gradients; the loss is already divided by the whole batch.
        (loss * self.session.world_size).backward()
        self.optimizer.step()
        with torch.no_grad():
            # After the step, so that neither momentum nor weight decay revives a pruned connection.
            for weight, mask in zip(self.masked, self.masks, strict=True):
                weight.mul_(mask)

    def _record(self, epoch: int, rate: float, means: list[float], gradient_ratio: float | None) -> None:
        loss_main, weighted_extra, correct = means
        if not isfinite(loss_main + weighted_extra):
            raise DivergedError(
                f"the loss became {loss_main + weighted_extra} in epoch {epoch}: "
                f"try a learning_rate below {self.config.learning_rate}"
            )
        validate = epoch % self.config.validate_every == 0 or epoch == self.config.epochs
        weight = self.knowledge.weight if self.knowledge is not None else 0.0
        self.history.append(
            {
                "round": self.round.number,
                "epoch": epoch,
                "learning_rate": rate,
                "loss": loss_main + weighted_extra,
                "loss_main": loss_main,
                "loss_extra": weighted_extra / weight if weight else None,
                "loss_ratio": weighted_extra / loss_main if self.knowledge is not None and loss_main else None,
                "gradient_ratio": gradient_ratio,
                "train_accuracy": 100 * correct,
                "val_accuracy": evaluate(self.net.main, self.images, self.images.val).accuracy if validate else None,
            }
        )

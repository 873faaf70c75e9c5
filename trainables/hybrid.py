"""Hybrid-TransferNet: the main branch, the extra branch and the frozen reference, with the paper's losses."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.layers import LayeredNet
from trainables.pruning import Masks


class Output(NamedTuple):
    """What the branches return for a batch."""

    main: Tensor
    """Pre-softmax activations of the main branch, ``(images, target classes)``."""
    extra: Tensor | None = None
    """Pre-softmax activations of the extra branch, ``(images, source classes)``; None for K- nets."""
    shared: Tensor | None = None
    """Output of the layer that both branches share (layer N - N_e); None for K- nets."""


class HybridTransferNet(nn.Module):
    """Main branch, extra branch (K+ only) and, if knowledge is computed live, the frozen reference.

    A net with neither extra branch nor reference is plain: the Reference-SourceNet and the Sparse-SourceNet are
    trained as such too, so that one training loop serves every stage.
    """

    def __init__(self, main: LayeredNet, extra: LayeredNet | None = None, reference: LayeredNet | None = None) -> None:
        super().__init__()
        self.main = main
        self.extra = extra
        self.reference = reference
        if reference is not None:
            reference.requires_grad_(False)

    @property
    def shared_depth(self) -> int:
        """N - N_e: the number of main-branch layers below the extra branch."""
        return len(self.main.names) - (len(self.extra.names) if self.extra is not None else 0)

    @property
    def shared_layer(self) -> str:
        """Name of layer N - N_e, on which the extra branch sits."""
        return self.main.names[self.shared_depth - 1]

    def forward(self, images: Tensor) -> Output:
        """All branches for a batch of images ``(images, channels, height, width)``."""
        if self.extra is None:
            return Output(self.main(images))
        shared = self.main.run(images, 0, self.shared_depth)
        return Output(self.main.run(shared, self.shared_depth, len(self.main.names)), self.extra(shared), shared)

    def train(self, mode: bool = True) -> "HybridTransferNet":
        """Switch the branches to training; the reference stays in evaluation mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    @torch.no_grad()
    def knowledge(self, images: Tensor) -> Tensor:
        """The reference's logits a_R for a batch, ``(images, source classes)``."""
        if self.reference is None:
            raise RuntimeError("this net has no reference branch: its knowledge is cached")
        logits: Tensor = self.reference(images)
        return logits


def extra_branch(reference: LayeredNet, n_e: int) -> LayeredNet:
    """The extra branch as it starts: a copy of the top ``n_e`` layers of the reference, output layer included."""
    return copy.deepcopy(reference.top(n_e))


def transfer_main_branch(source: LayeredNet, masks: Masks, fresh: LayeredNet) -> tuple[LayeredNet, Masks]:
    """The main branch as it starts: copies of the bottom layers of ``source`` under ``fresh`` top layers.

    These are the output layer, which is always new, for it has the target's classes, and N_m - 1 below it, all dense
    and random. Masks of the other layers stay.
    """
    main = copy.deepcopy(source.part(0, len(source.names) - len(fresh.names))).under(fresh)
    return main, {name: mask.clone() for name, mask in masks.items() if name not in fresh.weights()}


def main_loss(main: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """L_main, Eq. (4): cross entropy of the main branch with the labels (or shares of them), one value an image.

    With smoothing (Szegedy et al. 2016) a label is a mixture of itself, 1 - smoothing, and of all classes alike.
    """
    return functional.cross_entropy(main, labels, reduction="none", label_smoothing=smoothing)


def extra_loss(extra: Tensor, reference: Tensor, tau: float) -> Tensor:
    """L_extra, Eq. (1), (2) and (5): cross entropy of the two softened outputs, one value per image.

    Both outputs are logits ``(images, source classes)``.
    """
    softened = functional.softmax(reference / tau, dim=1)
    return -(softened * functional.log_softmax(extra / tau, dim=1)).sum(1)


def knowledge_entropy(reference: Tensor, tau: float) -> Tensor:
    """Entropy of the reference's softened output p_R^tau, Eq. (1), in nats, one value per image.

    L_extra cannot be lower: what is above it is KL(p_R^tau || p_extra^tau), which has the same gradient.
    """
    return extra_loss(reference, reference, tau)

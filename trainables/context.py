"""What the runners of all stage kinds work with: the stage's images, its parents' nets, knowledge, dropout, masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from trainables import artifacts, data, networks, pruning
from trainables.artifacts import Artifact
from trainables.data import ImageSet
from trainables.devices import placed
from trainables.hybrid import HybridTransferNet
from trainables.hyperparameters import KnowledgeConfig, SourcePruneParams, StageSpec, TrainConfig
from trainables.images import RESIDENT_BYTES, Images
from trainables.layers import LayeredNet
from trainables.prune_steps import Gradual, PruneParams, PruneStep
from trainables.pruning import Masks
from trainables.seeds import generator
from trainables.sessions import Session
from trainables.training import Knowledge

Parents = Mapping[str, Artifact]


@dataclass
class StageContext:
    """A stage that runs: its hyperparameters, its parents' artifacts, and where it runs."""

    spec: StageSpec
    parents: Parents
    session: Session

    @property
    def seed(self) -> int:
        """The stage's seed; stages that see all images alike have none."""
        assert self.spec.seed is not None
        return self.spec.seed

    @cached_property
    def content(self) -> ImageSet:
        """The data set."""
        return data.load(self.spec.data, self.session.places)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes of the stage's net; if there are no images, the parent knows them."""
        return self.content.class_names or self.parents["source"].class_names

    def images(self) -> Images:
        """Its images, split by the seed."""
        return self._open(data.split(self.content, self.spec.data, self.seed))

    def known_images(self) -> Images:
        """All images that knowledge can guide: those outside the official test part. They stand as training images."""
        known = torch.ones(len(self.content.labels), dtype=torch.bool)
        if "test" in self.content.official:
            known[self.content.official["test"]] = False
        none = torch.empty(0, dtype=torch.int64)
        return self._open(data.Split(known.nonzero().flatten(), none, none))

    def _open(self, split: data.Split) -> Images:
        _, *size = networks.input_shape(self.spec.network)
        return Images.open(self.content, split, self.spec.data, (size[0], size[1]), self.session.device)

    def net(self, role: str) -> tuple[LayeredNet, Masks]:
        """A parent's main branch and masks, on the session's device."""
        return self._unpacked(self.parents[role])

    def hybrid(self, artifact: Artifact, config: KnowledgeConfig | None) -> tuple[HybridTransferNet, Masks]:
        """A net to start from, a parent's or an earlier one of this stage; its extra branch only with knowledge."""
        main, masks = self._unpacked(artifact)
        extra = artifacts.unpack_extra(self.spec.network, artifact) if config is not None else None
        if extra is not None:
            placed(extra, self.session.device)
        return HybridTransferNet(main, extra, self.live_reference(config)), masks

    def _unpacked(self, artifact: Artifact) -> tuple[LayeredNet, Masks]:
        net, masks = artifacts.unpack_main(self.spec.network, artifact)
        device = self.session.device
        return placed(net, device), {name: mask.to(device) for name, mask in masks.items()}

    def live_reference(self, config: KnowledgeConfig | None) -> LayeredNet | None:
        """The reference, if it runs on every batch."""
        return self.net("reference")[0] if config is not None and config.live else None

    def knowledge(self, config: KnowledgeConfig | None, images: Images) -> Knowledge | None:
        """Where the extra loss takes its logits from; the shuffled control permutes the training images."""
        if config is None:
            return None
        partner = torch.arange(len(images.labels))
        if config.source == "shuffled":
            train = images.train
            partner[train] = train[torch.randperm(len(train), generator=generator(self.seed, "shuffle"))]
        if config.live:
            return Knowledge(config, partner, None)
        logits = self.parents["knowledge"].tensors["logits"]
        return Knowledge(config, partner, logits.to(self.session.device) if logits.nbytes <= RESIDENT_BYTES else logits)

    def set_dropout(self, net: HybridTransferNet, masks: Masks, train: TrainConfig) -> None:
        """Dropout of the stage's training: the main branch's scaled by what its layers keep, the extra branch's not."""
        dense = networks.connection_counts(self.spec.network, net.main.classes)
        kept = pruning.by_layer(net.main, pruning.kept_connections(net.main, masks))
        net.main.set_dropout(train.dropout, {n: kept[n] / dense[n] for n in kept} if train.rescale_dropout else None)
        if net.extra is not None:
            net.extra.set_dropout(train.dropout)

    def prune(
        self,
        net: HybridTransferNet,
        masks: Masks,
        params: PruneParams,
        train: TrainConfig | None,
        layers: int | None = None,
    ) -> tuple[Masks, Gradual | None]:
        """Prune the net before its training, or note how it is pruned during it; dropout goes with what is kept.

        ``layers`` asks for this many of the lowest layers only.
        """
        pruned_part = net.main.part(0, layers if layers is not None else len(net.main.names))
        counts = networks.weight_counts(self.spec.network, net.main.classes)
        dense = {name: counts[name] for name in pruned_part.weights()}
        mask_seed = params.mask_seed if isinstance(params, SourcePruneParams) else None
        step = PruneStep(pruned_part, masks, params, dense, self.seed if mask_seed is None else mask_seed)

        def pruned(masks: Masks) -> None:
            if train is not None:
                self.set_dropout(net, masks, train)

        gradual = Gradual(params.gradual, step, pruned) if params.gradual is not None else None
        if gradual is None:
            masks = step.masks(masks)
            pruning.apply(net.main, masks)
        pruned(masks)
        return masks, gradual

"""Where a training runs: what the training loop needs of its surroundings, and nothing of Ray in the loop itself.

:class:`Session` is the plain case (a test, a notebook). :class:`TuneSession` reports from a trial's own process,
:class:`TrainSession` from a worker of a Ray Train group.
"""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trainables.data import Places

CHECKPOINT_SECONDS = 1.0
"""Least time between two checkpoints, unless a study sets it; 0: one after every epoch, whatever it costs."""
CHECKPOINT_SHARE = 0.05
"""Most of a training's time that its checkpoints may take, else."""


Part = TypeVar("Part")
NOTICE_SECONDS = 1.0
"""How often a trial asks whether its node is about to be taken away."""
REPORT_SECONDS = 1.0
"""How often a trial reports between validations: a report costs trial and driver some milliseconds each."""


class LeavingError(Exception):
    """The node is about to be taken away: the training has left its checkpoint and resumes elsewhere."""


class CheckpointStore(Protocol):
    """A place for the one running checkpoint of a stage; each write replaces the last one whole."""

    def read(self) -> bytes | None:
        """The last checkpoint, or None."""

    def write(self, content: bytes) -> None:
        """Replace the checkpoint."""


State = Callable[[], dict[str, Any]]
"""Gives what a checkpoint holds: tensors, numbers, strings, lists and dictionaries."""


class Session:
    """One process, no reports, and checkpoints only if there is a store."""

    rank = 0
    world_size = 1

    def __init__(
        self,
        store: CheckpointStore | None = None,
        device: torch.device | str = "cpu",
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        images_a_pass: int | None = None,
        places: Places | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.places = places or Places()
        self.images_a_pass = images_a_pass
        """Most images that go through the net at once; None: a worker's whole share of the batch."""
        self.resumed_epochs = 0
        """Epochs taken over from a checkpoint instead of trained here."""
        self._store = store
        self._least_pause = self._pause = checkpoint_seconds
        self._last = time.monotonic()

    def prepare(self, net: nn.Module) -> nn.Module:
        """The net as training must call it (wrapped, if several workers share it)."""
        return net

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers."""
        return values

    def share(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Those of the parts of some work that this worker does."""
        return parts[self.rank :: self.world_size]

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Say how the training stands after an epoch."""

    def leaving(self) -> bool:
        """Whether the node is about to be taken away; all workers are told the same."""
        return False

    def checkpoint(self, state: State) -> None:
        """Store the state, if a checkpoint is due.

        Raises:
            LeavingError: the node is about to be taken away; the state is stored.
        """
        leaving = self.leaving()
        started = time.monotonic()
        if self.rank == 0 and self._store is not None and (leaving or started - self._last >= self._pause):
            buffer = io.BytesIO()
            torch.save(state(), buffer)
            self._store.write(buffer.getvalue())
            self._last = time.monotonic()
            if self._least_pause:
                self._pause = max(self._least_pause, (self._last - started) / CHECKPOINT_SHARE)
        if leaving:
            # All workers wait here for the first one's checkpoint.
            self.sum(torch.zeros(1, device=self.device))
            raise LeavingError("the node is about to be taken away")

    def resume(self) -> dict[str, Any] | None:
        """The last stored state, or None."""
        content = self._store.read() if self._store is not None else None
        if content is None:
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=self.device, weights_only=True)
        return state


class TuneSession(Session):
    """A training in the process of a Ray Tune trial."""

    _asked = 0.0
    _reported = 0.0

    def leaving(self) -> bool:
        """Ask Ray, which knows of a notice as soon as somebody has called ``ray drain-node``."""
        import ray

        now = time.monotonic()
        if now - self._asked < NOTICE_SECONDS:
            return False
        self._asked = now
        # Ray Train asks so for its worker groups, and Ray has no public way.
        return ray.get_runtime_context().get_node_id() in ray._private.state.state.get_draining_nodes()

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Report to Tune: every validated epoch, as a search decides by those, and others if they are slow."""
        from ray import tune

        now = time.monotonic()
        if "val_accuracy" in metrics or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            tune.report(dict(metrics))


class TrainSession(Session):
    """A training in one worker of a Ray Train worker group, data-parallel over the group."""

    def __init__(
        self,
        store: CheckpointStore | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        images_a_pass: int | None = None,
        places: Places | None = None,
    ) -> None:
        import ray.train
        import ray.train.torch

        super().__init__(store, ray.train.torch.get_device(), checkpoint_seconds, images_a_pass, places)
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()

    def prepare(self, net: nn.Module) -> nn.Module:
        """Wrap the net for data-parallel training."""
        import ray.train.torch

        wrapped: nn.Module = ray.train.torch.prepare_model(net, move_to_device=False)
        return wrapped

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the worker group."""
        if self.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def leaving(self) -> bool:
        """Ask Ray Train."""
        import ray.train

        return ray.train.get_preemption_info() is not None

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Report to Ray Train; of all workers' reports it passes on rank 0's."""
        import ray.train

        ray.train.report(dict(metrics))

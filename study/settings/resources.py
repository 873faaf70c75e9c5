"""What a stage asks of the machine."""

from typing import Annotated

from pydantic import Field, model_validator

from trainables.sessions import CHECKPOINT_SECONDS
from trainables.settings import Hyperparameters


class ResourceConfig(Hyperparameters):
    """What a stage asks of the machine. Not part of any key.

    ``threads``, ``workers`` and ``images_a_pass`` change the order of sums, as another kind of device does, and so the
    rounding, which training may amplify: each stage's row has them. The others change nothing.
    """

    cpus: Annotated[float, Field(gt=0)] = 1
    """CPUs that a process of a stage reserves."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs that a process of a stage reserves; below 1, stages share a GPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of the arithmetic of one stage; fixed here and not by what else runs."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = CHECKPOINT_SECONDS
    """Least time between two checkpoints of a stage, which take a twentieth of its time at most; 0: one an epoch."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Ray Train workers of a stage, data-parallel; 0: the trial's own process."""
    images_a_pass: Annotated[int, Field(ge=1)] | None = None
    """Most images that a device takes at once: a larger batch goes through in parts whose gradients add up."""

    @model_validator(mode="after")
    def _no_gpu_is_idle_or_taken_twice(self) -> "ResourceConfig":
        if self.gpus > 1:
            raise ValueError(
                f"gpus={self.gpus:g} of a process, which uses one: the others would stand idle; for data-parallel "
                f"training give gpus=1 and workers={int(self.gpus)}"
            )
        if self.workers > 1 and 0 < self.gpus < 1:
            raise ValueError(
                f"workers={self.workers} with gpus={self.gpus:g} each could share a GPU, which NCCL refuses: give "
                "gpus=1 for each worker, or workers=0 for stages that share a GPU"
            )
        return self

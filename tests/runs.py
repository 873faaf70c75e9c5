"""Small stages of each kind, run in this process, for tests to build on."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from tests.conftest import SMALL
from trainables.artifacts import Artifact
from trainables.hyperparameters import (
    KnowledgeConfig,
    KnowledgeParams,
    ReferenceParams,
    SourcePruneParams,
    StageSpec,
    TrainConfig,
    TransferParams,
)
from trainables.results import StageResult
from trainables.sessions import Session
from trainables.settings import DataConfig, Hyperparameters
from trainables.stages import run_stage

DATA = DataConfig(**SMALL, train_per_class=4, mean=0.13, std=0.31)
SOURCE = DataConfig(**SMALL, train_per_class=40, mean=0.13, std=0.31)


class Stopped(Exception):
    """Stands for a crash."""


class MemoryStore:
    """Keeps the checkpoint in memory."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


class StoppingSession(Session):
    """Stores every epoch and crashes after some."""

    def __init__(self, store: MemoryStore, epochs: int, device: str = "cpu") -> None:
        super().__init__(store, device, checkpoint_seconds=0)
        self.left = epochs

    def report(self, metrics: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped


def run(
    kind: str,
    params: Hyperparameters,
    session: Session | None = None,
    images: DataConfig = DATA,
    seed: int | None = 0,
    roles: Mapping[str, Artifact] | None = None,
    **more: Artifact,
) -> StageResult:
    """Run one stage of small_alexnet."""
    spec = StageSpec(kind=kind, network="small_alexnet", data=images, seed=seed, params=params)
    return run_stage(spec, {**(roles or {}), **more}, session or Session())


def artifact(result: StageResult) -> Artifact:
    return Artifact(result.tensors, result.metrics, result.class_names)


@cache
def source_nets() -> dict[str, Artifact]:
    """A reference that has learned something, what it knows, and a pruned one."""
    train = TrainConfig(epochs=8, learning_rate=0.03, batch_size=20, dropout=0.1, validate_every=8)
    reference = artifact(run("reference", ReferenceParams(train=train), images=SOURCE))
    knowledge = artifact(run("knowledge", KnowledgeParams(), seed=None, reference=reference))
    retrain = TrainConfig(epochs=1, learning_rate=0.01, batch_size=20)
    pruned = run("source_prune", SourcePruneParams(keep=0.3, retrain=retrain), images=SOURCE, source=reference)
    return {"reference": reference, "knowledge": knowledge, "pruned": artifact(pruned)}


@cache
def parents() -> dict[str, Artifact]:
    """Nets to start from: the source nets, and two transfer nets."""
    nets = dict(source_nets())
    nets["sparse"] = artifact(transfer(None, source="pruned"))
    nets["guided"] = artifact(transfer(KnowledgeConfig(tau=4, lambda_=1), source="pruned"))
    return nets


def transfer(
    knowledge: KnowledgeConfig | None,
    *,
    n_e: int = 2,
    epochs: int = 2,
    learning_rate: float = 0.01,
    source: str = "reference",
    session: Session | None = None,
) -> StageResult:
    """A transfer from the small source nets."""
    nets = source_nets()
    train = TrainConfig(epochs=epochs, learning_rate=learning_rate, batch_size=20)
    params = TransferParams(n_m=2, n_e=n_e if knowledge else None, knowledge=knowledge, train=train)
    roles = {"reference": nets["reference"], "knowledge": nets["knowledge"]} if knowledge else {}
    return run("transfer", params, session, roles=roles, source=nets[source])

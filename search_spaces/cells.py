"""Cells: the things that a table compares, each a net of the paper at one seed."""

from dataclasses import dataclass
from typing import Literal

from search_spaces.axes import Point
from study.settings.models import StudyConfig

Sparsity = Literal["magnitude", "random", "none"]
KnowledgeChoice = Literal["reference", "shuffled", "none"]


@dataclass(frozen=True)
class Cell:
    """One net at one seed: a transfer net, or what target pruning makes of it."""

    ablation: str
    net: str
    seed: int
    config: StudyConfig
    """The study's configuration, with what this cell changes of it."""
    sparsity: Sparsity
    """Where the main branch starts: Sparse-SourceNet, one with random masks, or the dense reference (none)."""
    knowledge: KnowledgeChoice
    """The extra branch of the transfer."""
    keep: float | None = None
    """Prune the main branch in the target to this share of connections; None: the transfer net itself."""
    target_knowledge: KnowledgeChoice = "none"
    """The extra branch while pruning in the target."""
    neurons: bool = False
    """Prune neurons after the connections."""
    curve: str | None = None
    tables: tuple[str, ...] = ()
    point: Point | None = None
    """The point of the ablation's axis, if it has one."""
    point_index: int | None = None
    own_point: bool | None = None
    stream: str | None = None
    """The stream of a two-stream study that the net is of."""
    parts: tuple["Cell", ...] = ()
    """Nets, one a stream, whose class scores this cell fuses; it has no net of its own then."""
    probe: bool = False
    """Train only the output layer, on the source net as it is."""
    neuron_steps: int = 0
    """Steps of neuron pruning straight after the transfer, whatever becomes of the accuracy."""

    @property
    def is_standard(self) -> bool:
        """Whether the net is Standard-TransferNet, or what pruning makes of it."""
        return self.sparsity == "none" and self.knowledge == "none"


def transfer_name(sparsity: Sparsity, knowledge: KnowledgeChoice) -> str:
    """The paper's name of a transfer net; controls name what replaces the real thing."""
    if sparsity == "none" and knowledge == "none":
        return "Standard-TransferNet"
    if sparsity == "magnitude" and knowledge == "reference":
        return "Hybrid-TransferNet"
    s = {"magnitude": "S+", "none": "S-", "random": "S random"}[sparsity]
    k = {"reference": "K+", "none": "K-", "shuffled": "K shuffled"}[knowledge]
    return f"Hybrid-TransferNet({s}{k})" if len(s + k) == 4 else f"Hybrid-TransferNet({s}, {k})"


def probe_name(sparsity: Sparsity) -> str:
    """A linear probe of the reference, of Sparse-SourceNet or of one with random masks."""
    return "Linear probe" + {"magnitude": "(S+)", "none": "", "random": "(S random)"}[sparsity]


def rate_name(keep: float) -> str:
    """The paper's suffix for a share of connections kept: 0.05 is C95, 0.025 is C97.5."""
    return f"C{100 * (1 - keep):.6g}"

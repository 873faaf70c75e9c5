"""The paper's values (Liu, Wang, Qiao, "Sparse Deep Transfer Learning for CNN", AAAI 2017), in one place."""

from dataclasses import dataclass, field

STANDARD = "Standard-TransferNet"
SPARSE_ONLY = "Hybrid-TransferNet(S+K-)"
KNOWLEDGE_ONLY = "Hybrid-TransferNet(S-K+)"
HYBRID = "Hybrid-TransferNet"
CONNECTIONS = "Sparse-TargetNet_C"
NEURONS = "Sparse-TargetNet_N"
SPARSE_TARGET = "Sparse-TargetNet"
FUSED = "two-stream"
PROBE = "Linear probe"
TRANSFER_NETS = (STANDARD, SPARSE_ONLY, KNOWLEDGE_ONLY, HYBRID)


@dataclass(frozen=True)
class Layer:
    """A row of Table 2; weights as printed, in thousands."""

    name: str
    neurons_before: int
    neurons: int
    kiloweights_before: int
    kiloweights: int
    pruned_neurons: float
    pruned_weights: float


@dataclass(frozen=True)
class Column:
    """What the paper reports for one target; a table that it does not have for the target is empty.

    Table 1 is ACC % by net, Table 3 (ACC %, Prune %) by net in its order, and Table 4 the same for each stream.
    """

    table1: dict[str, float] = field(default_factory=dict)
    table2: tuple[Layer, ...] = ()
    table3: dict[str, tuple[float, float]] = field(default_factory=dict)
    table4: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)


PUBLISHED: dict[str, Column] = {
    "Indoor67": Column(
        table1={STANDARD: 69.6, SPARSE_ONLY: 70.1, KNOWLEDGE_ONLY: 69.9, HYBRID: 71.0},
        table2=(
            Layer("FC6", 4096, 2048, 433, 217, 50.0, 49.7),
            Layer("FC7", 4096, 2560, 144, 52, 37.5, 63.5),
            Layer("Output", 67, 67, 66, 44, 0.0, 33.4),
            Layer("Total", 8259, 4675, 644, 314, 43.4, 51.1),
        ),
        table3={
            STANDARD: (69.6, 0.0),
            HYBRID: (71.0, 63.8),
            "Sparse-TargetNet_C95": (72.5, 95.0),
            "Sparse-TargetNet_C97.5": (70.0, 97.5),
            NEURONS: (69.6, 98.1),
        },
    ),
    "Flower102": Column(
        table1={STANDARD: 81.7, SPARSE_ONLY: 81.8, KNOWLEDGE_ONLY: 82.7, HYBRID: 83.4},
        table2=(
            Layer("FC6", 4096, 2048, 145, 84, 50.0, 41.7),
            Layer("FC7", 4096, 2048, 50, 18, 50.0, 63.6),
            Layer("Output", 102, 102, 69, 38, 0.0, 45.3),
            Layer("Total", 8294, 4198, 264, 140, 49.4, 46.8),
        ),
        table3={
            STANDARD: (81.7, 0.0),
            HYBRID: (83.4, 63.6),
            "Sparse-TargetNet_C90": (84.1, 90.0),
            "Sparse-TargetNet_C98.5": (82.1, 98.5),
            NEURONS: (81.6, 98.7),
        },
    ),
    "HMDB51": Column(
        table4={
            "spatial": {STANDARD: (43.4, 0.0), HYBRID: (44.0, 78.2), SPARSE_TARGET: (44.1, 85.0)},
            "temporal": {STANDARD: (58.9, 0.0), HYBRID: (59.0, 78.5), SPARSE_TARGET: (59.7, 85.0)},
            FUSED: {STANDARD: (61.4, 0.0), HYBRID: (61.4, 78.3), SPARSE_TARGET: (62.6, 85.0)},
        }
    ),
}

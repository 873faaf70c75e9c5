"""The named ablations: each turns a configuration into the cells to compare."""

from collections.abc import Callable
from dataclasses import replace

from search_spaces.axes import point_of_axis, points_of
from search_spaces.cells import Cell, KnowledgeChoice, Sparsity, probe_name, rate_name, transfer_name
from study.settings.models import StudyConfig
from study.settings.overrides import stream_config, with_changes

Ablation = Callable[[StudyConfig, int], list[Cell]]
ABLATIONS: dict[str, Ablation] = {}
KNOWLEDGE_KEYS = {f"transfer.{key}" for key in ("tau", "lambda", "n_e", "hinton_factor", "live")}
"""What matters only for nets with knowledge."""


def ablation(name: str) -> Callable[[Ablation], Ablation]:
    """Register a function ``(config, seed) -> cells`` under a name."""

    def register(cells: Ablation) -> Ablation:
        ABLATIONS[name] = cells
        return cells

    return register


def cells_of(config: StudyConfig) -> list[Cell]:
    """The cells of all ablations and axes that the configuration names, for all its seeds, seed by seed.

    Raises:
        ConfigError: a point of an axis, or a stream, changes a key that does not exist, or to a wrong value.
    """
    ablations = {name: ABLATIONS[name] if name in ABLATIONS else _axis(config, name) for name in config.ablations}
    return [cell for seed in config.seed_list for name in ablations for cell in ablations[name](config, seed)]


def _axis(config: StudyConfig, name: str) -> Ablation:
    """The ablation along an axis: the nets that it is about, at each of its points."""
    points = points_of(config, name)
    configs = [with_changes(config, point.changes, point_of_axis(name, point)) for point in points]
    keys = {key for point in points for key in point.changes}

    def cells(_: StudyConfig, seed: int) -> list[Cell]:
        return [
            replace(net, point=point, point_index=index, own_point=_is_own(net, config))
            for index, (point, own) in enumerate(zip(points, configs, strict=True))
            for net in _nets(name, keys, own, seed)
        ]

    return cells


def _is_own(net: Cell, config: StudyConfig) -> bool:
    """Whether a net at a point of an axis is as the study itself has it: of both N_m, only its own one counts."""
    here, study = net.config.transfer, config.transfer
    if here.fresh_layers(is_standard=net.is_standard) != study.fresh_layers(is_standard=net.is_standard):
        return False
    alike = here.model_copy(update={"n_m": study.n_m, "standard_n_m": study.standard_n_m})
    return net.config.model_copy(update={"transfer": alike}) == config


def _nets(axis: str, keys: set[str], config: StudyConfig, seed: int) -> list[Cell]:
    """What an axis is looked at with: the nets that the keys which it varies matter for."""
    sections = {key.partition(".")[0] for key in keys}
    prunes_source = {key for key in keys if key.startswith("source.prune")}
    before_pruning = {key for key in keys if not key.startswith(("target_prune", "neuron_prune"))}
    nets: list[Cell] = []
    if before_pruning - prunes_source - KNOWLEDGE_KEYS:
        nets.append(_transfer(axis, config, seed, "none", "none"))
    if prunes_source:
        nets.append(_transfer(axis, config, seed, "magnitude", "none"))
    if before_pruning or not keys:
        nets.append(_transfer(axis, config, seed, "magnitude", "reference"))
    keep = config.target_prune.named[-1]
    pruned = Cell(
        axis, f"Sparse-TargetNet_{rate_name(keep)}", seed, config, "magnitude", "reference", keep, "reference"
    )
    if "target_prune" in sections:
        nets.append(pruned)
    if "neuron_prune" in sections and config.neuron_prune is not None:
        nets.append(replace(pruned, net="Sparse-TargetNet_N", neurons=True))
    return nets


def _transfer(name: str, config: StudyConfig, seed: int, s: Sparsity, k: KnowledgeChoice, *tables: str) -> Cell:
    return Cell(name, transfer_name(s, k), seed, config, s, k, tables=tables)


@ablation("paper")
def paper(config: StudyConfig, seed: int) -> list[Cell]:
    """The paper's nets: the four transfer nets (Table 1), both pruning curves (Figure 3), Tables 2 and 3."""
    pruning = config.target_prune
    cells = [
        _transfer("paper", config, seed, "none", "none", "table1", "table3"),
        _transfer("paper", config, seed, "magnitude", "none", "table1"),
        _transfer("paper", config, seed, "none", "reference", "table1"),
        _transfer("paper", config, seed, "magnitude", "reference", "table1", "table3"),
    ]
    choices: list[tuple[str, KnowledgeChoice]] = [("Sparse-TargetNet", "reference"), ("Sparse-TargetNet(K-)", "none")]
    for curve, choice in choices:
        for keep in pruning.keep:
            tables: tuple[str, ...] = ("table3",) if keep in pruning.named and choice == "reference" else ()
            name = f"{curve}_{rate_name(keep)}"
            cells.append(
                Cell("paper", name, seed, config, "magnitude", "reference", keep, choice, False, curve, tables)
            )
    if config.neuron_prune is None:
        return cells
    last = pruning.named[-1]
    tables = ("table2", "table3")
    cells.append(
        Cell(
            "paper", "Sparse-TargetNet_N", seed, config, "magnitude", "reference", last, "reference", True, None, tables
        )
    )
    return cells


@ablation("transfer")
def transfer(config: StudyConfig, seed: int) -> list[Cell]:
    """Only the four transfer nets of Table 1, for a study that prunes nothing in the target."""
    table1 = [cell for cell in paper(config, seed) if "table1" in cell.tables]
    return [replace(cell, ablation="transfer", tables=("table1",)) for cell in table1]


@ablation("two-stream")
def two_stream(config: StudyConfig, seed: int) -> list[Cell]:
    """Table 4: Standard, Hybrid and pruned nets of each stream, and their fused class scores."""
    streams = {name: stream_config(config, name) for name in config.fusion}
    kinds: list[tuple[str, Sparsity, KnowledgeChoice, float | None]] = [
        (transfer_name("none", "none"), "none", "none", None),
        (transfer_name("magnitude", "reference"), "magnitude", "reference", None),
    ]
    named = config.target_prune.named
    kinds += [(f"Sparse-TargetNet_{rate_name(keep)}", "magnitude", "reference", keep) for keep in named]
    cells = []
    for net, sparsity, choice, keep in kinds:
        pruned: KnowledgeChoice = choice if keep is not None else "none"
        fused = Cell("two-stream", net, seed, config, sparsity, choice, keep, pruned, tables=("table4",))
        parts = tuple(replace(fused, config=own, stream=stream) for stream, own in streams.items())
        cells += [*parts, replace(fused, stream="two-stream", parts=parts)]
    return cells


@ablation("controls")
def controls(config: StudyConfig, seed: int) -> list[Cell]:
    """Why a variant helps: knowledge of another image, and masks that are as sparse but random."""
    return [
        _transfer("controls", config, seed, sparsity, knowledge, "controls")
        for sparsity in ("magnitude", "random", "none")
        for knowledge in ("reference", "shuffled", "none")
        if sparsity == "random" or knowledge == "shuffled"
    ]


@ablation("probes")
def probes(config: StudyConfig, seed: int) -> list[Cell]:
    """What the source nets' features are worth as they are: linear probes, next to the net that is fine-tuned."""
    sparsities: tuple[Sparsity, ...] = ("none", "magnitude", "random")
    return [_transfer("probes", config, seed, "none", "none", "probes")] + [
        Cell("probes", probe_name(sparsity), seed, config, sparsity, "none", tables=("probes",), probe=True)
        for sparsity in sparsities
    ]

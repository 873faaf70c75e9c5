"""What a study would come to before it runs: its cells and stages, what is stored, what runs side by side, the cost."""

from collections import Counter
from collections.abc import Mapping

from study.answers import Plan, PlannedCell, PlannedStage
from study.config import ResourceConfig, StudyConfig
from study.graph import StageGraph
from study.storage import Storage
from study.tune.resources import Ask, Capacity, ask_of, connected_cluster, this_machine


def describe_plan(graph: StageGraph, storage: Storage, by_target: Mapping[str, StageGraph]) -> str:
    """The plan as text: cells (of each target), unique stages by kind, and what is stored already.

    Args:
        graph: all stages.
        storage: where they are stored.
        by_target: the graph of each target by its name; of a study on one, its graph without a name.
    """
    done = set(storage.stored(graph.stages))
    lines = [f"{sum(len(own.cells) for own in by_target.values())} cells"]
    for target, own in by_target.items():
        lines += [f"target {target}: {len(own.cells)} cells"] if target else []
        by_net: dict[str, list[tuple[int, bool]]] = {}
        for cell, key in own.cells:
            words = f"{cell.ablation:16} {cell.net}" + (f", {cell.point.label}" if cell.point else "")
            by_net.setdefault(words, []).append((cell.seed, key in done))
        lines += [f"  {net:68} seeds {_runs(seeds)}" for net, seeds in by_net.items()]
    lines.append(f"{len(graph.stages)} stages (without sharing: {graph.unshared}); {len(done)} stored already (*)")
    kinds = Counter(stage.spec.kind for stage in graph.stages.values())
    stored = Counter(graph.stages[key].spec.kind for key in done)
    lines += [f"  {kind:14} {count:4}, {stored[kind]} stored" for kind, count in kinds.items()]
    missing = [stage.effort for key, stage in graph.stages.items() if key not in done]
    trained = [effort for effort in missing if effort]
    lines.append(f"to train: {len(trained)} stages, about {sum(trained):,} training images")
    if others := len(missing) - len(trained):
        lines.append(f"to compute without training: {others} stages")
    return "\n".join(lines)


def _runs(seeds: list[tuple[int, bool]]) -> str:
    """Seeds, with a star where their result is stored; those that follow one another as their first and last."""
    runs: list[list[tuple[int, bool]]] = []
    for seed, stored in seeds:
        if not runs or runs[-1][-1] != (seed - 1, stored):
            runs.append([])
        runs[-1].append((seed, stored))
    ends = [(run[0][0], run[-1][0], "*" if run[0][1] else "") for run in runs]
    return ", ".join(f"{first}{star}" if first == last else f"{first} to {last}{star}" for first, last, star in ends)


def planned(
    graph: StageGraph,
    storage: Storage,
    config: StudyConfig,
    name: str,
    address: str | None,
    by_target: Mapping[str, StageGraph],
) -> Plan:
    """The plan of a study of this name, for programs; ``by_target`` as in :func:`describe_plan`."""
    stored = storage.stored(graph.stages)
    done, ask = set(stored), ask_of(config.resources)
    return Plan(
        study=name,
        storage=storage.root,
        seeds=config.seed_list,
        cells=[
            PlannedCell(
                ablation=cell.ablation,
                net=cell.net,
                point=cell.point.label if cell.point else None,
                stream=cell.stream,
                target=target or None,
                seed=cell.seed,
                stage=key,
                stored=key in done,
            )
            for target, own in by_target.items()
            for cell, key in own.cells
        ],
        stages=[
            PlannedStage(
                stage=key,
                kind=stage.spec.kind,
                network=stage.spec.network,
                seed=stage.spec.seed,
                parents=dict(stage.parents),
                images=int(stage.effort),
                stored=key in done,
            )
            for key, stage in graph.stages.items()
        ],
        stages_without_sharing=graph.unshared,
        side_by_side=_capacity(ask, address).stages(ask),
        device_hours=_device_hours(graph, storage, config.resources, stored)[0],
    )


def describe_packing(resources: ResourceConfig, address: str | None) -> str:
    """What a stage holds, and how many of them run side by side here or on the cluster at the address."""
    ask = ask_of(resources)
    capacity = _capacity(ask, address)
    count = capacity.stages(ask)
    lines = [f"every stage, of whatever kind, holds {ask}; {count} run side by side", f"  {capacity}"]
    if not count:
        lines.append("  as it is, this study could not start")
    return "\n".join(lines)


def _capacity(ask: Ask, address: str | None) -> Capacity:
    if address is None:
        return this_machine(ask)
    # Importing Ray takes a second, which most plans do not need.
    from study.tune.cluster import connect

    connect(address)
    return connected_cluster()


def describe_cost(graph: StageGraph, storage: Storage, resources: ResourceConfig) -> str:
    """Device hours that the missing stages take, at the pace of those that are stored."""
    unit = "GPU-hours" if resources.gpus else "CPU-hours"
    hours, unknown = _device_hours(graph, storage, resources, storage.stored(graph.stages))
    if hours is None:
        return f"{unit}: unknown, as no stage of {unknown} with these resources is stored yet"
    return f"{unit}: about {hours:.2g}, at the pace of the stored stages" if hours else f"{unit}: none"


def _device_hours(
    graph: StageGraph, storage: Storage, resources: ResourceConfig, done: list[str]
) -> tuple[float | None, str]:
    """The hours of what is not ``done``; or None, and the network of which nothing is stored to tell them by."""
    ask = ask_of(resources)
    held = (ask.gpus or ask.cpus) * ask.processes
    seconds: dict[str, float] = {}
    images: dict[str, int] = {}
    for row in storage.rows("stages", done).to_pylist():
        # A rate on other devices tells nothing.
        if row["images"] and (row["device"] != "cpu") == bool(resources.gpus) and row["workers"] == resources.workers:
            seconds[row["network"]] = seconds.get(row["network"], 0.0) + row["seconds"]
            images[row["network"]] = images.get(row["network"], 0) + row["images"] * row["epochs"]
    hours = 0.0
    complete = set(done)
    for stage in (stage for key, stage in graph.stages.items() if key not in complete and stage.effort):
        if (network := stage.spec.network) not in images:
            return None, network
        hours += stage.effort * seconds[network] / images[network] * held / 3600
    return hours, ""

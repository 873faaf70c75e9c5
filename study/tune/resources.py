"""What a stage asks for, what a machine or a cluster has or could start, and how many stages fit side by side."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from study.config import ResourceConfig
from trainables.devices import gpu_problem
from trainables.processes import cores

ON_DEMAND = "on_demand"
"""Ray resource of nodes that no cloud takes back: if there is one, the drivers of worker groups run there."""


LEAST_GPU = 0.0001
"""The smallest share of a GPU that Ray can assign: without any, it hides them all."""
LOOK_SECONDS = 60.0
"""How long nodes may take to start a process and import PyTorch."""


class ResourceError(Exception):
    """No node has, or ever could have, what a stage asks for; the message states what to set."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind."""

    resources: Mapping[str, float]
    count: int = 1


@dataclass(frozen=True)
class Capacity:
    """What there is to run stages on."""

    where: str
    """As text."""
    present: tuple[Nodes, ...]
    """Nodes that are up."""
    startable: tuple[Nodes, ...] | None = ()
    """Kinds of nodes that an autoscaler would start, each with its maximum; None: unknown here."""
    most_started: int = 0
    """Most nodes that the autoscaler starts of all kinds together."""

    def stages(self, ask: "Ask") -> int:
        """How many stages run side by side, once every node that could help is up."""
        processes = sum(ask.fitting(nodes.resources) * nodes.count for nodes in self.present)
        if self.startable:
            # What is up may be of these kinds already: it must not count twice.
            heads = [nodes for nodes in self.present if "node:__internal_head__" in nodes.resources]
            grown, left = sum(ask.fitting(nodes.resources) for nodes in heads), self.most_started
            for nodes in sorted(self.startable, key=lambda nodes: -ask.fitting(nodes.resources)):
                count = min(nodes.count, left)
                grown, left = grown + count * ask.fitting(nodes.resources), left - count
            processes = max(processes, grown)
        return processes // ask.processes

    def offers(self, resource: str) -> bool:
        """Whether some node has the resource, or would have it."""
        return any(resource in nodes.resources for nodes in (*self.present, *(self.startable or ())))

    def __str__(self) -> str:
        """The nodes as text."""
        text = f"{self.where}: {_in_words(self.present)}"
        if self.startable:
            text += f"; its autoscaler starts up to {self.most_started} of: {_in_words(self.startable)}"
        return text


@dataclass(frozen=True)
class Ask:
    """What a stage holds while it runs: processes that each hold the same on one node."""

    cpus: float
    gpus: float
    processes: int = 1

    def fitting(self, node: Mapping[str, float]) -> int:
        """How many such processes a node can hold."""
        by_cpu = int(node.get("CPU", 0) / self.cpus + 1e-9)
        if not self.gpus:
            return by_cpu
        gpus = node.get("GPU", 0)
        # A share of a GPU lies on one GPU; whole ones are counted together.
        by_gpu = int(gpus) * int(1 / self.gpus + 1e-9) if self.gpus < 1 else int(gpus / self.gpus + 1e-9)
        return min(by_cpu, by_gpu)

    def __str__(self) -> str:
        """The request as text."""
        one = _amounts({"CPU": self.cpus, "GPU": self.gpus})
        return f"{self.processes} workers with {one} each" if self.processes > 1 else one


def ask_of(resources: ResourceConfig) -> Ask:
    """What a stage asks for with these settings."""
    return Ask(resources.cpus, resources.gpus, max(1, resources.workers))


def this_machine(ask: Ask) -> Capacity:
    """What this machine has. Stages may always share its cores, so one stage gets the CPUs it asks for."""
    import torch

    # The GPUs that PyTorch can use: one that only Ray sees is of no use to a stage.
    has = {"CPU": max(cores(), ask.cpus * ask.processes), "GPU": float(torch.cuda.device_count())}
    problem = gpu_problem() if ask.gpus else None
    return Capacity(f"this machine ({problem})" if problem else "this machine", (Nodes(has),))


def connected_cluster() -> Capacity:
    """What the cluster has that this process is connected to, and what its autoscaler could add."""
    import ray

    present = tuple(Nodes(node["Resources"]) for node in ray.nodes() if node["Alive"])
    config = ray.get(_remote(autoscaler_config).remote(ray.get_runtime_context().gcs_address))
    if config is None:
        return Capacity("the cluster", present, None)
    kinds = [kind for name, kind in config.get("available_node_types", {}).items() if name != config["head_node_type"]]
    most = int(config.get("max_workers", 0))
    startable = tuple(Nodes(kind["resources"], min(most, kind.get("max_workers", most))) for kind in kinds)
    return Capacity("the cluster", present, startable, most)


def autoscaler_config(gcs_address: str) -> dict[str, Any] | None:
    """The configuration of the cluster's autoscaler; empty if it adds no nodes. To be called on the head node.

    Ray does not tell which nodes an autoscaler could start, but its process was given the file that states it. None
    where that process is not on the head node's machine, as with KubeRay.
    """
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # It has ended meanwhile, or is not ours.
        if any(word.endswith("monitor.py") for word in words) and f"--gcs-address={gcs_address}" in words:
            option = "--autoscaling-config="
            file = next((word.removeprefix(option) for word in words if word.startswith(option)), None)
            return dict(yaml.safe_load(Path(file).expanduser().read_text())) if file else {}
    return None


def require(ask: Ask, capacity: Capacity) -> str | None:
    """Make sure that a stage can run; return a warning if that cannot be known.

    Raises:
        ResourceError: it never can.
    """
    if capacity.stages(ask):
        return None
    settings = f"resources.cpus={ask.cpus:g}, resources.gpus={ask.gpus:g}"
    settings += f", resources.workers={ask.processes}" if ask.processes > 1 else ""
    if capacity.startable is None:
        return (
            f"no node of the cluster has what a stage asks for yet: {ask} ({settings}). If its autoscaler starts one, "
            "the study begins then; otherwise it waits for ever: stop it with Ctrl-C and look at `ray status`"
        )
    ways = ["set less with --set resources.cpus=... or resources.workers=...", "use a larger machine or cluster"]
    if ask.gpus:
        ways = ["train on CPUs with --set resources.gpus=0", "use a machine or an --address that has the GPUs"]
        if ask.processes > 1:
            ways.insert(0, "set fewer workers with --set resources.workers=...")
    raise ResourceError(
        f"this study could never start\n  a stage asks for {ask} ({settings})\n  {capacity}\n  {', or '.join(ways)}"
    )


def require_usable_gpus() -> None:
    """Make sure that PyTorch can use the GPUs that the nodes of the connected cluster offer to Ray.

    A node whose GPUs are all taken does not answer; its stages look for themselves.

    Raises:
        ResourceError: on some node it cannot.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, num_gpus=LEAST_GPU, max_retries=0)(gpu_problem)
    nodes = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(): node
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU")
    }
    answered, silent = ray.wait([*nodes], num_returns=len(nodes), timeout=LOOK_SECONDS) if nodes else ([], [])
    for answer in silent:
        ray.cancel(answer, force=True)
    problems = {}
    for answer in answered:
        # A node that is lost meanwhile reports nothing, either.
        with suppress(RayError):
            if problem := ray.get(answer):
                problems[nodes[answer]["NodeManagerHostname"]] = problem
    if problems:
        raise ResourceError(
            "this study could not use its GPUs: Ray offers them, but PyTorch cannot use them\n"
            + "".join(f"  {host}: {problem}\n" for host, problem in sorted(problems.items()))
            + "  install a driver, and a PyTorch that is built for a CUDA version which the driver knows (nvidia-smi "
            "shows it), or train on CPUs with --set resources.gpus=0"
        )


def _remote(function: Any) -> Any:
    """The function as a Ray task on the head node, which holds nothing there."""
    import ray

    return ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})(function)


def _in_words(kinds: Iterable[Nodes]) -> str:
    counts: Counter[str] = Counter()
    for nodes in kinds:
        counts[_amounts({name: nodes.resources.get(name, 0) for name in ("CPU", "GPU")})] += nodes.count
    return ", ".join(f"{count} x ({text})" if count > 1 else text for text, count in counts.items()) or "no node"


def _amounts(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}{'' if 0 < amount <= 1 else 's'}" for name, amount in amounts.items())

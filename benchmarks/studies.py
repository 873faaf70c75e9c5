"""A study's stages run as ``study.ablation`` runs them, for benchmarks to time."""

from rich.console import Console

from study.config import StudyConfig
from study.graph import StageGraph
from study.storage import Storage
from study.tune.cluster import Cluster
from study.tune.experiment import Experiment


def run_stages(config: StudyConfig, graph: StageGraph, folder: str, slots: int) -> Experiment:
    """Run all stages of the graph on Ray of this machine, silently; none may fail."""
    experiment = Experiment(graph, Storage(folder), "timed", config.resources, config.data, Cluster(slots=slots))
    experiment.run(Console(quiet=True))
    assert len(experiment.ran) == len(graph.stages), experiment.failed
    return experiment

"""What can be chosen, by its names: known to the parsers of options before anything large is imported."""

from typing import Literal

Against = Literal["share", "latency"]
"""What a search weighs validation accuracy against: the share of connections pruned, or the net's latency."""
SamplerName = Literal["tpe", "gp", "nsga2", "cmaes", "random"]
LoggerName = Literal["mlflow", "trackio", "wandb"]
"""Experiment trackers, next to TensorBoard, that stages and tables can be logged to."""
MOST_SEEDS = 30
NEGLIGIBLE = 0.5
"""Percentage points of test accuracy that count as no difference when seeds are added until that is settled."""

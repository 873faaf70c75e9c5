"""The space of a search, and crossings of axes, as a configuration has them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from trainables.settings import Hyperparameters


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"the lower bound must be below the upper one, but {bounds[0]} is not below {bounds[1]}")
    return bounds


PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)
]
StepRange = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], AfterValidator(_ascending)]
CountRange = Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], AfterValidator(_ascending)]
RateRange = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], AfterValidator(_ascending)
]

ShareRange = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], Annotated[float, Field(gt=0, lt=1)]], AfterValidator(_ascending)
]


class SearchConfig(Hyperparameters):
    """The space of a search: bounds, both ends included, and choices."""

    tau: PositiveRange = (1.0, 16.0)
    """Bounds of ``transfer.tau``, on a logarithmic scale."""
    lambda_: Annotated[PositiveRange, Field(alias="lambda")] = (0.1, 10.0)
    """Bounds of ``transfer.lambda``, on a logarithmic scale."""
    n_m: CountRange = (1, 5)
    """Bounds of ``transfer.n_m``."""
    n_e: CountRange = (1, 5)
    """Bounds of ``transfer.n_e``."""
    learning_rate: PositiveRange = (0.003, 0.04)
    """Bounds of ``transfer.train.learning_rate``, on a logarithmic scale."""
    dropout: RateRange = (0.0, 0.7)
    """Bounds of ``transfer.train.dropout``."""
    weight_decay: PositiveRange = (1e-5, 1e-2)
    """Bounds of ``transfer.train.weight_decay``, on a logarithmic scale."""
    source_steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 4)
    """Steps of the source's prune schedule."""
    source_factor: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.5, 1.0, 1.5)
    """Factors on the shares that the source's prune schedule keeps in the end."""
    target_keep: ShareRange = (0.0125, 0.3)
    """Share of connections kept in the target, in a search against share; on a logarithmic scale."""
    neuron_steps: StepRange = (0, 12)
    """Steps of neuron pruning after the transfer, in a search against latency."""
    latency_batch: Annotated[int, Field(ge=1)] = 1
    """Images of the forward pass whose latency is measured."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1)
    """Seeds whose mean validation accuracy a trial is judged by."""
    final_seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (100, 101, 102)
    """Other seeds, with which the best settings and the study's own are trained and tested in the end."""

    @model_validator(mode="after")
    def _final_seeds_are_others(self) -> "SearchConfig":
        if both := sorted(set(self.seeds) & set(self.final_seeds)):
            raise ValueError(f"final_seeds has {both[0]}, by which the search selects: the final test needs others")
        return self


Design = Literal["factorial", "one-factor", "leave-one-out", "ladder"]


class CrossingConfig(Hyperparameters):
    """Combinations of the points of some axes, but for those left out."""

    axes: Annotated[tuple[str, ...], Field(min_length=2)]
    """Names of the axes."""
    design: Design = "factorial"
    """Every combination (``factorial``); each other point of an axis by itself (``one-factor``); all other points
    together, and all but that of each axis (``leave-one-out``); one axis after another, in their order (``ladder``).
    Other points are those that differ from the study's own; the last two designs want one of each axis."""
    skip: tuple[dict[str, Any], ...] = ()
    """Combinations to leave out: each a table of keys and values that such a combination has."""

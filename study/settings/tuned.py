"""Which nuisance settings each net is tuned over, as a configuration has it."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from trainables.settings import Hyperparameters

SECTIONS = ("transfer", "target_prune", "neuron_prune")
"""What may be tuned: the source is trained once for all nets."""
NETS_OWN = ("target_prune.keep", "target_prune.named")


class TunedConfig(Hyperparameters):
    """A separate search for each net, with one budget for all: nets are compared each at its best, too.

    At each seed, a net tries the settings, and that of the highest validation accuracy is the one that is tested.
    In a preset the keys may stand next to the budget: ``tuned: {transfer.tau: [2, 4, 8], budget: 3}``.
    """

    settings: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    """What is tuned: dotted keys of ``transfer``, ``target_prune`` and ``neuron_prune``, each with its values."""
    budget: Annotated[int, Field(ge=2)] = 8
    """Settings that each net tries, the study's own among them; if there are more combinations, they are drawn."""
    draw: int = 0
    """Seed of that draw."""

    @field_validator("settings")
    @classmethod
    def _of_the_target(cls, settings: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for key, values in settings.items():
            if key in NETS_OWN:
                raise ValueError(f"{key} decides which nets there are, not how they are trained")
            if key.partition(".")[0] not in SECTIONS:
                raise ValueError(f"{key} is the same for all nets: tune keys of {', '.join(SECTIONS)}")
            if twice := [value for place, value in enumerate(values) if value in values[:place]]:
                raise ValueError(f"{key} has {twice[0]} twice")
        return settings

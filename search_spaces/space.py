"""The space of a search: a conditional define-by-run function, and the cell that each of its points stands for.

Hyperparameters are asked for only where they apply: tau, lambda and N_e with an extra branch, the source's prune
schedule with a Sparse-SourceNet, and what the second objective depends on: the share of connections kept in the target
against share, the steps of neuron pruning against latency.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optuna

from search_spaces.axes import scaled
from search_spaces.cells import Cell, transfer_name
from study.settings.choices import Against
from study.settings.facts import hybrid_share
from study.settings.models import StudyConfig
from study.settings.overrides import with_changes
from trainables import networks, removals

Params = Mapping[str, Any]


def space(config: StudyConfig, *, against: Against | None) -> Callable[[optuna.Trial], None]:
    """The define-by-run function of a study's search.

    Args:
        config: the study; its ``search`` has the bounds.
        against: the second objective, if there is one.
    """
    bounds = config.search

    def suggest(trial: optuna.Trial) -> None:
        trial.suggest_int("n_m", *bounds.n_m)
        trial.suggest_float("learning_rate", *bounds.learning_rate, log=True)
        trial.suggest_float("dropout", *bounds.dropout)
        trial.suggest_float("weight_decay", *bounds.weight_decay, log=True)
        if trial.suggest_categorical("sparsity", ["none", "magnitude"]) == "magnitude":
            given = config.source.prune.is_given
            trial.suggest_categorical("source_steps", [1] if given else list(bounds.source_steps))
            trial.suggest_categorical("source_factor", [1.0] if given else list(bounds.source_factor))
        if trial.suggest_categorical("knowledge", ["none", "reference"]) == "reference":
            trial.suggest_float("tau", *bounds.tau, log=True)
            trial.suggest_float("lambda", *bounds.lambda_, log=True)
            trial.suggest_int("n_e", *bounds.n_e)
        if against == "share":
            trial.suggest_float("target_keep", *bounds.target_keep, log=True)
        elif against == "latency":
            trial.suggest_int("neuron_steps", *bounds.neuron_steps)

    return suggest


def own_params(config: StudyConfig, *, against: Against | None) -> dict[str, Any]:
    """The study's own settings as a point of its space.

    A study has no number of steps of neuron pruning, as it continues until accuracy falls: so its own point has as few
    as the bounds allow. With none, that is Hybrid-TransferNet as it is.
    """
    second: dict[Against | None, dict[str, Any]] = {
        None: {},
        "share": {"target_keep": config.target_prune.named[-1]},
        "latency": {"neuron_steps": config.search.neuron_steps[0]},
    }
    return {
        "n_m": max(1, config.transfer.n_m),
        "learning_rate": config.transfer.train.learning_rate,
        "dropout": config.transfer.train.dropout,
        "weight_decay": config.transfer.train.weight_decay,
        "sparsity": "magnitude",
        "source_steps": config.source.prune.steps,
        "source_factor": 1.0,
        "knowledge": "reference",
        "tau": config.transfer.tau,
        "lambda": config.transfer.lambda_,
        "n_e": config.transfer.n_e,
        **second[against],
    }


def outside(config: StudyConfig, *, against: Against | None) -> list[tuple[str, str]]:
    """What stands against a search, such as bounds without the study's own settings: pairs of key and message."""
    problems = []
    if config.target.data.retrain_on_validation:
        judged = "a search judges its trials by validation images, which must not be trained on"
        problems.append(
            ("target.data.retrain_on_validation", f"{judged}: set it in the study that runs the best settings")
        )
    bounds = config.search.model_dump(by_alias=True)
    for name, value in own_params(config, against=against).items():
        given = bounds.get(name)
        if given is None:
            continue
        if value is None:
            problems.append((f"transfer.train.{name}", "is null, the network's own: a search needs a number"))
            continue
        if not _inside(name, value, given):
            problems.append((f"search.{name}", f"is {list(given)}, which leaves out the study's own {value:g}"))
    depth = len(networks.layer_names(config.network))
    if bounds["n_m"][1] > depth:
        problems.append(("search.n_m", f"goes up to {bounds['n_m'][1]}, but {config.network} has {depth} layers"))
    if bounds["n_e"][1] > depth - 1:
        problems.append(("search.n_e", f"goes up to {bounds['n_e'][1]}, but an extra branch has at most {depth - 1}"))
    if against == "latency":
        problems += _steps_outside(config)
    return problems


def fitting(config: StudyConfig, params: Params) -> dict[str, Any]:
    """Those of the parameters of another search's trial that this study's space has, too."""
    bounds = config.search.model_dump(by_alias=True)
    if config.source.prune.is_given:
        bounds |= {"source_steps": [1], "source_factor": [1.0]}
    return {name: value for name, value in params.items() if name not in bounds or _inside(name, value, bounds[name])}


def _inside(name: str, value: Any, bounds: Any) -> bool:
    return value in bounds if name.startswith("source_") else bounds[0] <= value <= bounds[1]


def _steps_outside(config: StudyConfig) -> list[tuple[str, str]]:
    if config.neuron_prune is None:
        return [("neuron_prune", "is null, but a search against latency removes neurons")]
    upper, per_step = config.search.neuron_steps[1], config.neuron_prune.neurons_per_step
    most = len(removals.schedule(config.neuron_prune.params(None), config.network))
    if upper <= most:
        return []
    if config.neuron_prune.channels_per_step is not None:
        return [("search.neuron_steps", f"goes up to {upper}, but no layer has channels left after {most}")]
    widths = networks.inner_product_widths(config.network)
    layers = " and ".join(f"{layer} ({width} neurons)" for layer, width in widths.items())
    removing = f"removing {per_step} at a time (neuron_prune.neurons_per_step) from {layers} in turns ends after {most}"
    return [("search.neuron_steps", f"goes up to {upper}, but {removing}")]


def changes_of(config: StudyConfig, params: Params) -> dict[str, Any]:
    """What a point of the space changes of the study's configuration, by dotted key.

    Steps of neuron pruning change nothing there: a study removes neurons until accuracy falls.
    """
    # A trial's N_m is its net's, whichever net it is.
    changes: dict[str, Any] = {"transfer.n_m": params["n_m"], "transfer.standard_n_m": None}
    for name in ("learning_rate", "dropout", "weight_decay"):
        changes[f"transfer.train.{name}"] = params[name]
    if params["sparsity"] == "magnitude":
        changes["source.prune.steps"] = params["source_steps"]
        if params["source_factor"] != 1:
            changes["source.prune.keep"] = scaled(config.source.prune.final_shares, params["source_factor"])
    if params["knowledge"] == "reference":
        changes |= {f"transfer.{name}": params[name] for name in ("tau", "lambda", "n_e")}
    if "target_keep" in params:
        changes |= {"target_prune.keep": [params["target_keep"]], "target_prune.named": [params["target_keep"]]}
    return changes


def cell_of(config: StudyConfig, params: Params, seed: int, what: str) -> Cell:
    """The net that a point of the space stands for, at one seed; ``what`` names the point in errors."""
    own = with_changes(config, changes_of(config, params), what)
    sparsity, knowledge = params["sparsity"], params["knowledge"]
    name = transfer_name(sparsity, knowledge)
    if steps := params.get("neuron_steps", 0):
        name = f"{name} with fewer neurons"
        return Cell("search", name, seed, own, sparsity, knowledge, None, knowledge, neuron_steps=steps)
    keep = params.get("target_keep")
    share = hybrid_share(own) if sparsity == "magnitude" else 1.0
    if keep is None or (share is not None and keep >= share):
        # A net that keeps no more than was asked for is there already.
        return Cell("search", name, seed, own, sparsity, knowledge)
    return Cell("search", f"{name}, pruned", seed, own, sparsity, knowledge, keep, knowledge)

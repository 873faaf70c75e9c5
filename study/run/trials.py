"""A search's trials in order, as rows and as a preset, and what differs between two searches."""

import json
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces.space import changes_of
from study.config import StudyConfig, check, hybrid_share, with_changes
from study.tune.configurations import ACCURACY, LATENCY, LATENCY_MS, PRUNED


def ranked(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials by validation accuracy, the best first; ties go to the earlier trial."""
    return sorted(trials, key=lambda trial: (-trial.values[0], trial.number))


def trial_row(trial: FrozenTrial, chosen: set[int]) -> dict[str, Any]:
    """The trial's row of the trials table; ``chosen`` are the numbers of the best ones."""

    def mean(name: str) -> float | None:
        values = trial.user_attrs.get(name, [])
        return sum(values) / len(values) if values else None

    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return {
        "trial": trial.number,
        "state": states[trial.state],
        "origin": trial.user_attrs.get("origin", "sampler"),
        "hyperparameters": json.dumps(trial.params),
        "val_accuracy": mean(ACCURACY),
        "val_accuracies": trial.user_attrs.get(ACCURACY, []),
        "prune_percent": mean(PRUNED),
        "latency_percent": mean(LATENCY),
        "latency_ms": mean(LATENCY_MS),
        "best": trial.number in chosen,
        "stages": trial.user_attrs.get("stages", []),
    }


def best_preset(config: StudyConfig, trial: FrozenTrial, search: str) -> StudyConfig:
    """A trial's settings as a preset that study.ablation can run; its title has what no preset can state."""
    title = f"{config.title}: trial {trial.number} of the search {search}"
    if steps := trial.params.get("neuron_steps"):
        title += f", before its {steps} steps of neuron pruning"
    changes = {**changes_of(config, trial.params), "title": title}
    found = with_changes(config, changes, "the best trial")
    share = hybrid_share(found)
    if share is not None and found.target_prune.keep[0] >= share:
        # Hybrid-TransferNet keeps less than that already: such a preset continues with what lies below.
        below = [keep for keep in config.target_prune.keep if keep < share] or [round(share / 2, 6)]
        named = [keep for keep in config.target_prune.named if keep < share] or below[-1:]
        changes |= {"target_prune.keep": below, "target_prune.named": named}
    preset = with_changes(config, changes, "the best trial")
    check(preset, "the best trial")
    return preset


def differences(ours: Any, theirs: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two trees differ."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return [prefix.removeprefix("config.")] if ours != theirs else []
    keys = ours.keys() | theirs.keys()
    return [k for key in keys for k in differences(ours.get(key), theirs.get(key), f"{prefix}.{key}".lstrip("."))]

"""Whether an Optuna study is of this very search: then the search resumes with its trials."""

from collections.abc import Mapping
from typing import Any

import optuna
from pydantic import ValidationError

from study.config import ConfigError, StudyConfig
from study.run.trials import differences

RECORD = "search"
"""The attribute of an Optuna study that records what it is of."""
DECIDING = {"network", "source", "target", "transfer", "target_prune", "neuron_prune", "search", "streams", "fusion"}
"""Keys of a configuration that decide a search's results."""


def claim(study: optuna.Study, config: StudyConfig, settings: Mapping[str, Any], place: str) -> None:
    """Make sure that the Optuna study is of this very search, or record what search it is of.

    Args:
        study: the Optuna study.
        config: the search's configuration.
        settings: what else decides its trials.
        place: the storage, to be named in an error.

    Raises:
        ConfigError: it is of a search with other settings.
    """
    ours = {"config": _deciding(config), **settings}
    theirs = study.user_attrs.get(RECORD)
    if theirs is None:
        study.set_user_attr(RECORD, ours)
        return
    theirs = {**theirs, "config": _as_now(theirs["config"], config)}
    if theirs != ours:
        differing = ", ".join(sorted(differences(ours, theirs)))
        raise ConfigError(
            f"the search {study.study_name!r} in {place} was made with other settings: {differing}"
            "\n  give this one another --name, or the settings of that one"
        )


def _deciding(config: StudyConfig) -> dict[str, Any]:
    """What of a configuration decides a search's results: neither where data lie nor how it is reported."""
    content: dict[str, Any] = config.model_dump(mode="json", by_alias=True, include=DECIDING)
    for domain in ("source", "target"):
        content[domain]["data"].pop("path")
    if content["source"]["weights"] is not None:
        content["source"]["weights"].pop("file")
    return content


def _as_now(recorded: dict[str, Any], config: StudyConfig) -> dict[str, Any]:
    """A recorded configuration as this version would record it: keys that it did not know are at their defaults."""
    known = {name: value for name, value in recorded.items() if name in DECIDING}
    if weights := known["source"].get("weights"):
        known["source"] = {**known["source"], "weights": {"file": "", **weights}}
    try:
        return _deciding(StudyConfig.model_validate({**config.model_dump(mode="json", by_alias=True), **known}))
    except ValidationError:
        return recorded

"""The reference of the configuration: every key says what it means, and docs/configuration.md says what it says."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from study import pages
from study.ablation import main
from study.command import BAD_INPUT, OK
from study.config import StudyConfig, list_presets, read_config
from study.graph import plan
from study.settings import reference
from study.settings.overrides import with_changes

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == pages.configuration(), "run `make docs`"


def test_every_key_says_what_it_means() -> None:
    silent = [key.name for key in reference.keys().values() if not key.meaning]
    assert not silent, f"give these fields a docstring: {silent}"
    assert {"transfer.tau", "source.data.name", "crossings.NAME.axes", "search.tau"} <= reference.keys().keys()


def test_a_key_without_a_docstring_has_no_meaning() -> None:
    class Own(BaseModel):
        undescribed: int = 1

    assert [key.meaning for key in reference.keys_of(Own, "")] == [""]


@pytest.mark.parametrize("preset", list_presets())
def test_the_commented_configuration_is_the_configuration(preset: str) -> None:
    config = read_config(preset)
    text = reference.commented(config)
    assert StudyConfig.model_validate(yaml.safe_load(text)) == config
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert max(map(len, comments)) <= reference.WIDTH
    for line in ("# N_m: layers, from the top", "# Images per optimizer step"):
        assert text.count(line) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "another"),
        ("margin", 2.0),
        ("loggers", ["mlflow"]),
        ("resources.threads", 2),
        ("source.data.val_per_class", 40),
        ("source.seed", 3),
        ("source.train.epochs", 9),
        ("source.prune.steps", 3),
        ("target.data.train_per_class", 9),
        ("transfer.tau", 2.0),
        ("transfer.lambda", 0.5),
        ("transfer.hinton_factor", True),
        ("transfer.n_m", 3),
        ("transfer.standard_n_m", 1),
        ("transfer.n_e", 3),
        ("transfer.train.learning_rate", 0.002),
        ("target_prune.retrain.epochs", 3),
        ("neuron_prune.images_per_class", 5),
    ],
)
def test_a_key_is_used_by_the_stages_that_it_changes(key: str, value: Any) -> None:
    """The stage kinds whose own settings differ once a key changes are those that the reference names."""
    config = read_config("digits", ["seeds=1"])

    def specs(of: StudyConfig) -> set[tuple[str, str]]:
        stages = plan(of).stages.values()
        return {(stage.spec.kind, stage.spec.model_dump_json(by_alias=True)) for stage in stages}

    changed = {kind for kind, _ in specs(with_changes(config, {key: value}, "a test")) - specs(config)}
    said = reference.keys()[key].used_by
    if reference.PART_OF_NO_KEY in said:
        assert not changed
    else:
        assert changed and all(kind in said for kind in changed), (changed, said)


def test_explain_prints_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--explain", "transfer.tau"]) == OK
    text = capsys.readouterr().out
    for words in ("Temperature", "number > 0", "default:  4.0", "of nets with K", "digits"):
        assert words in text
    assert main(["--explain", "source.prune"]) == OK
    assert "source.prune.keep\n" in capsys.readouterr().out
    assert main(["--explain", "transfer.taus"]) == BAD_INPUT
    assert "did you mean 'transfer.tau'" in capsys.readouterr().err

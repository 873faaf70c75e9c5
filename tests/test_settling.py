"""Whether a study gets one more seed: what is settled, what the budget allows, and what a failed seed means."""

from collections.abc import Callable

import pytest

from analysis.loading import Results
from study.config import ConfigError, StudyConfig
from study.facts import SequentialDesign
from study.run.settling import Settling, more_seeds
from tests.analysis_study import Study

EFFECTS = {"Hybrid-TransferNet(S+K-)": 3.0, "Hybrid-TransferNet(S-K+)": 3.0, "Hybrid-TransferNet": 5.0}


def after(seeds: int, effects: dict[str, float], change: Callable[[Study], object] = lambda study: None) -> Results:
    study = Study(tuple(range(seeds)), sequential={"negligible": 0.5, "most_seeds": 8})
    study.simulate(effects)
    change(study)
    return study.results()


def settling(config: StudyConfig, seeds: int, hours: float | None = None) -> Settling:
    return Settling(config.model_copy(update={"seeds": seeds}), SequentialDesign(negligible=0.5, most_seeds=8), hours)


def test_it_ends_when_all_is_settled_and_goes_on_while_one_is_open(tiny_config: StudyConfig) -> None:
    done = settling(tiny_config, 7)
    words, goes_on = done.after_round(after(7, EFFECTS))
    assert not goes_on and "all are settled" in words and len(done.config.seed_list) == 7
    open_ = settling(tiny_config, 7)
    words, goes_on = open_.after_round(after(7, EFFECTS | {"Hybrid-TransferNet(S-K+)": 0.6}))
    assert goes_on and "one more: seed 7" in words and open_.config.seed_list == list(range(8))
    assert [line.split()[0] for line in words.splitlines()[1:4]] == ["settled", "open", "settled"]
    assert "no more seeds are allowed" in open_.after_round(after(8, {}))[0]


def test_no_round_begins_that_would_end_too_late(tiny_config: StudyConfig) -> None:
    assert "there is no time for another round" in settling(tiny_config, 3, hours=0.0).after_round(after(3, {}))[0]
    assert settling(tiny_config, 3, hours=1.0).after_round(after(3, {}))[1]


def test_a_seed_that_failed_where_it_matters_is_the_last(tiny_config: StudyConfig) -> None:
    study = settling(tiny_config, 3)
    assert study.after_round(after(3, {}))[1]
    words, goes_on = study.after_round(after(4, {}, lambda made: made.fail("Standard-TransferNet-3", "no memory")))
    assert not goes_on and "the last seed failed in all that is open" in words


def test_seeds_go_on_from_the_last(tiny_config: StudyConfig) -> None:
    assert more_seeds(tiny_config, 2).seed_list == [0, 1, 2]
    listed = tiny_config.model_copy(update={"seeds": [7, 3]})
    assert more_seeds(listed, 2).seed_list == [7, 3, 8, 9]
    with pytest.raises(ConfigError, match="the study has 9 seeds already, and --most-seeds is 8"):
        settling(tiny_config, 9)

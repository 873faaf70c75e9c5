"""A study and a search from Python: the documentation's own example, and where Ray runs already."""

import linecache
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from study import Outcome, SearchSettings, load_config, run_search, run_study, run_targets
from study.config import ConfigError, StudyConfig
from study.tune.cluster import ClusterError
from tests.commands import assert_same_results, table

DOCS = Path(__file__).parents[1] / "docs" / "python.md"


@pytest.fixture(scope="module")
def storage(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("api") / "storage"))


@pytest.fixture(scope="module")
def outcome(preset: Path, storage: Path) -> Outcome:
    return run_study(load_config(str(preset)), "tiny", storage=str(storage), slots=0, progress=False)


@pytest.fixture
def own_ray() -> Iterator[None]:
    """Ray as a notebook may have started it."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_a_study_gives_its_tables_and_its_report(outcome: Outcome, storage: Path) -> None:
    assert not outcome.failed and not ray.is_initialized()
    assert outcome.folder == str(storage / "studies" / "tiny") and Path(outcome.report).exists()
    assert outcome.results.cells["stage"].tolist() == table(storage, "cells")["stage"].tolist()
    assert len(repr(outcome)) < 1000  # what a prompt shows of it
    assert "Standard-TransferNet" in outcome.findings and outcome.findings in outcome._repr_markdown_()


def test_run_again_it_trains_nothing(
    outcome: Outcome, preset: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_study(load_config(str(preset)), "again", storage=str(storage), slots=0, progress=False)
    assert "nothing to train" in again.summary
    assert capsys.readouterr().out == ""
    assert_same_results(storage, storage, "tiny", "again")


@pytest.mark.usefixtures("own_ray")
def test_where_ray_runs_already_it_is_used_and_left_running(
    outcome: Outcome, preset: Path, storage: Path, tmp_path: Path
) -> None:
    """And another one is refused, with the way out."""
    with pytest.raises(ClusterError, match=r"leave the address 127.0.0.1:1 out .* or call ray.shutdown"):
        run_study(load_config(str(preset)), "other", storage=tmp_path, address="127.0.0.1:1", progress=False)
    assert ray.is_initialized()
    config = load_config(str(preset), {"seeds": [1], "ablations": ["tau"], "axes": {}})
    more = run_study(config, "joined", storage=str(storage), progress=False)
    assert not more.failed and "slots were busy" in more.summary
    assert ray.is_initialized() and ray.cluster_resources()["CPU"] == 2


def test_overrides_are_texts_or_values(preset: Path) -> None:
    texts = load_config(str(preset), ["transfer.tau=2", "axes={mine: [{transfer.tau: 1.0e-05}]}", "seeds=[3, 4]"])
    values = {"transfer.tau": 2, "axes": {"mine": [{"transfer.tau": 1e-5}]}, "seeds": [3, 4]}
    assert load_config(str(preset), values) == texts
    assert values["axes"] == {"mine": [{"transfer.tau": 1e-5}]}
    with pytest.raises(ConfigError, match=r"did you mean 'transfer\.tau'"):
        load_config(str(preset), {"transfer.tua": 2})


def test_a_study_that_cannot_start_leaves_no_ray(preset: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="no room"):
        patch.setattr("study.tune.experiment.Experiment._ray_folder", _no_room)
        run_study(load_config(str(preset)), "none", storage=tmp_path, progress=False)
    assert not ray.is_initialized()


def _no_room(*_: object) -> str:
    assert ray.is_initialized()
    raise RuntimeError("no room")


def test_a_configuration_that_was_changed_is_checked_again(tiny_config: StudyConfig, tmp_path: Path) -> None:
    wrong = tiny_config.model_copy(update={"network": "small_alexnot"})
    with pytest.raises(ConfigError, match="did you mean 'small_alexnet'"):
        run_study(wrong, "wrong", storage=str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "../elsewhere"}, "'../elsewhere' cannot name a folder"),
        ({"name": ""}, "cannot name a folder"),
        ({"name": "a\tb"}, r"'a\tb' cannot name a folder in the storage: give a name without control characters"),
        ({"name": "a\0"}, "without control characters"),
        ({"name": "a\udcff"}, "without control characters"),
        ({"name": "-a"}, "does not start with a dash"),
        ({"name": "a."}, "end with a dot"),
        ({"name": "a "}, "have spaces around it"),
        ({"name": "ä" * 101}, "at most 200 bytes"),
        ({"slots": -1}, "slots is -1: give 1 or more"),
        ({"slots": 0, "address": "auto"}, "slots=0 trains in this process, not at auto"),
        ({"hours": 1.0}, "hours limits the rounds of until_settled"),
    ],
)
def test_what_a_study_cannot_use_is_refused_first(
    tiny_config: StudyConfig, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises((ConfigError, ClusterError), match=re.escape(words)):
        run_study(tiny_config, **{"name": "tiny", "storage": tmp_path / "new", **arguments})
    assert not (tmp_path / "new" / "studies").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (SearchSettings(trials=0), "trials is 0"),
        (SearchSettings(sampler="tpf"), "no sampler 'tpf': did you mean 'tpe'?"),  # type: ignore[arg-type]
        (SearchSettings(against="latenci"), "did you mean 'latency'?"),  # type: ignore[arg-type]
        (SearchSettings(sampler="cmaes", against="share"), "only one objective"),
    ],
)
def test_what_a_search_cannot_use_is_refused_first(
    tiny_config: StudyConfig, tmp_path: Path, settings: SearchSettings, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        run_search(tiny_config, "search", settings, storage=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_the_page_on_python_runs(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 8
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(blocks):
        # The same lines, with a study that takes seconds.
        lines = block.replace('load_config("digits"', f'load_config("{preset}"').replace("trials=12", "trials=3")
        # As notebooks do, so that the source text of a function can be had.
        cell = f"<cell {number}>"
        linecache.cache[cell] = (len(lines), None, lines.splitlines(keepends=True), cell)
        exec(compile(lines, cell, "exec"), names)
        # One study shows that a notebook's Ray is used; the others train the same without it, in a fifth of the time.
        for run in (run_study, run_targets, run_search):
            monkeypatch.setitem(run.__kwdefaults__ or {}, "slots", 0)
    shown = capsys.readouterr().out
    assert "Standard-TransferNet" in shown and "best.yaml" in shown
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    assert names["rates"].results.cells["point"].nunique() == 2
    assert load_config(names["found"].best).search == names["config"].search
